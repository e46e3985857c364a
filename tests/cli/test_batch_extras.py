"""Files of a batch beside its maps, classes by words, and tables of all scenes."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import pyogrio
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal

from tests.factories import NORTH_UP

from .conftest import Rssc, rows_of, whole_tiles


def test_each_scene_has_its_report_review_and_table_of_areas(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    x, y = NORTH_UP @ (0, 0)
    halves = [shapely.box(x, y - 512, x + 256, y), shapely.box(x + 256, y - 512, x + 512, y)]
    zones = gpd.GeoDataFrame({"part": ["west", "east"]}, geometry=halves, crs="EPSG:32632")
    zones.to_file(tmp_path / "in" / "zones.gpkg")
    maps = tmp_path / "maps"
    command = ("batch", "run", tmp_path / "list.csv", "-o", maps / "{id}.gpkg", "--model", bundle)
    command = (*command, *whole_tiles("64px"), "--report", maps / "{id}.html", "--review", 3)
    command = (*command, "--areas", maps / "{id}.csv", "--json")
    rows = "input,zones,zone-field,review\nin/a.tif,in/zones.gpkg,part,\nin/b.tif,,,5\n"
    (tmp_path / "list.csv").write_text(rows)
    done = rssc(*command)
    assert done.code == 0, done.err
    for name, count in (("a", 3), ("b", 5)):
        assert f"{name}.tif" in (maps / f"{name}.html").read_text(encoding="utf-8")
        assert len(pyogrio.read_dataframe(maps / f"{name}.gpkg", layer="review")) == count
    assert {row["zone"] for row in rows_of(maps / "a.csv")} == {"(all)", "west", "east"}
    assert "zone" not in rows_of(maps / "b.csv")[0]

    assert json.loads(rssc(*command).out)["skipped"] == 2
    (maps / "b.html").unlink()
    again = rssc(*command)
    assert (again.code, json.loads(again.out)["skipped"]) == (0, 1), again.err
    assert (maps / "b.html").exists()


def test_two_scenes_never_share_a_file_beside_their_maps(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    maps, page = tmp_path / "maps", tmp_path / "page.html"
    command = ("batch", "run", scenes, "-o", maps, "--model", bundle, *whole_tiles("64px"))
    done = rssc(*command, "--report", page, "--json")
    assert done.code == 4
    (failed,) = json.loads(done.out)["failed"]
    assert failed["input"].endswith("b.tif")
    assert f"its output {page} is that of {scenes / 'a.tif'} already" in failed["error"]


def test_the_areas_of_all_scenes_are_one_table(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    maps, table = tmp_path / "maps", tmp_path / "areas.csv"
    run = ("batch", "run", scenes, "-o", maps, "--model", bundle, *whole_tiles("64px"), "--json")
    (scenes / "c.tif").write_bytes(b"no raster")
    values = json.loads(rssc(*run).out)
    made = rssc("batch", "areas", maps, "-o", table, "--json")
    assert made.code == 0, made.err
    rows = rows_of(table)
    assert list(rows[0])[:3] == ["scene", "class", "group"]
    assert {row["scene"] for row in rows} == {"(all)", "a", "b"}
    whole = {row["class"]: float(row["area_m2"]) for row in rows if row["scene"] == "(all)"}
    assert whole == pytest.approx(values["area_m2"], rel=1e-4)
    for name in "ab":
        own = {row["class"]: float(row["area_m2"]) for row in rows if row["scene"] == name}
        landuse = gpd.read_file(maps / f"{name}.gpkg", layer="landuse")
        assert own == pytest.approx(landuse.groupby("class")["area_m2"].sum().to_dict())
        assert sum(float(r["share"]) for r in rows if r["scene"] == name) == pytest.approx(1)
    assert [entry["scene"] for entry in json.loads(made.out)["areas"]] == [r["scene"] for r in rows]

    assert "--overwrite" in rssc("batch", "areas", maps, "-o", table).message
    assert rssc("batch", "areas", maps, "-o", table, "--overwrite").out == f"{table}\n"
    for place, name, code, words in (
        (maps, "areas.txt", 2, "name it .csv"),
        (scenes, "new.csv", 1, "holds no rssc-geo-batch.sqlite"),
    ):
        told = rssc("batch", "areas", place, "-o", tmp_path / name)
        assert told.code == code
        assert words in told.message


def test_status_tells_areas_and_times(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    run = ("batch", "run", scenes, "-o", maps, "--model", bundle, *whole_tiles("64px"))
    assert rssc(*run).code == 0
    lines = rssc("batch", "status", maps).out.splitlines()
    assert lines[0].split() == [
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
    assert all(" 26.2 ha " in line and " s " in line for line in lines[1:3]), lines
    assert any(line.startswith("run of 20") and line.endswith(": done") for line in lines)


@pytest.mark.slow
def test_classes_by_words_are_those_of_zero_shot(rssc: Rssc, scenes: Path, tmp_path: Path) -> None:
    words = tmp_path / "in" / "words.json"
    words.write_text(json.dumps({"water": ["lake", "river"], "houses": ["dense houses"]}))
    maps = tmp_path / "maps"
    (tmp_path / "list.csv").write_text(
        'input,id,classes,other,refine\nin/a.tif,a,"forest,houses",no,\nin/b.tif,b,in/words.json,,\n'
        "in/a.tif,own,,,\nin/a.tif,odd,日本,,\nin/b.tif,moved,in/words.json,,yes\n",
        encoding="utf-8",
    )
    command = ("batch", "run", tmp_path / "list.csv", "-o", maps, *whole_tiles("128px"), "--json")
    done = rssc(*command)
    assert done.code == 4, done.err
    (failed,) = json.loads(done.out)["failed"]
    assert "'日本' holds no word the text encoder knows" in failed["error"]
    for name, scene, classes, more in (
        ("a", "a", "forest,houses", ["--no-other"]),
        ("b", "b", words, []),
        ("moved", "b", words, ["--refine"]),
    ):
        single = tmp_path / f"{name}.gpkg"
        zero = ("zero-shot", scenes / f"{scene}.tif", "-o", single, "--classes", classes, *more)
        assert rssc(*zero, *whole_tiles("128px")).code == 0
        for layer in ("landuse", "cells"):
            assert_geodataframe_equal(
                gpd.read_file(single, layer=layer),
                gpd.read_file(maps / f"{name}.gpkg", layer=layer),
                check_less_precise=True,
            )
    plain, moved = (gpd.read_file(maps / f"{n}.gpkg", layer="cells") for n in ("b", "moved"))
    assert not plain["confidence"].equals(moved["confidence"])
    assert set(gpd.read_file(maps / "own.gpkg", layer="cells")["class"]).isdisjoint(
        {"forest", "houses", "water", "other"}
    )

    words.write_text(json.dumps({"water": ["sea"], "houses": ["dense houses"]}))
    again = json.loads(rssc(*command).out)
    assert again["skipped"] == 2  # a and own; what the words in the file are counts, not its name


def test_one_map_of_many_has_one_legend(rssc: Rssc, scenes: Path, tmp_path: Path) -> None:
    options = ("--classes", "water,forest", *whole_tiles("128px"))
    merged = tmp_path / "all.gpkg"
    done = rssc("batch", "run", scenes, "-o", merged, "--merge", "first", *options)
    assert done.code == 0, done.err
    assert set(gpd.read_file(merged, layer="cells")["class"]) <= {"water", "forest", "other"}
    (tmp_path / "list.csv").write_text('input,classes\nin/a.tif,"a field,lake"\nin/b.tif,\n')
    for inputs, more, words in (
        (tmp_path / "list.csv", ("--merge", "first"), "give all scenes the same --classes"),
        (scenes, ("--only-classes", "Port"), "--only-classes and --exclude-classes are of"),
    ):
        told = rssc("batch", "run", inputs, "-o", tmp_path / "new.gpkg", *options, *more)
        assert (told.code, words in told.message) == (2, True), told.err
    for word in ("--no-other", "--refine"):
        told = rssc("batch", "run", scenes, "-o", tmp_path / "new", word)
        assert (told.code, f"{word} goes with --classes" in told.message) == (2, True)
