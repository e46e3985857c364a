from __future__ import annotations

import http.server
import os
import pickle
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.rpc import RPC
from rasterio.shutil import copy

from rssc_geo.errors import GeoreferenceError, InputError, UsageError
from rssc_geo.fingerprints import fingerprint
from rssc_geo.geometry import Window
from rssc_geo.raster import Scene, open_scene
from tests.factories import colors, mask
from tests.file_server import serve_folder


def test_a_raster_is_named_in_any_way_of_python(write, texture) -> None:
    path = write(texture(8, 8))
    with os.scandir(path.parent) as entries:
        entry = next(entry for entry in entries if entry.path == str(path))
    assert open_scene(entry) == open_scene(path) == open_scene(str(path))
    assert open_scene(path, bands=np.array([3, 2, 1])).bands == (3, 2, 1)
    bands = [write(texture(8, 8)[:1]) for _ in range(3)]
    assert open_scene(band for band in bands) == open_scene(bands)  # type: ignore[arg-type]
    for source in (None, 3, b"scene.tif"):
        with pytest.raises(UsageError, match="a path cannot be of Python's type"):
            open_scene(source)


# --- bands


def interpreted(write, pixels, meanings, descriptions=None, **profile):
    path = write(pixels, photometric="minisblack", **profile)
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [ColorInterp[meaning] for meaning in meanings]
        if descriptions:
            dataset.descriptions = descriptions
    return path


def test_bands_by_color_interpretation_win_over_descriptions(write, texture) -> None:
    path = interpreted(write, texture(8, 8), ["blue", "green", "red"], ["red", "green", "blue"])
    scene = open_scene(path)
    assert (scene.bands, scene.bands_reason, scene.warnings) == (
        (3, 2, 1),
        "color interpretation",
        (),
    )


@pytest.mark.parametrize(
    ("descriptions", "bands", "warned"),
    [
        (["Blue", "GREEN", "red", "nir"], (3, 2, 1), False),
        (["red edge", "band 1 (blue)", "Green 560 nm", "Red"], (4, 3, 2), False),
        (["B02", "B03", "B04", "B08"], (3, 2, 1), False),
        (["b4 (665 nm)", "b3", "B2, central wavelength 490 nm", "x"], (1, 2, 3), True),
    ],
)
def test_bands_by_description(write, texture, descriptions, bands, warned) -> None:
    scene = open_scene(
        interpreted(write, texture(8, 8, bands=4), ["gray", *["undefined"] * 3], descriptions)
    )
    assert (scene.bands, scene.bands_reason, bool(scene.warnings)) == (
        bands,
        "band descriptions",
        warned,
    )


def test_first_three_bands_with_a_warning_that_names_them(write, texture) -> None:
    scene = open_scene(interpreted(write, texture(8, 8, bands=5), ["gray", *["undefined"] * 4]))
    assert (scene.bands, scene.bands_reason) == ((1, 2, 3), "first three bands")
    assert "1,2,3 of 5" in scene.warnings[0]
    assert "--bands" in scene.warnings[0]


def test_alpha_is_a_mask_and_never_one_of_the_first_three_bands(write, texture) -> None:
    path = interpreted(write, texture(8, 8, bands=4), ["alpha", "gray", "undefined", "undefined"])
    assert open_scene(path).bands == (2, 3, 4)
    with pytest.raises(UsageError, match="alpha"):
        open_scene(path, bands=(1, 2, 3))


def test_near_infrared_beside_red_green_blue_is_neither_color_nor_mask(write, texture) -> None:
    scene = open_scene(
        interpreted(write, texture(8, 8, bands=4), ["red", "green", "blue", "undefined"])
    )
    assert (scene.bands, scene.mask) == ((1, 2, 3), "none")


