"""How the layers look: styles of QGIS (QML, for 3.22 and later), and SLD 1.0.0 for map servers.

QML is written as QGIS writes it itself, reduced to what differs from its defaults. Class names come
from people and may hold anything; ElementTree escapes them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, tostring

from rssc_geo.models import GROUPS, by_group
from rssc_geo.output.layers import Field, Layer

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_FILL_OPACITY = 0.6  # the imagery below stays readable
_OUTLINE_SHADE = 0.6
_OUTLINE_MM = {"landuse": 0.26, "change": 0.46, "hits": 0.46, "cells": 0.1}
_OTHER = "#9e9e9e"
_CATEGORIES = "Symbology|Fields|MapTips"
_NAMESPACES = {"xmlns": "http://www.opengis.net/sld", "xmlns:ogc": "http://www.opengis.net/ogc"}
# Of the review layer: bright outlines and no fill, so that the ground stays visible.
_REVIEW_LOOKS = (
    ("to label", '"label" IS NULL OR trim("label") = \'\'', "255,0,200,255"),
    ("labeled", "ELSE", "0,220,90,255"),
)
_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the confidence style: ``lower`` to ``upper``, drawn in ``color``."""

    lower: float
    upper: float
    color: str
    label: str


# Viridis: ordered in lightness, so readable in print and with any color vision.
CONFIDENCE_STEPS = (
    Step(0.0, 0.5, "#440154", "under 50 %"),
    Step(0.5, 0.7, "#3b528b", "50 to 70 %"),
    Step(0.7, 0.85, "#21918c", "70 to 85 %"),
    Step(0.85, 0.95, "#5ec962", "85 to 95 %"),
    Step(0.95, 1.0, "#fde725", "95 % and more"),
)


# Finer at the lower end, where cells become Unknown.
FAMILIARITY_STEPS = (
    Step(0.0, 0.01, "#440154", "under 1 %"),
    Step(0.01, 0.05, "#3b528b", "1 to 5 %"),
    Step(0.05, 0.2, "#21918c", "5 to 20 %"),
    Step(0.2, 0.5, "#5ec962", "20 to 50 %"),
    Step(0.5, 1.0, "#fde725", "50 % and more"),
)


# White to dark red, transparent for unchanged cells.
CHANGE_STEPS = (
    Step(0.0, 0.1, "#fff5f0", "under 10 %"),
    Step(0.1, 0.5, "#fcbba1", "10 to 50 %"),
    Step(0.5, 0.8, "#fb6a4a", "50 to 80 %"),
    Step(0.8, 0.95, "#cb181d", "80 to 95 %"),
    Step(0.95, 1.0, "#67000d", "95 % and more"),
)


_REST = "other"
KEPT, KEPT_COLOR = "other ground of the same class", _OTHER
"""Label and color of what changed and kept its class."""


@dataclass(frozen=True, slots=True)
class LayerStyle:
    """A style that a GeoPackage keeps for one of its layers; ``sld`` may be empty."""

    name: str
    description: str
    qml: str
    sld: str = ""
    default: bool = False


@dataclass(frozen=True, slots=True)
class _Category:
    """A category: features with this value, drawn in ``color`` and listed as ``label``."""

    value: str
    label: str
    color: str


def map_styles(layer: Layer, classes: Sequence[SceneClass]) -> tuple[LayerStyle, ...]:
    """A map's styles: by class, the default; by group where there are any; by confidence.

    Cells also by familiarity.
    """
    styles = [
        LayerStyle(
            "class",
            "Classes in the colors of the model",
            class_qml(layer.name, layer.fields, classes),
            class_sld(layer.name, classes),
            default=True,
        )
    ]
    if any(scene_class.group for scene_class in classes):
        styles.append(
            LayerStyle(
                "group",
                "Groups of classes",
                group_qml(layer.name, layer.fields, classes),
                group_sld(layer.name, classes),
            )
        )
    styles.append(
        LayerStyle(
            "confidence",
            "Confidence in five steps",
            confidence_qml(layer.name, layer.fields),
            confidence_sld(layer.name),
        )
    )
    if any(field.name == "familiarity" for field in layer.fields):
        styles.append(
            LayerStyle(
                "familiarity",
                "How like what the model has learned, in five steps",
                _graduated_qml(layer.name, layer.fields, "familiarity", FAMILIARITY_STEPS),
                _graduated_sld(layer.name, "Familiarity", "familiarity", FAMILIARITY_STEPS),
            )
        )
    return tuple(styles)


