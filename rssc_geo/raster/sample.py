"""A bounded, masked sample of a scene's pixels that depends on the raster alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rssc_geo.geometry import Window
from rssc_geo.raster.holes import HoleMap
from rssc_geo.raster.scene import Scene
from rssc_geo.raster.validity import PixelReader
from rssc_geo.raster.virtual import gdal_env, gdal_errors

_SAMPLE_PIXELS = 1 << 20
_SIDE = 256
_BLOCKS = 64
_ROUNDS = 4
_ENOUGH = 10_000


def sample_pixels(scene: Scene) -> np.ndarray:
    """Valid pixels (n, 3) of the scene in its own type, about a million at most.

    From the overview of about that size if there is one; the whole raster if it is that small; else
    from 64 windows of at most 256 × 256 pixels spread over the raster, in up to four rounds where
    they meet nodata only.
    """
    with gdal_errors(scene.source), gdal_env(scene.opening.dataset), scene.open() as handle:
        reader = scene.pixel_reader(handle)
        height, width = scene.shape
        for factor in (1, *scene.overviews):
            shape = (-(-height // factor), -(-width // factor))
            if shape[0] * shape[1] <= _SAMPLE_PIXELS:
                return _valid_pixels(reader, Window(0, 0, height, width), shape)
        chunks: list[np.ndarray] = []
        for number, window in enumerate(_spread(scene, HoleMap(scene, handle)), start=1):
            chunks.append(_valid_pixels(reader, window, (window.height, window.width)))
            if number % _BLOCKS == 0 and sum(len(chunk) for chunk in chunks) >= _ENOUGH:
                break
        return np.concatenate(chunks) if chunks else np.empty((0, 3), dtype=scene.dtype)


def _valid_pixels(reader: PixelReader, window: Window, shape: tuple[int, int]) -> np.ndarray:
    colors, valid = reader.read(window, shape)
    return colors.reshape(-1, 3) if valid is None else colors[valid]


def _spread(scene: Scene, holes: HoleMap) -> Iterator[Window]:
    """Windows at the corners of blocks, in an order that covers the raster evenly from the start.

    Where a sparse file tells which blocks it holds, only those are drawn from.
    """
    sides = [min(_SIDE, length) for length in scene.shape]
    # A strip as wide as the raster is cut; any other block larger than a window gives one window.
    steps = [
        side if block >= length else max(side, block)
        for side, block, length in zip(sides, scene.block_shape, scene.shape, strict=True)
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
        if holes.is_hole(window):
            continue
        yield window
        drawn += 1
        if drawn == _BLOCKS * _ROUNDS:
            return
