"""Where blocks are run: what every pool offers, and the one of this machine."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from rssc_geo.batch.blocks import Block, BlockResult
from rssc_geo.batch.worker import Engine, EngineSpec, load_engine, processors
from rssc_geo.errors import RsscGeoError
from rssc_geo.inference import Maker

Done = Callable[[BlockResult | BaseException], None]
_FEEDERS = 2  # blocks at once a device: one is read while the model works on the other


class PoolLostError(RsscGeoError):
    """Nobody is left who could classify: the batch stops, and goes on when it is run again."""


class Pool(Protocol):
    """Runs blocks somewhere."""

    @property
    def maker(self) -> Maker:
        """Who classifies."""

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

    Raises what ``load_engine`` does.
    """

    def __init__(self, spec: EngineSpec, *, load: Callable[..., Engine] = load_engine) -> None:
        specs = spec.per_device()
        threads = spec.threads or processors()
        reading = max(1, min(4, threads // (_FEEDERS * len(specs))))
        engines = [load(each, reading_threads=reading) for each in specs]
        self.maker = engines[0].maker
        self.batch_size = engines[0].batch_size
        self.capacity = _FEEDERS * len(engines)
        self._free: queue.SimpleQueue[Engine] = queue.SimpleQueue()
        for engine in engines * _FEEDERS:
            self._free.put(engine)
        self._threads = ThreadPoolExecutor(self.capacity, thread_name_prefix="rssc-geo block")

    def submit(self, block: Block, done: Done) -> Callable[[], None]:
        """See ``Pool``."""
        future = self._threads.submit(self._work, block, done)

        def cancel() -> None:
            future.cancel()

        return cancel

    def _work(self, block: Block, done: Done) -> None:
        engine = self._free.get()
        try:
            done(engine.run(block))
        except BaseException as error:
            done(error)
        finally:
            self._free.put(engine)

    def close(self) -> None:
        """See ``Pool``."""
        self._threads.shutdown(wait=False, cancel_futures=True)
