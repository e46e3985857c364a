"""info, tile, models, and what every command shares."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from shapely.geometry import box

import rssc_geo
from tests.factories import texture, write_raster

from .conftest import Rssc, whole_tiles


def test_info_tells_what_classify_does(rssc: Rssc, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", texture(240, 200), photometric="rgb")
    done = rssc("info", scene, "--json")
    assert done.code == 0
    values = json.loads(done.out)
    assert values["size_px"] == [240, 200]
    assert values["crs"] == "EPSG:32632"
    assert values["bands"] == [1, 2, 3]
    assert values["gsd_m"] == pytest.approx([2, 2], rel=1e-3)
    assert values["scaling"]["method"] == "none"
    assert values["cells"] >= 24
    assert values["tile_size_by"]
    classified = json.loads(
        rssc("classify", scene, "-o", tmp_path / "map.gpkg", "--json", "--captioner", "none").out
    )
    assert classified["cells"] == values["cells"]
    assert classified["tiles"] == values["blocks"]
    assert "tiles" not in values
    text = rssc("info", scene)
    assert "tile size px" in text.out
    assert text.code == 0


def test_info_does_not_import_torch(scene: Path) -> None:
    program = (
        f"import sys; from rssc_geo_cli.main import run; code = run(['info', {str(scene)!r}]);"
        " sys.exit(code or 'torch' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=False
        ).returncode
        == 0
    )


def test_chips_are_the_raster_s_own_pixels_in_their_place(rssc: Rssc, tmp_path: Path) -> None:
    pixels = texture(300, 200)
    pixels[:, 100:200, :100] = 0
    raster = write_raster(tmp_path / "scene.tif", pixels, nodata=0, photometric="rgb")
    done = rssc(
        "tile",
        raster,
        "-o",
        tmp_path / "chips",
        *whole_tiles("100px"),
        "--json",
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["chips"] == 5
    index = gpd.read_file(tmp_path / "chips" / "tiles.gpkg")
    assert len(index) == 5
    for row in index.itertuples():
        with rasterio.open(tmp_path / "chips" / row.file) as chip:
            window = np.s_[
                :, row.pixel_row : row.pixel_row + 100, row.pixel_col : row.pixel_col + 100
            ]
            np.testing.assert_array_equal(chip.read(), pixels[window])
            assert chip.crs.to_epsg() == 32632
            assert box(*chip.bounds).equals(row.geometry)
    again = rssc("tile", raster, "-o", tmp_path / "chips", *whole_tiles("100px"))
    assert again.code == 1
    assert "--overwrite" in again.message
    assert (
        rssc(
            "tile",
            raster,
            "-o",
            tmp_path / "chips",
            *whole_tiles("150px"),
            "--format",
            "png",
            "--overwrite",
            "--size",
            75,
        ).code
        == 0
    )
    names = sorted(p.name for p in (tmp_path / "chips").glob("*.png"))
    assert names
    with rasterio.open(tmp_path / "chips" / names[0]) as chip:
        assert (chip.width, chip.transform.a) == (75, 4.0)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("image_format", ["tif", "png"])
@pytest.mark.parametrize("room", [8_192, 65_536])
def test_chips_on_a_full_disk(
    rssc: Rssc, tmp_path: Path, small_disk: Path, image_format: str, room: int
) -> None:
    """There is no room for the chip, or none for the index."""
    raster = write_raster(tmp_path / "scene.tif", texture(64, 64), photometric="rgb")
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(b"x" * (free - room))
    words = (*whole_tiles("64px"), "--format", image_format)
    done = rssc("tile", raster, "-o", small_disk / "chips", *words)
    assert (done.code, "make room there" in done.err) == (1, True)
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_chips_never_replace_a_folder_of_other_things(
    rssc: Rssc, scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"precious")
    done = rssc("tile", scene, "-o", tmp_path / "photos", "--overwrite")
    assert done.code == 1
    assert (tmp_path / "photos" / "holiday.jpg").exists()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--format", "gif"], "--format 'gif' is not one of tif, png"),
        (["--size", "0"], "--size '0' is not a whole number; give 1 or more"),
        (["--tile-size", "x"], "'x'"),
    ],
)
def test_tile_refuses_nonsense(
    rssc: Rssc, scene: Path, tmp_path: Path, extra: list[str], words: str
) -> None:
    done = rssc("tile", scene, "-o", tmp_path / "chips", *extra)
    assert done.code == 2
    assert words in done.message
    assert not (tmp_path / "chips").exists()


def test_models(rssc: Rssc, bundle: Path) -> None:
    assert "compact" in rssc("models", "list").out
    assert json.loads(rssc("models", "list", "--json").out)[0]["classes"] == 41
    card = json.loads(rssc("models", "info", bundle, "--json").out)
    assert card["name"] == "small"
    shown = rssc("models", "info", bundle)
    assert "River, wide" in shown.out
    missing = rssc("models", "info", "nonsense")
    assert missing.code == 1
    assert "compact" in missing.message


def test_a_bundle_folder_classifies_with_its_own_classes(
    rssc: Rssc, scene: Path, bundle: Path, tmp_path: Path
) -> None:
    done = rssc(
        "classify", scene, "-o", tmp_path / "map.gpkg", "--model", bundle, "--probabilities"
    )
    assert done.code == 0, done.err
    scenes = gpd.read_file(tmp_path / "map.gpkg", layer="cells")
    assert set(scenes["class"]) <= {"Field", "River, wide", "Town <b>"}


def test_version_help_and_nothing(rssc: Rssc) -> None:
    assert rssc("--version").out.startswith("rssc-geo 0.")
    for command in ("classify", "info", "tile", "models"):
        assert command in rssc("--help").out
        shown = rssc(command, "--help")
        assert shown.code == 0
        assert "Usage: rssc-geo" in shown.out
    assert rssc().code == 2
    wrong = rssc("clasify")
    assert wrong.code == 2
    assert "clasify" in wrong.message


def test_a_raster_or_three_files(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    assert "--bands-from" in rssc("info").message
    assert rssc("info", scene, "--bands-from", scene, scene, scene).code == 2


def test_the_input_is_never_replaced(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    before = scene.read_bytes()
    done = rssc(
        "classify", scene, "-o", tmp_path / "map.gpkg", "--class-raster", scene, "--overwrite"
    )
    assert done.code == 2
    assert "is the input itself" in done.message
    assert scene.read_bytes() == before


def test_python_api_is_lazy_and_complete() -> None:
    program = (
        "import sys, rssc_geo; sys.exit(any(m in sys.modules for m in ('torch', 'rasterio',"
        " 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    for name in rssc_geo.__all__:
        assert getattr(rssc_geo, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = rssc_geo.nothing


def test_chips_beyond_any_memory_are_one_line(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    done = rssc("tile", scene, "-o", tmp_path / "chips", "--size", "99999999999")
    assert (done.code, "out of memory" in done.message) == (1, True)
    assert not (tmp_path / "chips").exists()
