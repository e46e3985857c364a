"""The layers of a finished map, read back whatever the format.

What is made of all cells after a run (report, review) is read from here: the file holds the cells
of an interrupted run beside those of the run that finished it, and no run has to keep them in
memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
from pyproj import CRS

from rssc_geo.errors import InputError
from rssc_geo.output.formats import format_of
from rssc_geo.output.layers import CELL_FIELDS, GEOMETRY, Layer, short_names

if TYPE_CHECKING:
    import geopandas as gpd

_BATCH = 8192
_OGR_GEOMETRY = "wkb_geometry"  # what GDAL calls a geometry column that has no name


def read_cells(output: Path) -> Layer:
    """The cells of the map ``output`` as a layer in its CRS, without fields for probabilities.

    Here and while its batches are read: ``InputError`` when the file cannot be read.
    """
    output_format = format_of(output)
    path = output_format.layer_path(output, "cells")
    parquet = path.suffix.lower() == ".parquet"
    inner = "cells" if output_format.multilayer else None

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for table in _parquet(path) if parquet else _ogr(path, inner):
                yield from table.select(layer.schema.names).cast(layer.schema).to_batches()
        # RuntimeError: base of pyogrio's errors.
        except (RuntimeError, OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error

    try:
        crs = _parquet_crs(path) if parquet else CRS(pyogrio.read_info(path, layer=inner)["crs"])
    except (RuntimeError, OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    layer = Layer(
        "cells", "Cells", "Grid cells of a finished map.", CELL_FIELDS, "Unknown", crs, batches
    )
    return layer


def read_layer(output: Path, layer: str) -> gpd.GeoDataFrame:
    """The layer ``landuse`` or ``cells`` of the map ``output``; ``InputError`` if unreadable."""
    import geopandas as gpd

    output_format = format_of(output)
    path = output_format.layer_path(output, layer)
    try:
        if path.suffix.lower() == ".parquet":
            return gpd.read_parquet(path)
        return gpd.read_file(path, layer=layer if output_format.multilayer else None)
    except (RuntimeError, OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read_totals(output: Path) -> dict[str, tuple[int, float]]:
    """Cells and m² of each class in the ``landuse`` layer of the map ``output``.

    Raises ``InputError`` when the file cannot be read.
    """
    output_format = format_of(output)
    path = output_format.layer_path(output, "landuse")
    names = ["class", "cells", "area_m2"]
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(path, columns=names)
        else:
            inner = "landuse" if output_format.multilayer else None
            _, table = pyogrio.read_arrow(path, layer=inner, columns=names, read_geometry=False)
        sums = table.group_by("class").aggregate([("cells", "sum"), ("area_m2", "sum")])
    except (RuntimeError, OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return {row["class"]: (row["cells_sum"], row["area_m2_sum"]) for row in sums.to_pylist()}


def _parquet(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH):
            yield pa.Table.from_batches([batch])


def _parquet_crs(path: Path) -> CRS:
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    return CRS(geo["columns"][GEOMETRY]["crs"])


def _ogr(path: Path, inner: str | None) -> Iterator[pa.Table]:
    names = [field.name for field in CELL_FIELDS]
    stored = short_names(CELL_FIELDS) if path.suffix.lower() == ".shp" else names
    full = dict(zip(stored, names, strict=True))
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
        f"{path} was written but cannot be read back ({error}): is another program using it?"
    )
