"""Areas are geodesic; polygons cut at the antimeridian keep their area and stay within ±180°."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS, Geod

from rssc_geo.errors import GeoreferenceError
from rssc_geo.geometry import (
    TileGrid,
    cell_polygons,
    crosses_antimeridian,
    dissolve,
    geodesic_area_m2,
    split_at_antimeridian,
)


def test_a_polygon_across_the_antimeridian_becomes_two() -> None:
    across = shapely.polygons([(179, 0), (-179, 0), (-179, 1), (179, 1)])
    beyond = shapely.box(179, 0, 181, 1)
    plain = shapely.box(10, 0, 11, 1)
    for polygon, wrapped in ((across, True), (beyond, False)):
        cut, same = split_at_antimeridian(np.array([polygon, plain]), wrapped=wrapped)
        assert cut.equals(shapely.union(shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)))
        assert same is plain
        assert all(part.exterior.is_ccw for part in cut.geoms)


def test_holes_are_cut_with_their_outline() -> None:
    outline = [(178, 0), (-178, 0), (-178, 4), (178, 4)]
    hole = [(-179, 1), (-179, 2), (179, 2), (179, 1)]
    (cut,) = split_at_antimeridian(np.array([shapely.polygons(outline, [hole])]), wrapped=True)
    assert cut.is_valid
    assert cut.area == 4 * 4 - 2
    assert cut.bounds == (-180, 0, 180, 4)


def test_a_polygon_around_a_pole_gets_the_pole() -> None:
    lon = np.arange(-175, 180, 10)
    cap = shapely.polygons(np.column_stack([lon, np.full(len(lon), -80)]))
    (cut,) = split_at_antimeridian(np.array([cap]), wrapped=True)
    assert cut.is_valid
    assert cut.area == 360 * 10
    assert shapely.contains_xy(cut, -120, -89)


def test_a_ring_around_a_pole_keeps_its_hole() -> None:
    lon = np.arange(-175, 180, 10)
    ring = shapely.polygons(
        np.column_stack([lon, np.full(len(lon), 70)]),
        [np.column_stack([lon, np.full(len(lon), 80)])],
    )
    (cut,) = split_at_antimeridian(np.array([ring]), wrapped=True)
    assert cut.is_valid
    assert cut.area == 360 * 10
    assert not shapely.contains_xy(cut, 0, 85)


def test_what_counts_as_crossing() -> None:
    assert crosses_antimeridian(np.array([179.0, -179.0]), wrapped=True)
    assert not crosses_antimeridian(
        np.array([179.0, -179.0]), wrapped=False
    )  # a cell as wide as the world
    assert crosses_antimeridian(np.array([170.0, 190.0]), wrapped=False)
    assert not crosses_antimeridian(np.array([170.0, 180.0]), wrapped=True)


def test_nothing_to_split_at_antimeridian() -> None:
    assert len(split_at_antimeridian(np.empty(0, object), wrapped=True)) == 0


# --- areas


@pytest.mark.parametrize(
    ("crs", "origin", "step"),
    [
        ("EPSG:32632", (500000, 5200000), 100.0),
        ("EPSG:4326", (9.0, 47.0), 0.001),
        ("EPSG:32760", (834000, 8000000), 500.0),
    ],
)
def test_areas_are_those_of_pyproj_also_across_the_antimeridian(
    crs: str, origin: tuple[float, float], step: float
) -> None:
    grid = TileGrid((30, 30), (10, 10))
    transform = Affine(step, 0, origin[0], 0, -step, origin[1])
    classes = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    ring, middle = dissolve(
        grid, transform, classes=classes, nothing=-1, keep_corners=True
    ).polygons()
    cells = cell_polygons(grid, transform, *(axis.ravel() for axis in np.indices((3, 3))))
    each = geodesic_area_m2(cells, CRS(crs))
    both = geodesic_area_m2(np.array([ring, middle]), CRS(crs))
    assert both[0] == pytest.approx(each.sum() - each[4], rel=1e-6)
    assert both[1] == pytest.approx(each[4], rel=1e-9)
    if crs == "EPSG:4326":
        expected = Geod(ellps="WGS84").geometry_area_perimeter(cells[4])[0]
        assert each[4] == pytest.approx(expected, rel=1e-12)


def _authalic_q(lat: float) -> float:
    """Snyder (1987), Map projections, equation 3-12, on WGS 84."""
    e = CRS(4326).get_geod().es ** 0.5
    sine = np.sin(np.radians(lat))
    return float(
        (1 - e**2)
        * (sine / (1 - (e * sine) ** 2) - np.log((1 - e * sine) / (1 + e * sine)) / (2 * e))
    )


def test_areas_of_wide_cells_follow_the_parallels() -> None:
    box = shapely.box(0, 60, 30, 61)
    exact = 6378137.0**2 * np.radians(30) * (_authalic_q(61) - _authalic_q(60)) / 2
    assert geodesic_area_m2(np.array([box]), CRS(4326))[0] == pytest.approx(exact, rel=1e-4)
    between_corners = Geod(ellps="WGS84").geometry_area_perimeter(box)[0]
    assert between_corners != pytest.approx(
        exact, rel=1e-3
    )  # what it would be without vertices added


def test_areas_on_the_moon_in_grads_of_multipolygons_and_of_none() -> None:
    moon = CRS.from_proj4("+proj=longlat +R=1737400 +no_defs")
    square = np.array([shapely.box(0, 0, 0.1, 0.1)])
    assert geodesic_area_m2(square, moon)[0] == pytest.approx(
        (np.radians(0.1) * 1737400) ** 2, rel=1e-5
    )
    paris = CRS("EPSG:4807")  # in grads
    assert geodesic_area_m2(square, paris)[0] == pytest.approx(
        (np.radians(0.09) * 6378249) ** 2, rel=1e-2
    )
    parts = shapely.multipolygons([shapely.box(0, 0, 0.1, 0.1), shapely.box(1, 0, 1.1, 0.1)])
    areas = geodesic_area_m2(np.array([parts, None]), CRS(4326))
    assert areas[0] == pytest.approx(2 * geodesic_area_m2(square, CRS(4326))[0])
    assert areas[1] == 0
    assert len(geodesic_area_m2(np.empty(0, object), CRS(4326))) == 0


def test_a_crs_without_ellipsoid_is_refused() -> None:
    local = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(GeoreferenceError, match="no ellipsoid"):
        geodesic_area_m2(np.array([shapely.box(0, 0, 1, 1)]), local)


def test_rings_that_meet_in_a_point_still_do_after_the_cut() -> None:
    """Regions of a coarse pattern, with holes that touch their outlines at corners."""
    random = np.random.default_rng(0)
    for side in (1e-4, 1e-3, 0.01):
        grid = TileGrid((40, 40), (1, 1), (1, 1))
        corner = 180 - 20.3 * side, 17 + random.uniform()
        transform = Affine.translation(*corner) @ Affine.rotation(7) @ Affine.scale(side, -side)
        classes = np.where(random.random((40, 40)) < 0.62, 0, -1)
        regions = dissolve(grid, transform, classes=classes, nothing=-1, keep_corners=True)
        wrapped = shapely.transform(
            regions.polygons(), lambda xy: xy - np.outer(xy[:, 0] > 180, (360, 0))
        )
        cut = split_at_antimeridian(wrapped, wrapped=True)
        assert shapely.is_valid(cut).all()
        before, after = (set(map(tuple, shapely.get_coordinates(p))) for p in (wrapped, cut))
        assert {vertex for vertex in after if abs(vertex[0]) < 180} <= before
        assert sum(map(shapely.area, cut)) == pytest.approx(
            (classes == 0).sum() * side**2, rel=1e-6
        )
