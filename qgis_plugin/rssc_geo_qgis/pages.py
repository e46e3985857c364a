"""Pages (HTML) for QGIS's results viewer."""

from __future__ import annotations

import csv
import html
from collections.abc import Iterable, Mapping
from contextlib import suppress

from qgis.core import QgsProcessingUtils

from .i18n import tr

_HEADINGS = {
    "zone": tr("Zone"),
    "class": tr("Class"),
    "group": tr("Group"),
    "from_class": tr("Before"),
    "to_class": tr("After"),
    "from_group": tr("Group before"),
    "to_group": tr("Group after"),
    "changed": tr("Changed"),
    "cells": tr("Cells"),
    "area": tr("Area"),
    "share": tr("Share"),
}
_EXACT = ("area_m2", "changed_m2")
"""Columns of the table that its page leaves out: areas are shown in a unit that fits."""


def page(title: str, body: str) -> str:
    """A whole page; ``body`` is HTML."""
    shown = html.escape(title)
    return (
        f"<html><head><meta charset='utf-8'><title>{shown}</title></head><body>"
        f"<h2>{shown}</h2>{body}</body></html>\n"
    )


def areas_page(title: str, table: str) -> str:
    """The page of a table of areas (CSV) that the program wrote: a row a class, zone or change."""
    with open(table, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        names = [name for name in reader.fieldnames or () if name not in (*_EXACT, "unit")]
    head = "".join(f"<th align='left'>{_heading(name)}</th>" for name in names)
    lines = "".join(f"<tr>{_cells(row, names)}</tr>" for row in rows)
    return page(title, f"<table cellpadding='4'><tr>{head}</tr>{lines}</table>")


def shown_areas(title: str, table: str) -> str:
    """Write ``areas_page`` to a temporary file, for the results viewer; its path."""
    path = QgsProcessingUtils.generateTempFilename("areas.html")
    with open(path, "w", encoding="utf-8") as file:
        file.write(areas_page(title, table))
    return path


def _heading(name: str) -> str:
    return html.escape(_HEADINGS.get(name, name.replace("_", " ")))


def _cells(row: Mapping[str, str], names: Iterable[str]) -> str:
    found = []
    for name in names:
        text = row[name] or ""
        number = None
        with suppress(ValueError):
            number = float(text)
        if number is not None and name == "share":
            text = f"{number:.1%}"
        elif number is not None and name in ("area", "changed"):
            text = f"{number:,.2f} {row['unit']}"
        elif number is not None:
            text = f"{number:,.6g}"
        side = "left" if number is None else "right"
        found.append(f"<td align='{side}'>{html.escape(text)}</td>")
    return "".join(found)
