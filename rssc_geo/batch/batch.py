"""``run_batch``: from inputs to maps, with everything that this package has."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rssc_geo.batch.inputs import Job, Jobs, collect_jobs
from rssc_geo.batch.journal import NAME, Journal, key_of, read_status
from rssc_geo.batch.merge import RULES, Part, made_of, merge_scenes, merged_files
from rssc_geo.batch.options import SceneOptions
from rssc_geo.batch.pools import LocalPool, Pool
from rssc_geo.batch.progress import BatchProgress, OnProgress, Watch, write_prometheus
from rssc_geo.batch.resume import RunOptions, Standing, standing
from rssc_geo.batch.runner import Runner
from rssc_geo.batch.stamps import stamp, unchanged
from rssc_geo.batch.worker import EngineSpec
from rssc_geo.errors import OutputError, UsageError
from rssc_geo.inference import Maker
from rssc_geo.models import ModelCard, load_card

MERGED_CRS = "EPSG:4326"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What a batch is asked for; the defaults are those of the command line.

    ``output``: a template with ``{stem}`` or ``{id}``, a folder (for ``{id}.gpkg`` in it), or with
    ``merge`` (first, last, most-confident) the one file of all; ``asset``: see ``collect_jobs``;
    ``scheduler``: see ``DaskPool``, None for this machine; ``prometheus``: file of figures,
    replaced every second or so.
    """

    output: str
    merge: str | None = None
    asset: str | None = None
    scene: SceneOptions = field(default_factory=SceneOptions)
    engine: EngineSpec = field(default_factory=EngineSpec)
    scheduler: str | None = None
    attempts: int = 3
    retry_failed: bool = False
    overwrite: bool = False
    prometheus: Path | None = None

    def __post_init__(self) -> None:
        if self.merge is not None and self.merge not in RULES:
            raise UsageError(f"--merge {self.merge!r} is no rule: use {', '.join(RULES)}")
        if self.merge is not None and "{" in self.output:
            raise UsageError(
                f"--merge makes one file: --output {self.output!r} must have no placeholder"
            )
        if self.merge is not None and Path(self.output).suffix.lower() not in (".gpkg", ".parquet"):
            raise UsageError(f"--merge writes .gpkg or .parquet, not {Path(self.output).name}")
        if self.attempts < 1:
            raise UsageError(f"--attempts {self.attempts} is not a number of times; give 1 or more")

    @property
    def template(self) -> str:
        """Of the scenes' own outputs; those of a merged one lie in a folder beside it."""
        if self.merge is None:
            named = "{" in self.output or Path(self.output).suffix
            return self.output if named else str(Path(self.output) / "{id}.gpkg")
        return str(Path(self.output).with_suffix(".parts") / "{id}.gpkg")

    @property
    def folder(self) -> Path:
        """Where the journal lies: the last folder of the output that is the same for all scenes."""
        output = self.output if self.merge is not None else self.template
        return (
            Path(re.split(r"[^/\\]*\{", output, maxsplit=1)[0])
            if "{" in output
            else Path(output).parent
        )

    @property
    def run(self) -> RunOptions:
        """What of it concerns the run of the scenes."""
        crs = None if self.merge is None else self.scene.crs or MERGED_CRS
        return RunOptions(
            attempts=self.attempts,
            retry_failed=self.retry_failed,
            overwrite=self.overwrite,
            crs=crs,
        )


def plan_jobs(inputs: Sequence[str], options: BatchOptions) -> Jobs:
    """The jobs of a command, and what of its inputs gives none."""
    return collect_jobs(inputs, options.template, options.scene, asset=options.asset)


def standings(jobs: Sequence[Job], options: BatchOptions, card: ModelCard) -> list[Standing]:
    """How the jobs stand by the journal, if there is one; nothing is written.

    Raises what ``read_status`` does.
    """
    scenes = read_status(options.folder)["scenes"] if (options.folder / NAME).is_file() else []
    rows = {scene["output"]: scene for scene in scenes}
    made_by = _made_by(options, card)
    folder = options.folder
    return [
        standing(
            job, rows.get(key_of(job.output, folder)), options.run, made_by=made_by, folder=folder
        )
        for job in jobs
    ]


