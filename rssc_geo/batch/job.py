"""A job: a scene to map, its state by the journal, and its run once it is open."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rssc_geo.batch.block import BATCHES, Block, BlockResult, cut_blocks, spec_hash
from rssc_geo.batch.journal import (
    SceneFigures,
    Signature,
    existing,
    relative_name,
    signatures,
    unchanged,
)
from rssc_geo.batch.pool import Pool
from rssc_geo.inference import Plan, PredictorSpec, SceneRun, make_plan
from rssc_geo.models import ClassWords, ModelCard
from rssc_geo.options import BatchSceneOptions, options_of, values_of
from rssc_geo.output import LandUseSummary, legend_path, make_target, map_files
from rssc_geo.pipelines import sample_tiles
from rssc_geo.raster import is_remote
from rssc_geo.reports import Extras

WRITTEN = tuple(found.name for found in options_of(BatchSceneOptions) if found.is_written)
"""Options of a scene that name a file to write; other path options name files to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A scene to map.

    ``source`` has one raster, or three single-band ones; ``output`` is the file to write; ``words``
    name its classes, None: it gets the model's own.
    """

    id: str
    source: tuple[str, ...]
    output: Path
    options: BatchSceneOptions
    words: ClassWords | None = None

    @property
    def label(self) -> str:
        """The input as the user named it."""
        return ", ".join(self.source)

    @property
    def folder(self) -> Path:
        """The folder from which its files are named: that of its first raster."""
        return Path() if is_remote(self.source[0]) else Path(self.source[0]).parent

    @property
    def results(self) -> tuple[Path, ...]:
        """The files that are asked for: those of the map, and what is made beside it."""
        beside = (getattr(self.options, name) for name in WRITTEN)
        raster = self.options.class_raster
        legend = [] if raster is None else [legend_path(Path(raster))]
        named = (Path(name) for name in beside if name is not None)
        return (*map_files(self.output), *named, *legend)

    def plan(self, card: ModelCard, *, looks: bool = True) -> Plan:
        """Open the raster; raises what ``make_plan`` does. ``looks``: as there."""
        source = self.source[0] if len(self.source) == 1 else self.source
        return make_plan(source, card, self.options, looks=looks)

    @property
    def planned_by(self) -> tuple[tuple[str, ...], BatchSceneOptions]:
        """What its plan depends on."""
        no_matter: dict[str, Any] = dict.fromkeys((*WRITTEN, "date"))
        return self.source, replace(self.options, **no_matter)

    def options_hash(self, made_by: Mapping[str, object], folder: Path) -> str:
        """A short hash of everything on which the map depends, except the content of its files.

        ``made_by``: the parts of model and program; ``folder``: that of the journal. Files are
        named from these folders on, so that a run from elsewhere has the same hash.
        """
        options = values_of(self.options, BatchSceneOptions)
        options["classes"] = None if self.words is None else self.words.words
        home = self.folder
        for found in options_of(BatchSceneOptions):
            path = options[found.name]
            if found.declaration.path and path is not None:
                start = folder if found.name in WRITTEN else home
                options[found.name] = relative_name(str(path), start)
        source = [relative_name(name, home) for name in self.source]
        everything = {"source": source, "made_by": made_by, "options": options}
        text = json.dumps(everything, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of a job before the run.

    ``name``: "done", "empty" or "failed" where that was by the same options and of the same files,
    else "waiting"; ``error``: of an empty or failed one; ``ours``: whether the outputs that are
    there are as a batch left them.
    """

    name: str
    options_hash: str
    error: str = ""
    ours: bool = False


def job_state(
    job: Job,
    row: Mapping[str, Any] | None,
    *,
    made_by: Mapping[str, object],
    folder: Path,
    retry_failed: bool,
) -> JobState:
    """The state of a job.

    Parameters
    ----------
    row : of the job in the journal of ``folder``
    made_by : the parts of model and program on which every map depends
    retry_failed : a failure does not count
    """
    options_hash = job.options_hash(made_by, folder)
    if row is None:
        return JobState("waiting", options_hash)
    outputs = row["output_files"] or []
    there = existing(outputs, folder)
    ours = bool(row["made"]) and unchanged(there, folder)
    same = (
        row["options_hash"] == options_hash
        and bool(row["input_files"])
        and unchanged(row["input_files"], job.folder)
    )
    # An output that was edited since is left alone, also where a file beside it was deleted.
    left = job.output.exists() and (len(there) == len(outputs) or not ours)
    if same and row["state"] == "done" and left:
        return JobState("done", options_hash, ours=ours)
    if same and row["state"] == "empty":
        return JobState("empty", options_hash, row["error"], ours)
    if same and row["state"] == "failed" and not retry_failed:
        error = f"{row['error']} (failed before: --retry-failed tries again)"
        return JobState("failed", options_hash, error, ours)
    return JobState("waiting", options_hash, ours=ours)


