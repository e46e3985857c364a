"""What changed between dates: rasters with the embedded model, finished maps, a series."""

from __future__ import annotations

import csv
import sqlite3
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

import rssc_geo
from rssc_geo import (
    ChangeOptions,
    ChangeResult,
    Predictor,
    SampleOptions,
    assess_sample,
    change,
)
from rssc_geo.errors import InputError, NothingToClassifyError, OutputError, UsageError
from rssc_geo.geometry import geodesic_area_m2
from rssc_geo.output import read_provenance
from tests.factories import CELLS, texture, write_map, write_raster

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from demo_scene.plan import draw_scene

PLACE = Affine(10, 0, 423_000, 0, -10, 4_860_000)
SIDE, CELL = 300, 10
PATCH = slice(60, 140), slice(180, 260)
"""Rows and columns that another part of the scene covers at the later date."""
NAMES = ("Forest", "Farmland", "River", "Industrial")


@pytest.fixture(scope="session")
def model() -> Predictor:
    return rssc_geo.load_model("compact", captioner="none", device="cpu")


@pytest.fixture(scope="session")
def ground() -> np.ndarray:
    """Pixels (bands, rows, cols) of the drawn scene, the whole of it."""
    return np.asarray(draw_scene(gsd_m=10).pixels.transpose(2, 0, 1))


def later(ground: np.ndarray) -> np.ndarray:
    """The same ground with a patch of what lies elsewhere, darker and under haze."""
    pixels = ground[:, :SIDE, :SIDE].astype(float).copy()
    rows, cols = PATCH
    pixels[:, rows, cols] = ground[:, 340:420, 320:400]
    return np.asarray((0.75 * pixels * np.array([0.9, 0.8, 0.85])[:, None, None] + 40).round())


