"""The same looks as SLD 1.0.0, for GeoServer and MapServer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, tostring

from rssc_geo.output.styles import CONFIDENCE_STEPS, FILL_OPACITY, outline, xml_text

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_NAMESPACES = {"xmlns": "http://www.opengis.net/sld", "xmlns:ogc": "http://www.opengis.net/ogc"}


def class_sld(layer: str, classes: Sequence[SceneClass]) -> str:
    """One rule a class."""
    root, rules = _sld(layer, "Class")
    for scene_class in classes:
        name = xml_text(scene_class.name)
        condition = _rule(rules, name, scene_class.color)
        _compare(condition, "PropertyIsEqualTo", "class", name)
    return tostring(root, encoding="unicode")


def confidence_sld(layer: str) -> str:
    """One rule a step of confidence; a value between two steps belongs to the upper one."""
    root, rules = _sld(layer, "Confidence")
    for step in CONFIDENCE_STEPS:
        both = SubElement(_rule(rules, step.label, step.color), "ogc:And")
        _compare(both, "PropertyIsGreaterThanOrEqualTo", "confidence", str(step.lower))
        below = (
            "PropertyIsLessThan"
            if step is not CONFIDENCE_STEPS[-1]
            else "PropertyIsLessThanOrEqualTo"
        )
        _compare(both, below, "confidence", str(step.upper))
    return tostring(root, encoding="unicode")


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
    red, green, blue = outline(color)
    for parent, name, value in (
        (fill, "fill", color),
        (fill, "fill-opacity", str(FILL_OPACITY)),
        (stroke, "stroke", f"#{red:02x}{green:02x}{blue:02x}"),
        (stroke, "stroke-width", "0.5"),
    ):
        SubElement(parent, "CssParameter", name=name).text = value
    return condition


def _compare(parent: Element, operator: str, field: str, value: str) -> None:
    comparison = SubElement(parent, f"ogc:{operator}")
    SubElement(comparison, "ogc:PropertyName").text = field
    SubElement(comparison, "ogc:Literal").text = value
