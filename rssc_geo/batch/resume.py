"""How scenes stand by what the journal says of them, which are left to do.

And what a failure means for the rest.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rssc_geo.batch.inputs import Job
from rssc_geo.batch.journal import Journal
from rssc_geo.batch.progress import Watch
from rssc_geo.batch.stamps import home_of, named_from, stamp, still_there, unchanged
from rssc_geo.errors import OutputError, RsscGeoError, one_line

log = logging.getLogger(__name__)

_ROOM = 1 << 20  # a disk with fewer free bytes is full: SQLite and GDAL need some to say anything


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a batch is run.

    ``attempts`` a block gets; ``retry_failed``: also do scenes that failed before; ``overwrite``:
    also replace files that no batch has made; ``crs``: of all outputs, whatever the scenes' own
    options say.
    """

    attempts: int = 3
    retry_failed: bool = False
    overwrite: bool = False
    crs: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds of a job before the run.

    ``state``: "done" or "failed" where that was by the same options and of the same files, else
    "waiting"; ``error``: of a failed one; ``ours``: whether the outputs that are there are as a
    batch left them; ``digest``: hash of the options.
    """

    state: str
    error: str
    ours: bool
    digest: str


def standing(
    job: Job,
    row: Mapping[str, Any] | None,
    options: RunOptions,
    *,
    made_by: Mapping[str, object],
    folder: Path,
) -> Standing:
    """How a job stands.

    ``row``: what the journal in ``folder`` has of it; ``made_by``: what of model and program
    decides about every scene.
    """
    home = home_of(job.source)
    source = [named_from(name, home) for name in job.source]
    digest = job.options.named(from_inputs=home, from_outputs=folder).digest(
        source=source, maker=[made_by, options.crs]
    )
    if row is None:
        return Standing("waiting", "", ours=False, digest=digest)
    outputs = row["output_files"] or []
    there = still_there(outputs, folder)
    ours = bool(row["made"]) and unchanged(there, folder)
    same = (
        row["options_hash"] == digest
        and bool(row["input_files"])
        and unchanged(row["input_files"], home)
    )
    # One that people have worked on since is left alone, also where they deleted something beside
    # it.
    if (
        same
        and row["state"] == "done"
        and job.output.exists()
        and (len(there) == len(outputs) or not ours)
    ):
        return Standing("done", "", ours, digest)
    if same and row["state"] == "failed" and not options.retry_failed:
        return Standing(
            "failed", f"{row['error']} (failed before: --retry-failed tries again)", ours, digest
        )
    return Standing("waiting", "", ours, digest)


def left_to_do(
    jobs: Sequence[Job],
    journal: Journal,
    options: RunOptions,
    *,
    made_by: Mapping[str, object],
    watch: Watch,
) -> list[tuple[Job, bool]]:
    """The jobs that are not done, or failed before, by the same options and files; with whether the
    output may be replaced.

    The others are counted by ``watch``.
    """
    todo: list[tuple[Job, bool]] = []
    rows: list[Mapping[str, object]] = []
    for job in jobs:
        key = journal.key(job.output)
        row = journal.scene(key)
        now = standing(job, row, options, made_by=made_by, folder=journal.folder)
        if row is not None and now.state == "done":
            watch.skipped(row)
        elif now.state == "failed":
            watch.failed(job, now.error)
        else:
            todo.append((job, now.ours or options.overwrite))
            files = json.dumps(stamp(job.source, home_of(job.source)))
            rows.append(
                {
                    "output": key,
                    "id": job.id,
                    "input": job.label,
                    "options_hash": now.digest,
                    "input_files": files,
                }
            )
    journal.await_scenes(rows)
    return todo


def message_of(error: BaseException) -> str:
    """One line for the journal and for people."""
    if isinstance(error, RsscGeoError):
        return str(error)
    log.debug("traceback", exc_info=error)
    return f"{type(error).__name__}: {one_line(error)}"


def disk_is_full(error: BaseException, folder: Path) -> bool:
    """Whether it failed for want of room: by the errors that led to it, or by the room there is."""
    if not isinstance(error, RsscGeoError):
        return False
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        chain = chain.__cause__
    return isinstance(error, OutputError) and shutil.disk_usage(folder).free < _ROOM
