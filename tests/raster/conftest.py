from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.factories import write_raster

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a GeoTIFF of pixels (bands, rows, cols).

    UTM 32N at 2 m unless said otherwise.
    """

    def make(pixels: np.ndarray, name: str = "scene.tif", **profile: object) -> Path:
        return write_raster(tmp_path / name, pixels, **profile)

    return make


@pytest.fixture
def texture() -> Callable[..., np.ndarray]:
    """A function that makes smooth colored noise (bands, rows, cols) without 0."""

    def make(
        height: int, width: int, *, bands: int = 3, dtype: str = "uint8", seed: int = 0
    ) -> np.ndarray:
        random = np.random.default_rng(seed)
        coarse = (
            random.integers(20, 235, (bands, -(-height // 8), -(-width // 8)))
            .repeat(8, 1)
            .repeat(8, 2)[:, :height, :width]
        )
        return (
            (coarse + random.integers(-15, 15, (bands, height, width))).clip(1, 255).astype(dtype)
        )

    return make
