"""The file of a sample: a GeoPackage whose layer ``sample`` has a unit a feature, ready to label.

It keeps what an estimator needs of the design, so that it can be assessed without the map from
which it was drawn, and other maps with it: the stratum of each unit, the stratum's size, the unit's
own area and its inclusion probability. Files made elsewhere are read too; what they lack is filled
in from the map, with a note.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rssc_geo.errors import InputError
from rssc_geo.geometry import as_one_type
from rssc_geo.output import (
    GEOMETRY,
    Field,
    Layer,
    LayerStyle,
    OutputTarget,
    provenance_document,
    sample_qml,
)
from rssc_geo.raster import class_name, read_features

log = logging.getLogger(__name__)

CANNOT_TELL = "cannot tell"
"""The label of a unit whose class cannot be recognized; it is left out of all figures."""

SAMPLE_FIELDS: tuple[Field, ...] = (
    Field("number", "Number", "integer", "Order of labeling: any first part is a sample too"),
    Field("class", "What is there", "text", "To be filled in, without looking at the map"),
    Field("note", "Note", "text", "Anything worth remembering of this unit"),
    Field("stratum", "Stratum", "text", "Class of the map within which the unit was drawn"),
    Field("unit", "Unit", "text", "What the label is of: the whole cell, or a point in it"),
    Field("inclusion", "Inclusion probability", "real", "Chance that this cell was drawn"),
    Field("stratum_cells", "Cells of the stratum", "integer", "Cells in the map"),
    Field("stratum_m2", "Area of the stratum (m²)", "real", "Geodesic area in the map"),
    Field("area_m2", "Area (m²)", "real", "Geodesic area of the unit's cell"),
    Field("row", "Cell row", "integer", "Row of the cell in the map's grid, from 0"),
    Field("col", "Cell column", "integer", "Column of the cell in the map's grid, from 0"),
)
_SIZES = ("stratum_cells", "stratum_m2")
_LARGEST = 1e15
"""Of cells and of m²: the Earth has 5.1e14 m²."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sample of n units that has been drawn, in the order of labeling.

    Attributes
    ----------
    strata : names of the H strata
    cells, areas_m2 : (H,), what the map has of each
    unit : "cell" or "point"
    stratum : (n,), into ``strata``
    geometry : (n,), polygons of cells or points, in ``crs``
    inclusion : (n,), the chance that the unit's cell was drawn
    unit_areas_m2 : (n,), of the cells
    rows, cols : (n,), the cells' places in the grid
    """

    strata: tuple[str, ...]
    cells: NDArray[np.int64]
    areas_m2: NDArray[np.float64]
    unit: str
    stratum: NDArray[np.int64]
    geometry: NDArray[np.object_]
    crs: CRS
    inclusion: NDArray[np.float64]
    unit_areas_m2: NDArray[np.float64]
    rows: NDArray[np.int32]
    cols: NDArray[np.int32]


def write_sample(
    target: OutputTarget,
    drawn: Drawn,
    *,
    answers: Sequence[str],
    provenance: Mapping[str, object],
) -> None:
    """Write a sample, with a form in QGIS that offers ``answers`` and ``CANNOT_TELL``.

    Parameters
    ----------
    target : of the sample
    drawn : its units
    answers : names of the classes that a unit can be
    provenance : plain data, kept with the layer

    Raises ``OutputError`` when it cannot be written.
    """
    count, stratum = len(drawn.stratum), drawn.stratum
    points = drawn.unit == "point"
    geometry, kind = (drawn.geometry, "Point") if points else as_one_type(drawn.geometry)

    def batches() -> Iterator[pa.RecordBatch]:
        columns = {
            "number": np.arange(1, count + 1),
            "class": [None] * count,
            "note": [None] * count,
            "stratum": np.array(drawn.strata, object)[stratum],
            "unit": [drawn.unit] * count,
            "inclusion": drawn.inclusion,
            "stratum_cells": drawn.cells[stratum],
            "stratum_m2": drawn.areas_m2[stratum],
            "area_m2": drawn.unit_areas_m2,
            "row": drawn.rows,
            "col": drawn.cols,
            GEOMETRY: shapely.to_wkb(geometry),
        }
        yield layer.batch(columns)

    layer = Layer(
        "sample",
        "Sample",
        "Units of a map to label for its assessment: fill in the field class.",
        SAMPLE_FIELDS,
        kind,
        drawn.crs,
        batches,
    )
    choices = [*answers, CANNOT_TELL]
    style = LayerStyle(
        "sample",
        "Units by whether they are labeled",
        sample_qml(SAMPLE_FIELDS, choices, cannot_tell=CANNOT_TELL, points=points),
        default=True,
    )
    with target.staged([target.path]) as staging:
        document = provenance_document(provenance)
        target.write_layers(staging, [layer], classes=(), provenance=document, style=style)


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference labels as they stand in a file, n units.

    Attributes
    ----------
    path : for messages
    geometry : (n,), points or polygons in ``crs``
    labels : (n,), class names; "" where there is none
    cannot_tell : bool (n,), labeled ``CANNOT_TELL``
    strata : (n,), names; None where the file has none
    cells, areas_m2 : of each stratum by name; empty where the file does not state them
    of_cells : whether units are cells, which are finite in number
    unit_areas_m2 : (n,), None where the file does not state them
    """

    path: str
    geometry: NDArray[np.object_]
    crs: CRS
    labels: NDArray[np.object_]
    cannot_tell: NDArray[np.bool_]
    strata: NDArray[np.object_] | None
    cells: Mapping[str, int]
    areas_m2: Mapping[str, float]
    of_cells: bool
    unit_areas_m2: NDArray[np.float64] | None


