"""The result of ``change``, read back as a map of transitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rssc_geo.errors import InputError, UsageError
from rssc_geo.geometry import geodesic_area_m2
from rssc_geo.output.cells import MapClass, read_cells
from rssc_geo.output.change import CHANGE_CELL_FIELDS
from rssc_geo.output.finished import FinishedMap, MapCells
from rssc_geo.output.transitions import transition_name


class ChangeMap(FinishedMap):
    """The result of ``change`` as a map whose classes are transitions: ``Forest → Farmland``.

    A sample of it can be drawn and labeled, and its areas adjusted, like those of any map. The
    confidence of a cell is that of its state, changed or unchanged.
    """

    _fields = CHANGE_CELL_FIELDS

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{self.path} does not exist")
        try:
            self.crs = read_cells(self.path, ("row",), fields=self._fields).crs
            self._cells, names = self._read()
        except (InputError, KeyError) as error:
            raise InputError(f"{self.path} is no result of change that can be read") from error
        self._check_place()
        areas = np.zeros(len(names))
        for start, polygons in self.outlines():
            here = self._cells.codes[start : start + len(polygons)]
            areas += np.bincount(here, geodesic_area_m2(polygons, self.crs), minlength=len(names))
        counts = np.bincount(self._cells.codes, minlength=len(names)).tolist()
        self.classes = tuple(
            MapClass(name, "", count, count, area)
            for name, count, area in zip(names, counts, areas.tolist(), strict=True)
        )

    def cells(self) -> MapCells:
        """All cells, without their outlines."""
        return self._cells

    def _read(self) -> tuple[MapCells, list[str]]:
        """The cells, and the names of their transitions."""
        codes: dict[str, int] = {}
        parts = []
        wanted = ("from_class", "to_class", "probability", "changed", "row", "col")
        for batch in read_cells(self.path, wanted, fields=self._fields).batches():
            both = zip(*(batch.column(name).to_pylist() for name in wanted[:2]), strict=True)
            own = [codes.setdefault(transition_name(*pair), len(codes)) for pair in both]
            probability = batch.column("probability").to_numpy()
            changed = batch.column("changed").to_numpy() == 1
            parts.append(
                MapCells(
                    batch.column("row").to_numpy(),
                    batch.column("col").to_numpy(),
                    np.array(own, np.int16),
                    np.where(changed, probability, 1 - probability).astype(np.float32),
                )
            )
        if not parts:
            raise InputError(f"{self.path} has no cells")
        columns = ("rows", "cols", "codes", "confidence")
        cells = (np.concatenate([getattr(part, name) for part in parts]) for name in columns)
        return MapCells(*cells), list(codes)


def open_map(path: str | Path, *, translated: bool) -> FinishedMap:
    """A finished map, or the result of ``change``, opened to be read.

    ``translated``: whether it is to be translated to another legend, which is refused for changes.
    Raises ``UsageError`` for that, and ``InputError`` as both do.
    """
    try:
        return FinishedMap(path)
    except InputError:
        try:
            changes = ChangeMap(path)
        except InputError:
            changes = None
        if changes is None:
            raise
    if translated:
        raise UsageError(f"{path} is a result of change: give --legend to change itself")
    return changes
