"""Styles of QGIS (QML, for 3.22 and later), as QGIS writes them, less what is its default.

Class names come from people and may hold anything; ElementTree escapes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from rssc_geo.output.layers import Field
from rssc_geo.output.symbology import (
    FILL_OPACITY,
    KEPT,
    OTHER,
    REST,
    Category,
    Rgb,
    Step,
    outline_of,
    rgb,
    xml_text,
)

_OUTLINE_MM = {"landuse": 0.26, "change": 0.46, "hits": 0.46, "cells": 0.1}
_CATEGORIES = "Symbology|Fields|MapTips"
# Of the review layer: bright outlines and no fill, so that the ground stays visible.
_REVIEW_LOOKS = (
    ("to label", '"label" IS NULL OR trim("label") = \'\'', "255,0,200,255"),
    ("labeled", "ELSE", "0,220,90,255"),
)
_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def categorized_qml(
    layer: str,
    fields: Sequence[Field],
    attribute: str,
    categories: Sequence[Category],
    *,
    unless_equal: tuple[str, str] | None = None,
) -> str:
    """The layer in the colors of a field's categories, and of one more for all other values.

    Features whose fields ``unless_equal`` are equal belong to that one.
    """
    value, rest = attribute, REST
    if unless_equal is not None:
        one, other = unless_equal
        value, rest = f'CASE WHEN "{one}" <> "{other}" THEN "{attribute}" ELSE \'\' END', KEPT
    root = Element("qgis", version="3.22.0", styleCategories=_CATEGORIES)
    renderer = SubElement(
        root,
        "renderer-v2",
        type="categorizedSymbol",
        attr=value,
        enableorderby="0",
        forceraster="0",
    )
    renderer.set("symbollevels", "0")
    entries, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for index, category in enumerate([*categories, Category("", rest, OTHER)]):
        SubElement(
            entries,
            "category",
            value=xml_text(category.value),
            label=xml_text(category.label),
            symbol=str(index),
            render="true",
            type="string",
        )
        _symbol(symbols, str(index), category.color, outline_mm=_OUTLINE_MM[layer])
    _symbol(SubElement(renderer, "source-symbol"), "0", OTHER, outline_mm=_OUTLINE_MM[layer])
    return _finished(root, fields)


def graduated_qml(
    layer: str, fields: Sequence[Field], attribute: str, steps: Sequence[Step]
) -> str:
    """The layer in the colors of a value's steps."""
    root = Element("qgis", version="3.22.0", styleCategories=_CATEGORIES)
    renderer = SubElement(
        root,
        "renderer-v2",
        type="graduatedSymbol",
        attr=attribute,
        graduatedMethod="GraduatedColor",
    )
    renderer.set("symbollevels", "0")
    ranges, symbols = SubElement(renderer, "ranges"), SubElement(renderer, "symbols")
    for index, step in enumerate(steps):
        lower, upper = f"{step.lower:.15f}", f"{step.upper:.15f}"
        SubElement(
            ranges,
            "range",
            lower=lower,
            upper=upper,
            label=step.label,
            symbol=str(index),
            render="true",
        )
        _symbol(symbols, str(index), step.color, outline_mm=_OUTLINE_MM[layer])
    _symbol(SubElement(renderer, "source-symbol"), "0", OTHER, outline_mm=_OUTLINE_MM[layer])
    return _finished(root, fields)


def review_qml(fields: Sequence[Field], classes: Sequence[str]) -> str:
    """The style of cells to review, and the form in which they are labeled: a list of classes.

    Outlines by whether the cell has a label, its rank in the middle, and the model's result as a
    map tip.
    """
    root = Element(
        "qgis",
        version="3.22.0",
        styleCategories="Symbology|Labeling|Fields|Forms|MapTips",
        labelsEnabled="1",
    )
    renderer = SubElement(root, "renderer-v2", type="RuleRenderer", enableorderby="0")
    renderer.set("forceraster", "0")
    renderer.set("symbollevels", "0")
    rules, symbols = SubElement(renderer, "rules", key="review"), SubElement(renderer, "symbols")
    for index, (label, condition, color) in enumerate(_REVIEW_LOOKS):
        rule = SubElement(rules, "rule", key=f"review-{index}", symbol=str(index), label=label)
        rule.set("filter", condition)
        outlined = {"style": "no", "outline_color": color, "outline_width": "0.7"}
        _fill_symbol(symbols, str(index), outlined)
    settings = SubElement(
        SubElement(root, "labeling", type="simple"), "settings", calloutType="simple"
    )
    style = SubElement(
        settings, "text-style", fieldName="rank", isExpression="0", fontSize="9", fontWeight="75"
    )
    style.set("textColor", "40,40,40,255")
    SubElement(style, "text-buffer", bufferDraw="1", bufferSize="1", bufferColor="255,255,255,255")
    configuration = SubElement(root, "fieldConfiguration")
    _add_choice(SubElement(configuration, "field", name="label"), classes)
    SubElement(root, "layerOpacity").text = "1"
    _add_aliases(root, fields)
    SubElement(root, "previewExpression").text = '"rank"'
    tip = " ".join(f"{_escaped(name)}<br>" for name in ("reason", "caption"))
    SubElement(root, "mapTip", enabled="1").text = tip
    return _DOCTYPE + tostring(root, encoding="unicode")


