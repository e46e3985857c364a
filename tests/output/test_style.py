"""Styles hold for any class name and any confidence."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from rssc_geo.models import SceneClass, by_group
from rssc_geo.output import (
    CELL_FIELDS,
    CONFIDENCE_STEPS,
    class_qml,
    class_sld,
    confidence_qml,
    confidence_sld,
    group_qml,
    group_sld,
    xml_text,
)

OGC = "{http://www.opengis.net/ogc}"
SLD = "{http://www.opengis.net/sld}"


_NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
"""What a class can be called."""


@given(st.lists(_NAMES, min_size=1, max_size=6))
def test_any_class_names_make_xml_that_gives_them_back(names: list[str]) -> None:
    classes = [SceneClass(index, name, "#102030", group=name) for index, name in enumerate(names)]
    ordered = [c.name for members in by_group(classes).values() for c in members]
    categories = ET.fromstring(class_qml("cells", CELL_FIELDS, classes)).findall(".//category")
    for kind in ("value", "label"):
        assert [category.get(kind) for category in categories][:-1] == [*map(xml_text, ordered)]
    assert categories[-1].get("value") == ""
    literals = ET.fromstring(class_sld("cells", classes)).iter(f"{OGC}Literal")
    # XML reads a lone carriage return in text as a line feed.
    assert [literal.text for literal in literals] == [
        xml_text(name).replace("\r\n", "\n").replace("\r", "\n") for name in ordered
    ]
    for made in (class_sld("cells", classes), group_sld("cells", classes)):
        *own, rest = ET.fromstring(made).iter(f"{SLD}Rule")
        assert rest.find(f"{SLD}ElseFilter") is not None  # whatever edits may bring
        assert all(rule.find(f"{OGC}Filter") is not None for rule in own)
    groups = [*by_group(classes)]
    categories = ET.fromstring(group_qml("cells", CELL_FIELDS, classes)).findall(".//category")
    assert [category.get("value") for category in categories] == [*map(xml_text, groups), ""]
    assert len([*ET.fromstring(group_sld("cells", classes)).iter(f"{OGC}Literal")]) == len(groups)


def test_steps_of_confidence_cover_zero_to_one_without_gap() -> None:
    assert (CONFIDENCE_STEPS[0].lower, CONFIDENCE_STEPS[-1].upper) == (0, 1)
    for below, above in pairwise(CONFIDENCE_STEPS):
        assert below.upper == above.lower
    ranges = ET.fromstring(confidence_qml("cells", CELL_FIELDS)).findall(".//range")
    assert [float(str(step.get("upper"))) for step in ranges] == [
        step.upper for step in CONFIDENCE_STEPS
    ]
    for value in (0.0, 0.5, 0.6999, 0.95, 1.0):  # one rule of the SLD draws it
        assert (
            sum(
                _matches(condition, value)
                for condition in ET.fromstring(confidence_sld("x")).iter(f"{OGC}And")
            )
            == 1
        )


def _matches(condition: ET.Element, value: float) -> bool:
    lower, upper = (float(str(literal.text)) for literal in condition.iter(f"{OGC}Literal"))
    closed = condition.find(f"{OGC}PropertyIsLessThanOrEqualTo") is not None
    return lower <= value < upper or (closed and value == upper)
