"""The two layers as streams of Arrow record batches, whatever the format they go to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely
from affine import Affine
from pyproj import CRS

from rssc_geo.geometry import Regions, TileGrid, cell_polygons
from rssc_geo.output.fields import CELL_FIELDS, LANDUSE_FIELDS, Field, probability_fields
from rssc_geo.output.partfile import PartFile
from rssc_geo.output.placement import Placement

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

GEOMETRY = "geom"
_CHUNK = 8192
_DECIMALS = 6  # of probabilities: beyond lies the noise of float32
_AREA_DECIMALS = 4
_TYPES = {"text": pa.string(), "integer": pa.int32(), "real": pa.float64()}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer to write; ``batches`` starts the stream anew at every call."""

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


@dataclass(frozen=True, slots=True)
class RegionValues:
    """What the landuse layer says of each region.

    Area-weighted confidence, area in m², number of cells; (n,) each.
    """

    confidence: np.ndarray
    area_m2: np.ndarray
    cells: np.ndarray


def landuse_layer(
    regions: Regions, values: RegionValues, *, classes: Sequence[SceneClass], placement: Placement
) -> Layer:
    """The ``landuse`` layer: one feature a region.

    Regions of which a clip leaves nothing are left out.
    """
    names = np.array([scene_class.name for scene_class in classes], object)

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(regions), _CHUNK):
            polygons = placement.clip(regions.polygons(start, start + _CHUNK))
            here = start + np.flatnonzero(~shapely.is_missing(polygons))
            class_ids = regions.class_ids[here]
            columns = [
                pa.array(names[class_ids], pa.string()),
                pa.array(class_ids, pa.int32()),
                _real(values.confidence[here]),
                _real(values.area_m2[here], _AREA_DECIMALS),
                pa.array(values.cells[here], pa.int32()),
                _wkb(placement.place(polygons[here - start])),
            ]
            yield pa.record_batch(columns, schema=layer.schema)

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
    grid: TileGrid,
    *,
    transform: Affine,
    classes: Sequence[SceneClass],
    placement: Placement,
    probabilities: bool,
) -> Layer:
    """The ``cells`` layer: one feature a cell, straight from the part file.

    What a clip leaves nothing of is left out.
    """
    names = np.array(
        [*(scene_class.name for scene_class in classes), None], object
    )  # -1: no runner-up

    def batches() -> Iterator[pa.RecordBatch]:
        columns = "row, col, class_id, confidence, coalesce(runner_up, -1), margin, caption"
        for cells in part.read(columns + (", probabilities" if probabilities else "")):
            rows, cols, class_ids, confidence, runner_up, margin, captions, *blobs = zip(
                *cells, strict=True
            )
            row, col = np.array(rows, np.int32), np.array(cols, np.int32)
            polygons = placement.clip(cell_polygons(grid, transform, row, col))
            kept = np.flatnonzero(~shapely.is_missing(polygons))
            classes_here = np.array(class_ids, np.int32)[kept]
            arrays = [
                pa.array(names[classes_here], pa.string()),
                pa.array(classes_here, pa.int32()),
                _real(np.array(confidence)[kept]),
                pa.array(names[np.array(runner_up)[kept]], pa.string()),
                _real(np.array(margin)[kept]),
                pa.array(captions, pa.string()).take(pa.array(kept)),
                pa.array(row[kept], pa.int32()),
                pa.array(col[kept], pa.int32()),
            ]
            if probabilities:
                table = np.frombuffer(b"".join(blobs[0]), np.float32).reshape(
                    len(cells), len(classes)
                )[kept]
                arrays += [_real(table[:, index]) for index in range(len(classes))]
            yield pa.record_batch(
                [*arrays, _wkb(placement.place(polygons[kept]))], schema=layer.schema
            )

    layer = Layer(
        "cells",
        "Cells",
        "Grid cells classified by rssc-geo: one feature per cell, with confidence, runner-up and"
        " caption.",
        CELL_FIELDS + (probability_fields(classes) if probabilities else ()),
        placement.geometry_type,
        placement.target,
        batches,
    )
    return layer


def _real(values: np.ndarray, decimals: int = _DECIMALS) -> pa.Array:
    """Numbers as float64, NaN as null."""
    return pa.array(np.round(values.astype(np.float64), decimals), pa.float64(), from_pandas=True)


def _wkb(polygons: np.ndarray) -> pa.Array:
    return pa.array(shapely.to_wkb(polygons), pa.binary())
