"""Map colors, groups and descriptions of classes: those of the legend, and colors for any others.

The legend holds the classes of AID (Xia et al., "AID: A Benchmark Data Set for Performance
Evaluation of Aerial Scene Classification", IEEE TGRS 2017) and what other scene data sets add.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import UsageError
from rssc_geo.models.card import UNKNOWN_CLASS, ModelCard, SceneClass, check_encodable, in_words

GROUPS = {
    "Water": "#287aba",
    "Wetland": "#31978f",
    "Forest": "#237647",
    "Grass and shrub": "#88b547",
    "Bare": "#ab997e",
    "Agriculture": "#f5db4c",
    "Residential": "#b5271b",
    "Commercial and public": "#ec87bd",
    "Industrial": "#623a8d",
    "Transport": "#2d344e",
    "Recreation": "#6ee4af",
    "Unknown": "#dcdde1",
}
"""Groups of classes and their colors.

Any two differ by at least 10 (CIEDE2000), also as people with protanopia and deuteranopia see them.
"""

_LEGEND: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "Water": (
        ("River", "#00446f", "A watercourse and its banks"),
        ("Lake", "#005f99", "A lake with its shores"),
        ("Pond", "#287aba", "A small body of standing water"),
        ("OpenWater", "#4f96d8", "Nothing but water, of a lake or the sea"),
        ("Island", "#71b4f8", "An island among water"),
    ),
    "Wetland": (("Wetland", "#31978f", "Marsh, swamp or mangrove"),),
    "Forest": (("Forest", "#237647", "Closed tree cover"),),
    "Grass and shrub": (
        ("Meadow", "#77a437", "Grassland"),
        ("Shrubland", "#98c557", "Bushes and scrub"),
    ),
    "Bare": (
        ("BareLand", "#7b6b52", "Bare soil or rock with hardly any vegetation"),
        ("Desert", "#9a896f", "Sand dunes and arid plains"),
        ("Mountain", "#bba98e", "Rugged relief"),
        ("Beach", "#ddc9ad", "Sand between water and land"),
    ),
    "Agriculture": (
        ("Farmland", "#e2cb3b", "Fields and cropland"),
        ("PermanentCrop", "#ffec8c", "Orchards, vineyards and other permanent crops"),
    ),
    "Residential": (
        ("DenseResidential", "#720000", "Closely packed houses"),
        ("MediumResidential", "#a20f0d", "Houses with gardens, in rows"),
        ("SparseResidential", "#c83929", "Scattered houses among vegetation"),
        ("MobileHomePark", "#ee5b44", "Rows of mobile homes"),
    ),
    "Commercial and public": (
        ("Commercial", "#ac4d83", "Dense blocks of shops and offices"),
        ("Church", "#df7bb1", "A church or cathedral among its surroundings"),
        ("Square", "#ffb5dc", "An open paved square in a town"),
        ("Resort", "#ffd9ed", "Holiday buildings with pools and greenery"),
    ),
    "Industrial": (
        ("Industrial", "#532c7e", "Factories, warehouses and yards"),
        ("StorageTanks", "#72499d", "Round storage tanks"),
    ),
    "Transport": (
        ("Airport", "#1b233b", "Runways, aprons, terminals and parked aircraft"),
        ("Bridge", "#29304a", "A bridge over water"),
        ("Viaduct", "#373e59", "Elevated roads and interchanges"),
        ("Freeway", "#464c68", "A road of several lanes, and what lies along it"),
        ("Intersection", "#555b78", "Roads that cross"),
        ("Parking", "#646a88", "Parking lots full of vehicles"),
        ("Port", "#747a98", "Docks, piers and moored boats"),
        ("RailwayStation", "#848aa9", "Railway tracks, platforms and station halls"),
    ),
    "Recreation": (
        ("BaseballField", "#00885c", "Baseball diamonds"),
        ("Park", "#1fa171", "Lawns, trees, paths and ponds in a town"),
        ("Playground", "#40b987", "Running tracks and sports pitches"),
        ("Stadium", "#5bd19e", "A stadium with its stands"),
        ("GolfCourse", "#75ebb6", "Fairways, greens and bunkers"),
        ("TennisCourt", "#a1ffd3", "Tennis courts"),
    ),
}
"""Group → its classes with color and description. Colors of a group differ by lightness."""

_KNOWN = {
    name.lower(): (color, text, group)
    for group, classes in _LEGEND.items()
    for name, color, text in classes
}
_USUAL = (
    (("water", "lake", "sea", "ocean", "dam", "reservoir", "canal"), "#2b83ba"),
    (("forest", "wood", "woodland", "trees", "plantation"), "#1a7a3c"),
    (("crop", "cropland", "crops", "field", "fields", "farm", "agriculture", "arable"), "#e6c229"),
    (("grass", "grassland", "pasture", "savanna", "lawn"), "#a1d76a"),
    (("shrub", "shrubland", "scrub", "bush", "heath"), "#8a9a5b"),
    (
        ("urban", "settlement", "residential", "town", "village", "houses", "buildings", "built"),
        "#d7301f",
    ),
    (("bare", "soil", "sand", "rock", "quarry", "mine"), "#c8a165"),
    (("road", "roads", "rail", "railway", "transport"), "#595959"),
    (("wetland", "marsh", "swamp", "mangrove", "bog"), "#35978f"),
    (("vineyard", "orchard", "olive"), "#7b3294"),
    (("snow", "ice", "glacier"), "#d0ecf7"),
)
"""Words and the color of such land on usual maps; the first class with a word gets the color."""
# Squared distance of two colors, in RGB of 0 to 255, under which they are too similar.
_APART = 50**2
_CANDIDATES = 400
_GOLDEN = 0.618034  # steps of the golden ratio spread any number of hues evenly


def scene_classes(
    names: Sequence[str], groups: Mapping[str, str] | None = None
) -> tuple[SceneClass, ...]:
    """The classes in order, with colors and descriptions.

    A name of the legend (in any case) has its own color and group. Others have the usual color of
    such land where a word of the name is known, once each, or one far from all others. ``groups``,
    by name, have precedence over those of the legend. Raises ``UsageError`` for a name that no
    bundle can hold.
    """
    for name in names:
        try:
            check_encodable(name, "the class name")
        except ValueError as error:
            raise UsageError(f"{error}: rename the class") from error
    candidates = np.array(
        [_candidate(number) for number in range(max(_CANDIDATES, 4 * len(names)))]
    )
    nearest = np.full(len(candidates), np.inf)  # squared distance of each to the colors taken
    given = {name.lower(): _KNOWN[name.lower()] for name in names if name.lower() in _KNOWN}
    for words, color in _USUAL:
        first = next(
            (
                name
                for name in names
                if name.lower() not in given and not _words(name).isdisjoint(words)
            ),
            None,
        )
        free = all(
            ((_numbers(color) - _numbers(other)) ** 2).sum() > _APART
            for other, *_ in given.values()
        )
        if first is not None and free:
            given[first.lower()] = (color, "", "")
    for color, *_ in given.values():
        _take(_numbers(color), candidates, nearest)
    classes = []
    for index, name in enumerate(names):
        if name.lower() in given:
            color, text, group = given[name.lower()]
        else:
            farthest = candidates[nearest.argmax()]
            _take(farthest, candidates, nearest)
            color = "#" + "".join(f"{channel:02x}" for channel in farthest.tolist())
            text = group = ""
        group = (groups or {}).get(name, group)
        title = in_words(name).capitalize() if group else name
        classes.append(SceneClass(index, name, color, text, title, group))
    return tuple(classes)


def legend_of(card: ModelCard) -> tuple[SceneClass, ...]:
    """The classes of a map by a model: the model's own, then ``Unknown`` where it supports that."""
    if not card.tells_unknown:
        return card.classes
    return (*card.classes, unknown_class(len(card.classes)))