@pytest.mark.parametrize(
    ("bands", "words"),
    [
        ((1, 2), "three"),
        ((1, 2, 3, 3), "three"),
        ((), "three"),
        ((1, 2, 9), "no band 9.*has 3"),
        ((0, 1, 2), "no band 0"),
    ],
)
def test_chosen_bands_that_cannot_be(write, texture, bands, words) -> None:
    with pytest.raises(UsageError, match=words):
        open_scene(write(texture(8, 8)), bands=bands)


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_bands_are_refused_and_the_way_out_works(write, texture, count) -> None:
    path = write(texture(8, 8, bands=count), photometric="minisblack")
    with pytest.raises(InputError, match="red, green and blue.*--bands 1,1,"):
        open_scene(path)
    scene = open_scene(path, bands=(1, 1, 1))
    assert (scene.bands, scene.bands_reason) == ((1, 1, 1), "chosen")
    assert (colors(scene)[0] == colors(scene)[2]).all()


@pytest.mark.parametrize("nodata", [None, 3])
def test_palette_is_expanded_and_averaged_as_colors(write, nodata) -> None:
    random = np.random.default_rng(1)
    palette = random.choice([0, 1, 127, 254, 255], (256, 3)).astype(np.uint8)
    index = random.integers(0, 256, (64, 64), dtype=np.uint8)
    path = write(index[None], nodata=nodata)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (*map(int, color), 255) for i, color in enumerate(palette)})
    scene = open_scene(path)
    expected = palette[index].transpose(2, 0, 1)
    assert (scene.bands_reason, scene.dtype, scene.nodata) == ("palette expanded", "uint8", nodata)
    assert (colors(scene) == expected).all()
    assert (mask(scene) == (index != nodata)).all()
    weight = (index != nodata).astype(float)
    total = (expected * weight).reshape(3, 32, 2, 32, 2).sum((2, 4))
    count = weight.reshape(32, 2, 32, 2).sum((1, 3))
    with scene.open() as handle:
        reduced = handle.read(out_shape=(3, 32, 32), resampling=Resampling.average)
    assert np.abs(reduced - total / np.maximum(count, 1))[:, count > 0].max() <= 0.51


def test_transparent_palette_entries_are_invalid(write, tmp_path: Path) -> None:
    index = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    path = write(index)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i, i, i, 255) for i in range(256)})
    # TIFF stores no transparency in its palettes; a VRT does.
    vrt = tmp_path / "palette.vrt"
    copy(path, vrt, driver="VRT")
    opaque = '<Entry c1="5" c2="5" c3="5" c4="255"'
    assert opaque in vrt.read_text()
    vrt.write_text(vrt.read_text().replace(opaque, opaque.replace("255", "0")))
    scene = open_scene(vrt)
    assert (mask(scene) == (index[0] != 5)).all()
    assert scene.mask == "palette transparency or mask"


# --- validity


def test_nodata_is_a_pixel_whose_three_bands_all_hold_it(write) -> None:
    pixels = np.full((4, 2, 3), 9, np.uint8)
    pixels[:3, 0, 0] = 0
    pixels[0, 0, 1] = 0
    pixels[3] = 0
    path = write(pixels, nodata=0, photometric="rgb", alpha="unspecified")
    scene = open_scene(path)
    assert (scene.mask, scene.nodata) == ("nodata 0", 0.0)
    assert mask(scene).tolist() == [[False, True, True], [True, True, True]]
    with rasterio.open(write(pixels[:3], "rgb.tif", nodata=0)) as dataset:
        assert (mask(scene) == (dataset.dataset_mask() > 0)).all()


@pytest.mark.parametrize("nodata", [None, np.nan, -9999.0])
def test_nan_is_nodata_with_and_without_a_tag(write, nodata) -> None:
    pixels = np.ones((3, 2, 3), np.float32)
    pixels[:, 1, 1] = np.nan
    pixels[0, 0, 0] = np.nan
    if nodata == -9999.0:
        pixels[:, 0, 2] = nodata
    valid = mask(open_scene(write(pixels, nodata=nodata)))
    assert valid.tolist() == [[True, True, nodata != -9999.0], [True, False, True]]


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_nodata(write, value) -> None:
    pixels = np.ones((3, 2, 3), np.float32)
    pixels[:, 1, 1] = value
    pixels[0, 0, 0] = value
    valid = mask(open_scene(write(pixels)))
    assert valid.tolist() == [[True, True, True], [True, False, True]]


