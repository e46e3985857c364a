"""Lines and frames: pure geometry in meters, x east and y south."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from demo_scene.canvas import FloatArray, Point


@dataclass(frozen=True, slots=True)
class Frame:
    """A turned, gently bent system of axes (u, v) for streets and parcels.

    ``bend_m`` is the amplitude and ``wave_m`` the wavelength with which lines of constant v swing.
    """

    origin: Point
    angle: float
    bend_m: float = 0.0
    wave_m: float = 900.0

    def world(self, u: FloatArray | float, v: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Return x and y of points of the frame."""
        u = np.asarray(u, np.float32)
        v = np.asarray(v, np.float32) + np.float32(self.bend_m) * np.sin(
            u * np.float32(math.tau / self.wave_m)
        )
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return (self.origin[0] + u * cos - v * sin).astype(np.float32), (
            self.origin[1] + u * sin + v * cos
        ).astype(np.float32)

    def extent(
        self, x: tuple[float, float], y: tuple[float, float]
    ) -> tuple[float, float, float, float]:
        """Return u, v, length and width of a rectangle of the frame that holds a box of the world.

        It lies on a lattice of 100 m.
        """
        corners = np.array([(a - self.origin[0], b - self.origin[1]) for a in x for b in y])
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        turned = corners @ np.array([(cos, -sin), (sin, cos)])
        reach = np.array([0.0, abs(self.bend_m)])
        # The lattice keeps what is drawn the same whatever the pixel size rounds the box to.
        low, high = (
            np.floor((turned.min(axis=0) - reach) / 100) * 100,
            np.ceil((turned.max(axis=0) + reach) / 100) * 100,
        )
        return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])

    def heading(self, u: FloatArray | float) -> FloatArray:
        """Return the direction of the u axis at u, radians from the x axis."""
        slope = (
            self.bend_m
            * math.tau
            / self.wave_m
            * np.cos(np.asarray(u, np.float32) * np.float32(math.tau / self.wave_m))
        )
        return np.asarray(self.angle + np.arctan(slope), np.float32)

    def rectangle(
        self, u: tuple[float, float], v: tuple[float, float], step_m: float = 40.0
    ) -> list[Point]:
        """Return the outline of a rectangle of the frame, its long sides following the bend."""
        count = max(2, math.ceil((u[1] - u[0]) / step_m) + 1) if self.bend_m else 2
        along = np.linspace(*u, count)
        upper = np.stack(self.world(along, np.full(count, v[0])), axis=1)
        lower = np.stack(self.world(along[::-1], np.full(count, v[1])), axis=1)
        return [(float(x), float(y)) for x, y in np.concatenate([upper, lower])]


def curve(knots: Sequence[Point], step_m: float = 12.0) -> FloatArray:
    """Return a smooth line (N, 2) through knots."""
    points = np.asarray(knots, np.float64)
    arc = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    samples = np.linspace(0, arc[-1], math.ceil(arc[-1] / step_m) + 1)
    return np.asarray(CubicSpline(arc, points)(samples), np.float32)


def circle(
    center: Point, radius_m: float, start: float = 0.0, stop: float = math.tau, squash: float = 1.0
) -> list[Point]:
    """Return points of an arc (or, squashed in y, an ellipse's)."""
    angles = np.linspace(start, stop, max(8, math.ceil(radius_m * abs(stop - start) / 4)))
    return [
        (center[0] + radius_m * math.cos(a), center[1] + radius_m * squash * math.sin(a))
        for a in angles
    ]


def offset(line: FloatArray, distance_m: FloatArray | float) -> FloatArray:
    """Return a line moved sideways: positive to the right of its direction (y points south)."""
    tangent = np.gradient(line, axis=0)
    tangent /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    return np.asarray(line + normal * np.asarray(distance_m, np.float32).reshape(-1, 1), np.float32)


def points_of(line: FloatArray) -> list[Point]:
    """Return an (N, 2) array as a list of points."""
    return [(float(x), float(y)) for x, y in line]


def rough(
    outline: Sequence[Point], amplitude_m: float, rng: np.random.Generator, step_m: float = 30.0
) -> list[Point]:
    """Return a closed outline with natural, uneven sides."""
    points = np.asarray([*outline, outline[0]], np.float64)
    arc = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    samples = np.arange(0, arc[-1], step_m)
    line = np.stack([np.interp(samples, arc, points[:, axis]) for axis in (0, 1)], axis=1)
    wobble = rng.standard_normal((len(line), 2))
    kernel = np.hanning(9)
    wobble = np.stack(
        [np.convolve(np.r_[w[-4:], w, w[:4]], kernel, "valid") for w in wobble.T], axis=1
    )
    return [(float(x), float(y)) for x, y in line + wobble / kernel.sum() * amplitude_m * 2]
