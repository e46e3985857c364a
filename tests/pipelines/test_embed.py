"""Embeddings as data: what GeoPandas and DuckDB read of the table."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import duckdb
import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio

import rssc_geo
from rssc_geo import BatchOptions, ClassifyOptions, EmbedOptions, InputError, UsageError
from rssc_geo.inference import Predictor
from rssc_geo_cli.main import run
from tests.factories import texture, with_changed_bits, write_raster
from tests.file_server import serve_folder

TILES = {"tile_size": "96px", "cell_size": "32px"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two scenes in two CRS, the first dated by its tags; and one without data."""
    folder = tmp_path_factory.mktemp("scenes")
    first = write_raster(folder / "first.tif", texture(128, 96))
    with rasterio.open(first, "r+") as raster:
        raster.update_tags(TIFFTAG_DATETIME="2023:07:14 09:30:00")
    second = write_raster(folder / "second.tif", texture(96, 96, seed=1), crs="EPSG:32633")
    empty = write_raster(folder / "empty.tif", texture(96, 96) * 0, nodata=0)
    return [first, second, empty]


@pytest.fixture(scope="module")
def model() -> Predictor:
    return rssc_geo.load_model("compact", captioner="none", device="cpu")


def test_rows_of_all_scenes_in_one_table(
    scenes: list[Path], tmp_path: Path, model: Predictor
) -> None:
    made = rssc_geo.embed(scenes, tmp_path / "cells.parquet", EmbedOptions(**TILES), model=model)
    assert (made.rows, made.width, made.scenes) == (12 + 9, 192, 2)
    assert os.listdir(tmp_path) == ["cells.parquet"]
    table = made.to_geopandas()
    assert table.crs.to_epsg() == 4326
    assert table["scene"].tolist() == ["first"] * 12 + ["second"] * 9
    assert str(table["date"][0]) == "2023-07-14 09:30:00+00:00"
    assert table["date"][12:].isna().all()
    assert set(table["model"]) == {"compact"}
    vectors = np.stack(table["embedding"].to_numpy())
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=2e-3)
    metadata = pq.read_metadata(made.path).metadata
    assert json.loads(metadata[b"rssc_geo"])["scenes"] == ["first", "second"]

    # The same cells as of a map: outlines, classes, order.
    rssc_geo.classify(scenes[0], tmp_path / "map.gpkg", ClassifyOptions(**TILES), model=model)
    cells = gpd.read_file(tmp_path / "map.gpkg", layer="cells")
    assert cells["class"].tolist() == table["class"][:12].tolist()
    moved = cells.to_crs("EPSG:4326").geometry
    assert moved.geom_equals_exact(table.geometry[:12], tolerance=1e-9).all()


def test_a_scene_that_is_named_alone_is_one(
    scenes: list[Path], tmp_path: Path, model: Predictor
) -> None:
    made = rssc_geo.embed(scenes[1], tmp_path / "e.parquet", EmbedOptions(**TILES), model=model)
    assert made.scenes == 1
    with pytest.raises(UsageError, match="between two dates: give OLD and NEW"):
        rssc_geo.change(str(scenes[0]), tmp_path / "change.gpkg")


def test_changed_bits_of_the_table_are_told(
    scenes: list[Path], tmp_path: Path, model: Predictor
) -> None:
    made = rssc_geo.embed(scenes[:1], tmp_path / "e.parquet", EmbedOptions(**TILES), model=model)
    for column in with_changed_bits(made.path, ("class", "confidence", "embedding")):
        with pytest.raises(InputError, match=r"e\.parquet cannot be read") as caught:
            made.to_geopandas()
        assert "\n" not in str(caught.value), column


def test_duckdb_ranks_cells_by_likeness(
    scenes: list[Path], tmp_path: Path, model: Predictor
) -> None:
    path = tmp_path / "cells.parquet"
    table = rssc_geo.embed(scenes[:1], path, EmbedOptions(**TILES), model=model).to_geopandas()
    vectors = np.stack(table["embedding"].to_numpy()).astype(np.float32)
    query = "SELECT row, col, embedding::FLOAT[192] AS v FROM read_parquet(?)"
    found = duckdb.execute(
        f"WITH cells AS ({query}) SELECT b.row, b.col FROM cells a, cells b"
        " WHERE a.row = 0 AND a.col = 0 ORDER BY array_inner_product(a.v, b.v) DESC LIMIT 3",
        [str(path)],
    ).fetchall()
    best = np.argsort(-(vectors @ vectors[0]), kind="stable")[:3]
    assert found == [(table["row"][i], table["col"][i]) for i in best.tolist()]


