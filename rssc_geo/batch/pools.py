"""Where blocks are run: what every pool offers, and the one of this machine."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from rssc_geo.batch.worker import Block, BlockResult, LoadWorker, Worker, load_worker, processors
from rssc_geo.errors import RsscGeoError
from rssc_geo.inference import PredictorSpec
from rssc_geo.options import PredictorOptions

Done = Callable[[BlockResult | BaseException], None]
_BLOCKS_A_DEVICE = 2
"""Blocks at once a device: one is read while the model works on the other."""


class PoolLostError(RsscGeoError):
    """Nobody is left who could classify: the batch stops, and goes on when it is run again."""


class Pool(Protocol):
    """Runs blocks somewhere."""

    @property
    def spec(self) -> PredictorSpec:
        """What classifies."""

    @property
    def batch_size(self) -> int:
        """Tiles that the model takes at once."""

    @property
    def capacity(self) -> int:
        """How many blocks are worked on at once; may change while it runs."""

    def submit(self, block: Block, done: Done) -> Callable[[], None]:
        """Start a block; ``done`` gets its result or its error, in any thread.

        What is returned cancels it.
        """

    def close(self) -> None:
        """Stop; blocks not yet begun are dropped."""


class LocalPool:
    """The devices of this machine, each with the model loaded once and fed by two threads.

    ``threads``: of the processor, all there are by default; ``load``: makes the worker of a device.
    Raises what ``load_worker`` does.
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
        self.spec = workers[0].spec
        self.batch_size = workers[0].batch_size
        self.capacity = _BLOCKS_A_DEVICE * len(workers)
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in workers * _BLOCKS_A_DEVICE:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(self.capacity, thread_name_prefix="rssc-geo block")

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
        except BaseException as error:  # noqa: BLE001 -- handed to whoever waits
            done(error)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """See ``Pool``."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def devices_of(options: PredictorOptions) -> list[str]:
    """The devices that are meant: those of a list such as "cuda:0,cuda:1".

    By default every CUDA device there is, else the fastest.
    """
    if options.device not in (None, "auto"):
        return [name.strip() for name in str(options.device).split(",")]
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["auto"]
