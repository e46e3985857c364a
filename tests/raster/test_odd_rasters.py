"""Rasters that were read wrongly without a warning: names, masks, values, virtual rasters."""

from __future__ import annotations

import gzip
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT

from rssc_geo.errors import GeoreferenceError, InputError
from rssc_geo.geometry import Window
from rssc_geo.raster import acquired, check_picture, fit_radiometry, open_scene
from tests.factories import colors, mask, write_raster


def hide(path: Path, valid: np.ndarray, *, internal: bool = True) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(valid)
    return path


@pytest.fixture
def left(texture: Callable[..., np.ndarray]) -> np.ndarray:
    """A mask of 64 × 64 pixels whose left half is invalid."""
    valid = np.ones((64, 64), bool)
    valid[:, :32] = False
    return valid


# --- names


def test_what_was_named_is_read_whatever_else_the_file_holds(write, texture, tmp_path) -> None:
    pixels = texture(32, 32)
    turned = write(pixels[::-1].copy(), "bgr.tif", photometric="minisblack")
    two = write(np.full_like(pixels, 7), "two.tif")
    copy(write(pixels, "one.tif"), two, driver="GTiff", APPEND_SUBDATASET="YES")
    copy(turned, tmp_path / "turned.vrt", driver="VRT")
    text = (tmp_path / "turned.vrt").read_text()
    text = text.replace('relativeToVRT="1">bgr.tif', f'relativeToVRT="0">{turned}')
    for name, options in (
        (f"vrt://{turned}?bands=3,2,1", {}),
        (f"GTIFF_DIR:2:{two}", {}),
        (text, {"bands": (3, 2, 1)}),
    ):
        for nodata in (None, 255):
            assert (colors(open_scene(name, nodata=nodata, **options)) == pixels).all()
    first, second = (open_scene(f"GTIFF_DIR:{number}:{two}") for number in (1, 2))
    assert first.fingerprint() != second.fingerprint()


def test_the_date_is_that_of_the_raster_that_was_named(write, texture) -> None:
    pages = [write(texture(8, 8), f"{year}.tif") for year in (2019, 2024)]
    for page, year in zip(pages, (2019, 2024), strict=True):
        with rasterio.open(page, "r+") as raster:
            raster.update_tags(TIFFTAG_DATETIME=f"{year}:07:14 09:30:00")
    copy(pages[1], pages[0], driver="GTiff", APPEND_SUBDATASET="YES")
    named = [f"GTIFF_DIR:{page}:{pages[0]}" for page in (1, 2)]
    dates = [acquired(open_scene(name)) for name in named]
    assert [date.year for date in dates if date is not None] == [2019, 2024]
    bands = [write(texture(8, 8)[:1], f"{name}.tif") for name in "rgb"]
    assert acquired(open_scene(bands)) is None


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
def test_a_date_at_the_end_of_the_calendar_is_none(time, write, texture) -> None:
    path = write(texture(8, 8))
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=time)
    assert acquired(open_scene(path)) is None


def test_parts_of_a_raster_need_no_place_of_their_own(write, texture, tmp_path, recwarn) -> None:
    pixels = texture(8, 8)
    placed = write(pixels)
    copy(write(pixels, "part.tif", transform=None, crs=None), tmp_path / "part.vrt", driver="VRT")
    copy(placed, tmp_path / "whole.vrt", driver="VRT")
    text = (tmp_path / "whole.vrt").read_text().replace(placed.name, "part.vrt")
    (tmp_path / "whole.vrt").write_text(text)
    recwarn.clear()
    scene = open_scene(tmp_path / "whole.vrt")
    assert (colors(scene) == pixels).all()
    assert str(tmp_path / "part.tif") in scene.files
    assert "geotransform" not in "".join(str(found.message) for found in recwarn.list)


def test_separate_variables_of_one_file(write, texture, tmp_path) -> None:
    pixels = texture(32, 32)
    copy(write(pixels), tmp_path / "x.nc", driver="netCDF")
    names = [f"NETCDF:{tmp_path}/x.nc:Band{number}" for number in (1, 2, 3)]
    assert (colors(open_scene(names)) == pixels).all()


