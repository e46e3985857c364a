"""Styles of map servers: SLD 1.0.0. ElementTree escapes the class names."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from rssc_geo.output.symbology import (
    FILL_OPACITY,
    KEPT,
    OTHER,
    REST,
    Category,
    Step,
    outline_of,
    xml_text,
)

_NAMESPACES = {"xmlns": "http://www.opengis.net/sld", "xmlns:ogc": "http://www.opengis.net/ogc"}


def categorized_sld(
    layer: str,
    title: str,
    attribute: str,
    categories: Sequence[Category],
    *,
    unless_equal: tuple[str, str] | None = None,
) -> str:
    """As :func:`rssc_geo.output.qml.categorized_qml`."""
    root, rules = _sld(layer, title)
    for category in categories:
        condition = _rule(rules, xml_text(category.label), category.color)
        if unless_equal is not None:
            condition = SubElement(condition, "ogc:And")
            differ = SubElement(condition, "ogc:PropertyIsNotEqualTo")
            for name in unless_equal:
                SubElement(differ, "ogc:PropertyName").text = name
        _compare(condition, "PropertyIsEqualTo", attribute, xml_text(category.value))
    _rule(rules, REST if unless_equal is None else KEPT, OTHER).tag = "ElseFilter"
    return tostring(root, encoding="unicode")


def graduated_sld(layer: str, title: str, attribute: str, steps: Sequence[Step]) -> str:
    """The layer in the colors of a value's steps; one between two belongs to the upper."""
    root, rules = _sld(layer, title)
    for step in steps:
        both = SubElement(_rule(rules, step.label, step.color), "ogc:And")
        _compare(both, "PropertyIsGreaterThanOrEqualTo", attribute, str(step.lower))
        last = step is steps[-1]
        below = "PropertyIsLessThanOrEqualTo" if last else "PropertyIsLessThan"
        _compare(both, below, attribute, str(step.upper))
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
    red, green, blue = outline_of(color)
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