def test_the_lowest_integers_are_nodata_as_they_are_given(write, texture) -> None:
    pixels = texture(32, 32).astype(np.int64)
    pixels[:, :, :16] = np.iinfo(np.int64).min
    scene = open_scene(write(pixels), nodata=float(np.iinfo(np.int64).min))
    assert scene.nodata == np.iinfo(np.int64).min
    assert mask(scene).mean() == 0.5


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_band(write, texture, dtype) -> None:
    pixels = texture(6, 6, bands=4, dtype=dtype)
    pixels[3] = 255
    pixels[3, 2:4, 1:3] = 0
    scene = open_scene(write(pixels, photometric="rgb", alpha="yes"))
    assert scene.mask == "alpha band"
    assert (mask(scene) == (pixels[3] > 0)).all()


@pytest.mark.parametrize("internal", [True, False])
def test_internal_and_sidecar_masks(write, texture, internal) -> None:
    path = write(texture(32, 32))
    valid = np.zeros((32, 32), bool)
    valid[5:20, 3:9] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(valid)
    assert Path(f"{path}.msk").exists() is not internal
    scene = open_scene(path)
    assert scene.mask == ("internal mask" if internal else "sidecar mask")
    assert (mask(scene) == valid).all()


@pytest.mark.parametrize("overviews", [False, True])
def test_nodata_given_by_the_user_keeps_a_collar_out_of_reduced_reads(write, overviews) -> None:
    pixels = np.full((3, 512, 512), 200, np.uint8)
    pixels[:, :, :101] = 7
    path = write(pixels, tiled=True, blockxsize=128, blockysize=128)
    if overviews:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4], Resampling.average)
    scene = open_scene(path, nodata=7)
    assert (scene.nodata, scene.mask, scene.shape, scene.transform) == (
        7.0,
        "nodata 7",
        (512, 512),
        open_scene(path).transform,
    )
    with scene.pixel_reader() as reader:
        reduced, valid = reader.read(Window(0, 0, 512, 512), (100, 100))
    assert valid is not None
    assert (reduced[valid] == 200).all()
    assert (mask(scene) == (pixels[0] != 7)).all()


def test_nodata_given_by_the_user_counts_beside_alpha(write, texture) -> None:
    pixels = texture(6, 6, bands=4)
    pixels[3] = 255
    pixels[3, 0] = 0
    pixels[:3, :, 0] = 0
    valid = mask(open_scene(write(pixels, photometric="rgb", alpha="yes"), nodata=0))
    assert valid[1:, 1:].all()
    assert not valid[0].any()
    assert not valid[:, 0].any()


@pytest.mark.parametrize("nodata", [300.0, -1.0, 2.5, float("nan")])
def test_nodata_that_the_type_cannot_hold(write, texture, nodata) -> None:
    with pytest.raises(UsageError, match="--nodata.*uint8"):
        open_scene(write(texture(8, 8)), nodata=nodata)


# --- place


@pytest.mark.parametrize(
    ("crs", "x", "y", "step"),
    [
        ("EPSG:4326", 20.5, -34.0, 2.5e-5),
        ("EPSG:3857", 14_000_000, 6_000_000, 1.0),
        ("EPSG:3395", 13_467_532, 1_632_019, 0.1),
        ("EPSG:32632", 500_000, 5_000_000, 2.0),
    ],
)
def test_ground_sampling_is_geodesic_and_each_axis_apart(write, texture, crs, x, y, step) -> None:
    scene = open_scene(
        write(texture(40, 60), crs=crs, transform=Affine(step * 2, 0, x, 0, -step, y))
    )
    to_lonlat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    ends = [
        to_lonlat.transform(*(scene.transform @ point))
        for point in ((30, 0), (30, 40), (0, 20), (60, 20))
    ]
    geod = pyproj.Geod(ellps="WGS84")
    assert scene.gsd_m[0] == pytest.approx(geod.inv(*ends[0], *ends[1])[2] / 40, rel=1e-4)
    assert scene.gsd_m[1] == pytest.approx(geod.inv(*ends[2], *ends[3])[2] / 60, rel=1e-4)


