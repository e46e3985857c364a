"""The layers of a map: their fields, and streams of Arrow record batches for any format."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rssc_geo.geometry import Regions
from rssc_geo.output.partfile import PartFile, table_of
from rssc_geo.output.placement import Placement

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

GEOMETRY = "geom"
_CHUNK = 8192
_DECIMALS = 6  # decimals of probabilities, above the noise of float32
AREA_DECIMALS = 4
_TYPES = {"text": pa.string(), "integer": pa.int32(), "real": pa.float64()}

Kind = Literal["text", "integer", "real"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a layer: ``alias`` is its displayed name, ``description`` explains it."""

    name: str
    alias: str
    kind: Kind
    description: str


_CLASS = Field("class", "Class", "text", "Name of the most probable class")
_CLASS_ID = Field(
    "class_id", "Class number", "integer", "Number of the class in the model card, from 0"
)
_GROUP = Field("group", "Group", "text", "What the class is a kind of; empty where it has no group")

LANDUSE_FIELDS: tuple[Field, ...] = (
    _CLASS,
    _CLASS_ID,
    _GROUP,
    Field(
        "confidence",
        "Confidence",
        "real",
        "Probability of each cell's own class, mean over the region's cells weighted by area",
    ),
    Field("area_m2", "Area (m²)", "real", "Geodesic area in square meters"),
    Field("cells", "Cells", "integer", "Number of grid cells in the region"),
)

CELL_FIELDS: tuple[Field, ...] = (
    _CLASS,
    _CLASS_ID,
    _GROUP,
    Field("confidence", "Confidence", "real", "Probability of the class; 0 of Unknown"),
    Field(
        "familiarity",
        "Familiarity",
        "real",
        "Share of crops of the validation pictures that are less like what the model has learned",
    ),
    Field(
        "runner_up",
        "Runner-up",
        "text",
        "Name of the second most probable class; of an Unknown cell the most probable one",
    ),
    Field(
        "margin",
        "Margin",
        "real",
        "Probability of the class less that of the runner-up; 0 of Unknown",
    ),
    Field("caption", "Caption", "text", "What the captioner says about the scene"),
    Field("row", "Cell row", "integer", "Row of the cell in the grid, from 0"),
    Field("col", "Cell column", "integer", "Column of the cell in the grid, from 0"),
)


def probability_fields(classes: Sequence[SceneClass]) -> tuple[Field, ...]:
    """One ``p_<class>`` field a class, in their order; the class's real name is the alias."""
    slugs = _unique(
        (f"p_{_slug(scene_class.name) or scene_class.id}" for scene_class in classes), longest=60
    )
    return tuple(
        Field(slug, f"P({scene_class.name})", "real", f"Probability of {scene_class.name}")
        for slug, scene_class in zip(slugs, classes, strict=True)
    )


