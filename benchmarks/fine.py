"""Fine maps: what they cost, how right they are, and whether their memory is flat.

    python benchmarks/fine.py ../shared [--parts world time windows memory]

Without captions, start-up taken off, on as many processors as are free. The parts:

world: a world of known truth (``synthetic_world.py``): share of area that is wrong and mean
    distance of boundaries, of the default map, of one without smoothing,
    and of one with cell = tile of 400 m; and how far water's boundary lies from that of the masks
    of dubai1m and korea10m.
time: of maps of a picture of noise, against L, the image encoder alone over the scene's pixels as
    the network sees them, without overlap or head; against windows of the same cells one by one
    (some of them, the rest counted up); the default map against one with cell = tile of 400 m; a
    map with cells of a twelfth of a tile against its own L, for which there is no target.
windows: probabilities of windows read from shared features against the same windows cut out with
    their context; and how often the class is that of the window alone, without context, by the
    window's size, on real scenes.
memory: the peak of maps of 10,000 and 1,000,000 cells of a flat raster, in processes of their own
    (POSIX); the network looks at the first block, the others get its first cell's answer.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import geopandas as gpd
import numpy as np
import rasterio
import torch
from common import NORTH_UP, dense_scene, own_peak_mb, verdict
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_edt
from synthetic_world import World, edges, make_world, score

from rssc_geo import ClassifyOptions, TilingOptions, classify, load_model
from rssc_geo.geometry import BlockGrid, TileGrid
from rssc_geo.inference import Plan, Prediction, Predictor, block_grid, make_plan
from rssc_geo.raster import TileData, TileReader

COARSE = {"tile_size": "400m", "cell_size": "400m"}
TWELFTH = {"cell_size": "13m"}
MAPS = {
    "default": {},
    "without smoothing": {"smooth": False},
    "cell = tile of 400 m": COARSE,
}
SEEDS = (1, 2)
WINDOWS_M = (100, 160, 320, 640)
SCENES = ("dubai1m/dubai3.tif", "dubai1m/dubai5.tif", "rasters/rd_netherlands_25cm.tif")
CELLS = (10_000, 1_000_000)
GROUND = np.array([60, 90, 50], np.uint8)
"""Of the flat raster: a gray one would be ``Unknown`` as a whole."""


def mapped(scene: Path, target: Path, model: Predictor, **options: object) -> float:
    """Seconds of a map."""
    started = time.perf_counter()
    classify(scene, target, ClassifyOptions(overwrite=True, **options), model=model)
    return time.perf_counter() - started


# world


def world(options: argparse.Namespace, model: Predictor) -> bool:
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in MAPS}
    print("| world | map | wrong | boundaries, m |\n|---|---|---|---|")
    for seed in SEEDS:
        made: World = make_world(
            options.shared / "data", options.work, side=options.side, seed=seed
        )
        for name, more in MAPS.items():
            target = options.work / f"{made.path.stem}-{name.replace(' ', '-')}.gpkg"
            mapped(made.path, target, model, **more)
            found = score(made, target)
            figures[name].append((found.wrong, found.boundary_m))
            print(f"| {seed} | {name} | {found.wrong:.3f} | {found.boundary_m:.1f} |", flush=True)
    means = {name: np.mean(values, axis=0) for name, values in figures.items()}
    for name, (wrong, boundary) in means.items():
        print(f"| mean | {name} | {wrong:.3f} | {boundary:.1f} |")
    coarse = means["cell = tile of 400 m"]
    met = [
        verdict(f"{what}, default / cell = tile of 400 m", own, at_most=2 / 3)
        for what, own in zip(("wrong", "boundaries"), means["default"] / coarse, strict=True)
    ]
    water(options, model)
    return all(met)


def water(options: argparse.Namespace, model: Predictor) -> None:
    """Mean distance of the mask's water boundaries to the map's, where both have some."""
    sys.path.insert(0, str(options.shared / "tools"))
    from score_scenes import kind_of

    print("| scenes | map | scenes with water | water's boundary from the mask's, m |")
    print("|---|---|---|---|")
    for folder in ("dubai1m", "korea10m"):
        for name, more in MAPS.items():
            distances = []
            for mask in sorted((options.shared / "data" / folder).glob("*_mask.tif")):
                scene = mask.with_name(mask.name.replace("_mask", ""))
                target = options.work / f"{scene.stem}-{name.replace(' ', '-')}.gpkg"
                mapped(scene, target, model, **more)
                distances.append(_water_distance(mask, scene, target, kind_of))
            known = [distance for distance in distances if np.isfinite(distance)]
            mean = f"{np.mean(known):.1f}" if known else "-"
            print(f"| {folder} | {name} | {len(known)} | {mean} |", flush=True)


def _water_distance(mask: Path, scene: Path, target: Path, kind: Callable[[str], str]) -> float:
    with rasterio.open(mask) as raster, rasterio.open(scene) as picture:
        drawn, colors = raster.read(1), picture.read([1, 2, 3]).astype(int)
        side, transform = raster.transform.a, raster.transform
    truth = drawn == 1 if "dubai" in scene.name else (drawn == 100) & (colors[2] - colors[0] > 40)
    landuse = gpd.read_file(target, layer="landuse")
    ours = landuse.geometry[landuse["class"].map(kind) == "water"]
    if not truth.any() or ours.empty:
        return np.inf
    said = rasterize(ours, truth.shape, transform=transform).astype(bool)
    own, other = (edges(shape) for shape in (truth, said))
    return float(distance_transform_edt(~other)[own].mean() * side) if other.any() else np.inf


# time


def timing(options: argparse.Namespace, model: Predictor) -> bool:
    scene, target = dense_scene(options.noise), options.work / "noise.gpkg"
    plan = make_plan(scene, model.card, TilingOptions())
    finer = make_plan(scene, model.card, TilingOptions(**TWELFTH))
    seconds: dict[str, list[float]] = {}

    def take(name: str, value: float) -> None:
        seconds.setdefault(name, []).append(value)

    encoder_seconds(plan, model)  # the first look of all costs more
    for _ in range(options.repeats):
        take("L: the encoder alone", encoder_seconds(plan, model))
        take("default map", mapped(scene, target, model))
        take("L of tiles of 156 m", encoder_seconds(finer, model))
        take("cells of a twelfth of a tile", mapped(scene, target, model, **TWELFTH))
        take("without smoothing", mapped(scene, target, model, smooth=False))
        take("cell = tile of 400 m", mapped(scene, target, model, **COARSE))
        take("windows one by one", window_seconds(plan, model))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        each = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name}: {medians[name]:.1f} s (each repeat: {each})")
    times = medians["cells of a twelfth of a tile"] / medians["L of tiles of 156 m"]
    print(f"cells of a twelfth of a tile / their L: {times:.3g}")
    fine = medians["default map"]
    naive, coarse = medians["windows one by one"], medians["cell = tile of 400 m"]
    met = [
        verdict("default map / L", fine / medians["L: the encoder alone"], at_most=4),
        verdict("windows one by one / default map", naive / fine, at_least=8),
        verdict("default map / cell = tile of 400 m", fine / coarse, at_most=12),
    ]
    return all(met)


def encoder_seconds(plan: Plan, model: Predictor) -> float:
    """The encoder over the scene's pixels once: blocks without halo, reading not counted."""
    assert plan.blocks is not None
    bare = BlockGrid(
        plan.scene.shape,
        plan.blocks.cell_size,
        cell_pixels=plan.blocks.cell_pixels,
        side=plan.blocks.side,
        halo=0,
    )
    seconds = 0.0
    with TileReader(plan.scene, bare, plan.radiometry, out_size=(1, 1)) as blocks:
        for block in blocks:
            images = model.model.preprocess(block.pixels[None], block.mask[None])
            started = time.perf_counter()
            with torch.inference_mode():
                model.model.encode_block(images)
            seconds += time.perf_counter() - started
    return seconds


