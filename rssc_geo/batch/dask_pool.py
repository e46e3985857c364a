"""Blocks on a Dask cluster (https://distributed.dask.org): one predictor a worker.

Blocks are tasks without a graph: the scheduler holds only those under way, which are a few thousand
bytes each; results come to the client, which writes them. The blocks of a worker that dies are
given to others; a client that dies leaves only its part files behind. Tasks are sent as pickles, as
everything in Dask is: a cluster must be reachable only by those who may run code on it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import uuid
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import distributed
from distributed import Client, Future, KilledWorker, WorkerPlugin, get_worker

from rssc_geo.batch.block import Block, BlockResult, spec_hash
from rssc_geo.batch.pool import Done, PoolLostError
from rssc_geo.batch.worker import LoadWorker, Worker, load_worker
from rssc_geo.environment import prepare_torch
from rssc_geo.errors import RsscGeoError, UsageError, one_line
from rssc_geo.inference import PredictorSpec
from rssc_geo.models import ClassWords, ModelCard, load_card
from rssc_geo.options import PredictorOptions, narrowed

_PATIENCE_S = 10  # time for a scheduler to answer
_WORKERS_S = 60  # time for the first worker to connect
_PULSE_S = 5  # between two requests to the scheduler
_SILENCE_S = 30  # without an answer: connections may be open though nothing passes
_PACKAGE = "rssc-geo"

T = TypeVar("T")


class _WorkerPlugin(WorkerPlugin):
    """Plugin that keeps the predictor on a worker of the cluster, loaded by the first task.

    Stays for the next run of the same command.
    """

    idempotent = True

    def __init__(self, name: str, options: PredictorOptions, load: LoadWorker) -> None:
        self.name, self._options, self._load = name, options, load
        self._version = version(_PACKAGE)

    def setup(self, worker: distributed.Worker) -> None:
        if version(_PACKAGE) != self._version:
            raise RsscGeoError(_versions_differ({worker.address: version(_PACKAGE)}))
        prepare_torch()
        self._address, self._lock = worker.address, threading.Lock()
        self._loaded: Worker | None = None
        self._threads = worker.state.nthreads

    def loaded(self) -> Worker:
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load(
                    self._options,
                    threads=self._threads,
                    reading_threads=min(4, self._threads),
                    name=self._address,
                )
            return self._loaded


def _loaded(plugin: str) -> Worker:
    found = get_worker().plugins[plugin]
    if not isinstance(found, _WorkerPlugin):
        raise TypeError(f"the plugin {plugin} is a {type(found).__name__}")
    return found.loaded()


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error as it is sent.

    Dask's own handling fails where an exception or its traceback cannot be unpickled. ``kind``: its
    class, ``RsscGeoError`` for one that is none of ours.
    """

    kind: type[RsscGeoError]
    message: str

    def error(self) -> RsscGeoError:
        return self.kind(self.message)


def _describe(plugin: str) -> tuple[PredictorSpec, int] | _Failure:
    found = _caught(lambda: (_loaded(plugin).spec, _loaded(plugin).batch_size))
    if isinstance(found, _Failure):
        where = f"worker {get_worker().address} cannot load the model"
        return _Failure(found.kind, f"{where}: {found.message}")
    return found


def _describe_named(plugin: str, words: ClassWords) -> PredictorSpec | _Failure:
    return _caught(lambda: _loaded(plugin).named(words).spec)


def _refine(plugin: str, block: Block) -> ClassWords | _Failure:
    return _caught(lambda: _loaded(plugin).refined(block))


def _run(plugin: str, block: Block) -> BlockResult | _Failure:
    return _caught(lambda: _loaded(plugin).run(block))


def _caught(work: Callable[[], T]) -> T | _Failure:
    try:
        return work()
    except RsscGeoError as error:
        return _Failure(type(error), str(error))
    except Exception as error:  # noqa: BLE001 -- sent as its message
        return _Failure(RsscGeoError, f"{type(error).__name__}: {one_line(error)}")


