"""The shore: sea, surf, sand with rows of sunshades, a harbour with jetties and boats."""

from __future__ import annotations

import math

import numpy as np

from demo_scene.canvas import Canvas, Color, FloatArray, Patch, Point, smooth_noise
from demo_scene.shapes import curve, offset, points_of

_QUAY: Color = (0.66, 0.64, 0.60)


def shore(
    canvas: Canvas, knots: list[Point], sand_m: float, rng: np.random.Generator
) -> FloatArray:
    """Draw everything south of a coastline given from west to east; return the line (N, 2).

    Northwards of the line lies sand ``sand_m`` wide, then a ragged edge of dune grass; southwards
    surf and water that turns from pale to deep.
    """
    line = curve(knots)
    window = canvas.window(
        [0, canvas.size_m], [float(line[:, 1].min()) - 2 * sand_m, canvas.size_m]
    )
    x, y = canvas.centers(window)
    ragged = smooth_noise(canvas, 120, rng, 4, window)
    fine = smooth_noise(canvas, 16, rng, 3, window)
    d = (
        y - np.interp(x[0], line[:, 0], line[:, 1]).astype(np.float32)[None, :] + 4 * ragged
    )  # meters seawards
    d_sand = d + sand_m + 10 * ragged

    tone = (1 + 0.025 * fine + 0.02 * ragged)[..., None]
    wet = np.clip((d + 22) / 20, 0, 1)[..., None]
    dry_sand, wet_sand = (
        np.array([0.83, 0.765, 0.64], np.float32),
        np.array([0.63, 0.56, 0.45], np.float32),
    )
    sand = tone * (dry_sand + wet * (wet_sand - dry_sand))
    canvas.paint(Patch(window, np.clip(d_sand / 3, 0, 1)), sand)

    pale, deep = np.array([0.46, 0.63, 0.60], np.float32), np.array([0.15, 0.34, 0.40], np.float32)
    depth = (1 - np.exp(-np.maximum(d, 0) / 85))[..., None]
    swell = np.sin((y + 0.22 * x + 5 * ragged) * (math.tau / 17)) * 0.5 + 0.5 * smooth_noise(
        canvas, 6, rng, 2, window
    )
    sea = (pale + depth * (deep - pale)) * (1 + 0.035 * swell + 0.03 * ragged)[..., None]
    foam = np.zeros_like(d)
    for at, width, strength in ((3.0, 4.0, 0.85), (24.0, 6.0, 0.65), (52.0, 5.0, 0.45)):
        along = d - at - 5 * fine * (at > 5)
        foam = np.maximum(
            foam,
            strength
            * np.exp(-((along / width) ** 2))
            * np.clip(0.75 + 0.55 * ragged + 0.25 * fine, 0, 1),
        )
    sea += foam[..., None] * (np.float32(0.93) - sea)
    canvas.paint(Patch(window, np.clip(d / 2 + 0.5, 0, 1)), sea)
    canvas.taken[window] |= d_sand > 0
    return line


def sunshades(
    canvas: Canvas, line: FloatArray, west_m: float, east_m: float, rng: np.random.Generator
) -> None:
    """Set up rows of sunshades on the sand between two eastings, and bathing huts behind."""
    part = line[(line[:, 0] > west_m) & (line[:, 0] < east_m)]
    arc = float(np.hypot(*np.diff(part, axis=0).T).sum())
    for distance in np.arange(-58, -30, 6.5):
        at = np.arange(0, arc, 5.5)
        at = at[(np.mod(at, 90) < 70) & (rng.random(len(at)) < 0.9)]
        points = _along(offset(part, distance), at).astype(np.float32)
        count = len(points)
        colors = np.array(
            [[0.25, 0.42, 0.66], [0.80, 0.33, 0.24], [0.90, 0.90, 0.86], [0.86, 0.68, 0.25]],
            np.float32,
        )
        chosen = colors[(np.floor(at / 90).astype(int)) % len(colors)]
        canvas.crowns(
            points, np.full(count, 1.7, np.float32), np.full(count, 2.4, np.float32), chosen
        )
    at = np.arange(20, arc, 90.0)
    huts = _along(offset(part, -84), at).astype(np.float32)
    count = len(huts)
    flat, white = np.zeros(count), np.full((count, 3), 0.80)
    canvas.boxes(huts, np.full((count, 2), (34.0, 9.0)), flat, white, flat + 3.5)


