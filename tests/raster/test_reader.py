from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import example, given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window as RasterioWindow

from rssc_geo.errors import InputError
from rssc_geo.geometry import Tile, TileGrid, Window
from rssc_geo.raster import Radiometry, Scene, TileData, TileReader, fit_radiometry, open_scene

AS_IT_IS = Radiometry((0.0,) * 3, (255.0,) * 3, "none")


def read(
    scene: Scene,
    grid: TileGrid,
    out_size: tuple[int, int],
    radiometry: Radiometry = AS_IT_IS,
    **options: object,
) -> list[TileData]:
    with TileReader(scene, grid, radiometry, out_size=out_size, **options) as reader:
        return list(reader)


def content_shape(
    lengths: tuple[int, int], grid: TileGrid, out_size: tuple[int, int]
) -> tuple[int, ...]:
    """Rows and columns that show the raster."""
    return tuple(
        max(1, round(n / size * out))
        for n, size, out in zip(lengths, grid.size, out_size, strict=True)
    )


def expected(
    path: Path,
    bands: tuple[int, ...],
    tile: Tile,
    grid: TileGrid,
    out_size: tuple[int, int],
    radiometry: Radiometry,
):
    """The same tile by plain rasterio: pixels, mask, and the full-resolution mask."""
    window = RasterioWindow(tile.window.col, tile.window.row, tile.window.width, tile.window.height)
    lengths = (tile.window.height, tile.window.width)
    shape = content_shape(lengths, grid, out_size)
    reduced = any(new < old for new, old in zip(shape, lengths, strict=True))
    resampling = (
        Resampling.nearest
        if shape == lengths
        else Resampling.average
        if reduced
        else Resampling.bilinear
    )
    with rasterio.open(path) as dataset:
        pixels = dataset.read(
            bands, window=window, out_shape=(3, *shape), resampling=resampling
        ).transpose(1, 2, 0)
        mask = dataset.dataset_mask(window=window, out_shape=shape, resampling=resampling) > 0
        full = dataset.dataset_mask(window=window) > 0
        if ColorInterp.alpha in dataset.colorinterp:
            # GDAL takes alpha for a mask only in unsigned types and reduces that of uint16 in 8
            # bit, where 1 of 65535 is lost.
            mask = dataset.read(4, window=window, out_shape=shape, resampling=resampling) > 0
            if pixels.dtype.kind != "u":
                full = dataset.read(4, window=window) > 0
        if pixels.dtype.kind == "f":
            mask &= ~np.isnan(pixels).all(axis=2)
            full &= ~np.isnan(dataset.read(bands, window=window)).all(axis=0)
        if not full.any():  # what is enlarged takes the colors around it
            mask[:] = False
    padding = [(0, out - n) for out, n in zip(out_size, shape, strict=True)]
    scaled = np.where(mask[..., None], radiometry.apply(pixels, mask), 0)
    return (
        np.pad(scaled, [*padding, (0, 0)], mode="reflect"),
        np.pad(mask, padding, mode="reflect"),
        full,
    )


def check(
    path: Path,
    scene: Scene,
    grid: TileGrid,
    out_size: tuple[int, int],
    radiometry: Radiometry,
    found: list[TileData],
) -> None:
    assert [data.tile for data in found] == list(grid.tiles())
    for data in found:
        pixels, mask, full = expected(path, scene.bands, data.tile, grid, out_size, radiometry)
        assert data.pixels.dtype == np.uint8
        assert data.pixels.transpose(2, 0, 1)[0].flags.c_contiguous
        np.testing.assert_array_equal(data.mask, mask)
        np.testing.assert_array_equal(data.pixels, pixels)
        rows, cols = grid.cells_of_tile(data.tile)
        assert data.cell_fractions.shape == (len(rows), len(cols))
        assert data.cell_fractions.dtype == np.float32
        shown = content_shape(full.shape, grid, out_size)
        enlarged = any(new > old for new, old in zip(shown, full.shape, strict=True))
        if not mask.any() or (mask.all() and not enlarged):
            full = np.full(full.shape, mask.all())
        assert data.valid_fraction == pytest.approx(full.mean())
        for i, row in enumerate(rows):
            for j, col in enumerate(cols):
                cell = grid.cell(row, col).window
                top, left = cell.row - data.tile.window.row, cell.col - data.tile.window.col
                assert data.cell_fractions[i, j] == pytest.approx(
                    full[top : top + cell.height, left : left + cell.width].mean(), abs=1e-6
                )


