"""The bands for red, green and blue, and the mask band."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import rasterio
from rasterio.enums import ColorInterp

from rssc_geo.errors import InputError, UsageError

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_COLORS = frozenset({"red", "green", "blue"})
# "red edge", "near infra-red", "coastal_blue" and a "red ratio" are other bands than red and blue.
_OTHER_BANDS = frozenset(
    {
        "edge",
        "near",
        "infra",
        "infrared",
        "ir",
        "nir",
        "swir",
        "mir",
        "mid",
        "far",
        "short",
        "shortwave",
        "thermal",
        "coastal",
        "coast",
        "deep",
        "dark",
        "aerosol",
        "ratio",
        "index",
        "difference",
        "mask",
        "quality",
        "std",
        "stddev",
        "sigma",
    }
)
_Match = Callable[[list[str], str], bool]


@dataclass(frozen=True, slots=True)
class BandChoice:
    """Which bands are taken as red, green and blue.

    Attributes
    ----------
    bands : 1-based
    reason : of the choice, in words
    warning : what the user should know, or empty
    """

    bands: tuple[int, int, int]
    reason: str
    warning: str = ""


def alpha_band(dataset: rasterio.DatasetReader) -> int | None:
    """1-based index of the alpha band, if the dataset has one."""
    for index, meaning in enumerate(dataset.colorinterp, start=1):
        if meaning is ColorInterp.alpha:
            return index
    return None


def is_paletted(dataset: rasterio.DatasetReader) -> bool:
    """Whether the pixels are indices into a color table."""
    return bool(dataset.colorinterp[0] is ColorInterp.palette)


def check_bands(
    bands: Sequence[int], count: int, *, alpha: int | None, source: str
) -> tuple[int, int, int]:
    """Return the user's choice of bands: three of 1 to ``count``, repeats allowed, no alpha.

    Raises ``UsageError`` for any other.
    """
    if len(bands) != 3:
        raise UsageError(
            f"--bands takes exactly three bands (red, green, blue), got {len(bands)}:"
            f" {_words(bands)}"
        )
    for band in bands:
        if not 1 <= band <= count:
            raise UsageError(
                f"--bands {_words(bands)}: there is no band {band}, {source} has {count} (counted"
                " from 1)"
            )
        if band == alpha:
            raise UsageError(
                f"--bands {_words(bands)}: band {band} of {source} is its alpha band, a mask and"
                " not a color"
            )
    return bands[0], bands[1], bands[2]


def choose_bands(
    dataset: rasterio.DatasetReader, *, bands: Sequence[int] | None, source: str
) -> BandChoice:
    """Choose bands: the user's, by color interpretation, by description, else the first three.

    Raises ``UsageError`` for a choice that the raster cannot give and ``InputError`` for a raster
    with fewer than three color bands.
    """
    alpha = alpha_band(dataset)
    if bands is not None:
        return BandChoice(check_bands(bands, dataset.count, alpha=alpha, source=source), "chosen")
    colors = _by_interpretation(dataset.colorinterp)
    if colors is not None:
        return BandChoice(colors, "color interpretation")
    described = _by_description(dataset.descriptions)
    if described is not None:
        return described
    usable = [index for index in range(1, dataset.count + 1) if index != alpha]
    if len(usable) < 3:
        shown = (usable[0], usable[0], usable[-1]) if usable else (1, 1, 1)
        raise InputError(
            f"{source} has {len(usable)} color band{'' if len(usable) == 1 else 's'}, and the model"
            f" needs red, green and blue: give an RGB raster, or --bands {_words(shown)}"
            " to use the bands that it has as a picture"
        )
    first = usable[0], usable[1], usable[2]
    stack = len(usable) > 3
    advice = " (3,2,1 where the first is blue, as in many satellite images)" if stack else ""
    return BandChoice(
        first,
        "first three bands",
        f"no band of {source} is marked red, green or blue: bands {_words(first)} of"
        f" {dataset.count} are taken for them; --bands R,G,B chooses others{advice}",
    )


def _by_interpretation(colorinterp: Sequence[ColorInterp]) -> tuple[int, int, int] | None:
    meanings = list(colorinterp)
    if any(color not in meanings for color in _RGB):
        return None
    red, green, blue = (meanings.index(color) + 1 for color in _RGB)
    return red, green, blue


def _by_description(descriptions: Sequence[str | None]) -> BandChoice | None:
    words = [re.findall(r"[a-z0-9]+", (text or "").lower()) for text in descriptions]
    named = _first_of(words, _is_color, ("red", "green", "blue"))
    if named is not None:
        return BandChoice(named, "band descriptions")
    # A name such as "B04 (665 nm)" counts by its first word.
    padded = _first_of(words, _starts_with, ("b04", "b03", "b02"))
    if padded is not None:
        return BandChoice(padded, "band descriptions")
    short = _first_of(words, _starts_with, ("b4", "b3", "b2"))
    if short is not None:
        return BandChoice(
            short,
            "band descriptions",
            "bands B4, B3, B2 are taken as red, green, blue, as in Sentinel-2 and Landsat 8 and 9; "
            "for Landsat 4 to 7 choose B3, B2, B1 with --bands",
        )
    return None


def _is_color(words: list[str], name: str) -> bool:
    """Whether a description names the color, and no other band that has it in its name."""
    return name in words and not _OTHER_BANDS.intersection(words) and len(_COLORS & {*words}) == 1


def _starts_with(words: list[str], name: str) -> bool:
    return words[:1] == [name]


def _first_of(
    words: list[list[str]], match: _Match, names: tuple[str, str, str]
) -> tuple[int, int, int] | None:
    """The bands that match each name; one that is called by the name alone comes before others."""
    found = []
    for name in names:
        matching = [band for band, word in enumerate(words, start=1) if match(word, name)]
        alone = [band for band in matching if words[band - 1] == [name]]
        found += (alone or matching)[:1]
    return (found[0], found[1], found[2]) if len(found) == len(names) else None


def _words(bands: Sequence[int]) -> str:
    return ",".join(str(band) for band in bands)
