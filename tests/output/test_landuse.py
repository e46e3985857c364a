"""The writer: all cells are written, in every format, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Geod

from rssc_geo.errors import OutputError, UsageError
from rssc_geo.models import SceneClass
from rssc_geo.output import CellBatch, UnknownRule

if TYPE_CHECKING:
    from conftest import Case

FORMATS = ("gpkg", "fgb", "geojson", "parquet", "shp")
FILES = {
    "gpkg": {"map.gpkg"},
    "fgb": {"map.fgb", "map_cells.fgb"},
    "geojson": {"map.geojson", "map_cells.geojson"},
    "parquet": {"map.parquet", "map_cells.parquet"},
    "shp": {
        f"{stem}{end}"
        for stem in ("map", "map_cells")
        for end in (".shp", ".shx", ".dbf", ".prj", ".cpg", "_fields.csv")
    },
}


def read(path: Path) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Both layers, in one order whatever the format."""
    cells = path.with_name(f"{path.stem}_cells{path.suffix}")
    if path.suffix == ".gpkg":
        frames = gpd.read_file(path, layer="landuse"), gpd.read_file(path, layer="cells")
    elif path.suffix == ".parquet":
        frames = gpd.read_parquet(path), gpd.read_parquet(cells)
    else:
        frames = gpd.read_file(path), gpd.read_file(cells)
    return frames[0], frames[1].sort_values(["row", "col"], ignore_index=True)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_holds_the_same_map_and_nothing_is_left_beside_it(
    case: Case, tmp_path: Path, suffix: str
) -> None:
    summary = case.write(tmp_path / f"map.{suffix}", probabilities=True)
    assert set(os.listdir(tmp_path)) == FILES[suffix]
    assert summary.paths[0] == tmp_path / f"map.{suffix}"
    landuse, cells = read(summary.paths[0])
    assert CRS(landuse.crs) == CRS(cells.crs) == (CRS(4326) if suffix == "geojson" else case.crs)
    assert (
        (len(landuse), len(cells))
        == (summary.regions, summary.cells)
        == (summary.regions, len(case.rows))
    )
    assert [(total.title, total.group) for total in summary.classes] == [
        (scene_class.title, scene_class.group or None) for scene_class in case.classes
    ]
    names = np.array([scene_class.name for scene_class in case.classes], object)
    order = np.argsort(-case.probabilities, axis=1, kind="stable")
    top = np.sort(case.probabilities, axis=1)[:, ::-1]
    assert cells["row"].tolist() == case.rows.tolist()
    assert cells["col"].tolist() == case.cols.tolist()
    assert cells["class_id"].tolist() == order[:, 0].tolist()
    assert cells["class"].tolist() == names[order[:, 0]].tolist()
    assert cells["runner_up"].tolist() == names[order[:, 1]].tolist()
    groups = {scene_class.name: scene_class.group or None for scene_class in case.classes}
    for layer in (cells, landuse):
        assert layer.columns[:3].tolist() == ["class", "class_id", "group"]
        found = [group if isinstance(group, str) else None for group in layer["group"]]
        assert found == [groups[name] for name in layer["class"]]
    assert cells["confidence"].to_numpy() == pytest.approx(top[:, 0], abs=1e-6)
    assert cells["margin"].to_numpy() == pytest.approx(top[:, 0] - top[:, 1], abs=1.1e-6)
    for caption, expected in zip(cells["caption"], case.captions, strict=True):
        assert caption == expected if suffix != "shp" else expected.startswith(caption.rstrip())
    probabilities = cells[[name for name in cells.columns if name.startswith("p_")]].to_numpy()
    assert probabilities == pytest.approx(case.probabilities, abs=1e-6)
    # Regions: every cell lies in the one of its class, which counts it.
    inside = gpd.sjoin(
        cells.set_geometry(cells.representative_point()), landuse, predicate="within"
    )
    assert len(inside) == len(cells)
    assert (inside["class_left"] == inside["class_right"]).all()
    assert inside.groupby("index_right").size().sort_index().tolist() == landuse["cells"].tolist()
    assert landuse["area_m2"].sum() == pytest.approx(
        sum(total.area_m2 for total in summary.classes), rel=1e-9
    )
    assert landuse.is_valid.all()
    assert cells.is_valid.all()


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "parquet"])
def test_polygons_are_the_cells_to_the_last_bit(case: Case, tmp_path: Path, suffix: str) -> None:
    case.write(tmp_path / f"map.{suffix}")
    landuse, cells = read(tmp_path / f"map.{suffix}")
    for row, col, polygon in zip(cells["row"], cells["col"], cells.geometry, strict=True):
        assert set(polygon.exterior.coords) == set(case.cell_box(row, col).exterior.coords)
    assert landuse.union_all().equals(cells.union_all())
    assert landuse.area.sum() == cells.area.sum()


