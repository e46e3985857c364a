"""Finished maps of one area, read side by side on the cells of the first. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from rssc_geo.errors import InputError
from rssc_geo.inference.comparison import DateCells
from rssc_geo.inference.series import SeriesCells
from rssc_geo.models import UNKNOWN_CLASS, SceneClass
from rssc_geo.output import GEOMETRY, FinishedMap, read_cells, shown_classes

_CHUNK = 8192
_SAME_PLACE = 1e-3
"""Share of a cell's side: cells that differ by less are the same."""


class MapSeries:
    """Maps by ``classify`` of one area, the earliest first. Held in memory, with their outlines.

    Where the cells of a map are not those of the first, a cell has the class of the map at its
    center.

    Attributes
    ----------
    classes : those of all maps, ``Unknown`` last
    rows, cols, polygons : of the first map's cells, in the order of its grid
    crs : of the first map

    Raises ``InputError`` where a map cannot be read, is a merged one, or does not overlap the
    first one.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        maps = [FinishedMap(path) for path in paths]
        self.crs = maps[0].crs
        names = {name for finished in maps for name in finished.names}
        self.classes = shown_classes(maps, names | {UNKNOWN_CLASS})
        first = _MapTable.read(maps[0], self.classes)
        self.rows, self.cols, self.polygons = first.rows, first.cols, first.polygons
        self._dates = [first.cells]
        kept = np.ones(len(self.rows), bool)
        for finished in maps[1:]:
            other = _MapTable.read(finished, self.classes)
            places = _places(first, maps[0], other, finished)
            if not (places >= 0).any():
                raise InputError(
                    f"{finished.path} does not overlap {maps[0].path}: give maps of one place"
                )
            kept &= places >= 0
            self._dates.append(_taken(other.cells, np.maximum(places, 0)))
        self._kept = np.flatnonzero(kept)
        if not len(self._kept):
            raise InputError("no cell is shown by all of the maps: nothing can be compared")

    @property
    def shared(self) -> NDArray[np.int64]:
        """The cells of the first map that all maps show, (n,)."""
        return self._kept

    def cells(self) -> Iterator[SeriesCells]:
        """The cells that all maps show, in chunks."""
        for start in range(0, len(self._kept), _CHUNK):
            here = self._kept[start : start + _CHUNK]
            yield SeriesCells(
                self.rows[here], self.cols[here], [_taken(date, here) for date in self._dates]
            )


@dataclass(frozen=True, slots=True)
class _MapTable:
    """The cells of a map, by row and column."""

    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    cells: DateCells
    polygons: NDArray[np.object_]

    @classmethod
    def read(cls, finished: FinishedMap, classes: Sequence[SceneClass]) -> _MapTable:
        names = ("class", "confidence", "runner_up", "margin", "row", "col")
        layer = read_cells(finished.path, names)
        table = pa.Table.from_batches(layer.batches(), schema=layer.schema)
        rows, cols = (table[name].to_numpy() for name in ("row", "col"))
        order = np.lexsort((cols, rows))
        places = np.stack([rows, cols])[:, order]
        if (np.diff(places, axis=1) == 0).all(0).any():
            raise InputError(
                f"{finished.path} is the merged map of several scenes, whose grids differ: compare"
                " the maps of the scenes"
            )
        shown = finished.cells().codes[order]
        table = table.take(pa.array(order))
        polygons = np.asarray(shapely.from_wkb(table[GEOMETRY].to_numpy()))
        own = np.array(finished.names, object)[shown]
        return cls(rows[order], cols[order], _told(table, own, classes), polygons)


def _told(table: pa.Table, shown: NDArray[np.object_], classes: Sequence[SceneClass]) -> DateCells:
    """The cells of a map with the probabilities of two classes.

    A cell that was merged into a neighbor's region has the class ``shown`` with its own confidence;
    an Unknown one has its runner-up.
    """
    codes = {known.name: code for code, known in enumerate(classes)}
    own = table["class"].to_pylist()
    runners = table["runner_up"].to_pylist()
    confidence = table["confidence"].to_numpy().astype(np.float32)
    margin = np.nan_to_num(table["margin"].to_numpy().astype(np.float32))
    unknown = shown == UNKNOWN_CLASS
    probabilities = np.zeros((len(table), len(classes) - 1), np.float32)
    for place, name in enumerate(shown.tolist()):
        runner = runners[place]
        if name != UNKNOWN_CLASS:
            probabilities[place, codes[name]] = confidence[place]
            second = confidence[place] - margin[place]
        else:
            second = 1.0
        if runner in codes and (name == own[place]):
            probabilities[place, codes[runner]] = max(second, 0)
    return DateCells(probabilities, None, np.asarray(unknown, bool))


def _places(
    first: _MapTable, first_map: FinishedMap, other: _MapTable, other_map: FinishedMap
) -> NDArray[np.int64]:
    """The cell of another map that lies at each cell of the first, -1 where none does."""
    if first_map.crs == other_map.crs:
        by_grid = _by_grid(first, other)
        if by_grid is not None:
            return by_grid
    centers = shapely.centroid(first.polygons)
    if first_map.crs != other_map.crs:
        moved = Transformer.from_crs(first_map.crs, other_map.crs, always_xy=True).transform
        centers = shapely.transform(centers, moved, interleaved=False)
    found = np.full(len(centers), -1, np.int64)
    usable = np.flatnonzero(np.isfinite(shapely.get_coordinates(centers)).all(1))
    tree = shapely.STRtree(other.polygons)
    cell, place = tree.query(centers[usable], predicate="intersects")
    # A center on the border of two cells belongs to the first.
    cell, index = np.unique(cell, return_index=True)
    found[usable[cell]] = place[index]
    return found


def _by_grid(first: _MapTable, other: _MapTable) -> NDArray[np.int64] | None:
    """The same by rows and columns, where both maps are of one grid."""
    width = int(max(first.cols.max(), other.cols.max())) + 1
    keys, others = (each.rows.astype(np.int64) * width + each.cols for each in (first, other))
    at = np.minimum(np.searchsorted(others, keys), len(others) - 1)
    met = others[at] == keys
    if not met.any():
        return None
    one, two = shapely.bounds(first.polygons[met]), shapely.bounds(other.polygons[at[met]])
    side = np.abs(one[:, 2:] - one[:, :2]).max()
    if np.abs(one - two).max() > _SAME_PLACE * side:
        return None
    return np.where(met, at, -1)


def _taken(cells: DateCells, places: NDArray[np.int64]) -> DateCells:
    return DateCells(cells.probabilities[places], None, cells.unknown[places])
