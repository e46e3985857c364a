"""Tiles become cells: against a plain restatement of the rule, for any grid, mask and selection."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rssc_geo.geometry import BlockGrid, Tile, TileGrid
from rssc_geo.inference import CellAggregator, CellMap, TileResult, cell_colors
from rssc_geo.raster import TileData

CLASSES = 3
sides = st.integers(1, 24)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[TileGrid, np.ndarray, np.ndarray, float]:
    size = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    cell_size = draw(st.integers(1, size[0])), draw(st.integers(1, size[1]))
    grid = TileGrid((draw(sides), draw(sides)), size, cell_size)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = random.random(grid.shape) < draw(st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]))
    selected = random.random(grid.cells_shape) < draw(st.sampled_from([0.2, 1.0]))
    return grid, mask, selected, draw(st.sampled_from([0.1, 0.5, 1.0]))


def probabilities_of(tile: Tile) -> np.ndarray:
    values = np.random.default_rng(tile.index).random(CLASSES)
    return (values / values.sum()).astype(np.float32)


def read(grid: TileGrid, mask: np.ndarray, tile: Tile) -> tuple[float, np.ndarray]:
    rows, cols = grid.cells_of_tile(tile)
    fractions = [[mask[grid.cell(r, c).window.slices].mean() for c in cols] for r in rows]
    return float(mask[tile.window.slices].mean()), np.array(fractions, np.float32).reshape(
        len(rows), len(cols)
    )


def process(grid: TileGrid, mask: np.ndarray, cells: CellMap, tile: Tile) -> TileResult:
    fraction, fractions = read(grid, mask, tile)
    looked = cells.wanted(tile, fraction, fractions)
    return TileResult(
        tile,
        fraction,
        fractions,
        probabilities_of(tile) if looked else None,
        (f"tile {tile.index}" if looked else "",),
    )


def expected(
    grid: TileGrid, mask: np.ndarray, selected: np.ndarray, min_valid: float
) -> dict[tuple[int, int], tuple[np.ndarray, str]]:
    near_rows, near_cols = grid.nearest_tiles()
    result = {}
    for cell in grid.cells():
        share = mask[cell.window.slices].mean()
        if not selected[cell.row, cell.col] or share < min_valid or share == 0:
            continue
        nearest = int(near_rows[cell.row] * grid.tiles_shape[1] + near_cols[cell.col])
        rows, cols = grid.tiles_of_cell(cell.row, cell.col)
        tiles = [grid.tile(r * grid.tiles_shape[1] + c) for r in rows for c in cols]
        counted = [
            t for t in tiles if t.index == nearest or mask[t.window.slices].mean() >= min_valid
        ]
        result[cell.row, cell.col] = (
            np.mean([probabilities_of(t) for t in counted], axis=0),
            f"tile {nearest}",
        )
    return result


@given(jobs(), st.integers(1, 7))
def test_cells_are_exactly_the_valid_selected_ones_with_the_right_mean(
    job: tuple[TileGrid, np.ndarray, np.ndarray, float], chunk: int
) -> None:
    grid, mask, selected, min_valid = job
    cells = CellMap(grid, selected, min_valid=min_valid)
    tiles = cells.tiles().tolist()
    contains = {t.index for t in grid.tiles() if selected[np.ix_(*grid.cells_of_tile(t))].any()}
    assert tiles == sorted(contains)
    aggregator = CellAggregator(cells, classes=CLASSES)
    got: dict[tuple[int, int], tuple[np.ndarray, str]] = {}
    for start in range(0, len(tiles), chunk):
        batch = aggregator.add(
            [process(grid, mask, cells, grid.tile(i)) for i in tiles[start : start + chunk]]
        )
        for row, col, values, caption in zip(
            batch.rows.tolist(),
            batch.cols.tolist(),
            batch.probabilities,
            batch.captions,
            strict=True,
        ):
            assert (row, col) not in got
            got[row, col] = values, caption
    want = expected(grid, mask, selected, min_valid)
    assert got.keys() == want.keys()
    for key, (values, caption) in want.items():
        np.testing.assert_allclose(got[key][0], values, atol=1e-6)
        assert got[key][1] == caption


@given(jobs(), st.floats(0, 1))
@settings(max_examples=300)
@example(
    (TileGrid((3, 2), (2, 1), (1, 1)), np.ones((3, 2), bool), np.ones((3, 2), bool), 0.1), 0.25
)
def test_a_run_resumed_anywhere_equals_an_undisturbed_one(
    job: tuple[TileGrid, np.ndarray, np.ndarray, float], where: float
) -> None:
    grid, mask, selected, min_valid = job
    cells = CellMap(grid, selected, min_valid=min_valid)
    tiles = cells.tiles()
    results = {int(i): process(grid, mask, cells, grid.tile(int(i))) for i in tiles}
    whole = CellAggregator(cells, classes=CLASSES).add(list(results.values()))
    cut = int(where * len(tiles))
    first = CellAggregator(cells, classes=CLASSES).add([results[int(i)] for i in tiles[:cut]])
    watermark = int(tiles[cut - 1]) + 1 if cut else 0
    again = [results[int(i)] for i in tiles[tiles >= cells.restart(watermark)]]
    second = CellAggregator(cells, classes=CLASSES, done=watermark).add(again)
    np.testing.assert_array_equal(np.concatenate([first.rows, second.rows]), whole.rows)
    np.testing.assert_array_equal(np.concatenate([first.cols, second.cols]), whole.cols)
    np.testing.assert_array_equal(
        np.concatenate([first.probabilities, second.probabilities]), whole.probabilities
    )
    assert first.captions + second.captions == whole.captions


def test_colors_of_cells_are_means_of_their_valid_pixels_in_whichever_block_they_lie() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (7 * 4, 5 * 4, 3)).astype(np.uint8)
    mask = random.random(pixels.shape[:2]) < 0.8
    mask[4:8, 4:8] = False
    cut = pixels.reshape(7, 4, 5, 4, 3).astype(np.float32)
    seen = mask.reshape(7, 4, 5, 4, 1)
    with np.errstate(invalid="ignore"):
        expected = (cut * seen).sum((1, 3)) / seen.sum((1, 3))
    assert np.isnan(expected[1, 1]).all()
    for side in (2, 3, 7):
        grid = BlockGrid((70, 50), (10, 10), cell_pixels=4, side=side, halo=1)
        for block in grid.tiles():
            (rows, cols), reach = grid.cells_of_tile(block), grid.reach(block)
            around = tuple(slice(4 * cells.start, 4 * cells.stop) for cells in reach)
            data = TileData(
                block,
                pixels[around],
                mask[around],
                1.0,
                np.ones((len(rows), len(cols)), np.float32),
            )
            own = expected[rows.start : rows.stop, cols.start : cols.stop]
            np.testing.assert_allclose(cell_colors(data, grid), own, rtol=1e-6)


def test_colors_of_a_tile_s_cells_are_those_of_its_picture() -> None:
    grid = TileGrid((70, 50), (20, 30), (10, 15))
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :4], pixels[:4, 4:], pixels[4:, :4], pixels[4:, 4:] = 10, 20, 30, 40
    data = TileData(grid.tile(0), pixels, np.ones((8, 8), bool), 1.0, np.ones((2, 2), np.float32))
    assert cell_colors(data, grid)[..., 1].tolist() == [[10, 20], [30, 40]]
    whole = TileGrid((70, 50), (20, 30))
    assert cell_colors(data, whole).tolist() == [[[25, 25, 25]]]
    # Cells narrower than a pixel of the picture have one all the same.
    fine = TileGrid((70, 50), (20, 30), (1, 1))
    assert cell_colors(data, fine).shape == (20, 30, 3)
    assert np.isfinite(cell_colors(data, fine)).all()
