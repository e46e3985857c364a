"""Signals at random times, and the same command again: nothing is lost, nothing is left over.

    python benchmarks/signals.py [--signals 64] [--seed 0]

SIGINT, SIGTERM and SIGKILL in turn, over classify, batch, train, caption and zero-shot, with little
to do for each. Each command is run once undisturbed, in a folder of its own. Then, for each signal
in a new folder, it is stopped after a random share of the time that this took, and run again. What
is there in the end has to equal the undisturbed result, with nothing beside it; the second run ends
well, or says in one line that the result is there already. What SIGINT and SIGTERM stop ends with
130 and one line. Linux (/proc tells when a process is ready for signals).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from common import noise, verdict
from PIL import Image

PROGRAM = [sys.executable, "-m", "rssc_geo_cli.main"]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_ERROR = "rssc-geo: error: "
_THERE = ("exists", "holds a bundle already")
_TILES = ("--tile-size", "32px", "--device", "cpu", "-q")
_TRAINING = (
    "--schedule", "1x32,1x48", "--views", "1", "--fusion-epochs", "2", "--val", "0.25", "--test",
    "0.25", "--seed", "5", "--device", "cpu", "-q",
)  # fmt: skip


def commands(home: Path) -> dict[str, tuple[str, ...]]:
    """The command lines by name; each makes its result in the working folder."""
    scene = str(home / "scene.tif")
    return {
        "classify": ("classify", scene, "-o", "map.gpkg", "--preview", "map.png", *_TILES),
        "batch": ("batch", "run", str(home / "scenes"), "-o", "maps", *_TILES),
        "train": ("train", str(home / "pictures"), "-o", "trained", "--work", "work", *_TRAINING),
        "caption": ("caption", scene, "-o", "captions.jsonl", *_TILES),
        "zero-shot": ("zero-shot", scene, "-o", "map.gpkg", "--classes", "forest,water", *_TILES),
    }


def make_inputs(home: Path) -> None:
    (home / "scenes").mkdir()
    for number, name in enumerate(("scene.tif", "scenes/a.tif", "scenes/b.tif")):
        profile = {"driver": "GTiff", "height": 240, "width": 240, "count": 3, "dtype": "uint8"}
        place = {"crs": "EPSG:32632", "transform": Affine(8, 0, 500_000, 0, -8, 5_000_000)}
        with rasterio.open(home / name, "w", photometric="rgb", **profile, **place) as raster:
            raster.write(noise(240, 240, number))
    draw = np.random.default_rng(0)
    lines = []
    for name, level in {"Forest": 60, "Beach": 200}.items():
        (home / "pictures" / "images" / name).mkdir(parents=True)
        for index in range(8):
            pixels = draw.integers(level - 20, level + 20, (32, 32, 3)).astype(np.uint8)
            file = f"{name}/{index}.png"
            Image.fromarray(pixels).save(home / "pictures" / "images" / file)
            lines.append(json.dumps({"image": file, "captions": [f"this is a {name.lower()} ."]}))
    (home / "pictures" / "captions.jsonl").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its code, the lines of its errors, seconds since it was ready."""

    code: int
    told: list[str]
    seconds: float


def ready(process: subprocess.Popen[str]) -> bool:
    """Whether the program handles SIGTERM by now."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except FileNotFoundError:
        return False
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def run(words: tuple[str, ...], folder: Path, number: int = 0, after_s: float = 0.0) -> Outcome:
    """Run a command in a folder; with a signal's ``number`` stop it so long after it was ready."""
    with subprocess.Popen(
        [*PROGRAM, *words],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    ) as process:
        while process.poll() is None and not ready(process):
            time.sleep(0.01)
        started = time.monotonic()
        if number:
            time.sleep(after_s)
            process.send_signal(number)
        _, errors = process.communicate()
    return Outcome(process.returncode, errors.splitlines(), time.monotonic() - started)


def names(folder: Path) -> list[str]:
    """All files and folders in a folder; TensorBoard names its own by the time of day."""
    every = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted({re.sub(r"(events\.out\.tfevents)\..*", r"\1", name) for name in every})


def content(folder: Path) -> dict[str, object]:
    """What the results say, by their names, without times of day and the like."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".gpkg":
            for layer in ("landuse", "cells"):
                frame = gpd.read_file(path, layer=layer)
                values = frame.drop(columns="geometry").round(4).assign(g=frame.geometry.to_wkb())
                found[f"{name} {layer}"] = sorted(map(repr, values.itertuples(index=False)))
        elif path.suffix in (".jsonl", ".png", ".safetensors") and not name.startswith("work"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def faults(first: Outcome, number: int, second: Outcome, folder: Path, whole: Path) -> list[str]:
    """What is not as it has to be."""
    found = []
    errors = [line for line in first.told if line.startswith(_ERROR)]
    if number != signal.SIGKILL and first.code != 0 and (first.code != 130 or len(errors) != 1):
        found.append(f"stopped with {first.code}: {first.told[-3:]}")
    errors = [line for line in second.told if line.startswith(_ERROR)]
    there = len(errors) == 1 and any(words in errors[0] for words in _THERE)
    if second.code != 0 and not there:
        found.append(f"run again it ends with {second.code}: {second.told[-3:]}")
    if (mine := content(folder)) != (expected := content(whole)):
        differ = [name for name in {**mine, **expected} if mine.get(name) != expected.get(name)]
        found.append(f"other results: {', '.join(differ)}")
    if (mine_too := names(folder)) != (whole_too := names(whole)):
        found.append(f"other files: {sorted(set(mine_too) ^ set(whole_too))}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--signals", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    stopped: Counter[str] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="rssc-geo-signals-") as place:
        home = Path(place)
        make_inputs(home)
        whole: dict[str, tuple[Path, float]] = {}
        every = list(commands(home).items())
        for turn in range(arguments.signals):
            name, words = every[turn % len(every)]
            number = SIGNALS[turn // len(every) % len(SIGNALS)]
            if name not in whole:
                folder = home / f"whole_{name}"
                folder.mkdir()
                undisturbed = run(words, folder)
                assert undisturbed.code == 0, undisturbed
                whole[name] = (folder, undisturbed.seconds)
            folder = home / f"stopped_{turn}"
            folder.mkdir()
            after_s = draw.uniform(0, whole[name][1])
            first = run(words, folder, number, after_s)
            second = run(words, folder)
            stopped[name] += first.code != 0
            found = faults(first, number, second, folder, whole[name][0])
            wrong += bool(found)
            share = after_s / whole[name][1]
            print(
                f"{name}, {signal.Signals(number).name} after {share:.0%}: {first.code}, then"
                f" {second.code}: {'; '.join(found) or 'as undisturbed'}",
                flush=True,
            )
    print(f"stopped: {', '.join(f'{count} {name}' for name, count in stopped.items())}")
    return 0 if verdict("signals after which something was wrong", wrong, at_most=0) else 1


if __name__ == "__main__":
    sys.exit(main())