def test_a_folder_that_gdal_opens_is_a_raster(write, texture, tmp_path) -> None:
    pixels = texture(32, 32)
    copy(write(pixels), tmp_path / "x.zarr", driver="Zarr")
    scene = open_scene(tmp_path / "x.zarr", assume_crs="EPSG:32632")
    assert (colors(scene) == pixels).all()
    assert (
        colors(open_scene(tmp_path / "x.zarr", nodata=255, assume_crs="EPSG:32632")) == pixels
    ).all()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_what_lies_beside_a_raster_counts_in_an_archive(write, texture, left, tmp_path, kind):
    path = hide(write(texture(64, 64), "a.tif"), left, internal=False)
    archive = tmp_path / f"a.{kind}"
    bare = write(texture(64, 64), "bare.tif", transform=None)
    (tmp_path / "bare.tfw").write_text("2\n0\n0\n-2\n500001\n4999999\n")
    names = [path.name, f"{path.name}.msk", bare.name, "bare.tfw"]
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name in names:
                packed.write(tmp_path / name, name)
    else:
        with tarfile.open(archive, "w") as packed:
            for name in names:
                packed.add(tmp_path / name, name)
    scene = open_scene(f"/vsi{kind}/{archive}/a.tif")
    assert scene.mask == "sidecar mask"
    assert (mask(scene) == left).all()
    assert open_scene(f"/vsi{kind}/{archive}/bare.tif").transform.c == 500_000


def envi(folder: Path, pixels: np.ndarray) -> list[Path]:
    """A raw raster and its header, which alone says what the raster is and where."""
    copy(
        write_raster(folder / "x.tif", pixels, photometric="rgb"),
        folder / "e.bin",
        driver="ENVI",
        SUFFIX="ADD",
    )
    return [folder / "e.bin", folder / "e.bin.hdr"]


def packed(kind: str, archive: Path, files: list[Path]) -> list[str]:
    """Put files into archives; the names that GDAL has for them there."""
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as content:
            for path in files:
                content.write(path, path.name)
    elif kind in ("tar", "tgz"):
        with tarfile.open(archive, "w:gz" if kind == "tgz" else "w") as content:
            for path in files:
                content.add(path, path.name)
    else:  # one file each; GDAL looks for what is named after the packed one, and packed itself
        start = files[0].name
        names = [path.with_name(f"{start}.gz{path.name.removeprefix(start)}") for path in files]
        for path, name in zip(files, names, strict=True):
            name.write_bytes(gzip.compress(path.read_bytes()))
        return [f"/vsigzip/{name}" for name in names]
    return [f"/vsi{kind.replace('tgz', 'tar')}/{archive}/{path.name}" for path in files]


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "gzip"])
def test_a_header_counts_in_an_archive(texture, tmp_path, kind) -> None:
    pixels = texture(40, 50)
    (tmp_path / "in").mkdir()
    files = envi(tmp_path / "in", pixels)
    name = packed(kind, tmp_path / f"a.{kind}", files)[0]
    for path in files:
        path.unlink()
    scene = open_scene(name, bands=(1, 2, 3))
    assert (colors(scene) == pixels).all()
    assert scene.crs.to_epsg() == 32632
    assert scene.transform.c == 500_000


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "gzip"])
def test_an_archive_alone_is_told_how_to_name_what_is_in_it(write, texture, tmp_path, kind) -> None:
    files = [write(texture(8, 8), f"{name}.tif") for name in "ab"]
    name = packed(kind, tmp_path / f"x.{kind}", files)[0]
    archive = name.removeprefix(f"/vsi{kind.replace('tgz', 'tar')}/").removesuffix("/a.tif")
    with pytest.raises(InputError, match="A raster in an archive is named /vsi") as told:
        open_scene(archive)
    named = str(told.value).rpartition(" ")[2].replace("NAME.tif", "a.tif")
    assert open_scene(named).shape == (8, 8)


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "gzip"])
def test_auxiliary_metadata_count_in_an_archive(texture, tmp_path, kind) -> None:
    """The nodata value of a PNG, and its place, stand in its .aux.xml."""
    pixels = texture(40, 50)
    pixels[:, :10] = 7
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.png"
    copy(write_raster(path.with_suffix(".tif"), pixels, nodata=7), path, driver="PNG")
    sidecar = path.with_name("a.png.aux.xml")
    assert sidecar.exists()
    name = packed(kind, tmp_path / f"a.{kind}", [path, sidecar])[0]
    path.unlink()
    sidecar.unlink()
    scene = open_scene(name)
    assert scene.crs.to_epsg() == 32632
    assert scene.transform.c == 500_000
    assert (mask(scene) == (pixels != 7).any(axis=0)).all()


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("beside", ["a.tif.msk", "a.tif.aux.xml", "a.hdr", "a.tif.hdr"])
def test_what_would_not_count_beside_a_packed_file_is_told(
    write, texture, left, tmp_path, beside, pack
) -> None:
    path = hide(write(texture(64, 64), "a.tif"), left, internal=False)
    packed = tmp_path / "a.tif.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    mask_file = (tmp_path / "a.tif.msk").read_bytes()
    path.unlink()
    (tmp_path / "a.tif.msk").unlink()
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><Metadata/></PAMDataset>")  # no matter
    (tmp_path / "a.hdr").write_text("another program's notes")
    assert mask(open_scene(f"/vsigzip/{packed}")).all()
    content = {
        "a.tif.msk": mask_file,
        "a.tif.aux.xml": b"<PAMDataset><SRS>EPSG:32633</SRS></PAMDataset>",
    }.get(beside, b"ENVI\nsamples = 64")
    name = f"{beside}.gz" if pack else beside
    (tmp_path / name).write_bytes(gzip.compress(content) if pack else content)
    for given in (f"/vsigzip/{packed}", f"gzip://{packed}"):
        with pytest.raises(InputError, match=f"{name} lies beside .*gunzip -k") as caught:
            open_scene(given)
        assert "\n" not in str(caught.value)


