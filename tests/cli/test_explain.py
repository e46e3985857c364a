"""``rssc-geo explain`` with the embedded weights."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import pytest

from rssc_geo_cli.main import run
from tests.factories import texture, write_raster

from .conftest import Outcome, whole_tiles

INSIDE = "500300,4999500"  # of the scene: row 250, column 150


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A scene whose left column is nodata, and its map with tiles of 200 pixels.

    12 cells, of which 3 are not written.
    """
    folder = tmp_path_factory.mktemp("mapped")
    pixels = texture(800, 600)
    pixels[:, :600, :150] = 0
    scene = write_raster(folder / "scene.tif", pixels, photometric="rgb", nodata=0)
    assert (
        run(
            [
                "classify",
                str(scene),
                "-o",
                str(folder / "map.gpkg"),
                *whole_tiles("200px"),
                "-q",
            ]
        )
        == 0
    )
    return scene, folder / "map.gpkg"


def test_points(rssc: Callable[..., Outcome], scene: Path, tmp_path: Path) -> None:
    done = rssc(
        "explain",
        scene,
        "--at",
        INSIDE,
        "--at",
        "501100,4998500",
        "-o",
        tmp_path / "why",
        *whole_tiles("200px"),
        "--json",
    )
    assert done.code == 0, done.err
    values = json.loads(done.out)
    assert values["folder"] == str(tmp_path / "why")
    assert [(cell["row"], cell["col"]) for cell in values["cells"]] == [(1, 0), (3, 2)]
    for cell in values["cells"]:
        assert (tmp_path / "why" / cell["panel"]).is_file()
        assert (tmp_path / "why" / cell["heat_map"]).is_file()
        assert " ".join(word["text"] for word in cell["words"]) == cell["caption"]
        assert cell["words_read"]
    # The same place by longitude and latitude, told to people.
    again = rssc(
        "explain",
        scene,
        "--at",
        "9.003816,45.148976",
        "--at-crs",
        "EPSG:4326",
        "-o",
        tmp_path / "b",
        *whole_tiles("200px"),
    )
    assert again.code == 0, again.err
    assert again.out.startswith("cell_00001_00000.png  ")
    assert again.out.splitlines()[-1] == str(tmp_path / "b" / "explain.gpkg")


def test_the_least_certain_cells_of_a_map(
    rssc: Callable[..., Outcome], mapped: tuple[Path, Path], tmp_path: Path
) -> None:
    scene, result = mapped
    # The tile size is taken over from the map.
    done = rssc(
        "explain",
        scene,
        "--result",
        result,
        "--cells",
        "3",
        "--where",
        '"row" < 3',
        "-o",
        tmp_path / "why",
        "--progress",
        "json",
    )
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    assert events[-2] == {
        "event": "progress",
        "stage": "explain",
        "done": 3,
        "total": 3,
        "seconds_left": 0.0,
    }
    assert events[-1]["event"] == "result"
    known = gpd.read_file(result, layer="cells", where="row < 3").sort_values("confidence").head(3)
    found = gpd.read_file(tmp_path / "why" / "explain.gpkg", layer="explained")
    unknown = known["class"] == "Unknown"  # what they would have been is explained
    known["class"] = known["class"].where(~unknown, known["runner_up"])
    for field in ("row", "col", "class", "caption"):
        assert found[field].tolist() == known[field].tolist()
    named = ~unknown.to_numpy()
    assert found["confidence"].to_numpy()[named] == pytest.approx(
        known["confidence"].to_numpy()[named], abs=1e-4
    )
    assert "another class" not in done.err


