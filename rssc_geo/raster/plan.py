"""Which thread reads which tiles, in which order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rssc_geo.geometry import TileGrid

_RUN_TILES = 16
"""Tiles of a run: enough that handing runs over costs little, few enough that queues stay small."""
_QUEUE_RUNS = 4
"""Finished runs a thread may hold: with 2, a lane that is ahead waits too often for the other."""

_MOST_RUNS_HELD = 32
_LEAST_CACHE_BYTES, _MOST_CACHE_BYTES = 128 << 20, 512 << 20


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """Runs of tiles in the order of delivery.

    Attributes
    ----------
    tiles : int64 tile indices in order
    bounds : int64 (runs + 1,), run ``k`` is ``tiles[bounds[k]:bounds[k + 1]]``
    lanes : int64 (runs,), the thread that reads the run
    threads, queue_size : how many threads, and the finished runs each may hold
    cache_bytes : block cache that keeps a block from being decoded for every tile it is part of
    """

    tiles: np.ndarray
    bounds: np.ndarray
    lanes: np.ndarray
    threads: int
    queue_size: int
    cache_bytes: int

    def run(self, number: int) -> list[int]:
        """The tile indices of a run."""
        indices: list[int] = self.tiles[self.bounds[number] : self.bounds[number + 1]].tolist()
        return indices


def plan_reading(
    grid: TileGrid,
    tiles: Iterable[int] | None,
    *,
    block_shape: tuple[int, int],
    pixel_bytes: int,
    threads: int,
) -> ReadingPlan:
    """Cut the tiles into runs within a tile row and deal the runs to threads by their place in the
    grid.

    In tiled rasters a thread keeps its columns; a raster stored in strips is dealt out by whole
    rows, since every tile of a row decodes the same strips. ``pixel_bytes`` is what a pixel takes
    of the block cache.
    """
    rows, cols = grid.tiles_shape
    wanted = range(rows * cols) if tiles is None else tiles
    indices = (
        np.asarray(wanted) if isinstance(wanted, range) else np.fromiter(wanted, dtype=np.int64)
    )
    if indices.size and (indices.min() < 0 or indices.max() >= rows * cols):
        raise IndexError(f"tiles {indices.min()} to {indices.max()} of a grid of {rows * cols}")
    in_strips = block_shape[1] >= grid.shape[1] and cols > 1
    cache_bytes = (grid.size[0] + block_shape[0]) * grid.shape[1] * pixel_bytes
    if in_strips:
        # Each thread's handle has strips of its own; a cache too small for a row would decode it
        # for every tile.
        threads = max(1, min(threads, _MOST_CACHE_BYTES // cache_bytes))
        cache_bytes = max(_LEAST_CACHE_BYTES, threads * cache_bytes)
    else:
        cache_bytes = min(max(_LEAST_CACHE_BYTES, cache_bytes), _MOST_CACHE_BYTES // 2)
    if indices.size == 0:
        return ReadingPlan(indices, np.zeros(1, np.int64), np.zeros(0, np.int64), 1, 1, cache_bytes)
    tile_row, tile_col = np.divmod(indices, cols)
    first_col = int(tile_col.min())
    across = int(tile_col.max()) - first_col + 1
    # As many runs for each thread: what does not divide evenly would leave one waiting for the
    # other in every row.
    sharing = 1 if in_strips else threads
    runs_across = sharing * -(-across // (sharing * _RUN_TILES))
    run_length = -(-across // runs_across)
    run_col = (tile_col - first_col) // run_length
    runs_across = -(-across // run_length)
    starts = np.concatenate(
        [[0], np.flatnonzero((np.diff(tile_row) != 0) | (np.diff(run_col) != 0)) + 1]
    )
    bounds = np.append(starts, len(indices)).astype(np.int64)
    queue_size = _QUEUE_RUNS
    if in_strips:
        # Rows that share a strip stay with one thread, which must hold a row for the other to read
        # the next one.
        rows_a_strip = max(1, block_shape[0] // grid.cell_size[0])
        lanes = tile_row[starts] // rows_a_strip % threads
        queue_size = max(_QUEUE_RUNS, min(runs_across * rows_a_strip, _MOST_RUNS_HELD))
    elif runs_across < threads:
        lanes = (tile_row[starts] * runs_across + run_col[starts]) % threads
    else:
        lanes = run_col[starts] % threads
    return ReadingPlan(indices, bounds, lanes.astype(np.int64), threads, queue_size, cache_bytes)
