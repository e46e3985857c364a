"""The loop of a batch: what is left is opened ahead, blocks are kept under way, results written.

One thread makes all decisions. Opening, classifying, writing and finishing happen in others, which
only put their results into the loop's queue.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import queue
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rssc_geo.batch.block import BlockResult
from rssc_geo.batch.inputs import Problem
from rssc_geo.batch.job import Job, OpenJob, job_state, open_job
from rssc_geo.batch.journal import BlockRecord, Journal, SceneFigures, signatures
from rssc_geo.batch.pool import Pool, PoolLostError
from rssc_geo.batch.progress import Tracker
from rssc_geo.errors import (
    NothingToClassifyError,
    OutputError,
    RsscGeoError,
    one_line,
    outer_cause,
)
from rssc_geo.options import BatchOptions
from rssc_geo.output import timestamp

log = logging.getLogger(__name__)

_AHEAD = 2  # scenes opened beyond those whose blocks are under way
_TICK_S = 1.0  # seconds between two updates of progress and of the journal's blocks
_ROOM = 1 << 20  # a disk with fewer free bytes is full: SQLite and GDAL need some to report errors


class Runner:
    """Maps jobs and records in the journal the result of each; ``run`` once.

    ``made_by``: the parts of model and program on which every map depends. Jobs that are done, or
    failed before, by the same options and files are only counted by ``tracker``; ``waiting`` are
    the others, each with whether its output may be replaced.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        journal: Journal,
        options: BatchOptions,
        *,
        made_by: Mapping[str, object],
        tracker: Tracker,
    ) -> None:
        self._journal, self._options, self._tracker = journal, options, tracker
        self.waiting = deque(self._left_to_do(jobs, made_by))
        self._open: list[OpenJob] = []
        self._opening: deque[Future[Any]] = deque()
        self._unwritten = 0
        self._stopped: RsscGeoError | None = None
        self._records: list[BlockRecord] = []
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._opener = ThreadPoolExecutor(1, thread_name_prefix="rssc-geo open")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="rssc-geo write")
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="rssc-geo finish")

    def _left_to_do(
        self, jobs: Sequence[Job], made_by: Mapping[str, object]
    ) -> list[tuple[Job, bool]]:
        left: list[tuple[Job, bool]] = []
        rows: list[Mapping[str, object]] = []
        for job in jobs:
            key = self._key(job)
            row = self._journal.scene(key)
            state = job_state(
                job,
                row,
                made_by=made_by,
                folder=self._journal.folder,
                retry_failed=self._options.retry_failed,
            )
            if row is not None and state.name == "done":
                self._tracker.skip(row)
            elif state.name == "empty":
                self._tracker.leave_empty(key)
            elif state.name == "failed":
                self._tracker.fail(key, Problem(job.label, state.error, known=True))
            else:
                left.append((job, state.ours or self._options.overwrite))
                rows.append(
                    {
                        "output": key,
                        "id": job.id,
                        "input": job.label,
                        "options_hash": state.options_hash,
                        "input_files": signatures(job.source, job.folder, content=False),
                    }
                )
        self._journal.await_scenes(rows)
        return left

    def run(self, pool: Pool) -> None:
        """Process the remaining jobs with a pool.

        Results go into the journal and, as counts, to the tracker. Raises ``OutputError`` where
        nothing more can be written (a full disk): the same command then continues.
        """
        self._tracker.dtype = pool.spec.dtype
        try:
            while (self.waiting or self._opening or self._open) and self._stopped is None:
                self._feed(pool)
                try:
                    event = self._events.get(timeout=_TICK_S)
                except queue.Empty:
                    event = None
                if event is not None:
                    event()
                self._tick()
            if self._stopped is not None:
                raise self._stopped
        finally:
            self._close()

    def _key(self, job: Job) -> str:
        return self._journal.key(job.output)

    def _feed(self, pool: Pool) -> None:
        """Keep enough blocks in progress, and enough scenes open to take them from.

        No more, so that memory stays flat.
        """
        window = 2 * pool.capacity + 1
        for opened in self._open:
            while self._unwritten < window and (number := opened.next_block()) is not None:
                self._submit(pool, opened, number)
        unbegun = sum(opened.next_submit < len(opened.blocks) for opened in self._open)
        while (
            self.waiting
            and unbegun + len(self._opening) < _AHEAD
            and len(self._open) + len(self._opening) < window + _AHEAD
        ):
            job, overwrite = self.waiting.popleft()
            work = functools.partial(open_job, job, pool, overwrite=overwrite)
            then = functools.partial(self._opened, job)
            self._opening.append(self._start(self._opener, work, then))

    def _start(
        self, where: ThreadPoolExecutor, work: Callable[[], Any], then: Callable[[Any], None]
    ) -> Future[Any]:
        """Work in another thread; its value or its exception comes back as an event."""

        def task() -> Any:
            try:
                value = work()
            except BaseException as error:  # noqa: BLE001 -- comes back as an event
                value = error
            self._events.put(functools.partial(then, value))
            return value

        return where.submit(task)

    # Events.

    def _opened(self, job: Job, found: OpenJob | BaseException) -> None:
        self._opening.popleft()  # one thread opens them, in this order
        if isinstance(found, BaseException):
            self._fail(job, found)
            return
        key, run = self._key(job), found.run
        done = found.done
        for warning in run.plan.warnings:
            log.warning("%s: %s", job.id, warning)
        self._journal.start_scene(
            key,
            tiles=len(run.tiles),
            tiles_done=done,
            input_files=found.input_files,
            warnings=run.plan.warnings,
        )
        if done == 0:
            self._journal.forget_blocks(key)
        elif found.blocks:  # those from here on are cut again
            self._journal.forget_blocks(key, start=int(found.blocks[0].tiles[0]))
        self._open.append(found)
        self._tracker.start(key, tiles=len(run.tiles), done=done)
        if not found.blocks:
            self._finish(found)

    def _submit(self, pool: Pool, opened: OpenJob, number: int) -> None:
        opened.attempts[number] = opened.attempts.get(number, 0) + 1
        self._unwritten += 1

        def done(result: BlockResult | BaseException) -> None:
            self._events.put(functools.partial(self._arrived, opened, number, result))

        self._record(opened, number, "running")
        opened.cancels[number] = pool.submit(opened.blocks[number], done)

    def _arrived(self, opened: OpenJob, number: int, result: BlockResult | BaseException) -> None:
        opened.cancels.pop(number, None)
        if opened.over:
            return
        if isinstance(result, PoolLostError):
            self._stopped = result
        elif isinstance(result, BaseException):
            self._unwritten -= 1
            message = _message_of(result)
            self._record(opened, number, "failed", error=message)
            if opened.attempts[number] < self._options.attempts:
                log.info("%s: block %d is tried again: %s", opened.job.id, number, message)
                opened.retries.append(number)
            else:
                self._fail(opened.job, result, opened)
        else:
            self._tracker.add_worker(result.worker)
            opened.add(number, result)
            self._write(opened)

    def _write(self, opened: OpenJob) -> None:
        if opened.work is not None or not (results := opened.pop_ready()):
            return
        opened.work = self._start(
            self._writer,
            functools.partial(opened.write, results),
            functools.partial(self._written, opened, results),
        )

    def _written(
        self, opened: OpenJob, results: list[BlockResult], seconds: float | BaseException
    ) -> None:
        opened.work = None
        self._unwritten -= len(results)
        if opened.over:
            return
        if isinstance(seconds, BaseException):
            self._fail(opened.job, seconds, opened)
            return
        opened.writing_s += seconds
        for number, result in enumerate(results, start=opened.next_write):
            took = result.reading_s + result.model_s
            self._record(opened, number, "done", seconds=took, worker=result.worker)
        opened.next_write += len(results)
        tiles = sum(len(result.tiles) for result in results)
        opened.written += tiles
        self._tracker.advance(
            self._key(opened.job),
            done=opened.done,
            tiles=tiles,
            looked=sum(int(result.looked.sum()) for result in results),
        )
        if opened.next_write == len(opened.blocks):
            self._finish(opened)
        else:
            self._write(opened)

    def _finish(self, opened: OpenJob) -> None:
        self._journal.expect_output(self._key(opened.job))
        then = functools.partial(self._finished, opened)
        opened.work = self._start(self._finisher, opened.finish, then)

    def _finished(
        self, opened: OpenJob, found: tuple[SceneFigures, list[Path]] | BaseException
    ) -> None:
        opened.work = None
        if isinstance(found, BaseException):
            self._fail(opened.job, found, opened)
            return
        figures, files = found
        log.info(
            "%s: %d cells in %.1f s; of work, reading %.1f s, model %.1f s, writing %.1f s",
            opened.job.id,
            figures.cells,
            figures.seconds,
            figures.reading_s,
            figures.model_s,
            figures.writing_s,
        )
        opened.close()
        self._open.remove(opened)
        self._write_records()
        key = self._key(opened.job)
        self._journal.finish_scene(key, figures, files)
        self._tracker.finish(key, figures)

    def _fail(self, job: Job, error: BaseException, opened: OpenJob | None = None) -> None:
        """A scene's failure is noted and the others go on; but a full disk would fail them all."""
        message, key = _message_of(error), self._key(job)
        begun = opened is not None
        if opened is not None:
            opened.over = True
            self._open.remove(opened)
            self._unwritten -= len(opened.arrived) + len(opened.cancels)
            for cancel in opened.cancels.values():
                cancel()
            opened.close()
        if isinstance(error, NothingToClassifyError):
            log.warning("%s", message)
            self._journal.empty_scene(key, message, opened=begun)
            self._tracker.leave_empty(key)
            return
        full = _disk_is_full(error, job.output.parent)
        self._journal.fail_scene(key, message, again=full, opened=begun)
        if full:
            self._stopped = OutputError(
                f"{message} (the batch has stopped: the same command continues)"
            )
            return
        known = key in self._journal.known
        self._tracker.fail(key, Problem(job.label, message, known=known))

    # Records in the journal.

    def _record(
        self,
        opened: OpenJob,
        number: int,
        state: str,
        *,
        error: str | None = None,
        seconds: float | None = None,
        worker: str = "",
    ) -> None:
        tiles = opened.blocks[number].tiles
        self._records.append(
            BlockRecord(
                self._key(opened.job),
                first_tile=int(tiles[0]),
                tiles=len(tiles),
                state=state,
                attempts=opened.attempts[number],
                error=error,
                seconds=seconds,
                worker=worker,
                ended=timestamp(),
            )
        )

    def _write_records(self) -> None:
        if self._records:
            self._journal.record_blocks(self._records)
            self._records.clear()

    def _tick(self) -> None:
        if self._tracker.tick(_TICK_S):
            self._write_records()
            self._journal.record_tiles(
                {self._key(opened.job): opened.done for opened in self._open}
            )

    def _close(self) -> None:
        """Also after an interruption.

        Only blocks that are being written are waited for; scenes that are being opened or finished
        are closed by their thread.
        """
        for executor in (self._opener, self._finisher):
            executor.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=True, cancel_futures=True)
        with contextlib.suppress(OutputError):  # a full disk has been reported already
            self._write_records()
            self._journal.release_scenes()
        for opened in self._open:
            opened.close()
        for opening in self._opening:
            opening.add_done_callback(_close_opened)


def _close_opened(opening: Future[Any]) -> None:
    """Close the scene that a thread has opened for a batch that is over."""
    if not opening.cancelled() and isinstance(found := opening.result(), OpenJob):
        found.close()


def _message_of(error: BaseException) -> str:
    """One line for the journal and for messages."""
    if isinstance(error, RsscGeoError):
        return str(error)
    log.debug("traceback", exc_info=error)
    return outer_cause(error) or f"{type(error).__name__}: {one_line(error)}"


def _disk_is_full(error: BaseException, folder: Path) -> bool:
    """Whether the disk is full: by the chain of errors, or by the free space."""
    if not isinstance(error, RsscGeoError):
        return False
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        chain = chain.__cause__
    return isinstance(error, OutputError) and shutil.disk_usage(folder).free < _ROOM
