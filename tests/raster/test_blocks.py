"""Blocks of whole cells: each cell has the same pixels in every block."""

import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling

from rssc_geo.geometry import BlockGrid
from rssc_geo.raster import TileReader, fit_radiometry, open_scene
from rssc_geo.raster import reader as reader_module
from rssc_geo.raster.resampling import resampled, taps
from tests.factories import write_raster


def _raster(path: Path, *, overviews: bool = False, nodata: bool = False) -> np.ndarray:
    random = np.random.default_rng(0)
    pixels = random.integers(1, 255, (3, 205, 331), dtype=np.uint8)
    if nodata:
        pixels[:, 60:131, 40:97] = 0
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    transform = Affine(10, 0, 500_000, 0, -10, 5_000_000)
    write_raster(path, pixels, transform=transform, nodata=0 if nodata else None, **layout)
    if overviews:
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews([2, 4], Resampling.average)
    return pixels


def _blocks(path: Path, grid: BlockGrid) -> list:
    scene = open_scene(path)
    with TileReader(scene, grid, fit_radiometry(scene), out_size=(1, 1)) as reader:
        return list(reader)


def _scene_wide(blocks: list, grid: BlockGrid) -> tuple[np.ndarray, list[np.ndarray]]:
    """The blocks' own cells put together, and what all blocks with their halos differ from it."""
    out = grid.cell_pixels
    rows, cols = grid.cells_shape
    whole = np.zeros((rows * out, cols * out, 3), np.uint8)
    for data in blocks:
        across, down = grid.cells_of_tile(data.tile)
        top, left = (
            (own.start - seen.start) * out
            for own, seen in zip((across, down), grid.reach(data.tile), strict=True)
        )
        inner = data.pixels[top : top + len(across) * out, left : left + len(down) * out]
        whole[across.start * out : across.stop * out, down.start * out : down.stop * out] = inner
    beyond = grid.margin * out
    padded = np.pad(whole, ((beyond, beyond), (beyond, beyond), (0, 0)))
    differences = []
    for data in blocks:
        top, left = ((cells.start + grid.margin) * out for cells in grid.reach(data.tile))
        view = padded[top : top + data.pixels.shape[0], left : left + data.pixels.shape[1]]
        differences.append(np.abs(view.astype(int) - data.pixels.astype(int)))
    return whole, differences


@pytest.mark.parametrize("overviews", [False, True])
@pytest.mark.parametrize(("cell", "out"), [(8, 8), (10, 32), (12, 8), (25, 16), (7, 16)])
def test_a_cell_has_the_same_pixels_in_every_block(
    tmp_path: Path, cell: int, out: int, overviews: bool
) -> None:
    _raster(tmp_path / "a.tif", overviews=overviews)
    grid = BlockGrid((205, 331), (cell, cell), cell_pixels=out, side=5, halo=2, margin=1)
    blocks = _blocks(tmp_path / "a.tif", grid)
    assert [data.tile.index for data in blocks] == list(range(len(list(grid.tiles()))))
    _, differences = _scene_wide(blocks, grid)
    assert max(found.max() for found in differences) == 0


def test_pixels_are_those_of_the_raster(tmp_path: Path) -> None:
    pixels = _raster(tmp_path / "a.tif")
    grid = BlockGrid((205, 331), (8, 8), cell_pixels=8, side=6, halo=1)
    whole, _ = _scene_wide(_blocks(tmp_path / "a.tif", grid), grid)
    np.testing.assert_array_equal(whole[:205, :331], pixels.transpose(1, 2, 0))
    assert not whole[205:].any()


