"""A synthetic world of known truth: scene pictures laid out as regions with odd shapes.

It is made of the pictures of the validation parts alone, which the embedded model did not learn
from. A region is a mosaic of pictures of one label, each turned at random, at the ground size that
its data set tells: AID at its finest (300 m), UC Merced 77 m, NWPU 256 m; of EuroSAT (640 m) water
alone, which no other set shows without shores: its pixels of 10 m are no ground of a world of 1 m.
Labels are those that hold for any part of a picture (``texture`` in taxonomy.json).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.features import rasterize
from scipy.ndimage import distance_transform_edt, zoom

from rssc_geo.training import load_data_sets, stratified_split

SETS = {"aid150": 300, "ucm256": 77, "nwpu160": 256, "eurosat64": 640}
"""Meters of a picture."""
WATER = "eurosat64/SeaLake"
TRANSFORM = Affine(1.0, 0, 500_000, 0, -1.0, 5_000_000)
SEEDS_KM2 = 4.0
WARPS = ((700, 160.0), (160, 30.0))
"""Meters between the knots of the noise that bends the regions' borders, and its deviation."""


@dataclass(frozen=True)
class World:
    """A raster of 1 m and its truth.

    Attributes
    ----------
    path : the raster
    labels : int16 (rows, cols), places in ``allowed``
    allowed : of each label the names of the classes that it allows, the likeliest first
    """

    path: Path
    labels: NDArray[np.int16]
    allowed: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Score:
    """Errors of a map.

    ``wrong``: share of the area; ``boundary_m``: mean of the mean distance from the true
    boundaries to the map's and the one back.
    """

    wrong: float
    boundary_m: float


def make_world(data: Path, work: Path, *, side: int, seed: int) -> World:
    """The world of a seed, ``side`` meters a side; kept in the work folder."""
    path = work / f"world-{side}-{seed}.tif"
    truth = path.with_suffix(".npz")
    if not (path.is_file() and truth.is_file()):
        work.mkdir(parents=True, exist_ok=True)
        pictures, allowed = _validation_pictures(data)
        random = np.random.default_rng(seed)
        regions = _regions(side, random)
        labels = _labels(int(regions.max()) + 1, len(allowed), random)
        pixels = np.zeros((side, side, 3), np.uint8)
        for region, label in enumerate(labels):
            _fill(pixels, regions == region, pictures[label], random)
        np.savez_compressed(
            truth, labels=labels.astype(np.int16)[regions], allowed=json.dumps(allowed)
        )
        with rasterio.open(
            path, "w", driver="GTiff", height=side, width=side, count=3, dtype="uint8",
            crs="EPSG:32632", transform=TRANSFORM, tiled=True, compress="deflate",
            photometric="rgb",
        ) as raster:  # fmt: skip
            raster.write(pixels.transpose(2, 0, 1))
    with np.load(truth) as kept:
        return World(path, kept["labels"], tuple(map(tuple, json.loads(str(kept["allowed"])))))


def score(world: World, result: Path) -> Score:
    """Of the ``landuse`` layer of a map; ground without a class is wrong."""
    names = list(dict.fromkeys(name for allowed in world.allowed for name in allowed))
    landuse = gpd.read_file(result, layer="landuse")
    names += sorted(set(landuse["class"]) - set(names))
    number = {name: place for place, name in enumerate(names)}
    said = rasterize(
        zip(landuse.geometry, landuse["class"].map(number), strict=True),
        world.labels.shape,
        transform=TRANSFORM,
        fill=len(names),
        dtype="int16",
    )
    right = np.zeros((len(world.allowed), len(names) + 1), bool)
    for label, allowed in enumerate(world.allowed):
        right[label, [number[name] for name in allowed]] = True
    truth = np.array([number[allowed[0]] for allowed in world.allowed], np.int16)[world.labels]
    correct = right[world.labels, said]
    # A class that the label allows draws no boundary against the one that stands for it.
    return Score(
        float(1 - correct.mean()), boundary_distance(truth, np.where(correct, truth, said))
    )


