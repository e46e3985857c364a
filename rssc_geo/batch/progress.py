"""The figures of a batch: estimate, progress and result."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rssc_geo.batch.inputs import Jobs, Problem
from rssc_geo.batch.job import Job, JobState
from rssc_geo.batch.journal import SceneFigures
from rssc_geo.errors import RsscGeoError
from rssc_geo.inference import estimated_seconds
from rssc_geo.models import ModelCard
from rssc_geo.progress import duration

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger(__name__)

_STAGES = ("reading", "model", "writing")
_OPENED_AT_ONCE = 8  # opening mostly waits for a disk or a server
_BYTES_A_CELL = 410
"""Bytes a cell of a GeoPackage with captions, its share of regions included (measured)."""
_BYTES_A_MAP = 150_000
"""Bytes of the styles and metadata of a GeoPackage."""


# Before the run.


@dataclass(frozen=True, slots=True)
class SceneEstimate:
    """A scene of a plan, or the reason why there is none.

    ``state``: "done" or "empty" by an earlier run, "failed" now or (``known``) then, "waiting";
    ``tiles``: of a fine map blocks; ``bytes_in``: None where that is not known without reading (a
    URL); ``seconds_on_cpu``: on this machine's processor, None where the model's card gives no
    rate.
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
    known: bool = False
    seconds_on_cpu: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        # Not by asdict, which copies value by value: a batch has thousands.
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The plan of a batch.

    ``plan``: the scenes and the inputs that give none.
    """

    plan: tuple[SceneEstimate, ...]

    @property
    def scenes(self) -> int:
        """How many scenes are left to do."""
        return sum(entry.state == "waiting" for entry in self.plan)

    def as_dict(self) -> dict[str, Any]:
        """Sums, and the plan, as plain data; seconds are those of this machine's processors."""
        tiles = sum(entry.tiles for entry in self.plan)
        cells = sum(entry.cells for entry in self.plan)
        seconds = [entry.seconds_on_cpu for entry in self.plan if entry.state == "waiting"]
        known = [value for value in seconds if value is not None]
        return {
            "scenes": self.scenes,
            "skipped": sum(entry.state == "done" for entry in self.plan),
            "empty": sum(entry.state == "empty" for entry in self.plan),
            "failed": [
                {"input": entry.input, "error": entry.error, "known": entry.known}
                for entry in self.plan
                if entry.state == "failed"
            ],
            "tiles": tiles,
            "cells": cells,
            "bytes_in": sum(entry.bytes_in or 0 for entry in self.plan),
            "estimated_bytes_out": cells * _BYTES_A_CELL + self.scenes * _BYTES_A_MAP,
            "estimated_seconds_on_cpu": (
                round(sum(known), 1) if len(known) == len(seconds) else None
            ),
            "plan": [entry.as_dict() for entry in self.plan],
        }


def estimate_batch(
    jobs: Jobs, states: Sequence[JobState], card: ModelCard, known: Collection[str]
) -> BatchPlan:
    """Open every scene that is left to do, several at once, and sum up their sizes and times.

    A raster that several of them name is opened once, and no pixel is read. ``states``: of the
    jobs, in their order; ``known``: inputs that gave none in an earlier run.
    """
    told = list(zip(jobs.jobs, states, strict=True))
    waiting = {job.planned_by: job for job, state in told if state.name == "waiting"}
    with ThreadPoolExecutor(_OPENED_AT_ONCE) as threads:
        estimates = threads.map(lambda job: _estimate(job, card), waiting.values())
        opened = dict(zip(waiting, estimates, strict=True))
    scenes = [
        replace(opened[job.planned_by], id=job.id, output=str(job.output))
        if state.name == "waiting"
        else _known_estimate(job, state)
        for job, state in told
    ]
    none = [
        SceneEstimate(
            problem.label,
            problem.label,
            "",
            "failed",
            error=problem.message,
            known=problem.label in known,
        )
        for problem in jobs.problems
    ]
    return BatchPlan((*scenes, *none))


def _known_estimate(job: Job, state: JobState) -> SceneEstimate:
    known, output = state.name == "failed", str(job.output)
    return SceneEstimate(job.id, job.label, output, state.name, error=state.error, known=known)