def test_invalid_pixels_count_in_the_cells_where_they_lie(tmp_path: Path) -> None:
    pixels = _raster(tmp_path / "a.tif", nodata=True)
    grid = BlockGrid((205, 331), (20, 30), cell_pixels=16, side=3, halo=1)
    blocks = _blocks(tmp_path / "a.tif", grid)
    valid = (pixels != 0).all(0)
    for data in blocks:
        for i, row in enumerate(grid.cells_of_tile(data.tile)[0]):
            for j, col in enumerate(grid.cells_of_tile(data.tile)[1]):
                cell = valid[row * 20 : (row + 1) * 20, col * 30 : (col + 1) * 30]
                assert data.cell_fractions[i, j] == pytest.approx(cell.mean())
        window = data.tile.window
        assert data.valid_fraction == pytest.approx(valid[window.slices].mean())


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7])
def test_a_resampled_pixel_is_the_weighted_mean_of_what_is_valid(
    scale: float, masked: bool
) -> None:
    """In strips, of which there are several, against the sums written out."""
    random = np.random.default_rng(0)
    length, out = (600, 20), (int(600 / scale), int(20 / scale))
    rows, cols = (
        taps(0, count, scale=scale, length=n) for count, n in zip(out, length, strict=True)
    )
    colors = random.integers(0, 256, (*length, 3), dtype=np.uint8)
    valid = random.random(length) > 0.5 if masked else None
    found, seen = resampled(colors, valid, rows, cols, origin=(0, 0))
    down, across = np.zeros((out[0], 600)), np.zeros((out[1], 20))
    for matrix, axis in ((down, rows), (across, cols)):
        np.add.at(matrix, (np.arange(len(matrix))[:, None], axis.places), axis.weights)
    inside = np.ones(length) if valid is None else valid.astype(float)
    share = down @ inside @ across.T
    total = np.einsum("rh,hwb,cw->rcb", down, colors * inside[..., None], across)
    expected = np.where(share[..., None] > 1e-6, total / np.maximum(share, 1e-6)[..., None], 0)
    assert np.abs(found - expected).max() < 0.51
    assert (seen is None) is not masked
    if seen is not None:
        np.testing.assert_array_equal(seen, share > 1e-6)


def test_blocks_end_at_the_margin_around_the_raster_unless_a_window_is_larger(
    tmp_path: Path,
) -> None:
    _raster(tmp_path / "a.tif")
    grid = BlockGrid((205, 331), (20, 30), cell_pixels=16, side=3, halo=1)
    blocks = _blocks(tmp_path / "a.tif", grid)
    assert [data.mask.shape for data in blocks] == [
        (16 * rows, 16 * cols) for rows in (4, 5, 5, 3) for cols in (4, 5, 5, 4)
    ]
    assert blocks[0].mask.all()
    around = BlockGrid((205, 331), (20, 30), cell_pixels=16, side=3, halo=2, margin=1)
    blocks = _blocks(tmp_path / "a.tif", around)
    assert {data.mask.shape for data in blocks[5:7]} == {(16 * 7, 16 * 7)}
    assert blocks[0].mask.shape == (16 * 6, 16 * 6)
    assert not blocks[0].mask[:16].any()
    assert not blocks[0].mask[:, :16].any()
    assert blocks[0].mask[16:, 16:].all()
    assert not blocks[-1].mask[-16:].any()
    larger = BlockGrid((205, 331), (20, 30), cell_pixels=16, side=12, halo=3, window=14)
    (whole,) = _blocks(tmp_path / "a.tif", larger)
    assert whole.mask.shape == (14 * 16, 14 * 16)
    rows, cols = larger.pixels_shape
    assert whole.mask[:rows, :cols].all()
    assert whole.mask.sum() == rows * cols  # beyond the raster nothing is valid
    assert not whole.pixels[~whole.mask].any()


def test_few_blocks_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: each takes much memory."""
    _raster(tmp_path / "a.tif")
    grid = BlockGrid((205, 331), (8, 8), cell_pixels=8, side=5, halo=1)
    loaded = []
    load = reader_module._BlockLoader.load

    def counted(self: reader_module._BlockLoader, index: int) -> object:
        loaded.append(index)
        return load(self, index)

    monkeypatch.setattr(reader_module._BlockLoader, "load", counted)
    scene = open_scene(tmp_path / "a.tif")
    with TileReader(scene, grid, fit_radiometry(scene), out_size=(1, 1), threads=3) as reader:
        assert next(iter(reader)).tile.index == 0
        time.sleep(1)  # as a network does
        # One that was taken, and of each thread one that is waiting and one more when it is.
        assert len(loaded) <= 1 + 2 * 3
