"""Dates of one area: each classified into its own part file, then read side by side.

No torch here. The comparison is a function of the cells that all dates share, in the order of the
grid, so that batches, blocks and interruptions do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rssc_geo.closing import Closing
from rssc_geo.errors import NothingToClassifyError
from rssc_geo.inference.comparison import (
    CellClasses,
    ChangeCalibration,
    DateCells,
    decide_classes,
    mean_date,
    split_signals,
    typical_signals,
)
from rssc_geo.inference.plan import Plan, PredictorSpec
from rssc_geo.inference.scene_run import SceneRun
from rssc_geo.output import OutputTarget, PartFile, table_of
from rssc_geo.progress import Progress

if TYPE_CHECKING:
    from rssc_geo.inference.predictor import Predictor


@dataclass(frozen=True, slots=True)
class SeriesCells:
    """n cells that all dates have: ``rows``, ``cols`` int32 (n,), and each date's ``dates``."""

    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    dates: Sequence[DateCells]


@dataclass(frozen=True, slots=True)
class ComparedCells:
    """n cells and their changes, in the order of the grid.

    Attributes
    ----------
    rows, cols : int32 (n,)
    probability : float32 (n,), of a change
    split : int8 (n,), the likeliest first date that shows it, from 1
    changed : bool (n,)
    classes : before and after it
    typical : float64 (dates − 1, S), the typical signals of each split
    least : the probability from which on a cell counts as changed
    """

    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    probability: NDArray[np.float32]
    split: NDArray[np.int8]
    changed: NDArray[np.bool_]
    classes: CellClasses
    typical: NDArray[np.float64]
    least: float


def compare_series(
    series: Callable[[], Iterator[SeriesCells]],
    calibration: ChangeCalibration,
    *,
    least: float | None,
) -> ComparedCells:
    """Compare the dates of all cells.

    ``series`` gives the cells in chunks, the same at each call: they are read twice, since the
    typical signals of the scene are known only at the end. ``least``: the probability from which on
    a cell counts as changed, None: the calibration's. Memory: some 40 bytes a cell, and 8 for each
    further date.
    """
    rows, cols, signals = _signals(series())
    least = calibration.least if least is None else least
    splits = range(signals.shape[1])
    typical = np.stack([typical_signals(signals[:, split]) for split in splits])
    chances = np.stack(
        [calibration.probability(signals[:, split], typical[split]) for split in splits], 1
    )
    best = chances.argmax(1)
    probability = chances[np.arange(len(best)), best]
    changed = probability >= least
    found = list(_classes(series(), best, changed))
    columns = ("before", "after", "before_confidence", "after_confidence")
    classes = CellClasses(
        *(np.concatenate([getattr(part, name) for part in found]) for name in columns)
    )
    return ComparedCells(
        rows, cols, probability, (best + 1).astype(np.int8), changed, classes, typical, least
    )


