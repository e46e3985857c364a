"""A second ``rssc-geo batch run`` on the results of the first, and its tables."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from rssc_geo.batch import NAME, read_status
from tests.factories import NORTH_UP, texture, write_raster

from .conftest import Rssc, whole_tiles


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with scenes of 4 × 4 cells of 64 px in ``in``."""
    folder = tmp_path / "home"
    (folder / "in").mkdir(parents=True)
    for seed, name in enumerate("ab"):
        write_raster(folder / "in" / f"{name}.tif", texture(256, 256, seed), photometric="rgb")
    monkeypatch.chdir(folder)
    return folder


def command(bundle: Path, inputs: str, maps: str, previews: str) -> tuple[object, ...]:
    return (
        "batch",
        "run",
        inputs,
        "-o",
        maps,
        "--preview",
        f"{previews}/{{id}}.png",
        *whole_tiles("64px"),
        "--model",
        bundle,
    )


def test_neither_another_working_folder_nor_a_move_makes_anything_anew(
    rssc: Rssc, home: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rssc(*command(bundle, "in", "maps", "pictures")).code == 0
    monkeypatch.chdir(tmp_path)
    assert "(2 before)" in rssc(*command(bundle, "home/in", "home/maps", "home/pictures")).out
    home.rename(tmp_path / "moved")
    done = rssc(*command(bundle, "moved/in", "moved/maps", "moved/pictures"))
    assert "(2 before)" in done.out
    assert "a second" not in done.out  # nothing was classified, so there is no rate
    (tmp_path / "moved" / "pictures" / "b.png").unlink()
    assert "(1 before)" in rssc(*command(bundle, "moved/in", "moved/maps", "moved/pictures")).out
    assert (tmp_path / "moved" / "pictures" / "b.png").exists()


def test_a_dry_run_counts_only_what_is_left(rssc: Rssc, home: Path, bundle: Path) -> None:
    words = command(bundle, "in", "maps", "pictures")
    (home / "in" / "c.tif").write_bytes(b"no raster")
    assert rssc(*words).code == 4
    write_raster(home / "in" / "d.tif", texture(128, 256), photometric="rgb")
    before = (home / "maps" / NAME).read_bytes()
    done = rssc(*words, "--dry-run")
    assert done.code == 5
    assert "1 scenes to do (2 are done), 8 cells" in done.out
    assert "c.tif" in done.err
    assert "(failed before: --retry-failed tries again)" in done.err
    plan = json.loads(rssc(*words, "--dry-run", "--retry-failed", "--json").out)
    assert [entry["state"] for entry in plan["plan"]] == ["done", "done", "failed", "waiting"]
    assert "failed before" not in plan["failed"][0]["error"]
    assert (home / "maps" / NAME).read_bytes() == before


def test_a_night_with_a_new_failure_among_known_ones(rssc: Rssc, home: Path, bundle: Path) -> None:
    """4: some have not failed before; 5: all have; what has nothing to classify is no failure."""
    words = command(bundle, "in", "maps", "pictures")
    scenes = home / "in"
    write_raster(scenes / "c.tif", texture(64, 64)[:1])
    write_raster(scenes / "sea.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    first = rssc(*words, "gone*.tif")
    assert first.code == 4
    assert "2 of the inputs failed, 2 of them for the first time" in first.err
    assert "1 with nothing to classify" in first.out
    assert first.err.count("c.tif") == 1  # told once
    assert "1 empty" in rssc("batch", "status", "maps").out
    again = rssc(*words, "gone*.tif")
    assert again.code == 5
    assert "2 of the inputs failed, 0 of them for the first time" in again.err
    assert rssc(*words, "gone*.tif", "--fail-on", "new").code == 0
    assert rssc(*words, "--retry-failed").code == 5  # tried again, and failed again
    write_raster(scenes / "d.tif", texture(64, 64)[:2])
    assert rssc(*words, "--dry-run", "--fail-on", "new").code == 4
    values = json.loads(rssc(*words, "--json", "--fail-on", "none").out)
    known = {Path(problem["input"]).name: problem["known"] for problem in values["failed"]}
    assert known == {"c.tif": True, "d.tif": False}
    assert (values["skipped"], values["empty"]) == (2, 1)


def test_scenes_without_a_valid_cell_are_no_failures(rssc: Rssc, home: Path, bundle: Path) -> None:
    for place in (home / "in").iterdir():
        place.unlink()
    write_raster(home / "in" / "sea.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    words = command(bundle, "in", "maps", "pictures")
    for _ in range(2):
        done = rssc(*words)
        assert done.code == 3
        assert "0 of 1 scenes done (0 before), 1 with nothing to classify" in done.out


def test_the_table_names_all_that_is_wrong(rssc: Rssc, home: Path, bundle: Path) -> None:
    write_raster(home / "in" / "one_band.tif", texture(64, 64)[:1])
    done = rssc(
        "batch",
        "run",
        "in",
        "no*.tif",
        "-o",
        "maps",
        *whole_tiles("64px"),
        "--model",
        bundle,
    )
    assert done.code == 4
    assert done.err.count("error: in/one_band.tif ") == 1  # its name stands once in the line
    for place in ("maps", "maps/a.gpkg", f"maps/{NAME}"):
        table = rssc("batch", "status", place)
        assert table.out.splitlines()[0].split() == [
            "state",
            "progress",
            "tries",
            "work",
            "s",
            "took",
            "area",
            "scene",
            "note",
        ]
        assert table.out.splitlines()[-1] == "2 done, 1 failed, 1 of the inputs unusable"
    tries = {scene["id"]: scene["attempts"] for scene in read_status(home / "maps")["scenes"]}
    assert tries == {"a": 1, "b": 1, "one_band": 1}
    rssc(
        "batch",
        "run",
        "in",
        "-o",
        "maps",
        *whole_tiles("64px"),
        "--model",
        bundle,
        "--retry-failed",
    )
    tries = {scene["id"]: scene["attempts"] for scene in read_status(home / "maps")["scenes"]}
    assert tries == {"a": 1, "b": 1, "one_band": 2}


def test_files_of_a_manifests_rows_are_meant_from_its_folder(
    rssc: Rssc, home: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = gpd.GeoDataFrame(
        geometry=[shapely.box(*(NORTH_UP @ (0, 128)), *(NORTH_UP @ (256, 0)))], crs="EPSG:32632"
    )
    area.to_file(home / "half.gpkg")
    (home / "list.csv").write_text(
        "input,id,aoi,preview,class-raster\nin/a.tif,half,half.gpkg,pictures/{id}.png,rasters/{id}.tif\nin/b.tif,whole,,,\n"
    )
    monkeypatch.chdir(tmp_path)
    done = rssc(
        "batch",
        "run",
        "home/list.csv",
        "-o",
        "maps",
        *whole_tiles("64px"),
        "--model",
        bundle,
    )
    assert done.code == 0, done.err
    assert (home / "pictures" / "half.png").exists()
    assert (home / "rasters" / "half.tif").exists()
    assert [
        len(gpd.read_file(f"maps/{name}.gpkg", layer="cells")) for name in ("half", "whole")
    ] == [8, 16]


def test_scenes_of_several_crs_resolutions_and_bands_become_one_map(
    rssc: Rssc, home: Path, bundle: Path
) -> None:
    far = NORTH_UP @ NORTH_UP.translation(1024, 0)
    coarse = far @ far.scale(2, 2)
    write_raster(
        home / "in" / "c.tif",
        texture(256, 256, 5),
        photometric="rgb",
        crs="EPSG:32633",
        transform=NORTH_UP,
    )
    write_raster(
        home / "in" / "d.tif",
        texture(128, 128, 6).repeat(2, 0)[:4].astype("uint16") * 20,
        transform=coarse,
    )
    write_raster(home / "in" / "e.tif", texture(64, 64)[:1])
    done = rssc(
        "batch",
        "run",
        "in",
        "-o",
        "all.gpkg",
        "--merge",
        "first",
        *whole_tiles("64px"),
        "--model",
        bundle,
    )
    assert done.code == 4
    assert done.err.endswith("1 of the inputs failed, 1 of them for the first time, see above\n")
    assert "e.tif has 1 color band" in done.err
    cells = gpd.read_file("all.gpkg", layer="cells")
    assert cells.crs.to_epsg() == 4326
    assert cells["scene"].value_counts().to_dict() == {"a": 16, "c": 16, "d": 4}
    assert set(cells.geometry.total_bounds.round()[[0, 2]]) == {9.0, 15.0}


def test_a_journal_whose_pages_are_damaged_is_named(rssc: Rssc, home: Path, bundle: Path) -> None:
    words = command(bundle, "in", "maps", "pictures")
    assert rssc(*words).code == 0
    journal = home / "maps" / NAME
    size = journal.stat().st_size
    with journal.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * (size - 4096))
    for wrong in (words, (*words, "--dry-run"), ("batch", "status", "maps")):
        done = rssc(*wrong)
        assert done.code == 1
        assert f"{NAME} is damaged" in done.message
    journal.unlink()
    assert rssc(*words, "--overwrite").code == 0
