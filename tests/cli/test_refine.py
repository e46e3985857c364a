"""refine: another map of the cells of a finished one."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal
from pyproj import CRS

from rssc_geo.output import majority_filter, read_provenance
from tests.factories import write_map

from .conftest import Rssc

NAMES = ("DenseResidential", "MediumResidential", "Forest", "Park", "Unknown")


@pytest.fixture
def map_path(tmp_path: Path) -> Path:
    """Runner-up of a class is the next one, with 0.25 after 0.75."""
    classes = np.random.default_rng(1).integers(0, 5, (12, 10)).repeat(2, 0).repeat(2, 1)
    classes[:2, :3] = -1
    return write_map(tmp_path / "map.gpkg", classes, NAMES)


def both(path: Path) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    regions, cells = (gpd.read_file(path, layer=name) for name in ("landuse", "cells"))
    return regions, cells.sort_values(["row", "col"], ignore_index=True)


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_refining_nothing_gives_the_same_map(
    rssc: Rssc, tmp_path: Path, target: str | None
) -> None:
    classes = np.random.default_rng(2).integers(0, 5, (15, 12))
    path = write_map(
        tmp_path / "map.gpkg", classes, NAMES, target_crs=None if target is None else CRS(target)
    )
    done = rssc("refine", path, "-o", tmp_path / "same.gpkg", "--json")
    assert done.code == 0, done.err
    (regions, cells), (new_regions, new_cells) = both(path), both(tmp_path / "same.gpkg")
    assert_geodataframe_equal(new_cells, cells)
    assert len(new_regions) == len(regions) == json.loads(done.out)["regions"]
    for frame in (regions, new_regions):
        frame.index = (
            frame.representative_point()
            .to_crs("EPSG:32632")
            .apply(lambda p: (int((5_000_000 - p.y) // 100), int((p.x - 500_000) // 100)))
        )
    joined = regions.sort_index().reset_index(drop=True)
    other = new_regions.sort_index().reset_index(drop=True)
    same = shapely.equals(
        shapely.normalize(np.asarray(joined.geometry)),
        shapely.normalize(np.asarray(other.geometry)),
    )
    assert same.all()
    assert shapely.is_valid(np.asarray(other.geometry)).all()
    for column in ("class", "class_id", "group", "cells"):
        assert (joined[column].fillna("") == other[column].fillna("")).all(), column
    assert other["confidence"].to_numpy() == pytest.approx(joined["confidence"], abs=1e-6)
    assert other["area_m2"].to_numpy() == pytest.approx(joined["area_m2"], rel=1e-5)


def test_another_legend(rssc: Rssc, map_path: Path, tmp_path: Path) -> None:
    done = rssc("refine", map_path, "-o", tmp_path / "new.gpkg", "--legend", "groups", "--json")
    assert done.code == 0, done.err
    regions, cells = both(map_path)
    new_regions, new_cells = both(tmp_path / "new.gpkg")
    groups = {
        "DenseResidential": "Residential", "MediumResidential": "Residential", "Forest": "Forest",
        "Park": "Recreation", "Unknown": "Unknown",
    }  # fmt: skip
    assert (new_cells["class"] == cells["class"].map(groups)).all()
    assert len(new_regions) < len(regions)
    assert new_regions["area_m2"].sum() == pytest.approx(regions["area_m2"].sum())
    dense = cells["class"] == "DenseResidential"  # whose runner-up is of the same group
    assert (new_cells.loc[dense, "confidence"] == 1).all()
    assert new_cells.loc[dense, "runner_up"].isna().all()
    assert new_cells.loc[dense, "margin"].isna().all()
    forest = cells["class"] == "Forest"
    assert (new_cells.loc[forest, "confidence"] == 0.75).all()
    assert (new_cells.loc[forest, "runner_up"] == "Recreation").all()
    with sqlite3.connect(tmp_path / "new.gpkg") as connection:
        (style,) = connection.execute(
            "SELECT styleQML FROM layer_styles WHERE f_table_name='landuse' AND useAsDefault"
        ).fetchone()
    assert 'label="Residential"' in style
    provenance = read_provenance(tmp_path / "new.gpkg")
    assert provenance["refined_from"] == "map.gpkg"
    assert provenance["input"] == "made"
    assert provenance["refined_by"]["options"] == {"legend": "groups"}


def test_a_name_of_class_and_group_is_the_class_as_for_classify(rssc: Rssc, tmp_path: Path) -> None:
    path = write_map(
        tmp_path / "map.gpkg", np.arange(3)[None], ("StorageTanks", "Industrial", "Port")
    )
    done = rssc("refine", path, "-o", tmp_path / "new.gpkg", "--exclude-classes", "Industrial")
    assert done.code == 0, done.err
    _, cells = both(tmp_path / "new.gpkg")
    assert list(cells["class"]) == ["StorageTanks", "Port", "Port"]


def test_fewer_classes(rssc: Rssc, map_path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.gpkg"
    done = rssc("refine", map_path, "-o", new, "--exclude-classes", "Forest")
    assert done.code == 0, done.err
    (_, cells), (_, new_cells) = both(map_path), both(new)
    forest = cells["class"] == "Forest"
    assert (new_cells.loc[forest, "class"] == "Park").all()
    assert (new_cells.loc[forest, "confidence"] == 0.25).all()
    assert (new_cells.loc[~forest, "class"] == cells.loc[~forest, "class"]).all()
    assert "Forest" not in set(new_cells["runner_up"])
    no_other = rssc("refine", map_path, "-o", new, "--exclude-classes", "Unknown", "--overwrite")
    assert no_other.code == 2
    assert "classify the raster again with --no-unknown" in no_other.message
    refused = rssc("refine", map_path, "-o", new, "--only-classes", "Forest", "--overwrite")
    assert refused.code == 1
    assert "a map holds no more than these" in refused.message
    unknown = rssc("refine", map_path, "-o", new, "--only-classes", "Forrest", "--overwrite")
    assert unknown.code == 2
    assert "'Forrest' is no class of map.gpkg" in unknown.message
    free = rssc(
        "refine", map_path, "-o", new, "--exclude-classes", "dense residential", "--overwrite"
    )
    assert free.code == 0, free.err
    assert "DenseResidential" not in set(both(new)[1]["class"])


def test_larger_regions(rssc: Rssc, map_path: Path, tmp_path: Path) -> None:
    done = rssc("refine", map_path, "-o", tmp_path / "new.gpkg", "--min-area", 90_000)
    assert done.code == 0, done.err
    (regions, cells), (new_regions, new_cells) = both(map_path), both(tmp_path / "new.gpkg")
    assert regions["area_m2"].min() < 90_000 <= new_regions["area_m2"].min()
    assert (new_cells["class"] == cells["class"]).all()
    again = tmp_path / "again.csv"
    assert rssc("areas", tmp_path / "new.gpkg", "-o", again).code == 0


def test_the_majority_filter() -> None:
    classes = np.zeros((7, 7), np.int64)
    classes[3, 3] = 1  # alone
    classes[:, 5:] = 2
    classes[0, 0] = -1
    smooth = majority_filter(classes, 1)
    assert smooth[3, 3] == 0
    assert smooth[0, 0] == -1
    assert (smooth[:, 5:] == 2).all()
    assert (majority_filter(np.arange(9).reshape(3, 3), 3) == np.arange(9).reshape(3, 3)).all()


@pytest.mark.parametrize("passes", [1_000_000, 1_000_001])
def test_passes_that_change_nothing_more_take_no_time(passes: int) -> None:
    """Nor do those that only swing to and fro, of which the last counts."""
    classes = np.random.default_rng(5).integers(0, 2, (30, 30))
    assert (majority_filter(classes, passes) == majority_filter(classes, 200 + passes % 2)).all()
    ring = np.full((3, 6), -1)
    ring[1] = 0, 1, 0, 1, 0, 1
    expected = ring.copy()
    for _ in range(8 + passes % 2):
        expected = majority_filter(expected, 1)
    assert (majority_filter(ring, passes) == expected).all()


@pytest.mark.parametrize("suffix", [".fgb", ".geojson", ".parquet", ".shp"])
def test_other_formats(rssc: Rssc, map_path: Path, tmp_path: Path, suffix: str) -> None:
    new = tmp_path / f"new{suffix}"
    assert rssc("refine", map_path, "-o", new, "--majority", 1).code == 0
    done = rssc("refine", new, "-o", tmp_path / "back.gpkg", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["cells"] == 480 - 6


def test_the_map_itself_stays(rssc: Rssc, map_path: Path) -> None:
    done = rssc("refine", map_path, "-o", map_path, "--overwrite")
    assert done.code == 2
    assert "is the input itself" in done.message