def read_reference(path: str, field: str) -> Reference:
    """Read reference labels: those of ``write_sample``, or any points or polygons with a column.

    Columns ``stratum``, ``stratum_cells`` or ``stratum_m2`` and ``area_m2`` are used where they are
    there.

    Parameters
    ----------
    path : vector file
    field : column of the labels

    Raises ``InputError`` for a file or column that is not there or cannot be used.
    """
    frame = read_features(path, field)
    geometry = np.asarray(frame.geometry)
    kinds = set(frame.geom_type.dropna())
    if strange := sorted(kinds - {"Point", "Polygon", "MultiPolygon"}):
        raise InputError(f"{path} holds {strange[0]}; reference labels are points or polygons")
    if lost := int((shapely.is_missing(geometry) | shapely.is_empty(geometry)).sum()):
        raise InputError(f"{path}: {lost} features have no place")
    labels = np.array([class_name(value) for value in frame[field]], object)
    cannot = np.array([label.casefold() == CANNOT_TELL for label in labels], bool)
    labels[cannot] = ""
    strata = None
    sizes: dict[str, dict[str, float]] = {name: {} for name in _SIZES}
    if "stratum" in frame:
        strata = np.array([class_name(value) for value in frame["stratum"]], object)
        if (strata == "").any():
            raise InputError(f"{path}: {int((strata == '').sum())} features have no stratum")
        for name in set(_SIZES).intersection(frame.columns):
            sizes[name] = _sizes(path, strata, name, frame[name])
    areas = None
    if "area_m2" in frame:
        areas = pd.to_numeric(frame["area_m2"], errors="coerce").to_numpy(np.float64)
        if not ((areas > 0) & (areas <= _LARGEST)).all():
            raise InputError(f"{path}: column 'area_m2' holds what is no area above 0")
    units = set(frame["unit"]) if "unit" in frame else {"cell"} if sizes["stratum_cells"] else set()
    return Reference(
        path,
        geometry,
        frame.crs,
        labels,
        cannot,
        strata,
        {name: int(value) for name, value in sizes["stratum_cells"].items()},
        sizes["stratum_m2"],
        units == {"cell"},
        areas,
    )


def _sizes(
    path: str, strata: NDArray[np.object_], column: str, values: pd.Series
) -> dict[str, float]:
    """The one size that each stratum has in a column."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    least = 1.0 if column == "stratum_cells" else np.finfo(float).tiny
    found: dict[str, float] = {}
    for name, value in zip(strata.tolist(), numbers.tolist(), strict=True):
        if not least <= value <= _LARGEST or found.setdefault(name, value) != value:
            raise InputError(
                f"{path}: column {column!r} gives stratum {name!r} no size, or several"
            )
    return found