@dataclass(slots=True)
class OpenJob:
    """A job whose scene is open: its blocks and their state.

    Blocks are numbered; their results may come in any order and are written in theirs.

    Attributes
    ----------
    run, extras : the scene's run, and what is made beside its map
    input_files : signatures of what is read
    started : of the monotonic clock, when opening began
    next_submit, next_write : the first block not yet started, and the first not yet written
    retries : blocks that have failed and are to be started again
    arrived : results that wait for an earlier block
    cancels : functions that cancel the blocks in progress
    attempts : how often each block was started
    work : what a thread does with its part file: it writes to it, or makes the map; None: nothing
    over : it has failed; results that still arrive are dropped
    reading_s, model_s, writing_s : seconds of work so far
    written, looked : tiles (of a fine map: blocks) of this run that are written, and those of them
        that the network processed
    """

    job: Job
    run: SceneRun
    extras: Extras
    blocks: list[Block]
    input_files: list[Signature]
    started: float
    next_submit: int = 0
    next_write: int = 0
    retries: list[int] = field(default_factory=list)
    arrived: dict[int, BlockResult] = field(default_factory=dict)
    cancels: dict[int, Callable[[], None]] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    work: Future[Any] | None = None
    over: bool = False
    reading_s: float = 0.0
    model_s: float = 0.0
    writing_s: float = 0.0
    written: int = 0
    looked: int = 0

    @property
    def done(self) -> int:
        """Tiles that are written, those of earlier runs included."""
        return len(self.run.tiles) - len(self.run.remaining) + self.written

    def next_block(self) -> int | None:
        """The block to start next, those that failed before first; None when all are under way."""
        if self.retries:
            return self.retries.pop(0)
        if self.next_submit < len(self.blocks):
            self.next_submit += 1
            return self.next_submit - 1
        return None

    def add(self, number: int, result: BlockResult) -> None:
        """Keep a block's result until it can be written."""
        self.reading_s += result.reading_s
        self.model_s += result.model_s
        self.looked += int(result.looked.sum())
        self.arrived[number] = result

    def pop_ready(self) -> list[BlockResult]:
        """Results that can be written now, in order; they are no longer held."""
        results: list[BlockResult] = []
        while (number := self.next_write + len(results)) in self.arrived:
            results.append(self.arrived.pop(number))
        return results

    def write(self, results: list[BlockResult]) -> float:
        """Put results into the part file; the seconds it took.

        Raises ``OutputError`` when that cannot be written.
        """
        started = time.monotonic()
        for result in results:
            self.run.take(result.unpack(self.run.plan.units))
        return time.monotonic() - started

    def finish(self) -> tuple[SceneFigures, list[Path]]:
        """Write the map and the files beside it: its figures and files.

        Raises what ``SceneRun.finish`` does, ``OutputError`` for a file beside it that cannot be
        made.
        """
        started = time.monotonic()
        seconds = round(started - self.started, 1)
        summary = self.run.finish({"seconds": seconds, "tiles_classified": self.looked})
        files = [*summary.paths, *self.extras.write(summary, self.run)]
        self.writing_s += time.monotonic() - started
        return self._figures(summary), files

    def _figures(self, summary: LandUseSummary) -> SceneFigures:
        return SceneFigures(
            summary.cells,
            [asdict(total) for total in summary.present],
            seconds=round(time.monotonic() - self.started, 3),
            reading_s=round(self.reading_s, 3),
            model_s=round(self.model_s, 3),
            writing_s=round(self.writing_s, 3),
        )

    def close(self) -> None:
        """Close the part file as soon as no thread works with it.

        The next identical run continues from it.
        """
        if self.work is None:
            self.run.close()
        else:
            self.work.add_done_callback(lambda _: self.run.close())


def open_job(job: Job, pool: Pool, *, overwrite: bool) -> OpenJob:
    """Plan a job's scene, fit its scaling and open its part file.

    Parameters
    ----------
    pool : the workers that will classify it
    overwrite : whether files that are there may be replaced

    Raises an ``RsscGeoError`` for a raster, options or output that cannot be used.
    """
    started, options = time.monotonic(), job.options
    words = job.words
    spec = pool.spec if words is None else pool.named_spec(words)
    plan = job.plan(spec.card)
    if words is not None and options.refine:
        words = pool.refined(_sample(plan, spec, words))
        spec = pool.named_spec(words)
    for path in job.results:
        path.parent.mkdir(parents=True, exist_ok=True)
    target = make_target(
        job.output, options, overwrite=overwrite, area=plan.area, inputs=plan.inputs()
    )
    extras = Extras(options, target, plan)
    input_files = signatures({*job.source, *plan.inputs()}, job.folder)
    run = SceneRun(plan, target, spec)
    blocks = cut_blocks(run, tiles=BATCHES * pool.batch_size, words=words)
    return OpenJob(job, run, extras, blocks, input_files, started)


def _sample(plan: Plan, spec: PredictorSpec, words: ClassWords) -> Block:
    """The tiles of a scene that its classes are refined on."""
    return Block(
        plan.scene,
        plan.grid,
        plan.radiometry,
        sample_tiles(plan),
        plan.options.min_valid,
        spec_hash(spec),
        words,
    )
