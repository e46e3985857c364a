"""Tiles read ahead by threads, delivered in order.

Every thread has a handle of its own (GDAL gives the interpreter lock back while it reads) and works
on runs of consecutive tiles of one tile row. Which thread reads which run depends on the run's
place alone: a thread meets the same columns in row after row, so that the blocks its handle has
decoded serve the next row too. Each thread has a bounded queue of finished runs, and the consumer
takes from the queue that the next run belongs to.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING

from rssc_geo.geometry import TileGrid
from rssc_geo.raster.plan import plan_reading
from rssc_geo.raster.radiometry import Radiometry
from rssc_geo.raster.scene import Scene
from rssc_geo.raster.tiles import TileData, TileMaker
from rssc_geo.raster.virtual import gdal_env, gdal_errors

if TYPE_CHECKING:
    from typing import Self

__all__ = ["TileData", "TileReader"]

_Finished = tuple[list[TileData], BaseException | None] | None


@dataclass(frozen=True, slots=True)
class _Lane:
    """What a thread has finished: runs (with the error that ended the last), ``None`` when closed.

    And free places.
    """

    finished: SimpleQueue[_Finished]
    free: threading.Semaphore


class TileReader:
    """Reads tiles in the order of ``tiles``; a context manager and an iterator of
    :class:`TileData`.

    Parameters
    ----------
    radiometry : the scene's scaling to 8 bit
    out_size : (rows, columns) of the pixels delivered; a reduced tile is averaged from overviews
        where there are some
    tiles : indices of the tiles wanted; default all, row by row
    threads : reading threads; default up to 4, as there are processors
    queue_size : finished runs each thread may hold; default 4, more for rasters stored in strips

    Raises ``InputError`` while iterating, at the tile that could not be read.
    """

    def __init__(
        self,
        scene: Scene,
        grid: TileGrid,
        radiometry: Radiometry,
        *,
        out_size: tuple[int, int],
        tiles: Iterable[int] | None = None,
        threads: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        if grid.shape != scene.shape:
            raise ValueError(f"a grid of {grid.shape} does not fit a scene of {scene.shape}")
        count = threads if threads is not None else max(1, min(4, os.cpu_count() or 1))
        if count < 1 or (queue_size is not None and queue_size < 1) or min(out_size) < 1:
            raise ValueError(
                f"threads {count}, queue_size {queue_size}, out_size {out_size}: each must be at"
                " least 1"
            )
        self._scene = scene
        self._plan = plan_reading(
            grid, tiles, block_shape=scene.block_shape, pixel_bytes=scene.pixel_bytes, threads=count
        )
        self._stopped = threading.Event()
        depth = queue_size if queue_size is not None else self._plan.queue_size
        self._lanes = [
            _Lane(SimpleQueue(), threading.Semaphore(depth)) for _ in range(self._plan.threads)
        ]
        self._grid, self._radiometry, self._out_size = grid, radiometry, out_size
        self._threads = [
            threading.Thread(
                target=self._work, args=(number,), name=f"rssc-geo reader {number}", daemon=True
            )
            for number in range(self._plan.threads)
        ]
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[TileData]:
        """Every tile once, in order; can be iterated once."""
        if self._started:
            raise RuntimeError("a TileReader is iterated once; make another one")
        self._started = True
        for thread in self._threads:
            thread.start()
        return self._deliver()

    def _deliver(self) -> Iterator[TileData]:
        try:
            for lane_number in self._plan.lanes.tolist():
                lane = self._lanes[lane_number]
                finished = lane.finished.get()
                lane.free.release()
                if finished is None:
                    return
                tiles, error = finished
                yield from tiles
                if error is not None:
                    raise error
        finally:
            self.close()

    def _work(self, number: int) -> None:
        """A thread: its runs one after another, until done, stopped or failed."""
        lane, plan = self._lanes[number], self._plan
        tiles: list[TileData] = []
        try:
            source, dataset = self._scene.source, self._scene.opening.dataset
            with (
                gdal_errors(source),
                gdal_env(dataset, cache_bytes=plan.cache_bytes),
                self._scene.open() as handle,
            ):
                maker = TileMaker(
                    self._scene, handle, self._grid, self._radiometry, out_size=self._out_size
                )
                for run in (plan.lanes == number).nonzero()[0].tolist():
                    lane.free.acquire()
                    tiles = []
                    for index in plan.run(run):
                        if self._stopped.is_set():
                            return
                        tiles.append(maker.tile(index))
                    lane.finished.put((tiles, None))
        except BaseException as error:
            lane.finished.put((tiles, error))

    def close(self) -> None:
        """Stop the threads and wait for them: at most as long as the read in progress.

        May be called again.
        """
        self._stopped.set()
        for lane in self._lanes:
            lane.free.release()
            lane.finished.put(None)
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join()
