"""areas: totals, zones, legends, adjusted areas."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS
from shapely.geometry import Point, box

from rssc_geo import AreasOptions, tabulate_areas
from rssc_geo.output import FinishedMap, area_in_words, area_table, legend_names, read_legend
from rssc_geo.output import Zones as ZonesOfMap
from tests.factories import CELLS, write_map

from .conftest import Rssc, rows_of

NAMES = ("Forest", "Farmland", "DenseResidential", "Bridge", "Unknown")


@pytest.fixture
def map_path(tmp_path: Path) -> Path:
    classes = np.random.default_rng(3).integers(0, 5, (24, 18))
    classes[:3, :4] = -1
    return write_map(tmp_path / "map.gpkg", classes, NAMES)


def test_totals_are_those_of_the_regions(rssc: Rssc, map_path: Path, tmp_path: Path) -> None:
    done = rssc("areas", map_path, "-o", tmp_path / "areas.csv")
    assert done.code == 0, done.err
    regions = gpd.read_file(map_path, layer="landuse")
    sums = regions.groupby("class")["area_m2"].sum()
    rows = rows_of(tmp_path / "areas.csv")
    assert list(rows[0]) == ["class", "group", "cells", "area_m2", "area", "unit", "share"]
    assert len(rows) == 5
    for row in rows:
        assert float(row["area_m2"]) == pytest.approx(sums[row["class"]], rel=1e-9)
        assert row["unit"] == "ha"
        assert float(row["area"]) == pytest.approx(float(row["area_m2"]) / 1e4, rel=1e-5)
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    assert {row["class"]: row["group"] for row in rows}["Bridge"] == "Transport"
    assert "DenseResidential" in done.out


@given(st.integers(0, 2**31), st.sampled_from(["EPSG:32632", "EPSG:4326", "EPSG:3857"]))
def test_zones_that_tile_the_map_sum_to_its_totals(
    tiled: dict[str, Path], seed: int, crs: str
) -> None:
    """Strips with slanting borders at random."""
    finished = FinishedMap(tiled[crs])
    bounds = shapely.total_bounds(np.concatenate([polygons for _, polygons in finished.outlines()]))
    random = np.random.default_rng(seed)
    width, height = bounds[2] - bounds[0], bounds[3] - bounds[1]
    low, high = bounds[1] - height, bounds[3] + height
    ends = np.sort(random.uniform(bounds[0], bounds[2], (2, 4)), axis=1)
    ends = np.column_stack([[bounds[0] - width] * 2, ends, [bounds[2] + width] * 2])
    strips = [
        shapely.Polygon([(a, low), (b, low), (d, high), (c, high)])
        for a, b, c, d in zip(ends[0], ends[0, 1:], ends[1], ends[1, 1:], strict=False)
    ]
    names = tuple("abcde")
    zones = ZonesOfMap(names, np.array(strips), np.arange(5))
    rows = area_table(finished, zones=zones)
    for name in finished.names:
        whole, *parts = [row for row in rows if row.name == name]
        assert whole.zone == "(all)"
        assert sum(row.area_m2 for row in parts) == pytest.approx(whole.area_m2, rel=1e-6)
        assert sum(row.cells for row in parts) == pytest.approx(whole.cells, rel=1e-6)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One map in three CRS."""
    folder = tmp_path_factory.mktemp("tiled")
    classes = np.random.default_rng(4).integers(0, 5, (17, 13))
    wide = Affine(3000, 0, 500_000, 0, -3000, 6_500_000)
    return {
        name: write_map(
            folder / f"{name[5:]}.gpkg", classes, NAMES, transform=wide,
            target_crs=None if name == "EPSG:32632" else CRS(name),
        )
        for name in ("EPSG:32632", "EPSG:4326", "EPSG:3857")
    }  # fmt: skip


def test_zones_of_a_file(rssc: Rssc, map_path: Path, tmp_path: Path) -> None:
    """In another CRS, with names, two features of one name; a cut cell counts in part."""
    west, north = CELLS @ (0, 0)
    frame = gpd.GeoDataFrame(
        {"name": ["west", "east", "west"]},
        geometry=[
            box(west, north - 1200, west + 450, north),
            box(west + 450, north - 2400, west + 1800, north),
            box(west, north - 2400, west + 450, north - 1200),
        ],
        crs="EPSG:32632",
    )
    frame.to_crs("EPSG:4326").to_file(tmp_path / "zones.gpkg")
    done = rssc(
        "areas", map_path, "-o", tmp_path / "areas.csv", "--zones", tmp_path / "zones.gpkg",
        "--zone-field", "name",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "areas.csv")
    assert list(dict.fromkeys(row["zone"] for row in rows)) == ["(all)", "west", "east"]
    cells = {
        zone: sum(float(row["cells"]) for row in rows if row["zone"] == zone)
        for zone in ("(all)", "west", "east")
    }
    assert cells["west"] == pytest.approx(4.5 * 24 - 12, abs=0.01)
    assert cells["east"] == pytest.approx(13.5 * 24, abs=0.01)
    assert cells["west"] + cells["east"] == pytest.approx(cells["(all)"], rel=1e-4)
    numbered = rssc(
        "areas", map_path, "-o", tmp_path / "numbered.csv", "--zones", tmp_path / "zones.gpkg",
        "--json",
    )  # fmt: skip
    zones = {row["zone"] for row in json.loads(numbered.out)["areas"]}
    assert zones == {"(all)", "1", "2", "3"}


