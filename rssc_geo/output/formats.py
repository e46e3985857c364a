"""The output formats: what each suffix means, how a layer becomes a file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from pyproj import CRS
from pyproj.enums import WktVersion
from pyproj.exceptions import CRSError

from rssc_geo.errors import UsageError
from rssc_geo.files import write_error
from rssc_geo.output.embeddings import EmbeddingLayer
from rssc_geo.output.layers import GEOMETRY, Field, Layer, short_names
from rssc_geo.texts import write_csv

if TYPE_CHECKING:
    import geopandas as gpd

log = logging.getLogger(__name__)

WGS84 = CRS.from_epsg(4326)
_MAIN_LAYERS = frozenset({"landuse", "change", "hits"})
"""Layers that the result itself is, where a file holds one layer."""

_SHAPEFILE_TEXT_BYTES = 254
_TAIL_BYTES = 64
# Newer GDAL would write 1.4, of which GDAL 3.6 and the QGIS built with it warn.
_GPKG_VERSION = "1.3"
_CODED_SUFFIXES = {"GPKG": ".gpkg", "FlatGeobuf": ".fgb", "GeoJSON": ".geojson"}
"""Of drivers of GDAL that look for a CRS's code where it has none."""
# Indexes and files of other programs, wrong beside a new Shapefile.
_SHAPEFILE_REMAINS = (".qix", ".sbn", ".sbx", ".qpj", ".shp.xml", ".idm", ".ind")


@dataclass(frozen=True, slots=True)
class Format:
    """A vector format.

    Attributes
    ----------
    name, media_type : for messages, and for catalogs and servers
    writer : see ``write``
    files : suffixes of what it writes, the one that makes the result visible last
    multilayer : whether one file holds all layers
    wgs84 : whether it is in WGS84 unless another CRS is asked for
    max_fields : how many fields a layer may have, None for any number
    crs_as : how it holds the CRS: "wkt", "esri" (ESRI's WKT, which has no datum shift) or "code"
    remains : suffixes of what is deleted where a file is replaced
    """

    name: str
    media_type: str
    writer: Callable[[Layer, Path, Mapping[str, object]], None]
    files: tuple[str, ...]
    multilayer: bool = False
    wgs84: bool = False
    max_fields: int | None = None
    crs_as: Literal["wkt", "esri", "code"] = "wkt"
    remains: tuple[str, ...] = ()

    def layer_path(self, output: Path, layer: str) -> Path:
        """The file of a layer of the map ``output``: that itself, or ``x_cells.ext`` for cells."""
        if self.multilayer or layer in _MAIN_LAYERS:
            return output
        return output.with_name(f"{output.stem}_{layer}{output.suffix}")

    def write(self, layer: Layer, path: Path, provenance: Mapping[str, object]) -> None:
        """Write one layer, the second time into the same file if ``multilayer``.

        Raises ``OutputError`` when not all of it arrives, ``UsageError`` as ``check_crs``.
        """
        self.check_crs(layer.crs)
        self.writer(layer, path, provenance)

    def check_crs(self, crs: CRS) -> None:
        """Refuse with ``UsageError`` a CRS that would be another one when it is read again."""
        lost = self._lost_of(crs)
        if lost is not None:
            raise UsageError(
                f"a {self.name} file cannot hold {lost} of the CRS {crs.name!r}: choose another"
                " format, such as .gpkg, or another CRS (--crs EPSG:4326)"
            )

    def _lost_of(self, crs: CRS) -> str | None:
        if self.crs_as == "code" and not _is_read_as(crs.to_wkt(), crs, "GeoJSON"):
            return "the definition"
        if self.crs_as == "esri":
            try:
                CRS.from_wkt(crs.to_wkt(WktVersion.WKT1_ESRI))
            except CRSError:
                return "the projection"
            if crs.is_bound:
                return "the datum shift (TOWGS84)"
        return None

    def files_of(self, path: Path) -> list[Path]:
        """All files of the layer's file ``path``, which comes last."""
        beside = [path.with_name(path.stem + suffix) for suffix in self.files[:-1]]
        return [*beside, path]

    def remains_of(self, path: Path) -> list[Path]:
        """What is deleted where ``path`` is replaced."""
        return [path.with_name(path.stem + suffix) for suffix in self.remains]


def format_of(output: Path) -> Format:
    """The format that the suffix asks for; ``UsageError`` listing the known ones for any other."""
    found = FORMATS.get(output.suffix.lower())
    if found is None:
        raise UsageError(
            f"{output}: unknown output format {output.suffix!r}: use one of {' '.join(FORMATS)}"
        )
    return found


def map_files(path: str | Path) -> tuple[Path, ...]:
    """The files that a map has, or may have: those of all its layers, ``path`` last.

    Of a path with an unknown suffix itself alone.
    """
    path = Path(path)
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        return (path,)
    layers = (found.layer_path(path, layer) for layer in ("review", "cells", "landuse"))
    return tuple(dict.fromkeys(file for layer in layers for file in found.files_of(layer)))