def test_a_world_file_counts_beside_a_packed_file(write, texture, tmp_path) -> None:
    bare = write(texture(64, 64), "bare.tif", transform=None)
    (tmp_path / "bare.tif.gz").write_bytes(gzip.compress(bare.read_bytes()))
    world = b"2\n0\n0\n-2\n500001\n4999999\n"
    (tmp_path / "bare.tif.wld").write_bytes(gzip.compress(world))
    assert open_scene(f"/vsigzip/{tmp_path}/bare.tif.gz").transform.c == 500_000


# --- masks and nodata


def test_masks_of_a_palette_add_up(write, left) -> None:
    index = np.random.default_rng(0).integers(6, 16, (1, 64, 64), dtype=np.uint8)
    index[:, :32] = 5
    path = write(index, photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i * 16, 0, 0, 255) for i in range(16)})
    hide(path, left)
    assert (mask(open_scene(path)) == left).all()
    assert (mask(open_scene(path, nodata=5)) == (left & (index[0] != 5))).all()


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int16", "uint32", "float32", "float64"])
def test_a_nodata_value_counts_beside_a_mask_with_any_type(write, texture, left, dtype) -> None:
    pixels = (texture(64, 64) // 2).astype(dtype)
    pixels[:, 40:44] = 9
    path = hide(write(pixels), left)
    assert (mask(open_scene(path)) == left).all()
    assert (mask(open_scene(path, nodata=9)) == (left & (pixels != 9).any(0))).all()


@pytest.mark.parametrize("kind", ["alpha", "mask", "sidecar", "alpha and mask", "palette", "files"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_tagged_nodata_value_counts_beside_alpha_and_masks(
    write, texture, left, dtype: str, kind: str
) -> None:
    """GDAL lets one of them decide. By one band alone no pixel is invalid."""
    pixels = (texture(64, 64) // 2 + 10).astype(dtype)
    pixels[:, 40:50] = 9
    pixels[0, 50:60] = 9
    valid = (pixels != 9).any(axis=0)
    if "alpha" in kind:
        alpha = np.full((1, 64, 64), 100, dtype)
        alpha[:, :16] = 0
        valid &= alpha[0] > 0
        path = write(np.concatenate([pixels, alpha]), nodata=9, photometric="rgb", alpha="yes")
    elif kind == "palette":
        if dtype == "float32":
            pytest.skip("no palette")
        path = write(pixels[1:2], nodata=9, photometric="palette")
        with rasterio.open(path, "r+") as dataset:
            dataset.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
        valid = pixels[1] != 9
    elif kind == "files":
        path = [write(pixels[i : i + 1], f"b{i}.tif", nodata=9) for i in range(3)]
    else:
        path = write(pixels, nodata=9)
    if kind != "alpha":
        hide(path[0] if kind == "files" else path, left, internal=kind != "sidecar")
        valid &= left
    scene = open_scene(path)
    assert (mask(scene) == valid).all()
    assert ("palette index 9" if kind == "palette" else "nodata 9") in scene.mask
    with scene.pixel_reader() as reader:
        _, reduced = reader.read(Window(0, 0, 64, 64), (32, 32))
    blocks = valid.reshape(32, 2, 32, 2)
    assert reduced[blocks.all(axis=(1, 3))].all()
    assert not reduced[20:25].any()


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "float32"])
def test_a_mask_counts_beside_an_alpha_band(
    write, texture, left, tmp_path, dtype: str, internal: bool
) -> None:
    """GDAL passes over the alpha band then; overviews and a nodata value as well."""
    pixels = (texture(64, 64) // 2).astype(dtype)
    alpha = np.full((1, 64, 64), 100, dtype)
    alpha[:, :16] = 0
    path = write(np.concatenate([pixels, alpha]), photometric="rgb", alpha="yes")
    hide(path, left, internal=internal)
    valid = left & (alpha[0] > 0)
    scene = open_scene(path)
    assert (mask(scene) == valid).all()
    assert (colors(scene) == pixels).all()
    assert scene.mask.startswith(f"alpha band and {'internal' if internal else 'sidecar'} mask")
    with scene.pixel_reader() as reader:
        _, reduced = reader.read(Window(0, 0, 64, 64), (16, 16))
        assert (reduced == valid[::4, ::4]).all()
    value = int(pixels[0, 40, 40])
    pixels[:, 40:44, 40:44] = value
    with rasterio.open(path, "r+") as dataset:
        dataset.write(pixels, (1, 2, 3))
    valid[40:44, 40:44] = False
    found = mask(open_scene(path, nodata=value))
    assert (found == (valid & ~(pixels == value).all(0))).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_masks_of_separate_files_add_up_and_nodata_beside_them(write, texture, left, dtype) -> None:
    pixels = texture(64, 64).astype(dtype)
    pixels[:, 40:50] = 9
    files = [write(pixels[i : i + 1], f"b{i}.tif") for i in range(3)]
    hide(files[1], left)
    hide(files[2], left.T)
    assert (mask(open_scene(files)) == (left & left.T)).all()
    scene = open_scene(files, nodata=9)
    assert "mask" in scene.mask
    assert "nodata 9" in scene.mask
    assert (mask(scene) == (left & left.T & (pixels != 9).any(axis=0))).all()


def test_separate_files_of_control_points_are_refused(write, texture) -> None:
    points = [GroundControlPoint(r, c, 11 + c, 48 - r) for r in (0, 9) for c in (0, 9)]
    files = []
    for i in range(3):
        files.append(write(texture(9, 9)[:1], f"{i}.tif", crs=None, transform=Affine.identity()))
        with rasterio.open(files[-1], "r+") as dataset:
            dataset.gcps = (points, CRS.from_epsg(4326))
    for crs in (None, "EPSG:4326"):
        with pytest.raises(GeoreferenceError, match=r"control points.*gdalwarp"):
            open_scene(files, assume_crs=crs)


@pytest.mark.parametrize("nodata", [-3.4028235e38, float(np.finfo(np.float32).min)])
def test_the_lowest_float32_as_its_digits_print_it(write, texture, left, nodata) -> None:
    pixels = texture(64, 64).astype(np.float32)
    pixels[:, ~left] = np.finfo(np.float32).min
    scene = open_scene(write(pixels), nodata=nodata)
    assert (mask(scene) == left).all()
    assert min(fit_radiometry(scene).low) >= 0


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint64", 2**64 - 1),
        ("uint64", 2**53 + 1),
        ("int64", 2**63 - 1),
        ("int64", -(2**63)),
        ("int64", -9999),
    ],
)
def test_nodata_of_whole_numbers_that_no_float_holds(
    write, texture, left, tmp_path, dtype, nodata
) -> None:
    pixels = texture(64, 64).astype(dtype)
    pixels[:, ~left] = nodata
    copy(write(pixels, "plain.tif"), tmp_path / "a.vrt", driver="VRT")
    text = (tmp_path / "a.vrt").read_text()
    tag = f"\\1<NoDataValue>{nodata}</NoDataValue>"
    (tmp_path / "a.vrt").write_text(re.sub("(<VRTRasterBand [^>]*>)", tag, text))
    copy(tmp_path / "a.vrt", tmp_path / "a.tif", driver="GTiff")
    copy(tmp_path / "a.tif", tmp_path / "one.vrt", driver="VRT")
    floats = [] if nodata == 2**53 + 1 else [float(nodata)]
    bands = [f"vrt://{tmp_path}/a.tif?bands={band}" for band in (1, 2, 3)]
    given = [("plain.tif", {"nodata": value}) for value in (nodata, *floats)]
    points = [GroundControlPoint(row, col, col, -row) for row in (0, 64) for col in (0, 64)]
    with rasterio.open(
        tmp_path / "points.tif", "w", driver="GTiff", width=64, height=64, count=3, dtype=dtype
    ) as file:
        file.write(pixels)
        file.gcps = points, rasterio.CRS.from_epsg(32633)
    given.append(("points.tif", {"nodata": nodata}))
    for source, options in [("a.tif", {}), ("one.vrt", {}), *given, (bands, {})]:
        place = tmp_path / source if isinstance(source, str) else source
        scene = open_scene(place, **options)
        assert (mask(scene) == left).all()
        with scene.pixel_reader() as reader:
            _, valid = reader.read(Window(0, 0, 64, 64), (32, 32))
        assert (valid == left[::2, ::2]).all()
        assert fit_radiometry(scene).high[0] <= 255


def test_a_nodata_tag_that_no_pixel_can_have_hides_nothing_and_is_told(write, texture) -> None:
    pixels = texture(16, 16)
    pixels[:, :4] = 0
    files = [write(pixels[i : i + 1], f"b{i}.tif") for i in range(3)]
    vrt = files[0].with_suffix(".vrt")
    copy(files[0], vrt, driver="VRT")
    text = vrt.read_text()
    if "<NoDataValue>" not in text:
        text = text.replace("<ColorInterp>", "<NoDataValue>-9999</NoDataValue><ColorInterp>")
    vrt.write_text(text)
    scene = open_scene([vrt, *files[1:]])
    assert mask(scene).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fill", [3.4028235e38, -3.4028235e38, 9.96921e36, 1e20])
def test_fill_values_without_a_tag_are_nodata_and_told(write, texture, left, dtype, fill) -> None:
    """The default of ArcGIS, R, netCDF and others; the stretch made everything else black."""
    pixels = texture(64, 64).astype(dtype)
    pixels[:, ~left] = fill
    path = write(pixels)
    plain = fit_radiometry(open_scene(write(texture(64, 64)[:, :, 32:].astype(dtype), "b.tif")))
    for nodata in (None, fill):
        scene = open_scene(path, nodata=nodata)
        assert (mask(scene) == left).all()
        fitted = fit_radiometry(scene, sample=check_picture(scene).sample)
        assert fitted.high == pytest.approx(plain.high)
        assert fitted.low == pytest.approx(plain.low)
        told = check_picture(scene).warnings
        assert bool(told) == (nodata is None)
        assert nodata is not None or "they count as nodata; --nodata" in told[0]
    with scene.pixel_reader() as reader:
        colors_there, valid = reader.read(Window(0, 16, 64, 48), (32, 24))
    assert (valid == left[::2, 16::2]).all()
    assert colors_there[valid].max() <= 255


# --- values and bands


def test_a_stretch_is_of_the_values_that_other_programs_show(write, texture) -> None:
    shown = texture(32, 32) / 255 * 0.3
    path = write(((shown + 0.2) / 2.75e-5).astype(np.uint16))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (2.75e-5,) * 3, (-0.2,) * 3
    for nodata in (None, 1):
        radiometry = fit_radiometry(open_scene(path, nodata=nodata), stretch="0,0.3")
        assert radiometry.low == pytest.approx([0.2 / 2.75e-5] * 3)
        assert radiometry.high == pytest.approx([0.5 / 2.75e-5] * 3)


def test_bytes_of_fewer_bits_are_widened(write, texture) -> None:
    scene = open_scene(write(texture(32, 32) // 16, NBITS=4))
    assert fit_radiometry(scene).high == (15.0,) * 3


@pytest.mark.parametrize(
    ("descriptions", "bands"),
    [
        (["Near Infra-Red", "Red", "Green", "Blue"], (2, 3, 4)),
        (["coastal_blue", "blue", "green", "red"], (4, 3, 2)),
        (["red-edge", "blue", "green_i", "green", "red"], (5, 4, 2)),
    ],
)
def test_colors_are_named_by_exact_words(write, texture, descriptions, bands) -> None:
    path = write(texture(8, 8, bands=len(descriptions)), photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = descriptions
    assert open_scene(path).bands == bands


# --- pictures without content


def test_categories_black_pictures_and_collars_are_told(write, texture) -> None:
    path = write(texture(64, 64)[:1] // 32)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (i * 30, 255 - i * 30, 0, 255) for i in range(8)})
    assert "categories" in check_picture(open_scene(path)).warnings[0]
    black = check_picture(open_scene(write(texture(64, 64) // 120, "black.tif"))).warnings
    assert "--stretch" in black[0]
    pixels = texture(64, 64)
    pixels[:, :20, :20] = 0
    collared = write(pixels, "collar.tif")
    assert "--nodata 0" in check_picture(open_scene(collared)).warnings[0]
    assert check_picture(open_scene(collared, nodata=0)).warnings == ()
    assert check_picture(open_scene(write(texture(64, 64), "fine.tif"))).warnings == ()


@pytest.mark.parametrize("angle", [20, 2])
def test_what_a_warp_adds_around_a_picture_is_told(write, texture, tmp_path, angle) -> None:
    turned = Affine(2, 0, 500_000, 0, -2, 5_000_000) @ Affine.rotation(angle)
    source = write(texture(300, 300), transform=turned)
    for alpha in (False, True):
        path = tmp_path / f"warped{alpha}.vrt"
        with (
            rasterio.open(source) as dataset,
            WarpedVRT(dataset, crs="EPSG:32632", add_alpha=alpha) as warped,
        ):
            copy(warped, path, driver="VRT")
        named = 'relativeToVRT="0">' + str(source)
        text = path.read_text().replace('relativeToVRT="1">' + source.name, named)
        copy(path, tmp_path / f"warped{alpha}.tif", driver="GTiff")
        names = (path, text, f"vrt://{path}?bands=1,2,3{',4' if alpha else ''}")
        for name in (*names, tmp_path / f"warped{alpha}.tif"):
            told = check_picture(open_scene(name)).warnings
            assert bool(told) != alpha
            assert (
                alpha or "--nodata 0 leaves it out, or warp it with gdalwarp -dstalpha" in told[0]
            )


# --- virtual rasters of others

RAW = """<VRTDataset rasterXSize="4" rasterYSize="4"><SRS>EPSG:32632</SRS>
<GeoTransform>500000, 2, 0, 5000000, 0, -2</GeoTransform>{bands}</VRTDataset>"""
BAND = """<VRTRasterBand dataType="Byte" band="{n}" subClass="VRTRawRasterBand">
<SourceFilename relativeToVRT="{relative}">{path}</SourceFilename><ImageOffset>0</ImageOffset>
<PixelOffset>1</PixelOffset><LineOffset>4</LineOffset></VRTRasterBand>"""
NESTED = """<VRTRasterBand dataType="Byte" band="{n}"><SimpleSource>
<SourceFilename relativeToVRT="{relative}">{path}</SourceFilename><SourceBand>{n}</SourceBand>
</SimpleSource></VRTRasterBand>"""
PYTHON = """<VRTRasterBand dataType="Byte" band="{n}" subClass="VRTDerivedRasterBand">
<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>
<PixelFunctionCode><![CDATA[def f(*a): open({path!r}, "w")]]></PixelFunctionCode>
</VRTRasterBand>"""


def virtual(band: str, path: object, relative: int = 0) -> str:
    bands = "".join(band.format(n=n, path=path, relative=relative) for n in (1, 2, 3))
    return RAW.format(bands=bands)


def test_a_vrt_shows_no_bytes_of_other_files_and_runs_no_python(
    tmp_path, write, texture, monkeypatch
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a very secret text\n")
    raw = tmp_path / "raw.tif"  # the name says nothing
    raw.write_text(virtual(BAND, secret))
    inner = tmp_path / "inner.vrt"
    inner.write_text(virtual(NESTED, "raw.tif", 1))
    outer = tmp_path / "outer.vrt"
    outer.write_text(virtual(NESTED, inner))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(raw, "raw.vrt")
    packed = tmp_path / "packed.vrt"
    packed.write_text(virtual(NESTED, f"/vsizip/{tmp_path}/z.zip/raw.vrt"))
    for name in (
        raw,
        inner,
        outer,
        packed,
        raw.read_text(),
        f"vrt://{raw}?bands=3,2,1",
        f"/vsizip/{tmp_path}/z.zip/raw.vrt",
    ):
        for nodata in (None, 1):
            with pytest.raises(InputError, match="VRTRawRasterBand") as caught:
                open_scene(name, nodata=nodata)
            assert "gdal_translate" in str(caught.value)
    monkeypatch.chdir(tmp_path)  # where GDAL looks for the relative names of a VRT as text
    with pytest.raises(InputError, match="VRTRawRasterBand"):
        open_scene(virtual(NESTED, "raw.tif", 1))
    python = tmp_path / "python.vrt"
    python.write_text(virtual(PYTHON, str(tmp_path / "made")))
    with pytest.raises(InputError, match="Python"):
        open_scene(python)
    assert not (tmp_path / "made").exists()
    honest = tmp_path / "honest.vrt"
    copy(write(texture(8, 8)), honest, driver="VRT")
    assert open_scene(honest).shape == (8, 8)


def tile_index(path: Path, tiles: list[str]) -> Path:
    """An index of tiles of 8 px beside each other, as gdaltindex writes it."""
    boxes = [shapely.box(16 * n, 0, 16 * n + 16, 16) for n in range(len(tiles))]
    places = [shapely.affinity.translate(box, 500_000, 4_999_984) for box in boxes]
    gpd.GeoDataFrame({"location": tiles}, geometry=places, crs="EPSG:32632").to_file(path)
    return path


def test_tiles_of_an_index_are_followed_and_must_be_there(
    tmp_path, write, texture, monkeypatch
) -> None:
    pixels = texture(8, 8)
    first = write(pixels, "first.tif")
    secret = tmp_path / "secret.txt"
    secret.write_text(
        "a very secret text, so long that it fills more than a whole tile of it all\n"
    )
    (tmp_path / "raw.vrt").write_text(virtual(BAND, secret))
    copy(first, tmp_path / "honest.vrt", driver="VRT")
    honest = tile_index(tmp_path / "honest.gti.gpkg", ["first.tif", "honest.vrt"])
    scene = open_scene(honest)
    assert scene.shape == (8, 16)
    assert {Path(name).name for name in scene.files} == {
        "honest.gti.gpkg",
        "first.tif",
        "honest.vrt",
    }
    before = scene.fingerprint()
    write(pixels[:, ::-1], "first.tif")
    assert open_scene(honest).fingerprint() != before

    raw = tile_index(tmp_path / "raw.gti.gpkg", ["first.tif", "raw.vrt"])
    described = tmp_path / "described.gti"
    described.write_text(
        "<GDALTileIndexDataset><IndexDataset>raw.gti.gpkg</IndexDataset>"
        "<LocationField>location</LocationField></GDALTileIndexDataset>"
    )
    outer = tmp_path / "outer.vrt"
    outer.write_text(virtual(NESTED, raw))
    monkeypatch.chdir(tmp_path)  # where GDAL looks for the tiles of "GTI:…"
    for name in (raw, f"GTI:{raw.name}", described, outer):
        with pytest.raises(InputError, match="VRTRawRasterBand"):
            open_scene(name)
    gone = tile_index(tmp_path / "gone.gti.gpkg", ["first.tif", "second.tif"])
    with pytest.raises(InputError, match=r"'second.tif' in it is not there: make the index again"):
        open_scene(gone)


MRF = """<MRF_META><Raster><Size x="4" y="4" c="1"/><PageSize x="4" y="4" c="1"/>
<Compression>NONE</Compression><DataType>Byte</DataType><DataFile>{path}</DataFile></Raster>
<GeoTags><BoundingBox minx="0" miny="0" maxx="8" maxy="8"/></GeoTags></MRF_META>"""


def test_a_header_shows_no_bytes_of_files_elsewhere(tmp_path, write, texture) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("a very secret text\n")
    (tmp_path / "tile.mrf").write_text(MRF.format(path=secret))
    (tmp_path / "tile.vrt").write_text(virtual(NESTED, "tile.mrf", 1).replace("{n}", "1"))
    for name in ("tile.mrf", "tile.vrt"):
        with pytest.raises(
            InputError, match=r"\(MRF\) that takes its pixels from a file elsewhere"
        ):
            open_scene(tmp_path / name, bands=(1, 1, 1))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "tile.mrf", "tile.mrf")
        archive.write(tmp_path / "tile.vrt", "tile.vrt")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "tile.mrf", "tile.mrf")
    text = escape(MRF.format(path=secret))
    inline = virtual(NESTED, text).replace("{n}", "1")
    for name in (
        f"/vsizip/{tmp_path}/a.zip/tile.mrf",
        f"/vsizip/{tmp_path}/a.zip/tile.vrt",
        f"zip://{tmp_path}/a.zip!tile.mrf",
        f"/vsitar/{tmp_path}/a.tar/tile.mrf",
        inline,
    ):
        with pytest.raises(InputError, match=r"header \(MRF\) in an archive, on the network"):
            open_scene(name, bands=(1, 1, 1))
    copy(write(texture(8, 8)), tmp_path / "own.mrf", driver="MRF")
    assert open_scene(tmp_path / "own.mrf", assume_crs="EPSG:32632").shape == (8, 8)


# --- places


def placed_by(points: str = "", rpcs: str = "", place: str = "") -> str:
    """A VRT of no pixels that lies where the text says."""
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{n}"/>' for n in (1, 2, 3))
    return (
        f'<VRTDataset rasterXSize="64" rasterYSize="64">{place}{points}{rpcs}{bands}</VRTDataset>'
    )


@pytest.mark.parametrize(
    "corners",
    [
        pytest.param([(0, 0, 10, 50)], id="one"),
        pytest.param([(0, 0, 10, 50)] * 4, id="one place"),
        pytest.param([(n, 0, 10 + n, 50) for n in range(4)], id="a line"),
        pytest.param([(0, 0, "nan", "nan"), (64, 0, 11, 50), (0, 64, 10, 49)], id="no number"),
        pytest.param([(0, 0, 1e300, 1e300), (64, 0, 11, 50), (0, 64, 10, 49)], id="far away"),
    ],
)
def test_control_points_that_give_no_place_are_one_line(corners, tmp_path) -> None:
    points = "".join(
        f'<GCP Id="{n}" Pixel="{col}" Line="{row}" X="{x}" Y="{y}"/>'
        for n, (col, row, x, y) in enumerate(corners)
    )
    path = tmp_path / "points.vrt"
    path.write_text(placed_by(f'<GCPList Projection="EPSG:4326">{points}</GCPList>'))
    with pytest.raises(
        GeoreferenceError, match=r"points\.vrt: its (control points give it|center .* lies outside)"
    ):
        open_scene(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"LAT_OFF": "nan"}, "give it no place"),
        ({"LAT_SCALE": "0", "LONG_SCALE": "0"}, "give it no place"),
        ({"LINE_NUM_COEFF": "1 2"}, "give it no place"),
        ({"LAT_OFF": "x"}, "cannot be read"),
        ({"HEIGHT_OFF": ""}, "cannot be read"),
        ({"LAT_OFF": None}, "cannot be read"),
    ],
)
def test_rpcs_that_give_no_place_are_one_line(change, words, tmp_path) -> None:
    offsets = {"LINE_OFF": 32, "SAMP_OFF": 32, "LAT_OFF": 50, "LONG_OFF": 10, "HEIGHT_OFF": 100}
    scales = {f"{key.removesuffix('OFF')}SCALE": 0.01 for key in offsets}
    factors = {
        "LINE_NUM_COEFF": "0 0 -1" + " 0" * 17,
        "LINE_DEN_COEFF": "1" + " 0" * 19,
        "SAMP_NUM_COEFF": "0 1" + " 0" * 18,
        "SAMP_DEN_COEFF": "1" + " 0" * 19,
    }
    told = {**offsets, **scales, "LINE_SCALE": 32, "SAMP_SCALE": 32, **factors, **change}
    items = "".join(f'<MDI key="{k}">{v}</MDI>' for k, v in told.items() if v is not None)
    path = tmp_path / "rpcs.vrt"
    path.write_text(placed_by(rpcs=f'<Metadata domain="RPC">{items}</Metadata>'))
    with pytest.raises(GeoreferenceError, match=rf"rpcs\.vrt: its RPCs {words}"):
        open_scene(path)


def test_a_crs_that_needs_a_missing_grid_is_one_line(tmp_path) -> None:
    place = (
        "<SRS>+proj=longlat +ellps=clrk66 +nadgrids=missing.gsb</SRS>"
        "<GeoTransform>10, 0.001, 0, 50, 0, -0.001</GeoTransform>"
    )
    path = tmp_path / "grid.vrt"
    path.write_text(placed_by(place=place))
    with pytest.raises(InputError, match=r"grid\.vrt"):
        open_scene(path)


@pytest.mark.parametrize(
    "place", [Affine(1, 1, 500_000, 1, 1, 5e6), Affine(1, 0.9999, 500_000, 0.9999, 1, 5e6)]
)
def test_rows_and_columns_in_one_direction_are_no_place(write, texture, place) -> None:
    with pytest.raises(GeoreferenceError, match="run in one direction"):
        open_scene(write(texture(16, 16), transform=place))
    assert open_scene(write(texture(16, 16), transform=Affine(1, 0.9, 500_000, 0.9, 1, 5e6))).crs
