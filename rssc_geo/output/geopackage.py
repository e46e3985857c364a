"""Contents of a GeoPackage beyond its layers: styles, aliases, provenance.

GeoPackage 1.3, OGC 12-128r17.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring

from rssc_geo.errors import OutputError
from rssc_geo.files import write_error
from rssc_geo.output.layers import GEOMETRY, Layer
from rssc_geo.output.styles import LayerStyle, change_styles, map_styles
from rssc_geo.output.symbology import xml_text
from rssc_geo.texts import parse_json

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_OWN_LAYERS = frozenset(
    {"landuse", "change", "cells", "captions", "hits", "review", "sample", "layer_styles"}
)
_LABELS = {"sample": "class", "review": "label"}
"""The columns of our layers that people fill in."""
_INNER_TABLES = ("gpkg_", "rtree_", "sqlite_")
PROVENANCE_URI = "urn:rssc-geo:provenance:1"
_OBJECTS = ("model", "options", "steps", "input_marks")
"""Parts of a provenance that have parts themselves."""
_QGIS_URI = "http://mrcc.com/qgis.dtd"

# The columns that QGIS writes itself.
_STYLES = """
    CREATE TABLE layer_styles (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
        f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
        styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT,
        owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT CURRENT_TIMESTAMP
    )
"""
# Annexes F.8 (metadata) and F.9 (schema).
_METADATA = """
    CREATE TABLE IF NOT EXISTS gpkg_metadata (
        id INTEGER CONSTRAINT m_pk PRIMARY KEY ASC NOT NULL,
        md_scope TEXT NOT NULL DEFAULT 'dataset', md_standard_uri TEXT NOT NULL,
        mime_type TEXT NOT NULL DEFAULT 'text/xml', metadata TEXT NOT NULL DEFAULT ''
    )
"""
_METADATA_REFERENCE = """
    CREATE TABLE IF NOT EXISTS gpkg_metadata_reference (
        reference_scope TEXT NOT NULL, table_name TEXT, column_name TEXT, row_id_value INTEGER,
        timestamp DATETIME NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')),
        md_file_id INTEGER NOT NULL, md_parent_id INTEGER,
        CONSTRAINT crmr_mfi_fk FOREIGN KEY (md_file_id) REFERENCES gpkg_metadata(id),
        CONSTRAINT crmr_mpi_fk FOREIGN KEY (md_parent_id) REFERENCES gpkg_metadata(id)
    )
"""
_DATA_COLUMNS = """
    CREATE TABLE IF NOT EXISTS gpkg_data_columns (
        table_name TEXT NOT NULL, column_name TEXT NOT NULL, name TEXT, title TEXT,
        description TEXT, mime_type TEXT, constraint_name TEXT,
        CONSTRAINT pk_gdc PRIMARY KEY (table_name, column_name),
        CONSTRAINT gdc_tn UNIQUE (table_name, name)
    )
"""
_CONSTRAINTS = """
    CREATE TABLE IF NOT EXISTS gpkg_data_column_constraints (
        constraint_name TEXT NOT NULL, constraint_type TEXT NOT NULL, value TEXT, min NUMERIC,
        min_is_inclusive BOOLEAN, max NUMERIC, max_is_inclusive BOOLEAN, description TEXT,
        CONSTRAINT gdcc_ntv UNIQUE (constraint_name, constraint_type, value)
    )
