"""``--overwrite`` and odd names never delete files of others."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.shutil import copy as copy_raster

from rssc_geo import (
    AreasOptions,
    ChangeOptions,
    ClassifyOptions,
    RefineOptions,
    UsageError,
    change,
    classify,
    files,
    refine,
    tabulate_areas,
)
from rssc_geo.files import check_not_input, local_file
from rssc_geo.fingerprints import content_mark, fingerprint
from rssc_geo.raster import open_scene
from tests.chat_server import ChatServer
from tests.factories import texture, write_map, write_raster
from tests.programs import Program

from .conftest import Rssc, whole_tiles

Start = Callable[..., Program]
posix = pytest.mark.skipif(os.name != "posix", reason="a matter of POSIX")
TILES = (*whole_tiles("300px"), "--captioner", "none", "-q")


def nested(scene: Path) -> Path:
    """A VRT of a VRT of the scene."""
    for name, source in (("one.vrt", scene.name), ("two.vrt", "one.vrt")):
        copy_raster(scene.with_name(source), scene.with_name(name), driver="VRT")
    return scene.with_name("two.vrt")


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson"])
def test_an_area_of_interest_is_not_replaced(
    rssc: Rssc, scene: Path, tmp_path: Path, suffix: str
) -> None:
    area = tmp_path / f"area{suffix}"
    with rasterio.open(scene) as raster:
        box = shapely.box(*raster.bounds)
        gpd.GeoDataFrame({"note": ["mine"]}, geometry=[box], crs=raster.crs).to_file(area)
    before = area.read_bytes()
    done = rssc("classify", scene, "-o", area, "--aoi", area, "--overwrite", *TILES)
    assert done.code == 2
    assert "is the input itself" in done.message
    assert area.read_bytes() == before


def test_the_rasters_behind_nested_virtual_ones_are_inputs(
    rssc: Rssc, scene: Path, tmp_path: Path
) -> None:
    before = scene.read_bytes()
    virtual = nested(scene)
    done = rssc(
        "classify", virtual, "-o", tmp_path / "m.gpkg", "--class-raster", scene, "--overwrite",
        *TILES,
    )  # fmt: skip
    assert done.code == 2
    assert "is the input itself" in done.message
    assert scene.read_bytes() == before
    first = open_scene(virtual).fingerprint()
    write_raster(scene, texture(800, 600, seed=1), photometric="rgb")
    assert open_scene(virtual).fingerprint() != first


def test_files_of_words_and_options_are_inputs(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.geojson"
    words.write_text("water\nland\n")
    done = rssc("zero-shot", scene, "-o", words, "--classes", words, "--overwrite", *TILES[:2])
    assert done.code == 2
    assert "is the input itself" in done.message
    assert words.read_text() == "water\nland\n"


def test_the_cache_of_captions_is_no_result(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    """It is made by the run itself, and kept; nor is an input taken for one."""
    before = scene.read_bytes()
    with ChatServer() as chat:
        common = ("caption", scene, *TILES[:2], "--captioner", chat.captioner, "-q", "--overwrite")
        for _ in range(2):
            path = tmp_path / "map.gpkg"
            done = rssc(*common, "-o", path, "--caption-cache", path)
            assert done.code == 2
            assert "is the input itself" in done.message
            assert not path.exists()
        done = rssc(*common, "-o", tmp_path / "map.jsonl", "--caption-cache", scene)
        assert done.code == 0, done.err
    assert scene.read_bytes() == before
    assert not list(tmp_path.glob("*.damaged"))


VERBS = {
    "classify": ("classify", "{scene}", *TILES, "-o", "{made}.gpkg"),
    "class raster": ("classify", "{scene}", *TILES, "-o", "m.gpkg", "--class-raster", "{made}.tif"),
    "preview": ("classify", "{scene}", *TILES, "-o", "m.gpkg", "--preview", "{made}.png"),
    "report": ("classify", "{scene}", *TILES, "-o", "m.gpkg", "--report", "{made}.html"),
    "zones": ("classify", "{scene}", *TILES, "-o", "m.gpkg", "--areas", "{made}.csv"),
    "caption": ("caption", "{scene}", "--tile-size", "300px", "-q", "-o", "{made}.jsonl"),
    "caption layer": ("caption", "{scene}", "--tile-size", "300px", "-q", "-o", "{made}.gpkg"),
    "embed": ("embed", "{scene}", *TILES, "-o", "{made}.parquet"),
    "areas": ("areas", "one.gpkg", "-q", "-o", "{made}.csv"),
    "refine": ("refine", "one.gpkg", "-q", "-o", "{made}.gpkg"),
    "change": ("change", "one.gpkg", "two.gpkg", "-q", "-o", "{made}.gpkg"),
    "matrix": ("change", "one.gpkg", "two.gpkg", "-q", "-o", "m.gpkg", "--areas", "{made}.csv"),
    "sample": ("assess", "sample", "one.gpkg", "--sample-size", "4", "-q", "-o", "{made}.gpkg"),
    "tiles": ("tile", "{scene}", "--tile-size", "300px", "-q", "-o", "{made}"),
    "item": ("models", "info", "compact", "--stac-item", "{made}.json"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_another_process_made_in_the_meantime_is_kept(
    rssc: Rssc, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Of two processes that make one result at the same time the second says so."""
    for number, name in enumerate(("one", "two")):
        write_map(tmp_path / f"{name}.gpkg", np.eye(3, dtype=int) * number, ("a", "b"))
    monkeypatch.chdir(tmp_path)
    line = [part.format(scene=scene.name, made="made") for part in VERBS[verb]]
    place = Path(next(part for part in line if Path(part).stem == "made"))
    synced = files.sync

    def slowly(made: Path) -> None:
        synced(made)
        if not place.exists():
            if not place.suffix:
                place.mkdir()
            (place if place.suffix else place / "tiles.gpkg").write_text("theirs")

    monkeypatch.setattr(files, "sync", slowly)
    done = rssc(*line)
    assert done.code == 1, done.err
    assert "was made by another process meanwhile" in done.err or "made exists" in done.err
    assert (place if place.suffix else place / "tiles.gpkg").read_text() == "theirs"
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".part"} - {"m.gpkg"}
    assert left == {"scene.tif", "one.gpkg", "two.gpkg", place.name}, done.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert rssc(*line, "--overwrite").code == 0


