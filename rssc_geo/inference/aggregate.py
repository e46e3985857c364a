"""From tiles to cells.

The tiles to be classified, and the mean over the tiles that contain a cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rssc_geo.geometry import BlockGrid, CellRanges, Tile, TileGrid
from rssc_geo.output import CellBatch
from rssc_geo.raster import TileData


@dataclass(frozen=True, slots=True)
class TileResult:
    """The results of a tile, or block, that was read and, with enough valid pixels, classified.

    Attributes
    ----------
    cell_fractions : float32 ``(cell rows, cell cols)``, valid share of the cells wholly in it
    probabilities : float32 ``(C,)``; of a block ``(cell rows, cell cols, C)``; None where it was
        not classified
    captions : one; of a block one for each cell, row by row
    familiarity : in [0, 1], NaN for a model without it; of a block ``(cell rows, cell cols)``
    colors : float32 ``(cell rows, cell cols, 3)``, see ``cell_colors``; NaN where unknown
    embeddings : float32 ``(D,)``; of a block ``(cell rows, cell cols, D)``; None where they were
        not asked for
    """

    tile: Tile
    valid_fraction: float
    cell_fractions: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None
    captions: Sequence[str]
    familiarity: NDArray[np.float32] | float = math.nan
    colors: NDArray[np.float32] | float = math.nan
    embeddings: NDArray[np.float32] | None = None


def cell_colors(
    data: TileData, grid: TileGrid | BlockGrid, cells: CellRanges | None = None
) -> NDArray[np.float32]:
    """Mean red, green and blue of the valid pixels of a tile's cells, as the network sees them.

    ``cells``: rows and columns of those that are wanted, by default all of ``cells_of_tile``.
    Returns float32 ``(cell rows, cell cols, 3)``, 0 to 255; NaN for a cell without a valid pixel.
    The result is the same in every block: the sums are whole numbers.
    """
    window = (data.tile.window.row, data.tile.window.col)
    edges: list[NDArray[np.int64]] = []
    for axis, wanted in enumerate(cells or grid.cells_of_tile(data.tile)):
        places = np.arange(wanted.start, wanted.stop + 1)
        if isinstance(grid, BlockGrid):
            edges.append((places - grid.reach(data.tile)[axis].start) * grid.cell_pixels)
        else:
            shown = np.minimum(places * grid.cell_size[axis], grid.shape[axis]) - window[axis]
            edges.append(np.rint(shown * data.mask.shape[axis] / grid.size[axis]).astype(np.int64))
    inside = tuple(slice(each[0], max(each[-1], each[0] + 1)) for each in edges)
    mask = data.mask[inside]
    planes = np.where(mask, data.pixels[inside].transpose(2, 0, 1), 0).astype(np.float32)
    sums = np.concatenate([planes, mask[None].astype(np.float32)])
    for axis, each in enumerate(edges, 1):
        starts = np.minimum(each[:-1] - each[0], sums.shape[axis] - 1)
        sums = np.add.reduceat(sums, starts, axis)
    with np.errstate(invalid="ignore"):
        return np.asarray((sums[:3] / sums[3]).transpose(1, 2, 0), np.float32)


class CellMap:
    """Relations of tiles, or blocks, and cells of a grid, for the selected cells.

    A cell is written when its valid share in the containing tile whose center is nearest reaches
    ``min_valid``. Its probabilities, familiarity and embedding are the mean over that nearest tile
    and those other containing tiles whose own valid share reaches ``min_valid``; its caption and
    color are those of the nearest tile. The selection only decides which cells are written, so an
    AOI never changes a result.
    """

    def __init__(
        self, grid: TileGrid | BlockGrid, selected: NDArray[np.bool_], *, min_valid: float
    ) -> None:
        if selected.shape != grid.cells_shape:
            raise ValueError(f"selection of shape {selected.shape} for {grid.cells_shape} cells")
        self.grid = grid
        self.selected = selected
        self.min_valid = min_valid
        self.near_rows, self.near_cols = grid.nearest_tiles()
        self.span_rows, self.span_cols = grid.tile_spans()

    def tiles(self) -> NDArray[np.int64]:
        """Indices, int64 (n,) and ascending, of the tiles that contain a selected cell."""
        rows, cols = self.grid.tiles_shape
        needed = np.zeros((rows, cols), bool)
        for row, (first, last) in enumerate(self.span_rows):
            hit = np.flatnonzero(self.selected[row])
            if hit.size:
                # Columns of tiles from each hit cell's first to its last, as a running sum of +1
                # and −1.
                steps = np.zeros(cols + 1, np.int64)
                np.add.at(steps, self.span_cols[hit, 0], 1)
                np.add.at(steps, self.span_cols[hit, 1] + 1, -1)
                needed[first : last + 1] |= np.cumsum(steps[:-1]) > 0
        return np.flatnonzero(needed)

    def near(self, tile: Tile) -> NDArray[np.bool_]:
        """Which of the tile's cells have it as their nearest: bool ``(cell rows, cell cols)``."""
        rows, cols = self.grid.cells_of_tile(tile)
        own_rows = self.near_rows[rows.start : rows.stop] == tile.row
        own_cols = self.near_cols[cols.start : cols.stop] == tile.col
        return np.asarray(own_rows[:, None] & own_cols)

    def own(self, tile: Tile) -> NDArray[np.bool_]:
        """Which of the tile's cells, bool (rows, cols), are selected and nearest to it."""
        rows, cols = self.grid.cells_of_tile(tile)
        selected = self.selected[rows.start : rows.stop, cols.start : cols.stop]
        return np.asarray(self.near(tile) & selected)

    def wanted(
        self, tile: Tile, valid_fraction: float, cell_fractions: NDArray[np.float32]
    ) -> bool:
        """Whether the network has to classify the tile.

        ``valid_fraction``: valid share of the tile; ``cell_fractions``: of its cells, (rows, cols).
        """
        if valid_fraction >= self.min_valid and valid_fraction > 0:
            return True
        return bool((self.near(tile) & self.valid(cell_fractions)).any())

    def valid(self, fractions: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which cells are written, bool, by their valid shares, of the same shape."""
        return np.asarray((fractions >= self.min_valid) & (fractions > 0))

    def restart(self, watermark: int) -> int:
        """The first tile to read again when all tiles before ``watermark`` were done and written.

        Cells still incomplete then may need tiles that lie before it (only where tiles overlap).
        """
        tile_row, tile_col = divmod(watermark, self.grid.tiles_shape[1])
        first, last = self.span_rows.T
        unfinished = last >= tile_row
        if not unfinished.any():
            return watermark
        start_row = min(int(first[unfinished].min()), tile_row)
        across = bool(((first <= tile_row) & (last > tile_row)).any())
        if (
            start_row < tile_row or across
        ):  # cells left of the watermark still wait for tiles of the next row
            return start_row * self.grid.tiles_shape[1]
        waiting = self.span_cols[self.span_cols[:, 1] >= tile_col]
        start_col = min(int(waiting[:, 0].min()), tile_col) if len(waiting) else tile_col
        return tile_row * self.grid.tiles_shape[1] + start_col


@dataclass(frozen=True, slots=True)
class _Cell:
    """A cell whose last tile has come: means over its tiles, but for the caption and the color.

    ``embedding``: the sum of its tiles' embeddings, None where there are none.
    """

    row: int
    col: int
    probabilities: NDArray[np.float64]  # (C,)
    familiarity: float
    caption: str
    color: NDArray[np.float32]  # (3,)
    embedding: NDArray[np.float64] | None  # (D,)


@dataclass(slots=True)
class _Row:
    """Running sums of one row of cells."""

    sums: NDArray[np.float64]  # (cells, C)
    familiarity: NDArray[np.float64]  # (cells,)
    counts: NDArray[np.int64]  # (cells,)
    valid: NDArray[np.bool_]  # (cells,)
    captions: dict[int, str]
    colors: NDArray[np.float32]  # (cells, 3)
    embeddings: dict[int, NDArray[np.float64]]  # sums of cells that are not complete yet


class CellAggregator:
    """Takes tiles in ascending order, returns each cell once, as soon as its last tile has come."""

    def __init__(self, cells: CellMap, *, classes: int, done: int = 0) -> None:
        """``done``: cells completed by tiles before this index were given in an earlier run."""
        self._cells = cells
        self._classes = classes
        self._done = done
        self._rows: dict[int, _Row] = {}

    def add(self, results: Sequence[TileResult]) -> CellBatch:
        """Take the next tiles and return the cells that are complete with them."""
        cells = [cell for result in results for cell in self._add(result)]
        probabilities = np.array([cell.probabilities for cell in cells], np.float32)
        colors = np.array([cell.color for cell in cells], np.float32)
        sums = [cell.embedding for cell in cells if cell.embedding is not None]
        return CellBatch(
            rows=np.array([cell.row for cell in cells], np.int32),
            cols=np.array([cell.col for cell in cells], np.int32),
            probabilities=probabilities.reshape(-1, self._classes),
            familiarity=np.array([cell.familiarity for cell in cells], np.float32),
            captions=[cell.caption for cell in cells],
            colors=colors.reshape(-1, 3),
            embeddings=_unit(sums) if sums else None,
        )

    def _add(self, result: TileResult) -> list[_Cell]:
        cells, tile = self._cells, result.tile
        rows, cols = cells.grid.cells_of_tile(tile)
        near = cells.near(tile)
        seen, familiarity = result.probabilities, np.broadcast_to(result.familiarity, near.shape)
        colors = np.broadcast_to(result.colors, (*near.shape, 3))
        counted = near if result.valid_fraction < cells.min_valid else np.ones_like(near)
        valid = near & cells.valid(result.cell_fractions)
        across = slice(cols.start, cols.stop)
        each = seen is not None and seen.ndim == 3
        for index, row in enumerate(rows):
            sums = self._row(row)
            if seen is not None:
                sums.sums[across][counted[index]] += seen[index][counted[index]] if each else seen
                sums.familiarity[across][counted[index]] += familiarity[index][counted[index]]
                sums.counts[across] += counted[index]
            sums.valid[across] |= valid[index]
            sums.colors[across][valid[index]] = colors[index][valid[index]]
            if result.embeddings is not None:
                wanted = counted[index] & cells.selected[row, across]
                for place in np.flatnonzero(wanted).tolist():
                    vector = result.embeddings[index, place] if each else result.embeddings
                    before = sums.embeddings.get(cols.start + place, 0.0)
                    sums.embeddings[cols.start + place] = before + vector.astype(np.float64)
            for col in np.flatnonzero(valid[index]):
                place = index * len(cols) + int(col) if each else 0
                sums.captions[cols.start + int(col)] = result.captions[place]
        if tile.index < self._done:
            return []
        complete = list(self._complete(tile, rows, cols))
        for row in [r for r in self._rows if cells.span_rows[r, 1] < tile.row]:
            del self._rows[row]
        return complete

    def _row(self, row: int) -> _Row:
        if row not in self._rows:
            width = self._cells.grid.cells_shape[1]
            self._rows[row] = _Row(
                np.zeros((width, self._classes)),
                np.zeros(width),
                np.zeros(width, np.int64),
                np.zeros(width, bool),
                {},
                np.full((width, 3), np.nan, np.float32),
                {},
            )
        return self._rows[row]

    def _complete(self, tile: Tile, rows: range, cols: range) -> list[_Cell]:
        cells = self._cells
        complete: list[_Cell] = []
        for row in rows:
            if cells.span_rows[row, 1] != tile.row:
                continue
            sums = self._rows[row]
            ready = [
                c
                for c in cols
                if cells.span_cols[c, 1] == tile.col and cells.selected[row, c] and sums.valid[c]
            ]
            complete += [
                _Cell(
                    row,
                    col,
                    sums.sums[col] / sums.counts[col],
                    float(sums.familiarity[col] / sums.counts[col]),
                    sums.captions.pop(col),
                    sums.colors[col],
                    sums.embeddings.pop(col, None),
                )
                for col in ready
            ]
        return complete


def _unit(sums: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Unit vectors (n, D) in the directions of n sums; zeros where one has none."""
    table = np.stack(sums)
    return np.asarray(table / np.maximum(np.linalg.norm(table, axis=1), 1e-12)[:, None], np.float32)