"""
_EXTENSIONS = (
    ("gpkg_metadata", "gpkg_metadata", "http://www.geopackage.org/spec120/#extension_metadata"),
    (
        "gpkg_metadata_reference",
        "gpkg_metadata",
        "http://www.geopackage.org/spec120/#extension_metadata",
    ),
    ("gpkg_data_columns", "gpkg_schema", "http://www.geopackage.org/spec121/#extension_schema"),
    (
        "gpkg_data_column_constraints",
        "gpkg_schema",
        "http://www.geopackage.org/spec121/#extension_schema",
    ),
)


def describe_geopackage(
    path: Path,
    layers: Sequence[Layer],
    *,
    classes: Sequence[SceneClass],
    provenance: Mapping[str, object],
    style: LayerStyle | None = None,
) -> None:
    """Add styles, aliases and provenance to the GeoPackage at ``path`` that holds the layers.

    ``classes`` are those of the styles of a map; ``style``: the style of layers that are no map.
    Raises ``OutputError`` when it cannot be written.
    """
    try:
        with closing(sqlite3.connect(path)) as connection, connection:
            styles = {layer.name: _styles(layer, classes, style) for layer in layers}
            tables = (_METADATA, _METADATA_REFERENCE, _DATA_COLUMNS, _CONSTRAINTS)
            for statement in (_STYLES, *tables) if any(styles.values()) else tables:
                connection.execute(statement)
            for table, name, definition in _EXTENSIONS:
                connection.execute(
                    "INSERT OR IGNORE INTO gpkg_extensions (table_name, extension_name, definition,"
                    " scope) VALUES (?, ?, ?, 'read-write')",
                    (table, name, definition),
                )
            for layer in layers:
                for each in styles[layer.name]:
                    _add_style(connection, layer, each)
                _add_aliases(connection, layer)
            _add_provenance(connection, layers, provenance)
    except sqlite3.OperationalError as error:
        raise write_error(path, str(error)) from error


def _styles(
    layer: Layer, classes: Sequence[SceneClass], style: LayerStyle | None
) -> tuple[LayerStyle, ...]:
    if style is not None:
        return (style,)
    names = {field.name for field in layer.fields}
    if "to_class" in names:
        return change_styles(layer, classes)
    return map_styles(layer, classes) if "class" in names else ()


def describe_layer(path: Path, layer: Layer, style: LayerStyle) -> None:
    """Add a style and the aliases of one more layer to a GeoPackage that has been described.

    Raises ``OutputError`` when it cannot be written.
    """
    try:
        with closing(sqlite3.connect(path)) as connection, connection:
            _add_style(connection, layer, style)
            _add_aliases(connection, layer)
    except sqlite3.OperationalError as error:
        raise write_error(path, str(error)) from error


def provenance_document(*parts: Mapping[str, object]) -> dict[str, object]:
    """The provenance of a result: the parts (later ones prevail) and the time (``created``).

    Raises ``TypeError`` when a part is not made of JSON values, before anything is written.
    """
    merged: dict[str, object] = {}
    for part in parts:
        merged |= part
    merged["created"] = timestamp()
    # File names that are not UTF-8 come as lone surrogates, which no format can hold.
    text = json.dumps(merged, ensure_ascii=False).encode("utf-8", "replace")
    result: dict[str, object] = json.loads(text)
    return result


def read_provenance(path: Path) -> dict[str, Any]:
    """The provenance of a GeoPackage; empty where it has none, or the file is no GeoPackage.

    Parts that others have written in another form than ours are left out.
    """
    if path.suffix.lower() != ".gpkg" or not path.is_file():
        return {}
    try:
        with _opened(path) as connection:
            query = "SELECT metadata FROM gpkg_metadata WHERE md_standard_uri = ?"
            found = connection.execute(query, (PROVENANCE_URI,)).fetchone()
        document = parse_json(found[0]) if found else {}
    except (sqlite3.Error, ValueError, TypeError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {
        name: value
        for name, value in document.items()
        if name not in _OBJECTS or isinstance(value, dict)
    }


def read_names(path: Path, layer: str, columns: Sequence[str]) -> set[str]:
    """The texts in some columns of a layer; empty where the file holds no such layer.

    ``layer``, ``columns``: names of the program's own, not of others.
    """
    query = " UNION ".join(f"SELECT [{name}] FROM [{layer}]" for name in columns)  # noqa: S608
    try:
        with _opened(path) as connection:
            return {name for (name,) in connection.execute(query) if isinstance(name, str)}
    except sqlite3.Error:
        return set()


def read_looks(path: Path) -> dict[str, tuple[str, str]]:
    """Title and color of each class that a map's style by class shows, by name; empty without one.

    Of a GeoPackage; other formats have no styles.
    """
    if path.suffix.lower() != ".gpkg" or not path.is_file():
        return {}
    query = "SELECT styleSLD FROM layer_styles WHERE f_table_name = 'landuse' AND styleName = ?"
    try:
        with _opened(path) as connection:
            found = connection.execute(query, ("class",)).fetchone()
        root = fromstring(found[0] if found else "<none/>")  # noqa: S314 -- expat bounds entities
    except (sqlite3.Error, ParseError):
        return {}
    looks = {}
    for rule in root.iterfind(".//{*}Rule"):
        name, title = rule.find(".//{*}Literal"), rule.find("{*}Title")
        color = rule.find(".//{*}Fill/{*}CssParameter[@name='fill']")
        texts = [part.text for part in (name, title, color) if part is not None and part.text]
        if len(texts) == 3:
            looks[texts[0]] = (texts[1], texts[2])
    return looks


def check_no_other_layers(path: Path) -> None:
    """Raise ``OutputError`` for a GeoPackage with contents that this program has not written.

    Layers and tables of other names or without our provenance, labels that people have given, and
    projects that QGIS keeps in it.
    """
    if path.suffix.lower() != ".gpkg" or not path.is_file():
        return
    if not os.access(path, os.R_OK):
        raise OutputError(
            f"{path} cannot be read (no permission), and may hold layers of others: choose another"
            " name"
        )
    try:
        with _opened(path) as connection:
            layers = connection.execute("SELECT table_name FROM gpkg_contents").fetchall()
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
            ).fetchall()
            labeled = [layer for layer in _LABELS if _is_labeled(connection, layer)]
    except sqlite3.Error:
        return  # no GeoPackage that holds anything
    names = {name for (name,) in layers}
    plain = {name for (name,) in tables if not name.lower().startswith(_INNER_TABLES)}
    others = sorted((names | plain) - _OWN_LAYERS - {"qgis_projects"})
    if "qgis_projects" in plain:
        others.append("a project of QGIS")
    others += [f"labels in its layer {layer}" for layer in labeled]
    if names and not others and not read_provenance(path):
        others = sorted(names)
    if others:
        raise OutputError(
            f"{path} holds what rssc-geo has not made ({', '.join(others[:3])}), which would be"
            " lost: choose another name"
        )


def _is_labeled(connection: sqlite3.Connection, layer: str) -> bool:
    """Whether people have labeled features of a layer of ours that may be there."""
    column = _LABELS[layer]
    try:
        found = connection.execute(f"SELECT 1 FROM {layer} WHERE {column} <> '' LIMIT 1")  # noqa: S608 -- names of ours
    except sqlite3.OperationalError:  # no such layer or column
        return False
    return found.fetchone() is not None


def _opened(path: Path) -> closing[sqlite3.Connection]:
    """A GeoPackage that is only read, open until the block ends."""
    return closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True))


def timestamp() -> str:
    """Now in UTC, in the form GeoPackage asks for: ``2026-01-31T12:00:00.000Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _add_style(connection: sqlite3.Connection, layer: Layer, style: LayerStyle) -> None:
    # Catalog and schema are empty texts: QGIS does not apply a style where they are NULL.
    connection.execute(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name,"
        " f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner,"
        " update_time) VALUES ('', '', ?, ?, ?, ?, ?, ?, ?, '', ?)",
        (
            layer.name,
            GEOMETRY,
            style.name,
            style.qml,
            style.sld,
            int(style.default),
            style.description,
            timestamp(),
        ),
    )


