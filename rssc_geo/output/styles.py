"""How the layers look: their styles for QGIS (QML) and for map servers (SLD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rssc_geo.output.layers import Field, Layer
from rssc_geo.output.qml import categorized_qml, graduated_qml
from rssc_geo.output.sld import categorized_sld, graduated_sld
from rssc_geo.output.symbology import (
    CHANGE_STEPS,
    CONFIDENCE_STEPS,
    FAMILIARITY_STEPS,
    class_categories,
    group_categories,
)

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass


@dataclass(frozen=True, slots=True)
class LayerStyle:
    """A style that a GeoPackage keeps for one of its layers; ``sld`` may be empty."""

    name: str
    description: str
    qml: str
    sld: str = ""
    default: bool = False


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
                graduated_qml(layer.name, layer.fields, "familiarity", FAMILIARITY_STEPS),
                graduated_sld(layer.name, "Familiarity", "familiarity", FAMILIARITY_STEPS),
            )
        )
    return tuple(styles)


def change_styles(layer: Layer, classes: Sequence[SceneClass]) -> tuple[LayerStyle, ...]:
    """Styles of changes: by the class after, the class before, and the probability.

    The default is the class after for regions, the probability for cells. Regions that kept their
    class are gray.
    """
    looks = class_categories(classes)
    regions = layer.name == "change"
    unless = ("from_class", "to_class") if regions else None
    by_class = [
        LayerStyle(
            name,
            description,
            categorized_qml(layer.name, layer.fields, name, looks, unless_equal=unless),
            categorized_sld(layer.name, description, name, looks, unless_equal=unless),
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
        graduated_qml(layer.name, layer.fields, "probability", CHANGE_STEPS),
        graduated_sld(layer.name, "Probability of a change", "probability", CHANGE_STEPS),
        default=not regions,
    )
    return (*by_class, probability) if regions else (probability, *by_class)


def class_qml(layer: str, fields: Sequence[Field], classes: Sequence[SceneClass]) -> str:
    """The style by class: one category each, and a gray one for values that edits may bring."""
    return categorized_qml(layer, fields, "class", class_categories(classes))


def group_qml(layer: str, fields: Sequence[Field], classes: Sequence[SceneClass]) -> str:
    """The style by the classes' group: one category each, and a gray one for all else."""
    return categorized_qml(layer, fields, "group", group_categories(classes))


def confidence_qml(layer: str, fields: Sequence[Field]) -> str:
    """The style by confidence, in five steps."""
    return graduated_qml(layer, fields, "confidence", CONFIDENCE_STEPS)


def class_sld(layer: str, classes: Sequence[SceneClass]) -> str:
    """The style by class: one rule each, and a gray one for all else."""
    return categorized_sld(layer, "Class", "class", class_categories(classes))


def group_sld(layer: str, classes: Sequence[SceneClass]) -> str:
    """The style by the classes' group: one rule each, and a gray one for all else."""
    return categorized_sld(layer, "Group", "group", group_categories(classes))


def confidence_sld(layer: str) -> str:
    """The style by confidence, in five steps."""
    return graduated_sld(layer, "Confidence", "confidence", CONFIDENCE_STEPS)