def short_names(fields: Sequence[Field]) -> list[str]:
    """Names of at most 10 characters, unique whatever the case, for a Shapefile's table."""
    return _unique((field.name for field in fields), longest=10)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to write or read; ``batches`` starts the stream again at every call."""

    name: str
    title: str
    description: str
    fields: tuple[Field, ...]
    geometry_type: str
    crs: CRS
    batches: Callable[[], Iterator[pa.RecordBatch]]

    @property
    def schema(self) -> pa.Schema:
        """The fields as Arrow columns, the geometry (WKB) last."""
        fields = [pa.field(field.name, _TYPES[field.kind]) for field in self.fields]
        return pa.schema(
            [
                *fields,
                pa.field(GEOMETRY, pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"}),
            ]
        )

    def batch(self, columns: Mapping[str, Any]) -> pa.RecordBatch:
        """Values by field, and WKB as ``GEOMETRY``, as a batch of the stream."""
        schema = self.schema
        arrays = [pa.array(columns[field.name], field.type) for field in schema]
        return pa.record_batch(arrays, schema=schema)


@dataclass(frozen=True, slots=True)
class RegionValues:
    """Attributes of n regions of the landuse layer.

    Attributes
    ----------
    confidence : (n,), of each cell's own class, mean weighted by area
    area_m2 : (n,), NaN of a region of which a clip leaves nothing
    cells : (n,), how many
    """

    confidence: NDArray[np.float64]
    area_m2: NDArray[np.float64]
    cells: NDArray[np.int64]

    @classmethod
    def of_cells(
        cls,
        labels: NDArray[np.integer[Any]],
        areas_m2: NDArray[np.float64],
        confidence: NDArray[np.floating[Any]],
        *,
        count: int,
    ) -> RegionValues:
        """The values of ``count`` regions by their cells: region, area and confidence, (cells,)."""
        cells = np.bincount(labels, minlength=count)
        area = np.bincount(labels, areas_m2, minlength=count).astype(np.float64)
        weighted = np.bincount(labels, areas_m2 * confidence, minlength=count)
        # Cells off the Earth have no area: their own mean, unweighted.
        plain = np.bincount(labels, confidence, minlength=count) / cells
        mean = np.where(area > 0, weighted / np.where(area > 0, area, 1), plain)
        return cls(mean, area, cells)


def landuse_layer(
    regions: Regions, values: RegionValues, *, classes: Sequence[SceneClass], placement: Placement
) -> Layer:
    """The ``landuse`` layer: one feature a region, but for those of which a clip leaves nothing."""
    names = np.array([scene_class.name for scene_class in classes], object)
    groups = _groups(classes)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(regions), _CHUNK):
            polygons = placement.clip(regions.polygons(start, start + _CHUNK))
            here = start + np.flatnonzero(~shapely.is_missing(polygons))
            class_ids = regions.class_ids[here]
            columns = {
                "class": names[class_ids],
                "class_id": class_ids,
                "group": groups[class_ids],
                "confidence": _real(values.confidence[here]),
                "area_m2": _real(values.area_m2[here], AREA_DECIMALS),
                "cells": values.cells[here],
                GEOMETRY: shapely.to_wkb(placement.place(polygons[here - start])),
            }
            yield layer.batch(columns)

    layer = Layer(
        "landuse",
        "Land use",
        "Land use classified by rssc-geo: one feature per connected region of one class.",
        LANDUSE_FIELDS,
        placement.geometry_type,
        placement.target,
        batches,
    )
    return layer


def cells_layer(
    part: PartFile,
    *,
    classes: Sequence[SceneClass],
    placement: Placement,
    probabilities: Sequence[SceneClass],
) -> Layer:
    """The ``cells`` layer: one feature a cell, straight from the part file.

    Cells of which a clip leaves nothing are left out. ``probabilities``: the named classes, where
    theirs are kept and shown; else none.
    """
    # -1: no runner-up
    names = np.array([*(scene_class.name for scene_class in classes), None], object)
    groups = _groups(classes)
    shares = probability_fields(probabilities)

    def batches() -> Iterator[pa.RecordBatch]:
        stored = (
            "row, col, class_id, confidence, coalesce(runner_up, -1), margin, familiarity, caption"
        )
        for cells in part.read(stored + (", probabilities" if shares else "")):
            rows, cols, class_ids, confidence, runner_up, margin, familiarity, captions, *blobs = (
                zip(*cells, strict=True)
            )
            row, col = np.array(rows, np.int32), np.array(cols, np.int32)
            polygons = placement.clip(placement.geo.polygons(row, col))
            kept = np.flatnonzero(~shapely.is_missing(polygons))
            classes_here = np.array(class_ids, np.int32)[kept]
            columns = {
                "class": names[classes_here],
                "class_id": classes_here,
                "group": groups[classes_here],
                "confidence": _real(np.array(confidence)[kept]),
                "familiarity": _real(np.array(familiarity, np.float64)[kept]),  # None becomes NaN
                "runner_up": names[np.array(runner_up)[kept]],
                "margin": _real(np.array(margin)[kept]),
                "caption": np.array(captions, object)[kept],
                "row": row[kept],
                "col": col[kept],
                GEOMETRY: shapely.to_wkb(placement.place(polygons[kept])),
            }
            if shares:
                table = table_of(blobs[0])[kept]
                columns |= {
                    field.name: _real(share) for field, share in zip(shares, table.T, strict=True)
                }
            yield layer.batch(columns)

    layer = Layer(
        "cells",
        "Cells",
        "Grid cells classified by rssc-geo: one feature per cell, with confidence, runner-up and"
        " caption.",
        CELL_FIELDS + shares,
        placement.geometry_type,
        placement.target,
        batches,
    )
    return layer


def _groups(classes: Sequence[SceneClass]) -> NDArray[np.object_]:
    """The group of each class, None where it has none."""
    return np.array([scene_class.group or None for scene_class in classes], object)


def rounded(values: NDArray[np.floating[Any]], decimals: int = _DECIMALS) -> NDArray[np.float64]:
    """Numbers as they are written: float64 with the decimals of probabilities, or as given."""
    return np.asarray(np.round(values.astype(np.float64), decimals))


def _real(values: NDArray[np.floating[Any]], decimals: int = _DECIMALS) -> pa.Array:
    """Numbers as they are written, NaN as null."""
    return pa.array(rounded(values, decimals), pa.float64(), from_pandas=True)


def _slug(name: str) -> str:
    """The name in lower-case ASCII letters, digits and underscores; empty where none is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")


def _unique(names: Iterable[str], *, longest: int) -> list[str]:
    """The names cut to length; one met before gets the first free number as its end."""
    taken: set[str] = set()
    unique = []
    for name in names:
        candidate, number = name[:longest], 1
        while candidate in taken:
            number += 1
            candidate = f"{name[: longest - len(str(number)) - 1]}_{number}"
        taken.add(candidate)
        unique.append(candidate)
    return unique