def test_confidence_and_area_of_a_region_are_those_of_its_cells(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path / "map.gpkg")
    landuse, cells = read(tmp_path / "map.gpkg")
    to_lonlat = cells.to_crs(4326).geometry
    areas = np.array(
        [abs(Geod(ellps="WGS84").geometry_area_perimeter(cell)[0]) for cell in to_lonlat]
    )
    for region in landuse.itertuples():
        own = cells.geometry.representative_point().within(region.geometry).to_numpy()
        assert region.area_m2 == pytest.approx(areas[own].sum(), rel=1e-6)
        expected = np.average(cells["confidence"][own], weights=areas[own])
        assert region.confidence == pytest.approx(expected, abs=2e-6)


def test_reprojected_neighbors_share_their_corners(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path / "map.gpkg", crs=CRS(3035))
    landuse, cells = read(tmp_path / "map.gpkg")
    assert landuse.crs == cells.crs == "EPSG:3035"
    corners = {tuple(point) for point in shapely.get_coordinates(cells.geometry.to_numpy())}
    vertices = {tuple(point) for point in shapely.get_coordinates(landuse.geometry.to_numpy())}
    assert vertices <= corners
    # No slivers: where two regions meet, they meet exactly.
    assert shapely.coverage_is_valid(landuse.geometry.to_numpy())
    original = cells.to_crs(case.crs).geometry
    for row, col, polygon in zip(cells["row"], cells["col"], original, strict=True):
        assert polygon.hausdorff_distance(case.cell_box(row, col)) < 1e-3


def test_small_regions_join_their_neighbors_in_landuse_only(case: Case, tmp_path: Path) -> None:
    many = case.write(tmp_path / "all.gpkg").regions
    summary = case.write(tmp_path / "map.gpkg", min_area=80 * 80 * 5.0)
    landuse, cells = read(tmp_path / "map.gpkg")
    assert len(landuse) == summary.regions < many
    assert landuse["cells"].sum() == len(cells) == len(case.rows)
    assert cells["class_id"].tolist() == case.probabilities.argmax(axis=1).tolist()
    small = landuse[landuse["area_m2"] < 80 * 80 * 4.5]
    for polygon in small.geometry:
        assert not landuse.geometry.drop(small.index).intersection(polygon).length.any()


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_unfamiliar_is_unknown_and_a_region_of_its_own(
    make_case: Callable[..., Case], tmp_path: Path, suffix: str
) -> None:
    case = make_case()
    unknown = SceneClass(len(case.classes), "Unknown", "#808080")
    case = dataclasses.replace(case, classes=(*case.classes, unknown), unknown=UnknownRule(0.1))
    case.familiarity[:] = 0.1  # not below
    strange = (case.rows < 3) & (case.cols < 3)
    case.familiarity[strange] = 0.05
    case.familiarity[~strange & (case.rows % 2 == 1)] = np.nan  # cannot tell
    summary = case.write(tmp_path / f"map.{suffix}", probabilities=True)
    named = case.probabilities.argmax(1)
    names = np.array([c.name for c in case.classes], object)
    landuse, cells = read(tmp_path / f"map.{suffix}")
    order = np.lexsort((case.cols, case.rows))
    expected = np.where(strange, "Unknown", names[named])[order]
    assert cells["class"].tolist() == expected.tolist()
    unknown = (cells["class"] == "Unknown").to_numpy()
    assert cells["runner_up"][unknown].tolist() == names[named][order][unknown].tolist()
    assert (cells["confidence"][unknown] == 0).all()
    assert (cells["margin"][unknown] == 0).all()
    assert (cells["confidence"][~unknown] > 0).all()
    column = "familiarit" if suffix == "shp" else "familiarity"
    np.testing.assert_allclose(cells[column], case.familiarity[order], atol=1e-6)
    assert sum(name.startswith("p_") for name in cells) == len(case.classes) - 1
    regions = landuse[landuse["class"] == "Unknown"]
    assert regions["cells"].sum() == strange.sum()
    assert (regions["confidence"] == 0).all()
    total = summary.classes[-1]
    assert (total.name, total.cells) == ("Unknown", strange.sum())


