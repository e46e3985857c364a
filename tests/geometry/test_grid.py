"""The grid's promises, for any shape, size and cell_size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssc_geo.geometry import TileGrid, Window

sides = st.integers(1, 60)


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    size = draw(sides), draw(sides)
    cell_size = draw(st.integers(1, size[0])), draw(st.integers(1, size[1]))
    return TileGrid((draw(sides), draw(sides)), size, cell_size)


@given(grids())
def test_cells_cover_every_pixel_exactly_once(grid: TileGrid) -> None:
    cover = np.zeros(grid.shape, int)
    for cell in grid.cells():
        cover[cell.window.slices] += 1
        assert cell.window.height <= grid.cell_size[0]
        assert cell.window.width <= grid.cell_size[1]
    assert (cover == 1).all()


@given(grids())
def test_tiles_start_where_the_contract_says_and_stay_inside(grid: TileGrid) -> None:
    for axis in (0, 1):
        length, size, cell_size = grid.shape[axis], grid.size[axis], grid.cell_size[axis]
        expected = sorted({max(0, min(k * cell_size, length - size)) for k in range(length)})
        tiles = [t for t in grid.tiles() if (t.col, t.row)[axis] == 0]
        assert [(t.window.row, t.window.col)[axis] for t in tiles] == expected
        assert {(t.window.height, t.window.width)[axis] for t in tiles} == {min(size, length)}


@given(grids())
def test_tiles_of_cell_are_exactly_those_that_contain_it(grid: TileGrid) -> None:
    tiles = list(grid.tiles())
    for cell in grid.cells():
        rows, cols = grid.tiles_of_cell(cell.row, cell.col)
        assert rows
        assert cols
        inside = {(t.row, t.col) for t in tiles if _contains(t.window, cell.window)}
        assert inside == {(r, c) for r in rows for c in cols}


@given(grids())
def test_cells_of_tile_is_the_inverse(grid: TileGrid) -> None:
    cells = list(grid.cells())
    for tile in grid.tiles():
        rows, cols = grid.cells_of_tile(tile)
        inside = {(c.row, c.col) for c in cells if _contains(tile.window, c.window)}
        assert inside == {(r, c) for r in rows for c in cols}


@given(grids())
def test_nearest_tile_contains_the_cell_and_none_is_nearer(grid: TileGrid) -> None:
    near_rows, near_cols = grid.nearest_tiles()
    span_rows, span_cols = grid.tile_spans()

    def distance(row: int, col: int, cell: Window) -> float:
        tile = grid.tile(row * grid.tiles_shape[1] + col).window
        down = tile.row + tile.height / 2 - cell.row - cell.height / 2
        right = tile.col + tile.width / 2 - cell.col - cell.width / 2
        return float(np.hypot(down, right))

    for cell in grid.cells():
        rows, cols = grid.tiles_of_cell(cell.row, cell.col)
        assert (rows[0], rows[-1], cols[0], cols[-1]) == (
            *span_rows[cell.row],
            *span_cols[cell.col],
        )
        near = near_rows[cell.row], near_cols[cell.col]
        assert near[0] in rows
        assert near[1] in cols
        assert (
            distance(*near, cell.window)
            <= min(distance(r, c, cell.window) for r in rows for c in cols) + 1e-9
        )


def _contains(outer: Window, inner: Window) -> bool:
    return (
        outer.row <= inner.row
        and outer.col <= inner.col
        and inner.row + inner.height <= outer.row + outer.height
        and inner.col + inner.width <= outer.col + outer.width
    )


@given(grids())
def test_edges_bound_the_cells(grid: TileGrid) -> None:
    rows, cols = grid.row_edges(), grid.col_edges()
    for cell in grid.cells():
        assert (rows[cell.row], rows[cell.row + 1]) == (
            cell.window.row,
            cell.window.row + cell.window.height,
        )
        assert (cols[cell.col], cols[cell.col + 1]) == (
            cell.window.col,
            cell.window.col + cell.window.width,
        )


def test_stride_defaults_to_size() -> None:
    assert TileGrid((10, 10), (3, 4)).cell_size == (3, 4)


@pytest.mark.parametrize(
    ("shape", "size", "cell_size"),
    [
        ((0, 5), (2, 2), (2, 2)),
        ((5, 5), (2, 0), (2, 2)),
        ((5, 5), (2, 2), (1, -1)),
        ((5, 5), (2, 2), (3, 2)),
    ],
)
def test_impossible_grids_are_refused(
    shape: tuple[int, int], size: tuple[int, int], cell_size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        TileGrid(shape, size, cell_size)


def test_indices_outside_are_refused() -> None:
    grid = TileGrid((10, 10), (5, 5))
    with pytest.raises(IndexError):
        grid.tile(4)
    with pytest.raises(IndexError):
        grid.cell(2, 0)
