"""Blocks on a Dask cluster (https://distributed.dask.org): one model a worker, blocks as tasks
without a graph.

The scheduler holds only the blocks under way, which are a few thousand bytes each; results come to
the client, which writes them. A worker that dies has its blocks given to others; a client that dies
leaves nothing behind but its part files. Tasks travel as pickles, as everything in Dask does: a
cluster must be reachable only by those who may run code on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, get_worker

from rssc_geo.batch.blocks import Block, BlockResult, maker_key
from rssc_geo.batch.pools import Done, PoolLostError
from rssc_geo.batch.worker import Engine, EngineSpec, load_engine
from rssc_geo.errors import RsscGeoError, UsageError, one_line
from rssc_geo.inference import Maker
from rssc_geo.models import ModelCard, load_card

_PATIENCE_S = 10  # for a scheduler to answer
_WORKERS_S = 60  # for the first worker to come
_COUNT_S = 5  # between two counts of the workers
_PACKAGE = "rssc-geo"

Load = Callable[..., Engine]
T = TypeVar("T")


class _ModelOnWorker(WorkerPlugin):
    """Keeps the model of a worker, loaded by the first task that needs it.

    Stays for the next run of the same command.
    """

    idempotent = True

    def __init__(self, name: str, spec: EngineSpec, load: Load) -> None:
        self.name, self._spec, self._load = name, spec, load
        self._version = version(_PACKAGE)

    def setup(self, worker: Worker) -> None:
        if version(_PACKAGE) != self._version:
            raise RsscGeoError(_versions_differ({worker.address: version(_PACKAGE)}))
        os.environ.setdefault(
            "OMP_WAIT_POLICY", "PASSIVE"
        )  # as the command line does, before torch is loaded
        self._worker, self._lock = worker.address, threading.Lock()
        self._engine: Engine | None = None
        self._threads = worker.state.nthreads

    def engine(self) -> Engine:
        with self._lock:
            if self._engine is None:
                spec = replace(self._spec, threads=self._threads)
                self._engine = self._load(
                    spec, reading_threads=min(4, self._threads), name=self._worker
                )
            return self._engine


def _engine(plugin: str) -> Engine:
    model = get_worker().plugins[plugin]
    assert isinstance(model, _ModelOnWorker)
    return model.engine()


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error as it travels.

    Dask's own way with exceptions fails where one or its traceback cannot be unpickled.
    """

    message: str


def _introduce(plugin: str) -> tuple[Maker, int] | _Failure:
    return _caught(lambda: (_engine(plugin).maker, _engine(plugin).batch_size))


def _run(plugin: str, block: Block) -> BlockResult | _Failure:
    return _caught(lambda: _engine(plugin).run(block))


def _caught(work: Callable[[], T]) -> T | _Failure:
    try:
        return work()
    except RsscGeoError as error:
        return _Failure(str(error))
    except Exception as error:
        return _Failure(f"{type(error).__name__}: {one_line(error)}")


