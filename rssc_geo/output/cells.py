"""The layers of a finished map, read back whatever the format.

Report and review read all cells from here after a run: the file holds the cells of an interrupted
run beside those of the run that finished it, and no run has to keep them in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyogrio
from pyogrio.errors import DataLayerError
from pyproj import CRS

from rssc_geo.errors import InputError, UsageError, one_line
from rssc_geo.output.formats import format_of
from rssc_geo.output.layers import CELL_FIELDS, GEOMETRY, Field, Layer, short_names
from rssc_geo.raster import check_no_view

if TYPE_CHECKING:
    import geopandas as gpd

_BATCH = 8192
_MOST_ROWS = 100_000_000
_PLACE = (0, _MOST_ROWS)
_SHARE = (-1e-5, 1 + 1e-5)  # sums and differences of rounded ones
_OF_CELLS = {
    **dict.fromkeys(("class", "from_class", "to_class", GEOMETRY)),
    "confidence": _SHARE,
    "probability": _SHARE,
    "row": _PLACE,
    "col": _PLACE,
}
"""Fields that no cell lacks, with the least and largest value of numbers."""
_OF_REGIONS = {"class": None, "cells": (0, math.inf), "area_m2": (0, math.inf)}
"""The same of regions; of a snapped one there may be no cell's middle."""
_TOTALS = pa.schema(
    [
        pa.field("class", pa.string()),
        pa.field("group", pa.string()),
        pa.field("cells", pa.int64()),
        pa.field("area_m2", pa.float64()),
    ]
)
_ERRORS = (RuntimeError, OSError, ValueError, KeyError, TypeError, pa.ArrowException)
"""Of damaged files too; ``RuntimeError`` is the base of pyogrio's errors."""
_OGR_GEOMETRY = "wkb_geometry"  # GDAL's name of a geometry column without a name


@dataclass(frozen=True, slots=True)
class MapClass:
    """A class of a map: its name and group ("" for none), and its totals."""

    name: str
    group: str
    cells: int
    regions: int
    area_m2: float


def read_cells(
    output: Path, names: Sequence[str] | None = None, *, fields: Sequence[Field] = CELL_FIELDS
) -> Layer:
    """The cells of the map ``output`` as a layer in its CRS, without fields for probabilities.

    Parameters
    ----------
    output : the map's file
    names : of the fields that are wanted; by default all
    fields : that it has, by default those of a map

    Raises ``InputError``, here and while its batches are read, when the file cannot be read.
    """
    output_format = format_of(output)
    path = output_format.layer_path(output, "cells")
    check_no_view(str(path))
    parquet = path.suffix.lower() == ".parquet"
    inner = "cells" if output_format.multilayer else None
    wanted = tuple(field for field in fields if names is None or field.name in names)

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for table in (
                _parquet(path, layer.schema.names) if parquet else _ogr(path, inner, wanted, fields)
            ):
                chosen = table.select(layer.schema.names).cast(layer.schema)
                chosen.validate(full=True)  # texts that are no UTF-8
                _check(chosen, path, "cells", _OF_CELLS)
                yield from chosen.to_batches()
        except _ERRORS as error:
            raise _unreadable(path, error) from error

    try:
        stated = _parquet_crs(path) if parquet else pyogrio.read_info(path, layer=inner)["crs"]
        crs = None if stated is None else CRS(stated)
    except _ERRORS as error:
        raise _unreadable(path, error) from error
    if crs is None:
        raise InputError(f"{path} has no CRS any more: assign that of the map's raster to it")
    layer = Layer(
        "cells", "Cells", "Grid cells of a finished map.", wanted, "Unknown", crs, batches
    )
    return layer


