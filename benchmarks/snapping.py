"""What ``--snap`` does to outlines: how right they are, and how near to what the picture shows.

    python benchmarks/snapping.py ../shared [--parts world masks infrared]

Each scene is mapped twice, with and without. The parts:

world: synthetic worlds (``synthetic_world.py``): share of area that is wrong, and distance between
    true boundaries and the map's, both ways: mean and median. The mean also counts whole regions
    that a map lacks or makes up, which no outline mends.
masks: dubai1m and korea10m: how right each pixel is (recall of each kind, where the mask knows),
    and the distance in pixels of the mask's water boundary to the map's.
infrared: NAIP-VA, whose near infrared shows a pond: the distance in pixels of its outline to the
    map's, but for where the map misses more than half a cell of water, which is counted apart. Of
    ``m_3607717…`` the near infrared shows no water, only shadow.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy.ndimage import binary_dilation, binary_opening, distance_transform_edt, label
from synthetic_world import make_world, score

from rssc_geo import ClassifyOptions, Predictor, classify, load_model

MAPS = {"default": {}, "snapped": {"snap": True}}
SEEDS = (1, 2)
INFRARED = "NAIP-VA-b{}.tiff"
DARK = 100
"""Near infrared of water lies below, of all else in that raster above, but for shadows."""
LEAST_POND = 500
"""Pixels; smaller dark spots are shadows."""


@dataclass(frozen=True)
class Task:
    """What a part needs: folders and the model."""

    data: Path
    work: Path
    side: int
    model: Predictor

    def map(self, source: Path | Sequence[Path], name: str, kind: str) -> tuple[Path, float]:
        """The map of a scene, and the seconds that it took."""
        target = self.work / f"{name}-{kind}.gpkg"
        started = time.perf_counter()
        options = ClassifyOptions(overwrite=True, **MAPS[kind])
        classify(source, target, options, model=self.model)
        return target, time.perf_counter() - started


def edges(shape: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Pixels above or left of a boundary."""
    found = np.zeros(shape.shape, bool)
    found[:, :-1] |= shape[:, :-1] != shape[:, 1:]
    found[:-1] |= shape[:-1] != shape[1:]
    return found


def told(distances: Sequence[NDArray[np.float64]]) -> str:
    """Mean and median of distances, in pixels."""
    every = np.concatenate([np.empty(0), *distances])
    return f"{every.mean():.1f} | {np.median(every):.1f}" if every.size else "- | -"


def world(task: Task) -> None:
    print("| world | map | wrong | boundaries, m: mean | median | seconds |\n" + "|---" * 6 + "|")
    for seed in SEEDS:
        made = make_world(task.data, task.work, side=task.side, seed=seed)
        names = sorted({name for allowed in made.allowed for name in allowed})
        for kind in MAPS:
            target, seconds = task.map(made.path, made.path.stem, kind)
            found = score(made, target)
            landuse = gpd.read_file(target, layer="landuse")
            number = {name: place for place, name in enumerate(names)}
            codes = landuse["class"].map(lambda name, known=number: known.get(name, len(known)))
            transform = rasterio.open(made.path).transform
            said = rasterize(
                zip(landuse.geometry, codes, strict=True), made.labels.shape, transform=transform
            )
            truth = np.array([number[allowed[0]] for allowed in made.allowed])[made.labels]
            for place, allowed in enumerate(made.allowed):
                same = (made.labels == place) & np.isin(said, [number[n] for n in allowed])
                said[same] = truth[same]
            one, other = edges(truth), edges(said)
            both = [
                distance_transform_edt(~there)[here] for here, there in ((one, other), (other, one))
            ]
            median = np.mean([np.median(distances) for distances in both])
            print(
                f"| {seed} | {kind} | {found.wrong:.3f} | {found.boundary_m:.1f} | {median:.1f} |"
                f" {seconds:.0f} |",
                flush=True,
            )