@pytest.mark.parametrize(
    "transform",
    [Affine(1.5, -5, 640_000, -5, -1.5, 5_000_000), Affine(2, 0, 500_000, 0, 2, 5_000_000)],
)
def test_rotated_and_south_up_rasters_are_kept_as_they_are(write, texture, transform) -> None:
    scene = open_scene(write(texture(20, 20), transform=transform))
    assert scene.transform == transform
    length = np.hypot(transform.b, transform.e)
    assert scene.gsd_m[0] == pytest.approx(length, rel=2e-3)


def test_antimeridian(write, texture) -> None:
    scene = open_scene(
        write(
            texture(100, 100),
            crs="EPSG:32660",
            transform=Affine(1000, 0, 660_000, 0, -1000, 5_000_000),
        )
    )
    west, south, east, north = scene.bounds_lonlat()
    assert west > 0 > east
    assert south < north
    assert scene.gsd_m == pytest.approx((1000, 1000), rel=2e-3)


def test_no_crs_names_the_option_that_gives_one(write, texture) -> None:
    path = write(texture(8, 8), crs=None)
    with pytest.raises(GeoreferenceError, match="no CRS.*--assume-crs"):
        open_scene(path)
    scene = open_scene(path, assume_crs="EPSG:32632")
    assert scene.crs.to_epsg() == 32632
    assert scene.warnings == ()
    with pytest.raises(UsageError, match="--assume-crs 'nowhere'"):
        open_scene(path, assume_crs="nowhere")


def test_assumed_crs_wins_over_the_rasters_with_a_warning(write, texture) -> None:
    scene = open_scene(write(texture(8, 8)), assume_crs="EPSG:32633")
    assert scene.crs.to_epsg() == 32633
    assert "WGS 84 / UTM zone 32N" in scene.warnings[0]


def test_no_georeferencing_at_all(write, texture) -> None:
    path = write(texture(8, 8), crs=None, transform=Affine.identity())
    for crs in (None, "EPSG:32632"):
        with pytest.raises(GeoreferenceError, match="not georeferenced"):
            open_scene(path, assume_crs=crs)


@pytest.mark.parametrize(
    ("crs", "words"),
    [
        (
            (
                'GEOGCS["Moon'
                ' 2000",DATUM["D_Moon_2000",SPHEROID["Moon_2000_IAU_IAG",1737400,0]],'
                'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
            ),
            "1,737 km",
        ),
        (
            (
                'GEOGCS["Mars'
                ' 2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",3396190,169.894]],'
                'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
            ),
            "3,396 km",
        ),
        ('LOCAL_CS["site grid",UNIT["metre",1]]', "local"),
    ],
)
def test_crs_that_is_not_on_earth(write, texture, crs, words) -> None:
    path = write(texture(8, 8), crs=CRS.from_wkt(crs), transform=Affine(1e-3, 0, 10, 0, -1e-3, 10))
    with pytest.raises(GeoreferenceError, match=rf"{words}.*--assume-crs"):
        open_scene(path)
    assert open_scene(path, assume_crs="EPSG:4326").crs.to_epsg() == 4326


def test_coordinates_that_do_not_fit_the_crs(write, texture) -> None:
    with pytest.raises(GeoreferenceError, match=r"outside its CRS.*--assume-crs"):
        open_scene(
            write(texture(8, 8), crs="EPSG:4326", transform=Affine(1, 0, 500_000, 0, -1, 5_000_000))
        )


