"""Changes between dates as a file: regions of one change, and their cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rssc_geo.geometry import as_multipolygons, as_one_type, label_regions, squeezed, unite
from rssc_geo.output.layers import AREA_DECIMALS, GEOMETRY, Field, Layer, rounded
from rssc_geo.output.target import OutputTarget

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_CHUNK = 8192

_FROM = Field("from_class", "From", "text", "Name of the class before")
_TO = Field("to_class", "To", "text", "Name of the class after")
_AFTER = Field("last_seen", "Last seen", "text", "The last date that shows what was before")
_YEAR = Field("changed_by", "Changed by", "text", "The first date that shows the change")

CHANGE_FIELDS: tuple[Field, ...] = (
    _FROM,
    _TO,
    Field(
        "probability",
        "Probability",
        "real",
        "Probability that the ground changed, mean over the region's cells weighted by area",
    ),
    _AFTER,
    _YEAR,
    Field("area_m2", "Area (m²)", "real", "Geodesic area in square meters"),
    Field("cells", "Cells", "integer", "Number of grid cells in the region"),
)

CHANGE_CELL_FIELDS: tuple[Field, ...] = (
    _FROM,
    _TO,
    Field("probability", "Probability", "real", "Probability that the ground changed"),
    Field("changed", "Changed", "integer", "1 where it is large enough to count, else 0"),
    Field("from_confidence", "Confidence before", "real", "Probability of the class before"),
    Field("to_confidence", "Confidence after", "real", "Probability of the class after"),
    _AFTER,
    _YEAR,
    Field("row", "Cell row", "integer", "Row of the cell in the grid, from 0"),
    Field("col", "Cell column", "integer", "Column of the cell in the grid, from 0"),
)


@dataclass(frozen=True, slots=True)
class ChangedCells:
    """n cells that were compared, in the order in which they are written.

    Attributes
    ----------
    rows, cols : int32 (n,), place in the grid of the first date
    before, after : int16 (n,), into ``classes``
    before_confidence, after_confidence, probability : float32 (n,)
    changed : bool (n,)
    split : int8 (n,), of ``dates`` the first that shows the change, if there is one
    areas_m2 : float64 (n,), geodesic
    classes : names, titles, colors
    dates : labels, the earliest first
    crs : of the result
    polygons : polygons(indices) of some of the cells, in ``crs``
    geometry_type : of these, "Polygon" or "MultiPolygon"
    """

    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    before: NDArray[np.int16]
    after: NDArray[np.int16]
    before_confidence: NDArray[np.float32]
    after_confidence: NDArray[np.float32]
    probability: NDArray[np.float32]
    changed: NDArray[np.bool_]
    split: NDArray[np.int8]
    areas_m2: NDArray[np.float64]
    classes: tuple[SceneClass, ...]
    dates: tuple[str, ...]
    crs: CRS
    polygons: Callable[[NDArray[np.int64]], NDArray[np.object_]]
    geometry_type: str

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class ChangeRegion:
    """Connected cells with the same change.

    ``before``, ``after``: classes by name; ``bounds``: (first row, first column, row and column
    behind the last) of its cells in the grid.
    """

    before: str
    after: str
    probability: float
    last_seen: str
    changed_by: str
    area_m2: float
    cells: int
    bounds: tuple[int, int, int, int]


def write_change(
    target: OutputTarget, cells: ChangedCells, provenance: Mapping[str, object]
) -> list[ChangeRegion]:
    """Write the layers ``change`` (regions) and ``cells``; the regions, the largest first.

    A region is connected cells with the same classes before and after, and the same date.

    Parameters
    ----------
    target : of the result
    cells : those that all dates have
    provenance : plain data, kept with the layers

    Raises ``OutputError`` where it cannot be written.
    """
    regions, outlines = _find_regions(cells)
    layers = [_change_layer(regions, outlines, cells.crs), _cells_layer(cells)]
    present = [cells.classes[code] for code in np.union1d(cells.before, cells.after).tolist()]
    with target.staged() as staging:
        target.write_layers(staging, layers, classes=present, provenance=provenance)
    return sorted(regions, key=lambda region: -region.area_m2)


def _find_regions(cells: ChangedCells) -> tuple[list[ChangeRegion], NDArray[np.object_]]:
    """The regions, and their outlines, in the order of the grid."""
    where = np.flatnonzero(cells.changed)
    if not len(where):
        return [], np.empty(0, object)
    rows, cols, split = cells.rows[where], cells.cols[where], cells.split[where].astype(np.int64)
    before, after = cells.before[where].astype(np.int64), cells.after[where].astype(np.int64)
    count = len(cells.classes)
    places = squeezed(rows), squeezed(cols)
    grid = np.full([int(axis.max()) + 1 for axis in places], -1, np.int64)
    grid[places] = (split * count + before) * count + after
    labels = label_regions(grid, nothing=-1)[places]
    outlines = unite(cells.polygons(where), labels, int(labels.max()) + 1)
    order = np.argsort(labels, kind="stable")
    regions = []
    for members in np.split(order, np.cumsum(np.bincount(labels))[:-1]):
        one, areas = members[0], cells.areas_m2[where[members]]
        # Cells off the Earth have no area: their own mean, unweighted.
        weights = areas if areas.sum() > 0 else None
        regions.append(
            ChangeRegion(
                cells.classes[before[one]].name,
                cells.classes[after[one]].name,
                float(np.average(cells.probability[where[members]], weights=weights)),
                cells.dates[split[one] - 1],
                cells.dates[split[one]],
                float(areas.sum()),
                len(members),
                (
                    int(rows[members].min()),
                    int(cols[members].min()),
                    int(rows[members].max()) + 1,
                    int(cols[members].max()) + 1,
                ),
            )
        )
    return regions, outlines


def _change_layer(
    regions: Sequence[ChangeRegion], outlines: NDArray[np.object_], crs: CRS
) -> Layer:
    outlines, kind = as_one_type(outlines)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(regions), _CHUNK):
            part = regions[start : start + _CHUNK]
            columns = {
                "from_class": [region.before for region in part],
                "to_class": [region.after for region in part],
                "probability": rounded(np.array([region.probability for region in part])),
                "last_seen": [region.last_seen for region in part],
                "changed_by": [region.changed_by for region in part],
                "area_m2": rounded(np.array([region.area_m2 for region in part]), AREA_DECIMALS),
                "cells": [region.cells for region in part],
                GEOMETRY: shapely.to_wkb(outlines[start : start + _CHUNK]),
            }
            yield layer.batch(columns)

    layer = Layer(
        "change",
        "Change",
        "What changed by rssc-geo: one feature per connected region of one change.",
        CHANGE_FIELDS,
        kind,
        crs,
        batches,
    )
    return layer


def _cells_layer(cells: ChangedCells) -> Layer:
    kind = cells.geometry_type
    names = np.array([known.name for known in cells.classes], object)
    nothing = len(cells.dates)
    dates = np.array([*cells.dates, None], object)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(cells), _CHUNK):
            here = slice(start, start + _CHUNK)
            changed, split = cells.changed[here], cells.split[here].astype(np.intp)
            polygons = cells.polygons(np.arange(start, min(start + _CHUNK, len(cells))))
            if kind == "MultiPolygon":
                polygons = as_multipolygons(polygons)
            columns = {
                "from_class": names[cells.before[here]],
                "to_class": names[cells.after[here]],
                "probability": rounded(cells.probability[here]),
                "changed": changed.astype(np.int32),
                "from_confidence": rounded(cells.before_confidence[here]),
                "to_confidence": rounded(cells.after_confidence[here]),
                "last_seen": dates[np.where(changed, split - 1, nothing)],
                "changed_by": dates[np.where(changed, split, nothing)],
                "row": cells.rows[here],
                "col": cells.cols[here],
                GEOMETRY: shapely.to_wkb(polygons),
            }
            yield layer.batch(columns)

    layer = Layer(
        "cells",
        "Cells",
        "Grid cells compared by rssc-geo: one feature per cell that all dates have.",
        CHANGE_CELL_FIELDS,
        kind,
        cells.crs,
        batches,
    )
    return layer
