"""Finished maps that others have edited, or that are damaged."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import CRS

from rssc_geo import RefineOptions, refine
from rssc_geo.errors import InputError
from rssc_geo.geometry import TileGrid
from rssc_geo.models import scene_classes
from rssc_geo.output import FinishedMap, format_of, read_layer, shown_classes
from tests.factories import read_cells, with_changed_bits, write_map

from .conftest import NORTH_UP, Case

NAMES = ["Forest", "Farmland", "OpenWater"]
GRID = np.array([[0, 1, 2], [0, 1, -1], [2, 2, 2]])

DAMAGE = {
    "no cells": "DELETE FROM cells",
    "no class": "UPDATE cells SET class = NULL",
    "an empty class": "UPDATE cells SET class = ''",
    "no UTF-8": "UPDATE cells SET class = x'ff00'",
    "no confidence": "UPDATE cells SET confidence = NULL WHERE fid = 1",
    "a confidence above 1": "UPDATE cells SET confidence = 5 WHERE fid = 1",
    "an infinite confidence": "UPDATE cells SET confidence = 9e999 WHERE fid = 1",
    "no class of a region": "UPDATE landuse SET class = NULL WHERE fid = 1",
    "no class of all regions": "UPDATE landuse SET class = NULL",
    "no UTF-8 of a region": "UPDATE landuse SET class = x'ff00' WHERE fid = 1",
    "no area of a region": "UPDATE landuse SET area_m2 = NULL WHERE fid = 1",
    "no area of a class": "UPDATE landuse SET area_m2 = NULL WHERE class = 'Forest'",
    "an area below 0": "UPDATE landuse SET area_m2 = -5 WHERE fid = 1",
    "an infinite area": "UPDATE landuse SET area_m2 = 9e999 WHERE fid = 1",
    "no cells of a region": "UPDATE landuse SET cells = NULL WHERE fid = 1",
    "no cells of all regions": "UPDATE landuse SET cells = NULL",
    "no row": "UPDATE cells SET row = NULL",
    "a row above the grid": "UPDATE cells SET row = -5",
    "a row far away": "UPDATE cells SET row = 2000000000, col = 2000000000 WHERE fid = 1",
    "no outline": "UPDATE cells SET geom = NULL WHERE fid = 1",
    "a damaged outline": "UPDATE cells SET geom = x'4750' WHERE fid = 1",
    "no place on Earth": "UPDATE gpkg_geometry_columns SET srs_id = -1",
}


def edited(path: Path, statement: str) -> Path:
    write_map(path, GRID, NAMES)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute(statement)
    return path


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of pyogrio, about the same
@pytest.mark.parametrize("name", DAMAGE)
def test_maps_that_others_have_edited_are_refused_in_one_line(name, tmp_path) -> None:
    path = edited(tmp_path / "map.gpkg", DAMAGE[name])
    for read in (
        lambda: FinishedMap(path).cells(),
        lambda: refine(path, tmp_path / "out.gpkg", RefineOptions(majority=1)),
    ):
        with pytest.raises(InputError, match=r"map\.gpkg") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["map.gpkg"]


@pytest.mark.parametrize("path", ["map.fgb", "map.geojson", "map.parquet", "map.shp"])
def test_regions_without_a_value_are_refused_in_every_format(path, tmp_path) -> None:
    landuse = format_of(tmp_path / path).layer_path(tmp_path / path, "landuse")
    for name in ("class", "cells", "area_m2"):
        write_map(tmp_path / path, GRID, NAMES)
        table = read_layer(tmp_path / path, "landuse")
        table[name] = table[name].astype(object if name == "class" else "Float64")
        table.loc[0, name] = None
        landuse.unlink()
        if landuse.suffix == ".parquet":
            table.to_parquet(landuse)
        else:
            table.to_file(landuse)
        with pytest.raises(InputError, match=f"edited: 1 regions have no valid {name}"):
            FinishedMap(tmp_path / path)
        for file in tmp_path.iterdir():
            file.unlink()


def test_a_cell_far_from_the_others_costs_no_memory(tmp_path) -> None:
    """A grid of all rows and columns between them would have 2.5e15 cells."""
    far = "UPDATE cells SET row = 50000000, col = 50000000 WHERE row = 0 AND col = 0"
    path = edited(tmp_path / "map.gpkg", far)
    codes = FinishedMap(path).cells().codes
    whole = FinishedMap(write_map(tmp_path / "whole.gpkg", GRID, NAMES))
    assert codes.tolist() == whole.cells().codes.tolist()
    for options in (RefineOptions(), RefineOptions(majority=1, min_area=50.0)):
        made = refine(path, tmp_path / "out.gpkg", replace(options, overwrite=True))
        assert made.cells == 8
    place = read_cells(tmp_path / "out.gpkg").index
    assert (50_000_000, 50_000_000) in place


def test_blocks_far_apart_are_refined_as_each_alone(tmp_path) -> None:
    chance = np.random.default_rng(0)
    block = chance.integers(0, 3, (12, 12))
    sparse = np.full((400, 300), -1)
    sparse[:12, :12], sparse[380:392, 200:212] = block, block
    totals = []
    for name, grid in (("one", block), ("two", sparse)):
        path = write_map(tmp_path / f"{name}.gpkg", grid, NAMES)
        options = RefineOptions(majority=1, min_area=300.0)
        found = refine(path, tmp_path / f"{name}-refined.gpkg", options)
        totals.append((found.cells, found.regions))
        totals[-1] += tuple((each.name, each.cells, each.regions) for each in found.classes)
    one, two = totals
    assert two[:2] == (2 * one[0], 2 * one[1])
    assert two[2:] == tuple((name, 2 * cells, 2 * regions) for name, cells, regions in one[2:])


@pytest.mark.parametrize(
    "text", ["[1, 2]", "5", '{"a":', '{"steps": 5}', '{"steps": ["snap"]}', ""]
)
def test_provenance_of_another_form_is_not_read(text, tmp_path) -> None:
    whole = FinishedMap(write_map(tmp_path / "whole.gpkg", GRID, NAMES)).cells()
    path = edited(tmp_path / "map.gpkg", f"UPDATE gpkg_metadata SET metadata = '{text}'")
    assert (FinishedMap(path).cells().codes == whole.codes).all()


def halves_with_teeth(*, both_ways: bool) -> np.ndarray:
    """Two classes side by side; teeth of one, or of both, that a majority filter takes away."""
    grid = np.zeros((12, 12), int)
    grid[:, 6:] = 1
    for row in (2, 5, 8):
        grid[row, 4:6] = 1
        if both_ways:
            grid[row + 1, 6:8] = 0
    return grid


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson", ".shp"])
def test_a_map_shows_the_classes_of_its_regions_after_a_majority_filter(
    suffix, both_ways, tmp_path
) -> None:
    """The number of regions, or that of the cells of each class too, is as before."""
    grid = halves_with_teeth(both_ways=both_ways)
    path = write_map(tmp_path / "map.gpkg", grid, NAMES[:2])
    refine(path, tmp_path / f"smooth{suffix}", RefineOptions(majority=1))
    finished = FinishedMap(tmp_path / f"smooth{suffix}")
    regions, of_region = finished.regions()
    middles = [shapely.centroid(polygons) for _, polygons in finished.outlines()]
    cell, region = shapely.STRtree(regions).query(np.concatenate(middles), predicate="within")
    shown, cells = np.full(grid.size, -1), finished.cells()
    shown[cell] = of_region[region]
    assert (cells.codes == shown).all()
    names = np.array(finished.names, object)
    own = np.array(NAMES, object)[grid[cells.rows, cells.cols]]
    assert (names[cells.codes] != own).any()
    counts = np.bincount(cells.codes, minlength=2).tolist()
    assert counts == [each.cells for each in finished.classes]


def test_a_region_with_another_class_is_seen(tmp_path) -> None:
    """As by hand in QGIS, where the numbers of regions stay."""
    statement = "UPDATE landuse SET class = 'Forest' WHERE class = 'OpenWater' AND cells = 1"
    finished = FinishedMap(edited(tmp_path / "map.gpkg", statement))
    cells = finished.cells()
    names = np.array(finished.names)[cells.codes]
    assert names[(cells.rows == 0) & (cells.cols == 2)].tolist() == ["Forest"]


@pytest.mark.parametrize("geo", [None, b"{", b"[]", b"{}"])
def test_parquet_without_its_metadata_is_refused(geo, tmp_path) -> None:
    path = write_map(tmp_path / "map.parquet", GRID, NAMES)
    cells = tmp_path / "map_cells.parquet"
    table = pq.read_table(cells)
    metadata = None if geo is None else {b"geo": geo}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "new.parquet")
    shutil.move(tmp_path / "new.parquet", cells)
    with pytest.raises(InputError, match="is no map of rssc-geo"):
        FinishedMap(path)


def test_changed_bits_of_parquet_are_told(tmp_path) -> None:
    """Pages have checksums: a changed class or outline is no map."""
    path = write_map(tmp_path / "map.parquet", GRID, NAMES)
    columns = ("class", "confidence", "row", "col", "geom")
    tried = 0
    for _ in with_changed_bits(tmp_path / "map_cells.parquet", columns):
        with pytest.raises(InputError, match=r"map_cells\.parquet cannot be read back") as caught:
            FinishedMap(path).cells()
        assert "\n" not in str(caught.value)
        tried += 1
    assert tried == 5


def test_classes_keep_the_looks_that_a_map_gave_them(tmp_path: Path) -> None:
    """Those of classes by words and of own models, which the palette lacks."""
    known = scene_classes(["Orchards"])
    known = (replace(known[0], title="Fruit & olive trees", color="#123456"),)
    case = Case(
        TileGrid((2, 2), (1, 1)),
        NORTH_UP,
        CRS(32632),
        known,
        np.array([0, 1], np.int32),
        np.array([0, 1], np.int32),
        np.ones((2, 1), np.float32),
        ["", ""],
        np.full(2, np.nan, np.float32),
    )
    case.write(tmp_path / "map.gpkg")
    (shown,) = shown_classes([FinishedMap(tmp_path / "map.gpkg")], ["Orchards"])
    assert (shown.title, shown.color) == ("Fruit & olive trees", "#123456")
