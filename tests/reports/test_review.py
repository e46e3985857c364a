"""Cells to review: uncertain ones, unlike each other; in every format.

Nothing else of the map changes.
"""

from __future__ import annotations

import sqlite3
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from rssc_geo.errors import InputError, OutputError
from rssc_geo.geometry import TileGrid
from rssc_geo.models import SceneClass, scene_classes
from rssc_geo.output import CellBatch, GeoGrid, LandUseWriter, OutputTarget, read_cells, read_layer
from rssc_geo.reports import Candidates, add_review, check_review, choose_cells

SHAPE = (12, 10)
GEO = GeoGrid(
    TileGrid((SHAPE[0] * 8, SHAPE[1] * 8), (8, 8)),
    Affine(10, 0, 500000, 0, -10, 5200000),
    CRS(32632),
)
CLASSES = tuple(
    SceneClass(i, name, f"#{60 * i:02x}4080", group="" if i % 2 else f"Group of {name}")
    for i, name in enumerate(["Field", "Wood <b>", "Robert'); DROP TABLE x;--", "🌲"])
)


def write_map(
    path: Path, *, classes: int = 4, order: np.ndarray | None = None, **options: object
) -> OutputTarget:
    """A finished map of random cells; ``order``: in which they were classified."""
    rows, cols = (axis.ravel().astype(np.int32) for axis in np.indices(SHAPE))
    probabilities = (
        np.random.default_rng(3).dirichlet(np.full(classes, 0.5), rows.size).astype(np.float32)
    )
    wanted = OutputTarget(path, **options)  # type: ignore[arg-type]
    with LandUseWriter(
        wanted,
        GEO,
        classes=CLASSES[:classes],
        run_key={},
        provenance={},
    ) as writer:
        order = np.arange(rows.size) if order is None else order
        captions = [f"cell {row} {col} \"<i>é</i>'" for row, col in zip(rows, cols, strict=True)]
        for part in np.array_split(order, 3):
            batch = CellBatch(
                rows[part],
                cols[part],
                probabilities[part],
                np.full(len(part), np.nan, np.float32),
                [captions[i] for i in part],
                np.zeros((len(part), 3), np.float32),
            )
            writer.append(batch, int(part[-1]) + 1)
        writer.make()
        writer.discard()
    return wanted