@pytest.mark.parametrize("nodata", [None, 0])
def test_control_points_are_warped_virtually(write, texture, nodata) -> None:
    # A quarter turn: row 0 runs north.
    points = [
        GroundControlPoint(row=r, col=c, x=11 + r * 1e-4, y=48 + c * 1e-4)
        for r in (0, 50, 100)
        for c in (0, 40, 80)
    ]
    path = write(texture(100, 80), crs=None, transform=Affine.identity(), nodata=nodata)
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, CRS.from_epsg(4326))
    scene = open_scene(path)
    assert scene.crs.to_epsg() == 4326
    assert "control points" in scene.warnings[0]
    assert scene.bounds_lonlat() == pytest.approx((11, 48, 11.01, 48.008), abs=3e-4)
    assert 0.95 < mask(scene).mean() <= 1
    with scene.open() as handle:
        assert not handle.src_dataset.closed
    assert handle.src_dataset.closed
    assert open_scene(path, assume_crs="EPSG:4258").crs.to_epsg() == 4258


def test_control_points_of_a_turned_picture_do_not_blur_it(write, texture) -> None:
    pixels = texture(40, 120)
    points = [
        GroundControlPoint(row=r, col=c, x=500_000 + 2 * r, y=5_000_000 - 2 * (40 - c))
        for r in (0, 60, 120)
        for c in (0, 20, 40)
    ]
    turned = pixels[:, ::-1].transpose(0, 2, 1)  # its rows run east, its columns north
    path = write(turned, crs=None, transform=Affine.identity())
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, CRS.from_epsg(32632))
    scene = open_scene(path)
    assert scene.shape == (40, 120)
    assert (colors(scene) == pixels).all()


def test_rpcs_are_warped_virtually_at_their_mean_height(write, texture) -> None:
    none = [0.0] * 20
    rpc = RPC(
        height_off=50,
        height_scale=100,
        lat_off=48.0,
        lat_scale=0.05,
        long_off=11.0,
        long_scale=0.05,
        line_off=100,
        line_scale=100,
        samp_off=100,
        samp_scale=100,
        line_num_coeff=[0, 0, -1, *none[3:]],
        line_den_coeff=[1, *none[1:]],
        samp_num_coeff=[0, 1, *none[2:]],
        samp_den_coeff=[1, *none[1:]],
        err_bias=0,
        err_rand=0,
    )
    path = write(texture(200, 200), crs=None, transform=Affine.identity())
    with rasterio.open(path, "r+") as dataset:
        dataset.rpcs = rpc
    scene = open_scene(path)
    assert scene.bounds_lonlat() == pytest.approx((10.95, 47.95, 11.05, 48.05), abs=2e-3)
    assert "RPCs" in scene.warnings[0]
    assert "50 m height" in scene.warnings[0]
    assert pickle.loads(pickle.dumps(scene)) == scene


# --- sources


