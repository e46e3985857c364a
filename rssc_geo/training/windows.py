"""Windows of one texture, found in scene pictures: plain water, lawn, sand, asphalt.

A scene picture is labeled River though half of it is fields, so that a classifier of small windows
cannot learn the appearance of water from it. Where a label allows a picture to contain a texture
and the pixels match it, the window is cut out and labeled by the texture. Plants as smooth as water
keep the label of their picture: otherwise every smooth gray window would become water.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rssc_geo.training.data import SceneImages
from rssc_geo.training.taxonomy import Legend

log = logging.getLogger(__name__)

_BLOCK = 8
"""Pixels a side of the blocks that windows are made of."""

_SIDES = (6, 9, 12, 18)
"""Of windows, in blocks."""

_STEP = 3
"""Between the corners of windows, in blocks."""

_EACH = 3
"""Windows taken of a picture at most."""

_SHARP = 7
"""Slope (see ``_Looks``) of the sharpest twentieth of a picture, under which it is blurred.

Fields of 10 m a pixel, enlarged, are as smooth as water.
"""


@dataclass(frozen=True, slots=True)
class _Looks:
    """Statistics of windows, float32 ``(M,)`` each, in units of a pixel value (0 to 255).

    ``red``, ``green``, ``blue``: means; ``spread``: standard deviation of the gray value;
    ``slope``: mean absolute difference of neighbors in a row; ``range``: between the darkest and
    the brightest block.
    """

    red: NDArray[np.float32]
    green: NDArray[np.float32]
    blue: NDArray[np.float32]
    spread: NDArray[np.float32]
    slope: NDArray[np.float32]
    range: NDArray[np.float32]

    @property
    def gray(self) -> NDArray[np.float32]:
        return np.asarray((self.red + self.green + self.blue) / 3, np.float32)


def _is_water(looks: _Looks) -> NDArray[np.bool_]:
    smooth = (looks.spread < 7) & (looks.range < 24) & (looks.slope < 4.5)
    soil = looks.red - looks.blue >= 8
    plants = (looks.green - looks.blue > 10) & (looks.green > looks.red) & (looks.gray > 45)
    bushes = (looks.green - looks.blue > 3) & (looks.slope > 1.8)
    wet_sand = (looks.red >= looks.blue - 4) & (looks.gray > 120)
    return smooth & ~soil & ~plants & ~bushes & ~wet_sand & (looks.gray < 190)


def _is_turbid_water(looks: _Looks) -> NDArray[np.bool_]:
    """Green, brown and gray water, where nothing else in the picture is as smooth."""
    smooth = (looks.spread < 6) & (looks.range < 20) & (looks.slope < 2.6)
    return smooth & (looks.gray < 190) & ~_is_water(looks)


def _is_lawn(looks: _Looks) -> NDArray[np.bool_]:
    smooth = (looks.spread < 14) & (looks.slope < 8)
    green = (looks.green - looks.red > 4) & (looks.green - looks.blue > 10)
    return smooth & green & (looks.gray > 60)


def _is_sand(looks: _Looks) -> NDArray[np.bool_]:
    smooth = (looks.spread < 10) & (looks.slope < 6)
    return smooth & (looks.red - looks.blue > 18) & (looks.red > looks.green) & (looks.gray > 120)


def _is_asphalt(looks: _Looks) -> NDArray[np.bool_]:
    colors = np.stack([looks.red, looks.green, looks.blue])
    smooth = (looks.spread < 10) & (looks.slope < 6)
    gray = colors.max(0) - colors.min(0) < 14
    return np.asarray(smooth & gray & (looks.gray > 70) & (looks.gray < 190))


def _is_smooth(looks: _Looks) -> NDArray[np.bool_]:
    return (looks.spread < 9) & (looks.range < 32) & (looks.slope < 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Texture:
    """A texture of windows.

    Attributes
    ----------
    name : for people
    within : classes whose pictures may hold it
    means : the classes that a window of it allows, with their shares; all 0: shares not known;
        none: those of its picture
    share : of the training windows
    gain : darkest and brightest factor of its pixels in training
    sunk : up to this share of its mean color is subtracted from half of the windows, as a stretch
        of a scene's values does with its darkest parts
    ripples : up to this standard deviation of gray noise, pixel by pixel, is added to half of the
        windows, like waves and glint
    light : strength of the other changes of light, relative to those of pictures; small where
        textures differ in color only
    looks : function that decides which windows match it
    """

    name: str
    within: tuple[str, ...]
    means: Mapping[str, float]
    share: float
    gain: tuple[float, float] = (1.0, 1.0)
    sunk: float = 0.0
    ripples: float = 0.0
    light: float
    looks: Callable[[_Looks], NDArray[np.bool_]]


TEXTURES = (
    Texture(
        name="water",
        within=("River", "Lake", "Pond", "OpenWater", "Island", "Port", "Beach", "Bridge"),
        means={"OpenWater": 0.9, "Lake": 0.1},
        share=0.34,
        gain=(0.7, 2.0),
        sunk=0.95,
        ripples=0.035,
        light=0.6,
        looks=_is_water,
    ),
    Texture(
        name="turbid water",
        within=("Pond", "Port", "Bridge"),
        means={"OpenWater": 0.9, "Lake": 0.1},
        share=0.16,
        gain=(0.8, 1.5),
        sunk=0.5,
        ripples=0.02,
        light=0.6,
        looks=_is_turbid_water,
    ),
    Texture(
        name="lawn",
        within=("Park", "Stadium", "GolfCourse", "Playground", "BaseballField", "Meadow", "School"),
        means={"Meadow": 1.0},
        share=0.13,
        light=0.6,
        looks=_is_lawn,
    ),
    Texture(
        name="sand",
        within=("Beach", "Desert"),
        means={"Beach": 0.0, "Desert": 0.0, "BareLand": 0.0},
        share=0.13,
        light=0.6,
        looks=_is_sand,
    ),
    Texture(
        name="asphalt",
        within=("Parking", "Airport", "Freeway", "Viaduct", "Intersection", "Square"),
        means={"Parking": 0.0, "Freeway": 0.0, "Airport": 0.0, "Intersection": 0.0, "Viaduct": 0.0},
        share=0.05,
        light=0.6,
        looks=_is_asphalt,
    ),
    Texture(
        name="plants",
        within=(
            "Meadow",
            "Shrubland",
            "Farmland",
            "PermanentCrop",
            "Forest",
            "Mountain",
            "BareLand",
        ),
        means={},
        share=0.35,
        gain=(0.8, 1.2),
        light=1.0,
        looks=_is_smooth,
    ),
)


@dataclass(frozen=True, slots=True)
class Windows:
    """M windows of one texture in scene pictures.

    Attributes
    ----------
    rows : int64 ``(M,)``, the pictures
    boxes : int64 ``(M, 3)``, top, left and side in pixels
    kinds : int64 ``(M,)``, places in ``textures``
    labels : int64 ``(M,)``, places in the labels of ``legend``
    textures : those that were found
    legend : the pictures' labels, then one for each texture
    """

    rows: NDArray[np.int64]
    boxes: NDArray[np.int64]
    kinds: NDArray[np.int64]
    labels: NDArray[np.int64]
    textures: tuple[Texture, ...]
    legend: Legend

    def __len__(self) -> int:
        return len(self.rows)


def find_windows(data: SceneImages, rows: NDArray[np.int64]) -> Windows:
    """Find windows of each of ``TEXTURES`` in the pictures ``rows``, the largest first.

    Textures whose classes the legend does not have are left out, and so is what is found in
    pictures whose label allows other classes than those that may hold it, classes of less than half
    of its pictures apart. At most three windows are taken of a picture, which must have at least 48
    pixels a side.
    """
    classes = data.classes
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    used: list[Texture] = []
    for texture in TEXTURES:
        if not set(texture.means) <= set(classes):
            continue
        within = np.array([name in texture.within for name in classes])
        rare = (data.legend.weights > 0) & (data.legend.weights < 0.5)
        holding = ~(data.legend.allowed & ~rare & ~within).any(1)
        mine = rows[holding[data.labels[rows]]]
        own = np.isin(classes, list(texture.means or texture.within))
        plain = data.legend.texture & (data.legend.allowed & own).any(1)
        pairs = [
            _windows_of(data.pixels[row], texture, plain=bool(plain[data.labels[row]]))
            for row in mine.tolist()
        ]
        boxes = np.concatenate([np.empty((0, 3), np.int64), *pairs])
        if len(boxes):
            used.append(texture)
            found.append((np.repeat(mine, [len(pair) for pair in pairs]), boxes))
            log.info("%s: %d windows in %d pictures", texture.name, len(boxes), len(mine))
    places = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in found)])
    kinds = np.repeat(np.arange(len(used)), [len(boxes) for _, boxes in found])
    named = np.array([bool(texture.means) for texture in used], bool)
    return Windows(
        places,
        np.concatenate([np.empty((0, 3), np.int64), *(boxes for _, boxes in found)]),
        kinds,
        np.where(named[kinds], len(data.legend.labels) + kinds, data.labels[places]),
        tuple(used),
        Legend.joined([data.legend, _texture_labels(classes, used)]),
    )


def _texture_labels(classes: tuple[str, ...], textures: Sequence[Texture]) -> Legend:
    """A label for each texture; that of one without classes of its own is used by no window."""
    shape = (len(textures), len(classes))
    means = [texture.means or dict.fromkeys(texture.within, 0.0) for texture in textures]
    allowed = np.array([[name in mean for name in classes] for mean in means], bool)
    weights = np.array([[mean.get(name, 0.0) for name in classes] for mean in means], np.float32)
    return Legend(
        classes,
        tuple(texture.name for texture in textures),
        allowed.reshape(shape),
        weights.reshape(shape),
        np.ones(len(textures), bool),
    )


def _windows_of(pixels: NDArray[np.uint8], texture: Texture, *, plain: bool) -> NDArray[np.int64]:
    """Boxes ``(M, 3)`` of windows in a picture ``(H, W, 3)`` that look like a texture.

    None of a blurred picture, unless it is ``plain``: by its label it shows nothing else.
    """
    size = min(pixels.shape[:2]) // _BLOCK
    values = pixels[: size * _BLOCK, : size * _BLOCK].astype(np.float32)
    gray = values.mean(2)
    slopes = np.zeros_like(gray)
    slopes[:, :-1] += np.abs(np.diff(gray, axis=1)) / 2
    slopes[:-1] += np.abs(np.diff(gray, axis=0)) / 2
    layers = np.dstack([values, gray, gray**2, slopes])
    blocks = layers.reshape(size, _BLOCK, size, _BLOCK, 6).mean((1, 3))  # (size, size, 6)
    boxes: list[tuple[int, int, int]] = []
    if not plain and np.percentile(blocks[..., 5], 95) < _SHARP:
        return np.empty((0, 3), np.int64)
    for side in sorted(_SIDES, reverse=True):
        if side > size:
            continue
        views = sliding_window_view(blocks, (side, side), axis=(0, 1))[::_STEP, ::_STEP]
        means = views.mean((3, 4))  # (h, w, 6)
        spread = np.sqrt(np.maximum(means[..., 4] - means[..., 3] ** 2, 0))
        brightness = views[:, :, 3]
        between = brightness.max((2, 3)) - brightness.min((2, 3))
        red, green, blue = (means[..., k] for k in range(3))
        looks = _Looks(red, green, blue, spread, means[..., 5], between)
        places = np.argwhere(texture.looks(looks)) * _STEP * _BLOCK
        boxes += [(int(top), int(left), side * _BLOCK) for top, left in places]
    return np.array(_apart(boxes), np.int64).reshape(-1, 3)


def _apart(boxes: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The first boxes of which none lies more than half within another, at most ``_EACH``."""
    kept: list[tuple[int, int, int]] = []
    for top, left, side in boxes:
        if len(kept) == _EACH:
            break
        if all(_overlap((top, left, side), other) <= side**2 / 2 for other in kept):
            kept.append((top, left, side))
    return kept


def _overlap(one: tuple[int, int, int], other: tuple[int, int, int]) -> int:
    """Area that two boxes share."""
    extents = [
        max(0, min(one[axis] + one[2], other[axis] + other[2]) - max(one[axis], other[axis]))
        for axis in (0, 1)
    ]
    return extents[0] * extents[1]


def without_windows(legend: Legend) -> Windows:
    """No windows, for a training on pictures alone."""
    nothing = np.empty(0, np.int64)
    return Windows(nothing, nothing.reshape(0, 3), nothing, nothing, (), legend)
