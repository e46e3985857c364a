"""Around the poles, too, a place in longitude and latitude has the class that it has in the map."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from pyproj import CRS

from tests.factories import write_map

NAMES = np.array(["A", "B"])
SIDE = 6
GEOD = pyproj.Geod(ellps="WGS84")


def classes_at_random_places(
    frame: gpd.GeoDataFrame, grid: np.ndarray, crs: str, transform: Affine
) -> tuple[np.ndarray, np.ndarray]:
    """Of random places: how many polygons they are in, and whether those have the right class."""
    draw = np.random.default_rng(0)
    col, row = draw.uniform(0, grid.shape[1], 2000), draw.uniform(0, grid.shape[0], 2000)
    to_frame = pyproj.Transformer.from_crs(crs, frame.crs, always_xy=True)
    points = shapely.points(*to_frame.transform(*(transform @ (col, row))))
    point, polygon = shapely.STRtree(frame.geometry.values).query(points, predicate="intersects")
    wanted = NAMES[grid[row.astype(int), col.astype(int)]]
    right = np.zeros(len(points), bool)
    right[point] = frame["class"].to_numpy()[polygon] == wanted[point]
    return np.bincount(point, minlength=len(points)), right


@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:3031", "EPSG:3995"])
@pytest.mark.parametrize("pole", [(3.0, 3.0), (3.5, 2.5), (3.3, 2.1), (3.5, 3.0), (0.0, 0.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_cells_and_regions_around_a_pole(
    crs: str, pole: tuple[float, float], seed: int, tmp_path: Path
) -> None:
    """The pole on a corner of cells, in one, on an edge, at the raster's corner."""
    grid = np.random.default_rng(seed).integers(0, 2, (SIDE, SIDE))
    transform = Affine(1000, 0, -pole[0] * 1000, 0, -1000, pole[1] * 1000)
    path = write_map(
        tmp_path / "map.gpkg", grid, ["A", "B"], crs=crs, transform=transform, target_crs=CRS(4326)
    )
    for layer in ("cells", "landuse"):
        frame = gpd.read_file(path, layer=layer)
        assert frame.is_valid.all()
        assert np.abs(frame.total_bounds[[0, 2]]).max() <= 180
        count, right = classes_at_random_places(frame, grid, crs, transform)
        assert (count == 1).mean() > 0.998
        assert right.mean() > 0.998
    areas = [abs(GEOD.geometry_area_perimeter(polygon)[0]) for polygon in frame.geometry]
    np.testing.assert_allclose(areas, frame["area_m2"], rtol=2e-3)


def test_far_corners_of_a_wide_polar_map(tmp_path: Path) -> None:
    grid = np.random.default_rng(1).integers(0, 2, (SIDE, SIDE))
    transform = Affine(500_000, 0, -1_500_000, 0, -500_000, 1_500_000)
    place = {"crs": "EPSG:3413", "transform": transform}
    path = write_map(tmp_path / "map.geojson", grid, ["A", "B"], **place)
    frame = gpd.read_file(path)
    assert frame.is_valid.all()
    count, right = classes_at_random_places(frame, grid, "EPSG:3413", transform)
    assert (count == 1).mean() > 0.998
    assert right.mean() > 0.998


def test_a_grid_around_the_world_closes_around_a_pole(tmp_path: Path) -> None:
    """In degrees a parallel is a line with two ends; around the pole it is a ring."""
    grid = np.tile([[0], [1], [0], [0], [1]], 60)
    transform = Affine(6, 0, -180, 0, -6.025, 90.125)
    place = {"crs": "EPSG:4326", "transform": transform, "target_crs": CRS(3413)}
    frame = gpd.read_file(
        write_map(tmp_path / "map.gpkg", grid, ["A", "B"], **place), layer="landuse"
    )
    assert len(frame) == 4
    assert frame.is_valid.all()
    count, right = classes_at_random_places(frame, grid, "EPSG:4326", transform)
    assert (count >= 1).mean() > 0.99  # a chord lies inside its parallel
    assert right.mean() > 0.99


@pytest.mark.parametrize("south", [False, True])
def test_an_edge_at_a_pole_becomes_one_point(south: bool, tmp_path: Path) -> None:
    """Regions that touch it in several places stay valid."""
    grid = np.array([[0, 1, 0, 1, 0], [0, 0, 0, 1, 0], [1, 1, 0, 0, 0]])
    transform = Affine(3, 0, -50, 0, 2, -90) if south else Affine(3, 0, -50, 0, -2, 90)
    target = CRS(3031 if south else 3413)
    place = {"crs": "EPSG:4326", "transform": transform, "target_crs": target}
    path = write_map(tmp_path / "map.gpkg", grid, ["A", "B"], **place)
    for layer, count in (("cells", 15), ("landuse", 4)):
        frame = gpd.read_file(path, layer=layer)
        assert len(frame) == count
        assert frame.is_valid.all()
        assert frame.area.sum() == pytest.approx(frame.union_all().area, rel=1e-9)
