"""Finished maps that others have edited, or that are damaged."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rssc_geo import RefineOptions, refine
from rssc_geo.errors import InputError
from rssc_geo.output import FinishedMap
from tests.factories import with_changed_bits, write_map

NAMES = ["Forest", "Farmland", "OpenWater"]
GRID = np.array([[0, 1, 2], [0, 1, -1], [2, 2, 2]])

DAMAGE = {
    "no cells": "DELETE FROM cells",
    "no class": "UPDATE cells SET class = NULL",
    "an empty class": "UPDATE cells SET class = ''",
    "no UTF-8": "UPDATE cells SET class = x'ff00'",
    "no confidence": "UPDATE cells SET confidence = NULL WHERE fid = 1",
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


@pytest.mark.parametrize(
    "text", ["[1, 2]", "5", '{"a":', '{"steps": 5}', '{"steps": ["snap"]}', ""]
)
def test_provenance_of_another_form_is_not_read(text, tmp_path) -> None:
    whole = FinishedMap(write_map(tmp_path / "whole.gpkg", GRID, NAMES)).cells()
    path = edited(tmp_path / "map.gpkg", f"UPDATE gpkg_metadata SET metadata = '{text}'")
    assert (FinishedMap(path).cells().codes == whole.codes).all()


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