@pytest.mark.parametrize("suffix", [".fgb", ".parquet", ".shp"])
def test_all_files_of_a_finished_map_are_inputs(rssc: Rssc, tmp_path: Path, suffix: str) -> None:
    old, other = (
        write_map(tmp_path / f"{name}{suffix}", np.eye(3, dtype=int), ("a", "b"))
        for name in ("old", "other")
    )
    cells = tmp_path / f"old_cells{suffix}"
    before = cells.read_bytes()
    for line in (("refine", old), ("change", old, other)):
        done = rssc(*line, "-o", cells, "--overwrite", "-q")
        assert (done.code, "is the input itself" in done.message) == (2, True)
    assert cells.read_bytes() == before


def test_files_beside_a_result_replace_no_input(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    """The projection of a Shapefile that is also the raster's; a layer of a review."""
    raster = tmp_path / "m.bil"
    copy_raster(scene, raster, driver="EHdr")
    before = raster.with_suffix(".prj").read_bytes()
    map_path = tmp_path / "m.shp"
    done = rssc("classify", raster, "-o", map_path, "--crs", "EPSG:4326", "--overwrite", *TILES)
    assert (done.code, "m.prj is the input itself" in done.message) == (2, True)
    assert raster.with_suffix(".prj").read_bytes() == before
    area = tmp_path / "x_review.fgb"
    with rasterio.open(scene) as file:
        box = shapely.box(*file.bounds)
        gpd.GeoDataFrame(geometry=[box], crs=file.crs).to_file(area)
    before = area.read_bytes()
    done = rssc(
        "classify", scene, "-o", tmp_path / "x.fgb", "--review", "3", "--aoi", area, "--overwrite",
        *TILES,
    )  # fmt: skip
    assert (done.code, "is the input itself" in done.message) == (2, True)
    assert area.read_bytes() == before


@pytest.mark.parametrize("name", ["m.qix", "m.shp.xml", "m.dbf", "m_cells.prj"])
def test_files_of_others_that_a_shapefile_would_take_are_kept(
    rssc: Rssc, tmp_path: Path, name: str
) -> None:
    write_map(tmp_path / "old.gpkg", np.eye(3, dtype=int), ("a", "b"))
    (tmp_path / name).write_text("mine")
    for more in ((), ("--overwrite",)):
        done = rssc("refine", tmp_path / "old.gpkg", "-o", tmp_path / "m.shp", "-q", *more)
        assert (done.code, "would be taken for a part of" in done.message) == (1, True)
        assert (tmp_path / name).read_text() == "mine"


def test_an_index_of_a_shapefile_that_is_replaced_goes(rssc: Rssc, tmp_path: Path) -> None:
    write_map(tmp_path / "old.gpkg", np.eye(3, dtype=int), ("a", "b"))
    line = ("refine", tmp_path / "old.gpkg", "-o", tmp_path / "m.shp", "-q")
    assert rssc(*line).code == 0
    (tmp_path / "m.qix").write_text("index of the old shapes")
    assert rssc(*line, "--overwrite").code == 0
    assert not (tmp_path / "m.qix").exists()


@pytest.mark.parametrize(
    "named",
    [
        ("m.geojson", "--stac-item", "m.geojson", "--date", "2024-01-01"),
        ("m.shp", "--areas", "m_fields.csv"),
        ("m.parquet", "--embeddings", "sub/../m.parquet"),
        ("m.parquet", "--embeddings", "sub/../m_cells.parquet"),
        ("m.gpkg", "--report", "m.html", "--preview", "sub/../m.png", "--class-raster", "m.tif",
         "--stac-item", "m.tif.aux.xml"),
    ],
)  # fmt: skip
def test_two_results_are_never_one_file(
    rssc: Rssc, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    done = rssc("classify", scene, "-o", *named, "--overwrite", *TILES)
    assert done.code == 2, done.err
    assert "two results are named" in done.message or "name it .json" in done.message
    assert sorted(os.listdir(tmp_path)) == ["scene.tif", "sub"]


def test_results_of_one_name_in_two_folders(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    done = rssc(
        "classify", scene, "-o", tmp_path / "a" / "m.parquet", "--embeddings",
        tmp_path / "b" / "m.parquet", *TILES,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert sorted(os.listdir(tmp_path / "a")) == ["m.parquet", "m_cells.parquet"]
    assert "embedding" in gpd.read_parquet(tmp_path / "b" / "m.parquet").columns


@pytest.mark.parametrize("verb", ["change", "refine", "areas", "classify"])
def test_python_functions_replace_no_file_that_an_option_names(
    scene: Path, tmp_path: Path, verb: str
) -> None:
    """What the command line refuses at its door, the functions refuse, too."""
    grid = np.array([[0, 1, 2]] * 3)
    one, two = (write_map(tmp_path / f"{n}.gpkg", grid, ("a", "b", "c")) for n in "xy")
    mine = tmp_path / ("mine.csv" if verb == "areas" else "mine.geojson")
    box = gpd.GeoDataFrame({"class": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    box.to_file(mine, driver="GeoJSON")
    before, name = mine.read_bytes(), str(mine)

    def run() -> object:
        if verb == "change":
            options = ChangeOptions(reference=f"{name}|layername=mine", overwrite=True)
            return change([one, two], mine, options)
        if verb == "refine":
            return refine(one, mine, RefineOptions(legend=name, overwrite=True))
        if verb == "areas":
            return tabulate_areas(one, mine, AreasOptions(legend=name, overwrite=True))
        areas = str(tmp_path / "a.csv")
        options = ClassifyOptions(tile_size="300px", zones=name, areas=areas, overwrite=True)
        return classify(scene, mine, options)

    with pytest.raises(UsageError, match="is the input itself"):
        run()
    assert mine.read_bytes() == before


def test_a_batch_replaces_no_input_of_any_scene(rssc: Rssc, tmp_path: Path) -> None:
    for number in range(2):
        write_raster(tmp_path / f"{number}.tif", texture(64, 64, number), photometric="rgb")
    before = (tmp_path / "1.tif").read_bytes()
    manifest = tmp_path / "list.csv"
    manifest.write_text("input,class-raster\n0.tif,1.tif\n1.tif,\n")
    done = rssc("batch", "run", manifest, "-o", tmp_path / "maps", "--overwrite", *TILES[2:])
    assert done.code == 2
    assert "is the input itself" in done.message
    assert (tmp_path / "1.tif").read_bytes() == before
    manifest.write_text("input,areas\n0.tif,list.csv\n")
    assert rssc("batch", "run", manifest, "-o", tmp_path / "maps", "--overwrite").code == 2
    assert manifest.read_text().startswith("input")


def test_a_layer_of_one_scene_is_no_map_of_another(rssc: Rssc, tmp_path: Path) -> None:
    for number, name in enumerate(("x", "x_cells")):
        write_raster(tmp_path / f"{name}.tif", texture(64, 64, number), photometric="rgb")
    inputs = (tmp_path / "x.tif", tmp_path / "x_cells.tif")
    line = ("batch", "run", *inputs, "-o", tmp_path / "maps" / "{stem}.fgb", *TILES[2:])
    done = rssc(*line, "--overwrite", "--dry-run")
    assert "x_cells.fgb is that of" in done.err


def test_a_geopackage_with_layers_of_others_is_not_replaced(
    rssc: Rssc, scene: Path, tmp_path: Path
) -> None:
    target = tmp_path / "map.gpkg"
    assert rssc("classify", scene, "-o", target, *TILES).code == 0
    assert rssc("classify", scene, "-o", target, "--overwrite", *TILES).code == 0
    point = gpd.GeoDataFrame({"note": ["mine"]}, geometry=[shapely.Point(0, 0)], crs=4326)
    point.to_file(target, layer="my work")
    foreign = tmp_path / "theirs.gpkg"
    point.to_file(foreign, layer="landuse")  # our name, but not by us
    for path, words in ((target, "my work"), (foreign, "landuse")):
        before = path.read_bytes()
        done = rssc("classify", scene, "-o", path, "--overwrite", *TILES)
        assert done.code == 1
        assert f"holds what rssc-geo has not made ({words})" in done.message
        assert path.read_bytes() == before


def test_labels_of_people_are_not_replaced(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    """In the layer that a run has made for them, and in a table of others without geometry."""
    target, sample = tmp_path / "map.gpkg", tmp_path / "sample.gpkg"
    assert rssc("classify", scene, "-o", target, "--review", 3, *TILES).code == 0
    lines = {
        sample: ("assess", "sample", target, "-o", sample, "--sample-size", 3),
        target: ("classify", scene, "-o", target, "--overwrite", *TILES),
    }
    assert rssc(*lines[sample]).code == 0
    for path, statement, words in (
        (sample, "UPDATE sample SET class = 'Forest' WHERE fid = 2", "labels in its layer sample"),
        (target, "UPDATE review SET label = 'Forest' WHERE fid = 2", "labels in its layer review"),
        (target, "UPDATE review SET label = NULL", ""),
        (target, "CREATE TABLE visits (day TEXT)", "visits"),
    ):
        with closing(sqlite3.connect(path)) as database, database:
            for (name,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():  # they call functions of GDAL
                database.execute(f'DROP TRIGGER "{name}"')
            database.execute(statement)
        done = rssc(*lines[path], "--overwrite")
        assert done.code == (1 if words else 0)
        assert not words or f"has not made ({words})" in done.message


def test_captions_may_be_replaced(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    for _ in range(2):
        done = rssc(
            "caption",
            scene,
            "-o",
            tmp_path / "c.gpkg",
            *whole_tiles("300px"),
            "--overwrite",
            "-q",
        )
        assert done.code == 0, done.err


def test_what_has_a_parts_name_is_left_alone(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "tiles.part" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("x")
    assert rssc("tile", scene, "-o", tmp_path / "tiles", *TILES[:2]).code == 0
    assert thesis.read_text() == "x"
    part = tmp_path / "map.gpkg.part"
    part.write_text("half a download of mine")
    done = rssc("classify", scene, "-o", tmp_path / "map.gpkg", *TILES)
    assert done.code == 1
    assert "map.gpkg.part is no part file of this program" in done.message
    assert part.read_text() == "half a download of mine"


def test_a_folder_of_tiles_that_holds_the_raster_is_not_replaced(
    rssc: Rssc, scene: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiles"
    assert rssc("tile", scene, "-o", folder, *TILES[:2]).code == 0
    inside = Path(shutil.copy(scene, folder / "mine.tif"))
    done = rssc("tile", inside, "-o", folder, "--overwrite", *TILES[:2])
    assert done.code == 2
    assert "which is to hold the result alone" in done.message
    assert inside.read_bytes() == scene.read_bytes()


@pytest.mark.parametrize("form", ["tif", "png"])
def test_pictures_whose_names_look_like_those_of_tiles_are_kept(
    rssc: Rssc, scene: Path, tmp_path: Path, form: str
) -> None:
    """Tiles are known by the index that lists them."""
    command = ("tile", scene, "-o", tmp_path / "tiles", "--format", form, *TILES[:2])
    assert rssc(*command).code == 0
    for chip in list((tmp_path / "tiles").glob(f"*.{form}")):
        chip.with_name(f"{chip.name}.aux.xml").touch()
    again = rssc(*command, "--overwrite")
    assert again.code == 0, again.err
    for name in ("IMG_20240612_101530.png", "scene_99999_99999.tif", "scene_99999_99999.wld"):
        mine = tmp_path / "tiles" / name
        mine.write_text("mine")
        done = rssc(*command, "--overwrite")
        assert done.code == 1
        assert f"holds {name}, which is of no earlier result" in done.message
        assert mine.read_text() == "mine"
        mine.unlink()


@posix
def test_a_symbolic_link_is_followed(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    links = {name: tmp_path / name for name in ("map.gpkg", "map.tif", "map.html")}
    for name, link in links.items():
        link.symlink_to(Path("disk") / name)
    for _ in range(2):
        done = rssc(
            "classify", scene, "-o", links["map.gpkg"], "--class-raster", links["map.tif"],
            "--report", links["map.html"], "--overwrite", *TILES,
        )  # fmt: skip
        assert done.code == 0, done.err
        assert all(link.is_symlink() for link in links.values())
        assert sorted(os.listdir(tmp_path / "disk")) == sorted(links)
    (tmp_path / "circle.gpkg").symlink_to("circle.gpkg")
    done = rssc("classify", scene, "-o", tmp_path / "circle.gpkg", *TILES)
    assert done.code == 1
    assert "leads nowhere" in done.message


_KILLED = """
import os, signal
from rssc_geo.output.partfile import PartFile
PartFile.remove = lambda self: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@posix
def test_a_kill_between_publishing_and_tidying_is_made_good(
    rssc: Rssc, start: Start, scene: Path, tmp_path: Path
) -> None:
    target = tmp_path / "map.gpkg"
    command = ["classify", str(scene), "-o", str(target), *TILES]

    def kill() -> None:
        assert start(*command, before=_KILLED).finish()[0] == -signal.SIGKILL
        assert target.exists()
        assert target.with_name("map.gpkg.part").exists()

    kill()
    other = rssc(*command, "--min-valid", "0.9")  # another run: the map is not its own
    assert other.code == 1
    assert "exists" in other.message
    target.unlink()
    kill()
    assert rssc(*command).code == 0
    assert sorted(os.listdir(tmp_path)) == ["map.gpkg", "scene.tif"]
    assert rssc(*command).code == 1  # a finished map is not replaced


@pytest.mark.slow
@posix
def test_a_map_that_people_have_changed_since_a_kill_is_not_replaced(
    rssc: Rssc, start: Start, scene: Path, tmp_path: Path
) -> None:
    target = tmp_path / "map.gpkg"
    command = ["classify", str(scene), "-o", str(target), *TILES]
    assert start(*command, before=_KILLED).finish()[0] == -signal.SIGKILL
    with closing(sqlite3.connect(target)) as connection, connection:
        connection.execute("CREATE TABLE notes (a)")
    done = rssc(*command)
    assert done.code == 1
    assert "exists" in done.message


_KILLED_BESIDE = """
import os, signal
import rssc_geo.files as files
sync = files.sync
def kill(path):
    sync(path)
    if "beside" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
files.sync = kill
"""


@pytest.mark.slow
@posix
@pytest.mark.parametrize(
    ("option", "name"),
    [("--preview", "beside.png"), ("--report", "beside.html"), ("--areas", "beside.csv")],
)
def test_a_kill_while_something_is_made_beside_a_map_is_made_good(
    rssc: Rssc, start: Start, scene: Path, tmp_path: Path, option: str, name: str
) -> None:
    target = tmp_path / "map.gpkg"
    command = ["classify", str(scene), "-o", str(target), option, str(tmp_path / name), *TILES]
    command += ["--review", "2"]
    assert start(*command, before=_KILLED_BESIDE).finish()[0] == -signal.SIGKILL
    assert len(list(tmp_path.glob(".beside*"))) == 1
    done = rssc(*command, "--json")  # the same again, without --overwrite
    assert done.code == 0, done.err
    assert json.loads(done.out)["tiles_classified"] == 0
    assert sorted(os.listdir(tmp_path)) == sorted([name, "map.gpkg", "scene.tif"])
    assert "map.gpkg exists" in rssc(*command).message


@posix
def test_what_was_made_beside_a_map_before_a_kill_is_made_anew(
    rssc: Rssc, start: Start, scene: Path, tmp_path: Path
) -> None:
    names = [tmp_path / name for name in ("map.gpkg", "first.png", "beside.html")]
    command = ["classify", str(scene), "-o", str(names[0]), *TILES, "--review", "2"]
    command += ["--preview", str(names[1]), "--report", str(names[2])]
    assert start(*command, before=_KILLED_BESIDE).finish()[0] == -signal.SIGKILL
    assert names[1].exists()
    done = rssc(*command)
    assert done.code == 0, done.err
    assert {path.name for path in names} | {"scene.tif"} == set(os.listdir(tmp_path))


@pytest.mark.parametrize("size", [100, 4096, None])
def test_a_part_file_without_its_header_is_refused_in_one_line(
    rssc: Rssc, start: Start, scene: Path, tmp_path: Path, size: int | None
) -> None:
    target = tmp_path / "map.gpkg"
    command = ["classify", str(scene), "-o", str(target), *TILES]
    assert start(*command, before=_KILLED).finish()[0] == -signal.SIGKILL
    target.unlink()
    part = tmp_path / "map.gpkg.part"
    content = part.read_bytes()
    size = len(content) if size is None else size
    part.write_bytes(bytes(size) + content[size:])
    before = part.read_bytes()
    done = rssc(*command)
    assert done.code == 1
    assert "is no part file of this program, or a damaged one" in done.message
    assert part.read_bytes() == before


def test_a_run_that_classified_nothing_leaves_no_part_file(
    rssc: Rssc, scene: Path, tmp_path: Path
) -> None:
    virtual = tmp_path / "x.vrt"
    copy_raster(scene, virtual, driver="VRT")
    content = scene.read_bytes()
    scene.write_bytes(content[: len(content) // 4])
    done = rssc("classify", virtual, "-o", tmp_path / "map.gpkg", *TILES)
    assert done.code == 1
    assert not [name for name in os.listdir(tmp_path) if "map" in name]


def test_provenance_and_report_tell_names_alone_unless_asked(rssc: Rssc, tmp_path: Path) -> None:
    home = tmp_path / "home_alice"
    home.mkdir()
    scene = write_raster(home / "s.tif", texture(300, 300), photometric="rgb")
    area = home / "aoi.gpkg"
    with rasterio.open(scene) as raster:
        gpd.GeoDataFrame(geometry=[shapely.box(*raster.bounds)], crs=raster.crs).to_file(area)
    for more, told in (((), False), (("--full-provenance",), True)):
        target, report = tmp_path / f"{told}.gpkg", tmp_path / f"{told}.html"
        done = rssc(
            "classify", nested(scene), "-o", target, "--aoi", area, "--report", report, *more,
            *TILES,
        )  # fmt: skip
        assert done.code == 0, done.err
        with closing(sqlite3.connect(target)) as connection:
            texts = [text for (text,) in connection.execute("SELECT metadata FROM gpkg_metadata")]
        assert any("home_alice" in text for text in texts) is told
        assert ("home_alice" in report.read_text()) is told
        made = json.loads(texts[0])
        assert Path(made["input"]).name == "two.vrt"
        assert Path(made["options"]["aoi"]).name == "aoi.gpkg"


def test_a_picture_data_sets_captions_are_an_input(rssc: Rssc, tmp_path: Path) -> None:
    captions = tmp_path / "captions.jsonl"
    captions.write_text("")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            pixels = texture(32, 32, number)
            write_raster(tmp_path / name / f"{number}.tif", pixels, photometric="rgb")
    done = rssc("caption", "--pictures", tmp_path, "-o", captions, "--overwrite", "-q")
    assert done.code == 2
    assert "is the input itself" in done.message


def test_a_bundle_is_not_saved_over_files_of_others(
    rssc: Rssc, scene: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    labels = tmp_path / "labels.gpkg"
    with rasterio.open(scene) as raster:
        left, bottom, right, top = raster.bounds
        middle = (left + right) / 2
        boxes = [shapely.box(left, bottom, middle, top), shapely.box(middle, bottom, right, top)]
        gpd.GeoDataFrame({"class": ["a", "b"]}, geometry=boxes, crs=raster.crs).to_file(labels)
    done = rssc(
        "train", "--raster", scene, "--labels", labels, "--field", "class", "-o", folder,
        *whole_tiles("200px"),
    )  # fmt: skip
    assert done.code == 1
    assert "holds README.md, which would be replaced" in done.message
    assert (folder / "README.md").read_text() == "mine"


# The parts.


def test_archives_lead_to_their_file(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("in/b.tif", "x")
    inside = f"/vsizip/{archive}/in/b.tif"
    assert local_file(inside) == str(archive)
    assert local_file(f"/vsizip/{{{archive}}}/in/b.tif") == str(archive)
    assert local_file("/vsicurl/http://127.0.0.1:9/a.tif") is None
    assert local_file("/vsimem/x.tif") is None
    with pytest.raises(Exception, match="is the input itself"):
        check_not_input([archive], [inside])
    before = fingerprint([inside])
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("in/b.tif", "y")
    assert fingerprint([inside]) != before


def test_a_fingerprint_sees_beyond_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    content = bytearray(3_000_000)
    path.write_bytes(content)
    before, stat = (content_mark(path), fingerprint([path])), path.stat()
    content[-1] = 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert content_mark(path) != before[0]
    assert fingerprint([path]) != before[1]
