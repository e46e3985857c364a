"""The transition matrix of two dates, as rows and as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rssc_geo.output.areas import area_in_words
from rssc_geo.output.change import ChangedCells
from rssc_geo.texts import write_csv

ARROW = "\N{RIGHTWARDS ARROW}"


@dataclass(frozen=True, slots=True)
class TransitionRow:
    """An entry of the transition matrix.

    Attributes
    ----------
    before, after : classes by name
    before_group, after_group : of the classes; empty where they have none
    cells, area_m2 : of ``before`` at the first date and ``after`` at the second
    changed_m2 : changed part: all where the classes differ; where they are the same, ground that
        was replaced by other ground of its class
    share : of the area that was compared
    """

    before: str
    after: str
    before_group: str
    after_group: str
    cells: int
    area_m2: float
    changed_m2: float
    share: float

    @property
    def name(self) -> str:
        """The transition in words: ``Forest → Farmland``, or what stayed: ``Forest``."""
        return transition_name(self.before, self.after)

    @property
    def is_change(self) -> bool:
        """Whether the class is another one."""
        return self.before != self.after

    @property
    def is_within_group(self) -> bool:
        """Whether the class is another one of the same group."""
        return self.is_change and self.before_group == self.after_group != ""


def transition_name(before: str, after: str) -> str:
    """``Forest → Farmland``; ``Forest`` for what stayed so.

    Examples
    --------
    >>> from rssc_geo.output import transition_name
    >>> transition_name("Forest", "Farmland"), transition_name("Forest", "Forest")
    ('Forest → Farmland', 'Forest')
    """
    return before if before == after else f"{before} {ARROW} {after}"


def transition_table(cells: ChangedCells) -> list[TransitionRow]:
    """The entries that occur: changes, the largest first, then the rest."""
    count = len(cells.classes)
    codes = cells.before.astype(np.int64) * count + cells.after
    numbers = np.bincount(codes, minlength=count**2)
    areas = np.bincount(codes, cells.areas_m2, minlength=count**2)
    changed = np.bincount(codes, cells.areas_m2 * cells.changed, minlength=count**2)
    whole = float(areas.sum()) or 1.0
    rows = [
        TransitionRow(
            cells.classes[code // count].name,
            cells.classes[code % count].name,
            cells.classes[code // count].group,
            cells.classes[code % count].group,
            int(numbers[code]),
            float(areas[code]),
            float(changed[code]),
            float(areas[code]) / whole,
        )
        for code in np.flatnonzero(numbers).tolist()
    ]
    return sorted(rows, key=lambda row: (not row.is_change, -row.area_m2, row.name))


def write_transition_table(
    path: Path,
    rows: Sequence[TransitionRow],
    adjusted: Mapping[str, Mapping[str, float | None]],
    *,
    overwrite: bool,
) -> None:
    """Write the transition matrix as CSV (UTF-8), an entry a row.

    ``adjusted``: by the transition's name, more columns; empty for none. Raises ``OutputError``
    where it cannot be written.
    """
    more = list(next(iter(adjusted.values()), {}))
    names = [
        *("from_class", "to_class", "from_group", "to_group", "cells", "area_m2", "area", "unit"),
        *("changed_m2", "changed", "share"),
    ]
    entries = []
    for row in rows:
        area, unit = area_in_words(row.area_m2)
        changed = area * row.changed_m2 / row.area_m2 if row.area_m2 else 0.0
        values = {
            "from_class": row.before,
            "to_class": row.after,
            "from_group": row.before_group,
            "to_group": row.after_group,
            "cells": row.cells,
            "area_m2": f"{row.area_m2:.12g}",
            "area": f"{area:.6g}",
            "unit": unit,
            "changed_m2": f"{row.changed_m2:.12g}",
            "changed": f"{changed:.6g}",
            "share": f"{row.share:.8g}",
        }
        entries.append({**values, **adjusted.get(row.name, {})})
    write_csv(path, [*names, *more], entries, overwrite=overwrite)