def unknown_class(number: int) -> SceneClass:
    """``Unknown`` as the class with that id."""
    return SceneClass(
        number,
        UNKNOWN_CLASS,
        GROUPS[UNKNOWN_CLASS],
        "Unlike anything that the model has learned",
        UNKNOWN_CLASS,
        UNKNOWN_CLASS,
    )


def known_names() -> list[str]:
    """The names of the legend's classes, in its order."""
    return [name for classes in _LEGEND.values() for name, *_ in classes]


def known_groups() -> dict[str, str]:
    """The group of each class of the legend, by name."""
    return {known.name: known.group for known in scene_classes(known_names())}


def by_group(classes: Iterable[SceneClass]) -> dict[str, tuple[SceneClass, ...]]:
    """The classes of each group, both in the order of the legend.

    Groups that the legend lacks come after its own in the order of ``classes``, and classes without
    a group last, under an empty name.
    """
    places = {name: place for place, name in enumerate(_KNOWN)}
    found: dict[str, list[SceneClass]] = {group: [] for group in GROUPS}
    for scene_class in sorted(classes, key=lambda c: places.get(c.name.lower(), len(places))):
        found.setdefault(scene_class.group, []).append(scene_class)
    found[""] = found.pop("", [])
    return {group: tuple(members) for group, members in found.items() if members}


def _words(name: str) -> set[str]:
    return set(in_words(name).lower().replace("_", " ").replace("-", " ").split())


def _take(
    color: NDArray[np.int64], candidates: NDArray[np.int64], nearest: NDArray[np.float64]
) -> None:
    """Update the squared distance of each candidate to the nearest color that is taken."""
    np.minimum(nearest, ((candidates - color) ** 2).sum(1), out=nearest)


def _candidate(number: int) -> list[int]:
    channels = colorsys.hsv_to_rgb(
        number * _GOLDEN % 1, 0.5 + 0.15 * (number % 3), 0.9 - 0.15 * (number % 4)
    )
    return [round(channel * 255) for channel in channels]


def _numbers(color: str) -> NDArray[np.int64]:
    return np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)])