@pytest.fixture(scope="session")
def folder(ground: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``old_2019.tif``; ``new_2023.tif`` in another CRS, without the last 40 columns of it."""
    folder = tmp_path_factory.mktemp("dates")
    write_raster(folder / "old_2019.tif", ground[:, :SIDE, :SIDE], transform=PLACE)
    part = later(ground)[:, :, : SIDE - 40].clip(0, 255).astype(np.uint8)
    write_raster(folder / "straight.tif", part, transform=PLACE)
    with (
        rasterio.open(folder / "straight.tif") as file,
        WarpedVRT(file, crs="EPSG:3857", add_alpha=True, resampling=Resampling.cubic) as view,
    ):
        write_raster(
            folder / "new_2023.tif", view.read(), crs="EPSG:3857", transform=view.transform,
            photometric="rgb", alpha="yes",
        )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def found(folder: Path, model: Predictor) -> ChangeResult:
    options = ChangeOptions(areas=str(folder / "change.csv"), report=str(folder / "change.html"))
    dates = [folder / "old_2019.tif", folder / "new_2023.tif"]
    return change(dates, folder / "change.gpkg", options, model=model)


def layer(path: Path, name: str) -> gpd.GeoDataFrame:
    return gpd.read_file(path, layer=name)


def test_the_patch_is_found_and_light_and_haze_are_not(found: ChangeResult) -> None:
    cells = layer(found.paths[0], "cells")
    rows, cols = (cells[name] * CELL for name in ("row", "col"))
    inside = rows.between(60, 139) & cols.between(180, 259)
    beside = rows.between(0, 199) & cols.between(120, 299)
    changed = cells["changed"] == 1
    assert changed[inside].mean() >= 0.9
    assert changed[~beside].mean() <= 0.04  # benchmarks/change.py measures on real scenes
    assert cells["probability"][changed].min() >= cells["probability"][~changed].max()
    assert (cells["from_class"] == cells["to_class"])[~changed].all()
    assert cells["changed_by"][changed].unique().tolist() == ["2023"]
    assert cells["changed_by"][~changed].isna().all()


def test_where_the_later_date_has_no_data_there_is_no_row_and_that_is_said(
    found: ChangeResult,
) -> None:
    cells = layer(found.paths[0], "cells")
    assert cells["col"].max() * CELL < SIDE - 40
    assert found.uncompared_m2 == pytest.approx(40 * SIDE * 100, rel=0.01)
    assert any("have no data at a later one" in note for note in found.warnings)
    whole = geodesic_area_m2(np.asarray(cells.geometry), cells.crs).sum()
    assert found.compared_m2 == pytest.approx(whole, rel=1e-6)


def test_regions_are_connected_cells_of_one_change(found: ChangeResult) -> None:
    regions, cells = (layer(found.paths[0], name) for name in ("change", "cells"))
    changed = cells[cells["changed"] == 1]
    assert regions["cells"].sum() == len(changed) == found.changed_cells
    assert regions["area_m2"].sum() == pytest.approx(found.changed_m2, rel=1e-6)
    moved = regions[regions["from_class"] != regions["to_class"]]
    assert len(moved) == found.class_change.regions < len(regions)
    assert moved["cells"].sum() == found.class_change.cells
    assert moved["area_m2"].sum() == pytest.approx(found.class_change.area_m2, rel=1e-6)
    assert shapely.is_valid(regions.geometry).all()
    assert regions.crs == "EPSG:32632"
    for region in regions.itertuples():
        inner = changed[changed.geometry.representative_point().within(region.geometry)]
        assert len(inner) == region.cells
        assert set(inner["from_class"]) == {region.from_class}
        assert set(inner["to_class"]) == {region.to_class}
        assert inner["probability"].min() - 1e-6 <= region.probability
    for one in regions.itertuples():
        same = regions[
            (regions["from_class"] == one.from_class) & (regions["to_class"] == one.to_class)
        ].drop(index=one.Index)
        touching = shapely.intersection(np.asarray(same.geometry), one.geometry)
        assert (shapely.length(touching) == 0).all()


def test_the_table_sums_to_what_was_compared(found: ChangeResult) -> None:
    with found.paths[1].open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(float(row["area_m2"]) for row in rows) == pytest.approx(found.compared_m2, rel=1e-9)
    assert sum(float(row["changed_m2"]) for row in rows) == pytest.approx(
        found.changed_m2, rel=1e-9
    )
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1, abs=1e-6)
    assert all(
        row["area_m2"] == row["changed_m2"] for row in rows if row["from_class"] != row["to_class"]
    )
    assert all(
        float(row["changed"])
        == pytest.approx(
            float(row["area"]) * float(row["changed_m2"]) / float(row["area_m2"]), rel=1e-5
        )
        for row in rows
    )


def test_the_page_shows_both_dates_and_the_largest_changes(found: ChangeResult) -> None:
    page = found.paths[2].read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 2 + 2 * min(12, len(found.regions))
    assert "Change from 2019 to 2023" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_geopackage_is_styled_and_knows_how_it_was_made(found: ChangeResult) -> None:
    with sqlite3.connect(found.paths[0]) as connection:
        styles = connection.execute(
            "SELECT f_table_name, styleName FROM layer_styles WHERE useAsDefault"
        ).fetchall()
    assert sorted(styles) == [("cells", "probability"), ("change", "to_class")]
    with sqlite3.connect(found.paths[0]) as connection:
        ((qml, sld),) = connection.execute(
            "SELECT styleQML, styleSLD FROM layer_styles WHERE f_table_name = 'change'"
            " AND styleName = 'to_class'"
        ).fetchall()
    # Ground that kept its class does not look like ground that became it.
    attribute = """CASE WHEN "from_class" <> "to_class" THEN "to_class" ELSE '' END"""
    assert ET.fromstring(qml).find("renderer-v2").get("attr") == attribute
    assert "other ground of the same class" in qml
    space = {"ogc": "http://www.opengis.net/ogc"}
    filters = ET.fromstring(sld).findall(".//ogc:And/ogc:PropertyIsNotEqualTo", space)
    assert [name.text for name in filters[0]] == ["from_class", "to_class"]
    told = read_provenance(found.paths[0])
    assert [scene["input"] for scene in told["scenes"]] == ["old_2019.tif", "new_2023.tif"]
    assert told["dates"] == ["2019", "2023"]
    assert "matched to old_2019" in told["scenes"][1]["scaling"]["method"]


def test_nothing_remains_but_what_was_asked_for(found: ChangeResult) -> None:
    names = {path.name for path in found.paths[0].parent.iterdir()}
    assert names == {
        "old_2019.tif", "new_2023.tif", "straight.tif", "change.gpkg", "change.csv", "change.html",
    }  # fmt: skip


def test_a_stopped_run_goes_on_and_gives_the_same(
    folder: Path, found: ChangeResult, model: Predictor, tmp_path: Path
) -> None:
    dates = [folder / "old_2019.tif", folder / "new_2023.tif"]

    def stop(_stage: str, done: int, total: int) -> None:
        if 0 < total <= done + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        change(dates, tmp_path / "again.gpkg", model=model, progress=stop)
    assert {path.name for path in tmp_path.iterdir()} == {"again.date1.gpkg.part"}
    small = Predictor(model.model, model.captioner, model.compute)
    again = change(dates, tmp_path / "again.gpkg", model=small)
    assert {path.name for path in tmp_path.iterdir()} == {"again.gpkg"}
    for name in ("change", "cells"):
        assert_geodataframe_equal(layer(found.paths[0], name), layer(again.paths[0], name))


@pytest.mark.parametrize("name", ["c.fgb", "c.geojson", "c.parquet", "c.shp"])
def test_all_formats(name: str, maps: Callable[..., Path], tmp_path: Path) -> None:
    result = change([maps("a", BEFORE), maps("b", AFTER)], tmp_path / name)
    read = gpd.read_parquet if name.endswith("parquet") else gpd.read_file
    assert len(read(tmp_path / name)) == len(result.regions)
    assert len(read(tmp_path / name.replace("c.", "c_cells."))) == result.cells


BEFORE = np.array([[0, 0, 1, 1, 1, 2]] * 4)
AFTER = np.array([[0, 0, 1, 3, 3, 2]] * 4)


@pytest.fixture
def maps(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, grid: np.ndarray, **settings: object) -> Path:
        return write_map(tmp_path / f"{name}.gpkg", grid, NAMES, **settings)  # type: ignore[arg-type]

    return make


def test_two_maps_give_exact_transitions(maps: Callable[..., Path], tmp_path: Path) -> None:
    result = change([maps("a", BEFORE), maps("b", AFTER)], tmp_path / "c.gpkg")
    rows = {row.name: (row.cells, row.changed_m2 > 0) for row in result.transitions}
    assert rows == {
        "Farmland → Industrial": (8, True), "Forest": (8, False), "Farmland": (4, False),
        "River": (4, False),
    }  # fmt: skip
    (region,) = result.regions
    assert (region.before, region.after, region.cells) == ("Farmland", "Industrial", 8)
    assert region.area_m2 == pytest.approx(8e4, rel=1e-3)
    shown = layer(tmp_path / "c.gpkg", "change").geometry[0]
    assert shown.equals(shapely.box(500_300, 4_999_600, 500_500, 5_000_000))
    assert result.uncompared_m2 == 0


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3857"])
def test_maps_of_other_grids_are_met_at_the_cells_centers(
    crs: str, maps: Callable[..., Path], tmp_path: Path
) -> None:
    finer = AFTER.repeat(2, 0).repeat(2, 1)[:, :-2]
    place = CELLS @ Affine.scale(0.5)
    after = maps("b", finer, transform=place)
    if crs != "EPSG:32632":
        frames = {name: layer(after, name).to_crs(crs) for name in ("landuse", "cells")}
        for name, frame in frames.items():
            frame.to_file(tmp_path / "moved.gpkg", layer=name)
        after = tmp_path / "moved.gpkg"
    result = change([maps("a", BEFORE), after], tmp_path / "c.gpkg")
    first = result.transitions[0]
    assert (first.name, first.cells) == ("Farmland → Industrial", 8)
    assert result.cells == 20
    assert result.uncompared_m2 == pytest.approx(4e4, rel=1e-3)


def test_a_series_of_maps_says_when(maps: Callable[..., Path], tmp_path: Path) -> None:
    dates = [maps(f"map_{year}", grid) for year, grid in
             ((2017, BEFORE), (2019, BEFORE), (2021, AFTER), (2023, AFTER))]  # fmt: skip
    (region,) = change(dates, tmp_path / "c.gpkg").regions
    assert (region.last_seen, region.changed_by) == ("2019", "2021")
    shown = layer(tmp_path / "c.gpkg", "change")
    assert shown[["last_seen", "changed_by"]].to_numpy().tolist() == [["2019", "2021"]]


def test_in_another_legend(maps: Callable[..., Path], tmp_path: Path) -> None:
    options = ChangeOptions(legend="groups", dates=("then", "now"))
    result = change([maps("a", BEFORE), maps("b", AFTER)], tmp_path / "c.gpkg", options)
    assert result.transitions[0].name == "Agriculture → Industrial"
    assert result.dates == ("then", "now")


def test_the_same_map_twice_has_no_change(maps: Callable[..., Path], tmp_path: Path) -> None:
    one = maps("a", BEFORE)
    result = change([one, one], tmp_path / "c.gpkg")
    assert (result.changed_cells, result.regions) == (0, ())
    assert len(layer(tmp_path / "c.gpkg", "change")) == 0


def test_a_raster_with_itself_leaves_nothing_uncompared(model: Predictor, tmp_path: Path) -> None:
    """Sums of the same areas differ in the last digits by their order."""
    empty = np.random.default_rng(2).random((34, 29)) >= 0.5
    pixels = texture(331, 283)
    pixels[:, empty.repeat(10, 0).repeat(10, 1)[:331, :283]] = 0
    place = Affine(2.7, 0, 500_000, 0, -2.7, 5_000_000)
    scene = write_raster(tmp_path / "a.tif", pixels, transform=place, nodata=0)
    options = ChangeOptions(tile_size="60px", cell_size="10px", force=True)
    result = change([scene, scene], tmp_path / "c.gpkg", options, model=model)
    assert (result.changed_cells, result.uncompared_m2, result.warnings) == (0, 0, ())


def test_a_date_without_data_leaves_nothing(model: Predictor, tmp_path: Path) -> None:
    one = write_raster(tmp_path / "one.tif", texture(90, 90))
    pixels = texture(90, 90)
    pixels[:, np.arange(90) % 3 > 0] = 0
    two = write_raster(tmp_path / "two.tif", pixels, nodata=0)
    options = ChangeOptions(tile_size="60px", force=True)
    with pytest.raises(NothingToClassifyError, match=r"two\.tif: no cell has"):
        change([one, two], tmp_path / "c.gpkg", options, model=model)
    assert {path.name for path in tmp_path.iterdir()} == {"one.tif", "two.tif"}


def test_mistakes_are_told(maps: Callable[..., Path], folder: Path, tmp_path: Path) -> None:
    one, two, out = maps("a", BEFORE), maps("b", AFTER), tmp_path / "c.gpkg"
    raster = folder / "old_2019.tif"
    far = maps("far", BEFORE, transform=CELLS @ Affine.translation(900, 0))
    for dates, options, error, message in (
        ([one], ChangeOptions(), UsageError, "give OLD and NEW"),
        ([one, raster], ChangeOptions(), UsageError, "is a map, .* a raster"),
        ([one, two], ChangeOptions(dates=("a",)), UsageError, "names 1 dates, 2 were given"),
        ([one, two], ChangeOptions(crs="EPSG:4326"), UsageError, "--crs is for rasters"),
        ([one, two], ChangeOptions(aoi="area.gpkg"), UsageError, "--aoi is for rasters"),
        ([one, two], ChangeOptions(bounds=(0, 0, 9, 9)), UsageError, "--bounds is for rasters"),
        ([one, two], ChangeOptions(only_classes=("Forest",)), UsageError, "--only-classes is for"),
        ([one, two], ChangeOptions(exclude_classes=("River",)), UsageError, "--exclude-classes is"),
        ([one, two], ChangeOptions(areas="x.txt"), UsageError, "name it .csv"),
        ([one, two], ChangeOptions(report="x.pdf"), UsageError, "name it .html"),
        ([one, far], ChangeOptions(), InputError, "does not overlap"),
        ([one, tmp_path / "none.gpkg"], ChangeOptions(), InputError, "does not exist"),
    ):
        with pytest.raises(error, match=message):
            change(dates, out, options)
    with pytest.raises(UsageError, match="is the input itself"):
        change([one, two], one, ChangeOptions(overwrite=True))
    change([one, two], out)
    with pytest.raises(OutputError, match="exists"):
        change([one, two], out)
    assert not list(tmp_path.glob("*.part"))


def test_a_sample_of_the_transitions_adjusts_their_areas(
    maps: Callable[..., Path], tmp_path: Path
) -> None:
    """All cells are labeled, so that the adjusted areas are what the labels say, without error."""
    before, after, out = maps("a", BEFORE), maps("b", AFTER), tmp_path / "c.gpkg"
    change([before, after], out)
    design = assess_sample(out, tmp_path / "points.gpkg", SampleOptions(min_per_class=8))
    assert {(s.name, s.cells) for s in design.strata} == {
        ("Farmland → Industrial", 8), ("Forest", 8), ("Farmland", 4), ("River", 4),
    }  # fmt: skip
    labeled = design.to_geopandas()
    labeled["class"] = labeled["stratum"].replace("River", "Forest -> Industrial")
    labeled.loc[labeled["stratum"] == "Farmland → Industrial", "class"] = "farmland -> industrial"
    labeled.to_file(tmp_path / "labeled.gpkg", layer="sample")
    table = tmp_path / "matrix.csv"
    options = ChangeOptions(
        reference=str(tmp_path / "labeled.gpkg"), areas=str(table), overwrite=True,
        report=str(tmp_path / "page.html"),
    )  # fmt: skip
    result = change([before, after], out, options)
    assert result.accuracy is not None
    assert result.accuracy.accuracy.overall.value == pytest.approx(20 / 24, rel=1e-3)
    with table.open(encoding="utf-8") as file:
        rows = {(row["from_class"], row["to_class"]): row for row in csv.DictReader(file)}
    changed = rows["Farmland", "Industrial"]
    assert float(changed["adjusted_m2"]) == pytest.approx(float(changed["area_m2"]), rel=1e-3)
    assert float(changed["adjusted_standard_error_m2"]) == 0
    assert float(rows["River", "River"]["adjusted_m2"]) == 0
    assert "Adjusted area" in (tmp_path / "page.html").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="give --legend to change itself"):
        assess_sample(out, tmp_path / "p.gpkg", SampleOptions(legend="groups"))