@st.composite
def cases(draw):
    shape = draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    size = draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
    cell_size = tuple(draw(st.integers(max(1, side // 3), side)) for side in size)
    out = draw(st.one_of(st.just(size), st.tuples(st.integers(1, 90), st.integers(1, 90))))
    return shape, size, cell_size, out


@given(
    cases(),
    st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    st.sampled_from(["none", "nodata", "alpha", "mask", "nan"]),
    st.sampled_from(
        [
            {},
            {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
            {"interleave": "band", "blockysize": 3},
        ]
    ),
    st.integers(0, 9),
    st.integers(1, 3),
)
@example(((1, 19), (3, 2), (1, 1), (4, 1)), "uint8", "nodata", {}, 0, 1)
def test_tiles_are_what_plain_rasterio_reads(case, dtype, validity, layout, seed, threads) -> None:
    shape, size, cell_size, out_size = case
    random = np.random.default_rng(seed)
    pixels = random.integers(1, 200, (4 if validity == "alpha" else 3, *shape)).astype(dtype)
    holes = np.kron(
        random.random((-(-shape[0] // 9), -(-shape[1] // 9))) < 0.4, np.ones((9, 9), bool)
    )[: shape[0], : shape[1]]
    if validity == "alpha":
        pixels[3] = np.where(holes, 0, 255)
    elif validity == "nodata":
        pixels[:, holes] = 0
    elif validity == "nan" and dtype == "float32":
        pixels[:, holes] = np.nan
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.tif"
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=shape[0],
            width=shape[1],
            count=len(pixels),
            dtype=dtype,
            crs="EPSG:32632",
            photometric="rgb",
            transform=Affine(1, 0, 5e5, 0, -1, 5e6),
            nodata=0 if validity == "nodata" else None,
            **({"alpha": "yes"} if validity == "alpha" else {}),
            **layout,
        ) as dataset:
            dataset.write(pixels)
            if validity == "mask":
                dataset.write_mask(~holes)
        scene = open_scene(path)
        grid = TileGrid(shape, size, cell_size)
        radiometry = fit_radiometry(scene, stretch="5,150")
        check(
            path,
            scene,
            grid,
            out_size,
            radiometry,
            read(scene, grid, out_size, radiometry, threads=threads),
        )


def test_reduced_tiles_come_from_overviews(write, texture) -> None:
    path = write(texture(512, 512), tiled=True, blockxsize=128, blockysize=128)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([4], Resampling.nearest)
    with rasterio.open(path, OVERVIEW_LEVEL=0) as overview:
        nearest = overview.read().transpose(1, 2, 0)
    scene = open_scene(path)
    found = read(scene, TileGrid((512, 512), (256, 256)), (64, 64))
    assert (found[0].pixels == nearest[:64, :64]).all()
    assert (found[3].pixels == nearest[64:, 64:]).all()


def test_holes_of_enlarged_tiles_count_at_their_own_size(write, texture) -> None:
    pixels = texture(4, 6)
    pixels[:, 1:3, 1:5] = 0
    scene, grid = open_scene(write(pixels, nodata=0)), TileGrid((4, 6), (4, 3), (1, 3))
    for data in read(scene, grid, (64, 64)):
        assert data.valid_fraction == pytest.approx(8 / 12)
        assert data.cell_fractions.ravel() == pytest.approx([1, 1 / 3, 1 / 3, 1])
    single = TileGrid((4, 6), (1, 1))
    for data in read(scene, single, (64, 64)):
        inside = data.tile.row in (1, 2) and data.tile.col in range(1, 5)
        assert data.valid_fraction == data.cell_fractions == data.mask.mean() == (not inside)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_an_axis_of_few_pixels_is_padded_by_reflection(write, texture, length) -> None:
    path = write(texture(length, 40))
    scene, grid = open_scene(path), TileGrid((length, 40), (10, 10))
    for data in read(scene, grid, (20, 20)):
        content = max(1, round(length / 10 * 20))
        assert data.valid_fraction == 1
        assert (data.pixels[content] == data.pixels[max(0, content - 2)]).all()


@pytest.mark.parametrize(
    "layout", [{"tiled": True, "blockxsize": 64, "blockysize": 64}, {"blockysize": 16}]
)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_order_is_that_of_the_tiles_asked_for(write, texture, layout, threads) -> None:
    path = write(texture(640, 640), **layout)
    scene, grid = open_scene(path), TileGrid((640, 640), (16, 16))
    tiles = np.random.default_rng(0).permutation(1600)[:300].tolist()
    assert [
        data.tile.index for data in read(scene, grid, (16, 16), tiles=tiles, threads=threads)
    ] == tiles
    ahead = list(range(3, 1600, 2))
    assert [
        data.tile.index for data in read(scene, grid, (16, 16), tiles=iter(ahead), threads=threads)
    ] == ahead
    assert read(scene, grid, (16, 16), tiles=[]) == []
    with pytest.raises(IndexError, match="1600"):
        TileReader(scene, grid, AS_IT_IS, out_size=(16, 16), tiles=[1600])


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("rssc-geo reader")]


@pytest.fixture
def long_reader(write, texture):
    path = write(
        texture(2048, 2048), tiled=True, blockxsize=256, blockysize=256, compress="deflate"
    )
    return TileReader(
        open_scene(path), TileGrid((2048, 2048), (32, 32)), AS_IT_IS, out_size=(32, 32), threads=2
    )


def test_close_in_the_middle_is_prompt_and_leaves_no_thread(long_reader) -> None:
    tiles = iter(long_reader)
    for _ in range(5):
        next(tiles)
    time.sleep(0.2)
    assert reader_threads()
    started = time.monotonic()
    long_reader.close()
    assert time.monotonic() - started < 0.5
    assert not reader_threads()
    long_reader.close()


def test_a_consumer_that_raises_leaves_no_thread(long_reader) -> None:
    with pytest.raises(ZeroDivisionError), long_reader as reader:
        for data in reader:
            assert data.tile.index // 0
    assert not reader_threads()


def test_close_from_another_thread_ends_a_waiting_consumer(long_reader) -> None:
    threading.Timer(0.1, long_reader.close).start()
    for _ in long_reader:
        time.sleep(0.01)
    assert not reader_threads()


def test_a_reader_is_iterated_once(long_reader) -> None:
    with long_reader as reader:
        iter(reader)
        with pytest.raises(RuntimeError, match="once"):
            iter(reader)


def test_the_queue_is_bounded(write, texture) -> None:
    path = write(texture(1024, 1024), tiled=True, blockxsize=256, blockysize=256)
    made: list[int] = []
    scene, grid = open_scene(path), TileGrid((1024, 1024), (16, 16))

    class Counting(Radiometry):
        def apply(
            self, pixels: np.ndarray, valid: np.ndarray | None = None, window: Window | None = None
        ) -> np.ndarray:
            made.append(1)
            return super().apply(pixels, valid, window)

    with TileReader(
        scene,
        grid,
        Counting((0.0,) * 3, (255.0,) * 3, "none"),
        out_size=(16, 16),
        threads=2,
    ) as reader:
        next(iter(reader))
        time.sleep(0.5)
        # Of the 4096 tiles: 16 a run, and each thread holds four, makes one, and one is consumed.
        assert len(made) <= 16 * 2 * (4 + 2)


def test_a_corrupt_block_names_file_and_window_after_the_tiles_before_it(write, texture) -> None:
    path = write(texture(256, 256), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(content)
    tiles = []
    with (
        pytest.raises(
            InputError, match=r"scene\.tif cannot be read at rows 64 to 127, columns 128 to 191: .*"
        ) as caught,
        TileReader(
            open_scene(path), TileGrid((256, 256), (64, 64)), AS_IT_IS, out_size=(64, 64), threads=2
        ) as reader,
    ):
        for data in reader:
            tiles.append(data.tile.index)  # noqa: PERF401 -- what came before the error is kept
    assert tiles == list(range(6))
    assert "\n" not in str(caught.value)
    assert not reader_threads()


def test_a_file_that_goes_away_is_an_input_error(write, texture) -> None:
    path = write(texture(64, 64))
    scene = open_scene(path)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read as a raster"):
        read(scene, TileGrid((64, 64), (16, 16)), (16, 16))


@pytest.mark.parametrize("other", [(1, 64, 64), (3, 64, 63), (3, 80, 64)])
def test_a_file_that_is_another_one_by_now_is_an_input_error(write, texture, other) -> None:
    scene = open_scene(write(texture(64, 64)))
    write(texture(*other[1:])[: other[0]])
    with pytest.raises(InputError, match=r"scene\.tif changed while it was being read"):
        read(scene, TileGrid((64, 64), (16, 16)), (16, 16))


@pytest.mark.parametrize("kind", ["nodata", "alpha", "band", "filled"])
def test_blocks_that_a_sparse_file_leaves_out_are_invalid_without_reading(
    tmp_path: Path, texture, kind
) -> None:
    path = tmp_path / "sparse.tif"
    count = 4 if kind == "alpha" else 3
    profile = {
        "nodata": 0 if kind != "alpha" else None,
        "interleave": "band" if kind == "band" else "pixel",
    }
    if kind == "filled":  # what is missing is 0, which is a color here
        profile["nodata"] = None
    if kind == "alpha":
        profile["alpha"] = "yes"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=40_000,
        width=40_000,
        count=count,
        dtype="uint8",
        crs="EPSG:32632",
        photometric="rgb",
        transform=Affine(1, 0, 5e5, 0, -1, 5e6),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        SPARSE_OK=True,
        compress="deflate",
        **profile,
    ) as dataset:
        pixels = texture(512, 512, bands=count)
        dataset.write(pixels, window=RasterioWindow(1024, 2048, 512, 512))
    scene, grid = open_scene(path), TileGrid((40_000, 40_000), (512, 512))
    tiles = range(79 * 6) if kind == "filled" else None
    started = time.monotonic()
    valid = {
        data.tile.index
        for data in read(scene, grid, (512, 512), tiles=tiles)
        if data.valid_fraction > 0
    }
    assert valid == (set(range(79 * 6)) if kind == "filled" else {4 * 79 + 2})
    assert time.monotonic() - started < 20
    assert bool(scene.opening.mask_rule.sparse_bands) is (kind != "filled")


def test_settings_that_cannot_be(write, texture) -> None:
    scene = open_scene(write(texture(64, 64)))
    grid = TileGrid((64, 64), (16, 16))
    for options in ({"threads": 0}, {"out_size": (0, 8)}):
        with pytest.raises(ValueError, match="at least 1"):
            TileReader(scene, grid, AS_IT_IS, **{"out_size": (8, 8), **options})
    with pytest.raises(ValueError, match="does not fit"):
        TileReader(scene, TileGrid((64, 65), (16, 16)), AS_IT_IS, out_size=(8, 8))
