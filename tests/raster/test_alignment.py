"""A scene on the grid and with the colors of another: compared with the original pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from rssc_geo.errors import InputError
from rssc_geo.geometry import Window
from rssc_geo.raster import (
    Scene,
    VeiledRadiometry,
    align_scene,
    fit_radiometry,
    harmonize,
    open_scene,
)
from tests.factories import NORTH_UP, texture, write_raster

SHAPE = (200, 240)
PART = NORTH_UP @ Affine.translation(30, 20)
"""Where the part ``[20:180, 30:200]`` of the scene lies."""


@pytest.fixture
def pixels() -> np.ndarray:
    return texture(*SHAPE)


@pytest.fixture
def old(pixels: np.ndarray, tmp_path: Path) -> Scene:
    return open_scene(write_raster(tmp_path / "old.tif", pixels))


def read(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (bands, rows, cols) and which are valid."""
    with scene.pixel_reader() as reader:
        colors, valid = reader.read(Window(0, 0, *scene.shape), scene.shape)
    return colors.transpose(2, 0, 1), np.ones(scene.shape, bool) if valid is None else valid


def with_hole(part: np.ndarray, value: float) -> np.ndarray:
    holed = part.copy()
    holed[:, 50:90, 50:90] = value
    return holed


def write_masked(path: Path, part: np.ndarray) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write_raster(path, part, transform=PART)
        with rasterio.open(path, "r+") as file:
            file.write_mask(with_hole(part, 0)[0] != 0)
    return path


@pytest.mark.parametrize("kind", ["nodata", "given nodata", "alpha", "mask", "mask and nodata"])
def test_each_pixel_lies_where_it_lay_and_holes_stay_holes(
    kind: str, pixels: np.ndarray, old: Scene, tmp_path: Path
) -> None:
    part, path = pixels[:, 20:180, 30:200], tmp_path / "new.tif"
    given = None
    if kind in ("nodata", "given nodata"):
        tag = 0 if kind == "nodata" else None
        write_raster(path, with_hole(part, 0), transform=PART, nodata=tag)
        given = None if kind == "nodata" else 0
    elif kind == "alpha":
        alpha = np.where(with_hole(part, 0)[:1] == 0, 0, 255).astype(np.uint8)
        write_raster(
            path, np.concatenate([part, alpha]), transform=PART, photometric="rgb", alpha="yes"
        )
    else:
        write_masked(path, part)
        given = 255 if kind == "mask and nodata" else None
    aligned = align_scene(open_scene(path, nodata=given), old)
    assert (aligned.shape, aligned.transform, aligned.crs) == (old.shape, old.transform, old.crs)
    found, valid = read(aligned)
    wanted = np.zeros(SHAPE, bool)
    wanted[20:180, 30:200] = True
    wanted[70:110, 80:120] = False
    assert np.array_equal(valid, wanted)
    assert np.array_equal(found[:, valid], pixels[:, valid])