def window_seconds(plan: Plan, model: Predictor, sample: int = 128) -> float:
    """Of a tile for each cell, looked at one by one in batches: counted up from a sample."""
    cells = TileGrid(plan.scene.shape, plan.grid.size, plan.grid.cell_size)
    rows, cols = cells.tiles_shape
    started = time.perf_counter()
    with TileReader(
        plan.scene, cells, plan.radiometry, out_size=model.card.input_size, tiles=range(sample)
    ) as tiles:
        read = list(tiles)
    for start in range(0, sample, model.batch_size):
        part = read[start : start + model.batch_size]
        model(np.stack([tile.pixels for tile in part]), np.stack([tile.mask for tile in part]))
    return (time.perf_counter() - started) / sample * rows * cols


# windows


def windows(options: argparse.Namespace, model: Predictor) -> bool:
    print("| scene | window, m | windows | class as alone | largest difference when cut out |")
    print("|---|---|---|---|---|")
    agreed, largest = [], 0.0
    for name in SCENES:
        for side in WINDOWS_M:
            scene = options.shared / "data" / name
            plan = make_plan(
                scene, model.card, TilingOptions(tile_size=f"{side}m", cell_size=f"{side}m")
            )
            if min(plan.grid.cells_shape) < 4 or plan.tiling.warnings:
                continue
            same, difference = _agreement(plan, model)
            agreed.append(same)
            largest = max(largest, difference)
            print(
                f"| {name} | {side} | {len(same)} | {same.mean():.3f} | {difference:.1e} |",
                flush=True,
            )
    met = [
        verdict("class as of the window alone", np.concatenate(agreed).mean(), at_least=0.9),
        verdict("difference from windows with their context", largest, at_most=1e-5),
    ]
    return all(met)