def _estimate(job: Job, card: ModelCard) -> SceneEstimate:
    output = str(job.output)
    try:
        plan = job.plan(card, looks=False)
    except RsscGeoError as error:
        return SceneEstimate(job.id, job.label, output, "failed", error=str(error))
    local = [os.path.getsize(file) for file in plan.scene.files if os.path.isfile(file)]
    return SceneEstimate(
        job.id,
        job.label,
        output,
        "waiting",
        plan.scene.shape,
        tiles=len(plan.unit_cells.tiles()),
        cells=int(plan.selected.sum()),
        bytes_in=sum(local) if local else None,
        seconds_on_cpu=estimated_seconds(plan, card),
    )


# During the run.


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """Progress of a batch.

    ``done`` scenes include those of earlier runs; ``done_share`` (0–1) also counts what is done of
    scenes in progress; ``tiles``, of fine maps blocks, are those of this run; ``seconds_left`` is
    None before anything is known of them.
    """

    scenes: int
    done: int
    failed: int
    done_share: float
    tiles: int
    tiles_per_s: float
    seconds_left: float | None


OnProgress = Callable[[BatchProgress], None]


class Tracker:
    """Counts the events of a run, and reports them to ``progress`` at every tick.

    Scenes weigh the same: how many tiles one has is not known before it is opened.
    """

    def __init__(self, scenes: int, *, progress: OnProgress | None = None) -> None:
        self.dtype: str | None = None
        self._scenes = scenes
        self._finished = self._skipped = self._empty = 0
        self._failures: list[Problem] = []
        self._problems: list[Problem] = []
        self._tiles = self._looked = self._cells = 0
        self._areas_m2: dict[str, float] = {}
        self._workers: set[str] = set()  # devices of this machine, or addresses
        self._stages = dict.fromkeys(_STAGES, 0.0)
        self._progress = progress
        # Of scenes in progress: the share that is done at their beginning and now; their tiles.
        self._shares: dict[str, tuple[float, float]] = {}
        self._sizes: dict[str, int] = {}
        self._started = self._ticked = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def skip(self, row: Mapping[str, Any]) -> None:
        """A scene that an earlier run has done; ``row`` of the journal."""
        self._skipped += 1
        self._add(row["cells"], row["classes"])

    def start(self, key: str, *, tiles: int, done: int) -> None:
        """A scene is started or resumed."""
        self._sizes[key] = max(1, tiles)
        self._shares[key] = (done / self._sizes[key],) * 2

    def advance(self, key: str, *, done: int, tiles: int, looked: int) -> None:
        """More tiles of a scene are written: its total, and ``tiles`` of them now."""
        self._tiles += tiles
        self._looked += looked
        self._shares[key] = (self._shares[key][0], done / self._sizes[key])

    def add_worker(self, name: str) -> None:
        """A worker has classified a block."""
        self._workers.add(name)

    def finish(self, key: str, figures: SceneFigures) -> None:
        """A scene is finished."""
        self._finished += 1
        self._shares[key] = (self._shares[key][0], 1.0)
        for stage in _STAGES:
            self._stages[stage] += getattr(figures, f"{stage}_s")
        self._add(figures.cells, figures.classes)

    def add_problem(self, problem: Problem) -> None:
        """An input gives no scene; it is reported at once."""
        log.error("%s", problem)
        self._problems.append(problem)

    def fail(self, key: str, problem: Problem) -> None:
        """A scene has failed; it is reported at once."""
        log.error("%s", problem)
        self._failures.append(problem)
        self._shares.pop(key, None)

    def leave_empty(self, key: str) -> None:
        """A scene has nothing to classify."""
        self._empty += 1
        self._shares.pop(key, None)

    def _add(self, cells: int, classes: Sequence[Mapping[str, Any]]) -> None:
        self._cells += cells
        for entry in classes:
            area = self._areas_m2.get(entry["name"], 0.0)
            self._areas_m2[entry["name"]] = area + entry["area_m2"]

    def tick(self, seconds: float) -> bool:
        """Report progress when that long has passed since the last report; whether it has."""
        if time.monotonic() - self._ticked < seconds:
            return False
        self._ticked = time.monotonic()
        if self._progress is not None:
            self._progress(self.now())
        return True

    def now(self) -> BatchProgress:
        """The progress of the run."""
        over = self._skipped + self._empty + len(self._failures)
        share = over + sum(now for _, now in self._shares.values())
        gained = sum(now - first for first, now in self._shares.values())
        left = (self._scenes - share) * self.seconds / gained if gained > 0 else None
        return BatchProgress(
            self._scenes,
            self._skipped + self._finished,
            len(self._failures),
            share / max(1, self._scenes),
            self._tiles,
            self._tiles / max(self.seconds, 1e-3),
            left,
        )

    def result(self) -> BatchResult:
        """The result of the run."""
        spent = sum(self._stages.values()) or 1.0
        return BatchResult(
            scenes=self._scenes,
            done=self._skipped + self._finished,
            skipped=self._skipped,
            empty=self._empty,
            failed=(*self._failures, *self._problems),
            tiles=self._tiles,
            tiles_classified=self._looked,
            tiles_per_s=round(self._tiles / max(self.seconds, 1e-3), 2),
            cells=self._cells,
            area_m2=_largest_first(self._areas_m2),
            seconds=round(self.seconds, 3),
            workers=tuple(sorted(self._workers)),
            dtype=self.dtype,
            time_share={name: round(took / spent, 4) for name, took in self._stages.items()},
        )