def read_layer(output: Path, layer: str) -> gpd.GeoDataFrame:
    """The layer ``landuse`` or ``cells`` of the map ``output``; ``InputError`` if unreadable.

    ``UsageError`` for a layer that it does not have.
    """
    import geopandas as gpd

    output_format = format_of(output)
    path = output_format.layer_path(output, layer)
    if path.suffix.lower() == ".parquet":
        return read_geoparquet(path)
    check_no_view(str(path))
    try:
        return gpd.read_file(path, layer=layer if output_format.multilayer else None)
    except DataLayerError as error:
        there = ", ".join(map(str, pyogrio.list_layers(path)[:, 0]))
        raise UsageError(f"{path} has no layer {layer!r}; there are {there}") from error
    except _ERRORS as error:
        raise _unreadable(path, error) from error


def read_geoparquet(path: Path) -> gpd.GeoDataFrame:
    """A GeoParquet table, its checksums compared; ``InputError`` if unreadable."""
    import geopandas as gpd

    try:
        return gpd.read_parquet(path, page_checksum_verification=True)
    except _ERRORS as error:
        raise _unreadable(path, error) from error


def read_totals(output: Path) -> list[MapClass]:
    """What the ``landuse`` layer of the map ``output`` has of each class, by name.

    Raises ``InputError`` when the file cannot be read, or a region has no class, cells or area.
    """
    output_format = format_of(output)
    path = output_format.layer_path(output, "landuse")
    check_no_view(str(path))
    names = _TOTALS.names
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(path, columns=names, page_checksum_verification=True)
        else:
            inner = "landuse" if output_format.multilayer else None
            _, table = pyogrio.read_arrow(path, layer=inner, columns=names, read_geometry=False)
        table = table.select(names).cast(_TOTALS)
        table.validate(full=True)  # texts that are no UTF-8
        _check(table, path, "regions", _OF_REGIONS)
        sums = table.group_by("class").aggregate(
            [("group", "max"), ("cells", "sum"), ("cells", "count"), ("area_m2", "sum")]
        )
    except _ERRORS as error:
        raise _unreadable(path, error) from error
    found = [
        MapClass(
            name=row["class"],
            group=row["group_max"] or "",
            cells=row["cells_sum"],
            regions=row["cells_count"],
            area_m2=row["area_m2_sum"],
        )
        for row in sums.to_pylist()
    ]
    return sorted(found, key=lambda known: known.name)


def _check(
    table: pa.Table, path: Path, called: str, needed: Mapping[str, tuple[float, float] | None]
) -> None:
    """Refuse features that lack a value, or have one out of range: others have changed the file."""
    for name, bounds in needed.items():
        if name not in table.column_names:
            continue
        column = table[name]
        missing = column.null_count
        if pa.types.is_string(column.type):
            missing += pc.sum(pc.equal(column, "")).as_py() or 0
        if bounds is not None:
            inside = pc.and_(pc.greater_equal(column, bounds[0]), pc.less_equal(column, bounds[1]))
            odd = pc.invert(pc.and_(inside, pc.is_finite(column)))
            missing += pc.sum(odd).as_py() or 0
        if missing:
            raise InputError(
                f"{path} is damaged, or was edited: {missing} {called} have no valid {name}: make"
                " the map again"
            )


def _parquet(path: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(_BATCH, columns=names):
            yield pa.Table.from_batches([batch])


def _parquet_crs(path: Path) -> Any:
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    return geo["columns"][GEOMETRY]["crs"]


def _ogr(
    path: Path, inner: str | None, wanted: Sequence[Field], fields: Sequence[Field]
) -> Iterator[pa.Table]:
    names = [field.name for field in fields]
    short = short_names(fields) if path.suffix.lower() == ".shp" else names
    full = dict(zip(short, names, strict=True))
    stored = [name for name, of in full.items() if of in {field.name for field in wanted}]
    with pyogrio.open_arrow(
        path, layer=inner, columns=stored, batch_size=_BATCH, use_pyarrow=True
    ) as (meta, reader):
        geometry = meta["geometry_name"] or _OGR_GEOMETRY
        for batch in reader:
            table = pa.Table.from_batches([batch])
            yield table.rename_columns(
                [GEOMETRY if name == geometry else full[name] for name in table.column_names]
            )


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} cannot be read back ({one_line(error)}): it is damaged, or another program has it"
        " open; make the map again if waiting does not help"
    )