def _add_aliases(connection: sqlite3.Connection, layer: Layer) -> None:
    """Readable names and descriptions of a layer's fields."""
    connection.executemany(
        "INSERT OR REPLACE INTO gpkg_data_columns (table_name, column_name, name, title,"
        " description) VALUES (?, ?, ?, ?, ?)",
        [
            (layer.name, field.name, field.alias, field.alias, field.description)
            for field in layer.fields
        ],
    )


def _add_provenance(
    connection: sqlite3.Connection, layers: Sequence[Layer], provenance: Mapping[str, object]
) -> None:
    """The document once, referred to by file and layers, and what QGIS shows of each layer."""
    text = json.dumps(provenance, ensure_ascii=False, indent=1)
    names = [layer.name for layer in layers]
    _add_metadata(connection, PROVENANCE_URI, "application/json", text, tables=[None, *names])
    for layer in layers:
        _add_metadata(
            connection,
            _QGIS_URI,
            "text/xml",
            _qgis_metadata(layer.title, layer.description, provenance),
            tables=[layer.name],
        )


def _add_metadata(
    connection: sqlite3.Connection,
    uri: str,
    mime_type: str,
    text: str,
    *,
    tables: Sequence[str | None],
) -> None:
    row = connection.execute(
        "INSERT INTO gpkg_metadata (md_scope, md_standard_uri, mime_type, metadata) VALUES"
        " ('dataset', ?, ?, ?)",
        (uri, mime_type, text),
    ).lastrowid
    connection.executemany(
        "INSERT INTO gpkg_metadata_reference (reference_scope, table_name, timestamp, md_file_id)"
        " VALUES (?, ?, ?, ?)",
        [("geopackage" if table is None else "table", table, timestamp(), row) for table in tables],
    )


def _qgis_metadata(title: str, abstract: str, provenance: Mapping[str, object]) -> str:
    """The XML that QGIS shows in a layer's properties, a history line each of the provenance."""
    root = Element("qgis", version="3.22.0")
    for tag, text in (
        ("identifier", ""),
        ("language", "ENG"),
        ("type", "dataset"),
        ("title", title),
        ("abstract", abstract),
    ):
        SubElement(root, tag).text = text
    for key, value in provenance.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        SubElement(root, "history").text = xml_text(f"{key}: {text}")
    return tostring(root, encoding="unicode")