@contextmanager
def reporting(
    progress: OnProgress | bool | None,  # noqa: FBT001 -- as in the verbs
) -> Iterator[OnProgress | None]:
    """What ``progress`` of ``run_batch`` means: True is a bar on stderr, False or None nothing."""
    if progress is True:
        bar = _Bar()
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield progress or None


class _Bar:
    """A bar on stderr over all scenes."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None

    def __call__(self, now: BatchProgress) -> None:
        from tqdm import tqdm

        if self._bar is None:
            shape = "{percentage:3.0f}%|{bar}| {desc}"
            self._bar = tqdm(total=1.0, file=sys.stderr, bar_format=shape)
        left = "" if now.seconds_left is None else f", {duration(now.seconds_left)} left"
        failed = f", {now.failed} failed" if now.failed else ""
        text = (
            f"{now.done}/{now.scenes} scenes{failed}, {now.tiles} tiles or blocks,"
            f" {now.tiles_per_s:.1f}/s{left}"
        )
        self._bar.n = now.done_share
        self._bar.set_description_str(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


# After the run.


def _largest_first(areas_m2: Mapping[str, float]) -> dict[str, float]:
    areas = sorted(areas_m2.items(), key=lambda item: -item[1])
    return {name: round(area, 1) for name, area in areas}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """The result of a batch.

    Attributes
    ----------
    scenes, done : how many there are, and are done
    skipped : those of the latter that earlier runs have done
    empty : how many have nothing to classify
    failed : every other input that gave no map, why, and whether it was known
    tiles, tiles_classified : of this run (of fine maps: blocks), and those of them that the network
        processed
    tiles_per_s, seconds : of this run
    cells, area_m2 : of all maps, or of the merged one; m² of each class, the largest first
    workers, dtype : devices or addresses that classified, and in which precision
    time_share : shares (0–1) of reading, model and writing in the work
    outputs : the files of the merged map, the main one first; None without merging
    """

    scenes: int
    done: int
    skipped: int
    empty: int
    failed: tuple[Problem, ...]
    tiles: int
    tiles_classified: int
    tiles_per_s: float
    cells: int
    area_m2: Mapping[str, float]
    seconds: float
    workers: tuple[str, ...]
    dtype: str | None
    time_share: Mapping[str, float]
    outputs: tuple[Path, ...] | None = None

    def merged(self, outputs: tuple[Path, ...], totals: Mapping[str, tuple[int, float]]) -> Self:
        """The same with the files of the merged map, and with its cells and m² of each class."""
        return replace(
            self,
            outputs=outputs,
            cells=sum(cells for cells, _ in totals.values()),
            area_m2=_largest_first({name: area for name, (_, area) in totals.items()}),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it; ``outputs`` only of a merged map."""
        values: dict[str, Any] = {
            "scenes": self.scenes,
            "done": self.done,
            "skipped": self.skipped,
            "empty": self.empty,
            "failed": [
                {"input": each.label, "error": each.message, "known": each.known}
                for each in self.failed
            ],
            "tiles": self.tiles,
            "tiles_classified": self.tiles_classified,
            "tiles_per_s": self.tiles_per_s,
            "cells": self.cells,
            "area_m2": dict(self.area_m2),
            "seconds": self.seconds,
            "workers": list(self.workers),
            "dtype": self.dtype,
            "time_share": dict(self.time_share),
        }
        if self.outputs is not None:
            values["outputs"] = [str(path) for path in self.outputs]
        return values
