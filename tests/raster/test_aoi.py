from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine

from rssc_geo.errors import InputError, UsageError
from rssc_geo.geometry import TileGrid
from rssc_geo.raster import Scene, bounds_polygon, cells_inside, open_scene, read_aoi


@pytest.fixture
def scene(write, texture) -> Scene:
    """500 m × 400 m (200 rows, 250 columns of 2 m) from (500000, 5000000), UTM 32N."""
    return open_scene(write(texture(200, 250)))


def save(
    path: Path, geometries: list[object], crs: object = "EPSG:32632", **options: object
) -> Path:
    gpd.GeoDataFrame(geometry=geometries, crs=crs).to_file(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.gpkg", "a.geojson", "a.shp", "a.fgb", "a.parquet"])
def test_polygons_of_any_format_are_joined(scene, tmp_path, name) -> None:
    parts = [
        shapely.box(500_100, 4_999_800, 500_200, 4_999_900),
        shapely.box(500_200, 4_999_800, 500_300, 4_999_900),
    ]
    crs = "EPSG:4326" if name.endswith("geojson") else "EPSG:32632"
    frame = gpd.GeoDataFrame(geometry=parts, crs="EPSG:32632").to_crs(crs)
    frame.to_parquet(tmp_path / name) if name == "a.parquet" else frame.to_file(tmp_path / name)
    area = read_aoi(tmp_path / name, scene)
    assert area.bounds == pytest.approx((500_100, 4_999_800, 500_300, 4_999_900), abs=0.05)
    assert area.area == pytest.approx(20_000, rel=1e-3)


def test_another_crs_is_reprojected_with_its_edges_bent(tmp_path, write, texture) -> None:
    # 400 km wide: a parallel of latitude is far from a straight line in UTM.
    scene = open_scene(
        write(texture(200, 400), transform=Affine(1000, 0, 300_000, 0, -1000, 5_200_000))
    )
    area = read_aoi(save(tmp_path / "a.gpkg", [shapely.box(7, 46, 11, 46.5)], "EPSG:4326"), scene)
    to_utm = pyproj.Transformer.from_crs(4326, 32632, always_xy=True)
    for lon in np.linspace(7.1, 10.9, 9):
        assert area.contains(shapely.Point(to_utm.transform(lon, 46.499)))
        assert not area.contains(shapely.Point(to_utm.transform(lon, 46.501)))


def test_an_area_as_large_as_the_world_selects_the_whole_raster(scene, tmp_path) -> None:
    area = read_aoi(
        save(tmp_path / "a.gpkg", [shapely.box(-180, -90, 180, 90)], "EPSG:4326"), scene
    )
    assert area.area == pytest.approx(500 * 400, rel=1e-6)


@pytest.mark.parametrize("crs", ["EPSG:32660", "EPSG:4326"])
def test_across_the_antimeridian(write, texture, tmp_path, crs) -> None:
    if crs == "EPSG:4326":
        scene = open_scene(
            write(texture(100, 200), crs=crs, transform=Affine(0.01, 0, 179, 0, -0.01, 51))
        )
    else:
        scene = open_scene(
            write(
                texture(100, 200), crs=crs, transform=Affine(1000, 0, 640_000, 0, -1000, 5_650_000)
            )
        )
    pieces = [shapely.box(179.5, 50.2, 180, 50.8), shapely.box(-180, 50.2, -179.5, 50.8)]
    area = read_aoi(save(tmp_path / "a.gpkg", pieces, "EPSG:4326"), scene)
    expected = (
        1.0 * 0.6
        if crs == "EPSG:4326"
        else pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.box(0, 50.2, 1, 50.8))[0]
    )
    assert area.area == pytest.approx(expected, rel=5e-3)


def test_invalid_polygons_are_repaired_with_a_warning(scene, tmp_path, caplog) -> None:
    bow_tie = shapely.Polygon(
        [(500_100, 4_999_700), (500_200, 4_999_800), (500_200, 4_999_700), (500_100, 4_999_800)]
    )
    path = save(tmp_path / "a.gpkg", [bow_tie])
    with caplog.at_level(logging.WARNING):
        area = read_aoi(path, scene)
    assert area.is_valid
    assert area.area == pytest.approx(5000)
    assert "repaired" in caplog.text


def test_first_layer_with_polygons_counts_and_collections_are_opened(scene, tmp_path) -> None:
    path = save(tmp_path / "a.gpkg", [shapely.Point(500_100, 4_999_900)], layer="points")
    mixed = shapely.GeometryCollection(
        [shapely.LineString([(0, 0), (1, 1)]), shapely.box(500_100, 4_999_800, 500_200, 4_999_900)]
    )
    save(path, [mixed, None], layer="mixed")
    assert read_aoi(path, scene).area == pytest.approx(10_000)