TURNS = {
    "columns and rows exchanged": (Affine(0, 1, 0, 1, 0, 0), lambda p: p.transpose(0, 2, 1)),
    "by 90 degrees": (Affine(0, 1, 0, -1, 0, SHAPE[0]), lambda p: p[:, ::-1].transpose(0, 2, 1)),
    "by 180 degrees": (Affine(-1, 0, SHAPE[1], 0, -1, SHAPE[0]), lambda p: p[:, ::-1, ::-1]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_raster_that_is_turned_is_not_blurred(
    turn: str, pixels: np.ndarray, old: Scene, tmp_path: Path
) -> None:
    """Also where it is far longer than wide, which GDAL takes for another resolution."""
    place, turned = TURNS[turn]
    path = write_raster(tmp_path / "new.tif", turned(pixels), transform=NORTH_UP @ place)
    found, valid = read(align_scene(open_scene(path), old))
    assert valid.all()
    assert np.array_equal(found, pixels)


def test_numbers_that_are_none_spoil_no_neighbor(
    pixels: np.ndarray, old: Scene, tmp_path: Path
) -> None:
    part = with_hole(pixels[:, 20:180, 30:200].astype(np.float32) * 10, np.nan)
    aligned = align_scene(open_scene(write_raster(tmp_path / "new.tif", part, transform=PART)), old)
    found, valid = read(aligned)
    assert valid.sum() == 160 * 170 - 1600
    assert np.array_equal(found[:, valid], pixels[:, valid] * 10.0)
    scaling = harmonize(aligned, fit_radiometry(aligned), old, fit_radiometry(old))
    assert np.array_equal(scaling.apply(found.transpose(1, 2, 0), valid)[valid], pixels[:, valid].T)


def test_another_crs_and_control_points(pixels: np.ndarray, old: Scene, tmp_path: Path) -> None:
    with (
        rasterio.open(tmp_path / "old.tif") as file,
        WarpedVRT(file, crs="EPSG:3857", add_alpha=True, resampling=Resampling.cubic) as view,
    ):
        moved = write_raster(
            tmp_path / "moved.tif", view.read(), crs="EPSG:3857", transform=view.transform,
            photometric="rgb", alpha="yes",
        )  # fmt: skip
    aligned = align_scene(open_scene(moved), old)
    found, valid = read(aligned)
    inner = (slice(None), slice(5, -5), slice(5, -5))
    assert valid[5:-5, 5:-5].all()
    # Two resamplings blur the noise of ± 15, no more.
    assert np.abs(found[inner].astype(float) - pixels[inner]).mean() < 6
    with aligned.pixel_reader() as reader:  # the same in whichever window it is read
        again, _ = reader.read(Window(37, 41, 50, 60), (50, 60))
    assert np.array_equal(again.transpose(2, 0, 1), found[:, 37:87, 41:101])

    corners = [
        GroundControlPoint(row, col, *(NORTH_UP @ (col, row)))
        for row in (0, 200)
        for col in (0, 240)
    ]
    with rasterio.open(
        tmp_path / "points.tif", "w", driver="GTiff", height=200, width=240, count=3, dtype="uint8",
        gcps=corners, crs="EPSG:32632",
    ) as file:  # fmt: skip
        file.write(pixels)
    found, valid = read(align_scene(open_scene(tmp_path / "points.tif"), old))
    assert valid.all()
    assert np.abs(found.astype(float) - pixels).max() <= 1


def test_a_scene_on_the_same_grid_stays_itself(
    pixels: np.ndarray, old: Scene, tmp_path: Path
) -> None:
    same = open_scene(write_raster(tmp_path / "same.tif", pixels // 2))
    assert align_scene(same, old) is same


def test_other_light_becomes_the_same_light(pixels: np.ndarray, old: Scene, tmp_path: Path) -> None:
    darker = (pixels * np.array([0.5, 0.7, 0.6])[:, None, None] + 40).round().astype(np.uint8)
    darker[:, :50] = texture(50, 240, seed=5) // 2 + 120  # a quarter is other ground
    new = open_scene(write_raster(tmp_path / "new.tif", darker))
    scaling = harmonize(new, fit_radiometry(new), old, fit_radiometry(old))
    found = scaling.apply(darker.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert np.abs(found.astype(float) - pixels)[:, 50:].mean() < 2  # that is, rounding


def under_haze(pixels: np.ndarray) -> np.ndarray:
    """Haze that increases from the upper left to the lower right."""
    share = np.add.outer(np.linspace(0.1, 0.3, SHAPE[0]), np.linspace(0, 0.3, SHAPE[1]))
    return ((1 - share) * pixels + share * 210).round().astype(np.uint8)


def test_a_veil_that_grows_over_the_scene_is_taken_off(
    pixels: np.ndarray, old: Scene, tmp_path: Path
) -> None:
    hazy = under_haze(pixels)
    hazy[:, 60:120, 80:140] = texture(60, 60, seed=5)  # what changed is left as it is, about
    new = open_scene(write_raster(tmp_path / "hazy.tif", hazy))
    scaling = harmonize(new, fit_radiometry(new), old, fit_radiometry(old))
    assert isinstance(scaling, VeiledRadiometry)
    colors = hazy.transpose(1, 2, 0)
    found = scaling.apply(colors).transpose(2, 0, 1).astype(float)
    same = np.ones(SHAPE, bool)
    same[60:120, 80:140] = False
    assert np.abs(found - pixels)[:, same].mean() < 4
    assert np.abs(found - pixels)[:, ~same].mean() > 20
    # The same pixel in whichever window it is seen, and nearly so where it is seen reduced.
    window = Window(37, 41, 50, 60)
    part = scaling.apply(colors[37:87, 41:101], None, window).transpose(2, 0, 1)
    assert np.array_equal(part, found[:, 37:87, 41:101])
    halved = colors[37:87, 41:101].reshape(25, 2, 30, 2, 3).mean((1, 3))
    reduced = scaling.apply(halved, None, window).transpose(2, 0, 1)
    wanted = part.reshape(3, 25, 2, 30, 2).mean((2, 4))
    assert np.abs(reduced - wanted).mean() < 1


def test_a_change_on_one_side_is_no_veil(pixels: np.ndarray, old: Scene, tmp_path: Path) -> None:
    changed = pixels.copy()
    changed[:, :, 160:] = (pixels[:, :, 160:] * 0.3 + 150).round().astype(np.uint8)
    new = open_scene(write_raster(tmp_path / "changed.tif", changed))
    scaling = harmonize(new, fit_radiometry(new), old, fit_radiometry(old))
    found = scaling.apply(changed.transpose(1, 2, 0)).transpose(2, 0, 1).astype(float)
    assert np.abs(found - pixels)[:, :, :160].mean() < 2
    assert np.abs(found - pixels)[:, :, 160:].mean() > 15


def test_dates_of_two_places_are_refused(pixels: np.ndarray, old: Scene, tmp_path: Path) -> None:
    far = write_raster(
        tmp_path / "far.tif", pixels, transform=NORTH_UP @ Affine.translation(9000, 0)
    )
    with pytest.raises(InputError, match=r"far\.tif does not overlap .*old\.tif"):
        align_scene(open_scene(far), old)


@pytest.mark.parametrize("broken", ["old", "new"])
def test_the_scene_that_cannot_be_read_is_named(
    pixels: np.ndarray, tmp_path: Path, broken: str
) -> None:
    scenes = {
        name: open_scene(write_raster(tmp_path / f"{name}.tif", pixels, compress="deflate"))
        for name in ("old", "new")
    }
    scaling = fit_radiometry(scenes["new"])
    path = tmp_path / f"{broken}.tif"
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + b"\xa5" * 8192 + content[middle + 8192 :])
    with pytest.raises(InputError, match=rf"{broken}\.tif cannot be read as a raster"):
        harmonize(scenes["new"], scaling, scenes["old"], scaling)


def test_nothing_valid_in_common_is_told(pixels: np.ndarray, tmp_path: Path) -> None:
    left, right = pixels.copy(), pixels.copy()
    left[:, :, 120:], right[:, :, :120] = 0, 0
    one, two = (
        open_scene(write_raster(tmp_path / f"{name}.tif", half, nodata=0))
        for name, half in (("left", left), ("right", right))
    )
    with pytest.raises(InputError, match="no valid pixel in common"):
        harmonize(two, fit_radiometry(two), one, fit_radiometry(one))


def test_colors_are_matched_between_stripes_of_nodata(pixels: np.ndarray, tmp_path: Path) -> None:
    """As of Landsat 7 without its line corrector: no block of pixels is wholly valid."""
    striped = (pixels * 0.5 + 40).round().astype(np.uint8)
    striped[:, np.arange(striped.shape[1]) % 6 == 0] = 0
    one = open_scene(write_raster(tmp_path / "whole.tif", pixels))
    two = open_scene(write_raster(tmp_path / "striped.tif", striped, nodata=0))
    scaling = harmonize(two, fit_radiometry(two), one, fit_radiometry(one))
    valid = striped[0] > 0
    found = scaling.apply(striped.transpose(1, 2, 0)).transpose(2, 0, 1).astype(float)
    assert np.abs(found - pixels)[:, valid].mean() < 2
