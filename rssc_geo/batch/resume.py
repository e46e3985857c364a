"""Which scenes are left to do, by what the journal says of them; and what a failure means for the rest."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rssc_geo.batch.jobs import Job
from rssc_geo.batch.journal import Journal, stamp, unchanged
from rssc_geo.batch.observe import Watch
from rssc_geo.errors import OutputError, RsscGeoError

log = logging.getLogger(__name__)

_ROOM = 1 << 20  # a disk with fewer free bytes is full: SQLite and GDAL need some to say anything


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a batch is run.

    ``attempts`` a block gets; ``retry_failed``: also do scenes that failed before; ``overwrite``: also replace files
    that no batch has made; ``crs``: of all outputs, whatever the scenes' own options say.
    """

    attempts: int = 3
    retry_failed: bool = False
    overwrite: bool = False
    crs: str | None = None


def left_to_do(
    jobs: Sequence[Job], journal: Journal, options: RunOptions, *, made_by: Mapping[str, object], watch: Watch
) -> list[tuple[Job, bool]]:
    """The jobs that are not done, or failed before, by the same options and files; with whether the output may be replaced.

    The others are counted by ``watch``. ``made_by``: what of the model and the program decides about every scene.
    """
    todo: list[tuple[Job, bool]] = []
    rows: list[Mapping[str, object]] = []
    for job in jobs:
        key, digest = journal.key(job.output), job.options.digest(source=job.source, maker=[made_by, options.crs])
        row = journal.scene(key)
        ours = bool(row and row["made"] and unchanged(row["output_files"] or []))
        same = bool(row and row["options_hash"] == digest and row["input_files"] and unchanged(row["input_files"]))
        if row and same and row["state"] == "done" and job.output.exists():
            watch.skipped(row)
        elif row and same and row["state"] == "failed" and not options.retry_failed:
            watch.failed(job, f"{row['error']} (failed before: --retry-failed tries again)")
        else:
            todo.append((job, ours or options.overwrite))
            files = json.dumps(stamp(job.source))
            rows.append({"output": key, "id": job.id, "input": job.label, "options_hash": digest, "input_files": files})
    journal.await_scenes(rows)
    return todo


def message_of(error: BaseException) -> str:
    """One line for the journal and for people."""
    if isinstance(error, RsscGeoError):
        return str(error)
    log.debug("traceback", exc_info=error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


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