def _agreement(plan: Plan, model: Predictor) -> tuple[np.ndarray, float]:
    """Whether the class of each whole tile is the same in context and alone.

    And the largest difference of its probabilities between blocks of other sizes: where a block of
    one cell and its halo is all that is read, the window is cut out with its context.
    """
    shape, size = plan.scene.shape, plan.grid.size
    large = block_grid(model.card, shape, size, 1)
    small = replace(large, side=1)
    found = {}
    for name, grid in (("large", large), ("small", small)):
        classes = np.zeros((*grid.cells_shape, len(model.card.classes)), np.float32)
        with TileReader(plan.scene, grid, plan.radiometry, out_size=(1, 1)) as blocks:
            for block in blocks:
                rows, cols = grid.cells_of_tile(block.tile)
                seen = model.classify_block(block, grid).probabilities
                classes[rows.start : rows.stop, cols.start : cols.stop] = seen.reshape(
                    len(rows), len(cols), -1
                )
        found[name] = classes
    alone = np.zeros(large.cells_shape, int)
    whole = np.zeros(large.cells_shape, bool)
    with plan.reader(range(alone.size), out_size=model.card.input_size) as tiles:
        for tile in tiles:
            place = tile.tile.row, tile.tile.col
            whole[place] = tile.mask.all() and tile.tile.window.row == place[0] * size[0]
            whole[place] &= tile.tile.window.col == place[1] * size[1]
            alone[place] = model(tile.pixels[None], tile.mask[None]).probabilities.argmax()
    same = found["large"].argmax(-1) == alone
    return same[whole], float(np.abs(found["large"] - found["small"]).max())


# memory


def memory(options: argparse.Namespace, _model: Predictor) -> bool:
    peaks = []
    for cells in CELLS:
        command = [sys.executable, __file__, str(options.shared), "--child", str(cells)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        peak, writing = map(float, told.split()[-2:])
        peaks.append(peak)
        print(f"{cells:,} cells: peak {peak:.0f} MB, {writing:.0f} s from the last block on")
    flat = verdict("peak memory, 10⁶ / 10⁴ cells", peaks[1] / peaks[0], at_most=1.15)
    return flat and verdict("seconds to write 10⁶ cells", writing, at_most=90)


def child(cells: int) -> None:
    """Map a flat raster of so many cells; print the peak in MB and the seconds after its blocks."""
    side = round(cells**0.5)
    model = load_model("compact", captioner="none", device="cpu")
    look = model.classify_block
    answer: list[Prediction] = []
    last = 0.0

    def once(block: TileData, grid: BlockGrid, **_more: object) -> Prediction:
        nonlocal last
        if not answer:
            answer.append(look(block, grid))
        rows, cols = (len(axis) for axis in grid.cells_of_tile(block.tile))
        first, count = answer[0], rows * cols
        last = time.perf_counter()
        return Prediction(
            np.repeat(first.probabilities[:1], count, 0),
            [""] * count,
            np.repeat(first.familiarity[:1], count),
        )

    model.classify_block = once  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flat.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8",
            crs="EPSG:32632", transform=NORTH_UP @ NORTH_UP.scale(27), compress="deflate",
            tiled=True, photometric="rgb",
        ) as raster:  # fmt: skip
            raster.write(np.tile(GROUND[:, None, None], (1, side, side)))
        mapped(path, Path(folder) / "map.gpkg", model, tile_size="6px", cell_size="1px")
        seconds = time.perf_counter() - last
    print(own_peak_mb(), seconds)


PARTS = {"world": world, "time": timing, "windows": windows, "memory": memory}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path, help="folder of data and tools")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--work", type=Path, default=Path("work/fine"))
    parser.add_argument("--side", type=int, default=3600, help="meters, of a world")
    parser.add_argument("--noise", type=int, default=2048, help="meters, of the picture of noise")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.getLogger("rssc_geo").setLevel(logging.ERROR)
    if options.child:
        child(options.child)
        return 0
    options.work.mkdir(parents=True, exist_ok=True)
    model = load_model("compact", captioner="none", device="cpu")
    print(f"{torch.get_num_threads()} threads")
    met = [PARTS[name](options, model) for name in options.parts]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
