"""The page of a change: the dates side by side, what became what, the largest changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssc_geo.files import atomic_write
from rssc_geo.geometry import Window
from rssc_geo.inference import Plan
from rssc_geo.output import (
    KEPT,
    KEPT_COLOR,
    ChangedCells,
    ChangeRegion,
    TransitionRow,
    area_unit,
    timestamp,
)
from rssc_geo.reports.page import render
from rssc_geo.reports.preview import length_label, read_overview
from rssc_geo.reports.report import Sheet, class_paths, jpeg, svg_matrix

_SIDE, _PATCH_SIDE = 1200, 220  # pixels of the pictures' longer sides
_LARGEST = 12
_AROUND = 0.5
"""Share of a region's longer side that is shown around it; at least a tile is shown."""


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Contents of the page.

    Attributes
    ----------
    cells, regions, transitions : as written, the largest regions first
    plans : of the scenes, by date; none for maps, of which no pictures are known
    uncompared_m2 : of the first date, without data at a later one
    adjusted : by transition, the adjusted area in words; empty without a reference
    facts : provenance, by label
    warnings : for the user
    """

    cells: ChangedCells
    regions: Sequence[ChangeRegion]
    transitions: Sequence[TransitionRow]
    plans: Sequence[Plan]
    uncompared_m2: float
    adjusted: Mapping[str, str]
    facts: Mapping[str, str]
    warnings: Sequence[str]


def write_change_page(path: Path, page: ChangePage, *, overwrite: bool) -> Path:
    """Write the page to ``path``, which is returned.

    Raises ``InputError`` when a raster cannot be read, ``OutputError`` when it cannot be written.
    """
    cells = page.cells
    colors = {known.name: known.color for known in cells.classes}
    titles = {known.name: known.title for known in cells.classes}
    compared = float(cells.areas_m2.sum())
    moved = [row for row in page.transitions if row.is_change]
    became_m2 = sum(row.area_m2 for row in moved)
    largest = sorted(page.regions, key=lambda region: region.before == region.after)
    ends = (0, len(cells.dates) - 1)
    values: dict[str, Any] = {
        "dates": cells.dates,
        "compared_m2": compared,
        "unit": area_unit(compared),
        "became_m2": became_m2,
        "share": became_m2 / (compared or 1.0),
        "within_group_m2": sum(row.area_m2 for row in moved if row.is_within_group),
        "kept_m2": float(cells.areas_m2[cells.changed].sum()) - became_m2,
        "uncompared_m2": page.uncompared_m2,
        "regions": sum(region.before != region.after for region in page.regions),
        "warnings": page.warnings,
        "maps": [
            {"date": cells.dates[number], **_map(page.plans[number], cells)}
            for number in (ends if page.plans else ())
        ],
        "transitions": [
            {
                "before": titles[row.before],
                "after": titles[row.after],
                "within_group": row.is_within_group,
                "before_color": colors[row.before],
                "after_color": colors[row.after],
                "area_m2": row.area_m2,
                "changed_m2": row.changed_m2,
                "share": row.share,
                "adjusted": page.adjusted.get(row.name, ""),
            }
            for row in page.transitions
        ],
        "is_adjusted": bool(page.adjusted),
        "largest": [
            {
                "before": titles[region.before],
                "after": titles[region.after],
                "probability": region.probability,
                "last_seen": region.last_seen,
                "changed_by": region.changed_by,
                "area_m2": region.area_m2,
                "pictures": _pictures(region, page.plans, cells.dates),
            }
            for region in largest[:_LARGEST]
        ],
        "facts": {**page.facts, "Made": timestamp()},
    }
    text = render("change.html", values, distance=length_label)
    with atomic_write(path, overwrite=overwrite) as made:
        made.write_text(text, encoding="utf-8")
    return path


def _map(plan: Plan, cells: ChangedCells) -> dict[str, Any]:
    """Data of the SVG map of a date: its picture, and the outlines of changes."""
    scene = plan.scene
    sheet = Sheet.of(scene.shape, scene.transform, scene.gsd_m)
    overview = read_overview(plan, side=_SIDE)
    looks = [{"color": known.color, "name": known.title} for known in cells.classes]
    looks.append({"color": KEPT_COLOR, "name": KEPT})
    return {
        "width": f"{sheet.size[0]:.2f}",
        "height": f"{sheet.size[1]:.2f}",
        "matrix": svg_matrix(sheet.to_sheet),
        "rows": scene.height,
        "cols": scene.width,
        "picture": jpeg(overview.pixels, overview.mask),
        "shapes": [
            {"path": path, **looks[code]}
            for code, path in class_paths(_became(plan, cells), plan.grid)
        ],
    }


def _became(plan: Plan, cells: ChangedCells) -> NDArray[np.int32]:
    """The class that changed cells became, -1 where none changed, (cell rows, cell columns).

    The number of classes where a changed cell kept its class.
    """
    grid = np.full(plan.grid.cells_shape, -1, np.int32)
    changed = cells.changed
    became = np.where(cells.before == cells.after, len(cells.classes), cells.after)
    grid[cells.rows[changed], cells.cols[changed]] = became[changed]
    return grid


def _pictures(
    region: ChangeRegion, plans: Sequence[Plan], dates: Sequence[str]
) -> list[dict[str, str]]:
    """The region at the last date that does not show the change, and at the first that does."""
    if not plans:
        return []
    window = _window(region, plans[0])
    longest = max(window.height, window.width)
    shape = (
        max(1, round(_PATCH_SIDE * window.height / longest)),
        max(1, round(_PATCH_SIDE * window.width / longest)),
    )
    pictures = []
    for date in (region.last_seen, region.changed_by):
        plan = plans[dates.index(date)]
        pictures.append({"date": date, "picture": jpeg(*plan.picture(window, shape))})
    return pictures


def _window(region: ChangeRegion, plan: Plan) -> Window:
    """Pixels around a region, within the raster."""
    first_row, first_col, last_row, last_col = region.bounds
    rows, cols = plan.grid.row_edges(), plan.grid.col_edges()
    edges = ((rows[first_row], rows[last_row]), (cols[first_col], cols[last_col]))
    longest = max(int(high - low) for low, high in edges)
    side = max(round(longest * (1 + 2 * _AROUND)), *plan.grid.size)
    places = []
    for (low, high), length in zip(edges, plan.scene.shape, strict=True):
        extent = min(side, length)
        start = min(max(int(low + high - extent) // 2, 0), length - extent)
        places.append((start, extent))
    (row, height), (col, width) = places
    return Window(row, col, height, width)
