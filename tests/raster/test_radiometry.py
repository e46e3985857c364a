from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.enums import Resampling
from rasterio.windows import Window

from rssc_geo.errors import UsageError
from rssc_geo.raster import (
    PixelReader,
    Radiometry,
    fit_radiometry,
    open_scene,
    sample_pixels,
    without_haze,
)


def test_uint8_passes_unchanged(write, texture) -> None:
    pixels = texture(20, 30)
    radiometry = fit_radiometry(open_scene(write(pixels)))
    assert radiometry.method == "none"
    shown = radiometry.apply(pixels.transpose(1, 2, 0))
    assert (shown == pixels.transpose(1, 2, 0)).all()


def test_two_percent_at_both_ends_band_by_band_from_valid_pixels(write) -> None:
    random = np.random.default_rng(0)
    pixels = (
        random.random((3, 300, 400)) * np.array([1000, 2000, 30000])[:, None, None] + 100
    ).astype(np.uint16)
    pixels[:, :150] = 0
    radiometry = fit_radiometry(open_scene(write(pixels, nodata=0)))
    for band in range(3):
        low, high = np.percentile(pixels[band, 150:], [2, 98])
        assert (radiometry.low[band], radiometry.high[band]) == pytest.approx((low, high))
    assert radiometry.method == "percentiles 2%,98%"


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16, np.float32, np.float64]),
        (4, 5, 3),
        elements=st.integers(0, 200),
    ),
    st.floats(0, 100),
    st.floats(0.5, 120),
)
def test_scaling_is_linear_clipped_and_rounded_for_every_type(pixels, low, extent) -> None:
    radiometry = Radiometry((low,) * 3, (low + extent,) * 3, "values")
    exact = ((pixels.astype(np.float64) - low) / (low + extent - low) * 255).clip(0, 255)
    valid = pixels[..., 0] % 2 == 0
    shown = radiometry.apply(pixels, valid)
    assert shown.dtype == np.uint8
    assert (np.abs(shown[valid] - exact[valid]) <= 0.5 + 1e-6).all()
    assert (shown[~valid] == 0).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_row_is_scaled_alike_whatever_is_beside_it(dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, 3000, (300, 7, 3)).astype(dtype)
    radiometry = Radiometry((100.0, 200.0, 300.0), (2000.0, 2500.0, 2800.0), "values")
    alone = [radiometry.apply(pixels[row : row + 1]) for row in range(len(pixels))]
    assert np.array_equal(radiometry.apply(pixels), np.concatenate(alone))


def test_not_a_number_and_infinity(write) -> None:
    pixels = np.linspace(0, 1, 3 * 40 * 40, dtype=np.float32).reshape(3, 40, 40)
    pixels[0, 0, 0], pixels[1, 0, 0], pixels[:, 0, 1] = np.nan, np.inf, np.nan
    pixels[2, 0, 0] = -np.inf
    radiometry = fit_radiometry(open_scene(write(pixels)))
    assert np.isfinite([*radiometry.low, *radiometry.high]).all()
    assert radiometry.apply(pixels.transpose(1, 2, 0))[0, 0].tolist() == [0, 255, 0]


def test_a_constant_band_becomes_mid_grey(write) -> None:
    radiometry = fit_radiometry(open_scene(write(np.full((3, 20, 20), 1000, np.uint16))))
    pixels = np.array([[[1000, 999, 1001]]], np.uint16)
    assert radiometry.apply(pixels).tolist() == [[[127, 0, 255]]]
    assert radiometry.apply(pixels.astype(np.float32)).tolist() == [[[127, 0, 255]]]


def test_a_band_whose_percentiles_meet_is_scaled_from_smallest_to_largest(write) -> None:
    pixels = np.full((3, 100, 100), 1000, np.uint16)
    pixels[:, 0, :10] = 3000
    radiometry = fit_radiometry(open_scene(write(pixels)))
    assert (radiometry.low[0], radiometry.high[0]) == (1000, 3000)


@pytest.mark.parametrize(("dtype", "high"), [("uint16", 65535), ("float32", 1)])
def test_no_valid_pixel_still_gives_a_scaling(write, dtype, high) -> None:
    radiometry = fit_radiometry(open_scene(write(np.zeros((3, 20, 20), dtype), nodata=0)))
    assert (radiometry.low, radiometry.high) == ((0,) * 3, (high,) * 3)