def boundary_distance(one: NDArray[np.integer], other: NDArray[np.integer]) -> float:
    """Mean distance in pixels from one's boundaries to the other's, mean of both directions."""
    lines = [edges(one), edges(other)]
    return float(np.mean([
        distance_transform_edt(~there)[here].mean() if there.any() and here.any() else np.inf
        for here, there in (lines, lines[::-1])
    ]))  # fmt: skip


def edges(classes: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Pixels above or left of a boundary."""
    found = np.zeros(classes.shape, bool)
    found[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    found[:-1] |= classes[:-1] != classes[1:]
    return found


def _validation_pictures(data: Path) -> tuple[list[list[NDArray[np.uint8]]], list[list[str]]]:
    """Pictures of each label at 1 m, and the classes that it allows."""
    logging.getLogger("rssc_geo").setLevel(logging.ERROR)  # equal pictures, told by the training
    taxonomy = data / "taxonomy.json"
    found = load_data_sets([data / name for name in SETS], size=64, taxonomy=taxonomy)
    legend, pictures, allowed = found.legend, [], []
    rows = stratified_split(found, seed=0)["val"]
    for label, (data_set, name) in enumerate(zip(legend.sets, legend.labels, strict=True)):
        if not legend.texture[label] or (data_set == "eurosat64" and name != WATER):
            continue
        paths = [found.names[row] for row in rows if found.labels[row] == label]
        pictures.append([_picture(data, path, SETS[data_set]) for path in paths])
        likely = np.argsort(-legend.weights[label], kind="stable")
        allowed.append([found.classes[k] for k in likely if legend.allowed[label, k]])
    return pictures, allowed


def _picture(data: Path, name: str, side: int) -> NDArray[np.uint8]:
    data_set, rest = name.split("/", 1)
    path = data / data_set / "images" / rest
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def _regions(side: int, random: np.random.Generator) -> NDArray[np.int16]:
    """Voronoi cells whose borders are bent by smooth noise: int16 (side, side)."""
    count = max(4, round(SEEDS_KM2 * (side / 1000) ** 2))
    seeds = random.uniform(0, side, (count, 2))
    rows, cols = np.indices((side, side), np.float32)
    for step, deviation in WARPS:
        bends = random.normal(0, deviation, (2, side // step + 4, side // step + 4))
        rows += zoom(bends[0], step, order=3)[:side, :side]
        cols += zoom(bends[1], step, order=3)[:side, :side]
    nearest = np.full((side, side), np.inf, np.float32)
    regions = np.zeros((side, side), np.int16)
    for place, (row, col) in enumerate(seeds):
        distance = np.hypot(rows - row, cols - col)
        closer = distance < nearest
        nearest[closer], regions[closer] = distance[closer], place
    return np.unique(regions, return_inverse=True)[1].reshape(regions.shape).astype(np.int16)


def _labels(regions: int, labels: int, random: np.random.Generator) -> NDArray[np.int64]:
    """A label for each region, all labels about as often."""
    rounds = [random.permutation(labels) for _ in range(-(-regions // labels))]
    return np.concatenate(rounds)[:regions]


def _fill(
    pixels: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    pictures: Sequence[NDArray[np.uint8]],
    random: np.random.Generator,
) -> None:
    """A mosaic of pictures in a region, from an origin of its own."""
    rows, cols = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    side = len(pictures[0])
    top, left = (int(axis[0]) - int(random.integers(side)) for axis in (rows, cols))
    order: list[int] = []
    for row in range(top, int(rows[-1]) + 1, side):
        for col in range(left, int(cols[-1]) + 1, side):
            order = order or random.permutation(len(pictures)).tolist()
            picture = np.rot90(pictures[order.pop()], int(random.integers(4)))
            if random.integers(2):
                picture = picture[::-1]
            across, down = slice(max(row, 0), row + side), slice(max(col, 0), col + side)
            here = inside[across, down]
            shown = picture[max(-row, 0) :, max(-col, 0) :][: here.shape[0], : here.shape[1]]
            pixels[across, down][here] = shown[here]
