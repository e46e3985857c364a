"""Every real raster gives tiles equal to plain rasterio's, or is refused for a stated reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window

from rssc_geo.errors import GeoreferenceError, InputError
from rssc_geo.geometry import TileGrid
from rssc_geo.raster import TileReader, fit_radiometry, open_scene

# file: bands, what makes pixels invalid, meters a pixel along rows and columns
OPENED = {
    "201404_13SED190110_201404_0x1500m_CL_1_nodata.tif": ((1, 2, 3), "nodata 0", (0.150, 0.150)),
    "3420B_2010_328_RGB_LATLNG.tif": ((1, 2, 3), "alpha band", (2.773, 2.309)),
    "L7_ETMs.tif": ((1, 2, 3), "none", (28.50, 28.50)),
    "RGB.byte.tif": ((1, 2, 3), "nodata 0", (299.9, 299.9)),
    "RGBA.uint16.tif": ((3, 2, 1), "alpha band", (1.379, 1.380)),
    "all-nodata.tif": ((3, 2, 1), "nodata 0", (3.0, 3.0)),
    "cog_cmap.tif": ((1, 1, 1), "palette index 0", (0.9146, 0.9183)),
    "cog_rgb_mask.tif": ((1, 2, 3), "internal mask", (0.150, 0.150)),
    "cogeo.tif": ((1, 2, 3), "internal mask", (0.4713, 0.4733)),
    "drone_1.8cm_nodata0.tif": ((1, 2, 3), "nodata 0", (0.018, 0.018)),
    "m_3607717_sw_18_1_20160620_subset.tif": ((1, 2, 3), "none", (0.9995, 0.9995)),
    "mosaic_cog1.tif": ((1, 2, 3), "nodata 0", (300.15, 300.15)),
    "ms1.tif": ((1, 2, 3), "NaN and fill values", (1.0, 1.0)),
    "pix4d_alpha_nodata.tif": ((1, 2, 3), "alpha band", (0.3527, 0.3527)),
    "rd_netherlands_25cm.tif": ((1, 2, 3), "none", (0.25, 0.25)),
    "river_town_10cm_3395.tif": ((1, 2, 3), "none", (0.0968, 0.0969)),
    "sample_geotiff_custom_proj.tif": ((1, 2, 3), "nodata -9999", (29.79, 30.22)),
    "sentinel2_11band_nodata255.tif": ((1, 2, 3), "nodata 255", (9.995, 9.995)),
}
ONE_BAND = [
    "byte.tif",
    "cog_dateline.tif",
    "cog_gcps.tif",
    "geomatrix.tif",
    "inverted_lat.tif",
    *(f"NAIP-VA-b{i}.tiff" for i in range(1, 5)),
]
REFUSED = {
    **dict.fromkeys(ONE_BAND, (InputError, "--bands 1,1,1")),
    "float_nan.tif": (InputError, "--bands 1,1,1"),
    "rotated.tif": (InputError, "--bands 1,1,1"),
    "no_crs.tiff": (GeoreferenceError, "not georeferenced"),
}
BROKEN = "corrupt.tif"


def test_every_raster_is_listed(rasters: Path) -> None:
    assert {path.name for path in rasters.iterdir()} == {*OPENED, *REFUSED, BROKEN}


@pytest.mark.parametrize("name", OPENED)
def test_tiles_equal_plain_rasterio(rasters: Path, name: str) -> None:
    bands, mask_words, gsd_m = OPENED[name]
    scene = open_scene(rasters / name)
    assert (scene.bands, scene.mask) == (bands, mask_words)
    assert scene.gsd_m == pytest.approx(gsd_m, rel=2e-3)
    radiometry = fit_radiometry(scene)
    grid = TileGrid(scene.shape, (200, 160))
    count = grid.tiles_shape[0] * grid.tiles_shape[1]
    tiles = sorted({int(i) for i in np.linspace(0, count - 1, 12)})
    with (
        TileReader(scene, grid, radiometry, out_size=(100, 160), tiles=tiles) as reader,
        rasterio.open(rasters / name) as dataset,
    ):
        for data in reader:
            window = Window(
                data.tile.window.col,
                data.tile.window.row,
                data.tile.window.width,
                data.tile.window.height,
            )
            if (data.tile.window.height, data.tile.window.width) != grid.size:
                continue
            source = dataset
            if name == "cog_cmap.tif":
                source = scene.open()
            wanted = source.read(
                scene.opening.indexes,
                window=window,
                out_shape=(3, 100, 160),
                resampling=Resampling.average,
            )
            valid = (
                source.dataset_mask(
                    window=window, out_shape=(100, 160), resampling=Resampling.average
                )
                > 0
            )
            np.testing.assert_array_equal(data.mask, valid)
            np.testing.assert_array_equal(
                data.pixels, radiometry.apply(wanted.transpose(1, 2, 0), valid)
            )
            if valid.any() and not valid.all():
                assert data.valid_fraction == pytest.approx(
                    (dataset.dataset_mask(window=window) > 0).mean()
                )


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line_for_the_stated_reason(rasters: Path, name: str) -> None:
    kind, words = REFUSED[name]
    with pytest.raises(kind, match=words) as caught:
        open_scene(rasters / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ONE_BAND)
def test_one_band_shown_three_times_is_read(rasters: Path, name: str) -> None:
    scene = open_scene(rasters / name, bands=(1, 1, 1))
    grid = TileGrid(scene.shape, (128, 128))
    with TileReader(
        scene,
        grid,
        fit_radiometry(scene),
        out_size=(64, 64),
        tiles=range(min(9, np.prod(grid.tiles_shape))),
    ) as reader:
        found = list(reader)
    assert all((data.pixels[..., 0] == data.pixels[..., 2]).all() for data in found)
    if name == "inverted_lat.tif":
        assert scene.transform.e > 0
    if name == "cog_gcps.tif":
        assert "control points" in scene.warnings[0]
        assert {data.valid_fraction for data in found} != {1.0}


def test_rotated_and_nan_need_a_crs_and_are_then_read(rasters: Path) -> None:
    for name in ("rotated.tif", "float_nan.tif"):
        with pytest.raises(GeoreferenceError, match="--assume-crs"):
            open_scene(rasters / name, bands=(1, 1, 1))
        scene = open_scene(rasters / name, bands=(1, 1, 1), assume_crs="EPSG:3857")
        grid = TileGrid(scene.shape, scene.shape)
        with TileReader(scene, grid, fit_radiometry(scene), out_size=(30, 30)) as reader:
            (data,) = reader
        assert data.valid_fraction == pytest.approx(5 / 6 if name == "float_nan.tif" else 1)


def test_separate_naip_bands(rasters: Path) -> None:
    files = [rasters / f"NAIP-VA-b{i}.tiff" for i in (1, 2, 3)]
    scene = open_scene(files)
    with scene.open() as handle:
        pixels = handle.read(scene.opening.indexes)
    for band, file in zip(pixels, files, strict=True):
        with rasterio.open(file) as dataset:
            assert (band == dataset.read(1)).all()


def test_corrupt_blocks_are_named(rasters: Path) -> None:
    scene = open_scene(rasters / BROKEN)
    grid = TileGrid(scene.shape, (256, 256))
    with (
        pytest.raises(
            InputError, match=r"corrupt\.tif cannot be read at rows 512 to 767, columns 512 to 767"
        ),
        TileReader(scene, grid, fit_radiometry(scene), out_size=(256, 256)) as reader,
    ):
        list(reader)


def test_black_corners_without_a_tag_are_masked_by_the_nodata_option(rasters: Path) -> None:
    scene = open_scene(rasters / "river_town_10cm_3395.tif", nodata=0)
    with scene.open() as handle:
        valid = handle.dataset_mask() > 0
    with rasterio.open(rasters / "river_town_10cm_3395.tif") as dataset:
        assert (valid == dataset.read().any(axis=0)).all()
    assert 0 < valid.mean() < 1