@pytest.mark.parametrize(
    ("stretch", "low", "high"),
    [
        ("0,3000", (0, 0, 0), (3000, 3000, 3000)),
        ("-5,1e3;0,200;.5,7", (-5, 0, 0.5), (1000, 200, 7)),
        ("minmax", (1, 2, 3), (100, 200, 300)),
        ("0%,100%", (1, 2, 3), (100, 200, 300)),
        (" 0 % , 50 % ", (1, 2, 3), (50.5, 101, 151.5)),
        ("0%,100%;0,5;0%,100%", (1, 0, 3), (100, 5, 300)),
    ],
)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_stretch(write, stretch, low, high, dtype) -> None:
    ramp = np.arange(1, 101).reshape(10, 10)
    pixels = np.stack([ramp, ramp * 2, ramp * 3]).astype(dtype)
    radiometry = fit_radiometry(open_scene(write(pixels)), stretch=stretch)
    assert radiometry.low == pytest.approx(low)
    assert radiometry.high == pytest.approx(high)


def test_stretch_of_uint8_when_asked_for(write, texture) -> None:
    pixels = texture(20, 20)
    radiometry = fit_radiometry(open_scene(write(pixels)), stretch="50,100")
    assert radiometry.apply(np.full((1, 1, 3), 80, np.uint8)).tolist() == [[[153] * 3]]


def test_none_takes_values_of_0_to_255_as_they_are_and_refuses_others(write) -> None:
    pixels = np.arange(300, dtype=np.float32).reshape(3, 10, 10)
    with pytest.raises(UsageError, match="0 to 299"):
        fit_radiometry(open_scene(write(pixels)), stretch="none")
    radiometry = fit_radiometry(
        open_scene(write(pixels - 40, "b.tif", nodata=-5), nodata=-5), stretch="minmax"
    )
    assert radiometry.low[0] == -40
    radiometry = fit_radiometry(open_scene(write(pixels.clip(0, 255), "c.tif")), stretch="none")
    assert radiometry.apply(np.array([[[0, 100.4, 255]]], np.float32)).tolist() == [[[0, 100, 255]]]


