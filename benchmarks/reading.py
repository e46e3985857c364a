"""Tiles/s of the reader against bare threads (the limit) and TorchGeo.

    python benchmarks/reading.py [--repeats 3] [--rows 80]

All read the same windows of 256 px of a 20,480 × 20,480 RGB deflate GeoTIFF, row by row. Bare: two
threads, a half of the rows each, that read windows with rasterio and do nothing else. Reader:
`TileReader` with two threads, its masks (nodata), scaling and order included. The same again for
windows of 512 px averaged to 256 while they are read. TorchGeo: `GridGeoSampler` and `DataLoader`
(batches of 32) with 0 and 2 workers, without masks, since it has none. The methods take turns after
a round of warming up; the figures are medians. TorchGeo is not needed by rssc-geo: `pip install
torchgeo`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from common import CACHE, NORTH_UP, verdict
from rasterio.enums import Resampling
from rasterio.windows import Window

from rssc_geo.geometry import TileGrid
from rssc_geo.raster import TileReader, fit_radiometry, open_scene

SIDE, BLOCK, OUT = 20_480, 512, 256


def big_scene() -> Path:
    """The raster, made once: smooth ground with fine grain and a slanted nodata edge."""
    path = CACHE / f"reading_{SIDE}.tif"
    if path.exists():
        return path
    print(f"making {path} …", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.tif")
    textures = [_texture(seed) for seed in range(16)]
    layout = {
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "photometric": "rgb",
        "num_threads": "all_cpus",
    }
    with rasterio.open(
        part,
        "w",
        driver="GTiff",
        height=SIDE,
        width=SIDE,
        count=3,
        dtype="uint8",
        crs="EPSG:32632",
        transform=NORTH_UP,
        nodata=0,
        **layout,
    ) as dataset:
        for number in range((SIDE // BLOCK) ** 2):
            row, col = (place * BLOCK for place in divmod(number, SIDE // BLOCK))
            pixels = np.rot90(textures[number * 7 % 16], number % 4, axes=(1, 2)).copy()
            outside = (
                np.arange(col, col + BLOCK)[None, :] < np.arange(row, row + BLOCK)[:, None] // 20
            )
            pixels[:, outside] = 0
            dataset.write(pixels, window=Window(col, row, BLOCK, BLOCK))
    os.replace(part, path)
    return path


def _texture(seed: int) -> np.ndarray:
    """Land as it looks from above.

    Patches of tens of pixels, blurred, with grain of a few gray values.
    """
    random = np.random.default_rng(seed)
    ground = np.zeros((3, BLOCK, BLOCK))
    for cell, strength in ((64, 40), (16, 15), (4, 6)):
        coarse = random.normal(0, strength, (3, BLOCK // cell + 1, BLOCK // cell + 1))
        place = np.arange(BLOCK) / cell
        low, share = place.astype(int), place % 1
        rows = coarse[:, low] * (1 - share)[:, None] + coarse[:, low + 1] * share[:, None]
        ground += rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share
    return (ground + random.integers(-2, 3, ground.shape) + 120).clip(1, 255).astype(np.uint8)


def bare(path: Path, size: int, rows: int) -> float:
    """Two threads that read windows and do nothing else."""
    across = SIDE // size

    def work(first: int, last: int) -> None:
        shape = (
            {} if size == OUT else {"out_shape": (3, OUT, OUT), "resampling": Resampling.average}
        )
        with rasterio.open(path) as dataset:
            for row in range(first, last):
                for col in range(across):
                    dataset.read(
                        [1, 2, 3], window=Window(col * size, row * size, size, size), **shape
                    )

    threads = [
        threading.Thread(target=work, args=ends) for ends in ((0, rows // 2), (rows // 2, rows))
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rows * across / (time.perf_counter() - started)


def reader(path: Path, size: int, rows: int) -> float:
    """The reader with two threads; the time includes opening the scene."""
    started = time.perf_counter()
    scene = open_scene(path)
    grid = TileGrid(scene.shape, (size, size))
    count = rows * grid.tiles_shape[1]
    valid = 0.0
    with TileReader(
        scene, grid, fit_radiometry(scene), out_size=(OUT, OUT), tiles=range(count), threads=2
    ) as tiles:
        for data in tiles:
            valid += data.valid_fraction
    assert 0.9 < valid / count < 1
    return count / (time.perf_counter() - started)


def torchgeo(path: Path, workers: int, rows: int) -> float:
    """TorchGeo's sampler and PyTorch's loader; the time includes starting the workers."""
    from shapely import box
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    dataset = RasterDataset([str(path)])
    top = NORTH_UP.f
    area = box(NORTH_UP.c, top - rows * OUT, NORTH_UP.c + SIDE, top)
    loader = DataLoader(
        dataset,
        sampler=GridGeoSampler(dataset, size=OUT, roi=area),
        batch_size=32,
        num_workers=workers,
        collate_fn=stack_samples,
    )
    started = time.perf_counter()
    count = sum(len(batch["image"]) for batch in loader)
    seconds = time.perf_counter() - started
    assert abs(count - rows * SIDE // OUT) <= SIDE // OUT, count
    return count / seconds


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="interleaved repeats after the warm-up"
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=SIDE // OUT,
        help="rows of 256 px tiles to read (an even number)",
    )
    options = parser.parse_args()
    path, rows = big_scene(), options.rows
    methods: dict[str, Callable[[int], float]] = {
        "bare threads, 256 px": lambda n: bare(path, 256, n),
        "TileReader, 256 px": lambda n: reader(path, 256, n),
        "bare threads, 512 px to 256": lambda n: bare(path, 512, n // 2),
        "TileReader, 512 px to 256": lambda n: reader(path, 512, n // 2),
    }
    if importlib.util.find_spec("torchgeo"):
        warnings.filterwarnings("ignore")
        methods["TorchGeo, 256 px, 0 workers"] = lambda n: torchgeo(path, 0, n)
        methods["TorchGeo, 256 px, 2 workers"] = lambda n: torchgeo(path, 2, n)
    else:
        print("TorchGeo is not installed and left out: pip install torchgeo")
    for method in methods.values():
        method(max(4, rows // 10 * 2))
    rates: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(options.repeats):
        for name, method in methods.items():
            rates[name].append(method(rows))
    median = {name: statistics.median(values) for name, values in rates.items()}
    width = max(map(len, methods))
    for name, values in rates.items():
        print(
            f"{name:<{width}}  {median[name]:7.0f} tiles/s  "
            f" ({', '.join(f'{value:.0f}' for value in values)})"
        )
    met = [
        verdict(
            "reader / bare threads",
            median["TileReader, 256 px"] / median["bare threads, 256 px"],
            at_least=0.85,
        ),
        verdict(
            "reader / bare threads, reduced",
            median["TileReader, 512 px to 256"] / median["bare threads, 512 px to 256"],
            at_least=0.85,
        ),
    ]
    if "TorchGeo, 256 px, 2 workers" in median:
        met.append(
            verdict(
                "reader / TorchGeo with 2 workers",
                median["TileReader, 256 px"] / median["TorchGeo, 256 px, 2 workers"],
                at_least=2.5,
            )
        )
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
