"""The table of a map's cells with their embeddings: GeoParquet that any tool reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely
from pyproj import CRS

from rssc_geo.output.layers import GEOMETRY
from rssc_geo.output.partfile import PartFile, table_of
from rssc_geo.output.placement import Placement

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

EMBEDDING = "embedding"
_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class EmbeddingSource:
    """The common values of a scene's rows.

    ``scene``: its name; ``date``: when it was taken, if that is known; ``model``, ``version``: of
    the bundle, whose embeddings have ``width`` numbers.
    """

    scene: str
    date: datetime | None
    model: str
    version: str
    width: int


@dataclass(frozen=True, slots=True)
class EmbeddingLayer:
    """A stream of rows to be written; ``batches`` starts it again at every call."""

    schema: pa.Schema
    crs: CRS
    batches: Callable[[], Iterator[pa.RecordBatch]]


def embedding_schema(width: int) -> pa.Schema:
    """The columns of the table; ``embedding`` holds ``width`` float16, a unit vector."""
    return pa.schema(
        [
            pa.field("scene", pa.string()),
            pa.field("date", pa.timestamp("ms", tz="UTC")),
            pa.field("class", pa.string()),
            pa.field("group", pa.string()),
            pa.field("confidence", pa.float64()),
            pa.field("caption", pa.string()),
            pa.field("row", pa.int32()),
            pa.field("col", pa.int32()),
            pa.field("model", pa.string()),
            pa.field("version", pa.string()),
            pa.field(EMBEDDING, pa.list_(pa.float16(), width)),
            pa.field(GEOMETRY, pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"}),
        ]
    )


def embedding_layer(
    part: PartFile,
    source: EmbeddingSource,
    *,
    classes: Sequence[SceneClass],
    placement: Placement,
) -> EmbeddingLayer:
    """The cells of a part file that keeps their embeddings, in row-major order.

    Cells of which a clip leaves nothing are left out.
    """
    schema = embedding_schema(source.width)
    names = np.array([known.name for known in classes], object)
    groups = np.array([known.group or None for known in classes], object)

    def batches() -> Iterator[pa.RecordBatch]:
        for cells in part.read("row, col, class_id, confidence, caption, embedding"):
            rows, cols, class_ids, confidence, captions, halves = zip(*cells, strict=True)
            row, col = np.array(rows, np.int32), np.array(cols, np.int32)
            polygons = placement.clip(placement.geo.polygons(row, col))
            kept = np.flatnonzero(~shapely.is_missing(polygons))
            ids = np.array(class_ids, np.int32)[kept]
            vectors = table_of(halves, np.float16)[kept]

            def all_of(value: object, name: str, count: int = len(kept)) -> pa.Array:
                return pa.array([value] * count, schema.field(name).type)

            columns = {
                "scene": all_of(source.scene, "scene"),
                "date": all_of(source.date, "date"),
                "class": pa.array(names[ids], pa.string()),
                "group": pa.array(groups[ids], pa.string()),
                "confidence": pa.array(np.round(np.array(confidence)[kept], 6)),
                "caption": pa.array(captions, pa.string()).take(pa.array(kept)),
                "row": pa.array(row[kept]),
                "col": pa.array(col[kept]),
                "model": all_of(source.model, "model"),
                "version": all_of(source.version, "version"),
                EMBEDDING: pa.FixedSizeListArray.from_arrays(
                    pa.array(vectors.ravel()), source.width
                ),
                GEOMETRY: pa.array(shapely.to_wkb(placement.place(polygons[kept])), pa.binary()),
            }
            yield pa.record_batch([columns[name] for name in schema.names], schema=schema)

    return EmbeddingLayer(schema, placement.target, batches)