def _write_gpkg(layer: Layer, path: Path, _provenance: Mapping[str, object]) -> None:
    second = path.exists()
    options = {
        "IDENTIFIER": layer.title,
        "DESCRIPTION": layer.description,
        "SPATIAL_INDEX": "YES",
    }
    dataset_options = None if second else {"VERSION": _GPKG_VERSION}
    _write_ogr(layer, path, "GPKG", options, dataset_options=dataset_options, append=second)


def write_gpkg_index(table: gpd.GeoDataFrame, path: Path, layer: str) -> None:
    """Write a table in memory to a new GeoPackage, its CRS as that of a map.

    Raises ``OutputError`` where it cannot be written.
    """
    crs = _written_crs(table.crs, "GPKG")
    table = table.set_crs(crs, allow_override=True)
    try:
        table.to_file(path, layer=layer, driver="GPKG", VERSION=_GPKG_VERSION)
    except (RuntimeError, OSError) as error:  # RuntimeError is the base of pyogrio's errors
        raise write_error(path, error) from error


def _write_flatgeobuf(layer: Layer, path: Path, provenance: Mapping[str, object]) -> None:
    options = {
        "TITLE": layer.title,
        "DESCRIPTION": _described(layer, provenance),
        "TEMPORARY_DIR": str(path.parent),
    }
    _write_ogr(layer, path, "FlatGeobuf", options)


def _write_geojson(layer: Layer, path: Path, provenance: Mapping[str, object]) -> None:
    options = {"DESCRIPTION": _described(layer, provenance)}
    if layer.crs == WGS84:
        # RFC 7946 advises 7 digits (1 cm): too few for the cells of drone images.
        options |= {"RFC7946": "YES", "COORDINATE_PRECISION": "9"}
    _write_ogr(layer, path, "GeoJSON", options)


def _write_shapefile(layer: Layer, path: Path, _provenance: Mapping[str, object]) -> None:
    names = short_names(layer.fields)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in layer.batches():
            columns = [
                _cut(column) if pa.types.is_string(column.type) else column
                for column in batch.columns
            ]
            yield pa.record_batch(columns, schema=shortened.schema)

    fields = tuple(
        replace(field, name=name) for field, name in zip(layer.fields, names, strict=True)
    )
    shortened = replace(layer, name=path.stem, fields=fields, batches=batches)
    _write_ogr(shortened, path, "ESRI Shapefile", {"ENCODING": "UTF-8"})
    _write_field_table(path.with_name(f"{path.stem}_fields.csv"), layer.fields, names)
    if layer.name in _MAIN_LAYERS:
        log.warning(
            "Shapefile: field names are cut to 10 characters and texts to %d bytes; %s_fields.csv"
            " lists the full names",
            _SHAPEFILE_TEXT_BYTES,
            path.stem,
        )


def _write_field_table(path: Path, fields: Sequence[Field], names: Sequence[str]) -> None:
    columns = ("shapefile_name", "name", "alias", "description")
    rows = [
        dict(zip(columns, (name, field.name, field.alias, field.description), strict=True))
        for name, field in zip(names, fields, strict=True)
    ]
    write_csv(path, columns, rows)


def _cut(texts: pa.Array) -> pa.Array:
    """Texts cut to what a Shapefile's table holds, never inside a character."""
    return pa.array(
        [
            text and text.encode()[:_SHAPEFILE_TEXT_BYTES].decode(errors="ignore")
            for text in texts.to_pylist()
        ],
        pa.string(),
    )


def _described(layer: Layer, provenance: Mapping[str, object]) -> str:
    return f"{layer.description} Provenance: {json.dumps(provenance, ensure_ascii=False)}"


def write_geoparquet(
    layer: Layer | EmbeddingLayer, path: Path, provenance: Mapping[str, object]
) -> None:
    """GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0/), as a stream through pyarrow.

    The provenance goes to the file's metadata as ``rssc_geo``; pages of data have checksums.
    """
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    kinds: set[str] = set()
    try:
        with pq.ParquetWriter(
            path, layer.schema, compression="zstd", write_page_checksum=True
        ) as writer:
            for batch in layer.batches():
                if len(batch):
                    column = batch.column(GEOMETRY).to_numpy(zero_copy_only=False)
                    geometries = shapely.from_wkb(column)
                    bounds = shapely.total_bounds(geometries)
                    low, high = np.minimum(low, bounds[:2]), np.maximum(high, bounds[2:])
                    kinds.update(polygon.geom_type for polygon in geometries)
                writer.write_batch(batch)
            geometry: dict[str, object] = {
                "encoding": "WKB",
                "geometry_types": sorted(kinds),
                "crs": layer.crs.to_json_dict(),
            }
            if kinds:
                geometry["bbox"] = [*low.tolist(), *high.tolist()]
            geo = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: geometry}}
            writer.add_key_value_metadata(
                {"geo": json.dumps(geo), "rssc_geo": json.dumps(provenance, ensure_ascii=False)}
            )
    except OSError as error:
        raise write_error(path, error) from error


