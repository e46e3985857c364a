"""Accuracy and time of maps of real scenes with hand-drawn masks.

    python benchmarks/real_scenes.py ../shared [--model compact] [--pixel-size 5]
        [--options=--cell-size=40m …]

Each scene of dubai1m (1 m, four scenes drawn in full) and of korea10m (10 m, forest, field and
water drawn well) is classified through the command line by default settings, or by those given.
../shared/tools/score_scenes.py counts: for Dubai the balanced accuracy of water, vegetation, bare
and built blocks of 50 m, for Korea F1 by pixel. Of the same blocks and pixels the mean confidence
is printed, the share whose kind is right, and the difference of both in 20 bins of confidence, mean
weighted by their places. The scenes are for validation alone: nothing was trained on them. With
--pixel-size, scenes of smaller pixels are averaged to pixels of that size first, and scenes of
larger ones left out. Maps stay in the work folder, to be looked at.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine

SETS = {"dubai": "dubai1m", "korea": "korea10m"}
BINS = 20


def classify(scene: Path, target: Path, options: Sequence[str]) -> float:
    """Seconds that the command took."""
    started = time.monotonic()
    command = ["rssc-geo", "classify", str(scene), "-o", str(target), "--overwrite", "--quiet"]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def coarser(scene: Path, target: Path, pixel_m: float) -> Path:
    """The scene averaged to pixels of this size; as it is where its own have it."""
    with rasterio.open(scene) as source:
        rows, cols = (round(side * source.res[0] / pixel_m) for side in source.shape)
        if (rows, cols) == source.shape:
            return scene
        pixels = source.read(out_shape=(source.count, rows, cols), resampling=Resampling.average)
        scale = Affine.scale(source.width / cols, source.height / rows)
        profile = {"driver": "GTiff", "count": source.count, "dtype": pixels.dtype}
        profile |= {"crs": source.crs, "transform": source.transform @ scale}
        with rasterio.open(target, "w", height=rows, width=cols, **profile) as made:
            made.write(pixels)
    return target


def load_tool(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def reliability(tool: ModuleType, kind: str, pairs: Sequence[str]) -> tuple[float, float, float]:
    """Mean confidence, share whose kind is right, calibration error, of maps and their masks."""
    count = {"dubai": tool.score, "korea": tool.score_korea}[kind]
    places, right, told = np.zeros((3, BINS))
    for result, mask in zip(pairs[::2], pairs[1::2], strict=True):
        cells = tool.read_cells(result)
        bins = np.minimum((cells["confidence"] * BINS).astype(int), BINS - 1)
        for number, some in cells.groupby(bins):
            found = count(some, mask)[:, 1:]  # true kinds by those of the map, without "no cell"
            places[number] += found.sum()
            right[number] += np.trace(found)
            told[number] += found.sum() * some["confidence"].mean()
    error = np.abs(told - right).sum()
    return told.sum() / places.sum(), right.sum() / places.sum(), error / places.sum()


def pixel_size(scene: Path) -> float:
    with rasterio.open(scene) as source:
        return float(source.res[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path, help="folder of data and tools")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--pixel-size", type=float, help="meters; default: each scene's own")
    parser.add_argument(
        "--options", action="extend", nargs="*", default=[], help="more options of classify"
    )
    parser.add_argument("--work", type=Path, default=Path("work/real_scenes"))
    arguments = parser.parse_args()
    tool = load_tool(arguments.shared / "tools" / "score_scenes.py")
    for kind, folder in SETS.items():
        pairs: list[str] = []
        seconds = 0.0
        for mask in sorted((arguments.shared / "data" / folder).glob("*_mask.tif")):
            scene = mask.with_name(mask.name.replace("_mask", ""))
            target = arguments.work / folder / f"{scene.stem}.gpkg"
            target.parent.mkdir(parents=True, exist_ok=True)
            if arguments.pixel_size is not None:
                if pixel_size(scene) > arguments.pixel_size:
                    continue
                scene = coarser(scene, target.with_suffix(".tif"), arguments.pixel_size)
            seconds += classify(scene, target, ["--model", arguments.model, *arguments.options])
            pairs += [str(target), str(mask)]
        if not pairs:
            continue
        print(f"{folder}: {len(pairs) // 2} scenes in {seconds:.0f} s", flush=True)
        tool.main(kind, *pairs)
        confidence, right, error = reliability(tool, kind, pairs)
        print(f"confidence {confidence:.3f}, right {right:.3f}, calibration error {error:.3f}")


if __name__ == "__main__":
    main()
