"""The fields of the two layers: names, aliases and types, the same in every format."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

Kind = Literal["text", "integer", "real"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a layer: ``alias`` is what people read, ``description`` explains it."""

    name: str
    alias: str
    kind: Kind
    description: str


_CLASS = Field("class", "Class", "text", "Name of the most probable class")
_CLASS_ID = Field(
    "class_id", "Class number", "integer", "Number of the class in the model card, from 0"
)

LANDUSE_FIELDS: tuple[Field, ...] = (
    _CLASS,
    _CLASS_ID,
    Field(
        "confidence",
        "Confidence",
        "real",
        "Probability of each cell's own class, mean over the region's cells weighted by area",
    ),
    Field("area_m2", "Area (m²)", "real", "Geodesic area in square metres"),
    Field("cells", "Cells", "integer", "Number of grid cells in the region"),
)

CELL_FIELDS: tuple[Field, ...] = (
    _CLASS,
    _CLASS_ID,
    Field("confidence", "Confidence", "real", "Probability of the class"),
    Field("runner_up", "Runner-up", "text", "Name of the second most probable class"),
    Field("margin", "Margin", "real", "Probability of the class less that of the runner-up"),
    Field("caption", "Caption", "text", "What the captioner says about the scene"),
    Field("row", "Cell row", "integer", "Row of the cell in the grid, from 0"),
    Field("col", "Cell column", "integer", "Column of the cell in the grid, from 0"),
)


def probability_fields(classes: Sequence[SceneClass]) -> tuple[Field, ...]:
    """One ``p_<class>`` field a class, in their order.

    The class's real name stands in the alias.
    """
    slugs = _unique(
        (f"p_{_slug(scene_class.name) or scene_class.id}" for scene_class in classes), longest=60
    )
    return tuple(
        Field(slug, f"P({scene_class.name})", "real", f"Probability of {scene_class.name}")
        for slug, scene_class in zip(slugs, classes, strict=True)
    )


def short_names(fields: Sequence[Field]) -> list[str]:
    """Names of at most 10 characters, unique whatever the case, as a Shapefile's table needs them."""
    return _unique((field.name for field in fields), longest=10)


def _slug(name: str) -> str:
    """The name in lower-case ASCII letters, digits and single underscores.

    Empty where nothing is left.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")


def _unique(names: Iterable[str], *, longest: int) -> list[str]:
    """The names cut to length; one met before gets the first free number as its end."""
    taken: set[str] = set()
    unique = []
    for name in names:
        candidate, number = name[:longest], 1
        while candidate in taken:
            number += 1
            candidate = f"{name[: longest - len(str(number)) - 1]}_{number}"
        taken.add(candidate)
        unique.append(candidate)
    return unique