class DaskPool:
    """The workers of a cluster.

    ``scheduler``: an address (``tcp://host:8786``, ``tls://…``) or a scheduler file; ``options``:
    of the predictor that each loads; ``load``: function that loads it, with the worker's threads.

    Raises ``UsageError`` when no scheduler answers, ``RsscGeoError`` when it has no worker, when a
    worker has another version of rssc-geo or another model than this machine, or cannot load it.
    """

    def __init__(
        self, scheduler: str, options: PredictorOptions, *, load: LoadWorker = load_worker
    ) -> None:
        options = narrowed(options, PredictorOptions)
        self._scheduler = scheduler
        self._run_id, self._numbers = uuid.uuid4().hex[:8], itertools.count()
        self._waiting: dict[int, Done] = {}
        self._silent, self._closed = threading.Event(), threading.Event()
        self._client = _connect(scheduler)
        self.capacity = 1
        try:
            threading.Thread(target=self._feel_pulse, name="rssc-geo pulse", daemon=True).start()
            self._answered(self._wait_for_workers)
            card = load_card(options.model, revision=options.revision)
            # Named by what it loads: the next run of the same command finds it, one with
            # another model does not.
            loads = (
                options,
                getattr(load, "__qualname__", repr(load)),
                version(_PACKAGE),
                card.to_json(),
            )
            self._plugin = f"rssc-geo-{hashlib.sha256(repr(loads).encode()).hexdigest()[:12]}"
            plugin = _WorkerPlugin(self._plugin, options, load)
            self._answered(self._check_versions)
            self._answered(lambda: self._client.register_plugin(plugin))
            self.spec, self.batch_size = self._answered(lambda: self._agreed(card))
        except BaseException:
            self.close()
            raise

    def _wait_for_workers(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=_WORKERS_S)
        except TimeoutError as error:
            raise RsscGeoError(
                f"the scheduler {self._scheduler} has had no worker for {_WORKERS_S} s: start some"
                " with 'dask worker'"
            ) from error
        self.capacity = max(1, sum(self._client.nthreads().values()))

    def _feel_pulse(self) -> None:
        """Count the workers' threads repeatedly; waiting threads get an error without an answer."""
        while not self._closed.wait(_PULSE_S):
            try:
                threads = _begun(self._client.nthreads).result(_SILENCE_S)
            except TimeoutError:
                self._silent.set()
                for number in list(self._waiting):
                    self._hand_over(number, self._lost(f"no answer for {_SILENCE_S} s"))
                return
            except Exception:  # noqa: BLE001, S112 -- an error shows at the next block
                continue
            self.capacity = max(1, sum(threads.values()))

    def _answered(self, work: Callable[[], T]) -> T:
        """The result of work that waits for the cluster, as long as the scheduler answers."""
        begun = _begun(work)
        while not futures.wait([begun], timeout=0.5).done:
            if self._silent.is_set():
                raise self._lost(f"no answer for {_SILENCE_S} s")
        return begun.result()

    def _check_versions(self) -> None:
        """Asks the workers, with a function of the standard library, which every worker has."""
        found = self._client.run(version, _PACKAGE, on_error="return")
        own = version(_PACKAGE)
        others = {worker: answer for worker, answer in found.items() if answer != own}
        if others:
            raise RsscGeoError(_versions_differ(others))

    def _agreed(self, card: ModelCard) -> tuple[PredictorSpec, int]:
        """The spec on which all workers agree, and its batch size.

        ``card``: the model's on this machine.
        """
        workers = list(self._client.nthreads())
        tasks = [
            self._client.submit(_describe, self._plugin, workers=[worker], pure=False)
            for worker in workers
        ]
        answers = {
            worker: _answer(worker, task) for worker, task in zip(workers, tasks, strict=True)
        }
        first, (spec, batch_size) = next(iter(answers.items()))
        if spec.card.identity != card.identity:
            raise RsscGeoError(
                f"worker {first} has another model {card.name} than this machine: copy this one to"
                " all workers"
            )
        for worker, (other, _) in answers.items():
            if spec_hash(other) != spec_hash(spec):
                raise RsscGeoError(
                    f"workers differ: {first} has {_named(spec)}, {worker} has {_named(other)};"
                    " give --dtype, and the same model to all of them"
                )
        return spec, batch_size

    def named_spec(self, words: ClassWords) -> PredictorSpec:
        """See ``Pool``."""

        def ask() -> PredictorSpec:
            task = self._client.submit(_describe_named, self._plugin, words, pure=False)
            return _answer("of the cluster", task)

        return self._answered(ask)

    def refined(self, block: Block) -> ClassWords:
        """See ``Pool``."""

        def ask() -> ClassWords:
            task = self._client.submit(_refine, self._plugin, _placed(block), pure=False)
            return _answer("of the cluster", task)

        return self._answered(ask)

    def submit(self, block: Block, done: Done) -> Callable[[], None]:
        """See ``Pool``."""
        number = next(self._numbers)
        key = f"rssc-geo-block-{self._run_id}-{number}"
        self._waiting[number] = done
        if self._silent.is_set():
            self._hand_over(number, self._lost(f"no answer for {_SILENCE_S} s"))
            return lambda: None
        try:
            future = self._client.submit(_run, self._plugin, _placed(block), key=key, pure=False)
        except Exception as error:  # noqa: BLE001 -- Dask's errors have no common base
            self._hand_over(number, self._lost(error))
            return lambda: None
        future.add_done_callback(lambda finished: self._deliver(finished, number))
        release: Callable[[], None] = future.release
        return release

    def _deliver(self, future: Future[BlockResult | _Failure], number: int) -> None:
        """Fetch the result, so that it leaves the worker, and pass it on.

        In a thread of the client.
        """
        try:
            result = future.result()
            self._hand_over(number, result.error() if isinstance(result, _Failure) else result)
        except KilledWorker:
            self._hand_over(
                number,
                RsscGeoError(
                    "every worker that was given this block died: is there enough memory for the"
                    " model?"
                ),
            )
        except CancelledError as error:
            self._hand_over(number, self._lost(error))
        except Exception as error:  # noqa: BLE001 -- passed to the waiting thread
            self._hand_over(number, error)
        finally:
            future.release()

    def _hand_over(self, number: int, result: BlockResult | BaseException) -> None:
        """Pass a block's result on, once."""
        done = self._waiting.pop(number, None)
        if done is not None:
            done(result)

    def _lost(self, error: BaseException | str) -> PoolLostError:
        return PoolLostError(
            f"the scheduler {self._scheduler} is gone ({one_line(error)}): start it, then run the"
            " same command to go on"
        )

    def close(self) -> None:
        """See ``Pool``."""
        self._closed.set()
        with contextlib.suppress(Exception):  # the cluster may be gone
            _begun(lambda: self._client.close(timeout=1)).result(_PATIENCE_S)


