"""How the layers look: QGIS styles (QML, for QGIS 3.22 and later) for classes and for confidence.

Both are written as QGIS writes them itself, reduced to what differs from its defaults: the
renderer, aliases and the map tip. Class names come from people and may hold anything; ElementTree
escapes them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, tostring

from rssc_geo.output.fields import Field

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

FILL_OPACITY = 0.6  # the imagery below stays readable
_OUTLINE_SHADE = 0.6
_OUTLINE_MM = {"landuse": 0.26, "cells": 0.1}
_OTHER = "#9e9e9e"
_CATEGORIES = "Symbology|Fields|MapTips"
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


def class_qml(layer: str, fields: Sequence[Field], classes: Sequence[SceneClass]) -> str:
    """The style by class.

    One category a class in its color, and a gray one for values that edits may bring.
    """
    root = Element("qgis", version="3.22.0", styleCategories=_CATEGORIES)
    renderer = SubElement(
        root,
        "renderer-v2",
        type="categorizedSymbol",
        attr="class",
        enableorderby="0",
        forceraster="0",
    )
    renderer.set("symbollevels", "0")
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    entries = [
        (xml_text(scene_class.name), xml_text(scene_class.name), scene_class.color)
        for scene_class in classes
    ]
    for index, (value, label, color) in enumerate([*entries, ("", "other", _OTHER)]):
        SubElement(
            categories,
            "category",
            value=value,
            label=label,
            symbol=str(index),
            render="true",
            type="string",
        )
        _symbol(symbols, str(index), color, outline_mm=_OUTLINE_MM[layer])
    _symbol(SubElement(renderer, "source-symbol"), "0", _OTHER, outline_mm=_OUTLINE_MM[layer])
    return _finished(root, fields)


def confidence_qml(layer: str, fields: Sequence[Field]) -> str:
    """The style by confidence, in five steps."""
    root = Element("qgis", version="3.22.0", styleCategories=_CATEGORIES)
    renderer = SubElement(
        root,
        "renderer-v2",
        type="graduatedSymbol",
        attr="confidence",
        graduatedMethod="GraduatedColor",
    )
    renderer.set("symbollevels", "0")
    ranges, symbols = SubElement(renderer, "ranges"), SubElement(renderer, "symbols")
    for index, step in enumerate(CONFIDENCE_STEPS):
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


def rgb(color: str) -> Rgb:
    """``#rrggbb`` as numbers."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def outline(color: str) -> Rgb:
    """A darker shade of a fill's color."""
    red, green, blue = (round(_OUTLINE_SHADE * channel) for channel in rgb(color))
    return red, green, blue


def xml_text(text: str) -> str:
    """The text without the control characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def _finished(root: Element, fields: Sequence[Field]) -> str:
    SubElement(root, "layerOpacity").text = "1"
    SubElement(root, "blendMode").text = "0"
    aliases = SubElement(root, "aliases")
    for index, field in enumerate(fields, start=1):  # 0 is fid
        SubElement(aliases, "alias", field=field.name, index=str(index), name=xml_text(field.alias))
    SubElement(root, "previewExpression").text = '"class"'
    SubElement(root, "mapTip", enabled="1").text = _map_tip(fields)
    return _DOCTYPE + tostring(root, encoding="unicode")


def _symbol(parent: Element, name: str, color: str, *, outline_mm: float) -> None:
    symbol = SubElement(
        parent, "symbol", type="fill", name=name, alpha="1", clip_to_extent="1", force_rhr="0"
    )
    layer = SubElement(
        symbol, "layer", {"class": "SimpleFill", "enabled": "1", "locked": "0", "pass": "0"}
    )
    options = SubElement(layer, "Option", type="Map")
    values = {
        "color": _rgba(rgb(color), FILL_OPACITY),
        "joinstyle": "miter",
        "outline_color": _rgba(outline(color), 0.8),
        "outline_style": "solid",
        "outline_width": str(outline_mm),
        "outline_width_unit": "MM",
        "style": "solid",
    }
    for key, value in values.items():
        SubElement(options, "Option", type="QString", name=key, value=value)


def _rgba(color: Rgb, opacity: float) -> str:
    return ",".join(str(channel) for channel in (*color, round(255 * opacity)))


def _map_tip(fields: Sequence[Field]) -> str:
    """HTML with QGIS expressions.

    The values are escaped where QGIS fills them in: it does not do so itself.
    """
    names = {field.name for field in fields}
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
