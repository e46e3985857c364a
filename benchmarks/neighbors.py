"""Methods of smoothing with neighbors, on the same probabilities of fine maps.

    python benchmarks/neighbors.py ../shared

Each scene is mapped once, without any; then its cells' probabilities are changed by

smooth: what the program does (``rssc_geo/output/smoothing.py``)
colorblind: the same with all cells of one color
mean of 3 × 3: the mean of the log-probabilities of the nine cells around, of one weight
Potts: a Potts model by mean field, of the same weights and as many rounds, q ∝ p exp(λ Σ w q)

Counted are the balanced accuracy on dubai1m and F1 on korea10m as real_scenes.py does, the share of
area that is wrong in synthetic worlds, and there the mean confidence beside the accuracy of named
cells. Maps are kept in the work folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import geopandas as gpd
import numpy as np
import rasterio
from scipy.ndimage import uniform_filter
from scipy.special import softmax
from synthetic_world import make_world

from rssc_geo import ClassifyOptions, Predictor, classify, load_model
from rssc_geo.output import CONTRAST, ROUNDS, GridRow, smoothed

SEEDS = (1, 2)
STRENGTHS = (0.5, 1.0, 2.0)  # of the Potts model


@dataclass(frozen=True)
class Cells:
    """The cells of a map: a table, their places, and whole grids of what is known of them.

    ``probabilities`` (R, M, C), ``colors`` (R, M, 3), ``told`` (R, M): known, and not ``Unknown``.
    """

    table: gpd.GeoDataFrame
    probabilities: np.ndarray
    colors: np.ndarray
    told: np.ndarray

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        return self.table["row"].to_numpy(), self.table["col"].to_numpy()


def cells_of(scene: Path, target: Path, model: Predictor) -> Cells:
    if not target.is_file():
        options = ClassifyOptions(probabilities=True, smooth=False)
        classify(scene, target, options, model=model)
    table = gpd.read_file(target, layer="cells")
    places = table["row"].to_numpy(), table["col"].to_numpy()
    shape = tuple(int(axis.max()) + 1 for axis in places)
    columns = [name for name in table.columns if name.startswith("p_")]
    probabilities = np.full((*shape, len(columns)), 1 / len(columns), np.float32)
    probabilities[places] = table[columns].to_numpy()
    told = np.zeros(shape, bool)
    told[places] = table["class"] != "Unknown"
    with rasterio.open(scene) as raster:
        west, _, east, _ = table.geometry.iloc[0].bounds
        side = round((east - west) / raster.transform.a)
        colors = raster.read([1, 2, 3]).astype(np.float64)
    for axis, count in ((1, shape[0]), (2, shape[1])):
        edges = np.arange(count) * side
        lengths = np.diff([*edges, colors.shape[axis]]).reshape((-1, 1) if axis == 1 else (-1,))
        colors = np.add.reduceat(colors, edges, axis) / lengths
    return Cells(table, probabilities, colors.transpose(1, 2, 0).astype(np.float32), told)


def smooth(cells: Cells) -> np.ndarray:
    cols = np.arange(cells.told.shape[1], dtype=np.int32)
    rows = (
        GridRow(number, cols, *values)
        for number, values in enumerate(
            zip(cells.probabilities, cells.colors, cells.told, strict=True)
        )
    )
    return np.array(list(smoothed(rows)))


def colorblind(cells: Cells) -> np.ndarray:
    return smooth(Cells(cells.table, cells.probabilities, cells.colors * 0, cells.told))


def mean_of_nine(cells: Cells) -> np.ndarray:
    told = cells.told[..., None]
    logs = np.where(told, np.log(np.maximum(cells.probabilities, 1e-6)), 0)
    sums = uniform_filter(logs, (3, 3, 1), mode="constant")
    counts = uniform_filter(told.astype(float), (3, 3, 1), mode="constant")
    return np.asarray(softmax(sums / np.maximum(counts, 1e-9), -1))


def potts(strength: float) -> Callable[[Cells], np.ndarray]:
    def change(cells: Cells) -> np.ndarray:
        weights = []
        for axis in (0, 1):
            colors, told = (np.moveaxis(values, axis, 0) for values in (cells.colors, cells.told))
            contrast = (np.diff(colors, axis=0) ** 2).sum(-1) / (2 * CONTRAST**2)
            weights.append((np.exp(-contrast) * (told[:-1] & told[1:]))[..., None])
        logs = np.log(np.maximum(cells.probabilities, 1e-6))
        found = cells.probabilities
        for _ in range(ROUNDS):
            votes = np.zeros_like(found)
            for axis, weight in enumerate(weights):
                there, into = (np.moveaxis(values, axis, 0) for values in (found, votes))
                into[1:] += weight * there[:-1]
                into[:-1] += weight * there[1:]
            found = softmax(logs + strength * votes, -1)
        return np.asarray(found)

    return change


WAYS: Mapping[str, Callable[[Cells], np.ndarray]] = {
    "none": lambda cells: cells.probabilities,
    "smooth": smooth,
    "colorblind": colorblind,
    "mean of 3 × 3": mean_of_nine,
    **{f"Potts, {strength:g}": potts(strength) for strength in STRENGTHS},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path, help="folder of data and tools")
    parser.add_argument("--work", type=Path, default=Path("work/fine"))
    parser.add_argument("--side", type=int, default=3600, help="meters, of a world")
    options = parser.parse_args()
    sys.path.insert(0, str(options.shared / "tools"))
    from score_scenes import score, score_korea

    logging.getLogger("rssc_geo").setLevel(logging.ERROR)
    options.work.mkdir(parents=True, exist_ok=True)
    model = load_model("compact", captioner="none", device="cpu")
    names = np.array([known.name for known in model.card.classes])
    totals: dict[tuple[str, str], np.ndarray] = {}

    def take(way: str, what: str, values: np.ndarray) -> None:
        totals[way, what] = totals.get((way, what), 0) + values

    for folder, count in (("dubai1m", score), ("korea10m", score_korea)):
        for mask in sorted((options.shared / "data" / folder).glob("*_mask.tif")):
            scene = mask.with_name(mask.name.replace("_mask", ""))
            cells = cells_of(scene, options.work / f"{scene.stem}-probabilities.gpkg", model)
            for way, change in WAYS.items():
                classes = names[change(cells)[cells.places].argmax(1)]
                said = np.where(cells.told[cells.places], classes, "Unknown")
                take(way, folder, count(cells.table.assign(**{"class": said}), mask))
    for seed in SEEDS:
        made = make_world(options.shared / "data", options.work, side=options.side, seed=seed)
        target = options.work / f"{made.path.stem}-probabilities.gpkg"
        cells = cells_of(made.path, target, model)
        side = -(-made.labels.shape[0] // len(cells.told))
        grid = np.arange(cells.told.size).reshape(cells.told.shape)
        place = grid.repeat(side, 0).repeat(side, 1)
        place = place[: made.labels.shape[0], : made.labels.shape[1]].ravel()
        allowed = np.array([[name in these for name in names] for these in made.allowed])
        for way, change in WAYS.items():
            found = change(cells).reshape(-1, len(names))
            right = allowed[made.labels.ravel(), found.argmax(1)[place]]
            named = cells.told.ravel()[place]
            confidence = (found.max(1)[place] * named).sum()
            sums = [(right & named).sum(), right.size, named.sum(), confidence]
            take(way, "world", np.array(sums, float))
    print("| neighbors | dubai1m | forest | field | water | world, wrong | confidence | right |")
    print("|---|---|---|---|---|---|---|---|")
    for way in WAYS:
        dubai, korea = totals[way, "dubai1m"], totals[way, "korea10m"]
        balanced = (dubai[range(4), range(1, 5)] / dubai.sum(1)).mean()
        f1 = [2 * korea[k, k + 1] / (korea[:, k + 1].sum() + korea[k].sum()) for k in range(3)]
        right, area, named, confidence = totals[way, "world"]
        figures = (balanced, *f1, 1 - right / area, confidence / named, right / named)
        print(f"| {way} | {' | '.join(f'{figure:.3f}' for figure in figures)} |")


if __name__ == "__main__":
    main()
