"""Rasters, statistics and measurements that the benchmarks share."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

DATA_SETS = ("aid150", "ucm256", "nwpu160", "eurosat64")
"""Folders of the training pictures of the embedded model."""
CACHE = Path(tempfile.gettempdir()) / "rssc-geo-benchmarks"
_MEASURED = """
import json, os, subprocess, sys, time
started = time.monotonic()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
seconds = time.monotonic() - started
processor = usage.ru_utime + usage.ru_stime
print(json.dumps([seconds, processor, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)]))
"""
NORTH_UP = Affine(1.0, 0, 500_000, 0, -1.0, 5_000_000)


def noise(rows: int, cols: int, seed: int) -> np.ndarray:
    """Patchy noise that compresses about as imagery does: uint8 (3, rows, cols), never 0."""
    random = np.random.default_rng(seed)
    patches = (
        random.integers(30, 220, (3, -(-rows // 32), -(-cols // 32)))
        .repeat(32, 1)
        .repeat(32, 2)[:, :rows, :cols]
    )
    return (patches + random.integers(-12, 13, (3, rows, cols))).clip(1, 255).astype(np.uint8)


def dense_scene(side: int) -> Path:
    """A tiled deflate RGB GeoTIFF of ``side`` × ``side`` pixels, made once."""
    path = CACHE / f"dense_{side}.tif"
    if not path.exists():
        _write(
            path,
            side,
            [(row, col) for row in range(0, side, 512) for col in range(0, side, 512)],
            nodata=None,
        )
    return path


def sparse_scene(side: int, blocks: int) -> Path:
    """A sparse RGB GeoTIFF, made once: nodata 0, and ``blocks`` scattered blocks of 512 × 512."""
    path = CACHE / f"sparse_{side}_{blocks}.tif"
    if not path.exists():
        chosen = np.random.default_rng(0).choice((side // 512) ** 2, size=blocks, replace=False)
        _write(
            path,
            side,
            [(int(i) // (side // 512) * 512, int(i) % (side // 512) * 512) for i in chosen],
            nodata=0,
        )
    return path


def _write(path: Path, side: int, corners: list[tuple[int, int]], *, nodata: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.tif")
    profile = {
        "driver": "GTiff",
        "height": side,
        "width": side,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32632",
        "transform": NORTH_UP,
    }
    layout = {
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "photometric": "rgb",
        "SPARSE_OK": "TRUE",
    }
    with rasterio.open(
        part, "w", nodata=nodata, BIGTIFF="IF_SAFER", **profile, **layout
    ) as dataset:
        for seed, (row, col) in enumerate(sorted(corners)):
            height, width = min(512, side - row), min(512, side - col)
            dataset.write(noise(height, width, seed), window=Window(col, row, width, height))
    os.replace(part, path)


def write_rgb(path: Path, bands: np.ndarray, resolution: float) -> Path:
    """A GeoTIFF of three bands (3, H, W) with square pixels of so many meters."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=bands.shape[1],
        width=bands.shape[2],
        count=3,
        dtype=bands.dtype,
        crs="EPSG:32632",
        transform=Affine(resolution, 0, 5e5, 0, -resolution, 5e6),
        photometric="rgb",
    ) as file:
        file.write(bands)
    return path


@dataclass(frozen=True)
class Measured:
    """A run of the command line: seconds on the clock and on the processor, MB, exit code."""

    seconds: float
    processor_s: float
    memory_mb: float
    code: int
    errors: str


def measured(*arguments: object) -> Measured:
    """Run the command line with some arguments, and measure it (POSIX).

    A small process of its own starts it: what the system counts as the peak of a program includes
    the memory of the one that started it.
    """
    program = [sys.executable, "-m", "rssc_geo_cli.main", *map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *program], capture_output=True, text=True, check=True
    )
    return Measured(*json.loads(done.stdout), errors=done.stderr)


def own_peak_mb() -> float:
    """Peak memory of this process since its program began (Linux), without that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def rate_options(doc: str | None) -> argparse.Namespace:
    """The command line of a benchmark of tiles a second, of one scene, again and again."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--tile", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def median_rates(rates: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Print the rates of interleaved repeats, tiles a second, and return their medians."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(
            f"{name}: {medians[name]:.1f} tiles/s (each repeat:"
            f" {', '.join(f'{v:.1f}' for v in values)})"
        )
    return medians


def verdict(
    name: str, value: float, *, at_least: float | None = None, at_most: float | None = None
) -> bool:
    """Print a figure beside its target; whether it is met."""
    met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    target = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
    print(f"{name}: {value:.3g} (target {target}) {'met' if met else 'MISSED'}")
    return met
