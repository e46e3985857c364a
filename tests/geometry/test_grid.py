"""Properties of the grid, for any raster, tile and cell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssc_geo.errors import UsageError
from rssc_geo.geometry import (
    TileChoice,
    TileGrid,
    Window,
    choose_tile_size,
    parse_cell_size,
)

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


def test_a_cell_is_as_large_as_a_tile_by_default() -> None:
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


# --- sizes

FOOTPRINT = (300.0, 400.0, 4800.0)


def default(shape: tuple[int, int], gsd_m: tuple[float, float]) -> TileChoice:
    return choose_tile_size(shape, gsd_m, footprint_m=FOOTPRINT)


@given(
    st.tuples(st.integers(1, 30_000), st.integers(1, 30_000)),
    st.floats(0.01, 1000),
    st.floats(0.5, 2),
)
def test_default_promises(shape, gsd, ratio) -> None:
    gsd_m = (gsd, gsd * ratio)
    choice = default(shape, gsd_m)
    least, preferred, most = FOOTPRINT
    extent = [length * size for length, size in zip(shape, gsd_m, strict=True)]
    pixel = max(gsd_m)
    if max(extent) < least:
        assert max(choice.footprint_m) == pytest.approx(max(extent), abs=pixel)
        assert any("less than the 300–4800 m" in text for text in choice.warnings)
    else:  # never below the range while the raster is that large, and no other rule
        side = min(max(preferred, 60 * pixel), max(min(extent), least))
        assert choice.footprint_m == pytest.approx((side, side), abs=pixel)
        assert min(choice.footprint_m) > least - pixel
    if max(choice.footprint_m) > most * 1.02:
        assert any("300–4800 m" in text for text in choice.warnings)
    if choice.size[0] > shape[0] or choice.size[1] > shape[1]:
        assert any("larger than the raster" in text for text in choice.warnings)
    assert choice.footprint_m == pytest.approx(
        (choice.size[0] * gsd_m[0], choice.size[1] * gsd_m[1])
    )


@pytest.mark.parametrize(
    ("shape", "gsd", "size", "words"),
    [
        ((20480, 20480), 1.0, (400, 400), "prefers"),
        ((1600, 2000), 1.0, (400, 400), "prefers"),
        ((3660, 3660), 10.0, (60, 60), "60 px of this raster"),
        ((790, 779), 300.0, (60, 60), "60 px of this raster"),
        ((350, 5000), 1.0, (350, 350), "to suit the size of the raster"),
        ((100, 5000), 1.0, (300, 300), "to suit the size of the raster"),
        ((100, 200), 1.0, (200, 200), "the raster's longer side"),
    ],
)
def test_default_sizes(shape, gsd, size, words) -> None:
    choice = default(shape, (gsd, gsd))
    assert choice.size == size
    assert words in choice.reason


def test_a_square_on_the_ground_where_pixels_are_not_square() -> None:
    assert default((20_000, 20_000), (1.0, 2.0)).size == (400, 200)


@pytest.mark.parametrize(
    ("requested", "size"),
    [
        ("256px", (256, 256)),
        ("256x128px", (256, 128)),
        ("300×200 PX", (300, 200)),
        ("400m", (400, 800)),
        ("0.5km", (500, 1000)),
        ("400x300m", (400, 600)),
        (" 64 px ", (64, 64)),
    ],
)
def test_requested_sizes(requested, size) -> None:
    choice = choose_tile_size((3000, 3000), (1.0, 0.5), footprint_m=FOOTPRINT, requested=requested)
    assert choice.size == size
    assert requested in choice.reason


def test_requests_outside_the_range_or_the_raster_are_granted_with_a_warning() -> None:
    choice = choose_tile_size((100, 100), (1.0, 1.0), footprint_m=FOOTPRINT, requested="128px")
    assert choice.size == (128, 128)
    assert len(choice.warnings) == 2
    assert "300–4800 m" in choice.warnings[0]
    assert "larger than the raster" in choice.warnings[1]
    assert (
        choose_tile_size(
            (5000, 5000), (1.0, 1.0), footprint_m=FOOTPRINT, requested="512px"
        ).warnings
        == ()
    )


@pytest.mark.parametrize(
    "requested",
    [
        "big",
        "",
        "256",
        "0px",
        "-5",
        "12.5px",
        "256pxx",
        "1e3m",
        "0.1m",
        "0m",
        "4x5x6",
        "nan",
        "inf m",
    ],
)
def test_requests_that_are_no_size(requested) -> None:
    with pytest.raises(UsageError, match="--tile-size"):
        choose_tile_size((1000, 1000), (1.0, 0.5), footprint_m=FOOTPRINT, requested=requested)


def test_cell_size() -> None:
    assert parse_cell_size("32px", (64, 64), (1.0, 1.0)) == (32, 32)
    assert parse_cell_size("50m", (64, 64), (1.0, 2.0)) == (50, 25)
    assert parse_cell_size("64px", (64, 64), (1.0, 1.0)) == (64, 64)
    # Pixels of 10 m of UTM, at its central meridian.
    assert parse_cell_size("10m", (64, 64), (10.004, 10.004)) == (1, 1)
    with pytest.raises(UsageError, match=r"less than one pixel of the raster \(10 m\)"):
        parse_cell_size("9.8m", (64, 64), (10.004, 10.004))
    with pytest.raises(UsageError, match=r"--cell-size 65px.*larger than the tile of 64 × 64 px"):
        parse_cell_size("65px", (64, 64), (1.0, 1.0))
    with pytest.raises(UsageError, match="--cell-size"):
        parse_cell_size("some", (64, 64), (1.0, 1.0))