@pytest.mark.parametrize(
    "stretch",
    [
        "lots",
        "1",
        "1,2,3",
        "5,5",
        "9,3",
        "2%,98",
        "2%,101%",
        "50%,2%",
        "1,2;3,4",
        "nan,3",
        "1,2;3,4;5,6;7,8",
    ],
)
def test_stretch_that_cannot_be_meant(write, texture, stretch) -> None:
    with pytest.raises(UsageError, match="--stretch"):
        fit_radiometry(open_scene(write(texture(8, 8, dtype="uint16"))), stretch=stretch)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pixels handed over by each read of the sample."""
    read, sizes = PixelReader.read, []

    def counting(self, window, out_shape):
        sizes.append(out_shape[0] * out_shape[1])
        return read(self, window, out_shape)

    monkeypatch.setattr(PixelReader, "read", counting)
    return sizes


def test_the_sample_is_bounded_and_spread(write, monkeypatch) -> None:
    rows, cols = np.mgrid[:3000, :4000]
    pixels = np.stack([rows, cols, rows + cols]).astype(np.uint16)
    for layout in (
        {"tiled": True, "blockxsize": 256, "blockysize": 256},
        {"blockysize": 1},
        {"blockysize": 700},
    ):
        scene = open_scene(write(pixels, **layout))
        sizes = counted(monkeypatch)
        sample = sample_pixels(scene)
        assert len(sizes) == 64
        assert sum(sizes) <= 64 * 256 * 256
        radiometry = fit_radiometry(scene)
        assert radiometry.low[:2] == pytest.approx((60, 80), abs=260)
        assert radiometry.high[:2] == pytest.approx((2940, 3920), abs=260)
        assert (sample_pixels(scene) == sample).all()
        monkeypatch.undo()


def test_the_sample_comes_from_an_overview_where_there_is_one(write, monkeypatch) -> None:
    pixels = np.random.default_rng(0).integers(1, 5000, (3, 2048, 2048)).astype(np.uint16)
    path = write(pixels, tiled=True)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
    sizes = counted(monkeypatch)
    sample_pixels(open_scene(path))
    assert sizes == [1024 * 1024]


@pytest.mark.parametrize("nodata", [0, None])
def test_data_in_a_corner_of_a_sparse_raster_is_found(write, tmp_path, nodata) -> None:
    path = tmp_path / "sparse.tif"
    profile = {
        "driver": "GTiff",
        "crs": "EPSG:32632",
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "SPARSE_OK": True,
        "photometric": "rgb",
    }
    transform = rasterio.Affine(1, 0, 5e5, 0, -1, 5e6)
    bands = 3 if nodata == 0 else 4
    with rasterio.open(
        path,
        "w",
        height=60_000,
        width=60_000,
        count=bands,
        dtype="uint16",
        nodata=nodata,
        transform=transform,
        **({} if bands == 3 else {"alpha": "yes"}),
        **profile,
    ) as dataset:
        pixels = np.random.default_rng(0).integers(1000, 2000, (bands, 512, 512)).astype(np.uint16)
        dataset.write(pixels, window=Window(51_200, 10_240, 512, 512))
    radiometry = fit_radiometry(open_scene(path))
    assert radiometry.low[0] == pytest.approx(1020, abs=10)
    assert radiometry.high[0] == pytest.approx(1980, abs=10)


@pytest.mark.parametrize(
    ("haze", "subtracted"),
    [
        ((0, 10, 40), (0, 10, 40)),
        ((30, 10, 10), (10, 10, 10)),  # bright soil, no air: longer waves scatter less
        ((0, 10, 0), (0, 0, 0)),
        ((80, 80, 80), (64, 64, 64)),  # no more than 64
    ],
)
def test_dark_object_subtraction(write, haze, subtracted) -> None:
    random = np.random.default_rng(0)
    dark = np.array([18, 24, 19])[:, None, None]
    pixels = (dark + random.integers(0, 140, (3, 200, 200))).astype(np.uint8)
    pixels[:, :3] = dark  # more than a hundredth of the ground is dark
    hazy = pixels + np.array(haze, np.uint8)[:, None, None]
    radiometry = fit_radiometry(open_scene(write(hazy)), stretch="dos")
    assert radiometry.low == subtracted
    assert radiometry.high == (255.0,) * 3
    assert radiometry.method == ("dark-object subtraction" if any(subtracted) else "none")
    if haze == subtracted:
        shown = radiometry.apply(hazy.transpose(1, 2, 0)).transpose(2, 0, 1)
        exact = (hazy - np.array(haze)[:, None, None]) * 255 / (255 - np.array(haze)[:, None, None])
        assert np.abs(shown - exact).max() <= 0.5


def test_nothing_is_subtracted_without_dark_objects_or_from_other_types(write, texture) -> None:
    scene = open_scene(write(texture(40, 40, dtype="uint16")))
    assert fit_radiometry(scene, stretch="dos") == fit_radiometry(scene)
    sand = np.random.default_rng(0).integers(150, 190, (3, 60, 60)).astype(np.uint8)
    assert fit_radiometry(open_scene(write(sand, "sand.tif")), stretch="dos").method == "none"
    empty = open_scene(write(np.zeros((3, 20, 20), np.uint8), "empty.tif", nodata=0))
    assert fit_radiometry(empty, stretch="dos").method == "none"


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 400), st.just(3))))
def test_the_haze_is_by_the_percentiles_of_the_sample(sample: np.ndarray) -> None:
    darkest, median = np.percentile(sample, [1.0, 50.0], axis=0)
    low = np.rint(darkest - [18, 24, 19]).clip(0, 64)
    low[1] = min(low[1:])
    low[0] = min(low[:2])
    if darkest.sum() > 0.7 * median.sum():
        low[:] = 0
    assert without_haze(sample).low == tuple(low)


def test_a_gray_picture_stays_gray_without_haze() -> None:
    gray = np.random.default_rng(0).integers(60, 200, (5000, 1)).astype(np.uint8).repeat(3, 1)
    assert without_haze(gray).method == "none"
    tinted = gray + np.array([0, 0, 9], np.uint8)
    assert without_haze(tinted).method == "dark-object subtraction"
