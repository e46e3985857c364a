"""The loop of a batch: scenes are opened ahead, blocks kept under way, results written in order,
each outcome noted.

One thread decides everything. Opening, classifying, writing and finishing happen in others, which
only put what came of it into the loop's queue.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rssc_geo.batch.blocks import BlockResult
from rssc_geo.batch.inputs import Job
from rssc_geo.batch.journal import Journal
from rssc_geo.batch.pools import Pool, PoolLostError
from rssc_geo.batch.progress import Watch
from rssc_geo.batch.resume import RunOptions, disk_is_full, left_to_do, message_of
from rssc_geo.batch.scene_run import SceneRun, open_scene_run
from rssc_geo.batch.stamps import stamp
from rssc_geo.errors import OutputError, RsscGeoError
from rssc_geo.output import LandUseSummary, timestamp

log = logging.getLogger(__name__)

_AHEAD = 2  # scenes opened beyond those whose blocks are under way
_TICK_S = 1.0  # between two looks at the clock: progress, the journal's blocks


class Runner:
    """Maps jobs and notes in the journal what becomes of each; ``run`` once.

    ``made_by`` and ``todo``: see ``left_to_do``.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        journal: Journal,
        options: RunOptions,
        *,
        made_by: Mapping[str, object],
        watch: Watch,
    ) -> None:
        self._journal, self._options, self._watch = journal, options, watch
        self.todo = deque(left_to_do(jobs, journal, options, made_by=made_by, watch=watch))
        self._open: list[SceneRun] = []
        self._opening = 0
        self._unwritten = 0
        self._stopped: RsscGeoError | None = None
        self._noted: list[tuple[object, ...]] = []
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="rssc-geo open")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="rssc-geo write")
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="rssc-geo finish")

    def run(self, pool: Pool) -> None:
        """Do what is left with a pool. What becomes of it goes into the journal and, in figures, to
        the watch.

        Raises ``OutputError`` where nothing more can be written (a full disk): the same command
        then goes on.
        """
        self._pool, self._watch.dtype = pool, pool.maker.dtype
        try:
            while (self.todo or self._opening or self._open) and self._stopped is None:
                self._feed()
                try:
                    event = self._events.get(timeout=_TICK_S)
                except queue.Empty:
                    event = _nothing
                event()
                self._tick()
            if self._stopped is not None:
                raise self._stopped
        finally:
            self._close()

    def _key(self, job: Job) -> str:
        return self._journal.key(job.output)

    def _attempts(self, job: Job) -> int:
        """How often the scene has been begun."""
        row = self._journal.scene(self._key(job))
        return 0 if row is None else int(row["attempts"])

    def _feed(self) -> None:
        """Keep enough blocks under way, and enough scenes open to take them from.

        No more, so that memory stays flat.
        """
        window = 2 * self._pool.capacity + 1
        for run in self._open:
            while self._unwritten < window and (number := run.next_block()) is not None:
                self._submit(run, number)
        unbegun = sum(run.next_submit < len(run.blocks) for run in self._open)
        while (
            self.todo
            and unbegun + self._opening < _AHEAD
            and len(self._open) + self._opening < window + _AHEAD
        ):
            job, overwrite = self.todo.popleft()
            self._opening += 1
            work = functools.partial(
                open_scene_run,
                job,
                self._pool.maker,
                batch_size=self._pool.batch_size,
                overwrite=overwrite,
                crs=self._options.crs,
            )
            self._do(self._opener, work, functools.partial(self._opened, job))

    def _do(
        self, where: ThreadPoolExecutor, work: Callable[[], Any], then: Callable[[Any], None]
    ) -> None:
        """Work in another thread; its value or its exception comes back as an event."""

        def task() -> None:
            try:
                value = work()
            except BaseException as error:
                value = error
            self._events.put(functools.partial(then, value))

        where.submit(task)

    # Events.

    def _opened(self, job: Job, found: SceneRun | BaseException) -> None:
        self._opening -= 1
        if isinstance(found, BaseException):
            self._fail(job, found)
            return
        key, done = self._key(job), len(found.scene.tiles) - len(found.scene.todo)
        for warning in found.scene.plan.warnings:
            log.warning("%s: %s", job.id, warning)
        self._journal.update(
            key,
            state="running",
            attempts=self._attempts(job) + 1,
            started=timestamp(),
            run=self._journal.run,
            input_files=found.input_files,
            tiles=len(found.scene.tiles),
            tiles_done=done,
            warnings=list(found.scene.plan.warnings),
        )
        if done == 0:
            self._journal.write("DELETE FROM blocks WHERE scene = ?", (key,))
        elif found.blocks:  # those from here on are cut anew
            self._journal.write(
                "DELETE FROM blocks WHERE scene = ? AND (first_tile >= ? OR state != 'done')",
                (key, int(found.blocks[0].tiles[0])),
            )
        self._open.append(found)
        self._watch.opened(key, tiles=len(found.scene.tiles), done=done)
        if not found.blocks:
            self._finish(found)

    def _submit(self, run: SceneRun, number: int) -> None:
        run.attempts[number] = run.attempts.get(number, 0) + 1
        self._unwritten += 1

        def done(result: BlockResult | BaseException) -> None:
            self._events.put(functools.partial(self._arrived, run, number, result))

        self._note(run, number, "running")
        run.cancels[number] = self._pool.submit(run.blocks[number], done)

    def _arrived(self, run: SceneRun, number: int, result: BlockResult | BaseException) -> None:
        run.cancels.pop(number, None)
        if run.over:
            return
        if isinstance(result, PoolLostError):
            self._stopped = result
        elif isinstance(result, BaseException):
            self._unwritten -= 1
            self._note(run, number, "failed", error=message_of(result))
            if run.attempts[number] < self._options.attempts:
                log.info("%s: block %d is tried again: %s", run.job.id, number, message_of(result))
                run.again.append(number)
            else:
                self._fail(run.job, result, run)
        else:
            self._watch.workers.add(result.worker)
            run.reading_s += result.reading_s
            run.model_s += result.model_s
            run.looked += int(result.looked.sum())
            run.arrived[number] = result
            self._write(run)

    def _write(self, run: SceneRun) -> None:
        if run.busy or not (results := run.ready()):
            return
        run.busy = True
        self._do(
            self._writer,
            functools.partial(run.write, results),
            functools.partial(self._written, run, results),
        )

    def _written(
        self, run: SceneRun, results: list[BlockResult], seconds: float | BaseException
    ) -> None:
        run.busy = False
        self._unwritten -= len(results)
        if run.over:
            run.scene.close()
            return
        if isinstance(seconds, BaseException):
            self._fail(run.job, seconds, run)
            return
        run.writing_s += seconds
        for number, result in enumerate(results, start=run.next_write):
            self._note(
                run, number, "done", seconds=result.reading_s + result.model_s, worker=result.worker
            )
        run.next_write += len(results)
        self._watch.classified(
            self._key(run.job),
            done=run.done,
            tiles=sum(len(r.tiles) for r in results),
            looked=sum(int(r.looked.sum()) for r in results),
        )
        if run.next_write == len(run.blocks):
            self._finish(run)
        else:
            self._write(run)

    def _finish(self, run: SceneRun) -> None:
        run.busy = True
        # From here on there may be an output, which is ours: a run killed before it is noted as
        # done makes it anew.
        self._journal.update(self._key(run.job), made=1, output_files=None)
        self._do(self._finisher, run.finish, functools.partial(self._finished, run))

    def _finished(self, run: SceneRun, found: tuple[LandUseSummary, float] | BaseException) -> None:
        run.busy = False
        if isinstance(found, BaseException):
            self._fail(run.job, found, run)
            return
        summary, seconds = found
        run.scene.close()
        self._open.remove(run)
        self._flush()
        values = {
            "tiles_done": len(run.scene.tiles),
            "cells": summary.cells,
            "classes": [asdict(total) for total in summary.classes if total.cells],
            "seconds": round(time.monotonic() - run.started, 3),
            "reading_s": round(run.reading_s, 3),
            "model_s": round(run.model_s, 3),
            "writing_s": round(run.writing_s + seconds, 3),
        }
        files = [
            *summary.paths,
            *([] if run.job.options.preview is None else [Path(run.job.options.preview)]),
        ]
        key = self._key(run.job)
        self._journal.update(
            key,
            state="done",
            ended=timestamp(),
            error=None,
            output_files=stamp(files, self._journal.folder),
            **values,
        )
        self._watch.done(key, values)

    def _fail(self, job: Job, error: BaseException, run: SceneRun | None = None) -> None:
        """A scene's failure is noted and the others go on; but a full disk would fail them all."""
        message = message_of(error)
        if run is not None:
            run.over = True
            self._open.remove(run)
            self._unwritten -= len(run.arrived) + len(run.cancels)
            for cancel in run.cancels.values():
                cancel()
            if not run.busy:
                run.scene.close()
        full = disk_is_full(error, job.output.parent)
        state = "waiting" if full else "failed"
        attempts = self._attempts(job) + (
            run is None
        )  # one that cannot be opened has been tried too
        self._journal.update(
            self._key(job), state=state, error=message, ended=timestamp(), attempts=attempts
        )
        if full:
            self._stopped = OutputError(
                f"{message} (the batch has stopped: the same command goes on)"
            )
            return
        log.error("%s: %s", job.id, message)
        self._watch.failed(job, message, key=self._key(job))

    # Notes.

    def _note(
        self,
        run: SceneRun,
        number: int,
        state: str,
        *,
        error: str | None = None,
        seconds: float | None = None,
        worker: str = "",
    ) -> None:
        block = run.blocks[number]
        first = int(block.tiles[0])
        key = self._key(run.job)
        self._noted.append(
            (
                key,
                first,
                len(block.tiles),
                state,
                run.attempts[number],
                error,
                seconds,
                worker,
                timestamp(),
            )
        )

    def _flush(self) -> None:
        if self._noted:
            self._journal.write(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *self._noted
            )
            self._noted.clear()

    def _tick(self) -> None:
        if self._watch.tick(_TICK_S):
            self._flush()
            done = [(run.done, self._key(run.job)) for run in self._open]
            self._journal.write("UPDATE scenes SET tiles_done = ? WHERE output = ?", *done)

    def _close(self) -> None:
        """Also after an interruption.

        Nothing is waited for but the blocks that are being written.
        """
        for executor in (self._opener, self._finisher):
            executor.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=True, cancel_futures=True)
        with contextlib.suppress(OutputError):  # a full disk has been told already
            self._flush()
            self._journal.write("UPDATE scenes SET state = 'waiting' WHERE state = 'running'", ())
        for run in self._open:
            if not run.busy:
                run.scene.close()


def _nothing() -> None:
    """No event came."""
