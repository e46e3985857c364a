"""Cells, tiles and how they belong together: pure integer geometry, no I/O.

*Cells* are the cell_size × cell_size rectangles that tessellate a raster exactly once from its
origin, the last row and column clipped to its edge. *Tiles* are the windows the network looks at.
Along each axis tile ``k`` starts at ``min(k · cell_size, length − size)``, duplicates removed; an
axis shorter than the tile has one tile, clipped to the axis (the reader pads it). Every cell is
wholly contained in at least one tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open pixel window: rows ``[row, row + height)``, columns ``[col, col + width)``."""

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.row < 0 or self.col < 0 or self.height < 1 or self.width < 1:
            raise ValueError(f"not a pixel window: {self}")

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as array slices (rows, columns)."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)


@dataclass(frozen=True, slots=True)
class Tile:
    """A window the network looks at; ``row`` and ``col`` count tiles, ``index`` is row-major."""

    index: int
    row: int
    col: int
    window: Window


@dataclass(frozen=True, slots=True)
class Cell:
    """A rectangle of the partition; ``row`` and ``col`` count cells."""

    row: int
    col: int
    window: Window


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of the grid: tiles and cells of a line of ``length`` pixels."""

    length: int
    size: int
    cell_size: int

    @property
    def tile_length(self) -> int:
        return min(self.size, self.length)

    @property
    def tile_count(self) -> int:
        return 1 + -(-max(0, self.length - self.size) // self.cell_size)

    @property
    def cell_count(self) -> int:
        return -(-self.length // self.cell_size)

    def tile_start(self, index: int) -> int:
        return min(index * self.cell_size, self.length - self.tile_length)

    def cell_start(self, index: int) -> int:
        return index * self.cell_size

    def cell_length(self, index: int) -> int:
        return min(self.cell_size, self.length - index * self.cell_size)

    def tiles_of_cell(self, cell: int) -> range:
        """Tiles that wholly contain the cell: from the first whose end reaches the cell's end."""
        start = self.cell_start(cell)
        end = start + self.cell_length(cell)
        last_tile = self.tile_count - 1
        # Tile k < last ends at k·cell_size + size; the last one ends at length and always reaches
        # the cell's end.
        first = min(max(0, -(-(end - self.size) // self.cell_size)), last_tile)
        # Tiles up to cell start; the shifted last tile may start after the cell or before its
        # k·cell_size.
        last = min(cell, last_tile)
        if last == last_tile and self.tile_start(last) > start:
            last -= 1
        return range(first, last + 1)

    def nearest_tile(self, cell: int) -> int:
        """The containing tile whose center is nearest to the cell's.

        Doubled coordinates keep it exact.
        """
        center = 2 * self.cell_start(cell) + self.cell_length(cell)
        return min(
            self.tiles_of_cell(cell),
            key=lambda k: abs(2 * self.tile_start(k) + self.tile_length - center),
        )

    def cells_of_tile(self, tile: int) -> range:
        """Cells wholly contained in the tile."""
        start = self.tile_start(tile)
        end = start + self.tile_length
        first = -(-start // self.cell_size)
        last = self.cell_count if end >= self.length else end // self.cell_size
        return range(first, last)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles and cells of a raster.

    Parameters
    ----------
    shape : (rows, cols) of the raster, in pixels
    size : (rows, cols) of a tile, in pixels
    cell_size : (rows, cols) of a cell, in pixels; at most ``size`` on each axis. Default: ``size``.

    Raises ``ValueError`` naming the values when one is below 1 or the cell_size exceeds the size.
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    cell_size: tuple[int, int] = (0, 0)
    _axes: tuple[_Axis, _Axis] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.cell_size == (0, 0):
            object.__setattr__(self, "cell_size", self.size)
        for name in ("shape", "size", "cell_size"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} {getattr(self, name)} has a side under 1 pixel")
        if any(step > side for step, side in zip(self.cell_size, self.size, strict=True)):
            raise ValueError(
                f"cell_size {self.cell_size} is larger than the tile {self.size}: parts would be"
                " skipped"
            )
        rows, cols = (
            _Axis(*values) for values in zip(self.shape, self.size, self.cell_size, strict=True)
        )
        object.__setattr__(self, "_axes", (rows, cols))

    @property
    def tiles_shape(self) -> tuple[int, int]:
        """Number of tiles (rows, cols)."""
        return self._axes[0].tile_count, self._axes[1].tile_count

    @property
    def cells_shape(self) -> tuple[int, int]:
        """Number of cells (rows, cols)."""
        return self._axes[0].cell_count, self._axes[1].cell_count

    def tile(self, index: int) -> Tile:
        """Tile ``index`` in row-major order; ``IndexError`` when there is none."""
        count = self.tiles_shape[0] * self.tiles_shape[1]
        if not 0 <= index < count:
            raise IndexError(f"tile {index} of {count}")
        row, col = divmod(index, self.tiles_shape[1])
        rows, cols = self._axes
        window = Window(
            rows.tile_start(row), cols.tile_start(col), rows.tile_length, cols.tile_length
        )
        return Tile(index, row, col, window)

    def tiles(self) -> Iterator[Tile]:
        """All tiles, row-major."""
        return (self.tile(index) for index in range(self.tiles_shape[0] * self.tiles_shape[1]))

    def cell(self, row: int, col: int) -> Cell:
        """The cell in the given row and column of the partition.

        ``IndexError`` when there is none.
        """
        if not (0 <= row < self.cells_shape[0] and 0 <= col < self.cells_shape[1]):
            raise IndexError(f"cell ({row}, {col}) of {self.cells_shape}")
        rows, cols = self._axes
        window = Window(
            rows.cell_start(row), cols.cell_start(col), rows.cell_length(row), cols.cell_length(col)
        )
        return Cell(row, col, window)

    def cells(self) -> Iterator[Cell]:
        """All cells, row-major."""
        return (
            self.cell(row, col)
            for row in range(self.cells_shape[0])
            for col in range(self.cells_shape[1])
        )

    def nearest_tiles(self) -> tuple[np.ndarray, np.ndarray]:
        """For each cell row and each cell column, the row or column of the containing tile whose
        center is nearest.

        Two int64 arrays, ``(cell rows,)`` and ``(cell columns,)``: the axes are independent, since
        the tiles that contain a cell form a rectangle. The lower index wins a tie.
        """
        rows, cols = (
            np.array([axis.nearest_tile(k) for k in range(axis.cell_count)], np.int64)
            for axis in self._axes
        )
        return rows, cols

    def tile_spans(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last row (column) of the tiles that contain each cell row (column).

        Int64 ``(cells, 2)`` an axis.
        """
        spans = ([axis.tiles_of_cell(k) for k in range(axis.cell_count)] for axis in self._axes)
        rows, cols = (np.array([(span[0], span[-1]) for span in axis], np.int64) for axis in spans)
        return rows, cols

    def tiles_of_cell(self, row: int, col: int) -> tuple[range, range]:
        """Rows and columns of the tiles that wholly contain a cell; never empty."""
        return self._axes[0].tiles_of_cell(row), self._axes[1].tiles_of_cell(col)

    def cells_of_tile(self, tile: Tile) -> tuple[range, range]:
        """Rows and columns of the cells wholly contained in a tile.

        May be empty for neither axis.
        """
        return self._axes[0].cells_of_tile(tile.row), self._axes[1].cells_of_tile(tile.col)

    def row_edges(self) -> np.ndarray:
        """Pixel rows of the cell borders, int64 ``(cell rows + 1,)``."""
        return _edges(self._axes[0])

    def col_edges(self) -> np.ndarray:
        """Pixel columns of the cell borders, int64 ``(cell columns + 1,)``."""
        return _edges(self._axes[1])


def _edges(axis: _Axis) -> np.ndarray:
    return np.minimum(np.arange(axis.cell_count + 1, dtype=np.int64) * axis.cell_size, axis.length)