def test_a_stopped_run_goes_on(
    scenes: list[Path], tmp_path: Path, model: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = tmp_path / "cells.parquet", EmbedOptions(**TILES)
    whole = rssc_geo.embed(scenes, tmp_path / "whole.parquet", options, model=model)
    look, looked = Predictor.classify_block, []

    def stop(self: Predictor, *arguments: object, **more: object) -> object:
        looked.append(1)
        if len(looked) == 2:
            raise KeyboardInterrupt
        return look(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "classify_block", stop)
        with pytest.raises(KeyboardInterrupt):
            rssc_geo.embed(scenes, path, options, model=model)
    assert not path.exists()
    again = rssc_geo.embed(scenes, path, options, model=model)
    assert again.tiles_classified < whole.tiles_classified
    assert again.to_geopandas().equals(whole.to_geopandas())
    assert sorted(os.listdir(tmp_path)) == ["cells.parquet", "whole.parquet"]


@pytest.mark.parametrize("served", [False, True])
def test_a_scene_that_changes_while_others_are_looked_at_is_told(
    tmp_path: Path, model: Predictor, served: bool
) -> None:
    first = write_raster(tmp_path / "first.tif", texture(128, 96))
    write_raster(tmp_path / "second.tif", texture(96, 96, seed=1))
    path, starts = tmp_path / "cells.parquet", []

    def touch(stage: str, done: int, total: int) -> None:
        starts.append((stage, done))
        if starts.count(("classify", 0)) == 2:
            os.utime(first, (1, 1))

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(serve_folder(tmp_path)) if served else str(tmp_path)
        sources = [f"{folder}/first.tif", f"{folder}/second.tif"]
        with pytest.raises(InputError, match=r"first\.tif changed while it was being read"):
            rssc_geo.embed(sources, path, EmbedOptions(**TILES), model=model, progress=touch)
        assert not path.exists()
        again = rssc_geo.embed(sources, path, EmbedOptions(**TILES), model=model)
    assert (again.rows, len(again.to_geopandas())) == (21, 21)


def test_a_map_with_its_table(scenes: list[Path], tmp_path: Path, model: Predictor) -> None:
    """Of ``classify`` and of ``batch``, with the date that they are told."""
    table = tmp_path / "cells.parquet"
    options = ClassifyOptions(**TILES, embeddings=str(table), date="2024-06-01")
    result = rssc_geo.classify(scenes[0], tmp_path / "map.gpkg", options, model=model)
    assert result.summary.paths == (tmp_path / "map.gpkg", table)
    rows = gpd.read_parquet(table)
    assert len(rows) == result.summary.cells == 12
    assert str(rows["date"][0]) == "2024-06-01 00:00:00+00:00"
    alone = rssc_geo.embed(
        scenes[:1], tmp_path / "alone.parquet", EmbedOptions(**TILES), model=model
    ).to_geopandas()
    assert alone.drop(columns="date").equals(rows.drop(columns="date"))

    (tmp_path / "list.csv").write_text(
        f"input,date\n{scenes[0]},2022-01-02T03:04:05+01:00\n{scenes[1]},\n"
    )
    rssc_geo.run_batch(
        [tmp_path / "list.csv"],
        tmp_path / "maps",
        BatchOptions(
            **TILES, captioner="none", device="cpu", embeddings=str(tmp_path / "maps/{id}.parquet")
        ),
    )
    first = gpd.read_parquet(tmp_path / "maps/first.parquet")
    assert str(first["date"][0]) == "2022-01-02 02:04:05+00:00"
    assert first.drop(columns="date").equals(rows.drop(columns="date"))
    assert len(gpd.read_parquet(tmp_path / "maps/second.parquet")) == 9


def test_what_cannot_be_meant(
    scenes: list[Path], tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = str(scenes[0])
    for arguments, message in (
        (["embed", scene, "-o", "x.gpkg"], "written as PARQUET: name it .parquet"),
        (["embed", scene, scene, "-o", "x.parquet"], "first.tif is given twice"),
        (
            # before a model is loaded
            ["embed", scene, "-o", "x.parquet", "--date", "June", "--device", "cuda:99"],
            "--date 'June' is no date",
        ),
        (["embed", scene, "-o", "x.parquet", "--model", str(bundle)], "without captions"),
        (
            ["classify", scene, "-o", "x.gpkg", "--embeddings", "x.csv"],
            "written as PARQUET: name it .parquet",
        ),
    ):
        assert run([str(tmp_path / a) if a.startswith("x.") else a for a in arguments]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1
    assert os.listdir(tmp_path) == ["bundle"]
    with pytest.raises(UsageError, match="two results"):
        rssc_geo.classify(
            scene,
            tmp_path / "x.parquet",
            ClassifyOptions(embeddings=str(tmp_path / "x.parquet")),
        )
