"""Steps over the set of cells, taken after the last tile of a map was classified.

A step reads no pixels. It reads the cells of the part file, in the order of the grid whatever
order, batch or run they came in, and gives them new probabilities. The part file stores the cells
and the record of the step in one transaction, so that no step is taken twice.
"""

from __future__ import annotations

import itertools
import logging
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rssc_geo.output.partfile import CellBatch, PartFile, Row, as_unknown, batch_of, make_rows
from rssc_geo.output.shares import LEAST_CELLS, TOLERANCE, estimate_shares
from rssc_geo.output.smoothing import CONTRAST, ROUNDS, STRENGTH, GridRow, smoothed
from rssc_geo.output.target import OutputTarget
from rssc_geo.output.unknown import MOST, UnknownRule

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

log = logging.getLogger(__name__)


def take_steps(
    part: PartFile, target: OutputTarget, classes: Sequence[SceneClass], *, unknown: UnknownRule
) -> Mapping[str, object]:
    """Take the steps that are asked for and were not taken yet.

    ``part``: of a run whose cells are complete, with their probabilities of ``classes``;
    ``unknown``: as when they were made. Unknown cells do not affect the others. Returns the record
    of each step, for provenance, by its option's name: the number of ``cells`` that it used, and
    ``done``, whether they were enough. Raises ``OutputError`` when the part file cannot be written.
    """
    if unknown.raster and "judge_raster" not in part.steps:
        _judge_raster(part, len(classes), unknown)
    if target.adapt_shares and "adapt_shares" not in part.steps:
        _adapt_shares(part, classes, unknown.cell)
    if target.smooth and "smooth" not in part.steps:
        _smooth(part, unknown.cell)
    return part.steps


def step_warnings(steps: Mapping[str, object]) -> Iterator[str]:
    """What the record of the steps warns of, in their order."""
    for name, record in steps.items():
        if not isinstance(record, Mapping):
            continue
        if name == "judge_raster" and record["done"]:
            reason = (
                "the raster has no colors, and the model has learned color photographs"
                if record["gray"]
                else f"{record['unfamiliar']:.0%} of the raster is unlike any photograph that the"
                " model has learned"
            )
            yield (
                f"{reason}: all cells are Unknown (--no-unknown names them nevertheless, expect"
                " wrong names)"
            )
        if name == "adapt_shares" and not record["done"]:
            yield (
                f"--adapt-shares: {record['cells']} cells are too few to estimate shares of classes"
                f" ({LEAST_CELLS} are needed): probabilities stay as they are"
            )


def _warn(name: str, record: Mapping[str, object]) -> None:
    """Log what a step warns of."""
    for text in step_warnings({name: record}):
        log.warning("%s", text)


def _judge_raster(part: PartFile, classes: int, rule: UnknownRule) -> None:
    """Make all cells ``Unknown`` where the raster as a whole is unlike the training pictures.

    A single cell of a map or of radar may resemble a photograph; most of them do not.
    """
    unfamiliar = part.share_below(rule.raster, but=rule.plain, confidence=rule.plain_confidence)
    gray = part.is_gray()
    strange = gray or unfamiliar > MOST
    record = {"cells": len(part), "unfamiliar": unfamiliar, "gray": gray, "done": strange}
    if not strange:
        part.take_step("judge_raster", record)
        return

    def change(chunks: Iterator[list[Row]]) -> Iterator[list[Row]]:
        for rows in chunks:
            yield as_unknown(rows, classes=classes)

    part.take_step("judge_raster", record, change)
    _warn("judge_raster", record)


def _adapt_shares(part: PartFile, classes: Sequence[SceneClass], unknown_below: float) -> None:
    cells = part.count_named()
    if cells < LEAST_CELLS:
        record: dict[str, object] = {"cells": cells, "done": False}
        part.take_step("adapt_shares", record)
        _warn("adapt_shares", record)
        return
    shares = estimate_shares(part.probabilities, classes=len(classes))

    def change(chunks: Iterator[list[Row]]) -> Iterator[list[Row]]:
        for rows in chunks:
            batch = batch_of(rows)
            yield _with(batch, shares.adapt(batch.probabilities), unknown_below)

    named = zip(classes, shares.values.tolist(), strict=True)
    record = {
        "cells": cells,
        "done": True,
        "rounds": shares.rounds,
        "tolerance": TOLERANCE,
        "shares": {known.name: share for known, share in named if share > 0},
    }
    part.take_step("adapt_shares", record, change)
    log.info("shares of the classes adapted to %d cells in %d rounds", cells, shares.rounds)


def _smooth(part: PartFile, unknown_below: float) -> None:
    def change(chunks: Iterator[list[Row]]) -> Iterator[list[Row]]:
        cells = itertools.chain.from_iterable(chunks)
        grouped = itertools.groupby(cells, key=operator.itemgetter(0))
        batches, seen = itertools.tee(batch_of(list(rows)) for _, rows in grouped)
        rows = (
            GridRow(
                int(batch.rows[0]),
                batch.cols,
                batch.probabilities,
                batch.colors,
                told=~(batch.familiarity < unknown_below),
            )
            for batch in seen
        )
        for batch, probabilities in zip(batches, smoothed(rows), strict=True):
            yield _with(batch, probabilities, unknown_below)

    cells = part.count_named()
    record = {
        "cells": cells,
        "done": True,
        "strength": STRENGTH,
        "contrast": CONTRAST,
        "rounds": ROUNDS,
    }
    part.take_step("smooth", record, change)
    log.info("%d cells smoothed with their neighbors", cells)


def _with(batch: CellBatch, probabilities: NDArray[np.float32], unknown_below: float) -> list[Row]:
    """Rows of the cells with other probabilities."""
    changed = replace(batch, probabilities=probabilities)
    return make_rows(changed, keep=True, unknown_below=unknown_below)
