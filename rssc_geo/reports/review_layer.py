"""The review layer: cells for a person to label, beside the map they come from."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import pyarrow as pa
import shapely
from pyproj import CRS

from rssc_geo.options import OutputOptions
from rssc_geo.output import (
    CELL_FIELDS,
    GEOMETRY,
    Field,
    Layer,
    Workshop,
    add_aliases,
    add_style,
    document,
    format_of,
    not_written,
    refuse_if_open,
    xml_text,
)

_SCENE = {field.name: field for field in CELL_FIELDS}
REVIEW_FIELDS: tuple[Field, ...] = (
    Field("rank", "Rank", "integer", "Order in which the cells are worth a look, from 1"),
    *(_SCENE[name] for name in ("class", "runner_up", "confidence", "margin", "caption")),
    Field("reason", "Reason", "text", "Between which classes the model hesitates"),
    Field(
        "label",
        "Your label",
        "text",
        "To be filled in: what is really there; empty cells are not learned from",
    ),
)
_MULTIPOLYGON = 6  # shapely's type id
# Bright outlines and no fill: who labels has to see the ground.
_LOOKS = (
    ("to label", '"label" IS NULL OR trim("label") = \'\'', "255,0,200,255"),
    ("labeled", "ELSE", "0,220,90,255"),
)


def review_path(output: Path) -> Path:
    """Where the review of the map ``output`` goes.

    Into it, or for one-layer formats to ``x_review.ext``.
    """
    return format_of(output).layer_path(output, "review")


def write_review(options: OutputOptions, cells: pa.Table, *, crs: CRS) -> Path:
    """Add the layer ``review`` to the finished map, whole or not at all, and return the file that
    holds it.

    ``cells``: a column for each of ``REVIEW_FIELDS`` and ``geom`` (WKB in ``crs``). Raises
    ``OutputError`` when it cannot be written, or the map was opened elsewhere meanwhile; the map
    stays as it was.
    """
    output_format, path = format_of(options.path), review_path(options.path)
    kinds = shapely.get_type_id(shapely.from_wkb(cells.column(GEOMETRY).to_numpy()))

    def batches() -> Iterator[pa.RecordBatch]:
        yield from cells.select(layer.schema.names).cast(layer.schema).to_batches()

    layer = Layer(
        "review",
        "Review",
        "Cells worth a look, the most useful first: fill in the field label.",
        REVIEW_FIELDS,
        "MultiPolygon" if (kinds == _MULTIPOLYGON).any() else "Polygon",
        crs,
        batches,
    )
    with Workshop(options) as workshop:
        made = workshop.temporary(path)
        try:
            if output_format.multilayer:
                shutil.copyfile(path, made)
            output_format.write(layer, made, document({"review_of": options.path.name}))
            if output_format.multilayer:
                _furnish(made, layer)
            refuse_if_open(path)
            for suffix in output_format.remains:
                path.with_name(path.stem + suffix).unlink(missing_ok=True)
            for suffix in output_format.files:
                _put(made.with_name(made.stem + suffix), path.with_name(path.stem + suffix))
        except (OSError, sqlite3.OperationalError) as error:
            raise not_written(made, error) from error
    return path


def _put(made: Path, path: Path) -> None:
    with made.open("rb+") as file:
        os.fsync(file.fileno())
    made.replace(path)


def _furnish(path: Path, layer: Layer) -> None:
    """Style and aliases in a GeoPackage that has the tables for them."""
    with closing(sqlite3.connect(path)) as connection, connection:
        looks = "Outlines, green once a cell is labeled"
        add_style(
            connection, layer, name="review", qml=_qml(), sld="", default=True, description=looks
        )
        add_aliases(connection, layer)


def _qml() -> str:
    """Outlines by whether the cell has a label, its rank in the middle, what the model says as a map tip."""
    root = Element(
        "qgis",
        version="3.22.0",
        styleCategories="Symbology|Labeling|Fields|MapTips",
        labelsEnabled="1",
    )
    renderer = SubElement(
        root,
        "renderer-v2",
        type="RuleRenderer",
        symbollevels="0",
        enableorderby="0",
        forceraster="0",
    )
    rules, symbols = SubElement(renderer, "rules", key="review"), SubElement(renderer, "symbols")
    for index, (label, condition, color) in enumerate(_LOOKS):
        SubElement(
            rules, "rule", key=f"review-{index}", symbol=str(index), label=label, filter=condition
        )
        _outlined(symbols, str(index), color)
    settings = SubElement(
        SubElement(root, "labeling", type="simple"), "settings", calloutType="simple"
    )
    style = SubElement(
        settings, "text-style", fieldName="rank", isExpression="0", fontSize="9", fontWeight="75"
    )
    style.set("textColor", "40,40,40,255")
    SubElement(style, "text-buffer", bufferDraw="1", bufferSize="1", bufferColor="255,255,255,255")
    SubElement(root, "layerOpacity").text = "1"
    aliases = SubElement(root, "aliases")
    for index, field in enumerate(REVIEW_FIELDS, start=1):  # 0 is fid
        SubElement(aliases, "alias", field=field.name, index=str(index), name=xml_text(field.alias))
    SubElement(root, "previewExpression").text = '"rank"'
    # QGIS does not escape what it fills in.
    tip = " ".join(
        f"[% replace(replace(coalesce(\"{name}\", ''), '&', '&amp;'), '<', '&lt;') %]<br>"
        for name in ("reason", "caption")
    )
    SubElement(root, "mapTip", enabled="1").text = tip
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + tostring(
        root, encoding="unicode"
    )


def _outlined(parent: Element, name: str, color: str) -> None:
    symbol = SubElement(
        parent, "symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0"
    )
    layer = SubElement(
        symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
    )
    options = SubElement(layer, "Option", type="Map")
    values = {
        "style": "no",
        "outline_color": color,
        "outline_style": "solid",
        "outline_width": "0.7",
        "outline_width_unit": "MM",
    }
    for key, value in values.items():
        SubElement(options, "Option", type="QString", name=key, value=value)
