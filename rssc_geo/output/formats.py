"""The output formats: what each suffix means and how the layers are written."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
from pyproj import CRS

from rssc_geo.errors import UsageError
from rssc_geo.output.fields import Field, short_names
from rssc_geo.output.geoparquet import write_geoparquet
from rssc_geo.output.layers import Layer
from rssc_geo.output.ogr import write_ogr

logger = logging.getLogger(__name__)

WGS84 = CRS.from_epsg(4326)
_SHAPEFILE_TEXT_BYTES = 254
# Indexes and remains of other programs, wrong beside a new Shapefile.
_SHAPEFILE_REMAINS = (".qix", ".sbn", ".sbx", ".qpj", ".shp.xml", ".idm", ".ind")


@dataclass(frozen=True, slots=True)
class Format:
    """A vector format. ``write(layer, path, provenance)`` writes one layer, the second time into
    the same file if ``multilayer``.

    ``files`` are the suffixes of what it writes, the one that makes the result visible last;
    ``remains`` those to delete where a file is replaced; ``max_fields`` bounds the fields of a
    layer.
    """

    name: str
    write: Callable[[Layer, Path, Mapping[str, object]], None]
    files: tuple[str, ...]
    multilayer: bool = False
    wgs84: bool = False
    max_fields: int | None = None
    remains: tuple[str, ...] = ()

    def layer_path(self, output: Path, layer: str) -> Path:
        """Where a layer goes when ``output`` was asked for.

        ``x.ext`` for landuse, ``x_cells.ext`` for cells.
        """
        return (
            output
            if self.multilayer or layer == "landuse"
            else output.with_name(f"{output.stem}_{layer}{output.suffix}")
        )


def format_of(output: Path) -> Format:
    """The format that the suffix asks for; ``UsageError`` listing the known ones for any other."""
    found = FORMATS.get(output.suffix.lower())
    if found is None:
        raise UsageError(
            f"{output.name}: unknown output format {output.suffix!r}: use one of"
            f" {' '.join(FORMATS)}"
        )
    return found


def _write_gpkg(layer: Layer, path: Path, _provenance: Mapping[str, object]) -> None:
    second = path.exists()
    write_ogr(
        layer,
        path,
        driver="GPKG",
        layer_options={
            "IDENTIFIER": layer.title,
            "DESCRIPTION": layer.description,
            "SPATIAL_INDEX": "YES",
        },
        # 1.3: newer GDAL would write 1.4, of which GDAL 3.6 and the QGIS built with it warn.
        dataset_options=None if second else {"VERSION": "1.3"},
        append=second,
    )


def _write_flatgeobuf(layer: Layer, path: Path, provenance: Mapping[str, object]) -> None:
    options = {
        "TITLE": layer.title,
        "DESCRIPTION": _described(layer, provenance),
        "TEMPORARY_DIR": str(path.parent),
    }
    write_ogr(layer, path, driver="FlatGeobuf", layer_options=options)


def _write_geojson(layer: Layer, path: Path, provenance: Mapping[str, object]) -> None:
    options = {"DESCRIPTION": _described(layer, provenance)}
    if layer.crs == WGS84:
        # RFC 7946 advises 7 digits (1 cm); cells of drone images are smaller than that leaves room
        # for.
        options |= {"RFC7946": "YES", "COORDINATE_PRECISION": "9"}
    write_ogr(layer, path, driver="GeoJSON", layer_options=options)


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
    write_ogr(shortened, path, driver="ESRI Shapefile", layer_options={"ENCODING": "UTF-8"})
    _write_field_table(path.with_name(f"{path.stem}_fields.csv"), layer.fields, names)
    if layer.name == "landuse":
        logger.warning(
            "Shapefile: field names are cut to 10 characters and texts to %d bytes; %s_fields.csv"
            " lists the full names",
            _SHAPEFILE_TEXT_BYTES,
            path.stem,
        )


def _write_field_table(path: Path, fields: Sequence[Field], names: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["shapefile_name", "name", "alias", "description"])
        table.writerows(
            [name, field.name, field.alias, field.description]
            for name, field in zip(names, fields, strict=True)
        )


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


FORMATS: Mapping[str, Format] = {
    ".gpkg": Format(
        "GeoPackage", _write_gpkg, (".gpkg",), multilayer=True, max_fields=1998
    ),  # SQLite: 2000 columns
    ".fgb": Format("FlatGeobuf", _write_flatgeobuf, (".fgb",)),
    ".geojson": Format("GeoJSON", _write_geojson, (".geojson",), wgs84=True),
    ".parquet": Format("GeoParquet", write_geoparquet, (".parquet",)),
    ".shp": Format(
        "Shapefile",
        _write_shapefile,
        ("_fields.csv", ".cpg", ".prj", ".shx", ".dbf", ".shp"),
        max_fields=255,
        remains=_SHAPEFILE_REMAINS,
    ),
}
