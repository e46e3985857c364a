"""Farmland: a mosaic of parcels with crops in rows, tracks, hedges and farms."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from demo_scene.canvas import BoolArray, Canvas, patch_of, smooth_noise
from demo_scene.nature import trees
from demo_scene.shapes import Frame

Rectangle = tuple[float, float, float, float]  # u, v, length, width in a frame

# Color, contrast of the rows: maize, wheat, stubble, straw, ploughed, clover, young crop, fallow,
# vegetables.
_CROPS = np.array(
    [
        [0.30, 0.37, 0.23, 0.044],
        [0.56, 0.50, 0.36, 0.028],
        [0.62, 0.56, 0.42, 0.039],
        [0.66, 0.60, 0.45, 0.028],
        [0.44, 0.36, 0.28, 0.050],
        [0.36, 0.44, 0.27, 0.017],
        [0.44, 0.47, 0.33, 0.050],
        [0.50, 0.48, 0.36, 0.022],
        [0.34, 0.40, 0.27, 0.061],
    ],
    np.float32,
)


def farmland(
    canvas: Canvas,
    where: BoolArray,
    frame: Frame,
    rng: np.random.Generator,
    *,
    parcel_m: float = 120.0,
) -> None:
    """Divide an area among parcels of about ``parcel_m`` along the axes of a frame and sow them."""
    patch = patch_of(where)
    window = patch.window
    parcels = split(frame.extent(*canvas.box(window)), parcel_m, rng)
    image = Image.new("I", (window[1].stop - window[1].start, window[0].stop - window[0].start))
    pen = ImageDraw.Draw(image)
    for number, (u, v, length, width) in enumerate(parcels, 1):
        corners = frame.rectangle((u + 1.8, u + length - 1.8), (v + 1.8, v + width - 1.8))
        dots = [
            (x / canvas.gsd_m - window[1].start, y / canvas.gsd_m - window[0].start)
            for x, y in corners
        ]
        pen.polygon(dots, fill=number)
    number_at = np.asarray(image)

    count = len(parcels) + 1
    crop = _CROPS[rng.integers(0, len(_CROPS), count)]
    tone = (crop[:, :3] * rng.normal(1, 0.07, (count, 1)) * rng.normal(1, 0.02, (count, 3))).astype(
        np.float32
    )
    tone[0] = 0.47, 0.47, 0.34  # the tracks between
    sizes = np.array([(0, 1, 1, 1), *parcels], np.float32)
    turned = frame.angle + np.where(
        sizes[:, 2] >= sizes[:, 3], 0, np.pi / 2
    )  # rows run along the longer side
    period = rng.uniform(4.0, 8.0, count)
    wave_x, wave_y = -np.sin(turned) * 2 * np.pi / period, np.cos(turned) * 2 * np.pi / period
    contrast = np.where(np.arange(count) > 0, crop[:, 3], 0)

    x, y = canvas.centers(window)
    phase = wave_x.astype(np.float32)[number_at] * x + wave_y.astype(np.float32)[number_at] * y
    soil = smooth_noise(canvas, 90, rng, 4, window)
    shade = 1 + contrast.astype(np.float32)[number_at] * np.sin(phase) + 0.05 * soil
    canvas.paint(patch, shade[..., None] * tone[number_at], take=False)
    _hedges(canvas, where, frame, parcels, rng)


def split(whole: Rectangle, side_m: float, rng: np.random.Generator) -> list[Rectangle]:
    """Divide a rectangle at random until its parts measure about ``side_m`` × 2 ``side_m``."""
    u, v, length, width = whole
    if length * width < 3.2 * side_m**2 * rng.uniform(0.6, 1.5):
        return [whole]
    share = rng.uniform(0.38, 0.62)
    if length > width * rng.uniform(0.7, 1.3):
        first, second = (
            (u, v, length * share, width),
            (
                u + length * share,
                v,
                length * (1 - share),
                width,
            ),
        )
    else:
        first, second = (
            (u, v, length, width * share),
            (
                u,
                v + width * share,
                length,
                width * (1 - share),
            ),
        )
    return split(first, side_m, rng) + split(second, side_m, rng)


def _hedges(
    canvas: Canvas,
    where: BoolArray,
    frame: Frame,
    parcels: list[Rectangle],
    rng: np.random.Generator,
) -> None:
    """Plant a line of bushes along one side of every ninth parcel."""
    spots = [np.empty((0, 2))]
    for u, v, length, _ in parcels:
        if rng.random() < 0.11:
            at = np.arange(0, length, 5.5, dtype=np.float32)
            spots.append(
                np.stack(frame.world(u + at, np.full_like(at, v)), axis=1)
                + rng.normal(0, 1.0, (len(at), 2))
            )
    points = np.concatenate(spots).astype(np.float32)
    trees(canvas, points[canvas.free(points[:, 0], points[:, 1], where)], rng, radius_m=2.8)
