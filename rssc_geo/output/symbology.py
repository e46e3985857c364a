"""What the styles of the layers have in common: colors, categories and steps of a value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rssc_geo.models import GROUPS, by_group

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

Rgb = tuple[int, int, int]

FILL_OPACITY = 0.6
"""The imagery below stays readable."""

OTHER = "#9e9e9e"
_OUTLINE_SHADE = 0.6
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a value: from ``lower`` to ``upper``, drawn in ``color``."""

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

# Finer at the lower end, where cells become Unknown.
FAMILIARITY_STEPS = (
    Step(0.0, 0.01, "#440154", "under 1 %"),
    Step(0.01, 0.05, "#3b528b", "1 to 5 %"),
    Step(0.05, 0.2, "#21918c", "5 to 20 %"),
    Step(0.2, 0.5, "#5ec962", "20 to 50 %"),
    Step(0.5, 1.0, "#fde725", "50 % and more"),
)

# White to dark red, transparent for unchanged cells.
CHANGE_STEPS = (
    Step(0.0, 0.1, "#fff5f0", "under 10 %"),
    Step(0.1, 0.5, "#fcbba1", "10 to 50 %"),
    Step(0.5, 0.8, "#fb6a4a", "50 to 80 %"),
    Step(0.8, 0.95, "#cb181d", "80 to 95 %"),
    Step(0.95, 1.0, "#67000d", "95 % and more"),
)

REST = "other"
KEPT, KEPT_COLOR = "other ground of the same class", OTHER
"""Label and color of what changed and kept its class."""


@dataclass(frozen=True, slots=True)
class Category:
    """A category: features with this value, drawn in ``color`` and listed as ``label``."""

    value: str
    label: str
    color: str


def class_categories(classes: Sequence[SceneClass]) -> list[Category]:
    """The classes under their titles, in the order of the legend."""
    return [
        Category(scene_class.name, scene_class.title, scene_class.color)
        for members in by_group(classes).values()
        for scene_class in members
    ]


def group_categories(classes: Sequence[SceneClass]) -> list[Category]:
    """The groups of the classes; one that the legend lacks has the color of its first class."""
    return [
        Category(group, group, GROUPS.get(group, members[0].color))
        for group, members in by_group(classes).items()
        if group
    ]


def rgb(color: str) -> Rgb:
    """``#rrggbb`` as numbers."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def outline_of(color: str) -> Rgb:
    """A darker shade of a fill's color."""
    red, green, blue = (round(_OUTLINE_SHADE * channel) for channel in rgb(color))
    return red, green, blue


def xml_text(text: str) -> str:
    """The text without the control characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
