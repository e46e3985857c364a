"""Which cells a person should look at next: uncertain ones that differ from each other.

The rule is of two known parts, both without chance. *Margin sampling* (Scheffer, Decomain and
Wrobel, Active Hidden Markov Models for Information Extraction, IDA 2001) asks where the two most
probable classes are closest. Alone it asks the same question again and again, so the cells of small
margin are only the pool, as in Cluster-Margin (Citovsky et al., Batch Active Learning at Scale,
NeurIPS 2021). From the pool cells are picked one by one, each the one with the most to tell: its
uncertainty times its distance from what was picked before, the farthest-first order of k-center
selection (Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set
Approach, ICLR 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rssc_geo.errors import UsageError
from rssc_geo.options import OutputOptions
from rssc_geo.output import check_file, read_cells
from rssc_geo.reports.review_layer import review_path, write_review

POOL = 20  # cells of small margin a cell wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """What is known of n cells.

    ``first``, ``second`` (n,): the two most probable classes, as any values that tell classes
    apart; ``confidence``, ``margin`` (n,): the probability of the first, and how much that of the
    second is below it; ``places`` (n, 2): where they lie, in units of the scene's diagonal.
    """

    first: np.ndarray
    second: np.ndarray
    confidence: np.ndarray
    margin: np.ndarray
    places: np.ndarray

    def __post_init__(self) -> None:
        shapes = [
            values.shape
            for values in (self.first, self.second, self.confidence, self.margin, self.places)
        ]
        if shapes[0] != (len(self.first),) or shapes != [shapes[0]] * 4 + [(len(self.first), 2)]:
            raise ValueError(f"not n cells: {shapes}")


def choose(cells: Doubts, count: int) -> np.ndarray:
    """Indices of the ``count`` cells to look at, the most useful first; all of them where there are
    fewer.

    The first is the one of the smallest margin. Each further one has the largest (1 − margin) · d,
    d being its distance to the nearest one picked: half the squared distance between their class
    probabilities, of which only the two largest are known, plus the squared distance between their
    places. The earlier of equals goes first.
    """
    pool = np.argsort(cells.margin, kind="stable")[: POOL * count]
    names, ids = np.unique(
        np.concatenate([cells.first[pool], cells.second[pool]]), return_inverse=True
    )
    first, second = np.split(ids, 2)
    top = cells.confidence[pool]
    # A model of one class has no second.
    runner = np.where(first == second, 0.0, top - cells.margin[pool])
    squares, places = top**2 + runner**2, cells.places[pool]

    def apart(at: int) -> np.ndarray:
        belief = np.zeros(len(names))
        belief[first[at]] += top[at]
        belief[second[at]] += runner[at]
        beliefs = squares + squares[at] - 2 * (top * belief[first] + runner * belief[second])
        return np.asarray(beliefs / 2 + ((places - places[at]) ** 2).sum(axis=1))

    return np.asarray(pool[farthest_first(1.0 - cells.margin[pool], apart, count)])


def farthest_first(weight: np.ndarray, apart: Callable[[int], np.ndarray], count: int) -> list[int]:
    """Indices of ``count`` points, or all: the first, then always the one with the largest weight ×
    distance.

    ``weight`` (n,), above 0; ``apart(i)`` gives the squared distances (n,) to point ``i``; distance
    means that to the nearest point picked. The first of equals is taken.
    """
    chosen: list[int] = []
    nearest = np.full(len(weight), np.inf)
    left = np.ones(len(weight), bool)
    while len(chosen) < min(count, len(weight)):
        at = int(np.argmax(np.where(left, weight * np.sqrt(nearest), -1.0))) if chosen else 0
        chosen.append(at)
        left[at] = False
        nearest = np.minimum(nearest, np.maximum(apart(at), 0.0))
    return chosen


def check_review(options: OutputOptions, count: int) -> None:
    """Refuse before the work starts what could not be written at its end."""
    if count < 1:
        raise UsageError(f"--review {count} is not a number of cells; give 1 or more")
    check_file(review_path(options.path), overwrite=options.overwrite)


def add_review(options: OutputOptions, count: int, *, cells_shape: tuple[int, int]) -> Path:
    """Choose ``count`` cells of the finished map and add them to it as the layer ``review``; the
    file that holds it.

    ``cells_shape``: (rows, columns) of the grid. Memory is bounded by ``count``, whatever the size
    of the map.
    """
    cells = read_cells(options.path)
    pool = cells.schema.empty_table()
    for batch in cells.batches():
        pool = pa.concat_tables([pool, pa.Table.from_batches([batch])])
        # By place among equals: the order in the file, which differs between formats, has no say.
        order = np.lexsort([pool.column(name).to_numpy() for name in ("col", "row", "margin")])
        pool = pool.take(order[: POOL * count])
    chosen = pool.take(choose(doubts(pool, cells_shape), count))
    reasons = [
        _reason(cell)
        for cell in chosen.select(["class", "runner_up", "confidence", "margin"]).to_pylist()
    ]
    ranked = chosen.append_column("rank", pa.array(range(1, len(chosen) + 1), pa.int32()))
    filled = ranked.append_column("reason", pa.array(reasons, pa.string()))
    labeled = filled.append_column("label", pa.nulls(len(chosen), pa.string()))
    return write_review(options, labeled, crs=cells.crs)


def doubts(cells: pa.Table, cells_shape: tuple[int, int]) -> Doubts:
    """What is known of cells in a table with the cells' fields.

    ``cells_shape`` is (rows, columns) of the whole grid.
    """
    classes = cells.column("class").to_pylist()
    runners = cells.column("runner_up").to_pylist()
    return Doubts(
        first=np.array(classes, object),
        second=np.array(
            [runner or own for own, runner in zip(classes, runners, strict=True)], object
        ),
        confidence=cells.column("confidence").to_numpy(),
        margin=cells.column("margin").to_numpy(),
        places=np.stack([cells.column(name).to_numpy() for name in ("row", "col")], axis=1)
        / np.hypot(*cells_shape),
    )


def _reason(cell: Mapping[str, object]) -> str:
    """For example ``41 % Farmland or 38 % Meadow``."""
    confidence, margin = float(str(cell["confidence"])), float(str(cell["margin"]))
    own = f"{confidence:.0%} {cell['class']}".replace("%", " %", 1)
    if cell["runner_up"] is None:
        return own
    return f"{own} or {100 * (confidence - margin):.0f} % {cell['runner_up']}"
