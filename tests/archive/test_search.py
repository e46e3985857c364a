"""Searches in an archive: by words, by example, with filters; and with an index."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from PIL import Image

import rssc_geo
from rssc_geo import (
    IndexOptions,
    InputError,
    NothingToClassifyError,
    OutputError,
    SearchOptions,
    UsageError,
)
from rssc_geo.archive import (
    ArchiveCard,
    ArchiveStore,
    CellFilter,
    SceneEntry,
    make_store,
)
from rssc_geo.inference import Predictor
from rssc_geo.models import class_embedding
from rssc_geo.output import embedding_schema
from rssc_geo_cli.main import run
from tests.factories import texture, write_raster

WORDS = "a river between green fields"


@pytest.fixture(scope="module")
def model() -> Predictor:
    return rssc_geo.load_model("compact", captioner="none", device="cpu")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes in two CRS, one of them dated, of 12 and 9 cells."""
    folder = tmp_path_factory.mktemp("archive")
    first = write_raster(folder / "first.tif", texture(128, 96))
    with rasterio.open(first, "r+") as raster:
        raster.update_tags(TIFFTAG_DATETIME="2023:07:14 09:30:00")
    sand = np.array([(205,), (180,), (140,)]) + texture(96, 96, seed=1)[:1].reshape(1, -1) / 16
    sand = sand.reshape(3, 96, 96).astype(np.uint8)
    write_raster(folder / "second.tif", sand, crs="EPSG:32633")
    options = IndexOptions(tile_size="96px", cell_size="32px", captioner="none", device="cpu")
    rssc_geo.index([folder / "*.tif"], folder / "made", options)
    return folder / "made"


def cells(archive: Path) -> gpd.GeoDataFrame:
    """All cells of the archive, by the tables that it was made from."""
    tables = [gpd.read_parquet(path) for path in sorted(archive.glob("scenes/*.parquet"))]
    return gpd.pd.concat(tables, ignore_index=True)


def test_words_rank_cells_as_their_inner_products_do(
    archive: Path, tmp_path: Path, model: Predictor
) -> None:
    out = tmp_path / "hits.gpkg"
    found = rssc_geo.search(archive, WORDS, out, SearchOptions(hits=5), model=model)
    table = cells(archive)
    vectors = np.stack(table["embedding"].to_numpy()).astype(np.float32)
    scores = vectors @ class_embedding(model.model, "x", [WORDS]).numpy()
    best = np.argsort(-scores, kind="stable")[:5]
    assert [(h.scene, h.row, h.col) for h in found.hits] == list(
        table.loc[best, ["scene", "row", "col"]].itertuples(index=False, name=None)
    )
    np.testing.assert_allclose([hit.score for hit in found.hits], scores[best], atol=2e-3)
    assert found.searched == 21

    layer = gpd.read_file(out, layer="hits")
    assert layer["rank"].tolist() == [1, 2, 3, 4, 5]
    assert layer.crs.to_epsg() == 4326
    assert layer.geometry.geom_equals_exact(
        table.geometry[best].reset_index(drop=True), tolerance=1e-9
    ).all()
    assert set(layer["source"]) <= {"first.tif", "second.tif"}  # names, no folders
    with sqlite3.connect(out) as connection:
        styles = connection.execute("SELECT styleName FROM layer_styles").fetchall()
    assert ("class",) in styles


def test_an_example_finds_itself_and_is_combined_with_words(
    archive: Path, model: Predictor
) -> None:
    source = archive.parent / "second.tif"
    with rasterio.open(source) as raster:
        point = raster.xy(40, 70)  # cell 1, 2
    like = SearchOptions(like=str(source), at=(point,), hits=1)
    (hit,) = rssc_geo.search(archive, options=like, model=model).hits
    assert (hit.scene, hit.row, hit.col) == ("second", 1, 2)
    assert hit.score == pytest.approx(1, abs=2e-3)
    (alone,) = rssc_geo.search(archive, " ", options=like, model=model).hits
    assert alone == hit

    by = {
        name: np.array([h.score for h in rssc_geo.search(archive, words, options=o).hits])
        for name, words, o in (
            ("words", WORDS, SearchOptions()),
            ("both", WORDS, SearchOptions(like=str(source), at=(point,))),
        )
    }
    assert not np.allclose(by["words"], by["both"])
    unlike = SearchOptions(
        like=str(source), at=(point,), unlike=str(archive.parent / "first.tif"), hits=21
    )
    against = rssc_geo.search(archive, options=unlike, model=model)
    plain = rssc_geo.search(
        archive, options=SearchOptions(like=str(source), at=(point,), hits=21), model=model
    )

    def lead(result: rssc_geo.SearchResult) -> float:
        """The difference between the scores of the second scene's cells and the first's."""
        means = [
            np.mean([h.score for h in result.hits if h.scene == scene])
            for scene in ("second", "first")
        ]
        return float(means[0] - means[1])

    assert lead(against) > lead(plain) > 0


