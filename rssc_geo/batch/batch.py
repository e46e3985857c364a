"""``run_batch``: from inputs to maps; ``plan_batch``: before that; ``read_status``: after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rssc_geo.batch.inputs import (
    Jobs,
    check_not_listed,
    check_values,
    collect_jobs,
    output_folder,
)
from rssc_geo.batch.job import job_state
from rssc_geo.batch.journal import NAME, STATES, Journal, key_of, read_journal
from rssc_geo.batch.merge import merge_done
from rssc_geo.batch.pool import LocalPool, Pool
from rssc_geo.batch.progress import (
    BatchPlan,
    BatchResult,
    OnProgress,
    Tracker,
    estimate_batch,
    reporting,
)
from rssc_geo.batch.runner import Runner
from rssc_geo.captioning import check_captioner
from rssc_geo.errors import InputError, OutputError, UsageError
from rssc_geo.files import check_not_input, paths_of
from rssc_geo.inference import PredictorSpec
from rssc_geo.models import ModelCard, SceneClass, check_class_choice, legend_of, load_card
from rssc_geo.options import (
    BatchAreasOptions,
    BatchOptions,
    CaptionerOptions,
    files_read,
    values_of,
)
from rssc_geo.output import ALL, AreaRow, areas_of, check_table, read_totals, write_area_table


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch before any scene is opened.

    Attributes
    ----------
    card : of the model
    made_by : the parts of model and program on which every map depends
    jobs : what there is to do
    folder : of the outputs, where the journal is
    """

    card: ModelCard
    made_by: Mapping[str, object]
    jobs: Jobs
    folder: Path

    @classmethod
    def of(cls, inputs: Sequence[str | Path], output: str | Path, options: BatchOptions) -> _Batch:
        """As :func:`run_batch` is asked for it; errors as there."""
        card = load_card(options.model, revision=options.revision)
        made_by = check_batch(options, card)
        inputs = paths_of(inputs)
        jobs = collect_jobs(inputs, str(output), options)
        _check_outlines(jobs, options)
        _check_results(jobs, inputs, output, options)
        return cls(card, made_by, jobs, output_folder(str(output), options))


def run_batch(
    inputs: Sequence[str | Path],
    output: str | Path,
    options: BatchOptions | None = None,
    *,
    progress: OnProgress | bool | None = None,
    make_pool: Callable[[], Pool] | None = None,
) -> BatchResult:
    """Map many scenes.

    A scene's failure never stops the others. Running the same again goes on where it stopped.

    Parameters
    ----------
    inputs : rasters (paths, URLs), globs, folders, ``.txt`` or ``.csv`` manifests, ``.json`` STAC
        (path or URL) and vector files with a column ``location``
    output : a template with ``{stem}`` or ``{id}``, a folder (for ``{id}.gpkg`` in it), or with
        ``merge`` the one file of all
    options : all that the command line has; its defaults
    progress : True for a bar on stderr, or a function that is called every second or so
    make_pool : makes what classifies, instead of the devices or the cluster of the options

    Raises
    ------
    RsscGeoError
        For errors that concern all scenes: another batch at work in the folder, a journal or model
        that cannot be used, no scheduler, a full disk.

    Examples
    --------
    >>> from rssc_geo import BatchOptions, run_batch
    >>> result = run_batch(["scene.tif"], "maps", BatchOptions(tile_size="900m"))
    >>> result.done, len(result.failed)
    (1, 0)
    """
    options = options or BatchOptions()
    batch = _Batch.of(inputs, output, options)
    jobs, legend = batch.jobs, _merged_legend(batch.jobs, options, batch.card)
    with (
        reporting(progress) as report,
        Journal(batch.folder, options={"output": output, **asdict(options)}) as journal,
    ):
        outcome = ""
        try:
            journal.add_problems((problem.label, problem.message) for problem in jobs.problems)
            tracker = Tracker(len(jobs.jobs), progress=report)
            for problem in jobs.problems:
                tracker.add_problem(replace(problem, known=problem.label in journal.known))
            runner = Runner(jobs.jobs, journal, options, made_by=batch.made_by, tracker=tracker)
            if runner.waiting:
                with contextlib.closing(make_pool() if make_pool else _make_pool(options)) as pool:
                    outcome = "stopped"
                    runner.run(pool)
            outcome = "stopped"
            result = tracker.result()
            if options.merge is not None:
                files = merge_done(jobs, journal, Path(output), options, legend)
                totals = read_totals(Path(output)) if files else []
                areas = {known.name: (known.cells, known.area_m2) for known in totals}
                result = result.merged(files, areas)
            tracker.tick(0)
            outcome = "failures" if result.failed else "done"
            return result
        finally:
            with contextlib.suppress(OutputError):  # a full disk has been reported already
                if outcome:
                    journal.end(outcome)
                else:
                    journal.withdraw()


def plan_batch(
    inputs: Sequence[str | Path], output: str | Path, options: BatchOptions | None = None
) -> BatchPlan:
    """What ``run_batch`` with the same arguments would do; nothing is written.

    Opens every scene that is left to do. Arguments and errors are those of ``run_batch``.
    """
    options = options or BatchOptions()
    batch = _Batch.of(inputs, output, options)
    folder = batch.folder
    known: dict[str, Any] = {"scenes": [], "problems": []}
    if (folder / NAME).is_file():
        known = read_journal(folder)
    rows = {scene["output"]: scene for scene in known["scenes"]}
    states = [
        job_state(
            job,
            rows.get(key_of(job.output, folder)),
            made_by=batch.made_by,
            folder=folder,
            retry_failed=options.retry_failed,
        )
        for job in batch.jobs.jobs
    ]
    labels = {problem["label"] for problem in known["problems"]}
    return estimate_batch(batch.jobs, states, batch.card, labels)