def test_zones_are_numbered_by_their_place_in_the_file(
    rssc: Rssc, map_path: Path, tmp_path: Path
) -> None:
    """One without an outline counts there; GeoParquet is read, too."""
    west, north = CELLS @ (0, 0)
    zones = gpd.GeoDataFrame(
        geometry=[None, box(west, north - 2400, west + 1800, north)], crs="EPSG:32632"
    )
    for name in ("zones.gpkg", "zones.parquet"):
        path = tmp_path / name
        zones.to_parquet(path) if name.endswith("parquet") else zones.to_file(path)
        out = tmp_path / f"{name}.csv"
        done = rssc("areas", map_path, "-o", out, "--zones", path)
        assert done.code == 0, done.err
        assert {row["zone"] for row in rows_of(out)} == {"(all)", "2"}
    wrong = ("--zones", tmp_path / "zones.parquet", "--zone-field", "name")
    done = rssc("areas", map_path, "-o", tmp_path / "x.csv", *wrong)
    assert (done.code, "has no column 'name'" in done.message) == (1, True)
    (tmp_path / "zones.parquet").write_bytes(b"PAR1")
    done = rssc("areas", map_path, "-o", tmp_path / "x.csv", *wrong)
    assert (done.code, "cannot be read as a vector file" in done.message) == (1, True)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            "UPDATE gpkg_geometry_columns SET srs_id = 4326",
            "features have no place in WGS 84, with latitudes to",
        ),
        ("DELETE FROM landuse", "has no regions"),
    ],
)
def test_maps_edited_by_hand_are_refused(
    rssc: Rssc, map_path: Path, tmp_path: Path, edit: str, message: str
) -> None:
    """A wrong CRS was assigned, all regions deleted: areas would be 0, or missing."""
    with contextlib.closing(sqlite3.connect(map_path)) as database, database:
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (name,) in database.execute(triggers).fetchall():  # they call functions of GDAL
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute(edit)
    for words in (("areas", "a.csv"), ("refine", "b.gpkg"), ("assess", "sample", "c.gpkg")):
        done = rssc(*words[:-1], map_path, "-o", tmp_path / words[-1])
        assert (done.code, message in done.message) == (1, True), done.err


@pytest.mark.parametrize("suffix", [".shp", ".parquet"])
def test_maps_without_a_crs_any_more(
    rssc: Rssc, map_path: Path, tmp_path: Path, suffix: str
) -> None:
    path, cells = tmp_path / f"m{suffix}", tmp_path / f"m_cells{suffix}"
    assert rssc("refine", map_path, "-o", path).code == 0
    if suffix == ".shp":
        cells.with_suffix(".prj").unlink()
    else:
        gpd.read_parquet(cells).set_crs(None, allow_override=True).to_parquet(cells)
    done = rssc("areas", path, "-o", tmp_path / "areas.csv")
    assert (done.code, f"{cells} has no CRS any more" in done.message) == (1, True)


def test_what_lies_in_no_zone_is_told(rssc: Rssc, map_path: Path, tmp_path: Path) -> None:
    west, north = CELLS @ (0, 0)
    zone = gpd.GeoDataFrame(
        geometry=[box(west, north - 1200, west + 1800, north)], crs="EPSG:32632"
    )
    zone.to_file(tmp_path / "zones.gpkg")
    done = rssc("areas", map_path, "-o", tmp_path / "areas.csv", "--zones", tmp_path / "zones.gpkg")
    assert "the zones cover 48.57 % of the map's area" in done.err