def _signals(
    series: Iterator[SeriesCells],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Rows, columns and signals (n, splits, S) of all cells."""
    parts = [(chunk.rows, chunk.cols, split_signals(chunk.dates)) for chunk in series]
    rows, cols, signals = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rows, cols, signals


def _classes(
    series: Iterator[SeriesCells], best: NDArray[np.intp], changed: NDArray[np.bool_]
) -> Iterator[CellClasses]:
    """The classes of chunk after chunk, each cell's series split at its ``best`` place."""
    start = 0
    for chunk in series:
        here = slice(start, start + len(chunk.rows))
        start = here.stop
        before, after = _split(chunk.dates, best[here])
        yield decide_classes(before, after, changed[here])


def _split(dates: Sequence[DateCells], best: NDArray[np.intp]) -> tuple[DateCells, DateCells]:
    """The dates before and from the split of each cell, as two."""
    sides = []
    for first in (True, False):
        means = [
            mean_date(dates[: place + 1] if first else dates[place + 1 :])
            for place in range(len(dates) - 1)
        ]
        at = np.arange(len(best))
        probabilities = np.stack([mean.probabilities for mean in means])[best, at]
        unknown = np.stack([mean.unknown for mean in means])[best, at]
        sides.append(DateCells(probabilities, None, unknown))
    return sides[0], sides[1]


class SceneSeries(Closing):
    """Scenes of one area, the earliest first, on the first one's cells; a context manager.

    Each has a part file beside ``target``, so that a run that was stopped continues. ``plans``: of
    the dates, see ``plan_later_date``; ``target``: of the result. Raises ``OutputError`` where
    another process writes the same, ``UsageError`` for a model without embeddings.
    """

    def __init__(self, plans: Sequence[Plan], target: OutputTarget, spec: PredictorSpec) -> None:
        self.plans, self.spec = plans, spec
        self._width = plans[0].grid.cells_shape[1]
        self._stack = ExitStack()
        self._runs: list[SceneRun] = []
        self._parts: list[PartFile] = []
        try:
            for number, plan in enumerate(plans, start=1):
                name = f"{target.path.stem}.date{number}{target.path.suffix}"
                own = replace(
                    target, path=target.path.with_name(name), probabilities=True, embeds=True
                )
                self._runs.append(self._stack.enter_context(SceneRun(plan, own, spec)))
        except BaseException:
            self._stack.close()
            raise

    def classify(self, predictor: Predictor, progress: Progress) -> int:
        """Classify the remaining tiles of each date; how many the network processed.

        Raises as ``SceneRun.settle``; where a date has no valid cell, nothing is kept.
        """
        total = sum(len(run.tiles) for run in self._runs)
        looked = before = 0
        for run in self._runs:
            start = before

            def report(stage: str, done: int, _total: int, start: int = start) -> None:
                progress(stage, start + done, total)

            looked += run.classify(predictor, report)
            before += len(run.tiles)
        try:
            self._parts = [run.settle() for run in self._runs]
        except NothingToClassifyError:  # so it would be again
            self.discard()
            raise
        return looked

    def cells(self) -> Iterator[SeriesCells]:
        """The cells that all dates have, in chunks."""
        streams = [_chunks(part, self._width) for part in self._parts]
        waiting = [next(stream, None) for stream in streams]
        while all(chunk is not None for chunk in waiting):
            chunks = [chunk for chunk in waiting if chunk is not None]
            end = min(int(chunk.keys[-1]) for chunk in chunks)
            shared = chunks[0].keys
            for chunk in chunks[1:]:
                shared = np.intersect1d(shared, chunk.keys, assume_unique=True)
            shared = shared[shared <= end]
            if len(shared):
                dates = [chunk.take(np.searchsorted(chunk.keys, shared)) for chunk in chunks]
                rows, cols = np.divmod(shared, self._width)
                yield SeriesCells(rows.astype(np.int32), cols.astype(np.int32), dates)
            waiting = [
                chunk.after(end) or next(stream, None)
                for chunk, stream in zip(chunks, streams, strict=True)
            ]

    def places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Rows and columns, int32 (n,) each, of all cells of the first date."""
        found = [np.array(chunk, np.int32).T for chunk in self._parts[0].read("row, col")]
        rows, cols = np.concatenate(found, 1)
        return rows, cols

    def discard(self) -> None:
        """Delete the part files: the result is in place."""
        for run in self._runs:
            run.discard()

    def close(self) -> None:
        """Close the part files; the next identical run continues from them."""
        self._stack.close()


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Cells of one date; ``keys`` int64 (n,), ascending: their places in the grid."""

    keys: NDArray[np.int64]
    cells: DateCells

    def take(self, places: NDArray[np.intp]) -> DateCells:
        cells = self.cells
        embeddings = None if cells.embeddings is None else cells.embeddings[places]
        return DateCells(cells.probabilities[places], embeddings, cells.unknown[places])

    def after(self, key: int) -> _Chunk | None:
        """The next item after a key; None where there is none."""
        first = int(np.searchsorted(self.keys, key, side="right"))
        if first == len(self.keys):
            return None
        return _Chunk(self.keys[first:], self.take(np.arange(first, len(self.keys))))


def _chunks(part: PartFile, width: int) -> Iterator[_Chunk]:
    for rows in part.read("row, col, class_id, probabilities, embedding"):
        row, col, class_ids, probabilities, halves = zip(*rows, strict=True)
        table = table_of(probabilities)
        yield _Chunk(
            np.array(row, np.int64) * width + np.array(col, np.int64),
            DateCells(
                table,
                table_of(halves, np.float16).astype(np.float32),
                np.array(class_ids) >= table.shape[1],
            ),
        )
