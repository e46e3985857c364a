"""Houses: dense quarters, suburbs with gardens, lone farms and villas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion

from demo_scene.canvas import BoolArray, Canvas, Color, FloatArray, Patch, patch_of, smooth_noise
from demo_scene.nature import scattered, trees
from demo_scene.roads import ASPHALT
from demo_scene.shapes import Frame, rough

_ROOFS = np.array(
    [[0.57, 0.36, 0.28], [0.52, 0.33, 0.26], [0.61, 0.42, 0.33], [0.47, 0.33, 0.28],
     [0.50, 0.47, 0.44],
     [0.42, 0.40, 0.39], [0.66, 0.62, 0.57], [0.34, 0.32, 0.31]],
    np.float32,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quarter:
    """How a quarter is built, all lengths in meters.

    ``block`` is (length, width) between streets; two rows of houses stand back to back in it on
    plots of ``frontage``; ``house`` is (length, depth) of the largest; ``garden`` is the color of
    the plots; ``flats`` and ``greens`` are the shares of blocks with apartment houses and with a
    planted square instead, ``crown`` is the mean radius of the garden trees.
    """

    block: tuple[float, float]
    street: float
    frontage: float
    house: tuple[float, float]
    setback: float
    eaves: float
    garden: Color
    trees_per_hectare: float
    flats: float = 0.0
    greens: float = 0.0
    crown: float = 3.0


DENSE = Quarter(
    (130, 58), 6.0, 14.5, (14.0, 14.5), 4.5, 6.5, (0.39, 0.41, 0.30), 60, flats=0.10, greens=0.03
)
MEDIUM = Quarter((220, 90), 6.0, 34.0, (22.0, 17.0), 12.0, 5.0, (0.33, 0.42, 0.24), 40, crown=4.5)


def quarter(
    canvas: Canvas, where: BoolArray, frame: Frame, kind: Quarter, rng: np.random.Generator
) -> None:
    """Build up an area: streets, blocks of plots, houses, garden trees."""
    everything = patch_of(where)
    window = everything.window
    canvas.paint(everything, ASPHALT, take=False)
    blocks = _blocks(canvas, where, frame, kind)
    ground = canvas.polygons(
        [frame.rectangle((u, u + kind.block[0]), (v, v + kind.block[1])) for u, v in blocks]
    )
    inside = Patch(ground.window, ground.coverage * where[ground.window])
    mottle = 1 + 0.10 * smooth_noise(canvas, 14, rng, 2, ground.window)
    canvas.paint(inside, mottle[..., None] * np.asarray(kind.garden, np.float32), take=False)
    open_ground = np.zeros(canvas.shape, np.bool_)
    open_ground[ground.window] = inside.coverage > 0.5
    canvas.taken[window] |= where[window] & ~open_ground[window]

    margin = binary_erosion(where[window], iterations=max(1, round(9 / canvas.gsd_m)))
    clear = np.zeros(canvas.shape, np.bool_)
    clear[window] = margin
    draw = rng.random(len(blocks))
    _houses(canvas, clear, frame, kind, blocks[draw > kind.flats + kind.greens], rng)
    _flats(canvas, clear, frame, kind, blocks[draw < kind.flats], rng)
    for u, v in blocks[(draw >= kind.flats) & (draw < kind.flats + kind.greens)]:
        _square(canvas, open_ground, frame, kind, (float(u), float(v)), rng)
    trees(
        canvas,
        scattered(canvas, open_ground, kind.trees_per_hectare, rng),
        rng,
        radius_m=kind.crown,
    )


def _blocks(canvas: Canvas, where: BoolArray, frame: Frame, kind: Quarter) -> FloatArray:
    """Return the corners (N, 2) in the frame of the blocks that touch the area."""
    length, width = kind.block[0] + kind.street, kind.block[1] + kind.street
    u0, v0, reach_u, reach_v = frame.extent(*canvas.box(patch_of(where).window))
    u, v = np.meshgrid(np.arange(u0, u0 + reach_u, length), np.arange(v0, v0 + reach_v, width))
    corners = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float32)
    touched = np.zeros(len(corners), np.bool_)
    for du in np.linspace(0, kind.block[0], 5):
        for dv in np.linspace(0, kind.block[1], 3):
            x, y = frame.world(corners[:, 0] + du, corners[:, 1] + dv)
            rows, cols = (y / canvas.gsd_m).astype(int), (x / canvas.gsd_m).astype(int)
            on = (rows >= 0) & (rows < canvas.shape[0]) & (cols >= 0) & (cols < canvas.shape[1])
            touched[on] |= where[rows[on], cols[on]]
    return corners[touched]


def _houses(
    canvas: Canvas,
    clear: BoolArray,
    frame: Frame,
    kind: Quarter,
    blocks: FloatArray,
    rng: np.random.Generator,
) -> None:
    plots = int(kind.block[0] / kind.frontage)
    along = (np.arange(plots) + 0.5) * kind.block[0] / plots
    rows = np.array(
        [kind.setback + kind.house[1] / 2, kind.block[1] - kind.setback - kind.house[1] / 2]
    )
    u = (blocks[:, 0, None, None] + along[None, :, None] + np.zeros((1, 1, 2))).ravel()
    v = (blocks[:, 1, None, None] + rows[None, None, :] + np.zeros((1, plots, 1))).ravel()
    kept = rng.random(len(u)) > 0.04
    u, v = u[kept] + rng.normal(0, 0.6, kept.sum()), v[kept] + rng.normal(0, 0.8, kept.sum())
    centers = np.stack(frame.world(u, v), axis=1)
    free = canvas.free(centers[:, 0], centers[:, 1], clear)
    centers, angles = centers[free], frame.heading(u[free])
    houses(canvas, centers, angles, kind.house, kind.eaves, rng)


def _flats(
    canvas: Canvas,
    clear: BoolArray,
    frame: Frame,
    kind: Quarter,
    blocks: FloatArray,
    rng: np.random.Generator,
) -> None:
    """Put four flat-roofed apartment houses on each block."""
    spots = np.array([(0.14, 0.5), (0.38, 0.5), (0.62, 0.5), (0.86, 0.5)]) * np.asarray(kind.block)
    places = (blocks[:, None, :] + spots[None]).reshape(-1, 2)
    centers = np.stack(frame.world(places[:, 0], places[:, 1]), axis=1)
    free = canvas.free(centers[:, 0], centers[:, 1], clear)
    centers, angles = centers[free], frame.heading(places[free, 0]) + np.float32(np.pi / 2)
    count = len(centers)
    sizes = (np.array([kind.block[1] - 14, 19]) * rng.uniform(0.8, 1.0, (count, 2))).astype(
        np.float32
    )
    colors = (np.array([0.68, 0.66, 0.62]) * rng.uniform(0.75, 1.15, (count, 1))).astype(np.float32)
    heights = rng.uniform(12, 19, count).astype(np.float32)
    canvas.boxes(centers, sizes, angles, colors, heights)
    canvas.boxes(
        centers,
        sizes * np.float32(0.25),
        angles,
        colors * np.float32(0.75),
        heights + np.float32(3),
    )


def _square(
    canvas: Canvas,
    open_ground: BoolArray,
    frame: Frame,
    kind: Quarter,
    corner: tuple[float, float],
    rng: np.random.Generator,
) -> None:
    """Turn a block into a planted square: grass, crossing paths, trees."""
    (u, v), (length, width) = corner, kind.block
    lawn = canvas.polygons([frame.rectangle((u, u + length), (v, v + width))])
    lawn.coverage[...] *= open_ground[lawn.window]
    canvas.paint(lawn, (0.34, 0.44, 0.25), take=False)
    for start, stop in (((u, v), (u + length, v + width)), ((u, v + width), (u + length, v))):
        path = np.stack(frame.world(*np.linspace(start, stop, 12, dtype=np.float32).T), axis=1)
        patch = canvas.line([(float(x), float(y)) for x, y in path], 3)
        patch.coverage[...] *= open_ground[patch.window]
        canvas.paint(patch, (0.68, 0.64, 0.55))
    places = rng.uniform((u, v), (u + length, v + width), (40, 2))
    centers = np.stack(frame.world(places[:, 0], places[:, 1]), axis=1)
    trees(
        canvas, centers[canvas.free(centers[:, 0], centers[:, 1], open_ground)], rng, radius_m=4.5
    )


def houses(
    canvas: Canvas,
    centers: FloatArray,
    angles: FloatArray,
    size_m: tuple[float, float],
    eaves_m: float,
    rng: np.random.Generator,
) -> None:
    """Build houses: hipped tiled roofs, some with a lower wing, a paved yard beside some."""
    count = len(centers)
    colors = _ROOFS[
        rng.choice(len(_ROOFS), count, p=[0.22, 0.2, 0.14, 0.12, 0.1, 0.08, 0.09, 0.05])
    ]
    colors = (colors * rng.normal(1, 0.07, (count, 1))).astype(np.float32)
    sizes = (np.asarray(size_m) * rng.uniform(0.72, 1.0, (count, 2))).astype(np.float32)
    turned = (
        angles + np.where(rng.random(count) < 0.35, np.pi / 2, 0) + rng.normal(0, 0.02, count)
    ).astype(np.float32)
    heights = (eaves_m * rng.uniform(0.8, 1.3, count)).astype(np.float32)
    yard = rng.random(count) < 0.45
    reach = np.stack([np.cos(angles), np.sin(angles)], axis=1) * size_m[0] * 0.5
    shift = (reach + rng.normal(0, 1.5, (count, 2))).astype(np.float32)
    gray = np.tile(np.array([0.60, 0.58, 0.54], np.float32), (count, 1)) * rng.uniform(
        0.85, 1.1, (count, 1)
    ).astype(np.float32)
    canvas.boxes(
        (centers + shift)[yard],
        (sizes * 0.8)[yard],
        turned[yard],
        gray[yard],
        np.zeros(int(yard.sum()), np.float32),
    )
    canvas.boxes(centers, sizes, turned, colors, heights, pitch=0.55, hipped=True)
    wing = rng.random(count) < 0.3
    canvas.boxes(
        (centers + shift * 0.7)[wing],
        (sizes * 0.5)[wing],
        turned[wing],
        colors[wing],
        heights[wing] * 0.6,
        pitch=0.4,
    )


def homesteads(
    canvas: Canvas, where: BoolArray, spacing_m: float, rng: np.random.Generator
) -> None:
    """Scatter lone houses with a garden, a drive, a pool here and there, and trees around."""
    side = int(canvas.size_m / spacing_m)
    u, v = np.meshgrid(np.arange(side), np.arange(side))
    centers = (
        np.stack([u + 0.5, v + 0.5], axis=-1).reshape(-1, 2)
        + rng.uniform(-0.22, 0.22, (side * side, 2))
    ) * spacing_m
    centers = centers.astype(np.float32)
    centers = centers[canvas.free(centers[:, 0], centers[:, 1], where)]
    occupied = canvas.taken.copy()  # gardens end at the river bank and the roadside
    for x, y in centers:
        lawn = rough(
            [(x - 44, y - 38), (x + 44, y - 38), (x + 44, y + 38), (x - 44, y + 38)], 9, rng, 12
        )
        bend = (x + rng.uniform(-30, 30), y + 40)
        drive = [(x, y), bend, (bend[0] + rng.uniform(-40, 40), y + spacing_m * 0.55)]
        yard = [(x - 9, y + 4), (x + 9, y + 4), (x + 11, y + 17), (x - 7, y + 17)]
        for patch, color, take in (
            (canvas.polygons([lawn]), (0.37, 0.46, 0.27), False),
            (canvas.line(drive, 4), (0.64, 0.60, 0.52), True),
            (canvas.polygons([yard]), (0.62, 0.59, 0.53), True),
        ):
            patch.coverage[...] *= ~occupied[patch.window]
            canvas.paint(patch, color, take=take)
    count = len(centers)
    angles = rng.uniform(0, np.pi, count).astype(np.float32)
    pool = (centers + np.array([24, -19], np.float32))[rng.random(count) < 0.45]
    blue = np.tile(np.array([0.30, 0.62, 0.72], np.float32), (len(pool), 1))
    flat = np.zeros(len(pool), np.float32)
    canvas.boxes(
        pool, np.full((len(pool), 2), (18, 11), np.float32), flat, np.full_like(blue, 0.74), flat
    )
    canvas.boxes(pool, np.full((len(pool), 2), (13, 6.5), np.float32), flat, blue, flat)
    houses(canvas, centers, angles, (30, 18), 5.0, rng)
    houses(canvas, centers + np.array([-19, 9], np.float32), angles, (9, 7), 3.0, rng)
    ring = centers[rng.integers(0, count, 14 * count)] + rng.normal(0, 34, (14 * count, 2))
    trees(canvas, ring.astype(np.float32), rng, radius_m=3.8)
