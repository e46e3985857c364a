"""Fixed blocks of whole cells, and the windows that fine cells are read from: no I/O.

A fine map has cells smaller than tiles. The image encoder runs over *blocks*: fixed, aligned
rectangles of whole cells, each with a halo of cells around it, so wide that results inside do not
depend on where the block ends. A cell's class is read from a *window*, as large as a tile, of whole
feature tokens: the one centered on the cell; where two are equally near, the mean of both; at the
raster's edge the nearest one inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rssc_geo.geometry.grid import Tile, Window

WindowWeights = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weights of tokens, for R rows (R, h) and M columns (M, w) of windows; each row sums to 1."""

CellRanges = tuple[range, range]
"""Rows and columns of cells."""


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The cells of a raster in blocks; cells are those of a ``TileGrid`` of the same cell size.

    Parameters
    ----------
    shape : (rows, cols) of the raster, in pixels
    cell_size : (rows, cols) of a cell, in pixels
    cell_pixels : pixels a side that a network sees of a cell
    side : cells a side of a block; those at the far edges are clipped
    halo : cells around a block that are read with it
    margin : most cells of the halo that lie beyond the raster, without data
    window : cells a side of a window; so many are read even where the raster has fewer

    Raises ``ValueError`` when a size is below 1, or the halo or margin below 0.
    """

    shape: tuple[int, int]
    cell_size: tuple[int, int]
    cell_pixels: int
    side: int
    halo: int
    margin: int = 0
    window: int = 1

    def __post_init__(self) -> None:
        sizes = (*self.shape, *self.cell_size, self.cell_pixels, self.side, self.window)
        if min(sizes) < 1 or min(self.halo, self.margin) < 0:
            raise ValueError(f"no blocks: {self}")

    @property
    def size(self) -> tuple[int, int]:
        """(rows, cols) of a block, in pixels."""
        return self.cell_size[0] * self.side, self.cell_size[1] * self.side

    @property
    def factors(self) -> tuple[int, int]:
        """Pixels of the raster, along (rows, cols), that are averaged when they are read."""
        rows, cols = (
            1 << max(0, int(math.log2(size / self.cell_pixels))) for size in self.cell_size
        )
        return rows, cols

    @property
    def pixels_shape(self) -> tuple[int, int]:
        """(rows, cols) of the pixels that a network sees: those whose middle lies on the raster.

        What does not fill a pixel of the reduced raster is less than one of them.
        """
        rows, cols = (
            max(1, math.floor(max(1, length // factor) / (size / self.cell_pixels / factor) + 0.5))
            for length, factor, size in zip(self.shape, self.factors, self.cell_size, strict=True)
        )
        return rows, cols

    @property
    def cells_shape(self) -> tuple[int, int]:
        """Number of cells (rows, cols)."""
        rows, cols = (-(-n // c) for n, c in zip(self.shape, self.cell_size, strict=True))
        return rows, cols

    @property
    def tiles_shape(self) -> tuple[int, int]:
        """Number of blocks (rows, cols)."""
        rows, cols = (-(-count // self.side) for count in self.cells_shape)
        return rows, cols

    def tile(self, index: int) -> Tile:
        """Block ``index`` in row-major order, without its halo; ``IndexError`` if none."""
        rows, cols = self.tiles_shape
        if not 0 <= index < rows * cols:
            raise IndexError(f"block {index} of {rows * cols}")
        row, col = divmod(index, cols)
        (top, height), (left, width) = (
            (place * size, min(size, length - place * size))
            for place, size, length in zip((row, col), self.size, self.shape, strict=True)
        )
        return Tile(index, row, col, Window(top, left, height, width))

    def tiles(self) -> Iterator[Tile]:
        """All blocks, row-major."""
        rows, cols = self.tiles_shape
        return (self.tile(index) for index in range(rows * cols))

    def cells_of_tile(self, block: Tile) -> tuple[range, range]:
        """Rows and columns of a block's cells, without its halo."""
        rows, cols = (
            range(place * self.side, min((place + 1) * self.side, count))
            for place, count in zip((block.row, block.col), self.cells_shape, strict=True)
        )
        return rows, cols

    def nearest_tiles(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each cell row (column) the row (column) of its block, as ``TileGrid`` gives it."""
        rows, cols = (np.arange(count, dtype=np.int64) // self.side for count in self.cells_shape)
        return rows, cols

    def tile_spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same twice, int64 ``(cells, 2)``: a cell lies in one block."""
        rows, cols = (np.stack([near, near], axis=1) for near in self.nearest_tiles())
        return rows, cols

    def reach(self, block: Tile) -> tuple[range, range]:
        """Rows and columns of cells of a block with its halo.

        Beyond the raster no more than the margin, but where it has fewer cells than a window.
        """
        rows, cols = (
            range(
                max(cells.start - self.halo, -self.margin),
                min(cells.stop + self.halo, max(count, self.window) + self.margin),
            )
            for cells, count in zip(self.cells_of_tile(block), self.cells_shape, strict=True)
        )
        return rows, cols


def window_weights(
    cells: range, seen: range, *, count: int, tokens: int, window: int
) -> NDArray[np.float32]:
    """Weights of feature tokens along one axis for the windows of cells.

    Parameters
    ----------
    cells : the cells whose windows are wanted
    seen : the cells whose tokens are there; windows must lie within
    count : cells along the axis of the whole raster
    tokens : a cell's
    window : tokens of a window; all that the raster has where it has fewer

    Returns float32 ``(len(cells), len(seen) * tokens)``, rows summing to 1. Raises ``ValueError``
    where a window reaches beyond ``seen``.

    Examples
    --------
    >>> window_weights(range(1, 2), range(0, 3), count=9, tokens=2, window=2)
    array([[0. , 0. , 0.5, 0.5, 0. , 0. ]], dtype=float32)
    """
    whole = count * tokens
    length = min(window, whole)
    weights = np.zeros((len(cells), len(seen) * tokens), np.float32)
    for place, cell in enumerate(cells):
        # Twice the start of the window that is centered on the cell: an integer.
        doubled = 2 * cell * tokens + tokens - length
        for start in (doubled // 2, -(-doubled // 2)):
            first = min(max(start, 0), whole - length) - seen.start * tokens
            if first < 0 or first + length > weights.shape[1]:
                raise ValueError(f"the window of cell {cell} reaches beyond cells {seen}")
            weights[place, first : first + length] += 0.5 / length
    return weights
