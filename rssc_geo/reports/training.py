"""The page of a model that was trained on labeled polygons: its accuracy and its confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rssc_geo.files import atomic_write
from rssc_geo.models import ModelCard
from rssc_geo.reports.page import render

_RIGHT, _WRONG = (34, 139, 74), (203, 60, 48)
_PAPER = 245
_DARK = 0.55
"""Share of a row from which its text is white."""


def write_training_page(path: Path, card: ModelCard, values: Mapping[str, Any]) -> None:
    """Write the page of the data of ``TrainOnPolygonsResult.as_dict``.

    Raises ``OutputError`` where it cannot be written.
    """
    scores = values["scores"]
    names = [known.name for known in card.classes]
    page = {
        "name": card.name,
        "description": card.description,
        "sources": card.training["sources"],
        "patches": values["patches"],
        "footprint_m": card.footprint.preferred_m,
        "warnings": values["warnings"],
        "scores": scores,
        "rows": []
        if scores is None
        else _rows(scores, names, {c.name: c.color for c in card.classes}),
        "names": names,
    }
    with atomic_write(path) as made:
        made.write_text(render("training.html", page), encoding="utf-8")


def _rows(
    scores: Mapping[str, Any], names: Sequence[str], colors: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A row a class: its figures, and the colored cells of the confusion matrix."""
    rows = []
    for place, (name, counts) in enumerate(zip(names, scores["confusion"], strict=True)):
        whole = sum(counts) or 1
        cells = [
            _cell(count, count / whole, _RIGHT if place == other else _WRONG)
            for other, count in enumerate(counts)
        ]
        rows.append(
            {"name": name, "color": colors[name], "cells": cells, **scores["per_class"][name]}
        )
    return rows


def _cell(count: int, part: float, color: tuple[int, int, int]) -> dict[str, Any]:
    fill = "#{:02x}{:02x}{:02x}".format(
        *(round(_PAPER + (channel - _PAPER) * part) for channel in color)
    )
    ink = "#fff" if part > _DARK else "#1c2024"
    return {"count": count or "", "fill": fill, "ink": ink}