def test_an_area_is_an_example(archive: Path, tmp_path: Path, model: Predictor) -> None:
    table = cells(archive)
    one = table[(table["scene"] == "first") & (table["row"] == 2) & (table["col"] == 1)]
    one[["row", one.geometry.name]].to_file(tmp_path / "area.gpkg")
    options = SearchOptions(
        like=str(archive.parent / "first.tif"), like_area=str(tmp_path / "area.gpkg"), hits=1
    )
    (hit,) = rssc_geo.search(archive, options=options, model=model).hits
    assert (hit.scene, hit.row, hit.col) == ("first", 2, 1)


def test_filters(archive: Path, model: Predictor) -> None:
    def scenes(**options: object) -> list[str]:
        found = rssc_geo.search(archive, WORDS, options=SearchOptions(**options), model=model)
        return [hit.scene for hit in found.hits]

    assert scenes(since="2023-07-14") == ["first"] * 12
    assert scenes(until="2023-07-14T09:30:01Z") == ["first"] * 12
    assert sorted(scenes(per_scene=2)) == ["first"] * 2 + ["second"] * 2
    west, south, east, north = cells(archive).iloc[-9:].total_bounds
    assert scenes(bounds=(west, south, east, north)) == ["second"] * 9
    known = cells(archive)["class"]
    name = known.iloc[0]
    assert len(scenes(only_classes=(name,))) == (known == name).sum()
    assert len(scenes(exclude_classes=(name,))) == (known != name).sum()
    group = cells(archive)["group"]
    assert len(scenes(exclude_classes=(name.upper(),))) == (known != name).sum()
    assert len(scenes(only_classes=(group.iloc[0].lower(),))) == (group == group.iloc[0]).sum()
    assert len(scenes(exclude_classes=("unknown",))) == (known != "Unknown").sum()
    for nothing in ("x' OR '1'='1", "Rivr"):  # a slip would leave all cells in
        for which in ("only_classes", "exclude_classes"):
            with pytest.raises(UsageError, match="has no class or group"):
                scenes(**{which: (nothing,)})
    with pytest.raises(NothingToClassifyError, match="21 cells of 2 scenes"):
        scenes(until="2023-07-14T09:30:00Z")


def test_bounds_at_the_antimeridian(tmp_path: Path, model: Predictor) -> None:
    """The cell on it touches boxes on both sides, and none in between."""
    transform = Affine(2.0, 0, 833_900, 0, -2.0, 100)  # UTM 60N, 180° is at some 833 978 m
    source = write_raster(
        tmp_path / "fiji.tif", texture(96, 96), crs="EPSG:32660", transform=transform
    )
    options = IndexOptions(tile_size="96px", captioner="none", cell_size="96px", device="cpu")
    rssc_geo.index([source], tmp_path / "archive", options)

    def count(*bounds: float) -> int:
        asked = SearchOptions(bounds=bounds)
        return len(rssc_geo.search(tmp_path / "archive", WORDS, options=asked, model=model).hits)

    sheet = SearchOptions(sheet=str(tmp_path / "hits.html"))
    found = rssc_geo.search(tmp_path / "archive", WORDS, options=sheet, model=model)
    assert abs(found.as_dict()["hits"][0]["lon"]) > 179
    assert count(179, -1, 180, 1) == count(-180, -1, -179, 1) == 1
    with pytest.raises(NothingToClassifyError):
        count(0, -1, 9, 1)