@pytest.mark.slow
def test_maps_of_one_layer(
    rssc: Callable[..., Outcome], mapped: tuple[Path, Path], tmp_path: Path
) -> None:
    scene, _ = mapped
    for name in ("map.fgb", "map.geojson", "map.shp"):
        tiling = [*whole_tiles("300px")]
        assert rssc("classify", scene, "-o", tmp_path / name, "-q", *tiling).code == 0
        done = rssc(
            "explain",
            scene,
            "--result",
            tmp_path / name,
            "--cells",
            1,
            "-o",
            tmp_path / f"{name}.why",
            "--json",
            *tiling,
        )
        assert done.code == 0, done.err
        assert len(json.loads(done.out)["cells"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say which cells to explain"),
        (
            ["--at", INSIDE, "--result", "{result}", "--cells", "3"],
            "--cells and --where choose cells, --at names them",
        ),
        (["--at", INSIDE, "--cells", "3"], "--cells and --where choose from a map"),
        (["--result", "{result}", "--at-crs", "EPSG:4326"], "--at-crs is the CRS of points"),
        (
            ["--result", "{result}", "--cells", "0"],
            "--cells '0' is not a whole number; give 1 or more",
        ),
        (
            ["--at", "9,45"],
            "--at 9,45 lies outside the raster, whose bounds are 500000,4998400,501200,5000000",
        ),
        (["--at", "nan,1"], "has no place in the raster's CRS"),
        (["--at", "1;2"], "is not 2 numbers, X,Y"),
        (["--at", INSIDE, "--at-crs", "EPSG:1"], "--at-crs 'EPSG:1' is not a CRS"),
        (
            ["--at", "500010,4999900"],
            "--at 500010,4999900: less than 50% of the cell's pixels are valid",
        ),
        (
            ["--at", INSIDE, "--bounds", "500800,4998500,501100,4999000"],
            "lies in a cell outside the area of interest",
        ),
        (
            ["--result", "{result}", "--where", "confidence < 0"],
            "--where 'confidence < 0' finds no cell",
        ),
        (
            ["--result", "{result}", "--where", "confidence <"],
            "--where 'confidence <' is not understood",
        ),
        (
            ["--result", "{result}", "--where", "nothing = 1"],
            "--where 'nothing = 1' is not understood",
        ),
        (
            ["--result", "{result}", *whole_tiles("150px")],
            "lies elsewhere than that of",
        ),
        (["--result", "{folder}/none.gpkg"], "none.gpkg does not exist"),
        (["--result", "{folder}/none.txt"], "unknown output format '.txt'"),
        (["--result", "{folder}/map.parquet"], "not GeoParquet"),
        (["--result", "{folder}/other.gpkg"], "has no layer 'cells', only mine"),
        (["--result", "{folder}/bare.gpkg"], "its layer 'cells' has no field 'row'"),
        (["--result", "{folder}/strange.gpkg"], "was made with the model strange 1, not compact"),
        (["--result", "{folder}/text.gpkg"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line(
    rssc: Callable[..., Outcome],
    mapped: tuple[Path, Path],
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    scene, result = mapped
    table = gpd.read_file(result, layer="cells").to_crs(4326)
    table.to_file(tmp_path / "other.gpkg", layer="mine")
    table[["caption", "geometry"]].to_file(tmp_path / "bare.gpkg", layer="cells")
    (tmp_path / "map.parquet").touch()
    (tmp_path / "text.gpkg").write_text("not a database")
    (tmp_path / "strange.gpkg").write_bytes(result.read_bytes())
    with closing(sqlite3.connect(tmp_path / "strange.gpkg")) as connection, connection:
        made = json.dumps(
            {
                "model": {"name": "strange", "version": "1", "sha256": {}, "classes": {"a": ""}},
                "options": {},
            }
        )
        connection.execute(
            "UPDATE gpkg_metadata SET metadata = ? WHERE mime_type = 'application/json'", (made,)
        )
    filled = [option.format(result=result, folder=tmp_path) for option in options]
    if "--result" not in filled:
        filled += [*whole_tiles("200px")]
    done = rssc("explain", scene, "-o", tmp_path / "why", *filled)
    assert done.code in {1, 2, 3}
    assert message in done.message, done.message
    assert not list(tmp_path.glob("why*"))


def test_a_map_of_another_raster(
    rssc: Callable[..., Outcome], mapped: tuple[Path, Path], tmp_path: Path
) -> None:
    moved = write_raster(
        tmp_path / "moved.tif", texture(800, 600), crs="EPSG:32633", photometric="rgb"
    )
    done = rssc("explain", moved, "--result", mapped[1], "-o", tmp_path / "why")
    assert done.code == 1
    assert "lies elsewhere than that of" in done.message
