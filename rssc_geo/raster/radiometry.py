"""One linear scaling to 8 bit for the whole scene, fixed before the first tile.

uint8 passes unchanged, or with its haze subtracted where model or user ask for it; bytes with fewer
than 8 bits by the file's tags are scaled up. Values given by the user are those that other programs
show: after the scale and offset of the bands' tags, where there are any.

Everything else is scaled band by band from a sample that depends on the raster alone (never on the
AOI, the tiles or their order), so that equal ground looks equal everywhere in the scene.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import InputError, UsageError
from rssc_geo.geometry import Window
from rssc_geo.raster.mask import PixelReader, is_measured
from rssc_geo.raster.scene import Scene

_DEFAULT = "2%,98%"
_HAZE = "dos"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*(%?)\s*,\s*({_NUMBER})\s*(%?)\s*")
_CONSTANT = 127
"""A band with a single value becomes mid-gray."""

_DARKEST = 1.0
"""Percentile of a band that shows its darkest ground."""
_DARK_GROUND = (18.0, 24.0, 19.0)
"""That percentile in red, green and blue of clear pictures: the mean of 100 scenes of AID."""
_MOST_HAZE = 64.0
"""Most that is subtracted: a raster that is brighter everywhere shows bright ground."""

_GRAY = 1.0
"""Mean difference of the bands of a picture without colors, at most."""
_SHADOW = 0.7
"""Most of the median gray that the darkest ground has; else there is no shadow, water or wood."""

_STRIP = 128
_SAMPLE_PIXELS = 1 << 20
_SIDE = 256
_BLOCKS = 64
_ROUNDS = 4
_ENOUGH = 10_000

_CATEGORIES = 32  # colors that a palette of categories shows at most
_DARK = 0.02  # of the largest value: darker pixels show nothing
_CORNER = 16
_LINE = 2  # pixels that a collar is wide at least


@dataclass(frozen=True, slots=True)
class Radiometry:
    """One linear scaling of each band to 8 bit.

    Attributes
    ----------
    low, high : values of red, green and blue that become 0 and 255
    method : how they were found, in words; "none" where pixels pass unchanged
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    method: str

    def apply(
        self,
        pixels: NDArray[Any],
        valid: NDArray[np.bool_] | None = None,
        window: Window | None = None,
    ) -> NDArray[np.uint8]:
        """Scale pixels (H, W, 3) of any type to uint8 (H, W, 3), 0 where they are invalid.

        Values beyond low and high are clipped and NaN becomes 0. The input is never changed, and
        returned as it is where nothing has to be done; the layout in memory is that of the input.

        Parameters
        ----------
        valid : mask (H, W), True = valid; None means all
        window : of the raster, that the pixels show, at whatever resolution; None: all of it
        """
        scaled = self._scaled(pixels, window)
        if valid is None or valid.all():
            return scaled
        out = None if scaled is pixels else scaled
        masked: NDArray[np.uint8] = np.multiply(scaled, valid[..., None], out=out, dtype=np.uint8)
        return masked

    def _scaled(self, pixels: NDArray[Any], _window: Window | None) -> NDArray[np.uint8]:
        if self.method == "none":
            return pixels
        scaled = np.empty_like(pixels, dtype=np.uint8)
        for strip, band, low, high in self._parts(len(pixels)):
            values = pixels[strip, :, band]
            if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
                scaled[strip, :, band] = _table(low, high, values.dtype.name)[values]
            else:
                scaled[strip, :, band] = _scale(values, low, high)
        return scaled

    def _parts(self, rows: int) -> Iterator[tuple[slice, int, float, float]]:
        """What is scaled at once: some rows of a band, with its low and high.

        The doubles of a whole block of a fine map would take hundreds of megabytes.
        """
        for start in range(0, rows, _STRIP):
            for band, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
                yield slice(start, start + _STRIP), band, low, high


