"""Accuracy and time of maps of real scenes with hand-drawn masks.

    python benchmarks/real_scenes.py ../shared [--model compact] [--options=--cell-size=40m …]

Each scene of dubai1m (1 m, four scenes drawn in full) and of korea10m (10 m, forest, field and
water drawn well) is classified through the command line by default settings, or by those given.
../shared/tools/score_scenes.py counts: for Dubai the balanced accuracy of water, vegetation, bare
and built blocks of 50 m, for Korea F1 by pixel. The scenes are for validation alone: nothing was
trained on them. Maps stay in the work folder, to be looked at.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SETS = {"dubai": "dubai1m", "korea": "korea10m"}


def classify(scene: Path, target: Path, options: Sequence[str]) -> float:
    """Seconds that the command took."""
    started = time.monotonic()
    command = ["rssc-geo", "classify", str(scene), "-o", str(target), "--overwrite", "--quiet"]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path, help="folder of data and tools")
    parser.add_argument("--model", default="compact")
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
            seconds += classify(scene, target, ["--model", arguments.model, *arguments.options])
            pairs += [str(target), str(mask)]
        tool = arguments.shared / "tools" / "score_scenes.py"
        print(f"{folder}: {len(pairs) // 2} scenes in {seconds:.0f} s", flush=True)
        subprocess.run([sys.executable, str(tool), kind, *pairs], check=True)


if __name__ == "__main__":
    main()
