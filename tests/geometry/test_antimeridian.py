"""Polygons cut at the antimeridian keep their area and stay within ±180°."""

from __future__ import annotations

import numpy as np
import shapely

from rssc_geo.geometry import crosses, split


def test_a_polygon_across_the_antimeridian_becomes_two() -> None:
    across = shapely.polygons([(179, 0), (-179, 0), (-179, 1), (179, 1)])
    beyond = shapely.box(179, 0, 181, 1)
    plain = shapely.box(10, 0, 11, 1)
    for polygon, wrapped in ((across, True), (beyond, False)):
        cut, same = split(np.array([polygon, plain]), wrapped=wrapped)
        assert cut.equals(shapely.union(shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)))
        assert same is plain
        assert all(part.exterior.is_ccw for part in cut.geoms)


def test_holes_are_cut_with_their_outline() -> None:
    outline = [(178, 0), (-178, 0), (-178, 4), (178, 4)]
    hole = [(-179, 1), (-179, 2), (179, 2), (179, 1)]
    (cut,) = split(np.array([shapely.polygons(outline, [hole])]), wrapped=True)
    assert cut.is_valid
    assert cut.area == 4 * 4 - 2
    assert cut.bounds == (-180, 0, 180, 4)


def test_a_polygon_around_a_pole_gets_the_pole() -> None:
    lon = np.arange(-175, 180, 10)
    cap = shapely.polygons(np.column_stack([lon, np.full(len(lon), -80)]))
    (cut,) = split(np.array([cap]), wrapped=True)
    assert cut.is_valid
    assert cut.area == 360 * 10
    assert shapely.contains_xy(cut, -120, -89)


def test_a_ring_around_a_pole_keeps_its_hole() -> None:
    lon = np.arange(-175, 180, 10)
    ring = shapely.polygons(
        np.column_stack([lon, np.full(len(lon), 70)]),
        [np.column_stack([lon, np.full(len(lon), 80)])],
    )
    (cut,) = split(np.array([ring]), wrapped=True)
    assert cut.is_valid
    assert cut.area == 360 * 10
    assert not shapely.contains_xy(cut, 0, 85)


def test_what_counts_as_crossing() -> None:
    assert crosses(np.array([179.0, -179.0]), wrapped=True)
    assert not crosses(np.array([179.0, -179.0]), wrapped=False)  # a cell as wide as the world
    assert crosses(np.array([170.0, 190.0]), wrapped=False)
    assert not crosses(np.array([170.0, 180.0]), wrapped=True)


def test_nothing_to_split() -> None:
    assert len(split(np.empty(0, object), wrapped=True)) == 0
