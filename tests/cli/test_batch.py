"""``rssc-geo batch`` from a command line to maps and a journal."""

from __future__ import annotations

import json
import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from geopandas.testing import assert_geodataframe_equal

from rssc_geo.batch import NAME
from rssc_geo.raster import open_scene
from tests.factories import NORTH_UP, texture, write_raster

from .conftest import Rssc, whole_tiles


def scene_states(rssc: Rssc, folder: Path) -> dict[str, str]:
    done = rssc("batch", "status", folder, "--json")
    assert done.code == 0, done.err
    return {scene["output"]: scene["state"] for scene in json.loads(done.out)["scenes"]}


def test_scenes_become_maps_as_classify_makes_them_and_a_rerun_does_nothing(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    command = (
        "batch",
        "run",
        scenes,
        "-o",
        maps / "{stem}.gpkg",
        *whole_tiles("64px"),
        "--model",
        bundle,
        "--device",
        "cpu",
    )
    done = rssc(*command, "--json")
    assert done.code == 0, done.err
    values = json.loads(done.out)
    assert values["done"] == values["scenes"] == 2
    assert values["tiles"] == values["cells"] == 32
    assert sum(values["area_m2"].values()) == pytest.approx(2 * 512 * 512, rel=1e-2)
    assert sum(values["time_share"].values()) == pytest.approx(1, abs=1e-3)
    assert (values["workers"], values["dtype"]) == (["cpu"], "float32")
    assert sorted(path.name for path in maps.iterdir()) == ["a.gpkg", "b.gpkg", NAME]

    single = tmp_path / "single.gpkg"
    assert (
        rssc(
            "classify",
            scenes / "a.tif",
            "-o",
            single,
            *whole_tiles("64px"),
            "--model",
            bundle,
        ).code
        == 0
    )
    for layer in ("landuse", "cells"):
        assert_geodataframe_equal(
            gpd.read_file(single, layer=layer), gpd.read_file(maps / "a.gpkg", layer=layer)
        )

    before = {path: path.stat().st_mtime_ns for path in maps.glob("*.gpkg")}
    again = rssc(*command, "--json")
    assert json.loads(again.out)["skipped"] == 2
    assert {path: path.stat().st_mtime_ns for path in before} == before

    (maps / "b.gpkg").unlink()
    assert json.loads(rssc(*command, "--json").out)["skipped"] == 1
    assert (maps / "a.gpkg").stat().st_mtime_ns == before[maps / "a.gpkg"]
    assert (maps / "b.gpkg").exists()


def test_a_changed_option_makes_only_what_it_affects_anew(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "list.csv"
    maps = tmp_path / "maps"
    command = ("batch", "run", manifest, "-o", maps / "{id}.gpkg", "--model", bundle, "--json")
    manifest.write_text("input,id,tile-size\nin/a.tif,one,64px\nin/b.tif,two,64px\n")
    assert rssc(*command).code == 0
    first = (maps / "one.gpkg").stat().st_mtime_ns
    manifest.write_text("input,id,tile-size\nin/a.tif,one,64px\nin/b.tif,two,128px\n")
    done = rssc(*command)
    assert done.code == 0, done.err
    assert json.loads(done.out)["skipped"] == 1
    assert (maps / "one.gpkg").stat().st_mtime_ns == first
    assert len(gpd.read_file(maps / "two.gpkg", layer="cells")) == 4


def test_bad_inputs_are_named_and_the_others_go_on(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    write_raster(scenes / "c.tif", texture(64, 64)[:2])
    (scenes / "d.tif").write_bytes(b"no raster")
    write_raster(scenes / "e.tif", texture(64, 64), crs=None)
    (tmp_path / "columns.csv").write_text("file,tile-size\na.tif,64px\n")
    (tmp_path / "option.csv").write_text("input,tilesize\na.tif,64px\n")
    (tmp_path / "twice.csv").write_text("input,id\nin/a.tif,x\nin/b.tif,x\n")
    (tmp_path / "value.csv").write_text("input,id,nodata\nin/a.tif,y,none\n")
    inputs = [scenes, tmp_path / "no*thing.tif", *sorted(tmp_path.glob("*.csv"))]
    command = (
        "batch",
        "run",
        *inputs,
        "-o",
        maps / "{id}.gpkg",
        *whole_tiles("64px"),
        "--model",
        bundle,
    )
    done = rssc(*command)
    assert done.code == 4
    assert sorted(path.name for path in maps.glob("*.gpkg")) == ["a.gpkg", "b.gpkg", "x.gpkg"]
    for words in (
        "no*thing.tif: no match (no file there)",
        "columns.csv: no column 'input' (there is: file, tile-size)",
        "option.csv: unknown column(s) 'tilesize'",
        "x.gpkg is that of",
        "--nodata 'none' is not a number",
        "c.tif",
        "d.tif",
        "e.tif has no CRS",
        "8 of the inputs failed, 8 of them for the first time",
    ):
        assert words in done.err, (words, done.err)
    table = rssc("batch", "status", maps)
    assert "3 done, 3 failed" in table.out
    assert "no*thing.tif" in table.out

    write_raster(scenes / "e.tif", texture(64, 64))  # repaired: tried again without being asked
    (scenes / "d.tif").touch()
    again = rssc(*command)
    assert "failed before: --retry-failed" in again.err
    assert "e.tif" not in again.err
    assert scene_states(rssc, maps)["e.gpkg"] == "done"


def test_nothing_to_do_is_said(rssc: Rssc, bundle: Path, tmp_path: Path) -> None:
    done = rssc(
        "batch", "run", tmp_path / "*.tif", "-o", tmp_path / "{stem}.gpkg", "--model", bundle
    )
    assert done.code == 1
    assert "*.tif: no match (no file there)" in done.err
    assert "holds no rssc-geo-batch.sqlite" in rssc("batch", "status", tmp_path / "in").message


def test_dry_run_shows_the_plan_and_writes_nothing(
    rssc: Rssc, scenes: Path, tmp_path: Path
) -> None:
    (scenes / "c.tif").write_bytes(b"no raster")
    words = (
        "batch",
        "run",
        scenes,
        *whole_tiles("64px"),
        "--dry-run",
        "--json",
        "-o",
    )
    done = rssc(*words, tmp_path / "maps")
    assert done.code == 4
    assert done.out == rssc(*words, tmp_path / "maps" / "{id}.gpkg").out
    values = json.loads(done.out)
    assert (values["scenes"], values["tiles"], values["cells"]) == (2, 32, 32)
    alone = json.loads(rssc("info", scenes / "a.tif", *whole_tiles("64px"), "--json").out)
    assert values["estimated_seconds_on_cpu"] >= alone["estimated_seconds_on_cpu"] > 0
    first = next(entry for entry in values["plan"] if entry["id"] == "a")
    assert first["seconds_on_cpu"] == pytest.approx(alone["estimated_seconds_on_cpu"], abs=0.06)
    assert [entry["input"] for entry in values["failed"]] == [str(scenes / "c.tif")]
    assert not (tmp_path / "maps").exists()


def test_a_dry_run_opens_a_raster_once_however_many_items_name_it(
    rssc: Rssc, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hrefs = ["a.tif", "b.tif", "a.tif", "none.tif", "a.tif", "none.tif"]
    items = [
        {
            "type": "Feature",
            "id": f"item{number}",
            "properties": {"datetime": f"2024-01-0{number + 1}T00:00:00Z"},
            "assets": {"visual": {"href": href}},
        }
        for number, href in enumerate(hrefs)
    ]
    catalog = scenes / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    opened = []
    monkeypatch.setattr(
        "rssc_geo.inference.plan.open_scene",
        lambda source, **options: opened.append(Path(source).name) or open_scene(source, **options),
    )
    monkeypatch.setattr(
        "rssc_geo.inference.plan.check_picture", lambda _: pytest.fail("pixels were read")
    )
    command = ("batch", "run", catalog, "-o", tmp_path / "maps", *whole_tiles("64px"))
    done = rssc(*command, "--dry-run", "--json")
    assert done.code == 4, done.err
    assert sorted(opened) == ["a.tif", "b.tif", "none.tif"]
    values = json.loads(done.out)
    assert (values["scenes"], values["cells"], len(values["failed"])) == (4, 64, 2)
    assert [entry["id"] for entry in values["plan"]] == [item["id"] for item in items]
    outputs = [Path(entry["output"]).stem for entry in values["plan"]]
    assert outputs == [item["id"] for item in items]


def test_logs_and_progress_for_programs(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    command = (
        "batch",
        "run",
        scenes,
        "-o",
        tmp_path / "{stem}.gpkg",
        *whole_tiles("64px"),
        "--model",
        bundle,
    )
    (scenes / "c.tif").write_bytes(b"no raster")
    done = rssc(*command, "--log-json", "--progress", "json")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert events[-1]["event"] == "result"
    assert all(
        event["event"] == "progress" and 0 <= event["done_share"] <= 1 for event in events[:-1]
    )
    logged = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert any(entry["level"] == "error" and "c.tif" in entry["message"] for entry in logged)


@pytest.mark.parametrize(
    ("rule", "winner"),
    [("first", {"a": 16, "b": 8}), ("last", {"a": 8, "b": 16}), ("most-confident", None)],
)
def test_merged_scenes_cover_every_place_once(
    rssc: Rssc, tmp_path: Path, bundle: Path, rule: str, winner: dict[str, int] | None
) -> None:
    write_raster(tmp_path / "a.tif", texture(256, 256, 1), photometric="rgb")
    write_raster(
        tmp_path / "b.tif",
        texture(256, 256, 2),
        photometric="rgb",
        transform=NORTH_UP @ NORTH_UP.translation(128, 0),
    )
    target = tmp_path / "all.gpkg"
    command = (
        "batch",
        "run",
        tmp_path / "a.tif",
        tmp_path / "b.tif",
        "-o",
        target,
        "--merge",
        rule,
        *whole_tiles("64px"),
    )
    done = rssc(*command, "--model", bundle, "--crs", "EPSG:32632")
    assert done.code == 0, done.err
    cells, regions = gpd.read_file(target, layer="cells"), gpd.read_file(target, layer="landuse")
    if winner is not None:
        assert cells["scene"].value_counts().to_dict() == winner
    whole = shapely.box(500_000, 5_000_000 - 512, 500_000 + 768, 5_000_000)
    for frame in (cells, regions):
        assert frame.area.sum() == pytest.approx(whole.area)
        assert shapely.union_all(frame.geometry).equals(whole)
    assert regions["cells"].sum() == len(cells) == 24
    np.testing.assert_allclose(regions["area_m2"].sum(), whole.area, rtol=2e-3)
    np.testing.assert_allclose(
        (regions["confidence"] * regions["area_m2"]).sum() / regions["area_m2"].sum(),
        cells["confidence"].mean(),
        atol=1e-4,
    )
    groups = {"Field": None, "River, wide": "Water", "Town <b>": "Built <up>"}
    for frame in (cells, regions):
        assert frame.columns[:4].tolist() == ["scene", "class", "class_id", "group"]
        found = frame["group"].astype(object).where(frame["group"].notna(), None)
        assert found.tolist() == [groups[name] for name in frame["class"]]
    styles = gpd.read_file(target, layer="layer_styles", ignore_geometry=True)
    assert styles["styleName"].tolist() == [
        *("class", "group", "confidence", "familiarity"),
        *("class", "group", "confidence"),
    ]
    made = target.stat().st_mtime_ns
    again = rssc(*command, "--model", bundle, "--crs", "EPSG:32632", "--json")
    assert again.code == 0
    assert target.stat().st_mtime_ns == made
    told = json.loads(again.out)
    areas = regions.groupby("class")["area_m2"].sum().to_dict()
    assert told["area_m2"] == pytest.approx(areas, abs=0.1)  # not the sum of the scenes'
    assert told["cells"] == 24


def test_merged_geoparquet_in_degrees(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    target = tmp_path / "all.parquet"
    done = rssc(
        "batch",
        "run",
        scenes,
        "-o",
        target,
        "--merge",
        "last",
        *whole_tiles("64px"),
        "--model",
        bundle,
    )
    assert done.code == 0, done.err
    assert str(target) in done.out
    cells = gpd.read_parquet(tmp_path / "all_cells.parquet")
    assert cells.crs.to_epsg() == 4326
    assert set(cells["scene"]) == {"b"}  # the same ground: the last one has it all
    assert len(cells) == 16


def test_sources_by_stac_tile_index_and_list(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    def item(name: str, assets: dict[str, dict[str, object]]) -> dict[str, object]:
        common = {"type": "Feature", "stac_version": "1.0.0", "geometry": None, "links": []}
        return {
            **common,
            "id": name,
            "properties": {"datetime": "2026-01-01T00:00:00Z"},
            "assets": assets,
        }

    with rasterio.open(scenes / "a.tif") as raster:
        bands = raster.read()
    for number, name in enumerate(("red", "green", "blue")):
        write_raster(tmp_path / f"{name}.tif", bands[number : number + 1])
    three = {
        name: {"href": f"./{name}.tif", "roles": ["data"]} for name in ("red", "green", "blue")
    }
    collection = {
        "type": "FeatureCollection",
        "features": [
            item("separate", three),
            item("../../evil", {"picture": {"href": "in/a.tif", "roles": ["visual"]}}),
            item("useless", {"thumbnail": {"href": "x.png", "roles": ["thumbnail"]}}),
        ],
    }
    (tmp_path / "items.json").write_text(json.dumps(collection))
    (tmp_path / "list.txt").write_text("# scenes\n\nin/b.tif\n")
    index = gpd.GeoDataFrame(
        {"location": ["in/a.tif"]}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326"
    )
    index.to_file(tmp_path / "index.gpkg")
    maps = tmp_path / "maps" / "deep"
    inputs = [tmp_path / name for name in ("items.json", "list.txt", "index.gpkg", "gone.json")]
    command = (
        "batch",
        "run",
        *inputs,
        "http://127.0.0.1:9/items.json",
        "-o",
        maps / "{id}.gpkg",
        *whole_tiles("64px"),
    )
    done = rssc(*command, "--model", bundle)
    assert done.code == 4
    assert sorted(p.name for p in maps.glob("*.gpkg")) == ["_.._evil.gpkg", "a.gpkg", "b.gpkg"]
    assert (
        "STAC item separate: " not in done.err
    )  # 'data' is a role of all three; the first is one band, which is refused
    assert (
        "STAC item useless: no asset with key or role visual/data/image; it has: thumbnail"
        " (thumbnail)" in done.err
    )
    assert "gone.json cannot be read as STAC" in done.err
    assert "http://127.0.0.1:9/items.json cannot be read as STAC" in done.err
    done = rssc(*command, "--model", bundle, "--asset", "red,green,blue")
    assert (maps / "separate.gpkg").exists(), done.err


def test_journals_that_cannot_be_used(
    rssc: Rssc, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    import sqlite3

    maps = tmp_path / "maps"
    maps.mkdir()
    command = (
        "batch",
        "run",
        scenes,
        "-o",
        maps / "{stem}.gpkg",
        *whole_tiles("64px"),
        "--model",
        bundle,
    )
    (maps / NAME).write_bytes(b"SQLite format 3\x00" + b"broken" * 300)
    assert "is damaged" in rssc(*command).message
    (maps / NAME).unlink()
    with sqlite3.connect(maps / NAME) as journal:
        journal.execute("CREATE TABLE meta (format INTEGER)")
        journal.execute("INSERT INTO meta VALUES (99)")
    journal.close()
    done = rssc(*command)
    assert done.code == 1
    assert "a journal of format 99, this program writes 3" in done.message
    assert "a journal of format 99" in rssc("batch", "status", maps).message


def test_wrong_usage(rssc: Rssc, scenes: Path, tmp_path: Path) -> None:
    run = ("batch", "run", scenes)
    assert rssc(*run, "-o", tmp_path / "all.gpkg", "--merge", "best").code == 2
    assert rssc(*run, "-o", tmp_path / "{id}.gpkg", "--merge", "first").code == 2
    done = rssc(*run, "-o", tmp_path / "{name}.gpkg")
    assert "use {stem} and {id}" in done.err


@pytest.mark.skipif(os.name != "posix", reason="makes symbolic links")
def test_two_names_of_one_output_are_told_before_the_work(rssc: Rssc, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "c.gpkg").symlink_to("a.gpkg")
    others = ("real/../real/a.gpkg", "link/a.gpkg", "real/c.gpkg")
    for name in "abcd":
        write_raster(tmp_path / f"{name}.tif", texture(64, 64))
    manifest = tmp_path / "in.csv"
    rows = [f"{name}.tif,{output}" for name, output in zip("bcd", others, strict=True)]
    manifest.write_text("\n".join(["input,output", "a.tif,real/a.gpkg", *rows]))
    options = (*whole_tiles("64px"), "--overwrite", "--dry-run")
    done = rssc("batch", "run", manifest, "-o", tmp_path / "maps", *options)
    assert (done.code, "\n1 scenes to do" in done.out) == (4, True)
    for output in others:
        assert f"{output} is that of {tmp_path / 'a.tif'} already" in done.err


@pytest.mark.parametrize("column", ["output", "areas"])
def test_folders_of_no_name_cost_their_scene(column: str, rssc: Rssc, tmp_path: Path) -> None:
    for name in "ab":
        write_raster(tmp_path / f"{name}.tif", texture(64, 64))
    manifest = tmp_path / "in.csv"
    manifest.write_bytes(f"input,{column}\na.tif,x\0y/z.csv\nb.tif,\n".encode())
    options = (*whole_tiles("64px"), "--dry-run")
    done = rssc("batch", "run", manifest, "-o", tmp_path / "maps", *options)
    assert (done.code, "\n1 scenes to do" in done.out) == (4, True)
    assert "holds a null character" in done.err
    spaces = rssc("batch", "run", tmp_path / "a.tif", "-o", " /{id}.gpkg", "--dry-run")
    assert "begins with a space" in spaces.err
