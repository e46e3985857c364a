"""What ``--snap`` does to outlines: how right they are, and how near to what the picture shows.

    python benchmarks/snapping.py ../shared [--parts world masks infrared]

Each scene is mapped without, with, and with votes that do not see colors. The parts:

world: synthetic worlds (``synthetic_world.py``): share of area that is wrong, and distance between
    true boundaries and the map's: the mean of both ways, each of them, and the median. What a map
    lacks counts from the true boundaries to the map's, what it makes up on the way back, and no
    outline mends it: so the bound is told too, of a map that is right wherever a cell at most one
    row and column away is, and else as the snapped one.
masks: dubai1m and korea10m: how right each pixel is (recall of each kind, where the mask knows),
    and the outline of water.
infrared: NAIP-VA, whose near infrared shows a pond. Of ``m_3607717…`` it shows no water, only
    shadow.

Of an outline of water the distance in pixels to the map's is told where no map misses more than
half a cell of it; the share of it that this is, and the share of water that each map misses, apart.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import geopandas as gpd
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize
from scipy.ndimage import binary_dilation, binary_opening, distance_transform_edt, label
from synthetic_world import TRANSFORM, World, edges, make_world

from rssc_geo import ClassifyOptions, Predictor, classify, load_model
from rssc_geo.models import legend_of
from rssc_geo.output import snapping

MAPS = {"default": False, "snapped": True, "snapped, colorblind": True}
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
        target = self.work / f"{name}-{kind.replace(', ', '-')}.gpkg"
        started = time.perf_counter()
        options = ClassifyOptions(overwrite=True, snap=MAPS[kind])
        seen = snapping.CONTRAST
        snapping.CONTRAST = np.inf if "colorblind" in kind else seen
        try:
            classify(source, target, options, model=self.model)
        finally:
            snapping.CONTRAST = seen
        return target, time.perf_counter() - started


@dataclass(frozen=True)
class Truth:
    """A world's truth by the numbers of the model's classes.

    Attributes
    ----------
    labels : int16 (rows, cols)
    allowed : bool (labels, classes), what each label allows
    classes : int16 (rows, cols), the class that stands for all that a label allows
    """

    labels: NDArray[np.int16]
    allowed: NDArray[np.bool_]
    classes: NDArray[np.int16]

    @classmethod
    def of(cls, made: World, number: Mapping[str, int]) -> Truth:
        allowed = np.zeros((len(made.allowed), len(number)), bool)
        for row, names in zip(allowed, made.allowed, strict=True):
            row[[number[name] for name in names]] = True
        likeliest = np.array([number[names[0]] for names in made.allowed], np.int16)
        return cls(made.labels, allowed, likeliest[made.labels])

    def near(self, cells: gpd.GeoDataFrame, number: Mapping[str, int]) -> NDArray[np.bool_]:
        """Whether a cell that is right lies at most one row and column from that of each pixel."""
        rows, cols = cells["row"].to_numpy(), cells["col"].to_numpy()
        west, _, east, _ = cells.geometry.iloc[0].bounds
        places = np.arange(len(self.labels)) // round((east - west) / TRANSFORM.a)
        found = np.zeros(self.labels.shape, bool)
        for place, allowed in enumerate(self.allowed):
            right = np.zeros((rows.max() + 1, cols.max() + 1), bool)
            right[rows, cols] = allowed[cells["class"].map(number)]
            around = binary_dilation(right, np.ones((3, 3)))[np.ix_(places, places)]
            found |= around & (self.labels == place)
        return found

    def figures(self, said: NDArray[np.int16]) -> str:
        """Of the class of each pixel: share that is wrong, distances of boundaries in meters."""
        wrong = ~self.allowed[self.labels, said]
        # A class that the label allows draws no boundary against the one that stands for it.
        one, other = edges(self.classes), edges(np.where(wrong, said, self.classes))
        ways = [
            distance_transform_edt(~there)[here] for here, there in ((one, other), (other, one))
        ]
        there, back = (float(way.mean()) for way in ways)
        median = np.mean([np.median(way) for way in ways])
        return (
            f"{wrong.mean():.3f} | {(there + back) / 2:.1f} | {there:.1f} | {back:.1f} |"
            f" {median:.1f}"
        )


def world(task: Task) -> None:
    told = "wrong | boundaries, m: mean | true to map | map to true | median"
    print(f"| world | map | {told} | seconds |\n" + "|---" * 8 + "|")
    number = {known.name: known.id for known in legend_of(task.model.card)}
    for seed in SEEDS:
        made = make_world(task.data, task.work, side=task.side, seed=seed)
        truth = Truth.of(made, number)
        for kind in MAPS:
            target, seconds = task.map(made.path, made.path.stem, kind)
            landuse = gpd.read_file(target, layer="landuse")
            said = rasterize(
                zip(landuse.geometry, landuse["class"].map(number), strict=True),
                made.labels.shape,
                transform=TRANSFORM,
                dtype="int16",
            )
            print(f"| {seed} | {kind} | {truth.figures(said)} | {seconds:.0f} |", flush=True)
            if kind == "snapped":
                near = truth.near(gpd.read_file(target, layer="cells"), number)
                bound = truth.figures(np.where(near, truth.classes, said))
                print(f"| {seed} | bound | {bound} | |", flush=True)


@dataclass
class Outlines:
    """The outlines of water of some scenes, true and mapped."""

    measured: int = 0
    whole: int = 0
    water: int = 0
    missed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MAPS, 0))
    off: dict[str, list[NDArray[np.float64]]] = field(
        default_factory=lambda: {kind: [] for kind in MAPS}
    )

    def add(self, truth: NDArray[np.bool_], said: dict[str, NDArray[np.bool_]], half: int) -> None:
        """Measure a scene; ``half``: pixels of half a cell."""
        outline = edges(truth)
        near = outline.copy()
        for water in said.values():
            bulk = binary_opening(truth & ~water, np.ones((half, half)))
            near &= ~binary_dilation(bulk, np.ones((3, 3)), iterations=half)
        self.whole += int(outline.sum())
        self.water += int(truth.sum())
        if all(water.any() for water in said.values()):
            self.measured += int(near.sum())
        for kind, water in said.items():
            self.missed[kind] += int((truth & ~water).sum())
            if all(water.any() for water in said.values()):
                self.off[kind].append(distance_transform_edt(~edges(water))[near])

    def told(self, kind: str) -> str:
        every = np.concatenate([np.empty(0), *self.off[kind]])
        off = f"{every.mean():.1f} | {np.median(every):.1f}" if every.size else "- | -"
        return f"{self.missed[kind] / self.water:.2f} | {self.measured / self.whole:.2f} | {off}"


WATER = "water missed | outline measured | off, px: mean | median"


def masks(task: Task) -> None:
    from score_scenes import KINDS, KOREA, kind_of, korea_of

    print(f"| scenes | map | right | recall of each kind | {WATER} |\n" + "|---" * 8 + "|")
    for folder, kinds, of in (("dubai1m", KINDS, kind_of), ("korea10m", KOREA, korea_of)):
        counts = {kind: np.zeros((len(kinds) - 1, len(kinds) + 1), int) for kind in MAPS}
        outlines = Outlines()
        for mask in sorted((task.data / folder).glob("*_mask.tif")):
            scene = mask.with_name(mask.name.replace("_mask", ""))
            truth, transform = _truth(mask, scene, folder)
            water: dict[str, NDArray[np.bool_]] = {}
            for kind in MAPS:
                target, _ = task.map(scene, scene.stem, kind)
                said = _kinds(target, kinds, of, truth.shape, transform)
                water[kind] = said == 1 + kinds.index("water")
                counts[kind] += np.array(
                    [
                        np.bincount(said[truth == place], minlength=len(kinds) + 1)
                        for place in range(len(kinds) - 1)
                    ]
                )
            outlines.add(truth == kinds.index("water"), water, _half_cell(target, transform))
        for kind, found in counts.items():
            hits = found[np.arange(len(found)), np.arange(1, len(found) + 1)]
            each = ", ".join(
                f"{name} {hit / max(row.sum(), 1):.3f}"
                for name, hit, row in zip(kinds, hits, found, strict=False)
            )
            right = hits.sum() / found.sum()
            print(f"| {folder} | {kind} | {right:.3f} | {each} | {outlines.told(kind)} |")


def _half_cell(target: Path, transform: rasterio.Affine) -> int:
    """Pixels."""
    west, _, east, _ = gpd.read_file(target, layer="cells").geometry.iloc[0].bounds
    return round((east - west) / transform.a / 2)


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
    water = {}
    for kind in MAPS:
        target, _ = task.map(files[:3], "NAIP-VA", kind)
        water[kind] = _kinds(target, KINDS, kind_of, pond.shape, transform) == 1
    outlines = Outlines()
    outlines.add(pond, water, _half_cell(target, transform))
    print(f"| map | {WATER} |\n" + "|---" * 5 + "|")
    for kind in MAPS:
        print(f"| {kind} | {outlines.told(kind)} |")


PARTS: dict[str, Callable[[Task], None]] = {"world": world, "masks": masks, "infrared": infrared}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path, help="folder of data and tools")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--work", type=Path, default=Path("work/snapping"))
    parser.add_argument("--side", type=int, default=3600, help="meters, of a world")
    options = parser.parse_args()
    sys.path.insert(0, str(options.shared / "tools"))
    logging.getLogger("rssc_geo").setLevel(logging.ERROR)
    options.work.mkdir(parents=True, exist_ok=True)
    model = load_model("compact", captioner="none", device="cpu")
    for name in options.parts:
        PARTS[name](Task(options.shared / "data", options.work, options.side, model))


if __name__ == "__main__":
    main()