def change_styles(layer: Layer, classes: Sequence[SceneClass]) -> tuple[LayerStyle, ...]:
    """Styles of changes: by the class after, the class before, and the probability.

    The default is the class after for regions, the probability for cells. Regions that kept their
    class are gray.
    """
    looks = _class_categories(classes)
    regions = layer.name == "change"
    unless = ("from_class", "to_class") if regions else None
    by_class = [
        LayerStyle(
            name,
            description,
            _categorized_qml(layer.name, layer.fields, name, looks, unless_equal=unless),
            _categorized_sld(layer.name, description, name, looks, unless_equal=unless),
            default=regions and name == "to_class",
        )
        for name, description in (
            ("to_class", "What the ground became"),
            ("from_class", "What the ground was"),
        )
    ]
    probability = LayerStyle(
        "probability",
        "Probability of a change in five steps",
        _graduated_qml(layer.name, layer.fields, "probability", CHANGE_STEPS),
        _graduated_sld(layer.name, "Probability of a change", "probability", CHANGE_STEPS),
        default=not regions,
    )
    return (*by_class, probability) if regions else (probability, *by_class)


def class_qml(layer: str, fields: Sequence[Field], classes: Sequence[SceneClass]) -> str:
    """The style by class: one category each, and a gray one for values that edits may bring."""
    return _categorized_qml(layer, fields, "class", _class_categories(classes))


def group_qml(layer: str, fields: Sequence[Field], classes: Sequence[SceneClass]) -> str:
    """The style by the classes' group: one category each, and a gray one for all else."""
    return _categorized_qml(layer, fields, "group", _group_categories(classes))


def confidence_qml(layer: str, fields: Sequence[Field]) -> str:
    """The style by confidence, in five steps."""
    return _graduated_qml(layer, fields, "confidence", CONFIDENCE_STEPS)


def _graduated_qml(
    layer: str, fields: Sequence[Field], attribute: str, steps: Sequence[Step]
) -> str:
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
    _symbol(SubElement(renderer, "source-symbol"), "0", _OTHER, outline_mm=_OUTLINE_MM[layer])
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


def class_sld(layer: str, classes: Sequence[SceneClass]) -> str:
    """The style by class: one rule each, and a gray one for all else."""
    return _categorized_sld(layer, "Class", "class", _class_categories(classes))


def group_sld(layer: str, classes: Sequence[SceneClass]) -> str:
    """The style by the classes' group: one rule each, and a gray one for all else."""
    return _categorized_sld(layer, "Group", "group", _group_categories(classes))


def confidence_sld(layer: str) -> str:
    """The style by confidence; a value between two steps belongs to the upper one."""
    return _graduated_sld(layer, "Confidence", "confidence", CONFIDENCE_STEPS)


def _graduated_sld(layer: str, title: str, attribute: str, steps: Sequence[Step]) -> str:
    root, rules = _sld(layer, title)
    for step in steps:
        both = SubElement(_rule(rules, step.label, step.color), "ogc:And")
        _compare(both, "PropertyIsGreaterThanOrEqualTo", attribute, str(step.lower))
        last = step is steps[-1]
        below = "PropertyIsLessThanOrEqualTo" if last else "PropertyIsLessThan"
        _compare(both, below, attribute, str(step.upper))
    return tostring(root, encoding="unicode")


