"""Vector files: zones, labels and reference labels that are odd, damaged or endless."""

from __future__ import annotations

import contextlib
import gzip
import json
import sqlite3
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Transformer

from rssc_geo.assessment import read_reference
from rssc_geo.batch import collect_jobs
from rssc_geo.errors import InputError
from rssc_geo.options import BatchOptions
from rssc_geo.output import FinishedMap, read_zones
from rssc_geo.raster import (
    check_no_view,
    class_name,
    footprint,
    open_scene,
    read_features,
    reprojected,
)
from rssc_geo.raster.virtual import check_sources
from rssc_geo.training.few_shot.labels import read_labels
from tests.file_server import serve_folder

UTM = CRS.from_epsg(32632)
GOOD = shapely.box(500_000, 4_999_900, 500_100, 5_000_000)
NEAR = GOOD.bounds
BOW = [(500_000, 5_000_000), (500_100, 4_999_900), (500_100, 5_000_000), (500_000, 4_999_900)]


def save(path: Path, geometries: list[object], crs: object = "EPSG:32632") -> Path:
    names = [f"c{number}" for number in range(len(geometries))]
    gpd.GeoDataFrame({"class": names}, geometry=geometries, crs=crs).to_file(path)
    return path


def moved(x: float) -> object:
    """A polygon with a corner that lies nowhere."""
    corners = shapely.get_coordinates(GOOD)
    corners[2, 0] = x
    return shapely.set_coordinates(shapely.box(0, 0, 1, 1), corners)


