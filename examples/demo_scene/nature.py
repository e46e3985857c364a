"""Grass, woods, water and single trees."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from demo_scene.canvas import BoolArray, Canvas, FloatArray, patch_of, smooth_noise
from demo_scene.shapes import offset, points_of

_CANOPY = np.array(
    [[0.20, 0.29, 0.17], [0.24, 0.33, 0.18], [0.17, 0.26, 0.17], [0.28, 0.34, 0.18]], np.float32
)
_GARDEN = np.array(
    [[0.22, 0.33, 0.17], [0.28, 0.38, 0.20], [0.18, 0.28, 0.15], [0.34, 0.37, 0.20]], np.float32
)


def grassland(canvas: Canvas, rng: np.random.Generator) -> None:
    """Cover everything with grass: green with drier patches and a fine grain."""
    broad, mottle = smooth_noise(canvas, 300, rng, 3), smooth_noise(canvas, 9, rng, 2)
    for band, (mean, dry, grain) in enumerate(
        [(0.385, 0.022, 0.010), (0.455, 0.010, 0.010), (0.275, 0.010, 0.007)]
    ):
        canvas.albedo[..., band] = mean + dry * broad + grain * mottle


def meadow(canvas: Canvas, where: BoolArray, rng: np.random.Generator) -> None:
    """Mow an area: even, fresh green with faint swaths."""
    patch = patch_of(where)
    window = patch.window
    x, y = canvas.centers(window)
    cloud = smooth_noise(canvas, 160, rng, 2, window)
    swath = np.sin((x * 0.35 + y * 0.94 + 6 * cloud) * (2 * np.pi / 9))
    shade = 1 + 0.05 * cloud + 0.018 * swath + 0.025 * smooth_noise(canvas, 4, rng, 1, window)
    color = shade[..., None] * np.array([0.36, 0.475, 0.27], np.float32)
    canvas.paint(patch, color, take=False)


def forest(
    canvas: Canvas, where: BoolArray, rng: np.random.Generator, *, spacing_m: float = 6.5
) -> None:
    """Fill an area with a closed canopy of crowns of many sizes and greens."""
    canvas.paint(patch_of(where & ~canvas.taken), (0.13, 0.17, 0.11), take=False)
    stand = smooth_noise(canvas, 140, rng, 3)
    centers = _jittered(canvas, spacing_m, rng)
    centers = centers[canvas.free(centers[:, 0], centers[:, 1], where)]
    local = stand[
        (centers[:, 1] / canvas.gsd_m).astype(int), (centers[:, 0] / canvas.gsd_m).astype(int)
    ]
    count = len(centers)
    size = rng.gamma(9, 1 / 9, count).astype(np.float32)
    colors = (
        _CANOPY[rng.integers(0, len(_CANOPY), count)]
        * (1 + 0.15 * local + 0.08 * rng.standard_normal(count))[:, None]
    )
    heights = 5 * size + 8 + 2 * local.clip(-2, 2)
    canvas.crowns(
        centers, 4.6 * size.clip(0.55, 1.7), heights.astype(np.float32), colors.astype(np.float32)
    )


def trees(
    canvas: Canvas,
    centers: FloatArray,
    rng: np.random.Generator,
    *,
    radius_m: float = 3.6,
    tall: float = 1.9,
) -> None:
    """Plant single trees where nothing stands in the way; ``tall`` is the height in crown radii."""
    centers = centers[canvas.free(centers[:, 0], centers[:, 1])]
    count = len(centers)
    radii = (radius_m * rng.uniform(0.6, 1.4, count)).astype(np.float32)
    colors = _GARDEN[rng.integers(0, len(_GARDEN), count)] * rng.uniform(0.8, 1.15, (count, 1))
    canvas.crowns(centers, radii, (radii * tall).astype(np.float32), colors.astype(np.float32))


def scattered(
    canvas: Canvas, where: BoolArray, per_hectare: float, rng: np.random.Generator
) -> FloatArray:
    """Return random points (N, 2) within an area."""
    points = rng.uniform(0, canvas.size_m, (round(canvas.size_m**2 / 1e4 * per_hectare), 2)).astype(
        np.float32
    )
    return points[canvas.free(points[:, 0], points[:, 1], where)]


def along(
    line: FloatArray, distance_m: float, spacing_m: float, jitter_m: float, rng: np.random.Generator
) -> FloatArray:
    """Return points (N, 2) beside a line, as an avenue or a hedge has them."""
    side = offset(line, distance_m)
    arc = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(side, axis=0).T))])
    at = np.arange(0, arc[-1], spacing_m)
    points = np.stack([np.interp(at, arc, side[:, axis]) for axis in (0, 1)], axis=1)
    return np.asarray(points + rng.normal(0, jitter_m, points.shape), np.float32)


def river(
    canvas: Canvas, line: FloatArray, width_m: FloatArray, mouth_m: float, rng: np.random.Generator
) -> None:
    """Draw a river: gravel inside its bends, darker water towards the middle.

    South of ``mouth_m`` the sea takes it up.
    """
    swing = np.gradient(np.unwrap(np.arctan2(*np.gradient(line, axis=0).T[::-1])))
    bar_m = 24 * np.clip(
        np.convolve(swing, np.ones(15), "same") / 0.35, -1, 1
    )  # gravel lies inside the bends
    right, left = width_m / 2 + 4 + bar_m.clip(0), width_m / 2 + 4 + (-bar_m).clip(0)
    banks = canvas.polygons(
        [points_of(np.concatenate([offset(line, right), offset(line, -left)[::-1]]))]
    )
    gravel = 1 + 0.06 * smooth_noise(canvas, 14, rng, 2, banks.window)
    banks.coverage[...] *= canvas.centers(banks.window)[1] < mouth_m - 110
    canvas.paint(banks, gravel[..., None] * np.array([0.55, 0.53, 0.44], np.float32), height_m=0)
    water = canvas.polygons(
        [points_of(np.concatenate([offset(line, width_m / 2), offset(line, -width_m / 2)[::-1]]))]
    )
    inside = water.coverage > 0.5
    depth = np.minimum(distance_transform_edt(inside) * canvas.gsd_m / 45, 1).astype(np.float32)
    ripple = 1 + 0.02 * smooth_noise(canvas, 70, rng, 3, water.window)
    shallow, deep = (
        np.array([0.40, 0.43, 0.32], np.float32),
        np.array([0.29, 0.36, 0.285], np.float32),
    )
    seawards = (canvas.centers(water.window)[1] - mouth_m) / 170
    water.coverage[...] *= np.where(seawards < 0, 1, np.clip(1 - seawards, 0, 1) ** 1.5)
    water.coverage[...] *= 1 - np.clip(5 * seawards + 1, 0, 1) * (
        1 - depth
    )  # out there its sides blur, too
    canvas.paint(
        water,
        ripple[..., None] * (shallow + np.sqrt(depth)[..., None] * (deep - shallow)),
        height_m=0,
    )


def pond(canvas: Canvas, outline: list[tuple[float, float]], rng: np.random.Generator) -> None:
    """Draw still green water with a muddy rim and trees around."""
    water = canvas.polygons([outline])
    depth = np.minimum(distance_transform_edt(water.coverage > 0.5) * canvas.gsd_m / 14, 1).astype(
        np.float32
    )
    shore, middle = (
        np.array([0.45, 0.44, 0.34], np.float32),
        np.array([0.24, 0.34, 0.26], np.float32),
    )
    canvas.paint(water, shore + depth[..., None] * (middle - shore))
    ring = np.asarray([*outline, outline[0]], np.float32)
    for distance in (
        -9.0,
        9.0,
        -15.0,
        15.0,
    ):  # the outline may turn either way: what falls into the water is not planted
        trees(canvas, along(ring, distance, 9, 4, rng), rng, radius_m=3.8)


def _jittered(canvas: Canvas, spacing_m: float, rng: np.random.Generator) -> FloatArray:
    """Return points (N, 2) of a loosened triangular grid over the whole canvas."""
    count = int(canvas.size_m / spacing_m)
    u, v = np.meshgrid(np.arange(count), np.arange(count))
    grid = np.stack([u + 0.5 * (v % 2), v], axis=-1).reshape(-1, 2) * spacing_m
    return np.asarray(grid + rng.uniform(-0.45, 0.45, grid.shape) * spacing_m, np.float32)
