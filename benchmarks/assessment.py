"""Coverage of confidence intervals, and cost of the assessment of a large map.

python benchmarks/assessment.py coverage
    2,000 stratified samples each of populations with known truth: how often the 95 % intervals of
    overall accuracy and of the areas contain it.
python benchmarks/assessment.py large
    A map of 1,000 x 1,000 cells: sampled, labeled and assessed by the command line; time, memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
from affine import Affine
from common import CACHE, measured
from pyproj import CRS

from rssc_geo.assessment import Sample, allocate, draw_stratified, estimate_accuracy
from rssc_geo.geometry import TileGrid
from rssc_geo.models import scene_classes
from rssc_geo.output import CellBatch, GeoGrid, LandUseWriter, OutputTarget

SAMPLES = 2000
# Cells by map class (rows, the strata) and true class (columns). With the allocations below every
# cell that is not zero expects five sampled units or more.
COMMON = np.array([[16_000, 2_400, 1_600], [3_000, 24_000, 3_000], [4_000, 6_000, 40_000]])
RARE = np.array([[400, 100, 0], [60, 23_440, 6_000], [40, 9_960, 60_000]])
NAMES = ("Forest", "Farmland", "River", "DenseResidential", "Meadow", "Industrial")
SIDE = 1000


def coverage() -> None:
    print(
        "| population | units a stratum | least expected in a cell | overall | area of each class |"
    )
    print("|---|---|---|---|---|")
    for name, matrix, drawn in (
        ("three common classes", COMMON, allocate(400, COMMON.sum(1), 70)),
        ("three common classes", COMMON, np.array([50, 50, 63])),
        ("one of 0.5 %", RARE, allocate(400, RARE.sum(1), 50)),
        ("three common classes", COMMON, np.array([10, 10, 10])),
    ):
        expected = drawn[:, None] * matrix / matrix.sum(1, keepdims=True)
        hits = coverage_of(matrix, drawn)
        shares = [f"{100 * share:.1f} %" for share in hits]
        print(
            f"| {name} | {', '.join(map(str, drawn))} | {expected[matrix > 0].min():.1f} |"
            f" {shares[0]} | {', '.join(shares[1:])} |"
        )


def coverage_of(matrix: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Coverage of the intervals of overall accuracy and of each area."""
    rows, cols = (np.repeat(axis.ravel(), matrix.ravel()) for axis in np.indices(matrix.shape))
    truth = [np.trace(matrix) / matrix.sum(), *(matrix.sum(0) / matrix.sum())]
    eye, areas = np.eye(len(matrix)), matrix.sum(1).astype(np.float64)
    hits = np.zeros(len(truth))
    for seed in range(SAMPLES):
        units = draw_stratified(rows, drawn, seed=seed)
        sample = Sample(rows[units], eye[rows[units]], cols[units], np.ones(len(units)), areas)
        found = estimate_accuracy(sample)
        for place, estimate in enumerate((found.overall, *found.area_shares)):
            hits[place] += estimate.low <= truth[place] <= estimate.high
    return np.asarray(hits / SAMPLES)


def large() -> None:
    path = CACHE / "assessed_map.gpkg"
    if not path.exists():
        make_map(path)
    points, labeled = CACHE / "assessed_points.gpkg", CACHE / "assessed_labels.gpkg"
    sampled = measured("assess", "sample", path, "-o", points, "--overwrite")
    frame = gpd.read_file(points, layer="sample")
    right = np.random.default_rng(0).random(len(frame)) < 0.8
    frame["class"] = np.where(right, frame["stratum"], "Forest")
    frame.to_file(labeled, layer="sample", driver="GPKG")
    assessed = measured(
        "assess", "accuracy", path, "--reference", labeled, "-o", CACHE / "assessed_report"
    )
    print("| step | time, s | of it on the processor, s | memory, MB |")
    print("|---|---|---|---|")
    for name, found in (("sample", sampled), ("accuracy", assessed)):
        assert found.code == 0, found.errors
        print(
            f"| {name}, {SIDE * SIDE:,} cells | {found.seconds:.1f} | {found.processor_s:.1f} |"
            f" {found.memory_mb:.0f} |"
        )


def make_map(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    patches = np.random.default_rng(0).integers(0, len(NAMES), (SIDE // 4, SIDE // 4))
    classes = patches.repeat(4, 0).repeat(4, 1)
    geo = GeoGrid(
        TileGrid(classes.shape, (1, 1)),
        Affine(100, 0, 500_000, 0, -100, 5_000_000),
        CRS.from_epsg(32632),
    )
    rows, cols = (axis.ravel().astype(np.int32) for axis in np.indices(classes.shape))
    with LandUseWriter(
        OutputTarget(path),
        geo,
        classes=scene_classes(NAMES),
        run_key={"made": "by a benchmark"},
        provenance={"input": "made"},
    ) as writer:
        probabilities = 0.1 + 0.4 * np.eye(len(NAMES), dtype=np.float32)[classes.ravel()]
        captions = ["a picture of some place seen from above ."] * len(rows)
        unknown = np.full(len(rows), np.nan, np.float32)
        colors = np.zeros((len(rows), 3), np.float32)
        writer.append(CellBatch(rows, cols, probabilities, unknown, captions, colors), 1)
        writer.make()
        writer.discard()


if __name__ == "__main__":
    {"coverage": coverage, "large": large}[sys.argv[1]]()
