"""Tiles read ahead by threads, delivered in order.

Every thread has its own handle (GDAL releases the interpreter lock while it reads) and works on
runs of consecutive tiles of one tile row. Which thread reads which run depends on the run's place
alone: a thread reads the same columns in row after row, so that the blocks that its handle has
decoded are used for the next row too. Each thread has a bounded queue of finished runs, and the
consumer takes from the queue that the next run belongs to.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssc_geo.closing import Closing
from rssc_geo.errors import InputError, one_line
from rssc_geo.geometry import BlockGrid, Tile, TileGrid, Window
from rssc_geo.raster.gdal import GDAL_ERRORS
from rssc_geo.raster.mask import PixelReader
from rssc_geo.raster.radiometry import Radiometry
from rssc_geo.raster.resampling import Taps, resampled, taps
from rssc_geo.raster.scene import Scene

_RUN_TILES = 16
"""Tiles of a run: enough that passing runs on costs little, few enough that queues stay small."""

_QUEUE_RUNS = 4
"""Finished runs a thread may hold: with 2, a thread that is ahead waits too often for the other."""

_BLOCKS_AHEAD = 1
"""Finished blocks that a thread may hold: each takes as much memory as hundreds of tiles, and the
network takes longer for it than reading does."""

_MOST_QUEUE_RUNS = 32
_LEAST_CACHE_BYTES, _MOST_CACHE_BYTES = 128 << 20, 512 << 20
_LEAST_BLOCKS_CACHE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class TileData:
    """A tile, or a block with its halo, as input of the network.

    Attributes
    ----------
    tile : its window; of a block without its halo
    pixels : uint8 (H, W, 3) of the reader's out_size, 0 where invalid; may be shared and read-only.
        In memory it lies band by band: numpy stacks such tiles without interleaving them, and a
        network's (N, 3, H, W) is a view of the stack
    mask : bool (H, W), True = valid; may be shared and read-only
    valid_fraction : of the tile's real pixels, neither padding nor a halo counted
    cell_fractions : float32 (cell rows, cell columns), valid fraction of the cells wholly contained
        in the tile, in the order of ``grid.cells_of_tile``; may be shared and read-only
    """

    tile: Tile
    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    valid_fraction: float
    cell_fractions: NDArray[np.float32]


class TileReader(Closing):
    """Reads tiles or blocks in a given order, ahead of the consumer, with several threads.

    A context manager and an iterator of :class:`TileData`.

    Parameters
    ----------
    grid : tiles, or blocks that are read with their halo
    radiometry : the scene's scaling to 8 bit
    out_size : (rows, columns) of the pixels delivered for a tile, averaged from overviews where
        there are some and the raster is finer; blocks have their own
    tiles : indices of the tiles wanted; default all, row by row
    threads : reading threads; default up to 4, as there are processors

    Raises ``InputError`` while iterating, at the tile that could not be read.
    """

    def __init__(
        self,
        scene: Scene,
        grid: TileGrid | BlockGrid,
        radiometry: Radiometry,
        *,
        out_size: tuple[int, int],
        tiles: Iterable[int] | None = None,
        threads: int | None = None,
    ) -> None:
        if grid.shape != scene.shape:
            raise ValueError(f"a grid of {grid.shape} does not fit a scene of {scene.shape}")
        count = threads if threads is not None else max(1, min(4, os.cpu_count() or 1))
        if count < 1 or min(out_size) < 1:
            raise ValueError(f"threads {count}, out_size {out_size}: each must be at least 1")
        self._scene = scene
        self._grid, self._radiometry, self._out_size = grid, radiometry, out_size
        self._order = _reading_order(
            grid,
            tiles,
            block_shape=scene.opening.block_shape,
            pixel_bytes=scene.opening.pixel_bytes,
            threads=count,
        )
        self._stopped = threading.Event()
        self._queues = [_Queue(self._order.queue_runs) for _ in range(self._order.threads)]
        self._threads = [
            threading.Thread(
                target=self._work, args=(number,), name=f"rssc-geo reader {number}", daemon=True
            )
            for number in range(self._order.threads)
        ]
        self._started = False

    def __iter__(self) -> Iterator[TileData]:
        """Every tile once, in order; can be iterated once."""
        if self._started:
            raise RuntimeError("a TileReader is iterated once; make another one")
        self._started = True
        for thread in self._threads:
            thread.start()
        return self._deliver()

    def close(self) -> None:
        """Stop the threads and wait for them: at most as long as the read in progress.

        May be called again.
        """
        self._stopped.set()
        for queue in self._queues:
            queue.free.release()
            queue.finished.put(None)
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join()

    def _deliver(self) -> Iterator[TileData]:
        try:
            for number in self._order.thread_of_run.tolist():
                queue = self._queues[number]
                finished = queue.finished.get()
                queue.free.release()
                if finished is None:
                    return
                tiles, error = finished
                yield from tiles
                if error is not None:
                    raise error
        finally:
            self.close()

    def _work(self, number: int) -> None:
        """A thread's function: its runs one after another, until done, stopped or failed."""
        queue, order = self._queues[number], self._order
        tiles: list[TileData] = []
        try:
            with self._scene.pixel_reader(cache_bytes=order.cache_bytes) as pixels:
                loader = self._loader(pixels)
                for run in (order.thread_of_run == number).nonzero()[0].tolist():
                    queue.free.acquire()
                    tiles = []
                    for index in order.run(run):
                        if self._stopped.is_set():
                            return
                        tiles.append(loader.load(index))
                    queue.finished.put((tiles, None))
        except BaseException as error:  # noqa: BLE001 -- raised again where the tiles are consumed
            queue.finished.put((tiles, error))

    def _loader(self, pixels: PixelReader) -> _TileLoader | _BlockLoader:
        """The loader of this reader's tiles, or blocks, on a handle of its own."""
        source, radiometry = self._scene.source, self._radiometry
        if isinstance(self._grid, BlockGrid):
            return _BlockLoader(pixels, self._grid, radiometry, source)
        return _TileLoader(pixels, self._grid, radiometry, self._out_size, source)


