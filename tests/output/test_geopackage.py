"""What a GeoPackage carries: styles, aliases, provenance; and that QGIS and others can read it."""

from __future__ import annotations

import json
import re
import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pyogrio
import pytest

from rssc_geo.models import GROUPS, by_group
from rssc_geo.output import CELL_FIELDS, LANDUSE_FIELDS, probability_fields

if TYPE_CHECKING:
    from conftest import Case

SLD = "{http://www.opengis.net/sld}"
OGC = "{http://www.opengis.net/ogc}"


@pytest.fixture
def package(case: Case, tmp_path: Path) -> Path:
    return case.write(tmp_path / "map.gpkg", probabilities=True).paths[0]


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_it_is_a_sound_geopackage_1_3_with_spatial_indexes(package: Path) -> None:
    assert query(package, "PRAGMA user_version") == [(10300,)]
    assert query(package, "PRAGMA integrity_check") == [("ok",)]
    assert query(package, "PRAGMA foreign_key_check") == []
    assert query(package, "PRAGMA journal_mode") == [("delete",)]
    contents = query(package, "SELECT table_name, data_type, identifier, srs_id FROM gpkg_contents")
    assert contents == [
        ("landuse", "features", "Land use", 32632),
        ("cells", "features", "Cells", 32632),
    ]
    for layer in ("landuse", "cells"):
        (count,) = query(package, f"SELECT count(*) FROM {layer}")
        assert query(package, f"SELECT count(*) FROM rtree_{layer}_geom") == [count]
        assert pyogrio.read_info(package, layer=layer)["capabilities"]["fast_spatial_filter"]
    tables = {
        name for (name,) in query(package, "SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    registered = {name for (name,) in query(package, "SELECT table_name FROM gpkg_extensions")}
    assert registered <= tables


def test_each_layer_has_its_default_style_and_those_of_group_and_confidence(
    package: Path,
) -> None:
    rows = query(
        package,
        "SELECT f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName,"
        " useAsDefault, update_time FROM layer_styles ORDER BY id",
    )
    styles = ("class", "group", "confidence")
    looks = [(layer, style) for layer in ("landuse", "cells") for style in styles]
    looks.append(("cells", "familiarity"))
    assert [row[:6] for row in rows] == [
        ("", "", layer, "geom", style, int(style == "class")) for layer, style in looks
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", str(row[6])) for row in rows)
    columns = {
        layer: set(pyogrio.read_info(package, layer=layer)["fields"])
        for layer in ("landuse", "cells")
    }
    for layer, qml in query(package, "SELECT f_table_name, styleQML FROM layer_styles"):
        root = ET.fromstring(str(qml))
        renderer = root.find("renderer-v2")
        assert root.tag == "qgis"
        assert renderer is not None
        assert renderer.get("attr") in columns[str(layer)]
        symbols = {symbol.get("name") for symbol in renderer.findall("symbols/symbol")}
        assert {
            entry.get("symbol") for entry in renderer.iter() if entry.tag in ("category", "range")
        } == symbols
        assert {alias.get("field") for alias in root.iter("alias")} == columns[str(layer)]


def test_every_class_present_has_its_color_its_real_name_and_its_title(
    case: Case, package: Path
) -> None:
    indexes = sorted(set(case.class_grid[case.rows, case.cols].tolist()))
    groups = by_group(case.classes[index] for index in indexes)
    present = [scene_class for members in groups.values() for scene_class in members]
    assert [scene_class.id for scene_class in present] != indexes
    (qml,), (sld,) = (
        query(package, f"SELECT {kind} FROM layer_styles LIMIT 1")[0]
        for kind in ("styleQML", "styleSLD")
    )
    renderer = ET.fromstring(str(qml)).find("renderer-v2")
    assert renderer is not None
    colors = {
        symbol.get("name"): option.get("value")
        for symbol in renderer.findall("symbols/symbol")
        for option in symbol.iter("Option")
        if option.get("name") == "color"
    }
    *categories, other = renderer.findall("categories/category")
    assert other.get("value") == ""
    # A control character cannot stand in XML; all else comes back as it was.
    names = [scene_class.name.replace("\x07", "\ufffd") for scene_class in present]
    assert [category.get("value") for category in categories] == names
    titles = [f"Title of {name}" for name in names]
    assert [category.get("label") for category in categories] == titles
    for category, scene_class in zip(categories, present, strict=True):
        *rgb, alpha = (int(part) for part in str(colors[category.get("symbol")]).split(","))
        assert "#{:02x}{:02x}{:02x}".format(*rgb) == scene_class.color
        assert 0 < alpha < 255  # imagery shows through
    *rules, rest = ET.fromstring(str(sld)).findall(f".//{SLD}Rule")
    assert rest.find(f"{SLD}ElseFilter") is not None
    literals = [rule.findtext(f"{OGC}Filter/{OGC}PropertyIsEqualTo/{OGC}Literal") for rule in rules]
    assert literals == names
    assert [rule.findtext(f"{SLD}Title") for rule in rules] == titles
    assert [rule.findtext(f".//{SLD}Fill/{SLD}CssParameter") for rule in rules] == [
        c.color for c in present
    ]


def test_groups_have_the_colors_of_the_legend(case: Case, package: Path) -> None:
    (qml, sld), _ = query(
        package, "SELECT styleQML, styleSLD FROM layer_styles WHERE styleName = 'group'"
    )
    *rules, rest = ET.fromstring(str(sld)).findall(f".//{SLD}Rule")
    assert rest.findtext(f"{SLD}Title") == "other"
    odd = 'Odd & <"group">'
    colors = {
        **{group: GROUPS[group] for group in ("Water", "Forest", "Residential")},
        odd: next(c.color for c in case.classes if c.group == odd),
    }
    assert {
        rule.findtext(f"{OGC}Filter/{OGC}PropertyIsEqualTo/{OGC}Literal"): rule.findtext(
            f".//{SLD}Fill/{SLD}CssParameter"
        )
        for rule in rules
    } == colors
    assert [rule.findtext(f"{SLD}Title") for rule in rules] == [*colors]
    found = [category.get("value") for category in ET.fromstring(str(qml)).iter("category")]
    assert found == [*colors, ""]


def test_classes_without_groups_have_no_style_of_groups(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    make_case(names=("p", "q")).write(tmp_path / "map.gpkg")
    styles = query(tmp_path / "map.gpkg", "SELECT styleName FROM layer_styles")
    assert styles == [("class",), ("confidence",)] * 2 + [("familiarity",)]


def test_map_tips_escape_what_people_wrote(package: Path) -> None:
    tips = [
        ET.fromstring(str(qml)).findtext("mapTip")
        for (qml,) in query(package, "SELECT styleQML FROM layer_styles")
    ]
    for tip in tips:
        assert tip is not None
        for field in re.findall(r'"(\w+)"', tip):
            if field in ("class", "caption", "runner_up"):
                assert (
                    f"replace(replace(coalesce(\"{field}\", ''), '&', '&amp;'), '<', '&lt;')" in tip
                )
    assert '"caption"' in str(tips[-1])


def test_fields_have_aliases_and_descriptions(case: Case, package: Path) -> None:
    rows = query(
        package, "SELECT table_name, column_name, name, description FROM gpkg_data_columns"
    )
    fields = [("landuse", field) for field in LANDUSE_FIELDS]
    fields += [("cells", field) for field in (*CELL_FIELDS, *probability_fields(case.classes))]
    assert rows == [(layer, field.name, field.alias, field.description) for layer, field in fields]
    assert ("cells", "p_robert_drop_table_scenes", "P(Robert'); DROP TABLE scenes;--)") in [
        row[:3] for row in rows
    ]


def test_provenance_is_found_from_the_file_and_from_both_layers(package: Path) -> None:
    rows = query(
        package,
        "SELECT reference_scope, table_name, md_standard_uri, mime_type, metadata FROM"
        " gpkg_metadata_reference JOIN gpkg_metadata ON md_file_id = gpkg_metadata.id",
    )
    documents = [row for row in rows if row[3] == "application/json"]
    assert [row[:2] for row in documents] == [
        ("geopackage", None),
        ("table", "landuse"),
        ("table", "cells"),
    ]
    document = json.loads(str(documents[0][4]))
    assert document["input"] == "scene <1>.tif"
    assert document["options"] == {"cell_size": [8, 8]}
    assert document["captions"] > 0  # what finish() added
    assert document["created"].endswith("Z")
    shown = [row for row in rows if row[2] == "http://mrcc.com/qgis.dtd"]
    assert [row[1] for row in shown] == ["landuse", "cells"]
    for row in shown:
        root = ET.fromstring(str(row[4]))
        assert root.findtext("title")
        assert "input: scene <1>.tif" in [entry.text for entry in root.findall("history")]