def geojson(path: Path, ring: list[object], crs: str | None = None) -> Path:
    feature = {
        "type": "Feature",
        "properties": {"class": "a"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    text: dict[str, object] = {"type": "FeatureCollection", "features": [feature]}
    if crs:
        text["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(text))
    return path


def changed(path: Path, statement: str) -> Path:
    save(path, [GOOD])
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute(statement)
    return path


SQUARE = [[9, 45.15], [9.001, 45.15], [9.001, 45.153], [9, 45.15]]
ODD: dict[str, Callable[[Path], Path]] = {
    "no number": lambda f: save(f / "a.gpkg", [moved(float("nan")), GOOD]),
    "infinite": lambda f: save(f / "a.gpkg", [moved(float("inf")), GOOD]),
    "no places": lambda f: save(f / "a.gpkg", [None, None]),
    "empty places": lambda f: save(f / "a.gpkg", [shapely.Polygon(), shapely.Polygon()]),
    "two points": lambda f: geojson(f / "a.geojson", SQUARE[:2]),
    "open ring": lambda f: geojson(f / "a.geojson", SQUARE[:3]),
    "text": lambda f: geojson(f / "a.geojson", [["x", 45], *SQUARE[1:3], ["x", 45]]),
    "unknown CRS": lambda f: geojson(f / "a.geojson", SQUARE, "EPSG:5800"),
    "beyond": lambda f: geojson(f / "a.geojson", [[-1e6, -1e6], [1e6, -1e6], [0, 1e6], [-1e6] * 2]),
    "local CRS": lambda f: changed(f / "a.gpkg", "UPDATE gpkg_geometry_columns SET srs_id = -1"),
    "junk": lambda f: changed(f / "a.gpkg", "UPDATE a SET geom = x'475000010103'"),
    "no UTF-8": lambda f: changed(f / "a.gpkg", "UPDATE a SET class = x'ff00fe'"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of pyogrio and shapely, about the same
@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_refused_in_one_line(name, write, texture, tmp_path) -> None:
    path = ODD[name](tmp_path)
    scene = open_scene(write(texture(64, 64)))
    for read in (
        lambda: read_zones(str(path), UTM, NEAR, field="class"),
        lambda: read_labels(path, scene, field="class"),
        lambda: reprojected(
            read_reference(str(path), "class").geometry,
            read_reference(str(path), "class").crs,
            UTM,
            str(path),
            near=NEAR,
        ),
    ):
        with pytest.raises(InputError, match=path.name) as caught:
            read()
        assert "\n" not in str(caught.value)


WORLD = shapely.box(-180, -90, 180, 90)
PLACES = {
    "UTM": ("EPSG:32632", (500_000, 4_990_000, 510_000, 5_000_000)),
    "UTM, across the antimeridian": ("EPSG:32660", (640_000, 5_550_000, 840_000, 5_650_000)),
    "degrees across the antimeridian": ("EPSG:4326", (179, 50, 181, 51)),
    "the same, counted from the west": ("EPSG:4326", (-181, 50, -179, 51)),
    "Europe": ("EPSG:3035", (2_500_000, 1_400_000, 7_400_000, 5_500_000)),
    "the world of Mercator": ("EPSG:3857", (-20_037_508, -20_037_508, 20_037_508, 20_037_508)),
    "the North Pole": ("EPSG:3413", (-500_000, -500_000, 500_000, 500_000)),
    "geostationary, off the Earth": (
        "+proj=geos +h=35785831 +lon_0=0",
        (1_000_000, 1_000_000, 3_000_000, 3_000_000),
    ),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("turn", [0, 180])  # also longitudes from 0 to 360
def test_the_whole_world_covers_any_place(name, turn) -> None:
    crs, bounds = PLACES[name]
    place = shapely.box(*bounds)
    world = np.array([shapely.box(turn - 180, -90, turn + 180, 90), shapely.box(50, 10, 51, 11)])
    moved = reprojected(world, CRS("EPSG:4326"), CRS(crs), "a.gpkg", near=bounds)
    assert moved[0].is_valid
    assert moved[0].intersection(place).area == pytest.approx(place.area, rel=1e-4)
    assert moved[1].is_empty or crs == "EPSG:3857"


def test_edges_of_zones_and_labels_are_bent(write, texture, tmp_path) -> None:
    """400 km wide: a parallel of latitude is far from a straight line in UTM."""
    raster = write(texture(200, 400), transform=Affine(1000, 0, 300_000, 0, -1000, 5_200_000))
    scene = open_scene(raster)
    path = save(tmp_path / "a.gpkg", [shapely.box(-60, 46, 70, 46.5), WORLD], "EPSG:4326")
    bounds = footprint(scene.transform, scene.shape).bounds
    to_utm = Transformer.from_crs(4326, 32632, always_xy=True)
    zones = read_zones(str(path), UTM, bounds, field="class").polygons
    labels = read_labels(path, scene, field="class").areas
    on_raster = [~scene.transform @ to_utm.transform(lon, 46.499) for lon in (7.1, 9, 10.9)]
    for lon, pixel in zip((7.1, 9, 10.9), on_raster, strict=True):
        assert zones[0].contains(shapely.Point(to_utm.transform(lon, 46.499)))
        assert not zones[0].contains(shapely.Point(to_utm.transform(lon, 46.501)))
        assert labels[0].contains(shapely.Point(pixel))
    assert zones[1].contains(shapely.box(*bounds))
    assert labels[1].contains(shapely.box(0, 0, 400, 200))


def test_what_lies_elsewhere_is_told_apart_from_what_has_no_area(
    write, texture, tmp_path, caplog
) -> None:
    scene = open_scene(write(texture(64, 64)))
    line = shapely.LineString([(9, 45.15), (9.0005, 45.1505)])
    path = save(tmp_path / "a.gpkg", [WORLD, shapely.box(100, -40, 101, -39), line], "EPSG:4326")
    assert read_labels(path, scene, field="class").classes == ("c0",)
    assert "1 feature(s) outside" in caplog.text
    assert "1 feature(s) without an area" in caplog.text


def test_metres_given_as_degrees_are_refused(tmp_path) -> None:
    path = save(tmp_path / "a.gpkg", [GOOD], "EPSG:4326")
    with pytest.raises(InputError, match=r"have no place in WGS 84, with latitudes to 5e\+06"):
        read_zones(str(path), UTM, NEAR, field=None)


def test_invalid_polygons_are_repaired_with_a_warning(tmp_path, caplog) -> None:
    spike = shapely.Polygon([(0, 0), (9, 0), (0, 0)])
    path = save(tmp_path / "bow.gpkg", [shapely.Polygon(BOW), spike, GOOD, None])
    frame = read_features(str(path), "class")
    assert "2 invalid polygon(s) repaired" in caplog.text
    areas = shapely.area(np.asarray(frame.geometry))
    assert areas[[0, 2]] == pytest.approx([5000, 10_000])
    assert np.isnan(areas[[1, 3]]).all()
    assert read_zones(str(path), UTM, NEAR, field="class").names == ("c0", "c2")


def test_files_that_never_end_are_refused_soon(tmp_path, monkeypatch) -> None:
    scribble = shapely.Polygon(np.random.default_rng(0).random((10_000, 2)) * 100 + 500_000)
    started = time.process_time()  # of this process: a busy machine is no fault
    with pytest.raises(InputError, match="crosses itself"):
        read_features(str(save(tmp_path / "scribble.gpkg", [scribble])), "class")
    monkeypatch.setattr("rssc_geo.raster.features.MOST_FEATURES", 1000)
    path = changed(
        tmp_path / "view.gpkg",
        "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT n.i AS fid, view.class AS class, view.geom AS geom FROM n, view",
    )
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE gpkg_contents SET table_name = 'endless'")
        database.execute("UPDATE gpkg_geometry_columns SET table_name = 'endless'")
    with pytest.raises(InputError, match="never ends"):
        read_features(f"{path}|layername=endless", "class")
    assert time.process_time() - started < 30


def test_a_view_shows_nothing_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("password,x,y\nhunter2,1,2\n")
    view = (
        '<OGRVRTDataSource><OGRVRTLayer name="secret"><SrcDataSource relativeToVRT="1">secret.csv'
        "</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    for name in ("zones.vrt", "zones.geojson"):
        path = tmp_path / name
        path.write_text(view)
        for look in (str(path), view):
            with pytest.raises(InputError, match="is a view of other files") as caught:
                read_features(look, "class")
            assert "password" not in str(caught.value)


@pytest.fixture
def servers() -> Iterator[contextlib.ExitStack]:
    """Ended after the test."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("kind", ["zip", "tar", "gzip", "network", "database"])
def test_a_view_is_refused_wherever_it_lies(
    tmp_path: Path, kind: str, servers: contextlib.ExitStack
) -> None:
    (tmp_path / "secret.csv").write_text("password,x,y\nhunter2,1,2\n")
    source = f'<SrcDataSource relativeToVRT="0">{tmp_path}/secret.csv</SrcDataSource>'
    layer = f'<OGRVRTLayer name="secret">{source}<GeometryType>wkbNone</GeometryType></OGRVRTLayer>'
    text = f"<!-- a,b -->\n<OGRVRTDataSource>{layer}</OGRVRTDataSource>"
    view = tmp_path / "view.vrt"
    view.write_text(text)
    names = []
    if kind == "zip":
        for name in ("one", "two"):
            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(view, "view.vrt")
                if name == "two":
                    archive.writestr("more.txt", "")
        names = [f"{tmp_path}/one.zip", f"/vsizip/{tmp_path}/two.zip/view.vrt"]
        names.append(f"zip://{tmp_path}/two.zip!view.vrt")
    elif kind == "tar":
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.add(view, "view.vrt")
        names = [f"/vsitar/{tmp_path}/a.tar/view.vrt"]
    elif kind == "gzip":
        with gzip.open(tmp_path / "view.vrt.gz", "wb") as packed:
            packed.write(text.encode())
        names = [f"/vsigzip/{tmp_path}/view.vrt.gz"]
    elif kind == "database":
        # What never ends is not counted.
        path = changed(
            tmp_path / "view.gpkg",
            "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT n.i AS fid, view.class AS class, view.geom AS geom FROM n, view",
        )
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE gpkg_contents SET table_name = 'endless'")
            database.execute("UPDATE gpkg_geometry_columns SET table_name = 'endless'")
        with zipfile.ZipFile(tmp_path / "db.zip", "w") as archive:
            archive.write(path, "view.gpkg")
        check_no_view(f"/vsizip/{tmp_path}/db.zip/view.gpkg")
    else:
        address = servers.enter_context(serve_folder(tmp_path)) + "/view.vrt"
        names = [address, f"/vsicurl/{address}"]
    for name in names:
        with pytest.raises(InputError, match="is a view of other files") as caught:
            read_features(name, "class")
        assert "password" not in str(caught.value)
        with pytest.raises(InputError, match="is a view of other files"):
            check_no_view(name)


def test_views_are_no_pipelines_indexes_or_maps_either(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("password,x,y\nhunter2,1,2\n")
    command = f"gdal vector pipeline ! read {tmp_path}/secret.csv"
    pipeline = tmp_path / "a.gdalg.json"
    pipeline.write_text(json.dumps({"type": "gdal_streamed_alg", "command_line": command}))
    with pytest.raises(InputError, match="is a view of other files"):
        read_features(str(pipeline), "class")
    column = '<Field name="location" src="password"/>'
    view = (
        f'<OGRVRTDataSource><OGRVRTLayer name="secret"><SrcDataSource>{tmp_path}/secret.csv'
        f"</SrcDataSource>{column}</OGRVRTLayer></OGRVRTDataSource>"
    )
    index = tmp_path / "index.gpkg"
    index.write_text(view)
    jobs = collect_jobs([str(index)], f"{tmp_path}/{{id}}.gpkg", BatchOptions())
    assert not jobs.jobs
    assert "is a view of other files" in jobs.problems[0].message
    with pytest.raises(InputError, match="is a view of other files"):
        FinishedMap(index)
    named = SimpleNamespace(name=str(pipeline), driver="GDALG", files=())
    with pytest.raises(InputError, match="is or names a pipeline of GDAL"):
        check_sources(named, "scene.vrt")


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "fgb", "shp"])
def test_whole_numbers_of_64_bits_beside_nulls_are_not_rounded(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"zones.{suffix}"
    numbers = pd.array([2**53 + 1, 2**53, None], dtype="Int64")
    shares = [1.5e16, 0.5, None]
    places = [shapely.box(place, 0, place + 1, 1) for place in range(3)]
    frame = gpd.GeoDataFrame({"zone": numbers, "share": shares}, geometry=places, crs=32633)
    frame.to_file(path)
    read = read_features(str(path), "zone")
    names = {class_name(value) for value in read["zone"]}
    assert names == {"9007199254740993", "9007199254740992", ""}
    assert sorted(read["share"].dropna()) == [0.5, 1.5e16]
