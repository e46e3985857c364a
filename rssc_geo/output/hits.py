"""The cells that a search found, as a layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely

from rssc_geo.files import check_name, check_writable
from rssc_geo.geometry import as_one_type
from rssc_geo.output.formats import WGS84
from rssc_geo.output.geopackage import check_no_other_layers
from rssc_geo.output.layers import CELL_FIELDS, GEOMETRY, Field, Layer
from rssc_geo.output.target import OutputTarget, check_closed

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_CELL = {field.name: field for field in CELL_FIELDS}
HIT_FIELDS: tuple[Field, ...] = (
    Field("rank", "Rank", "integer", "Place among the cells found, from 1"),
    Field("score", "Score", "real", "Inner product of what was asked and the cell's embedding"),
    Field("scene", "Scene", "text", "Name of the scene in the archive"),
    Field("source", "Raster", "text", "Name of the scene's raster"),
    Field("date", "Date", "text", "When the scene was taken, in UTC; empty where that is unknown"),
    _CELL["class"],
    _CELL["group"],
    _CELL["confidence"],
    _CELL["caption"],
    _CELL["row"],
    _CELL["col"],
)


def middle_of(outline: shapely.Geometry) -> tuple[float, float]:
    """Longitude and latitude of a cell: the middle of its box.

    One that the antimeridian cuts is where its larger part is.
    """
    west, south, east, north = max(shapely.get_parts(outline), key=shapely.area).bounds
    return (west + east) / 2, (south + north) / 2


def hits_target(path: Path, *, overwrite: bool) -> OutputTarget:
    """The target of the cells found.

    Raises ``UsageError`` for an invalid name, ``OutputError`` for a file that cannot be
    written or must not be replaced.
    """
    target = OutputTarget(path, overwrite=overwrite)
    for file in target.format.files_of(path):
        check_name(file)
        check_writable(file, overwrite=overwrite)
    check_no_other_layers(path)
    check_closed(path)
    return target


def write_hits(
    target: OutputTarget,
    hits: Sequence[Mapping[str, object]],
    *,
    classes: Sequence[SceneClass],
    provenance: Mapping[str, object],
) -> None:
    """Write the layer ``hits``: the fields of ``HIT_FIELDS`` and ``geom``, in degrees.

    ``classes``: those that the styles show. Raises ``OutputError`` where it cannot be written.
    """
    outlines, kind = as_one_type(np.array([hit[GEOMETRY] for hit in hits], object))

    def batches() -> Iterator[pa.RecordBatch]:
        columns = {field.name: [hit[field.name] for hit in hits] for field in HIT_FIELDS}
        columns[GEOMETRY] = list(shapely.to_wkb(outlines))
        yield layer.batch(columns)

    layer = Layer(
        "hits",
        "Found cells",
        "Cells that rssc-geo found in an archive, the best first.",
        HIT_FIELDS,
        kind,
        WGS84,
        batches,
    )
    with target.staged([target.path]) as staging:
        target.write_layers(staging, [layer], classes=classes, provenance=provenance)
