"""A map made from the cells of another, without raster or model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from scipy import ndimage

from rssc_geo.geometry import (
    as_one_type,
    geodesic_area_m2,
    label_regions,
    merge_small,
    squeezed,
    unite,
)
from rssc_geo.output.layers import (
    AREA_DECIMALS,
    CELL_FIELDS,
    GEOMETRY,
    LANDUSE_FIELDS,
    Field,
    Layer,
    RegionValues,
    rounded,
)
from rssc_geo.output.target import OutputTarget

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_CHUNK = 8192
_NOTHING = -1
_LAYERS: Mapping[str, tuple[str, str, tuple[Field, ...]]] = {
    "landuse": (
        "Land use",
        "Regions of one class, made by rssc-geo of the cells of another map.",
        LANDUSE_FIELDS,
    ),
    "cells": ("Cells", "Grid cells of a map by rssc-geo, with other classes.", CELL_FIELDS),
}
"""Of each layer by its name: title, description and fields."""


@dataclass(frozen=True, slots=True)
class RefinedCells:
    """n cells with their attributes, in the order in which they are written.

    Attributes
    ----------
    columns : a table with ``CELL_FIELDS`` but for class, number and group
    codes : (n,), into ``classes``
    classes : with colors and titles; ``numbers``: their numbers in the map, None: none
    polygons : (n,), in ``crs``
    """

    columns: pa.Table
    codes: NDArray[np.int64]
    classes: tuple[SceneClass, ...]
    numbers: tuple[int | None, ...]
    polygons: NDArray[np.object_]
    crs: CRS


def majority_filter(classes: NDArray[np.int64], times: int) -> NDArray[np.int64]:
    """The class that most of each cell and its eight neighbors have.

    Of equals its own, else the first. ``classes``: (cell rows, cell columns), below 0 for none,
    which stay unchanged and do not vote. A pass that changes nothing is the last one, and of two
    states that follow each other for ever the one after ``times`` passes counts.
    """
    before = classes
    for done in range(1, times + 1):
        voted = _most_of_neighbors(classes)
        if np.array_equal(voted, before):
            return voted if (times - done) % 2 == 0 else classes
        before, classes = classes, voted
    return classes


def _most_of_neighbors(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """One pass of ``majority_filter``."""
    kernel = np.ones((3, 3), np.int16)
    best = classes.copy()
    own = np.zeros(classes.shape, np.int16)
    most = np.zeros(classes.shape, np.int16)
    for code in np.unique(classes[classes >= 0]).tolist():
        votes = ndimage.convolve((classes == code).astype(np.int16), kernel, mode="constant")
        own[classes == code] = votes[classes == code]
        better = votes > most
        best[better], most[better] = code, votes[better]
    return np.where((classes >= 0) & (most > own), best, classes)


def write_refined(
    target: OutputTarget,
    cells: RefinedCells,
    *,
    majority: int,
    provenance: Mapping[str, object],
) -> tuple[NDArray[np.int64], RegionValues]:
    """Dissolve the cells into regions and write both layers.

    ``majority``: how often the majority filter runs before small regions (``target.min_area``) join
    a neighbor; both change regions alone, since the cells are the model's results. Returns the
    class (regions,), into ``cells.classes``, and the values of each region. Raises ``OutputError``
    where it cannot be written.
    """
    rows, cols = (squeezed(cells.columns.column(name).to_numpy()) for name in ("row", "col"))
    shape = (int(rows.max()) + 1, int(cols.max()) + 1)
    grid = np.full(shape, _NOTHING, np.int64)
    grid[rows, cols] = cells.codes
    sizes = geodesic_area_m2(cells.polygons, cells.crs)
    if majority:
        grid = majority_filter(grid, majority)
    if target.min_area > 0:
        areas = np.zeros(shape)
        areas[rows, cols] = sizes
        grid = merge_small(grid, areas, min_area=target.min_area, nothing=_NOTHING)
    labels = label_regions(grid, nothing=_NOTHING)[rows, cols]
    count = int(labels.max()) + 1
    shown = np.zeros(count, np.int64)
    shown[labels] = grid[rows, cols]
    confidence = cells.columns.column("confidence").to_numpy()
    values = RegionValues.of_cells(labels, sizes, confidence, count=count)
    regions = pa.table(
        {
            **_named(cells, shown),
            "confidence": rounded(values.confidence),
            "area_m2": rounded(values.area_m2, AREA_DECIMALS),
            "cells": pa.array(values.cells, pa.int32()),
        }
    )
    own = {name: cells.columns.column(name) for name in cells.columns.column_names}
    of_cells = pa.table({**_named(cells, cells.codes), **own})
    layers = [
        _layer("landuse", regions, unite(cells.polygons, labels, count), cells.crs),
        _layer("cells", of_cells, cells.polygons, cells.crs),
    ]
    present = [cells.classes[code] for code in np.union1d(shown, cells.codes).tolist()]
    with target.staged() as staging:
        target.write_layers(staging, layers, classes=present, provenance=provenance)
    return shown, values


def _named(cells: RefinedCells, codes: NDArray[np.int64]) -> dict[str, pa.Array]:
    """Class, number and group of features."""
    names = np.array([known.name for known in cells.classes], object)
    groups = np.array([known.group or None for known in cells.classes], object)
    numbers = np.array(cells.numbers, object)
    return {
        "class": pa.array(names[codes], pa.string()),
        "class_id": pa.array(numbers[codes], pa.int32()),
        "group": pa.array(groups[codes], pa.string()),
    }


def _layer(name: str, table: pa.Table, outlines: NDArray[np.object_], crs: CRS) -> Layer:
    """A layer of ``_LAYERS``: of a table with a column a field, and the outlines of its rows."""
    title, description, fields = _LAYERS[name]
    outlines, kind = as_one_type(outlines)
    table = table.append_column(GEOMETRY, pa.array(shapely.to_wkb(outlines), pa.binary()))

    def batches() -> Iterator[pa.RecordBatch]:
        whole = table.select(layer.schema.names).cast(layer.schema)
        yield from whole.to_batches(max_chunksize=_CHUNK)

    layer = Layer(name, title, description, fields, kind, crs, batches)
    return layer