def _write_ogr(
    layer: Layer,
    path: Path,
    driver: str,
    layer_options: Mapping[str, str],
    *,
    dataset_options: Mapping[str, str] | None = None,
    append: bool = False,
) -> None:
    """Write a layer through GDAL to ``path``, or with ``append`` into the file there.

    Raises ``OutputError`` when not every feature arrives (a full disk); an exception in the layer's
    own stream goes through as it is.
    """
    stream = _Counted(layer.batches)
    try:
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(layer.schema, stream.batches()),
            path,
            layer=layer.name,
            driver=driver,
            geometry_name=GEOMETRY,
            geometry_type=layer.geometry_type,
            crs=_written_crs(layer.crs, driver).to_wkt(),
            append=append,
            dataset_options=dataset_options,
            layer_options=layer_options,
        )
        arrived = _features(path, layer.name, driver=driver, expected=stream.count)
    # RuntimeError: base of pyogrio's errors.
    except (RuntimeError, OSError, pa.ArrowException) as error:
        if stream.failure is not None:
            raise stream.failure from error
        raise write_error(path, str(error)) from error
    if stream.failure is not None:
        raise stream.failure
    if arrived != stream.count:
        raise write_error(path, f"{arrived} of {stream.count} features arrived")


def _written_crs(crs: CRS, driver: str) -> CRS:
    """The CRS, with a code of ours where a GDAL driver would take it for one of EPSG.

    It does so for some CRSs without a code: UTM in feet or kilometers becomes the one in meters.
    QGIS asks for a CRS whose code it does not know, so others get none.
    """
    text = crs.to_wkt()
    looked_for = driver in _CODED_SUFFIXES and crs.to_authority() is None
    if not looked_for or _is_read_as(text, crs, driver):
        return crs
    code = int(hashlib.sha256(text.encode()).hexdigest()[:6], 16)
    named = {**crs.to_json_dict(), "id": {"authority": "rssc-geo", "code": code}}
    return CRS.from_json_dict(named)


def _is_read_as(text: str, crs: CRS, driver: str) -> bool:
    """Whether a file that GDAL writes with this WKT is in the CRS."""
    path = f"/vsimem/{uuid.uuid4().hex}{_CODED_SUFFIXES[driver]}"
    empty = pa.table({GEOMETRY: pa.array([], pa.binary())})
    options = {"driver": driver, "geometry_name": GEOMETRY, "geometry_type": "Point"}
    pyogrio.write_arrow(empty, path, layer="crs", crs=text, **options)
    found = pyogrio.read_info(path)["crs"]
    pyogrio.vsi_unlink(path)
    return found is not None and CRS.from_user_input(found) == crs


class _Counted:
    """Counts a stream's features and keeps its exception, of which GDAL gives only the message."""

    def __init__(self, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self.count = 0
        self.failure: BaseException | None = None
        self._batches = batches

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches():
                self.count += len(batch)
                yield batch
        except GeneratorExit:
            raise  # GDAL stopped reading: its own error says why
        except BaseException as error:
            self.failure = error
            raise


def _features(path: Path, layer: str, *, driver: str, expected: int) -> int:
    """Features that can be read back; GeoJSON's end alone says whether it is whole."""
    if driver == "GeoJSON":
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES), os.SEEK_SET)
            return expected if file.read().rstrip().endswith(b"}") else 0
    return int(pyogrio.read_info(path, layer=layer, force_feature_count=True)["features"])


FORMATS: Mapping[str, Format] = {
    # SQLite: 2000 columns, two of which are the id and the geometry.
    ".gpkg": Format(
        "GeoPackage",
        "application/geopackage+sqlite3",
        _write_gpkg,
        (".gpkg",),
        multilayer=True,
        max_fields=1998,
    ),
    ".fgb": Format("FlatGeobuf", "application/vnd.flatgeobuf", _write_flatgeobuf, (".fgb",)),
    ".geojson": Format(
        "GeoJSON",
        "application/geo+json",
        _write_geojson,
        (".geojson",),
        wgs84=True,
        crs_as="code",
    ),
    ".parquet": Format(
        "GeoParquet", "application/vnd.apache.parquet", write_geoparquet, (".parquet",)
    ),
    ".shp": Format(
        "Shapefile",
        "application/vnd.shp",
        _write_shapefile,
        ("_fields.csv", ".cpg", ".prj", ".shx", ".dbf", ".shp"),
        max_fields=255,
        crs_as="esri",
        remains=_SHAPEFILE_REMAINS,
    ),
}
