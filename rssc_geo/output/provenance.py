"""What a result says of its making: a JSON document, and the text that QGIS shows of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone, UTC
from xml.etree.ElementTree import Element, SubElement, tostring

from rssc_geo.output.styles import xml_text


def document(*parts: Mapping[str, object]) -> dict[str, object]:
    """The parts in one mapping, the later ones prevailing, with the time in UTC as ``created``.

    Raises ``TypeError`` when a part is not made of JSON values: better now than in the middle of
    writing.
    """
    merged: dict[str, object] = {}
    for part in parts:
        merged |= part
    merged["created"] = timestamp()
    # File names that are not UTF-8 come as lone surrogates, which no format can hold.
    text = json.dumps(merged, ensure_ascii=False).encode("utf-8", "replace")
    result: dict[str, object] = json.loads(text)
    return result


def timestamp() -> str:
    """Now in UTC, in the form GeoPackage asks for: ``2026-01-31T12:00:00.000Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def qgis_metadata(title: str, abstract: str, provenance: Mapping[str, object]) -> str:
    """The XML that QGIS shows in a layer's properties.

    Title, abstract, one history line an entry of the provenance.
    """
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
