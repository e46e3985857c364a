"""What tests are made of: rasters of noise, and what is read of them. No test itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from rssc_geo.geometry import Window
from rssc_geo.raster import Scene

NORTH_UP = Affine(2.0, 0, 500_000, 0, -2.0, 5_000_000)


def write_raster(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    """A GeoTIFF of ``pixels`` (bands, rows, cols); UTM 32N at 2 m unless said otherwise."""
    count, height, width = pixels.shape
    settings = {"crs": "EPSG:32632", "transform": NORTH_UP, **profile}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=pixels.dtype,
        **settings,
    ) as dataset:
        dataset.write(pixels)
    return path


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colored noise, uint8 (3, height, width), never 0."""
    random = np.random.default_rng(seed)
    coarse = random.integers(20, 235, (3, -(-height // 16), -(-width // 16)))
    fine = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width] + random.integers(
        -15, 15, (3, height, width)
    )
    return fine.clip(1, 255).astype(np.uint8)


def colors(scene: Scene) -> np.ndarray:
    """The bands taken as red, green, blue (bands, rows, cols), as they are stored."""
    with scene.open() as handle:
        return handle.read(scene.opening.indexes)


def mask(scene: Scene) -> np.ndarray:
    """Bool (rows, cols), the valid pixels at full resolution."""
    with scene.pixel_reader() as reader:
        return reader.valid_at_full_resolution(Window(0, 0, *scene.shape))