_FinishedRun = tuple[list[TileData], BaseException | None]
"""The tiles of a run, and the error that ended it, if any."""


class _Queue:
    """Runs that a thread has finished, and how many more it may finish before they are taken.

    None among them says that the reader is closed.
    """

    def __init__(self, runs: int) -> None:
        self.finished: SimpleQueue[_FinishedRun | None] = SimpleQueue()
        self.free = threading.Semaphore(runs)


class _TileLoader:
    """Loads one tile after another, on one handle: read, scaled, padded, with valid fractions."""

    def __init__(
        self,
        pixels: PixelReader,
        grid: TileGrid,
        radiometry: Radiometry,
        out_size: tuple[int, int],
        source: str,
    ) -> None:
        self._pixels, self._source = pixels, source
        self._grid, self._radiometry, self._out_size = grid, radiometry, out_size
        # Masks of wholly valid and invalid tiles are made once.
        self._nothing = _read_only(np.zeros((3, *out_size), dtype=np.uint8).transpose(1, 2, 0))
        self._masks = {value: _read_only(np.full(out_size, value)) for value in (False, True)}
        self._fractions: dict[tuple[int, int, float], NDArray[np.float32]] = {}

    def load(self, index: int) -> TileData:
        """The tile ``index`` of the grid.

        Raises ``InputError`` naming file and window when it cannot be read.
        """
        tile = self._grid.tile(index)
        window = tile.window
        if self._pixels.is_missing(window):
            return self._invalid(tile)
        content = self._content_shape((window.height, window.width))
        with _reading(self._source, window):
            colors, valid = self._pixels.read(window, content)
            if valid is not None and not valid.any():
                return self._invalid(tile)
            full = valid
            # Where pixels are enlarged, those around a hole fill it.
            enlarged = content[0] > window.height or content[1] > window.width
            if enlarged or (valid is not None and content != (window.height, window.width)):
                full = self._pixels.valid_at_full_resolution(window)
                if not full.any():
                    return self._invalid(tile)
        pixels = self._padded(self._radiometry.apply(colors, valid, window))
        mask = self._masks[True] if valid is None else self._padded(valid)
        if full is None or full.all():
            return TileData(tile, pixels, mask, 1.0, self._uniform_fractions(tile, 1.0))
        return TileData(tile, pixels, mask, float(full.mean()), self._cell_fractions(tile, full))

    def _invalid(self, tile: Tile) -> TileData:
        return TileData(
            tile, self._nothing, self._masks[False], 0.0, self._uniform_fractions(tile, 0.0)
        )

    def _content_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the output that show the raster; the rest is padding.

        All of them, but for an axis shorter than the tile.
        """
        rows, cols = (
            max(1, round(length / size * out))
            for length, size, out in zip(shape, self._grid.size, self._out_size, strict=True)
        )
        return rows, cols

    def _padded(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Extend pixels (H, W, 3) or a mask (H, W) to out_size, reflected at the far edges."""
        missing = [out - length for out, length in zip(self._out_size, pixels.shape, strict=False)]
        if not any(missing):
            return pixels
        # numpy repeats the reflection as often as needed, and repeats the edge of an axis of a
        # single pixel.
        added = [(0, missing[0]), (0, missing[1])]
        if pixels.ndim == 2:
            return np.pad(pixels, added, mode="reflect")
        planes = np.pad(pixels.transpose(2, 0, 1), [(0, 0), *added], mode="reflect")
        return planes.transpose(1, 2, 0)

    def _uniform_fractions(self, tile: Tile, value: float) -> NDArray[np.float32]:
        rows, cols = self._grid.cells_of_tile(tile)
        key = (len(rows), len(cols), value)
        if key not in self._fractions:
            self._fractions[key] = _read_only(np.full(key[:2], value, dtype=np.float32))
        return self._fractions[key]

    def _cell_fractions(self, tile: Tile, valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Valid fractions of the tile's cells, from its mask (H, W) at full resolution."""
        rows, cols = self._grid.cells_of_tile(tile)
        fractions = np.empty((len(rows), len(cols)), dtype=np.float32)
        for i, row in enumerate(rows):
            for j, col in enumerate(cols):
                cell = self._grid.cell(row, col).window
                top, left = cell.row - tile.window.row, cell.col - tile.window.col
                fractions[i, j] = valid[top : top + cell.height, left : left + cell.width].mean()
        return fractions


class _BlockLoader:
    """Loads one block with its halo after another, on one handle: read, scaled, on a canvas.

    Each place of the raster gets the same pixel in every block that covers it, as far as GDAL reads
    the same in each: reading is reduced by whole factors only, the rest is ``resampled``.
    """

    def __init__(
        self,
        pixels: PixelReader,
        grid: BlockGrid,
        radiometry: Radiometry,
        source: str,
    ) -> None:
        self._pixels, self._source = pixels, source
        self._grid, self._radiometry = grid, radiometry
        self._factors = grid.factors
        self._scales = [
            size / grid.cell_pixels / factor
            for size, factor in zip(grid.cell_size, self._factors, strict=True)
        ]
        self._lengths = [
            max(1, length // factor)
            for length, factor in zip(grid.shape, self._factors, strict=True)
        ]

    def load(self, index: int) -> TileData:
        """The block ``index``; ``InputError`` naming file and window when it cannot be read."""
        grid = self._grid
        block = grid.tile(index)
        reach = grid.reach(block)
        shape = tuple(len(cells) * grid.cell_pixels for cells in reach)
        # In memory band by band, see TileData.
        pixels = np.zeros((3, *shape), np.uint8).transpose(1, 2, 0)
        mask = np.zeros(shape, bool)
        places, along = zip(*(self._along(axis, cells) for axis, cells in enumerate(reach)),
                            strict=True)  # fmt: skip
        window, out_shape, origin = self._window(along)
        fractions = np.zeros([len(cells) for cells in grid.cells_of_tile(block)], np.float32)
        whole = 0.0
        if not self._pixels.is_missing(window):
            with _reading(self._source, window):
                colors, valid = self._pixels.read(window, out_shape)
                full = None
                if valid is not None and valid.any():
                    full = self._full_mask(block.window, window, valid)
            if valid is None or valid.any():
                whole = 1.0 if full is None else float(full.mean())
                fractions = self._fractions(block, full)
                scaled = self._radiometry.apply(colors, valid, window)
                found, seen = resampled(scaled, valid, *along, origin=origin)
                pixels[places] = found
                mask[places] = True if seen is None else seen
        return TileData(block, pixels, mask, whole, fractions)

    def _full_mask(
        self, wanted: Window, read: Window, valid: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """The mask of a window pixel by pixel; ``valid``: that of the window around it, as read."""
        top, left = wanted.row - read.row, wanted.col - read.col
        cut = valid[top : top + wanted.height, left : left + wanted.width]
        is_full = valid.shape == (read.height, read.width)
        if is_full and cut.shape == (wanted.height, wanted.width):
            return cut
        return self._pixels.valid_at_full_resolution(wanted)

    def _along(self, axis: int, cells: range) -> tuple[slice, Taps]:
        """The part of the canvas with cells on the raster, and the taps of their pixels."""
        out, scale, length = self._grid.cell_pixels, self._scales[axis], self._lengths[axis]
        start = max(0, cells.start * out)
        stop = min(cells.stop * out, self._grid.pixels_shape[axis])
        origin = cells.start * out
        return slice(start - origin, stop - origin), taps(start, stop, scale=scale, length=length)

    def _window(self, along: Sequence[Taps]) -> tuple[Window, tuple[int, int], tuple[int, int]]:
        """The window that taps read, its reduced (rows, columns), and their origin."""
        (top, bottom), (left, right) = (axis.span for axis in along)
        rows, cols = self._factors
        window = Window(
            top * rows,
            left * cols,
            min(bottom * rows, self._grid.shape[0]) - top * rows,
            min(right * cols, self._grid.shape[1]) - left * cols,
        )
        return window, (bottom - top, right - left), (top, left)

    def _fractions(self, block: Tile, full: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Valid fractions of the block's cells; ``full``: its mask, None: all is valid."""
        rows, cols = self._grid.cells_of_tile(block)
        if full is None:
            return np.ones((len(rows), len(cols)), np.float32)
        starts = [
            np.arange(len(cells)) * size
            for cells, size in zip((rows, cols), self._grid.cell_size, strict=True)
        ]
        sums = np.add.reduceat(full, starts[0], axis=0, dtype=np.int64)
        sums = np.add.reduceat(sums, starts[1], axis=1)
        lengths = [np.diff([*edges, side]) for edges, side in zip(starts, full.shape, strict=True)]
        return np.asarray(sums / np.outer(*lengths), np.float32)


@contextmanager
def _reading(source: str, window: Window) -> Iterator[None]:
    """Turns rasterio's errors in the block into an ``InputError`` that names the window."""
    try:
        yield
    except GDAL_ERRORS as error:
        raise InputError(
            f"{source} cannot be read at rows {window.row} to {window.row + window.height - 1},"
            f" columns {window.col} to {window.col + window.width - 1}:"
            f" {one_line(error.__cause__ or error)}"
        ) from error


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


@dataclass(frozen=True, slots=True)
class _ReadingOrder:
    """Runs of tiles in the order of delivery, and which thread reads which.

    Attributes
    ----------
    tiles : int64 tile indices in order
    bounds : int64 (runs + 1,), run ``k`` is ``tiles[bounds[k]:bounds[k + 1]]``
    thread_of_run : int64 (runs,)
    threads, queue_runs : how many threads, and the finished runs each may hold
    cache_bytes : block cache that keeps a block from being decoded for every tile it is part of
    """

    tiles: NDArray[np.int64]
    bounds: NDArray[np.int64]
    thread_of_run: NDArray[np.int64]
    threads: int
    queue_runs: int
    cache_bytes: int

    def run(self, number: int) -> list[int]:
        """The tile indices of a run."""
        indices: list[int] = self.tiles[self.bounds[number] : self.bounds[number + 1]].tolist()
        return indices


def _reading_order(
    grid: TileGrid | BlockGrid,
    tiles: Iterable[int] | None,
    *,
    block_shape: tuple[int, int],
    pixel_bytes: int,
    threads: int,
) -> _ReadingOrder:
    """Cut the tiles into runs within a tile row and deal the runs to threads by their place.

    In tiled rasters a thread keeps its columns; a raster stored in strips is dealt out by whole
    rows, since every tile of a row decodes the same strips. ``pixel_bytes`` is what a pixel takes
    of the block cache. Blocks are read one by one. Raises ``IndexError`` for a tile that the grid
    does not have.
    """
    is_blocks = isinstance(grid, BlockGrid)
    run_tiles, queue_runs = (1, _BLOCKS_AHEAD) if is_blocks else (_RUN_TILES, _QUEUE_RUNS)
    rows, cols = grid.tiles_shape
    indices = _tile_indices(tiles, count=rows * cols)
    in_strips = block_shape[1] >= grid.shape[1] and cols > 1
    cache_bytes = (grid.size[0] + block_shape[0]) * grid.shape[1] * pixel_bytes
    if in_strips:
        # Each thread's handle has strips of its own; a cache too small for a row would decode it
        # for every tile.
        threads = max(1, min(threads, _MOST_CACHE_BYTES // cache_bytes))
        cache_bytes = max(_LEAST_CACHE_BYTES, threads * cache_bytes)
    elif isinstance(grid, BlockGrid):
        # They overlap by their halo alone: decoding that again costs less than a row's memory. What
        # threads read at a time should fit in, since GDAL may decode it for each band.
        height, width = (
            min((grid.side + 2 * grid.halo) * size, length) + stored
            for size, length, stored in zip(grid.cell_size, grid.shape, block_shape, strict=True)
        )
        cache_bytes = threads * height * width * pixel_bytes
        cache_bytes = min(max(_LEAST_BLOCKS_CACHE_BYTES, cache_bytes), _LEAST_CACHE_BYTES)
    else:
        cache_bytes = min(max(_LEAST_CACHE_BYTES, cache_bytes), _MOST_CACHE_BYTES // 2)
    if indices.size == 0:
        return _ReadingOrder(
            indices, np.zeros(1, np.int64), np.zeros(0, np.int64), 1, 1, cache_bytes
        )
    tile_row, tile_col = np.divmod(indices, cols)
    first_col = int(tile_col.min())
    across = int(tile_col.max()) - first_col + 1
    # The same number of runs for each thread: otherwise one would wait for the other in every row.
    sharing = 1 if in_strips else threads
    runs_across = sharing * -(-across // (sharing * run_tiles))
    run_length = -(-across // runs_across)
    run_col = (tile_col - first_col) // run_length
    runs_across = -(-across // run_length)
    starts = np.concatenate(
        [[0], np.flatnonzero((np.diff(tile_row) != 0) | (np.diff(run_col) != 0)) + 1]
    )
    bounds = np.append(starts, len(indices)).astype(np.int64)
    if in_strips:
        # Rows that share a strip stay with one thread, which must hold a row for the other to read
        # the next one.
        rows_a_strip = max(1, block_shape[0] // grid.cell_size[0])
        thread_of_run = tile_row[starts] // rows_a_strip % threads
        if not is_blocks:
            queue_runs = max(_QUEUE_RUNS, min(runs_across * rows_a_strip, _MOST_QUEUE_RUNS))
    elif runs_across < threads:
        thread_of_run = (tile_row[starts] * runs_across + run_col[starts]) % threads
    else:
        thread_of_run = run_col[starts] % threads
    return _ReadingOrder(
        indices, bounds, thread_of_run.astype(np.int64), threads, queue_runs, cache_bytes
    )


def _tile_indices(tiles: Iterable[int] | None, *, count: int) -> NDArray[np.int64]:
    """The tiles wanted of so many, in order, all of them for None; ``IndexError`` for others."""
    wanted = range(count) if tiles is None else tiles
    indices = (
        np.asarray(wanted, dtype=np.int64)
        if isinstance(wanted, range)
        else np.fromiter(wanted, dtype=np.int64)
    )
    if indices.size and (indices.min() < 0 or indices.max() >= count):
        raise IndexError(f"tiles {indices.min()} to {indices.max()} of a grid of {count}")
    return indices