def test_clipping_cuts_polygons_and_measures_what_is_left(case: Case, tmp_path: Path) -> None:
    west, south, east, north = 500000, 5199500, 500333, 5199999
    area = shapely.union(
        shapely.box(west, south, east, north), shapely.box(500500, 5199500, 500510, 5199510)
    )
    summary = case.write(tmp_path / "map.gpkg", clip=area)
    landuse, cells = read(tmp_path / "map.gpkg")
    assert set(landuse.geom_type) | set(cells.geom_type) == {"MultiPolygon"}
    assert landuse.within(area.buffer(1e-6)).all()
    whole = shapely.union_all(
        [case.cell_box(r, c) for r, c in zip(case.rows, case.cols, strict=True)]
    )
    assert landuse.area.sum() == pytest.approx(whole.intersection(area).area, rel=1e-9)
    assert landuse["area_m2"].sum() == pytest.approx(
        landuse.to_crs("ESRI:54034").area.sum(), rel=1e-3
    )
    assert len(cells) < len(case.rows)  # cells outside are gone
    assert summary.paths == (tmp_path / "map.gpkg",)


@pytest.mark.parametrize("suffix", ["geojson", "gpkg"])
def test_maps_across_the_antimeridian_are_cut_in_geographic_output(
    make_case: Callable[..., Case], tmp_path: Path, suffix: str
) -> None:
    case = make_case("EPSG:32760", Affine(5000, 0, 700000, 0, -5000, 8100000), (6, 9))
    case.write(tmp_path / f"map.{suffix}", crs=CRS(4326) if suffix == "gpkg" else None)
    landuse, cells = read(tmp_path / f"map.{suffix}")
    for frame in (landuse, cells):
        assert frame.is_valid.all()
        bounds = frame.explode().bounds
        assert (bounds["maxx"] - bounds["minx"]).max() < 20  # no polygon spans the world
        assert frame.total_bounds[0] == -180
        assert frame.total_bounds[2] == 180


def test_geojson_follows_rfc_7946_unless_another_crs_is_asked_for(
    case: Case, tmp_path: Path
) -> None:
    case.write(tmp_path / "map.geojson")
    content = json.loads((tmp_path / "map.geojson").read_text(encoding="utf-8"))
    assert "crs" not in content
    assert '"input": "scene <1>.tif"' in content["description"]
    for feature in content["features"]:
        assert shapely.geometry.shape(feature["geometry"]).exterior.is_ccw
    case.write(tmp_path / "utm.geojson", crs=CRS(32632))
    assert gpd.read_file(tmp_path / "utm.geojson").crs == "EPSG:32632"


