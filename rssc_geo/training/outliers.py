"""Pictures that are no photographs from above: noise, maps, elevation, radar and others.

Made from noise and from the scene pictures themselves, so that a model can learn to separate them
from photographs without another data set.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from rssc_geo.raster import without_haze

_Values = NDArray[np.float64]
_Maker = Callable[[_Values, np.random.Generator], _Values]

_LEAST_CHANGE = 0.12
"""Least mean difference from the original picture: a gray town in false color looks the same."""
_TRIES = 20


def make_outliers(
    pixels: NDArray[np.uint8], count: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Pictures of all types in turn, half of them without haze, uint8 ``(count, S, S, 3)``.

    ``pixels``: scene pictures uint8 ``(N, S, S, 3)``, of which some are made; ``random`` decides
    which, and how.
    """
    made = np.empty((count, *pixels.shape[1:]), np.uint8)
    for place in range(count):
        for _ in range(_TRIES):
            picture = pixels[random.integers(len(pixels))] / 255
            values = _KINDS[place % len(_KINDS)](picture, random).clip(0, 1)
            if np.abs(values - picture).mean() >= _LEAST_CHANGE:
                break
        made[place] = np.rint(values * 255).astype(np.uint8)
        if place // len(_KINDS) % 2:  # every other round as --stretch dos would show it
            made[place] = without_haze(made[place].reshape(-1, 3)).apply(made[place])
    return made


def _noise(picture: _Values, random: np.random.Generator) -> _Values:
    """White noise of one or three bands, of single or larger pixels."""
    side = len(picture)
    grain = int(random.integers(1, 7))
    shape = (-(-side // grain),) * 2
    bands = int(random.choice([1, 3]))
    if random.random() < 0.5:
        values = random.uniform(0, 1, (*shape, bands))
    else:
        values = random.normal(0.5, random.uniform(0.1, 0.4), (*shape, bands))
    values = values.repeat(grain, 0).repeat(grain, 1)[:side, :side]
    return np.broadcast_to(values, picture.shape).copy()


def _terrain(side: int, roughness: float, random: np.random.Generator) -> _Values:
    """Heights ``(side, side)`` in [0, 1]: noise whose spectrum falls with its frequency."""
    frequency = np.fft.fftfreq(2 * side)
    radius = np.hypot(frequency[:, None], frequency)
    radius[0, 0] = 1
    spectrum = np.fft.fft2(random.normal(size=radius.shape)) / radius**roughness
    heights = np.fft.ifft2(spectrum).real[:side, :side]
    heights -= heights.min()
    return np.asarray(heights / max(float(heights.max()), 1e-9))


def _gray(values: _Values) -> _Values:
    return values[..., None].repeat(3, 2)


def _elevation(picture: _Values, random: np.random.Generator) -> _Values:
    """Heights in gray, as shaded relief, or in a color ramp."""
    heights = _terrain(len(picture), random.uniform(1.4, 2.2), random)
    kind = int(random.integers(3))
    if kind == 0:
        return _gray(heights * random.uniform(0.4, 1.0) + random.uniform(0, 0.3))
    if kind == 1:
        down, right = np.gradient(heights * random.uniform(5, 40))
        angle = random.uniform(0, 2 * np.pi)
        light = (right * np.cos(angle) + down * np.sin(angle)) / np.sqrt(1 + right**2 + down**2)
        return _gray(0.6 + 0.4 * light)
    colors = random.uniform(0, 1, (int(random.integers(3, 8)), 3))
    steps = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(heights, steps, colors[:, band]) for band in range(3)], 2)


def _map(picture: _Values, random: np.random.Generator) -> _Values:
    """Areas of a few flat colors, as a palette of categories has them."""
    side, count = len(picture), int(random.integers(3, 9))
    if random.random() < 0.5:
        values = _terrain(side, random.uniform(1.2, 2.0), random)
    else:
        values = picture.mean(2)
    if random.random() < 0.5:
        grain = int(random.integers(4, 9))
        values = values[::grain, ::grain].repeat(grain, 0).repeat(grain, 1)[:side, :side]
    limits = np.quantile(values, np.linspace(0, 1, count + 1)[1:-1])
    colors = random.uniform(0, 1, (count, 3))
    if random.random() < 0.4:
        colors = 1 - 0.4 * (1 - colors)
    return np.asarray(colors[np.digitize(values, limits)])


def _radar(picture: _Values, random: np.random.Generator) -> _Values:
    """Amplitudes with the speckle of 1 to 6 looks (gamma distributed intensities)."""
    looks = int(random.integers(1, 7))
    intensity = picture.mean(2).clip(0.02, 1) * random.gamma(looks, 1 / looks, picture.shape[:2])
    return _gray(np.sqrt(intensity) * random.uniform(0.5, 1.1))


def _false_color(picture: _Values, random: np.random.Generator) -> _Values:
    """A near infrared that plants reflect strongly, shown as red or green."""
    red, green, blue = np.moveaxis(picture, 2, 0)
    plants = (2 * green - red - blue) * random.uniform(2, 5) + random.uniform(-0.05, 0.1)
    infrared = 0.9 * picture.mean(2) + plants.clip(0, 1) * random.uniform(0.4, 0.9)
    bands = [infrared, red, green] if random.random() < 0.7 else [red, infrared, green]
    return np.stack(bands, 2)


def _cloud(picture: _Values, random: np.random.Generator) -> _Values:
    """Clouds over most of the picture or all of it."""
    heights = _terrain(len(picture), random.uniform(1.4, 2.4), random)
    opaque = (heights - heights.mean()) * random.uniform(1.0, 3.0) + random.uniform(0.7, 1.2)
    opaque = opaque.clip(0, 1)[..., None]
    return np.asarray(opaque * random.uniform(0.85, 1.0) + (1 - opaque) * picture)


def _flat(picture: _Values, random: np.random.Generator) -> _Values:
    """One color that does not occur on the ground."""
    color = colorsys.hsv_to_rgb(
        float(random.choice([0.0, 0.8, 0.9])),
        random.uniform(0.7, 1.0),
        random.uniform(0.4, 1.0),
    )
    return np.broadcast_to(np.array(color), picture.shape) + random.normal(0, 0.005, picture.shape)


_KINDS: tuple[_Maker, ...] = (
    _noise,
    _elevation,
    _map,
    _radar,
    _false_color,
    _cloud,
    _flat,
)