class Opens:
    """Counts the datasets that rasterio opens, by what is opened: "vrt" for XML, else the name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        really = rasterio.open

        def counting(dataset, *args, **options):
            text = str(dataset)
            self.names.append("vrt" if text.startswith("<") else Path(text).name)
            return really(dataset, *args, **options)

        monkeypatch.setattr(rasterio, "open", counting)


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Opens]:
    """Start counting."""
    return lambda: Opens(monkeypatch)


@pytest.mark.parametrize("kind", ["plain", "nodata", "alpha", "mask"])
def test_a_raster_is_opened_once(write, texture, opens, kind) -> None:
    alpha = {"photometric": "rgb", "alpha": "yes"} if kind == "alpha" else {}
    pixels = texture(64, 64, bands=4 if kind == "alpha" else 3)
    path = write(pixels, nodata=0 if kind == "nodata" else None, **alpha)
    if kind == "mask":
        with rasterio.open(path, "r+") as dataset:
            dataset.write_mask(pixels[0] > 99)
    counted = opens()
    open_scene(path)
    assert counted.names == ["scene.tif"]


def test_a_virtual_raster_is_opened_once_over_the_source(write, texture, opens) -> None:
    pixels = texture(64, 64)
    path = write(pixels)
    paletted = write(pixels[:1], "palette.tif")
    with rasterio.open(paletted, "r+") as dataset:
        dataset.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
    counted = opens()
    open_scene(path, nodata=5)
    open_scene(paletted)
    assert counted.names == ["scene.tif", "vrt", "palette.tif", "vrt"]


def test_a_warp_opens_nothing_more(write, texture, opens) -> None:
    points = [
        GroundControlPoint(r, c, 11 + c * 1e-4, 48 - r * 1e-4) for r in (0, 9) for c in (0, 9)
    ]
    path = write(texture(10, 10), crs=None, transform=Affine.identity())
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, CRS.from_epsg(4326))
    counted = opens()
    open_scene(path)
    assert counted.names == ["scene.tif"]


def test_separate_files_are_opened_once_each_and_their_virtual_raster(
    write, texture, opens
) -> None:
    files = [write(texture(9, 9)[i : i + 1], f"{i}.tif") for i in range(3)]
    counted = opens()
    open_scene(files)
    assert counted.names == ["0.tif", "1.tif", "2.tif", "vrt"]
    counted.names.clear()
    open_scene(files[:1], bands=(1, 1, 1))
    assert counted.names == ["0.tif", "vrt"]


def test_a_scene_is_opened_again_in_another_process(write, texture) -> None:
    pixels = texture(20, 20)
    for scene in (open_scene(write(pixels)), open_scene(write(pixels, "b.tif"), nodata=5)):
        again = pickle.loads(pickle.dumps(scene))
        assert again == scene
        assert same_pixels(again, pixels)


def test_bad_files_each_give_one_line(tmp_path: Path, write, texture) -> None:
    text = tmp_path / "notes.tif"
    text.write_text("no raster\n")
    whole = write(texture(64, 64), "whole.tif")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole.read_bytes()[:60])
    for path, words in (
        (tmp_path / "none.tif", "does not exist"),
        (tmp_path, "folder"),
        (text, "cannot be read as a raster"),
        (cut, "cannot be read as a raster"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            open_scene(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_complex_pixels_are_refused(write) -> None:
    with pytest.raises(InputError, match="complex"):
        open_scene(write(np.ones((3, 4, 4), np.complex64)))


def same_pixels(scene: Scene, pixels: np.ndarray) -> bool:
    return bool((colors(scene) == pixels[:3]).all())


def test_bigtiff_vrt_zip_and_cog(write, texture, tmp_path: Path) -> None:
    pixels = texture(600, 700)
    plain = write(pixels, "plain.tif")
    assert same_pixels(open_scene(write(pixels, "big.tif", BIGTIFF="YES")), pixels)
    copy(plain, tmp_path / "scene.vrt", driver="VRT")
    assert same_pixels(open_scene(tmp_path / "scene.vrt"), pixels)
    with zipfile.ZipFile(tmp_path / "scene.zip", "w") as archive:
        archive.write(plain, "in/plain.tif")
    for name in (
        f"/vsizip/{tmp_path}/scene.zip/in/plain.tif",
        f"zip://{tmp_path}/scene.zip!in/plain.tif",
    ):
        assert same_pixels(open_scene(name), pixels)
        assert same_pixels(open_scene(name, nodata=255), pixels)
    copy(plain, tmp_path / "cog.tif", driver="COG", BLOCKSIZE=128)
    cog = open_scene(tmp_path / "cog.tif")
    assert same_pixels(cog, pixels)
    assert cog.overviews[:2] == (2, 4)
    assert cog.opening.block_shape == (128, 128)


def test_http_url(write, texture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = texture(100, 120)
    write(pixels, "a b.tif", nodata=0)
    for name in (
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)

    with serve_folder(tmp_path) as address:
        url = f"{address}/a%20b.tif"
        scene = open_scene(url)
        assert (scene.source, scene.name, scene.mask) == (url, "a%20b", "nodata 0")
        assert same_pixels(scene, pixels)
        assert same_pixels(open_scene(url, nodata=9), pixels)
        with pytest.raises(InputError, match="cannot be read as a raster"):
            open_scene(url.replace("b.tif", "c.tif"))


def test_separate_files_are_one_scene(write, texture) -> None:
    pixels = texture(40, 50)
    # A name that would break XML unless escaped.
    files = [
        write(pixels[i : i + 1], f"b{i} <&'\".tif", nodata=255 if i else None) for i in range(3)
    ]
    scene = open_scene(files)
    assert (scene.bands, scene.bands_reason, scene.source) == (
        (1, 2, 3),
        "separate files",
        ", ".join(map(str, files)),
    )
    assert same_pixels(scene, pixels)
    assert open_scene(files[::-1]).fingerprint() != scene.fingerprint()
    assert same_pixels(open_scene([*files, files[0]], bands=(3, 2, 1)), pixels[::-1])


def test_separate_files_must_match_and_the_difference_is_named(write, texture) -> None:
    base = write(texture(40, 50)[:1], "base.tif")
    others = {
        "size": write(texture(40, 49)[:1], "size.tif"),
        "CRS": write(texture(40, 50)[:1], "crs.tif", crs="EPSG:32633"),
        "transform": write(
            texture(40, 50)[:1], "moved.tif", transform=Affine(2.0, 0, 500_001, 0, -2.0, 5_000_000)
        ),
        "type": write(texture(40, 50, dtype="uint16")[:1], "type.tif"),
        "3 bands": write(texture(40, 50), "rgb.tif"),
    }
    for words, other in others.items():
        with pytest.raises(InputError, match=words) as caught:
            open_scene([base, base, other])
        assert str(other) in str(caught.value)
    with pytest.raises(UsageError, match="three files.*got 2"):
        open_scene([base, base])
    with pytest.raises(InputError, match="none.tif"):
        open_scene([base, base, "none.tif"])


def test_fingerprint_tells_content_and_options_apart_and_is_stable(write, texture) -> None:
    path = write(texture(30, 30))
    first = open_scene(path).fingerprint()
    assert len(first) == 64
    assert open_scene(path).fingerprint() == first
    assert open_scene(path, bands=(3, 2, 1)).fingerprint() != first
    assert open_scene(path, nodata=1).fingerprint() != first
    write(texture(30, 30, seed=1))
    assert open_scene(path).fingerprint() != first


@pytest.mark.parametrize(
    ("part", "counts"),
    [
        ("<Histograms><HistItem/></Histograms>", False),
        ('<Metadata><MDI key="STATISTICS_MEAN">7</MDI></Metadata>', False),
        ('<Metadata><MDI key="STATISTICS_MEAN">7</MDI><MDI key="sensor">x</MDI></Metadata>', True),
        ('<Metadata domain="RPC"><MDI key="STATISTICS_MEAN">7</MDI></Metadata>', True),
        ("<NoDataValue>7</NoDataValue>", True),
        ("<Description>red</Description>", True),
    ],
)
def test_a_sidecar_of_statistics_is_no_part_of_a_raster(
    write, texture, tmp_path, part: str, counts: bool
) -> None:
    """Programs write it when they only display the raster."""
    path = write(texture(30, 30))
    first = open_scene(path).fingerprint()
    sidecar = tmp_path / f"{path.name}.aux.xml"
    band = f'<PAMRasterBand band="1">{part}</PAMRasterBand>'
    sidecar.write_text(f"<PAMDataset>{band}</PAMDataset>")
    scene = open_scene(path)
    assert (str(sidecar) in scene.files) == counts
    assert (scene.fingerprint() != first) == counts


def test_what_a_server_tells_of_a_file_is_in_its_fingerprint() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        tag: ClassVar[str | None] = "one"

        def do_HEAD(self) -> None:
            self.send_response(404 if self.tag is None else 200)
            self.send_header("ETag", f'"{self.tag}"')
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"/vsicurl/http://127.0.0.1:{server.server_port}/a.tif"
        first = fingerprint([url])
        assert fingerprint([url]) == first
        Handler.tag = "two"
        assert fingerprint([url]) != first
        assert fingerprint([url], network=False) not in {first, fingerprint([url])}
        Handler.tag = None  # what cannot be had counts by its name alone
        assert fingerprint([url]) == fingerprint([url], network=False)
        server.shutdown()
