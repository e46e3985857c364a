"""Legends for maps, and the crosswalks to them.

Some are included as files; others are the user's own.

A crosswalk is a JSON file: ``crosswalk`` names the class of the legend for each class of a map, or
for each group of classes; a class of its own counts before its group. ``title``, ``source``,
``classes`` (of each its ``name`` and ``color``, in the order of the legend) and ``unmapped``
(classes without a counterpart, with the reason) may be left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import InputError, UsageError, one_line
from rssc_geo.models import UNKNOWN_CLASS, SceneClass, scene_classes, unknown_class
from rssc_geo.texts import parse_json, read_text

log = logging.getLogger(__name__)

UNMAPPED = "Unmapped"
"""Name for a class without a counterpart in the legend."""

_GRAY = "#8c8c8c"
_COLOR = re.compile("#[0-9a-fA-F]{6}")
_KEYS = {"title", "source", "classes", "crosswalk", "unmapped"}


@dataclass(frozen=True, slots=True)
class Legend:
    """A legend and the crosswalk to it.

    Attributes
    ----------
    name : as given
    title, source : as text; "" where the file has none
    crosswalk : the legend's class by the name of a map's class or group
    colors : by the legend's class, in the order of the legend; may lack some
    unmapped : the reason why a class has no counterpart in the legend
    """

    name: str
    title: str
    source: str
    crosswalk: Mapping[str, str]
    colors: Mapping[str, str] = field(default_factory=dict)
    unmapped: Mapping[str, str] = field(default_factory=dict)

    def translate(self, name: str, group: str = "") -> str:
        """The legend's class for a map's class, or a name of the legend itself.

        ``Unknown`` stays unchanged; ``UNMAPPED`` for a class without a counterpart.
        """
        if name == UNKNOWN_CLASS or name in self.crosswalk:
            return self.crosswalk.get(name, name)
        if name in self.unmapped:
            return UNMAPPED
        if group in self.crosswalk:
            return self.crosswalk[group]
        if self.name == "groups" and group:  # of a taxonomy of one's own
            return group
        return name if name in self.names else UNMAPPED

    @property
    def names(self) -> tuple[str, ...]:
        """The legend's classes, in its order."""
        return tuple(dict.fromkeys([*self.colors, *self.crosswalk.values()]))

    def classes(self, present: Sequence[str]) -> tuple[SceneClass, ...]:
        """The legend's classes among ``present``, with ids from 0 and colors.

        In the order of the legend; ``UNMAPPED`` and ``Unknown`` come last.
        """
        own = set(present) - {UNMAPPED, UNKNOWN_CLASS}
        names = [*(name for name in self.names if name in own), *sorted(own - set(self.names))]
        made = [
            SceneClass(known.id, known.name, self.colors.get(known.name, known.color))
            for known in scene_classes(names)
        ]
        if UNMAPPED in present:
            made.append(SceneClass(len(made), UNMAPPED, _GRAY, "Has no place in this legend"))
        if UNKNOWN_CLASS in present:
            made.append(unknown_class(len(made)))
        return tuple(made)


def legend_names() -> tuple[str, ...]:
    """The included legends."""
    folder = files("rssc_geo.output") / "crosswalks"
    return tuple(sorted(file.name.removesuffix(".json") for file in folder.iterdir()))


def read_legend(name: str) -> Legend:
    """An included legend by its name, or that of a file.

    Raises ``UsageError`` for a name that is neither, ``InputError`` for a file that is no
    crosswalk.

    Examples
    --------
    >>> from rssc_geo.output import read_legend
    >>> read_legend("corine-1").translate("Lake")
    '5 Water bodies'
    """
    known = legend_names()
    if name in known:
        text = (files("rssc_geo.output") / "crosswalks" / f"{name}.json").read_text("utf-8")
    elif Path(name).is_file():
        try:
            text = read_text(name)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--legend {name} cannot be read: {one_line(error)}") from error
    else:
        raise UsageError(f"--legend {name} is no file, nor one of {', '.join(known)}")
    try:
        return _parse(name, parse_json(text))
    except (ValueError, TypeError) as error:
        raise InputError(f"--legend {name} is no crosswalk: {one_line(error)}") from error


def translate_classes(
    classes: Sequence[tuple[str, str]], legend: Legend | None
) -> tuple[tuple[str, ...], NDArray[np.int16]]:
    """The classes of a map in a legend, and the place of each of the map's among them, int16 (C,).

    ``classes``: names and groups; ``legend``: None keeps them as they are. Classes without a place
    are reported in a warning.
    """
    if legend is None:
        return tuple(name for name, _ in classes), np.arange(len(classes), dtype=np.int16)
    targets = [legend.translate(name, group) for name, group in classes]
    present = tuple(scene_class.name for scene_class in legend.classes(targets))
    for (name, _), target in zip(classes, targets, strict=True):
        if target == UNMAPPED:
            reason = legend.unmapped.get(name, "the crosswalk does not name it")
            log.warning("%s has no class in the legend %s (%s)", name, legend.name, reason)
    return present, np.array([present.index(target) for target in targets], np.int16)


def _parse(name: str, values: Any) -> Legend:
    if not isinstance(values, dict) or not isinstance(values.get("crosswalk"), dict):
        raise TypeError('a JSON object with "crosswalk", an object of names, is needed')
    if strange := sorted(set(values) - _KEYS):
        raise ValueError(f"{strange[0]!r} is none of {', '.join(sorted(_KEYS))}")
    crosswalk, unmapped = values["crosswalk"], values.get("unmapped", {})
    entries = values.get("classes", [])
    if not isinstance(unmapped, dict) or not isinstance(entries, list):
        raise TypeError('"unmapped" is an object of reasons, "classes" a list')
    texts = [values.get("title", ""), values.get("source", "")]
    texts += [*crosswalk.values(), *unmapped.values()]
    if not crosswalk or not all(isinstance(text, str) for text in texts):
        raise ValueError("names, reasons, title and source are texts, and there is at least one")
    if taken := {UNMAPPED, UNKNOWN_CLASS}.intersection(crosswalk.values()):
        raise ValueError(f"{taken.pop()!r} is no name for a class of a legend")
    colors: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"name", "color"}:
            raise ValueError(f"a class has a name and a color, not {entry!r}")
        if not isinstance(entry["name"], str) or not _COLOR.fullmatch(str(entry["color"])):
            raise ValueError(f"{entry!r} is no name with a color such as #287aba")
        colors[entry["name"]] = entry["color"]
    if not all(text.strip() for text in (*crosswalk.values(), *colors)):
        raise ValueError("a class of the legend has an empty name")
    return Legend(name, texts[0], texts[1], crosswalk, colors, unmapped)
