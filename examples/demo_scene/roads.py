"""Roads, traffic, bridges and a motorway interchange."""

from __future__ import annotations

import math

import numpy as np

from demo_scene.canvas import Canvas, Color, FloatArray, Point
from demo_scene.shapes import circle, curve, offset, points_of

ASPHALT: Color = (0.455, 0.45, 0.445)
_PALE: Color = (0.70, 0.69, 0.66)
_CAR_COLORS = np.array(
    [[0.86, 0.86, 0.86], [0.80, 0.81, 0.83], [0.62, 0.63, 0.66], [0.22, 0.22, 0.24],
     [0.14, 0.14, 0.16],
     [0.30, 0.36, 0.50], [0.55, 0.16, 0.14], [0.72, 0.70, 0.64]],
    np.float32,
)  # fmt: skip


def cars(
    canvas: Canvas,
    centers: FloatArray,
    angles: FloatArray,
    rng: np.random.Generator,
    *,
    base_m: float = 0.0,
) -> None:
    """Put cars (4.4 m × 1.9 m) at points (N, 2), ``base_m`` above the ground."""
    count = len(centers)
    sizes = np.array([4.5, 2.0], np.float32) * rng.uniform(0.92, 1.1, (count, 1)).astype(np.float32)
    colors = _CAR_COLORS[
        rng.choice(len(_CAR_COLORS), count, p=[0.26, 0.18, 0.14, 0.14, 0.12, 0.06, 0.06, 0.04])
    ]
    canvas.boxes(
        centers, sizes, angles.astype(np.float32), colors, np.full(count, base_m + 1.5, np.float32)
    )


def road(
    canvas: Canvas,
    line: FloatArray,
    width_m: float,
    *,
    color: Color = ASPHALT,
    height_m: float = 0.0,
) -> None:
    """Lay a road with pale verges."""
    points = points_of(line)
    if height_m == 0:
        canvas.paint(canvas.line(points, width_m + 5), (0.50, 0.49, 0.41))
    canvas.paint(canvas.line(points, width_m), color, height_m=height_m)


def motorway(canvas: Canvas, line: FloatArray, *, height_m: float = 0.0) -> None:
    """Lay two carriageways with edge lines and a green median."""
    if height_m == 0:
        canvas.paint(canvas.line(points_of(line), 36), (0.42, 0.45, 0.31))
    else:
        canvas.paint(canvas.line(points_of(line), 31), _PALE, height_m=height_m)
    for side in (-7.2, 7.2):
        carriageway = offset(line, side)
        canvas.paint(canvas.line(points_of(carriageway), 12), ASPHALT, height_m=height_m)
        for lane in (-5.2, 5.2):
            canvas.paint(canvas.line(points_of(offset(carriageway, lane)), 0.7), (0.75, 0.75, 0.73))
        canvas.paint(canvas.line(points_of(carriageway), 0.4), (0.62, 0.62, 0.61))


def bridge(
    canvas: Canvas, start: Point, stop: Point, width_m: float, *, height_m: float = 9.0
) -> None:
    """Carry a road over water: a pale deck between parapets, high enough to throw a shadow."""
    line = curve([start, stop], 20)
    canvas.paint(
        canvas.line(points_of(line), width_m + 5), (0.77, 0.75, 0.71), height_m=height_m + 1
    )
    canvas.paint(canvas.line(points_of(line), width_m), (0.54, 0.535, 0.525), height_m=height_m)
    canvas.paint(canvas.line(points_of(line), 0.6), (0.82, 0.82, 0.80), height_m=height_m)


def traffic(
    canvas: Canvas,
    line: FloatArray,
    lanes_m: list[float],
    gap_m: float,
    rng: np.random.Generator,
    *,
    base_m: float = 0.0,
) -> None:
    """Drive cars along lanes at the given offsets, with random gaps of ``gap_m`` on average."""
    for lane in lanes_m:
        track = offset(line, lane)
        steps = np.diff(track, axis=0)
        arc = np.concatenate([[0], np.cumsum(np.hypot(*steps.T))])
        at = np.cumsum(rng.exponential(gap_m, int(arc[-1] / gap_m)) + 6)
        at = at[at < arc[-1]]
        points = np.stack([np.interp(at, arc, track[:, axis]) for axis in (0, 1)], axis=1)
        segment = np.clip(np.searchsorted(arc, at) - 1, 0, len(steps) - 1)
        cars(
            canvas,
            points.astype(np.float32),
            np.arctan2(steps[segment, 1], steps[segment, 0]),
            rng,
            base_m=base_m,
        )


def interchange(
    canvas: Canvas, center: Point, angle: float, rng: np.random.Generator, *, radius_m: float = 78.0
) -> None:
    """Draw a cloverleaf where two motorways cross.

    Four loops, four outer ramps, the second road on a viaduct.
    """
    cos, sin = math.cos(angle), math.sin(angle)

    def world(points: list[Point]) -> FloatArray:
        u, v = np.asarray(points, np.float32).T
        return np.stack(
            [center[0] + u * cos - v * sin, center[1] + u * sin + v * cos], axis=1
        ).astype(np.float32)

    far = 3.6 * radius_m
    for quarter in range(4):
        a = quarter * math.pi / 2
        turn = np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]], np.float32)
        reach = radius_m + 14
        loop = (
            np.asarray(circle((reach, reach), radius_m, math.pi, -0.5 * math.pi), np.float32) @ turn
        )
        near, out = 1.95 * radius_m, 2.6 * radius_m
        ramp = curve([(far, 15), (out, 26), (near, near), (26, out), (15, far)]) @ turn
        for line in (world(points_of(loop)), world(points_of(ramp))):
            canvas.paint(canvas.line(points_of(line), 13), (0.60, 0.58, 0.50))
            canvas.paint(canvas.line(points_of(line), 8.5), ASPHALT)
            traffic(canvas, line, [0.0], 45, rng)
    lanes = [-9.5, -5.0, 5.0, 9.5]
    over = curve(points_of(world([(0, -far), (0, far)])), 20)
    motorway(canvas, over)
    traffic(canvas, over, lanes, 40, rng)
    under = curve(points_of(world([(-far, 0), (far, 0)])), 20)
    motorway(canvas, under)
    traffic(canvas, under, lanes, 40, rng)
    deck = curve(points_of(world([(0, -70), (0, 70)])), 20)
    motorway(canvas, deck, height_m=8.0)
    traffic(canvas, deck, lanes, 30, rng, base_m=8.0)