def test_a_place_beyond_the_antimeridian_has_two_longitudes(
    tmp_path: Path, model: Predictor
) -> None:
    """A hit is at -179.9, where the longitudes of the raster go on to 180.1."""
    step = 2e-5
    transform = Affine(step, 0, 180 - 32 * step, 0, -step, -17)
    source = write_raster(
        tmp_path / "fiji.tif", texture(96, 96), crs="EPSG:4326", transform=transform
    )
    options = IndexOptions(tile_size="96px", cell_size="32px", captioner="none", device="cpu")
    rssc_geo.index([source], tmp_path / "archive", options)
    for longitude in (180 + 40 * step, -180 + 40 * step):
        like = SearchOptions(like=str(source), at=((longitude, -17 - 10 * step),), hits=1)
        (hit,) = rssc_geo.search(tmp_path / "archive", options=like, model=model).hits
        assert (hit.row, hit.col) == (0, 2)


def test_mistakes_are_one_line(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code, message in (
        ([archive], 2, "say what to look for"),
        ([archive, "☃☃"], 2, "holds no word the text encoder knows"),
        ([tmp_path, "river"], 1, "holds no archive.json"),
        ([archive, "river", "--since", "June"], 2, "--since 'June' is no date"),
        ([archive, "river", "--bounds", "9,0,8,1"], 2, "lower left corner"),
        ([archive, "river", "--at", "1,2"], 2, "places of --like"),
        ([archive, "river", "--unlike-at", "1,2"], 2, "place of --unlike"),
        ([archive, "--like", "none.tif"], 1, "none.tif"),
        (
            [archive, "a", "--unlike", archive.parent / "first.tif", "--unlike-at", "1,2"],
            2,
            "--unlike-at 1,2 lies outside",
        ),
        ([archive, "river", "-o", "hits.csv"], 2, "unknown output format"),
        ([archive, "river", "--only-classes", "None"], 2, "no class or group 'None'"),
    ):
        assert run(["search", *map(str, arguments)]) == code
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1


def test_a_lost_database_is_told(archive: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(archive, tmp_path / "moved")
    shutil.rmtree(moved / "cells.lancedb")
    with pytest.raises(InputError, match="has lost its database"):
        rssc_geo.search(moved, WORDS)
    assert not (moved / "cells.lancedb").exists()


def test_programs_read_json(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["search", str(archive), "river", "-n", "2", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [hit["rank"] for hit in values["hits"]] == [1, 2]
    assert values["searched"] == 21
    lon, lat = values["hits"][0]["lon"], values["hits"][0]["lat"]
    assert cells(archive).total_bounds[0] <= lon <= cells(archive).total_bounds[2]
    assert 45 < lat < 46
    assert run(["search", str(archive), "river", "-n", "2"]) == 0
    assert "among 21 cells" in capsys.readouterr().out


def test_a_contact_sheet(archive: Path, tmp_path: Path, model: Predictor) -> None:
    """Pictures of the cells themselves, links from the map to them, and nothing but text."""
    sheet = tmp_path / "hits.html"
    asked = '<script>alert("x")</script> river'
    found = rssc_geo.search(
        archive, asked, options=SearchOptions(hits=15, sheet=str(sheet)), model=model
    )
    assert found.paths == (sheet,)
    page = sheet.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count('<figure id="hit-') == page.count('<a href="#hit-') == 15
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    boxes = re.findall(
        r"left: ([\d.]+)%; top: ([\d.]+)%; width: ([\d.]+)%; height: ([\d.]+)%", page
    )
    assert len(pictures) == len(boxes) == 15
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]
    assert (
        len({width / height for width, height in sizes}) == 1
    )  # cells that edges cut are no slivers
    for hit, picture, numbers in zip(found.hits, pictures, boxes, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))).astype(float)
        height, width = pixels.shape[:2]
        left, top, across, down = (float(number) / 100 for number in numbers)
        rows = slice(round(top * height), round((top + down) * height))
        cell = pixels[rows, round(left * width) : round((left + across) * width)].mean((0, 1))
        with rasterio.open(hit.source) as raster:
            window = ((hit.row * 32, hit.row * 32 + 32), (hit.col * 32, hit.col * 32 + 32))
            real = raster.read(window=window).mean((1, 2))
        np.testing.assert_allclose(cell, real, atol=6)
    source = archive.parent / "first.tif"
    (tmp_path / "like.html").symlink_to(source)
    onto = SearchOptions(like=str(source), sheet=str(tmp_path / "like.html"), overwrite=True)
    with pytest.raises(UsageError, match="is the input itself"):
        rssc_geo.search(archive, options=onto, model=model)
    with pytest.raises(OutputError, match="exists"):
        rssc_geo.search(archive, asked, options=SearchOptions(sheet=str(sheet)), model=model)


def test_a_sheet_without_the_rasters(tmp_path: Path, model: Predictor, caplog: Any) -> None:
    source = write_raster(tmp_path / "gone.tif", texture(96, 96))
    options = IndexOptions(tile_size="96px", captioner="none", device="cpu")
    rssc_geo.index([source], tmp_path / "archive", options)
    source.unlink()
    sheet = tmp_path / "hits.html"
    shown = SearchOptions(sheet=str(sheet))
    rssc_geo.search(tmp_path / "archive", WORDS, options=shown, model=model)
    assert "no raster" in sheet.read_text(encoding="utf-8")
    assert "no pictures of gone" in caplog.text


def test_many_cells_are_found_through_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells around 40 directions; what comes later is found too, without building it anew."""
    monkeypatch.setattr("rssc_geo.archive.store.APPROXIMATE_FROM", 4000)
    random = np.random.default_rng(0)
    centers = random.normal(size=(40, 16))
    store = make_store(tmp_path, ArchiveCard("compact", "1", "0a", 16))
    vectors = {}
    for number in range(3):
        noise = 0.3 * random.normal(size=(2000, 16))
        found = centers[random.integers(0, 40, 2000)] + noise
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        vectors[f"s{number}"] = found.astype(np.float16)
        table = write_table(tmp_path / f"s{number}.parquet", vectors[f"s{number}"])
        store.put([SceneEntry(f"s{number}", "x.tif", "mark", table)])
        store.tidy()
        if number == 1:
            assert store.card.indexed_rows == 4000
    assert store.card.indexed_rows == 4000
    assert len(store) == 6000
    stats = store._cells.index_stats("embedding")
    assert (stats.num_indexed_rows, stats.num_unindexed_rows) == (6000, 0)

    last = ArchiveStore(tmp_path, store.card)
    everything = np.concatenate(list(vectors.values())).astype(np.float32)
    for query in everything[5::1500]:
        exact = last.nearest(query, 10, CellFilter(), exact=True)
        near = last.nearest(query, 10, CellFilter())
        best = np.sort(everything @ query)[::-1][:10]
        np.testing.assert_allclose(exact["score"].to_numpy(), best, atol=2e-3)
        assert len(set(places(exact)) & set(places(near))) >= 8
    later = CellFilter(since=datetime(2024, 1, 1, tzinfo=UTC))
    assert len(last.nearest(everything[0], 5, later)) == 5
    # More than lie in the partitions that are looked at.
    assert len(last.nearest(everything[0], 3000, CellFilter())) == 3000


def places(found: pa.Table) -> list[tuple[str, int]]:
    return list(zip(found["scene"].to_pylist(), found["row"].to_pylist(), strict=True))


def write_table(path: Path, vectors: np.ndarray) -> Path:
    """A table of cells with these embeddings."""
    import shapely

    count, width = vectors.shape
    columns = {
        "scene": ["x"] * count,
        "date": [datetime(2024, 6, 1, tzinfo=UTC)] * count,
        "class": ["Forest"] * count,
        "group": ["Forest"] * count,
        "confidence": [0.5] * count,
        "caption": [""] * count,
        "row": range(count),
        "col": [0] * count,
        "model": ["compact"] * count,
        "version": ["1"] * count,
        "geom": [shapely.to_wkb(shapely.box(8, 45, 9, 46))] * count,
    }
    schema = embedding_schema(width)
    arrays = {
        name: pa.array(values, schema.field(name).type) for name, values in columns.items()
    } | {"embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)}
    table = pa.table([arrays[name] for name in schema.names], schema=schema)
    pq.write_table(table, path)
    return path


def test_odd_but_valid_limits(archive: Path, model: Predictor) -> None:
    for since, hits in (("0001-01-01", 1), ("2023-01-01", 10**30)):
        found = rssc_geo.search(
            archive, WORDS, options=SearchOptions(since=since, hits=hits), model=model
        )
        assert {hit.scene for hit in found.hits} == {"first"}


def test_files_of_the_archive_are_never_replaced(archive: Path, model: Predictor) -> None:
    options = SearchOptions(overwrite=True)
    before = (archive / "scenes" / "first.gpkg").read_bytes()
    for output in (archive / "scenes" / "first.gpkg", archive / "new.gpkg"):
        with pytest.raises(UsageError, match="lies in the archive"):
            rssc_geo.search(archive, WORDS, output, options, model=model)
    assert (archive / "scenes" / "first.gpkg").read_bytes() == before
