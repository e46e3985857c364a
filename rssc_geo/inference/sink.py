"""The writing end of the pipeline.

A thread that turns tiles into cells and stores them while the model works.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from rssc_geo.inference.aggregate import CellAggregator, TileResult
from rssc_geo.output import CellBatch
from typing import Self

_WAITING = 4  # batches that may wait to be written: enough to hide a slow disk's hiccups, too few to fill memory


class CellSink:
    """Context manager; ``put`` hands over tiles in ascending order, leaving it waits until all is
    stored.

    ``store(cells, watermark)`` is called in the thread. An error there is raised by the next
    ``put`` or on leaving.
    """

    def __init__(self, aggregator: CellAggregator, store: Callable[[CellBatch, int], None]) -> None:
        self._aggregator = aggregator
        self._store = store
        self._queue: queue.Queue[Sequence[TileResult] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="rssc-geo-writer", daemon=True)

    def put(self, results: Sequence[TileResult]) -> None:
        """Hand over tiles; waits while too many are unwritten."""
        self._raise()
        if results:
            self._queue.put(results)

    def _work(self) -> None:
        while (results := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep emptying the queue, so that nobody waits for a place in it
            try:
                self._store(self._aggregator.add(results), results[-1].tile.index + 1)
            except BaseException as error:
                self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise()