def read_review(wanted: OutputTarget) -> gpd.GeoDataFrame:
    path = wanted.path
    if path.suffix == ".gpkg":
        return gpd.read_file(path, layer="review")
    beside = path.with_name(f"{path.stem}_review{path.suffix}")
    return gpd.read_parquet(beside) if path.suffix == ".parquet" else gpd.read_file(beside)


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "geojson", "parquet", "shp"])
def test_every_format_gets_the_same_cells_with_an_empty_label(tmp_path: Path, suffix: str) -> None:
    wanted = write_map(tmp_path / f"map.{suffix}")
    reference = write_map(
        tmp_path / "reference.gpkg", order=np.random.default_rng(0).permutation(np.prod(SHAPE))
    )
    files = [
        add_review(options, 9, cells_shape=SHAPE, classes=scene_classes(["Port", "Lake"]))
        for options in (wanted, reference)
    ]
    assert files[0] == (wanted.path if suffix == "gpkg" else tmp_path / f"map_review.{suffix}")
    review, expected = (
        read_review(options).sort_values("rank", ignore_index=True)
        for options in (wanted, reference)
    )
    assert review["rank"].tolist() == list(range(1, 10))
    assert review["label"].isna().all() or (review["label"] == "").all()
    for field in ("class", "runner_up", "caption", "reason"):
        assert review[field].tolist() == expected[field].tolist()
    assert (
        review["margin"].is_monotonic_increasing
        or review["margin"].iloc[0] == review["margin"].min()
    )
    assert review["reason"].str.match(r"\d+ % .+ or \d+ % ").all()
    cells = gpd.read_file(reference.path, layer="cells").set_index("caption").geometry
    same_place = review.to_crs(32632).geometry
    for polygon, caption in zip(same_place, review["caption"], strict=True):
        assert polygon.hausdorff_distance(cells[caption]) < 1e-3
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_geopackage_keeps_what_it_held_and_gets_a_styled_layer(tmp_path: Path) -> None:
    wanted = write_map(tmp_path / "map.gpkg")
    before = {name: gpd.read_file(wanted.path, layer=name) for name in ("landuse", "cells")}
    add_review(wanted, 5, cells_shape=SHAPE, classes=scene_classes(["Port", "Lake"]))
    for name, frame in before.items():
        assert gpd.read_file(wanted.path, layer=name).equals(frame)
    with closing(sqlite3.connect(wanted.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA user_version").fetchone() == (10300,)
        style = (
            "SELECT styleQML FROM layer_styles WHERE f_table_name = 'review' AND useAsDefault = 1"
        )
        ((qml,),) = connection.execute(style).fetchall()
        aliases = connection.execute(
            "SELECT name FROM gpkg_data_columns WHERE table_name = 'review'"
        ).fetchall()
    root = ET.fromstring(qml)
    assert (
        len(root.findall("renderer-v2/rules/rule"))
        == len(root.findall("renderer-v2/symbols/symbol"))
        == 2
    )
    assert ("Your label",) in aliases
    choice = root.find("fieldConfiguration/field[@name='label']/editWidget[@type='ValueMap']")
    assert choice is not None
    assert [found.get("value") for found in choice.iter("Option") if found.get("value")] == [
        "Port",
        "Lake",
    ]


def test_more_than_there_are_gives_all_and_one_class_has_no_other(tmp_path: Path) -> None:
    wanted = write_map(tmp_path / "map.gpkg", classes=1)
    add_review(wanted, 1000, cells_shape=SHAPE, classes=scene_classes(["Port", "Lake"]))
    review = read_review(wanted)
    assert len(review) == np.prod(SHAPE)
    assert review["reason"].unique().tolist() == ["100 % Field"]


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "map_review.fgb").touch()
    check_review(OutputTarget(tmp_path / "map.gpkg"))
    with pytest.raises(OutputError, match="map_review.fgb exists"):
        check_review(OutputTarget(tmp_path / "map.fgb"))
    check_review(OutputTarget(tmp_path / "map.fgb", overwrite=True))


def test_a_failure_leaves_the_map_as_it_was(tmp_path: Path) -> None:
    wanted = write_map(tmp_path / "map.gpkg")
    before = wanted.path.read_bytes()
    (tmp_path / "map.gpkg-wal").touch()  # someone has it open
    with pytest.raises(OutputError, match="open in another program"):
        add_review(wanted, 5, cells_shape=SHAPE, classes=scene_classes(["Port", "Lake"]))
    assert wanted.path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.gpkg", "map.gpkg-wal"]


def cells_of(probabilities: np.ndarray, places: np.ndarray) -> Candidates:
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    top = np.take_along_axis(probabilities, order, axis=1)
    return Candidates(
        first=order[:, 0],
        second=order[:, 1],
        confidence=top[:, 0],
        margin=top[:, 0] - top[:, 1],
        places=places,
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 6), st.integers(1, 12))
def test_the_rule_is_the_one_that_is_documented(
    seed: int, n: int, classes: int, count: int
) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), n)
    cells = cells_of(probabilities, random.random((n, 2)))
    chosen = choose_cells(cells, count)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, n)
    two = np.where(probabilities >= np.sort(probabilities, axis=1)[:, [-2]], probabilities, 0)
    pool = np.argsort(cells.margin, kind="stable")[: 20 * count]
    expected = [pool[0]]
    while len(expected) < min(count, n):
        scores = {
            i: (
                (1 - cells.margin[i])
                * min(
                    np.sqrt(
                        ((two[i] - two[j]) ** 2).sum() / 2
                        + ((cells.places[i] - cells.places[j]) ** 2).sum()
                    )
                    for j in expected
                )
            )
            for i in pool
            if i not in expected
        }
        expected.append(max(scores, key=lambda i: scores[i]))
    np.testing.assert_array_equal(chosen, expected)


def test_one_hesitation_is_not_asked_about_again_and_again(tmp_path: Path) -> None:
    """Hundreds of neighbors between two classes, a few cells between two others.

    Both are asked about.
    """
    alike = np.tile([0.41, 0.39, 0.1, 0.1], (300, 1))
    other = np.tile([0.05, 0.05, 0.5, 0.4], (3, 1))
    places = np.concatenate([np.full((300, 2), 0.5), np.full((3, 2), 0.5)])
    chosen = choose_cells(cells_of(np.concatenate([alike, other]), places), 20)
    assert (chosen[:2] >= 300).sum() == 1


def test_cells_are_read_back_from_every_format_as_they_were_written(tmp_path: Path) -> None:
    tables = []
    for suffix in ("gpkg", "fgb", "geojson", "parquet", "shp"):
        wanted = write_map(tmp_path / f"map.{suffix}")
        layer = read_cells(wanted.path)
        assert layer.crs == (CRS(4326) if suffix == "geojson" else CRS(32632))
        cells = [
            cell for batch in layer.batches() for cell in batch.drop_columns(["geom"]).to_pylist()
        ]
        tables.append(sorted(cells, key=lambda cell: (cell["row"], cell["col"])))
        frame = read_layer(wanted.path, "cells")
        assert frame.crs == layer.crs
        assert len(frame) == len(cells)
        assert set(read_layer(wanted.path, "landuse")["class"]) == set(frame["class"])
    assert all(table == tables[0] for table in tables)
    wanted.path.unlink()
    for read in (read_cells, lambda path: read_layer(path, "landuse")):
        with pytest.raises(InputError, match="cannot be read back"):
            read(wanted.path.with_suffix(".gone.shp"))
