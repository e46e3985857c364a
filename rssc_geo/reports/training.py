"""The page of a model that was trained on labeled polygons: its accuracy and its confusions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rssc_geo.files import atomic_write
from rssc_geo.models import ModelCard
from rssc_geo.reports.matrix import matrix_picture
from rssc_geo.reports.page import render


def write_training_page(
    path: Path, card: ModelCard, values: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Write the page of the data of ``TrainOnPolygonsResult.as_dict``.

    Raises ``OutputError`` where it cannot be written.
    """
    scores, tested = values["scores"], values["tested"]
    names = [known.name for known in card.classes]
    colors = {known.name: known.color for known in card.classes}
    page = {
        "name": card.name,
        "description": card.description,
        "sources": card.training["sources"],
        "patches": values["patches"],
        "footprint_m": card.footprint.preferred_m,
        "warnings": values["warnings"],
        "scores": scores,
        "interval": values["interval"],
        "tested": tested,
        "by_labels_apart": bool(values.get("by_labels_apart")),
        "rows": []
        if scores is None
        else [
            {
                "name": name,
                "color": colors[name],
                **tested["classes"][name],
                **scores["per_class"][name],
            }
            for name in names
        ],
        "matrix": None
        if scores is None
        else matrix_picture(scores["confusion"], names, rows="label", cols="model"),
    }
    with atomic_write(path, overwrite=overwrite) as made:
        made.write_text(render("training.html", page), encoding="utf-8")