def test_a_layer_is_named_as_qgis_writes_it(scene, tmp_path) -> None:
    path = tmp_path / "city.gpkg"
    boxes = {
        name: shapely.box(500_000 + x, 4_999_700, 500_100 + x, 4_999_900)
        for name, x in (("quarters", 0), ("parks", 200))
    }
    for name, box in boxes.items():
        save(path, [box], layer=name)
    assert read_aoi(path, scene).equals(boxes["quarters"])
    assert read_aoi(f"{path}|layername=parks", scene).equals(boxes["parks"])
    with pytest.raises(InputError, match="has no layer 'park'; .*did you mean 'parks'"):
        read_aoi(f"{path}|layername=park", scene)


@pytest.mark.filterwarnings("ignore:.crs. was not provided")
def test_what_is_no_area_of_interest_gives_one_line(scene, tmp_path) -> None:
    inside = shapely.box(500_100, 4_999_800, 500_200, 4_999_900)
    text = tmp_path / "text.gpkg"
    text.write_text("no vector file")
    empty = tmp_path / "empty.gpkg"
    gpd.GeoDataFrame(geometry=gpd.GeoSeries([], crs="EPSG:32632")).to_file(empty)
    cases = {
        "does not exist": tmp_path / "none.gpkg",
        "cannot be read as a vector file": text,
        "has no polygons": empty,
        "no polygons: an area": save(
            tmp_path / "line.gpkg",
            [shapely.LineString([(500_100, 4_999_900), (500_200, 4_999_900)])],
        ),
        "has no CRS": save(tmp_path / "nocrs.shp", [inside], None),
        "no polygon lies on the raster": save(tmp_path / "far.gpkg", [shapely.box(0, 0, 10, 10)]),
        r"longitude 9 to 9\.006": save(
            tmp_path / "world.gpkg", [shapely.box(100, 10, 101, 11)], "EPSG:4326"
        ),
        "with an area": save(
            tmp_path / "flat.gpkg",
            [shapely.Polygon([(500_100, 4_999_900), (500_200, 4_999_900), (500_100, 4_999_900)])],
        ),
    }
    for words, path in cases.items():
        with pytest.raises(InputError, match=words) as caught:
            read_aoi(path, scene)
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)


def test_bounds(scene) -> None:
    area = bounds_polygon((500_100, 4_999_700, 500_300, 4_999_900), scene)
    assert area.area == 200 * 200
    assert bounds_polygon((0, 0, 1e7, 1e7), scene).contains(area)
    for bounds in (
        (500_300, 4_999_700, 500_100, 4_999_900),
        (500_100, 4_999_900, 500_300, 4_999_700),
        (1.0, 2.0, float("nan"), 4.0),
        (1.0, 2.0, 3.0),
    ):
        with pytest.raises(UsageError, match="--bounds"):
            bounds_polygon(bounds, scene)
    with pytest.raises(InputError, match="--bounds 0,0,10,10 lies outside the raster"):
        bounds_polygon((0, 0, 10, 10), scene)


@pytest.mark.parametrize(
    "transform",
    [
        Affine(2, 0, 5e5, 0, -2, 5e6),
        Affine(1.5, -1, 5e5, -1, -1.5, 5e6),
        Affine(2, 0, 5e5, 0, 2, 5e6),
    ],
)
def test_cells_are_chosen_by_their_center(transform) -> None:
    grid = TileGrid((105, 95), (20, 30), (10, 20))
    area = shapely.Point(transform @ (50, 60)).buffer(60)
    inside = cells_inside(grid, transform, area)
    assert inside.shape == grid.cells_shape
    for cell in grid.cells():
        window = cell.window
        center = transform @ (window.col + window.width / 2, window.row + window.height / 2)
        assert inside[cell.row, cell.col] == area.contains(shapely.Point(center))
    assert inside.any()
    assert not inside.all()


@pytest.mark.slow
def test_scribbles_and_views_that_never_end_are_refused_soon(scene, tmp_path, monkeypatch) -> None:
    scribble = shapely.Polygon(np.random.default_rng(0).random((10_000, 2)) * 100 + 500_000)
    gpd.GeoDataFrame(geometry=[scribble], crs="EPSG:32632").to_file(tmp_path / "scribble.gpkg")
    started = time.process_time()  # of this process: a busy machine is no fault
    with pytest.raises(InputError, match="crosses itself"):
        read_aoi(tmp_path / "scribble.gpkg", scene)
    monkeypatch.setattr("rssc_geo.raster.features.MOST_FEATURES", 1000)
    path = tmp_path / "view.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:32632").to_file(path, layer="a")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executescript(
            "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT n.i AS fid, a.geom AS geom FROM n, a;"
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, srs_id)"
            " VALUES ('endless', 'features', 'endless', 32632);"
            "INSERT INTO gpkg_geometry_columns VALUES ('endless', 'geom', 'POLYGON', 32632, 0, 0);"
            "DELETE FROM gpkg_contents WHERE table_name = 'a';"
            "DELETE FROM gpkg_geometry_columns WHERE table_name = 'a';"
        )
    with pytest.raises(InputError, match="never ends"):
        read_aoi(path, scene)
    assert time.process_time() - started < 30