def read_status(place: str | Path) -> dict[str, Any]:
    """The journal of a batch as plain data.

    Parameters
    ----------
    place : the folder of the outputs, one of them, or the journal itself

    Returns
    -------
    The ``journal``'s path; ``counts`` of scenes by state; ``scenes``, each with its columns and
    ``blocks`` by state; ``problems`` of inputs that gave no scene; ``runs``

    Raises ``InputError`` where there is no journal, ``OutputError`` for one that is damaged or of
    another version.
    """
    place = Path(place)
    values = read_journal(place.parent if place.is_file() else place)
    states = [scene["state"] for scene in values["scenes"]]
    counts = {state: states.count(state) for state in STATES}
    return {"journal": values.pop("journal"), "counts": counts, **values}


@dataclass(frozen=True, slots=True)
class BatchAreas:
    """A table that was written: ``rows`` of all scenes together, then of each."""

    output: Path
    rows: tuple[AreaRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        rows = [asdict(row) for row in self.rows]
        return {
            "outputs": [str(self.output)],
            "areas": [{"scene": row.pop("zone"), **row} for row in rows],
        }


def tabulate_batch(
    place: str | Path, output: str | Path, options: BatchAreasOptions | None = None
) -> BatchAreas:
    """Write the areas of each class in each scene of a batch as CSV, from its journal alone.

    Only scenes that are done count; where scenes overlap, the rows of all count a place twice.

    Parameters
    ----------
    place : as of ``read_status``
    output : a .csv
    options : all that the command line has; its defaults

    Raises what ``read_status`` does, ``InputError`` where no scene is done, ``UsageError`` and
    ``OutputError`` for a table that cannot be written.

    Examples
    --------
    >>> from rssc_geo import run_batch, tabulate_batch
    >>> _ = run_batch(["scene.tif"], "maps")
    >>> table = tabulate_batch("maps", "areas.csv")
    >>> sorted({row.zone for row in table.rows})
    ['(all)', 'scene']
    """
    options, path = options or BatchAreasOptions(), Path(output)
    check_table(path, overwrite=options.overwrite)
    found = read_status(place)
    done = [scene for scene in found["scenes"] if scene["state"] == "done"]
    if not done:
        raise InputError(f"{found['journal']}: no scene is done")
    every = [entry for scene in done for entry in scene["classes"]]
    rows = areas_of(ALL, every)
    for scene in done:
        rows += areas_of(scene["id"], scene["classes"])
    write_area_table(path, rows, {}, overwrite=options.overwrite, of="scene")
    return BatchAreas(path, tuple(rows))


def _merged_legend(jobs: Jobs, options: BatchOptions, card: ModelCard) -> Sequence[SceneClass]:
    """The classes that a merged map may show; ``UsageError`` where scenes have different ones."""
    named = {job.words for job in jobs.jobs}
    if options.merge is not None and len(named) > 1:
        raise UsageError("--merge makes one map: give all scenes the same --classes")
    words = next(iter(named), None)
    return legend_of(card) if words is None else words.classes


def _check(options: BatchOptions) -> None:
    """Refuse values that every scene would refuse."""
    check_values(options)
    if options.classes is not None and (options.only_classes or options.exclude_classes):
        raise UsageError(
            "--only-classes and --exclude-classes are of the model's own classes, not of --classes"
        )
    if options.classes is None:
        if not options.other:
            raise UsageError("--no-other goes with --classes")
        if options.refine:
            raise UsageError("--refine goes with --classes")


def _check_outlines(jobs: Jobs, options: BatchOptions) -> None:
    """Refuse with ``UsageError`` to merge maps whose regions are not made of cells."""
    if options.merge is not None and any(job.options.snap for job in jobs.jobs):
        raise UsageError(
            "--merge cuts scenes that overlap cell by cell, which outlines of --snap do not follow:"
            " leave one of them out"
        )


def _check_results(
    jobs: Jobs, lists: Sequence[str | Path], output: str | Path, options: BatchOptions
) -> None:
    """Refuse with ``UsageError`` results that would replace or become what is read."""
    read = [str(name) for name in lists if not os.path.isdir(name)]
    results = [] if options.merge is None else [Path(output)]
    for job in jobs.jobs:
        read += job.source
        results += job.results
    for each in {id(job.options): job.options for job in jobs.jobs}.values():
        read += files_read(each)
    check_not_input(results, read)
    check_not_listed([str(name) for name in lists], results)


def check_batch(options: BatchOptions, card: ModelCard) -> dict[str, Any]:
    """The parts of model and program on which every map depends.

    The captioner is named as in the options: the part files' keys have its exact version. Raises
    ``UsageError`` for options that no scene could be mapped with.
    """
    _check(options)
    check_captioner(options, card)
    choice = check_class_choice(card, options)
    captioner = str(values_of(options, CaptionerOptions))
    return PredictorSpec(card, captioner, str(options.dtype), choice).as_dict()


def _make_pool(options: BatchOptions) -> Pool:
    if options.scheduler is None:
        return LocalPool(options, threads=options.threads)
    try:
        from rssc_geo.batch.dask_pool import DaskPool
    except ImportError as error:
        raise UsageError("--scheduler needs Dask; pip install 'rssc-geo[distributed]'") from error
    return DaskPool(options.scheduler, options)
