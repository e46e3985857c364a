"""Pools of workers that run blocks; the one of this machine."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from rssc_geo.batch.block import Block, BlockResult
from rssc_geo.batch.worker import LoadWorker, Worker, load_worker, processors
from rssc_geo.errors import RsscGeoError
from rssc_geo.inference import PredictorSpec
from rssc_geo.models import ClassWords
from rssc_geo.options import PredictorOptions

_BLOCKS_A_DEVICE = 2
"""Blocks at once a device: one is read while the model works on the other."""

Done = Callable[[BlockResult | BaseException], None]


class PoolLostError(RsscGeoError):
    """No worker is left: the batch stops, and continues when it is run again."""


class Pool(Protocol):
    """Runs blocks on some workers."""

    @property
    def spec(self) -> PredictorSpec:
        """What classifies."""

    @property
    def batch_size(self) -> int:
        """Tiles a batch of the model."""

    @property
    def capacity(self) -> int:
        """How many blocks are processed at once; may change while it runs."""

    def named_spec(self, words: ClassWords) -> PredictorSpec:
        """What classifies into classes that are named by words.

        Raises ``UsageError`` for words that mean nothing to the model.
        """

    def refined(self, block: Block) -> ClassWords:
        """The words of a block, with vectors moved towards the clusters that its tiles form.

        Raises ``NothingToClassifyError`` where no tile has data.
        """

    def submit(self, block: Block, done: Done) -> Callable[[], None]:
        """Start a block; ``done`` is called with its result or its error, in any thread.

        Returns a function that cancels it.
        """

    def close(self) -> None:
        """Stop; blocks not yet begun are dropped."""


class LocalPool:
    """The devices of this machine, each with the model loaded once and fed by two threads.

    ``threads``: of the processor, by default all; ``load``: makes the worker of a device. Raises
    what ``load_worker`` does.
    """

    def __init__(
        self,
        options: PredictorOptions,
        *,
        threads: int | None = None,
        load: LoadWorker = load_worker,
    ) -> None:
        devices = devices_of(options)
        threads = threads or processors()
        reading = max(1, min(4, threads // (_BLOCKS_A_DEVICE * len(devices))))
        workers = [
            load(replace(options, device=device), threads=threads, reading_threads=reading)
            for device in devices
        ]
        self._first = workers[0]
        self.spec = workers[0].spec
        self.batch_size = workers[0].batch_size
        self.capacity = _BLOCKS_A_DEVICE * len(workers)
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in workers * _BLOCKS_A_DEVICE:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(self.capacity, thread_name_prefix="rssc-geo block")

    def named_spec(self, words: ClassWords) -> PredictorSpec:
        """See ``Pool``."""
        return self._first.named(words).spec

    def refined(self, block: Block) -> ClassWords:
        """See ``Pool``."""
        return self._first.refined(block)

    def submit(self, block: Block, done: Done) -> Callable[[], None]:
        """See ``Pool``."""
        future = self._threads.submit(self._work, block, done)

        def cancel() -> None:
            future.cancel()

        return cancel

    def _work(self, block: Block, done: Done) -> None:
        worker = self._idle.get()
        try:
            done(worker.run(block))
        except BaseException as error:  # noqa: BLE001 -- passed to the waiting thread
            done(error)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """See ``Pool``."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def devices_of(options: PredictorOptions) -> list[str]:
    """The devices of a list such as "cuda:0,cuda:1".

    By default every CUDA device, else the fastest device.
    """
    if options.device not in (None, "auto"):
        return [name.strip() for name in str(options.device).split(",")]
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["auto"]