def masks(task: Task) -> None:
    from score_scenes import KINDS, KOREA, kind_of, korea_of

    print("| scenes | map | right | recall of each kind | water's boundary, px: mean | median |")
    print("|---" * 6 + "|")
    for folder, kinds, of in (("dubai1m", KINDS, kind_of), ("korea10m", KOREA, korea_of)):
        for kind in MAPS:
            counts, distances = np.zeros((len(kinds) - 1, len(kinds) + 1), int), []
            for mask in sorted((task.data / folder).glob("*_mask.tif")):
                scene = mask.with_name(mask.name.replace("_mask", ""))
                target, _ = task.map(scene, scene.stem, kind)
                truth, transform = _truth(mask, scene, folder)
                said = _kinds(target, kinds, of, truth.shape, transform)
                for place in range(len(counts)):
                    counts[place] += np.bincount(said[truth == place], minlength=len(kinds) + 1)
                water = kinds.index("water")
                own, other = edges(truth == water), edges(said == water + 1)
                if own.any() and other.any():
                    distances.append(distance_transform_edt(~other)[own])
            hits = counts[np.arange(len(counts)), np.arange(1, len(counts) + 1)]
            each = ", ".join(
                f"{name} {hit / max(row.sum(), 1):.3f}"
                for name, hit, row in zip(kinds, hits, counts, strict=False)
            )
            right = hits.sum() / counts.sum()
            print(f"| {folder} | {kind} | {right:.3f} | {each} | {told(distances)} |", flush=True)


def _truth(mask: Path, scene: Path, folder: str) -> tuple[NDArray[np.int64], rasterio.Affine]:
    """The kind of each pixel, -1 where the mask does not know."""
    with rasterio.open(mask) as raster, rasterio.open(scene) as picture:
        drawn, colors = raster.read(1), picture.read([1, 2, 3]).astype(int)
        if folder == "dubai1m":
            return np.array([-1, 0, 2, 3, 3, 1])[drawn], raster.transform
        water = (drawn == 100) & (colors[2] - colors[0] > 40)
        truth = np.select([drawn == 70, drawn == 50, water], [0, 1, 2], -1)
        return truth, raster.transform


def _kinds(
    target: Path,
    kinds: Sequence[str],
    of: Callable[[str], str],
    shape: tuple[int, ...],
    transform: rasterio.Affine,
) -> NDArray[np.uint8]:
    """The kind that the map's regions have at each pixel, from 1; 0 for none."""
    landuse = gpd.read_file(target, layer="landuse")
    codes = [1 + kinds.index(of(name)) for name in landuse["class"]]
    return rasterize(zip(landuse.geometry, codes, strict=True), shape, transform=transform)


def infrared(task: Task) -> None:
    from score_scenes import KINDS, kind_of

    files = [task.data / "rasters" / INFRARED.format(band) for band in (1, 2, 3, 4)]
    with rasterio.open(files[3]) as raster:
        dark = binary_opening(raster.read(1) < DARK, iterations=2)
        transform = raster.transform
    spots, count = label(dark)
    sizes = np.bincount(spots.ravel(), minlength=count + 1)
    pond = dark & (sizes >= LEAST_POND)[spots]
    print("| map | water missed | outline measured | off, px: mean | median |\n" + "|---" * 5 + "|")
    for kind in MAPS:
        target, _ = task.map(files[:3], "NAIP-VA", kind)
        cell = gpd.read_file(target, layer="cells").geometry.iloc[0].bounds
        half = round((cell[2] - cell[0]) / transform.a / 2)
        said = _kinds(target, KINDS, kind_of, pond.shape, transform) == 1 + KINDS.index("water")
        missed = pond & ~said
        bulk = binary_dilation(
            binary_opening(missed, np.ones((half, half))), np.ones((3, 3)), iterations=half
        )
        outline = edges(pond)
        measured = outline & ~bulk
        distances = distance_transform_edt(~edges(said))[measured]
        share = measured.sum() / outline.sum()
        print(f"| {kind} | {missed.sum() / pond.sum():.2f} | {share:.2f} | {told([distances])} |")


PARTS: dict[str, Callable[[Task], None]] = {"world": world, "masks": masks, "infrared": infrared}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path, help="folder of data and tools")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--work", type=Path, default=Path("work/snapping"))
    parser.add_argument("--side", type=int, default=3600, help="metres, of a world")
    options = parser.parse_args()
    sys.path.insert(0, str(options.shared / "tools"))
    logging.getLogger("rssc_geo").setLevel(logging.ERROR)
    options.work.mkdir(parents=True, exist_ok=True)
    model = load_model("compact", captioner="none", device="cpu")
    for name in options.parts:
        PARTS[name](Task(options.shared / "data", options.work, options.side, model))


if __name__ == "__main__":
    main()
