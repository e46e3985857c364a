"""Accuracy and time of maps of real scenes with hand-drawn masks.

    python benchmarks/real_scenes.py ../shared [--model compact] [--pixel-size 5]
        [--options=--cell-size=40m …]

Each scene of dubai1m (1 m, four scenes drawn in full) and of korea10m (10 m, forest, field and
water drawn well) is classified through the command line by default settings, or by those given.
../shared/tools/score_scenes.py counts: for Dubai the balanced accuracy of water, vegetation, bare
and built blocks of 50 m, for Korea F1 by pixel. The scenes are for validation alone: nothing was
trained on them. With --pixel-size, scenes of smaller pixels are averaged to pixels of that size
first, and scenes of larger ones left out. Maps stay in the work folder, to be looked at.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine

SETS = {"dubai": "dubai1m", "korea": "korea10m"}


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


def pixel_size(scene: Path) -> float:
    with rasterio.open(scene) as source:
        return float(source.res[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path, help="folder of data and tools")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--pixel-size", type=float, help="metres; default: each scene's own")
    parser.add_argument(
        "--options", action="extend", nargs="*", default=[], help="more options of classify"
    )
    parser.add_argument("--work", type=Path, default=Path("work/real_scenes"))
    arguments = parser.parse_args()
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
        tool = arguments.shared / "tools" / "score_scenes.py"
        print(f"{folder}: {len(pairs) // 2} scenes in {seconds:.0f} s", flush=True)
        subprocess.run([sys.executable, str(tool), kind, *pairs], check=True)


if __name__ == "__main__":
    main()