def sample_qml(
    fields: Sequence[Field], answers: Sequence[str], *, cannot_tell: str, points: bool
) -> str:
    """The style of a sample's units, and the form in which they are labeled.

    Outlines (of cells) or dots (of points) by the state of the field ``class``, whose values are
    chosen from a list; all fields but this and ``note`` are hidden in the form.
    """
    root = Element("qgis", version="3.22.0", styleCategories="Symbology|Fields|Forms|MapTips")
    renderer = SubElement(root, "renderer-v2", type="RuleRenderer", enableorderby="0")
    renderer.set("forceraster", "0")
    renderer.set("symbollevels", "0")
    rules, symbols = SubElement(renderer, "rules", key="sample"), SubElement(renderer, "symbols")
    unanswered = '"class" IS NULL OR trim("class") = \'\''
    for index, (label, condition, color) in enumerate(
        (
            ("to label", unanswered, "255,0,200,255"),
            (cannot_tell, f"\"class\" = '{cannot_tell}'", "130,130,130,255"),
            ("labeled", "ELSE", "0,220,90,255"),
        )
    ):
        rule = SubElement(rules, "rule", key=f"sample-{index}", symbol=str(index), label=label)
        rule.set("filter", condition)
        if points:
            _marker_symbol(symbols, str(index), color)
        else:
            outlined = {"style": "no", "outline_color": color, "outline_width": "0.7"}
            _fill_symbol(symbols, str(index), outlined)
    configuration = SubElement(root, "fieldConfiguration")
    for field in fields:
        described = SubElement(configuration, "field", name=field.name)
        if field.name == "class":
            _add_choice(described, answers)
        else:
            kind = "TextEdit" if field.name == "note" else "Hidden"
            SubElement(described, "editWidget", type=kind)
    SubElement(root, "layerOpacity").text = "1"
    _add_aliases(root, fields)
    SubElement(root, "previewExpression").text = '"number"'
    SubElement(root, "mapTip", enabled="1").text = _escaped("class")
    return _DOCTYPE + tostring(root, encoding="unicode")


def _add_choice(field: Element, values: Sequence[str]) -> None:
    """The widget of a field whose value is chosen from a list."""
    widget = SubElement(field, "editWidget", type="ValueMap")
    config = SubElement(SubElement(widget, "config"), "Option", type="Map")
    choices = SubElement(config, "Option", type="List", name="map")
    for value in values:
        entry = SubElement(choices, "Option", type="Map")
        text = xml_text(value)
        SubElement(entry, "Option", type="QString", name=text, value=text)


def _finished(root: Element, fields: Sequence[Field]) -> str:
    SubElement(root, "layerOpacity").text = "1"
    SubElement(root, "blendMode").text = "0"
    _add_aliases(root, fields)
    names = {field.name for field in fields}
    shown = "to_class" if "to_class" in names else "class"
    SubElement(root, "previewExpression").text = f'"{shown}"'
    SubElement(root, "mapTip", enabled="1").text = _map_tip(names)
    return _DOCTYPE + tostring(root, encoding="unicode")


def _add_aliases(root: Element, fields: Sequence[Field]) -> None:
    aliases = SubElement(root, "aliases")
    for index, field in enumerate(fields, start=1):  # 0 is fid
        SubElement(aliases, "alias", field=field.name, index=str(index), name=xml_text(field.alias))


def _symbol(parent: Element, name: str, color: str, *, outline_mm: float) -> None:
    """A translucent fill with a darker outline."""
    values = {
        "color": _rgba(rgb(color), FILL_OPACITY),
        "joinstyle": "miter",
        "outline_color": _rgba(outline_of(color), 0.8),
        "outline_width": str(outline_mm),
        "style": "solid",
    }
    _fill_symbol(parent, name, values)


def _fill_symbol(parent: Element, name: str, values: Mapping[str, str]) -> None:
    symbol = SubElement(
        parent, "symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0"
    )
    layer = SubElement(
        symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
    )
    options = SubElement(layer, "Option", type="Map")
    for key, value in {**values, "outline_style": "solid", "outline_width_unit": "MM"}.items():
        SubElement(options, "Option", type="QString", name=key, value=value)


def _marker_symbol(parent: Element, name: str, color: str) -> None:
    """A ring around the point, so that the ground in it stays visible."""
    symbol = SubElement(parent, "symbol", type="marker", name=name, alpha="1", force_rhr="0")
    layer = SubElement(
        symbol, "layer", {"class": "SimpleMarker", "enabled": "1", "locked": "0", "pass": "0"}
    )
    options = SubElement(layer, "Option", type="Map")
    for key, value in (
        ("name", "circle"),
        ("color", "0,0,0,0"),
        ("outline_color", color),
        ("outline_width", "0.6"),
        ("outline_width_unit", "MM"),
        ("size", "4"),
        ("size_unit", "MM"),
    ):
        SubElement(options, "Option", type="QString", name=key, value=value)


def _rgba(color: Rgb, opacity: float) -> str:
    return ",".join(str(channel) for channel in (*color, round(255 * opacity)))


def _map_tip(names: Collection[str]) -> str:
    """HTML with QGIS expressions, in which values are escaped: QGIS does not do so itself."""
    if "to_class" in names:
        lines = [
            f"{_escaped('from_class')} → <b>{_escaped('to_class')}</b>",
            'Probability of a change [% round(100 * "probability") %] %',
        ]
    else:
        lines = [f"<b>{_escaped('class')}</b>", 'Confidence [% round(100 * "confidence") %] %']
    if "runner_up" in names:
        lines.append(f"then {_escaped('runner_up')}")
    if "area_m2" in names:
        lines.append('[% format_number("area_m2" / 10000, 2) %] ha')
    if "caption" in names:
        lines.append(f"<i>{_escaped('caption')}</i>")
    return "<br>".join(lines)


def _escaped(field: str) -> str:
    return f"[% replace(replace(coalesce(\"{field}\", ''), '&', '&amp;'), '<', '&lt;') %]"