def _placed(block: Block) -> Block:
    """The block with the full path of its raster: a worker may run in another folder.

    There it would not find the raster, or find another one of the same name.
    """
    opening = block.scene.opening
    if not os.path.exists(opening.dataset):  # a URL, or the text of a virtual raster
        return block
    opening = replace(opening, dataset=os.path.abspath(opening.dataset))
    return replace(block, scene=replace(block.scene, opening=opening))


def _answer(worker: str, task: Future[T | _Failure]) -> T:
    """What a worker returns; raises its error with that one's class."""
    try:
        answer: T | _Failure = task.result()
    except (KilledWorker, CancelledError) as error:
        raise RsscGeoError(
            f"worker {worker} died while it loaded the model: is there enough memory?"
        ) from error
    if isinstance(answer, _Failure):
        raise answer.error()
    return answer


class _OwnClient(Client):
    """A client that only its owner closes, and that is closed where it does not connect.

    The garbage collector would close it in a thread that may hold the lock which closing takes: the
    next client would wait for ever.
    """

    def __init__(self, **where: str) -> None:
        super().__init__(**where, timeout=_PATIENCE_S, set_as_default=False)  # type: ignore[no-untyped-call]

    def start(self, **settings: Any) -> None:
        """Connect."""
        try:
            super().start(**settings)  # type: ignore[no-untyped-call]
        except BaseException:
            with contextlib.suppress(Exception):
                self.close(timeout=1)  # type: ignore[no-untyped-call]
            raise

    def __del__(self) -> None:
        """Nothing."""


def _connect(scheduler: str) -> Client:
    where = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    try:
        # Its own time limit is for a scheduler that is not there, not for a silent one.
        return _begun(lambda: _OwnClient(**where)).result(2 * _PATIENCE_S)
    # OSError is the base of time-outs, too; the others are of a file that is none of a scheduler.
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise UsageError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({one_line(error)}); give"
            " tcp://HOST:8786 or the file that 'dask scheduler --scheduler-file' writes"
        ) from error


def _begun(work: Callable[[], T]) -> futures.Future[T]:
    """The future of work in a thread that the end of the program does not wait for."""
    future: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 -- passed to the waiting thread
            future.set_exception(error)

    threading.Thread(target=run, name="rssc-geo dask", daemon=True).start()
    return future


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


def _named(spec: PredictorSpec) -> str:
    card = spec.card
    return f"{card.name} {card.version} in {spec.dtype} with captioner {spec.captioner}"
