"""From albedo and height to a photograph: sun, cast shadows, haze, lens, sensor."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from demo_scene.canvas import Canvas, FloatArray

SUN_AZIMUTH = math.radians(140)  # a late summer morning: the light comes from the south-east
SUN_ELEVATION = math.radians(46)
_HIGHEST_M = 30.0  # nothing drawn casts a longer shadow than an object of this height
_SKY = np.array([0.33, 0.37, 0.44], np.float32)  # the light left in a shadow: the blue sky's
_HAZE = np.array([0.55, 0.60, 0.66], np.float32)


def photograph(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the (height, width, 3) picture of a canvas."""
    sun = _sunlight(canvas)
    picture = np.empty((*canvas.shape, 3), np.uint8)
    for band in range(3):
        light = canvas.albedo[..., band] * (_SKY[band] + (1 - _SKY[band]) * sun)
        # The lens: half a meter of blur and what a pixel's own area adds.
        light = gaussian_filter(light, 0.55, truncate=2.5)
        light = np.float32(1.06) * light + np.float32(0.05) * (_HAZE[band] - light)
        light += rng.standard_normal(canvas.shape, np.float32) * np.float32(0.004)
        picture[..., band] = np.clip(light * 255 + 0.5, 0, 255)
    return picture


def _sunlight(canvas: Canvas) -> FloatArray:
    """Return the direct light on each pixel relative to flat open ground.

    Slope shading times shadow.
    """
    east, south, up = _sun_direction()
    height = canvas.height
    slope_y, slope_x = np.gradient(height, canvas.gsd_m)
    # Leaves and rough roofs scatter: half the true slope shades as softly as they do.
    slope_x, slope_y = 0.5 * slope_x, 0.5 * slope_y
    shading = (up - slope_x * east - slope_y * south) / np.sqrt(1 + slope_x**2 + slope_y**2) / up
    return np.asarray(np.clip(shading, 0, 1.5) * (1 - _shadow(canvas)), np.float32)


def _shadow(canvas: Canvas) -> FloatArray:
    """March towards the sun.

    A pixel is in shadow where something on the way stands above the ray.
    """
    east, south, up = _sun_direction()
    flat = math.hypot(east, south)
    reach_m = _HIGHEST_M / math.tan(SUN_ELEVATION)
    shadow = np.zeros(canvas.shape, np.bool_)
    rows, cols = canvas.shape
    for step in range(1, math.ceil(reach_m / canvas.gsd_m) + 1):
        ray = step * canvas.gsd_m * up / flat
        drow, dcol = round(step * south / flat), round(step * east / flat)
        here = (
            slice(max(0, -drow), rows - max(0, drow)),
            slice(max(0, -dcol), cols - max(0, dcol)),
        )
        there = (
            slice(max(0, drow), rows - max(0, -drow)),
            slice(max(0, dcol), cols - max(0, -dcol)),
        )
        shadow[here] |= canvas.height[there] - np.float32(ray) > canvas.height[here]
    return np.asarray(gaussian_filter(shadow.astype(np.float32), 0.6, truncate=2.0))


def _sun_direction() -> tuple[float, float, float]:
    """Return the unit vector towards the sun: east, south, up."""
    flat = math.cos(SUN_ELEVATION)
    return flat * math.sin(SUN_AZIMUTH), -flat * math.cos(SUN_AZIMUTH), math.sin(SUN_ELEVATION)