@dataclass(frozen=True, slots=True)
class VeiledRadiometry(Radiometry):
    """A scaling that also corrects haze or light that varies linearly across the raster.

    The scaled band is multiplied by ``1 + a y + b x`` and ``c y + d x`` is added, where y and x are
    -1/2 and 1/2 at the first and last row and column of the raster.

    Attributes
    ----------
    shape : rows and columns of the raster
    gain, offset : (a, b) and (c, d) of red, green and blue
    """

    shape: tuple[int, int]
    gain: tuple[tuple[float, float], ...]
    offset: tuple[tuple[float, float], ...]

    def _scaled(self, pixels: NDArray[Any], window: Window | None) -> NDArray[np.uint8]:
        window = window or Window(0, 0, *self.shape)
        y, x = (
            (start + (np.arange(count) + 0.5) * length / count) / whole - 0.5
            for start, length, count, whole in zip(
                (window.row, window.col),
                (window.height, window.width),
                pixels.shape[:2],
                self.shape,
                strict=True,
            )
        )
        scaled = np.empty_like(pixels, dtype=np.uint8)
        for strip, band, low, high in self._parts(len(pixels)):
            values = (pixels[strip, :, band].astype(np.float64) - low) * (255.0 / (high - low))
            (down, across), (add_down, add_across) = self.gain[band], self.offset[band]
            values *= 1 + down * y[strip, None] + across * x
            values += add_down * y[strip, None] + add_across * x
            scaled[strip, :, band] = np.rint(np.nan_to_num(values, nan=0.0).clip(0.0, 255.0))
        return scaled


_UNCHANGED = Radiometry((0.0,) * 3, (255.0,) * 3, "none")