def rgb(color: str) -> Rgb:
    """``#rrggbb`` as numbers."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def xml_text(text: str) -> str:
    """The text without the control characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def _class_categories(classes: Sequence[SceneClass]) -> list[_Category]:
    """The classes under their titles, in the order of the legend."""
    return [
        _Category(scene_class.name, scene_class.title, scene_class.color)
        for members in by_group(classes).values()
        for scene_class in members
    ]


def _group_categories(classes: Sequence[SceneClass]) -> list[_Category]:
    """The groups of the classes; one that the legend lacks has the color of its first class."""
    return [
        _Category(group, group, GROUPS.get(group, members[0].color))
        for group, members in by_group(classes).items()
        if group
    ]


def _categorized_qml(
    layer: str,
    fields: Sequence[Field],
    attribute: str,
    categories: Sequence[_Category],
    *,
    unless_equal: tuple[str, str] | None = None,
) -> str:
    """Features whose fields ``unless_equal`` are equal belong to the last category."""
    value, rest = attribute, _REST
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
    for index, category in enumerate([*categories, _Category("", rest, _OTHER)]):
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
    _symbol(SubElement(renderer, "source-symbol"), "0", _OTHER, outline_mm=_OUTLINE_MM[layer])
    return _finished(root, fields)


def _categorized_sld(
    layer: str,
    title: str,
    attribute: str,
    categories: Sequence[_Category],
    *,
    unless_equal: tuple[str, str] | None = None,
) -> str:
    """As in :func:`_categorized_qml`."""
    root, rules = _sld(layer, title)
    for category in categories:
        condition = _rule(rules, xml_text(category.label), category.color)
        if unless_equal is not None:
            condition = SubElement(condition, "ogc:And")
            differ = SubElement(condition, "ogc:PropertyIsNotEqualTo")
            for name in unless_equal:
                SubElement(differ, "ogc:PropertyName").text = name
        _compare(condition, "PropertyIsEqualTo", attribute, xml_text(category.value))
    _rule(rules, _REST if unless_equal is None else KEPT, _OTHER).tag = "ElseFilter"
    return tostring(root, encoding="unicode")


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
        "color": _rgba(rgb(color), _FILL_OPACITY),
        "joinstyle": "miter",
        "outline_color": _rgba(_outline(color), 0.8),
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


def _outline(color: str) -> Rgb:
    """A darker shade of a fill's color."""
    red, green, blue = (round(_OUTLINE_SHADE * channel) for channel in rgb(color))
    return red, green, blue


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


def _sld(layer: str, title: str) -> tuple[Element, Element]:
    root = Element("StyledLayerDescriptor", {**_NAMESPACES, "version": "1.0.0"})
    named = SubElement(root, "NamedLayer")
    SubElement(named, "Name").text = layer
    style = SubElement(named, "UserStyle")
    SubElement(style, "Title").text = title
    return root, SubElement(style, "FeatureTypeStyle")


def _rule(rules: Element, title: str, color: str) -> Element:
    """A rule that draws in ``color``; returns its filter, still empty."""
    rule = SubElement(rules, "Rule")
    SubElement(rule, "Title").text = title
    condition = SubElement(rule, "ogc:Filter")
    symbolizer = SubElement(rule, "PolygonSymbolizer")
    fill, stroke = SubElement(symbolizer, "Fill"), SubElement(symbolizer, "Stroke")
    red, green, blue = _outline(color)
    for parent, name, value in (
        (fill, "fill", color),
        (fill, "fill-opacity", str(_FILL_OPACITY)),
        (stroke, "stroke", f"#{red:02x}{green:02x}{blue:02x}"),
        (stroke, "stroke-width", "0.5"),
    ):
        SubElement(parent, "CssParameter", name=name).text = value
    return condition


def _compare(parent: Element, operator: str, field: str, value: str) -> None:
    comparison = SubElement(parent, f"ogc:{operator}")
    SubElement(comparison, "ogc:PropertyName").text = field
    SubElement(comparison, "ogc:Literal").text = value