def run_batch(
    inputs: Sequence[str],
    options: BatchOptions,
    *,
    progress: OnProgress | None = None,
    make_pool: Callable[[], Pool] | None = None,
) -> dict[str, Any]:
    """Map all inputs and return the summary as plain data; ``failed`` lists every input that gave
    no map, and why.

    A scene's failure never stops the others. Running the same again goes on where it stopped.
    ``make_pool`` replaces who classifies.

    Raises ``RsscGeoError`` for what concerns all scenes: another batch at work in the folder, a
    journal or model that cannot be used, no scheduler, a full disk.
    """
    jobs = plan_jobs(inputs, options)
    card = load_card(options.engine.model, revision=options.engine.revision)
    with Journal(options.folder, options=asdict(options)) as journal:
        journal.write(
            "INSERT INTO problems VALUES (?, ?)",
            *((problem.label, problem.message) for problem in jobs.problems),
        )
        outcome = "stopped"
        try:
            watch = Watch(len(jobs.jobs), progress=_told(progress, options.prometheus))
            runner = Runner(
                jobs.jobs,
                journal,
                options.run,
                made_by=_made_by(options, card),
                watch=watch,
            )
            if runner.todo:
                pool = make_pool() if make_pool is not None else _pool(options)
                try:
                    runner.run(pool)
                finally:
                    pool.close()
            result = watch.as_dict()
            result["failed"] += [
                {"input": problem.label, "error": problem.message} for problem in jobs.problems
            ]
            if options.merge is not None:
                result["outputs"] = _merge(jobs, journal, options, card)
            watch.tick(0)
            outcome = "failures" if result["failed"] else "done"
            return result
        finally:
            with contextlib.suppress(OutputError):  # a full disk has been told already
                journal.end(outcome)


def _made_by(options: BatchOptions, card: ModelCard) -> dict[str, Any]:
    """What decides about every scene.

    The captioner as asked for: what it is exactly is in the part files' keys.
    """
    engine = options.engine
    return Maker(
        card, f"{engine.captioner} {asdict(engine.caption_options)}", str(engine.dtype)
    ).describe()


def _merge(jobs: Jobs, journal: Journal, options: BatchOptions, card: ModelCard) -> list[str]:
    """Make one map of the scenes that are done, unless it is there already; its files."""
    output = Path(options.output)
    done = [
        job
        for job in jobs.jobs
        if (journal.scene(journal.key(job.output)) or {}).get("state") == "done"
    ]
    if not done:
        return []
    parts = [Part(job.id, job.output) for job in done]
    made = made_of(parts, rule=str(options.merge))
    earlier, files_then = journal.merged(journal.key(output)) or ("", [])
    ours = bool(files_then) and unchanged(files_then, journal.folder)
    if earlier == made and ours:
        return [str(file) for file in merged_files(output)]
    missing = [job.id for job in jobs.jobs if job not in done] + [
        problem.label for problem in jobs.problems
    ]
    files = merge_scenes(
        parts,
        output,
        rule=str(options.merge),
        classes=card.classes,
        missing=missing,
        overwrite=ours or options.overwrite,
    )
    row = (journal.key(output), made, json.dumps(stamp(files, journal.folder)))
    journal.write("INSERT OR REPLACE INTO merged VALUES (?, ?, ?)", row)
    return [str(file) for file in files]


def _pool(options: BatchOptions) -> Pool:
    if options.scheduler is None:
        return LocalPool(options.engine)
    try:
        from rssc_geo.batch.dask_pool import DaskPool
    except ImportError as error:
        raise UsageError("--scheduler needs Dask; pip install 'rssc-geo[distributed]'") from error
    return DaskPool(options.scheduler, options.engine)


def _told(
    progress: OnProgress | None, prometheus: Path | None
) -> Callable[[BatchProgress, Watch], None]:
    def tell(now: BatchProgress, watch: Watch) -> None:
        if progress is not None:
            progress(now)
        if prometheus is not None:
            write_prometheus(prometheus, now, watch.stages)

    return tell
