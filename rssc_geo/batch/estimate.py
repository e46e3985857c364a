"""What a batch would do, before any of it is: scenes, tiles, bytes, time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rssc_geo.batch.inputs import Job, Jobs
from rssc_geo.batch.resume import Standing
from rssc_geo.batch.worker import processors
from rssc_geo.errors import RsscGeoError
from rssc_geo.inference import CellMap, make_plan
from rssc_geo.models import ModelCard

_OPENED_AT_ONCE = 8  # opening is mostly waiting for a disk or a server
# Of a GeoPackage with captions, measured: what each cell adds (its share of the regions included),
# and what styles and metadata take.
_BYTES_A_CELL = 410
_BYTES_A_MAP = 150_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A scene of the plan, or why there is none.

    ``state``: "done" by an earlier run, "failed" now or then, "waiting"; ``bytes_in``: None where
    that is not known without reading (a URL).
    """

    id: str
    input: str
    output: str
    state: str
    size_px: tuple[int, int] | None = None
    tiles: int = 0
    cells: int = 0
    bytes_in: int | None = None
    error: str = ""


def estimate(jobs: Jobs, standings: Sequence[Standing], card: ModelCard) -> Iterator[Estimate]:
    """Open every scene that is left to do, several at once, and say what it would take.

    In the jobs' order.
    """
    with ThreadPoolExecutor(_OPENED_AT_ONCE) as threads:
        yield from threads.map(lambda job, now: _estimate(job, now, card), jobs.jobs, standings)
    for problem in jobs.problems:
        yield Estimate(problem.label, problem.label, "", "failed", error=problem.message)


def totals(estimates: list[Estimate], card: ModelCard) -> dict[str, Any]:
    """Sums of a plan.

    Seconds are those of this machine's processors, None where the model's card gives no rate.
    """
    tiles = sum(entry.tiles for entry in estimates)
    cells = sum(entry.cells for entry in estimates)
    rate = card.cpu_tiles_per_s
    scenes = sum(entry.state == "waiting" for entry in estimates)
    return {
        "scenes": scenes,
        "done_before": sum(entry.state == "done" for entry in estimates),
        "failed": [
            {"input": entry.input, "error": entry.error} for entry in estimates if entry.error
        ],
        "tiles": tiles,
        "cells": cells,
        "bytes_in": sum(entry.bytes_in or 0 for entry in estimates),
        "estimated_bytes_out": cells * _BYTES_A_CELL + scenes * _BYTES_A_MAP,
        "estimated_seconds_on_cpu": (
            None if rate is None else round(tiles / (rate * processors()), 1)
        ),
    }


def _estimate(job: Job, now: Standing, card: ModelCard) -> Estimate:
    if now.state != "waiting":
        return Estimate(job.id, job.label, str(job.output), now.state, error=now.error)
    try:
        plan = make_plan(
            job.source[0] if len(job.source) == 1 else job.source, card, job.options.tiling
        )
    except RsscGeoError as error:
        return Estimate(job.id, job.label, str(job.output), "failed", error=str(error))
    tiles = len(CellMap(plan.grid, plan.selected, min_valid=job.options.tiling.min_valid).tiles())
    local = [os.path.getsize(file) for file in plan.scene.files if os.path.isfile(file)]
    size = sum(local) if local else None
    return Estimate(
        job.id,
        job.label,
        str(job.output),
        "waiting",
        plan.scene.shape,
        tiles,
        int(plan.selected.sum()),
        size,
    )