def harbour(
    canvas: Canvas,
    west_m: float,
    east_m: float,
    north_m: float,
    mouth_m: float,
    rng: np.random.Generator,
) -> None:
    """Dig a basin into the shore: quays, jetties with boats on both sides, moles out to sea."""
    edge = 26.0
    middle = (west_m + east_m) / 2
    outer = [
        (west_m - edge, north_m - edge),
        (east_m + edge, north_m - edge),
        (east_m + edge, mouth_m),
        (west_m - edge, mouth_m),
    ]
    canvas.paint(canvas.polygons([outer]), _QUAY, height_m=0)
    calm = [
        (west_m, north_m),
        (east_m, north_m),
        (east_m, mouth_m),
        (east_m - 60, mouth_m + 140),
        (middle, mouth_m + 200),
    ]
    water = canvas.polygons(
        [
            [
                *calm,
                (west_m + 90, mouth_m + 195),
                (west_m - 20, mouth_m + 100),
                (west_m, mouth_m - 10),
            ]
        ]
    )
    fade = np.clip((mouth_m + 215 - canvas.centers(water.window)[1]) / 130, 0, 1)
    water.coverage[...] *= fade
    ripple = 1 + 0.03 * smooth_noise(canvas, 30, rng, 4, water.window)
    canvas.paint(water, ripple[..., None] * np.array([0.20, 0.36, 0.39], np.float32), height_m=0)
    moles = (
        [
            (west_m - 10, mouth_m - 20),
            (west_m - 30, mouth_m + 110),
            (west_m + 90, mouth_m + 205),
            (middle + 60, mouth_m + 240),
        ],
        [
            (east_m + 10, mouth_m - 20),
            (east_m + 25, mouth_m + 90),
            (east_m - 70, mouth_m + 150),
            (middle + 150, mouth_m + 165),
        ],
    )
    for mole in moles:
        _mole(canvas, curve(mole), rng)
    boats: list[FloatArray] = []
    for x in np.arange(west_m + 62, east_m - 30, 74.0):
        end = mouth_m - rng.uniform(10, 40)
        canvas.paint(canvas.line([(x, north_m), (x, end)], 4.5), (0.74, 0.73, 0.70), height_m=1.2)
        y = np.arange(north_m + 16, end, 6.6)
        for side in (-1, 1):
            there = y[rng.random(len(y)) < 0.88]
            length = rng.uniform(11, 19, len(there))
            boats.append(
                np.stack(
                    [x + side * (3.5 + length / 2), there, length, np.zeros(len(there))], axis=1
                )
            )
    for x in (west_m, east_m):
        y = np.arange(north_m + 20, mouth_m, 8.0)
        length = rng.uniform(10, 18, len(y))
        boats.append(
            np.stack(
                [x + np.sign(middle - x) * (2 + length / 2), y, length, np.zeros(len(y))], axis=1
            )
        )
    sailing = np.array(
        [
            (middle + 40, mouth_m + 120, 16, 1.2),
            (middle - 190, mouth_m + 330, 14, 0.5),
            (east_m + 260, mouth_m + 180, 18, 2.6),
        ]
    )
    fleet = np.concatenate([*boats, sailing])
    count, length = len(fleet), fleet[:, 2]
    white = rng.uniform(0.78, 0.97, (count, 1)) * np.ones((1, 3))
    hulls, cabins = (
        np.stack([length, length * 0.29], axis=1),
        np.stack([length * 0.35, length * 0.16], axis=1),
    )
    canvas.boxes(
        fleet[:, :2], hulls, fleet[:, 3], white, np.full(count, 1.8), pitch=0.3, hipped=True
    )
    canvas.boxes(
        fleet[:, :2],
        cabins,
        fleet[:, 3],
        white * rng.uniform(0.4, 0.9, (count, 1)),
        np.full(count, 3.2),
    )
    _sheds(canvas, np.arange(west_m + 20, east_m, 72), north_m - 62, rng)


def _sheds(canvas: Canvas, x: FloatArray, y: float, rng: np.random.Generator) -> None:
    """Build a row of sheds behind the quay."""
    count = len(x)
    centers = np.stack([x, np.full(count, y)], axis=1)
    sizes = rng.uniform((40, 20), (62, 30), (count, 2))
    tint = np.array([[0.78, 0.78, 0.77], [0.42, 0.54, 0.68], [0.66, 0.65, 0.63]])[
        rng.integers(0, 3, count)
    ]
    canvas.boxes(centers, sizes, np.zeros(count), tint, np.full(count, 8.0), pitch=0.1, ribs_m=8.0)


def _mole(canvas: Canvas, line: FloatArray, rng: np.random.Generator) -> None:
    """Heap up a breakwater: rocks on both sides of a paved crest."""
    canvas.paint(canvas.line(points_of(line), 22), (0.44, 0.43, 0.41), height_m=1.5)
    for side in (-8.0, -5.0, 5.0, 8.0):
        rocks = _along(offset(line, side), np.arange(0, len(line) * 12, 3.0))
        rocks = (rocks + rng.normal(0, 1.2, rocks.shape)).astype(np.float32)
        gray = rng.uniform(0.45, 0.72, (len(rocks), 1)).astype(np.float32) * np.ones(
            (1, 3), np.float32
        )
        canvas.crowns(
            rocks,
            rng.uniform(1.2, 2.4, len(rocks)).astype(np.float32),
            np.full(len(rocks), 3, np.float32),
            gray,
        )
    canvas.paint(canvas.line(points_of(line), 8), _QUAY, height_m=4)


def _along(line: FloatArray, at_m: FloatArray) -> FloatArray:
    arc = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at_m = at_m[at_m <= arc[-1]]
    return np.stack([np.interp(at_m, arc, line[:, axis]) for axis in (0, 1)], axis=1).astype(
        np.float32
    )
