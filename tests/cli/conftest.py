from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from rssc_geo_cli.main import run

NORTH_UP = Affine(2.0, 0, 500_000, 0, -2.0, 5_000_000)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The error's one line: the last of stderr.

        All of stderr is lines that start with a level.
        """
        lines = self.err.strip().splitlines()
        assert lines, "nothing on stderr"
        assert all(
            line.startswith(("warning: ", "info: ", "rssc-geo: error: ")) for line in lines
        ), self.err
        return lines[-1]


@pytest.fixture
def rssc(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command line in this process: exit code, stdout, stderr."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(code, captured.out, captured.err)

    return call


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


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """800 × 600 pixels of 2 m."""
    return write_raster(tmp_path / "scene.tif", texture(800, 600), photometric="rgb")