def _scale(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale a band in double precision to uint8, rounded to the nearest."""
    if high == low:
        return np.select(
            [values < low, values > high, values == low], [0, 255, _CONSTANT], 0
        ).astype(np.uint8)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.asarray(np.rint(np.nan_to_num(scaled, nan=0.0).clip(0.0, 255.0)).astype(np.uint8))


@functools.lru_cache(maxsize=16)
def _table(low: float, high: float, dtype: str) -> NDArray[np.uint8]:
    """The scaling of every value of an unsigned integer type.

    Looking up is several times quicker than computing.
    """
    return _scale(np.arange(np.iinfo(dtype).max + 1, dtype=np.float64), low, high)


def fit_radiometry(
    scene: Scene, *, stretch: str | None = None, sample: NDArray[Any] | None = None
) -> Radiometry:
    """Find the scaling of a scene.

    Parameters
    ----------
    stretch : ``"2%,98%"`` percentiles (the default for anything but uint8) or ``"0,3000"`` values,
        for all bands or as three pairs ``"0,3000;0,3000;0,2500"``; ``"minmax"`` of the sample;
        ``"none"`` for values that are 0–255 already; ``"dos"`` subtracts the haze of uint8
        (dark-object subtraction, see ``_haze``) and is the default for other types
    sample : pixels (n, 3) that ``sample_pixels`` gives for the scene, if they are read already;
        None: they are read where the scaling depends on them

    Raises ``UsageError`` for other text, a range that is empty, or ``"none"`` for values beyond
    0–255.
    """
    text = (stretch or "").strip().lower()
    if text == _HAZE:
        if scene.dtype == "uint8" and scene.bits is None:
            return without_haze(sample_pixels(scene) if sample is None else sample)
        text = ""
    if not text and scene.bits is not None:
        most = float(2**scene.bits - 1)
        return Radiometry((0.0,) * 3, (most,) * 3, f"values 0,{most:g} ({scene.bits} bits a pixel)")
    if text == "none" or (not text and scene.dtype == "uint8"):
        return _unchanged(scene, sample)
    pairs = _parse(text or _DEFAULT, stretch or _DEFAULT)
    if not any(relative for _, _, relative in pairs):
        tagged = "" if all(scale == (1.0, 0.0) for scale in scene.scales) else " (scaled by tags)"
        return Radiometry(
            as_triple([_stored(pair[0], scene.scales[i]) for i, pair in enumerate(pairs)]),
            as_triple([_stored(pair[1], scene.scales[i]) for i, pair in enumerate(pairs)]),
            f"values {text}{tagged}",
        )
    lows, highs = _limits(scene, pairs, sample_pixels(scene) if sample is None else sample)
    name = text or _DEFAULT
    return Radiometry(lows, highs, name if name == "minmax" else f"percentiles {name}")


def _limits(
    scene: Scene, pairs: Sequence[tuple[float, float, bool]], sample: NDArray[Any]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Lowest and highest value of each band, by pairs of values or percentiles."""
    lows, highs = [], []
    for band, (first, last, relative) in enumerate(pairs):
        values = sample[:, band][is_measured(sample[:, band])]
        if not relative:
            lows.append(_stored(first, scene.scales[band]))
            highs.append(_stored(last, scene.scales[band]))
        elif values.size:
            low, high = np.percentile(values, [first, last])
            if low == high:
                # Nearly all pixels have one value; the others would be lost at 0 and 255.
                low, high = values.min(), values.max()
            lows.append(float(low))
            highs.append(float(high))
        else:
            # There is no valid pixel in the sample, and no tile will be classified either.
            lows.append(0.0)
            highs.append(_type_maximum(scene.dtype))
    return as_triple(lows), as_triple(highs)


def _stored(value: float, scale: tuple[float, float]) -> float:
    """The stored value for one that other programs show."""
    return (value - scale[1]) / scale[0]


def sample_pixels(scene: Scene) -> NDArray[Any]:
    """Valid pixels (n, 3) of the scene in its own type, about a million at most.

    From the overview of about that size if there is one; the whole raster if it is that small; else
    from 64 windows of at most 256 × 256 pixels spread over the raster, in up to four rounds where
    they meet nodata only. The sample depends on the raster alone.
    """
    with scene.pixel_reader() as reader:
        return _sample(scene, reader)


def _sample(scene: Scene, reader: PixelReader) -> NDArray[Any]:
    height, width = scene.shape
    for factor in (1, *scene.overviews):
        shape = (-(-height // factor), -(-width // factor))
        if shape[0] * shape[1] <= _SAMPLE_PIXELS:
            return _valid_pixels(reader, Window(0, 0, height, width), shape)
    chunks: list[NDArray[Any]] = []
    for number, window in enumerate(sample_windows(scene, reader), start=1):
        chunks.append(_valid_pixels(reader, window, (window.height, window.width)))
        if number % _BLOCKS == 0 and sum(len(chunk) for chunk in chunks) >= _ENOUGH:
            break
    return np.concatenate(chunks) if chunks else np.empty((0, 3), dtype=scene.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class PictureCheck:
    """What the pixels themselves show before a scene is classified.

    Attributes
    ----------
    warnings : with advice, about a palette of few colors (a map of categories), a black picture, a
        black collar that no mask marks, a fill value that is no nodata value
    sample : of uint8 and floats what ``sample_pixels`` gives, (n, 3); None for other types, of
        which it is not read
    """

    warnings: tuple[str, ...] = ()
    sample: NDArray[Any] | None = None


def check_picture(scene: Scene) -> PictureCheck:
    """Look at the corners of a scene, and of uint8 and floats at a sample of its pixels.

    Empty where the pixels cannot be read: reading the tiles gives the error.
    """
    try:
        with scene.pixel_reader() as reader:
            black_corners = _black_corners(scene, reader)
            looks = scene.dtype == "uint8" or scene.opening.mask_rule.nan
            sample = _sample(scene, reader) if looks else None
            fill = reader.fill
    except InputError:
        return PictureCheck()
    found = _picture_warnings(scene, sample, fill=fill, black_corners=black_corners)
    return PictureCheck(tuple(found), sample)


def _picture_warnings(
    scene: Scene, sample: NDArray[Any] | None, *, fill: float | None, black_corners: bool
) -> Iterator[str]:
    if fill is not None:
        yield (
            f"{scene.source} has values such as {fill:.8g}, which nothing on the ground has and no"
            f" nodata tag names: they count as nodata; --nodata {fill:.8g} keeps them out of the"
            " pixels at their border, too"
        )
    if sample is not None and len(sample) and scene.dtype == "uint8":
        most = 255 if scene.bits is None else 2**scene.bits - 1
        if scene.palette:
            colors = len(np.unique(sample.reshape(-1, 3), axis=0))
            if colors <= _CATEGORIES:
                yield (
                    f"{scene.source} has a palette and shows {colors} colors: if they are"
                    " categories, such as those of a land-cover map, and no picture, the classes"
                    " mean nothing; give the satellite or aerial picture itself"
                )
        if np.quantile(sample.max(axis=1), 0.98) <= most * _DARK:
            yield (
                f"{scene.source} is black: 98% of its pixels are at most {most * _DARK:.0f} of"
                f" {most} in every band; check the bands (--bands), or brighten it with --stretch"
                " 2%,98%"
            )
            return
    if black_corners and scene.nodata != 0:
        yield (
            f"{scene.source} has corners of zeros that no mask marks as empty, probably a collar"
            " around the picture: --nodata 0 leaves it out, or warp it with gdalwarp -dstalpha"
        )


def _black_corners(scene: Scene, reader: PixelReader) -> bool:
    """Whether a corner has a line of valid zeros on its outside, and the middle is not all 0.

    The collar of a picture that was turned a little is a thin wedge.
    """
    side = (min(_CORNER, scene.height), min(_CORNER, scene.width))
    ends = (scene.height - side[0], scene.width - side[1])
    places = [(0, 0), (0, ends[1]), (ends[0], 0), ends, (ends[0] // 2, ends[1] // 2)]
    black: list[NDArray[np.bool_]] = []
    for row, col in places:
        colors, valid = reader.read(Window(row, col, *side), side)
        zero = np.asarray(~colors.any(axis=2))
        black.append(zero if valid is None else zero & valid)
    outside = [
        line
        for (row, col), zero in zip(places[:4], black[:4], strict=True)
        for line in (
            zero[:_LINE] if row == 0 else zero[-_LINE:],
            zero[:, :_LINE] if col == 0 else zero[:, -_LINE:],
        )
    ]
    return any(line.all() for line in outside) and not black[4].all()


def _valid_pixels(reader: PixelReader, window: Window, shape: tuple[int, int]) -> NDArray[Any]:
    """(n, 3), a view of three planes: band by band as they are read, and are looked at."""
    colors, valid = reader.read(window, shape)
    planes = colors.transpose(2, 0, 1)
    return (planes.reshape(3, -1) if valid is None else planes[:, valid]).T


def sample_windows(scene: Scene, reader: PixelReader) -> Iterator[Window]:
    """Windows at the corners of blocks, in an order that covers the raster evenly from the start.

    Of a sparse file only the blocks that it stores are used.
    """
    sides = [min(_SIDE, length) for length in scene.shape]
    # A strip as wide as the raster is cut; any other block larger than a window gives one window.
    steps = [
        side if block >= length else max(side, block)
        for side, block, length in zip(sides, scene.opening.block_shape, scene.shape, strict=True)
    ]
    across = -(-scene.width // steps[1])
    count = -(-scene.height // steps[0]) * across
    # Multiples of the golden ratio modulo 1 fill the sequence of blocks evenly at every length,
    # without a random seed.
    places = (np.arange(1, count + 1) * 0.6180339887498949 % 1.0 * count).astype(np.int64)
    drawn = 0
    for place in dict.fromkeys(places.tolist()):
        row, col = place // across * steps[0], place % across * steps[1]
        window = Window(
            row, col, min(sides[0], scene.height - row), min(sides[1], scene.width - col)
        )
        if reader.is_missing(window):
            continue
        yield window
        drawn += 1
        if drawn == _BLOCKS * _ROUNDS:
            return


def without_haze(sample: NDArray[np.uint8]) -> Radiometry:
    """The scaling that subtracts the haze of a scene or set of pictures, by sampled pixels (n, 3).

    Pixels pass unchanged where there is none.
    """
    haze = _haze(sample)
    return Radiometry(haze, (255.0,) * 3, "dark-object subtraction") if any(haze) else _UNCHANGED


def _haze(sample: NDArray[np.uint8]) -> tuple[float, float, float]:
    """The light that the air adds to red, green and blue of pixels (n, 3) uint8.

    What the darkest pixels of a band are brighter than those of clear pictures (dark-object
    subtraction: Chavez 1988, Remote Sensing of Environment 24). Air scatters short waves most, so
    that a band of longer waves is given no more than one of shorter. All 0 where nothing is dark,
    such as in a desert, and for a gray picture, which would be given a color.
    """
    if not len(sample) or np.ptp(sample, axis=1).mean() < _GRAY:
        return (0.0, 0.0, 0.0)
    darkest, median = np.transpose([_percentiles(sample[:, band]) for band in range(3)])
    if darkest.sum() > _SHADOW * median.sum():
        return (0.0, 0.0, 0.0)
    red, green, blue = np.rint(darkest - _DARK_GROUND).clip(0, _MOST_HAZE).tolist()
    green = min(green, blue)
    return min(red, green), green, blue


def _percentiles(values: NDArray[np.uint8]) -> tuple[float, float]:
    """``_DARKEST`` and the median of a band, as np.percentile gives them, from its histogram.

    Counting a million bytes is many times quicker than sorting them.
    """
    up_to = np.bincount(values, minlength=256).cumsum()
    places = np.array([_DARKEST, 50.0]) / 100 * (len(values) - 1)
    below, above = (
        np.searchsorted(up_to, whole(places), side="right") for whole in (np.floor, np.ceil)
    )
    darkest, median = (below + (above - below) * (places % 1)).tolist()
    return darkest, median


def _unchanged(scene: Scene, sample: NDArray[Any] | None) -> Radiometry:
    if scene.dtype != "uint8":
        if sample is None:
            sample = sample_pixels(scene)
        sample = sample[is_measured(sample).all(axis=1)]
        if sample.size and (sample.min() < 0 or sample.max() > 255):
            raise UsageError(
                f"--stretch none is for values of 0 to 255, but {scene.source} ({scene.dtype}) has"
                f" {sample.min():g} to {sample.max():g}; leave --stretch out or give a range such"
                f" as {_DEFAULT}"
            )
        return Radiometry((0.0,) * 3, (255.0,) * 3, "values 0,255")
    return _UNCHANGED


def check_stretch(stretch: str) -> None:
    """Refuse with ``UsageError`` a text that names no scaling, see ``fit_radiometry``."""
    text = stretch.strip().lower()
    if text not in ("", _HAZE, "none"):
        _parse(text, stretch)


def _parse(text: str, shown: str) -> list[tuple[float, float, bool]]:
    """(low, high, whether percentiles) of each band."""
    if text == "minmax":
        return [(0.0, 100.0, True)] * 3
    parts = text.split(";")
    matches = [_RANGE.fullmatch(part) for part in parts]
    pairs = [
        (float(m[1]), float(m[3]), m[2] == "%") for m in matches if m is not None and m[2] == m[4]
    ]
    if len(pairs) != len(parts) or len(pairs) not in (1, 3):
        raise UsageError(
            f"--stretch {shown!r} is not understood: give LOW,HIGH in percent (2%,98%) or in values"
            " (0,3000), three such pairs separated by ';', minmax, dos or none"
        )
    for low, high, relative in pairs:
        if low >= high or (relative and not 0 <= low < high <= 100):
            raise UsageError(f"--stretch {shown!r}: {low:g} to {high:g} is no range")
    return pairs * 3 if len(pairs) == 1 else pairs


def as_triple(values: Sequence[float]) -> tuple[float, float, float]:
    """Three values, as a tuple of three for the type checker."""
    return values[0], values[1], values[2]


def _type_maximum(dtype: str) -> float:
    return 1.0 if dtype.startswith("float") else float(np.iinfo(dtype).max)
