"""The models that were trained here, and the model and raster of a map."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import QgsMapLayer, QgsProject, QgsRasterLayer, QgsVectorLayer

from .labels import folder, plain_name
from .results import file_of, read_provenance

EMBEDDED = "compact"
_CARD = "config.json"


def models_folder() -> str:
    """Where models that are trained in QGIS are kept."""
    return os.path.join(folder(), "models")


def trained_models() -> dict[str, str]:
    """Their folders by name, the newest first."""
    place = models_folder()
    found = [entry.path for entry in os.scandir(place)] if os.path.isdir(place) else []
    found = [path for path in found if os.path.isfile(os.path.join(path, _CARD))]
    found.sort(key=os.path.getmtime, reverse=True)
    return {os.path.basename(path): path for path in found}


def colors_of(model: str) -> dict[str, str]:
    """The color of each class of a model that was trained here, by its card."""
    try:
        card = json.loads(Path(model, _CARD).read_text(encoding="utf-8"))
        return {known["name"]: known["color"] for known in card["classes"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def free_model_name(name: str) -> str:
    """The name of the next model: no folder and no page has it yet."""
    number, stem = 1, plain_name(name)
    while any(
        os.path.exists(os.path.join(models_folder(), f"{stem}-{number}{s}")) for s in ("", ".html")
    ):
        number += 1
    return f"{stem}-{number}"


def provenance_of(layer: QgsMapLayer) -> dict[str, Any]:
    """The provenance in the GeoPackage of a layer; empty where it is no map of rssc-geo."""
    made = read_provenance(file_of(layer)) if isinstance(layer, QgsVectorLayer) else {}
    return made if "model" in made and "input" in made else {}


def model_of(made: Mapping[str, Any], chosen: str) -> str:
    """The model that a map was made with, by its content: the embedded one, a folder, or ''.

    ``chosen``: one to look at beside those that were trained here.
    """
    wanted = made["model"]["sha256"]
    if made["model"]["name"] == EMBEDDED:
        return EMBEDDED  # the backend compares its content
    for place in (chosen, *trained_models().values()):
        try:
            card = json.loads(Path(place, _CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if card.get("sha256") == wanted:
            return place
    return ""


def rasters_of(made: Mapping[str, Any], chosen: QgsRasterLayer | None) -> list[QgsRasterLayer]:
    """The layers of the project that a map may be of, the likeliest first.

    The backend compares their content with the mark that the map carries.
    """
    layers = [layer for layer in QgsProject.instance().mapLayers().values() if _is_file(layer)]
    names = [os.path.basename(file_of(layer)) for layer in layers]
    wanted = os.path.basename(made["input"])
    likely = [layer for layer, name in zip(layers, names) if name == wanted]
    return likely + [layer for layer in layers if layer is chosen and layer not in likely]


def _is_file(layer: QgsMapLayer) -> bool:
    return isinstance(layer, QgsRasterLayer) and layer.providerType() == "gdal"