class DaskPool:
    """The workers of a cluster. ``scheduler``: an address (``tcp://host:8786``, ``tls://…``) or a
    scheduler file.

    Raises ``UsageError`` when no scheduler answers, ``RsscGeoError`` when it has no worker, when a
    worker has another version of rssc-geo or another model than this machine, or cannot load it.
    """

    def __init__(self, scheduler: str, spec: EngineSpec, *, load: Load = load_engine) -> None:
        self._scheduler = scheduler
        self._client = _connect(scheduler)
        try:
            card = load_card(spec.model, revision=spec.revision)
            # By what it loads: the next run of the same command finds it there, one with other
            # weights does not.
            loads = (
                spec,
                getattr(load, "__qualname__", repr(load)),
                version(_PACKAGE),
                sorted(card.sha256.items()),
            )
            self._plugin = f"rssc-geo-{hashlib.sha256(repr(loads).encode()).hexdigest()[:12]}"
            self._check_versions()
            self._client.register_plugin(_ModelOnWorker(self._plugin, spec, load))
            self.maker, self.batch_size = self._introduced(card)
        except BaseException:
            self.close()
            raise
        self._numbers = itertools.count()
        self._run_id = uuid.uuid4().hex[:8]
        self._counted = -float("inf")
        self._capacity = 0

    def _check_versions(self) -> None:
        """Asks with a function of the standard library, which every worker has."""
        found = self._client.run(version, _PACKAGE, on_error="return")
        own = version(_PACKAGE)
        others = {worker: answer for worker, answer in found.items() if answer != own}
        if others:
            raise RsscGeoError(_versions_differ(others))

    def _introduced(self, card: ModelCard) -> tuple[Maker, int]:
        """Who classifies, as all workers say it; ``card`` is the model's on this machine."""
        workers = list(self._client.nthreads())
        tasks = [
            self._client.submit(_introduce, self._plugin, workers=[worker], pure=False)
            for worker in workers
        ]
        answers = {
            worker: _answer(worker, task) for worker, task in zip(workers, tasks, strict=True)
        }
        first, (maker, batch_size) = next(iter(answers.items()))
        if maker.card.sha256 != card.sha256:
            raise RsscGeoError(
                f"worker {first} has another model {card.name} than this machine: copy this one to"
                " all workers"
            )
        for worker, (other, _) in answers.items():
            if maker_key(other) != maker_key(maker):
                raise RsscGeoError(
                    f"workers differ: {first} has {_named(maker)}, {worker} has {_named(other)};"
                    " give --dtype, and the same model to all of them"
                )
        return maker, batch_size

    @property
    def capacity(self) -> int:
        """Threads of all workers there are now."""
        if time.monotonic() - self._counted > _COUNT_S:
            with contextlib.suppress(
                OSError, RuntimeError
            ):  # what is wrong shows at the next block
                self._capacity = sum(self._client.nthreads().values())
            self._counted = time.monotonic()
        return max(1, self._capacity)

    def submit(self, block: Block, done: Done) -> Callable[[], None]:
        """See ``Pool``."""
        key = f"rssc-geo-block-{self._run_id}-{next(self._numbers)}"
        try:
            future = self._client.submit(_run, self._plugin, block, key=key, pure=False)
        except Exception as error:
            done(self._lost(error))
            return lambda: None
        future.add_done_callback(lambda finished: self._deliver(finished, done))
        release: Callable[[], None] = future.release
        return release

    def _deliver(self, future: Future[BlockResult | _Failure], done: Done) -> None:
        """In a thread of the client.

        Fetch the result, so that it leaves the worker, and hand it over.
        """
        try:
            result = future.result()
            done(RsscGeoError(result.message) if isinstance(result, _Failure) else result)
        except KilledWorker:
            done(
                RsscGeoError(
                    "every worker that was given this block died: is there memory enough for the"
                    " model?"
                )
            )
        except CancelledError as error:
            done(self._lost(error))
        except Exception as error:
            done(error)
        finally:
            future.release()

    def _lost(self, error: BaseException) -> PoolLostError:
        return PoolLostError(
            f"the scheduler {self._scheduler} is gone ({one_line(error)}): start it, then run the"
            " same command to go on"
        )

    def close(self) -> None:
        """See ``Pool``."""
        with contextlib.suppress(Exception):  # the cluster may be gone; nothing of ours is on it
            self._client.close(timeout=1)


def _answer(worker: str, task: Future[tuple[Maker, int] | _Failure]) -> tuple[Maker, int]:
    try:
        answer: tuple[Maker, int] | _Failure = task.result()
    except (KilledWorker, CancelledError) as error:
        raise RsscGeoError(
            f"worker {worker} died while it loaded the model: is there memory enough?"
        ) from error
    if isinstance(answer, _Failure):
        raise RsscGeoError(f"worker {worker} cannot load the model: {answer.message}")
    return answer


def _connect(scheduler: str) -> Client:
    where: dict[str, Any] = (
        {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    )
    try:
        client = Client(**where, timeout=_PATIENCE_S, set_as_default=False)
    except (OSError, ValueError, KeyError) as error:  # OSError: base of the time-outs too
        raise UsageError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({one_line(error)}); give"
            " tcp://HOST:8786 or the file that 'dask scheduler --scheduler-file' writes"
        ) from error
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError as error:
        client.close(timeout=1)
        raise RsscGeoError(
            f"the scheduler {scheduler} has had no worker for {_WORKERS_S} s: start some with 'dask"
            " worker'"
        ) from error
    return client


def _versions_differ(others: dict[str, Any]) -> str:
    worker, found = next(iter(others.items()))
    if isinstance(found, PackageNotFoundError):
        return (
            f"worker {worker} has no rssc-geo, here is {version(_PACKAGE)}: install the same"
            " version on all workers"
        )
    return (
        f"worker {worker} has rssc-geo {found}, here is {version(_PACKAGE)}: install the same"
        " version on all workers"
    )


def _named(maker: Maker) -> str:
    return (
        f"{maker.card.name} {maker.card.version} in {maker.dtype} with captioner {maker.captioner}"
    )