def test_shapefiles_warn_once_and_list_their_names(
    case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        case.write(tmp_path / "map.shp", probabilities=True)
    assert len(caplog.records) == 1
    table = (tmp_path / "map_cells_fields.csv").read_text(encoding="utf-8")
    assert "p_robert_d,p_robert_drop_table_scenes,P(Robert'); DROP TABLE scenes;--)" in table
    columns = gpd.read_file(tmp_path / "map_cells.shp").columns.tolist()
    assert all(name in table for name in columns if name != "geometry")
    (tmp_path / "map.qix").write_bytes(b"an index of another program")
    case.write(tmp_path / "map.shp", overwrite=True)
    assert not (tmp_path / "map.qix").exists()


def test_geoparquet_says_what_it_is(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path / "map.parquet")
    metadata = pq.read_metadata(tmp_path / "map.parquet").metadata
    geo = json.loads(metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert (geo["version"], column["encoding"], column["geometry_types"]) == (
        "1.1.0",
        "WKB",
        ["Polygon"],
    )
    assert CRS(column["crs"]) == case.crs
    assert column["bbox"] == pytest.approx(
        gpd.read_parquet(tmp_path / "map.parquet").total_bounds.tolist()
    )
    assert json.loads(metadata[b"rssc_geo"])["input"] == "scene <1>.tif"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_map_of_no_cells_is_an_empty_file_with_its_fields(
    case: Case, tmp_path: Path, suffix: str
) -> None:
    with case.writer(tmp_path / f"map.{suffix}") as writer:
        assert len(writer) == 0
        summary = writer.make()
        writer.discard()
    assert (summary.cells, summary.regions) == (0, 0)
    assert set(os.listdir(tmp_path)) == FILES[suffix]
    if suffix == "geojson":  # holds no list of fields
        assert gpd.read_file(tmp_path / "map_cells.geojson").empty
        return
    landuse, cells = read(tmp_path / f"map.{suffix}")
    assert len(landuse) == len(cells) == 0
    assert {"class", "caption", "runner_up"} <= set(cells.columns)


def test_one_class_has_no_runner_up(make_case: Callable[..., Case], tmp_path: Path) -> None:
    make_case(names=("only",)).write(tmp_path / "map.gpkg")
    _, cells = read(tmp_path / "map.gpkg")
    assert cells["runner_up"].isna().all()
    assert (cells["margin"] == cells["confidence"]).all()


def test_an_interrupted_run_goes_on_and_gives_the_same_map(
    case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case.write(tmp_path / "whole.gpkg")
    with case.writer(tmp_path / "map.gpkg") as writer:
        assert writer.watermark == 0
        writer.append(case.batch(0, 20), 20)
    assert not (tmp_path / "map.gpkg").exists()
    with case.writer(tmp_path / "map.gpkg") as writer:
        assert (writer.watermark, len(writer)) == (20, 20)
        writer.append(case.batch(20, len(case.rows)), 99)
        writer.make()
        writer.discard()
    for one, other in zip(read(tmp_path / "map.gpkg"), read(tmp_path / "whole.gpkg"), strict=True):
        assert one.equals(other)
    assert sorted(os.listdir(tmp_path)) == ["map.gpkg", "whole.gpkg"]
    with case.writer(tmp_path / "next.gpkg") as writer:
        writer.append(case.batch(0, 5), 5)
    for changed, named in (
        ({"probabilities": True}, "--probabilities)"),
        ({"run_key": {"input": "other"}}, "--probabilities, input)"),
        ({"run_key": {"--tile-size": "9px", "model": "m"}}, "--tile-size, input, model)"),
    ):
        caplog.clear()
        with case.writer(tmp_path / "next.gpkg", **changed) as writer:  # type: ignore[arg-type]
            assert (writer.watermark, len(writer)) == (0, 0)
            assert f"it is from a run with another {named}" in caplog.text
            writer.append(case.batch(0, 5), 5)
    with case.writer(tmp_path / "next.gpkg") as writer:
        writer.discard()
    assert sorted(os.listdir(tmp_path)) == ["map.gpkg", "whole.gpkg"]


def test_batches_and_classes_that_do_not_fit_are_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 rows, 1 cols"):
        CellBatch(
            np.zeros(2, np.int32),
            np.zeros(1, np.int32),
            np.zeros((2, 3), np.float32),
            np.ones(2, np.float32),
            ["", ""],
            np.zeros((2, 3), np.float32),
        )
    for classes in ((SceneClass(1, "a", "#000000"),), (case.classes[0],) * 2):
        with pytest.raises(ValueError, match="count from 0"):
            type(case)(**{**vars(case), "classes": classes}).writer(tmp_path / "map.gpkg")
    twins = (SceneClass(0, "a", "#000000"), SceneClass(1, "a", "#000000"))
    with pytest.raises(UsageError, match="two classes are named 'a'"):
        type(case)(**{**vars(case), "classes": twins}).writer(tmp_path / "map.gpkg")
    assert os.listdir(tmp_path) == []


def test_a_failure_while_writing_leaves_the_old_map_and_the_part_file(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.write(tmp_path / "map.gpkg")
    before = (tmp_path / "map.gpkg").read_bytes()

    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    with case.writer(tmp_path / "map.gpkg", overwrite=True) as writer:
        writer.append(case.batch(0, 20), 20)
        # Inside the stream that GDAL pulls from: the exception has to come back through C as what
        # it was.
        monkeypatch.setattr("rssc_geo.output.layers.shapely.to_wkb", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.make()
        assert (tmp_path / "map.gpkg").read_bytes() == before
        assert sorted(name for name in os.listdir(tmp_path) if "journal" not in name) == [
            "map.gpkg",
            "map.gpkg.part",
        ]
        monkeypatch.undo()
        writer.make()
        writer.discard()
    assert os.listdir(tmp_path) == ["map.gpkg"]
    assert len(read(tmp_path / "map.gpkg")[1]) == 20


_FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from affine import Affine
from pyproj import CRS
from rssc_geo.errors import OutputError
from rssc_geo.geometry import TileGrid
from rssc_geo.models import SceneClass
from rssc_geo.output import CellBatch, GeoGrid, LandUseWriter, OutputTarget
path, limit = Path(sys.argv[1]), int(sys.argv[2])
n = 80
geo = GeoGrid(TileGrid((n * 8, n * 8), (8, 8)), Affine(1, 0, 5e5, 0, -1, 5e6), CRS(32632))
classes = [SceneClass(0, "a", "#000000"), SceneClass(1, "b", "#ffffff")]
writer = LandUseWriter(OutputTarget(path), geo, classes=classes, run_key={}, provenance={})
rng = np.random.default_rng(0)
if not writer.watermark:
    for row in range(n):
        p = rng.dirichlet([1, 1], n).astype(np.float32)
        texts = rng.integers(0, 10**9, n).astype(str).tolist()
        rows, cols = np.full(n, row, np.int32), np.arange(n, dtype=np.int32)
        known, colors = np.ones(n, np.float32), np.ones((n, 3), np.float32)
        writer.append(CellBatch(rows, cols, p, known, texts, colors), row + 1)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    print(len(writer), writer.make().cells)
    writer.discard()
except OutputError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit to stand for a full disk")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_while_finishing_is_one_line_and_the_run_can_go_on(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"map.{suffix}"

    def run(limit: int) -> tuple[str, str]:
        child = subprocess.run(
            [sys.executable, "-c", _FULL, str(path), str(limit)],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        return child.stdout.strip(), child.stderr.strip()

    for limit in (20_000, 150_000):  # while writing the first layer, and further on
        out, err = run(limit)
        assert out.startswith("cannot write map"), (out, err)
        assert str(tmp_path) in out
        assert "\n" not in out
        assert os.listdir(tmp_path) == [f"map.{suffix}.part"]
    out, err = run(0)
    assert out == "6400 6400"
    assert set(os.listdir(tmp_path)) == FILES[suffix]


def test_a_run_killed_while_finishing_leaves_a_resumable_part_and_no_result(tmp_path: Path) -> None:
    path = tmp_path / "map.gpkg"
    slow = _FULL.replace("if limit:", "print('finishing', flush=True)\nif limit:")
    child = subprocess.Popen(
        [sys.executable, "-c", slow, str(path), "0"], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "finishing\n"
    while not (tmp_path / ".map.gpkg.rssc-geo").exists():
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not path.exists()
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(path), "0"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "6400 6400"
    assert os.listdir(tmp_path) == ["map.gpkg"]


def test_a_crs_that_cannot_hold_the_raster_is_one_line(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    case = make_case("EPSG:4326", Affine(0.5, 0, 80, 0, -0.5, 10))
    with pytest.raises(OutputError, match="--crs"):
        case.write(tmp_path / "map.gpkg", crs=CRS("+proj=ortho +lat_0=0 +lon_0=-90"))
    moon = CRS.from_proj4("+proj=longlat +R=1737400 +no_defs")
    with pytest.raises(OutputError, match="choose another --crs"):
        case.write(tmp_path / "moon.gpkg", crs=moon)


@pytest.mark.parametrize("target", ["EPSG:3857", "EPSG:3395", "ESRI:54009", "ESRI:54012"])
def test_maps_across_the_antimeridian_are_cut_in_projections_of_the_world(
    make_case: Callable[..., Case], tmp_path: Path, target: str
) -> None:
    case = make_case("EPSG:32760", Affine(5000, 0, 700000, 0, -5000, 8100000), (6, 9))
    case.write(tmp_path / "map.gpkg", crs=CRS(target))
    for frame in read(tmp_path / "map.gpkg"):
        assert frame.is_valid.all()
        bounds = frame.explode().bounds
        assert (bounds["maxx"] - bounds["minx"]).max() < 1e6
    landuse, _ = read(tmp_path / "map.gpkg")
    # Cut, and nothing lost.
    equal_area = landuse if target == "ESRI:54009" else landuse.to_crs("ESRI:54034")
    assert equal_area.area.sum() == pytest.approx(landuse["area_m2"].sum(), rel=1e-2)


@pytest.mark.slow
def test_cells_at_the_limb_of_a_full_disk_have_the_area_on_earth(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    disk = "+proj=geos +h=35785831 +lon_0=140 +sweep=y +a=6378169 +b=6356583.8"
    side = 11_136_000 / 69
    case = make_case(disk, Affine(side, 0, -5_568_000, 0, -side, 5_568_000), (9, 9), void=0)
    summary = case.write(tmp_path / "map.gpkg")
    landuse, cells = read(tmp_path / "map.gpkg")
    assert np.isfinite(landuse["area_m2"]).all()
    assert np.isfinite(landuse.select_dtypes("number")).all(axis=None)
    # A third of the Earth and more is seen from there, up to 81 degrees away.
    assert 0.38 * 510e12 < landuse["area_m2"].sum() < 0.46 * 510e12
    assert summary.cells == len(cells)
    with pytest.raises(OutputError, match="choose another --crs"):
        case.write(tmp_path / "lonlat.gpkg", crs=CRS(4326))


def test_a_global_grid_that_reaches_beyond_the_poles_ends_at_them(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    case = make_case(
        "EPSG:4326", Affine(360 / 70, 0, -180, 0, -180.25 / 69, 90.125), (9, 9), void=0
    )
    for name, crs in (("own.gpkg", None), ("other.gpkg", CRS("ESRI:54034"))):
        case.write(tmp_path / name, crs=crs)
        landuse, cells = read(tmp_path / name)
        assert landuse["area_m2"].sum() == pytest.approx(510.07e12, rel=1e-3)
        assert np.isfinite(landuse["area_m2"]).all()
        if crs is None:
            assert np.abs(cells.total_bounds).max() <= 180
            assert np.abs(cells.total_bounds[[1, 3]]).max() <= 90


def test_a_geocentric_crs_is_no_map(case: Case, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another --crs"):
        case.write(tmp_path / "map.gpkg", crs=CRS(4978))
