"""Detection of changes, and false changes by light, haze, a shift of one pixel and resampling.

python benchmarks/change.py fit ../shared/data
    Fits the calibration in rssc_geo/inference/comparison.py on pairs made of FIT and prints it.
python benchmarks/change.py measure ../shared/data
    Pairs made of MEASURED, other scenes: of unchanged pairs, the share of cells that is reported as
    changed; of pasted patches, the share of their cells that is found; how often cells of a
    probability changed.
python benchmarks/change.py season ../shared/data
    Two real dates, September 2023 and December 2024: the share that is reported as changed.

A cell is of a patch when at least half of it is, and unchanged when nothing of it is.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path

import numpy as np
from change_pairs import FIT, HARMLESS, MEASURED, Pair, make_pairs
from common import CACHE
from scipy import ndimage, optimize

from rssc_geo import (
    ChangeOptions,
    PredictorOptions,
    TilingOptions,
    change,
    load_predictor,
    make_plan,
)
from rssc_geo.geometry import LEAST_SHOWN
from rssc_geo.inference import (
    BY_CLASSES,
    BY_EMBEDDINGS,
    FLOOR,
    DateCells,
    SceneSeries,
    change_signals,
    plan_later_date,
    typical_signals,
)
from rssc_geo.options import OutputOptions
from rssc_geo.output import make_target

SHARE = 0.1
"""Share of changed cells in the calibration, the prior."""
PASSING = {"BY_EMBEDDINGS": 0.0125, "BY_CLASSES": 0.0175}
"""Share of unchanged cells above the threshold, in the worst type of unchanged pairs."""
RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Signals:
    """Of n cells of a pair: signals (n, 3), and the share of each cell that was pasted, (n,).

    The third signal is the second computed from two finished maps, of two classes a cell. ``far``,
    ``other``: bool (n,), a tile and more from any patch; of another class at the later date.
    """

    pair: Pair
    values: np.ndarray
    pasted: np.ndarray
    far: np.ndarray
    other: np.ndarray

    @property
    def unchanged(self) -> np.ndarray:
        return self.pasted == 0

    @property
    def changed(self) -> np.ndarray:
        return self.pasted >= 0.5


def signals_of(data: Path, scenes: tuple[str, ...], work: Path) -> Iterator[Signals]:
    """The signals of all pairs, computed by the program; each scene is classified once."""
    predictor = load_predictor(PredictorOptions(captioner="none", device="cpu"))
    for old, pairs in groupby(make_pairs(data, scenes, work), key=attrgetter("old")):
        made = list(pairs)
        plan = make_plan(old, predictor.card, TilingOptions(), least_shown=LEAST_SHOWN)
        plans = [plan, *(plan_later_date(pair.new, plan) for pair in made)]
        target = make_target(work / "pairs.gpkg", OutputOptions(), overwrite=True)
        with SceneSeries(plans, target, predictor.spec) as series:
            series.classify(predictor, lambda *_: None)
            parts = list(series.cells())
            series.discard()
        dates = [_joined([part.dates[number] for part in parts]) for number in range(len(plans))]
        rows, cols = (np.concatenate([getattr(part, name) for part in parts])
                      for name in ("rows", "cols"))  # fmt: skip
        for pair, later in zip(made, dates[1:], strict=True):
            share = np.zeros(plan.grid.cells_shape)
            if pair.pasted is not None:
                share = cell_shares(pair.pasted > 0, plan.grid.row_edges(), plan.grid.col_edges())
            values = change_signals(dates[0], later)
            by_maps = change_signals(told_by_map(dates[0]), told_by_map(later))
            near = ndimage.binary_dilation(share > 0, np.ones((3, 3)), plan.tiling.fraction)
            yield Signals(
                pair,
                np.concatenate([values, by_maps], 1),
                share[rows, cols],
                ~near[rows, cols],
                dates[0].probabilities.argmax(1) != later.probabilities.argmax(1),
            )


def told_by_map(cells: DateCells) -> DateCells:
    """The contents of a finished map: the probabilities of the two likeliest classes."""
    second = np.sort(cells.probabilities, 1)[:, -2:-1]
    kept = np.where(cells.probabilities >= second, cells.probabilities, 0)
    return DateCells(kept, None, cells.unknown)


def _joined(parts: list[DateCells]) -> DateCells:
    return DateCells(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.embeddings for part in parts if part.embeddings is not None]),
        np.concatenate([part.unknown for part in parts]),
    )


def cell_shares(inside: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """The share of each cell that is inside."""
    sums = np.add.reduceat(np.add.reduceat(inside.astype(float), rows[:-1], 0), cols[:-1], 1)
    return np.asarray(sums / np.outer(np.diff(rows), np.diff(cols)))


def fit(data: Path) -> None:
    found = list(signals_of(data, FIT, CACHE / "change" / "fit"))
    for name, columns in (("BY_EMBEDDINGS", [0, 1]), ("BY_CLASSES", [2])):
        print(f"{name} = {fitted(found, columns, PASSING[name])}")


def fitted(found: list[Signals], columns: list[int], passing: float) -> str:
    """The calibration as Python: a logistic regression by penalized maximum likelihood."""
    values = [each.values[:, columns] for each in found]
    harmless = [each.pair.kind in HARMLESS for each in found]
    typical = [typical_signals(each) for each in values]
    largest = np.max([each for each, kept in zip(typical, harmless, strict=True) if kept], 0)
    logs = [
        np.log(np.concatenate([each, np.tile(np.minimum(own, largest), (len(each), 1))], 1) + FLOOR)
        for each, own in zip(values, typical, strict=True)
    ]
    told = [each.unchanged | each.changed for each in found]
    x = np.concatenate([each[kept] for each, kept in zip(logs, told, strict=True)])
    y = np.concatenate([each.changed[kept] for each, kept in zip(found, told, strict=True)])
    mean, deviation = x.mean(0), x.std(0)
    z = np.concatenate([(x - mean) / deviation, np.ones((len(x), 1))], 1)
    weights = np.where(y, SHARE / y.sum(), (1 - SHARE) / (~y).sum())

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        logit = z @ beta
        cost = weights @ np.logaddexp(0, np.where(y, -logit, logit))
        slope = z.T @ (weights * (1 / (1 + np.exp(-logit)) - y))
        penalty = np.append(beta[:-1], 0)
        return cost + RIDGE * penalty @ penalty, slope + 2 * RIDGE * penalty

    beta = optimize.minimize(loss, np.zeros(z.shape[1]), jac=True).x
    slopes = beta[:-1] / deviation
    intercept = beta[-1] - slopes @ mean
    by_kind: dict[str, list[np.ndarray]] = defaultdict(list)
    for each, own in zip(found, logs, strict=True):
        by_kind[each.pair.kind].append(intercept + own @ slopes)
    logit = max(np.quantile(np.concatenate(by_kind[kind]), 1 - passing) for kind in HARMLESS)
    count = len(columns)
    return (
        f"ChangeCalibration(\n    intercept={intercept:.3f},\n"
        f"    weights=({', '.join(f'{v:.3f}' for v in slopes[:count])},),\n"
        f"    typical=({', '.join(f'{v:.3f}' for v in slopes[count:])},),\n"
        f"    largest=({', '.join(f'{v:.3f}' for v in largest)},),\n"
        f"    least={1 / (1 + np.exp(-logit)):.2f},\n)"
    )


def measure(data: Path) -> None:
    found = list(signals_of(data, MEASURED, CACHE / "change" / "measured"))
    for title, calibration, columns in (
        ("two rasters", BY_EMBEDDINGS, [0, 1]),
        ("two finished maps", BY_CLASSES, [2]),
    ):
        chances = [
            calibration.probability(
                each.values[:, columns], typical_signals(each.values[:, columns])
            )
            for each in found
        ]
        print(f"\n{title}, least probability {calibration.least:g}\n")
        print("| pairs | unchanged cells | told as changed | cells of patches | of these found |")
        print("|---|---|---|---|---|")
        for kind in dict.fromkeys(each.pair.kind for each in found):
            rows = [(each, own) for each, own in zip(found, chances, strict=True)
                    if each.pair.kind == kind]  # fmt: skip
            print(f"| {kind} | {tell(rows, calibration.least)} |")
        reliability(found, chances)
    print("\n| pairs | unchanged cells of another class | cells of patches of another class |")
    print("|---|---|---|")
    for kind, pairs in by_kind(found).items():
        far, patches = (
            np.concatenate([each.other[getattr(each, which)] for each in pairs])
            for which in ("far", "changed")
        )
        print(f"| {kind} | {far.mean():.1%} | {f'{patches.mean():.1%}' if len(patches) else ''} |")


def by_kind(found: list[Signals]) -> dict[str, list[Signals]]:
    kinds = dict.fromkeys(each.pair.kind for each in found)
    return {kind: [each for each in found if each.pair.kind == kind] for kind in kinds}


def tell(rows: list[tuple[Signals, np.ndarray]], least: float) -> str:
    """Of pairs: unchanged cells far from patches, reported as changed; patches likewise."""
    far = np.concatenate([own[each.far] for each, own in rows])
    patches = np.concatenate([own[each.changed] for each, own in rows])
    told = f"{len(far):,} | {np.mean(far >= least):.2%}"
    if not len(patches):
        return f"{told} | | "
    near = np.concatenate([own[each.unchanged & ~each.far] for each, own in rows])
    beside = f" ({np.mean(near >= least):.1%} of the {len(near):,} less than a tile from one)"
    return f"{told}{beside} | {len(patches):,} | {np.mean(patches >= least):.1%}"


def reliability(found: list[Signals], chances: list[np.ndarray]) -> None:
    """How often cells of a probability changed, weighted so that ``SHARE`` of all did."""
    own = np.concatenate(
        [p[each.far | each.changed] for each, p in zip(found, chances, strict=True)]
    )
    truth = np.concatenate([each.changed[each.far | each.changed] for each in found])
    weights = np.where(truth, SHARE / truth.sum(), (1 - SHARE) / (~truth).sum())
    print("\n| probability | mean | changed |\n|---|---|---|")
    edges = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.01)
    for low, high in pairwise(edges):
        here = (own >= low) & (own < high)
        if here.any():
            mean, share = (np.average(v[here], weights=weights[here]) for v in (own, truth))
            print(f"| {low:g} to {min(high, 1):g} | {mean:.2f} | {share:.2f} |")


def season(data: Path) -> None:
    """Two dates of one place, 15 months apart: the overlap of two scenes of korea10m."""
    work = CACHE / "change"
    work.mkdir(parents=True, exist_ok=True)
    names = [data / "korea10m" / name for name in ("202309_2.tif", "202412_4.tif")]
    result = change(names, work / "season.gpkg", ChangeOptions(overwrite=True))
    print(
        f"{result.changed_cells} of {result.cells} cells told as changed"
        f" ({result.changed_cells / result.cells:.1%})"
    )


if __name__ == "__main__":
    {"fit": fit, "measure": measure, "season": season}[sys.argv[1]](Path(sys.argv[2]))
