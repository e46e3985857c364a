"""Map colors and descriptions of classes: those of AID, and colors for any others.

AID: Xia et al., "AID: A Benchmark Data Set for Performance Evaluation of Aerial Scene
Classification", IEEE TGRS 2017.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import UsageError
from rssc_geo.models.card import SceneClass, check_encodable, in_words

_AID = (
    ("Airport", "#7a5195", "Runways, aprons, terminals and parked aircraft"),
    ("BareLand", "#c8ad7f", "Bare soil or rock with hardly any vegetation"),
    ("BaseballField", "#58b368", "Baseball diamonds"),
    ("Beach", "#ffe08a", "Sand between water and land"),
    ("Bridge", "#5b6c8f", "A bridge over water"),
    ("Center", "#e377c2", "A large singular public building and its grounds"),
    ("Church", "#b07aa1", "A church or cathedral among its surroundings"),
    ("Commercial", "#e15759", "Dense blocks of shops and offices"),
    ("DenseResidential", "#b2182b", "Closely packed houses"),
    ("Desert", "#edc58f", "Sand dunes and arid plains"),
    ("Farmland", "#d9e26b", "Fields and cropland"),
    ("Forest", "#1b7837", "Closed tree cover"),
    ("Industrial", "#8c6bb1", "Factories, warehouses and yards"),
    ("Meadow", "#a6d96a", "Grassland"),
    ("MediumResidential", "#e8743b", "Houses with gardens, in rows"),
    ("Mountain", "#8c7853", "Rugged relief"),
    ("Park", "#66c2a4", "Lawns, trees, paths and ponds in a town"),
    ("Parking", "#969696", "Parking lots full of vehicles"),
    ("Playground", "#2ca25f", "Running tracks and sports pitches"),
    ("Pond", "#74add1", "A small body of standing water"),
    ("Port", "#225ea8", "Docks, piers and moored boats"),
    ("RailwayStation", "#6a51a3", "Railway tracks, platforms and station halls"),
    ("Resort", "#f781bf", "Holiday buildings with pools and greenery"),
    ("River", "#3182bd", "A watercourse and its banks"),
    ("School", "#f4a582", "School or campus buildings with sports grounds"),
    ("SparseResidential", "#fdbf6f", "Scattered houses among vegetation"),
    ("Square", "#bcbddc", "An open paved square in a town"),
    ("Stadium", "#00897b", "A stadium with its stands"),
    ("StorageTanks", "#737373", "Round storage tanks"),
    ("Viaduct", "#4d4d4d", "Elevated roads and interchanges"),
)

_KNOWN = {name.lower(): (color, text) for name, color, text in _AID}
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
# Squared distance of two colors, in RGB of 0 to 255, under which they are taken for one another.
_APART = 50**2
_CANDIDATES = 400
_GOLDEN = 0.618034  # steps of the golden ratio spread any number of hues evenly


def scene_classes(names: Sequence[str]) -> tuple[SceneClass, ...]:
    """The classes in order, with colors and descriptions.

    A name of AID (in any case) has its own. Others have the usual color of such land where a word
    of the name tells, once each, or one far from all others. Raises ``UsageError`` for a name that
    no bundle can hold.
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
            ((_numbers(color) - _numbers(other)) ** 2).sum() > _APART for other, _ in given.values()
        )
        if first is not None and free:
            given[first.lower()] = (color, "")
    for color, _ in given.values():
        _take(_numbers(color), candidates, nearest)
    classes = []
    for index, name in enumerate(names):
        if name.lower() in given:
            color, text = given[name.lower()]
        else:
            taken = candidates[nearest.argmax()]
            _take(taken, candidates, nearest)
            color, text = "#" + "".join(f"{channel:02x}" for channel in taken.tolist()), ""
        classes.append(SceneClass(index, name, color, text))
    return tuple(classes)


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