def test_the_whole_world_is_a_zone_and_a_reference(
    rssc: Rssc, map_path: Path, tmp_path: Path
) -> None:
    """Polygons far beyond the map and the range of its CRS (UTM)."""
    world = gpd.GeoDataFrame(
        {"class": ["Forest", "Farmland"]},
        geometry=[box(-180, -90, 180, 90), box(-170, 10, -160, 20)],
        crs="EPSG:4326",
    )
    world.to_file(tmp_path / "world.gpkg")
    done = rssc(
        "areas", map_path, "-o", tmp_path / "areas.csv", "--zones", tmp_path / "world.gpkg",
        "--zone-field", "class", "--reference", tmp_path / "world.gpkg",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "the zones cover" not in done.err
    assert "1 labeled units lie outside the map" in done.err
    rows = rows_of(tmp_path / "areas.csv")
    sums = {
        zone: sum(float(row["area_m2"]) for row in rows if row["zone"] == zone)
        for zone in ("(all)", "Forest", "Farmland")
    }
    assert sums["Forest"] == pytest.approx(sums["(all)"], rel=1e-9)
    assert sums["Farmland"] == 0


@pytest.mark.parametrize("name", legend_names())
def test_legends_keep_the_total(map_path: Path, tmp_path: Path, name: str) -> None:
    own = tabulate_areas(map_path, tmp_path / "own.csv").rows
    told = tabulate_areas(map_path, tmp_path / "told.csv", AreasOptions(legend=name)).rows
    assert sum(row.area_m2 for row in told) == pytest.approx(sum(row.area_m2 for row in own))
    assert sum(row.cells for row in told) == 24 * 18 - 12
    legend = read_legend(name)
    expected = {legend.translate(row.name, row.group) for row in own}
    assert {row.name for row in told} == expected
    assert "Unknown" in expected


def test_adjusted_areas(rssc: Rssc, map_path: Path, tmp_path: Path) -> None:
    points = tmp_path / "points.gpkg"
    rssc("assess", "sample", map_path, "-o", points, "--sample-size", 100, "-q")
    frame = gpd.read_file(points, layer="sample")
    frame["class"] = np.where(frame["number"] % 4 == 0, "Forest", frame["stratum"])
    frame.to_file(tmp_path / "labeled.gpkg", layer="sample")
    out = tmp_path / "areas.csv"
    done = rssc(
        "areas", map_path, "-o", out, "--reference", tmp_path / "labeled.gpkg", "--json", "-q"
    )
    assert done.code == 0, done.err
    accuracy = json.loads(done.out)["accuracy"]
    table = {row["name"]: row["area_m2"] for row in accuracy["classes"]}
    for row in rows_of(out):
        estimate = table[row["class"]]
        assert float(row["adjusted_m2"]) == pytest.approx(estimate["value"])
        assert float(row["adjusted_low_m2"]) < float(row["adjusted_m2"])
        assert float(row["adjusted_high_m2"]) == pytest.approx(estimate["high"])


def test_classify_writes_the_table_too(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    zones = gpd.GeoDataFrame(
        {"name": ["north", "south"]},
        geometry=[
            box(500_000, 4_999_000, 501_200, 5_000_000),
            box(500_000, 4_998_400, 501_200, 4_999_000),
        ],
        crs="EPSG:32632",
    )
    zones.to_file(tmp_path / "zones.gpkg")
    line = ["classify", scene, "-o", tmp_path / "map.gpkg", "--captioner", "none"]
    refused = rssc(*line, "--zones", tmp_path / "zones.gpkg")
    assert refused.code == 2
    assert "--zones needs --areas" in refused.message
    done = rssc(
        *line, "--areas", tmp_path / "areas.csv", "--zones", tmp_path / "zones.gpkg",
        "--zone-field", "name", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    values = json.loads(done.out)
    assert str(tmp_path / "areas.csv") in values["outputs"]
    rows = rows_of(tmp_path / "areas.csv")
    whole = {row["class"]: float(row["area_m2"]) for row in rows if row["zone"] == "(all)"}
    assert whole == pytest.approx({c["name"]: c["area_m2"] for c in values["classes"]})
    inside = [float(row["area_m2"]) for row in rows if row["zone"] != "(all)"]
    assert sum(inside) == pytest.approx(sum(whole.values()), rel=1e-6)


def test_units_by_size() -> None:
    assert area_in_words(9_000) == (9_000, "m²")
    assert area_in_words(20_000) == (2, "ha")
    assert area_in_words(3e8) == (300, "km²")
    assert area_in_words(0) == (0, "m²")


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["-o", "areas.xlsx"], "written as CSV", 2),
        (["-o", "a.csv", "--zone-field", "name"], "--zone-field names a column of --zones", 2),
        (["-o", "a.csv", "--zones", "none.gpkg"], "none.gpkg cannot be read", 1),
        (["-o", "a.csv", "--zones", "points.gpkg"], "holds Point; zones are polygons", 1),
        (["-o", "taken.csv"], "taken.csv exists", 1),
        (["-o", "none/a.csv"], "is not an existing folder", 1),
    ],
)
def test_mistakes_are_one_line(
    rssc: Rssc,
    map_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.csv").write_text("mine")
    gpd.GeoDataFrame(geometry=[Point(0, 0)], crs="EPSG:4326").to_file(tmp_path / "points.gpkg")
    done = rssc("areas", map_path, *arguments)
    assert done.code == code
    assert message in done.message
