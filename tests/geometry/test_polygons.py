"""Outlines of cells and regions.

Exact, valid, complete, for any grid, any classes and any affine.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from rssc_geo.geometry import (
    Regions,
    TileGrid,
    cell_polygons,
    dissolve,
    merge_small,
)

NOTHING = -1
PLAIN = Affine(1, 0, 0, 0, 1, 0)
affines = st.sampled_from(
    [
        Affine(0.3, 0, 500000.1, 0, -0.3, 5200000.7),
        Affine(0.5, 0, -180, 0, 0.5, -90),  # south-up
        Affine.rotation(31.7) @ Affine(10.1, 0, 7, 0, -9.7, 3),
        Affine(-2.5, 0.3, 11, 0.2, -1.5, -4),
    ]
)


@st.composite
def maps(draw: st.DrawFn, most: int = 8) -> tuple[TileGrid, np.ndarray]:
    """A grid, often with clipped last cells, and classes with nothing among them."""
    rows, cols = draw(st.integers(1, most)), draw(st.integers(1, most))
    cell_size = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    shape = (
        rows * cell_size[0] - draw(st.integers(0, cell_size[0] - 1)),
        cols * cell_size[1] - draw(st.integers(0, cell_size[1] - 1)),
    )
    values = draw(st.lists(st.integers(NOTHING, 2), min_size=rows * cols, max_size=rows * cols))
    return TileGrid(shape, cell_size), np.array(values, np.int16).reshape(rows, cols)


def _expected_regions(classes: np.ndarray) -> dict[frozenset[tuple[int, int]], int]:
    """The regions as sets of cells, labeled class by class with scipy: an independent reckoning."""
    regions = {}
    for value in set(np.unique(classes).tolist()) - {NOTHING}:
        labels, count = ndimage.label(classes == value)
        for label in range(1, count + 1):
            cells = zip(*(axis.tolist() for axis in np.nonzero(labels == label)), strict=True)
            regions[frozenset(cells)] = value
    return regions


def _cells_of(regions: Regions, region: int) -> frozenset[tuple[int, int]]:
    return frozenset(
        zip(*(axis.tolist() for axis in np.nonzero(regions.labels == region)), strict=True)
    )


@given(maps(), affines)
def test_cell_corners_are_the_affine_of_the_pixel_corners_exactly(
    case: tuple[TileGrid, np.ndarray], transform: Affine
) -> None:
    grid, _ = case
    cells = list(grid.cells())
    polygons = cell_polygons(
        grid, transform, np.array([c.row for c in cells]), np.array([c.col for c in cells])
    )
    for cell, polygon in zip(cells, polygons, strict=True):
        w = cell.window
        corners = {
            transform @ (x, y) for x in (w.col, w.col + w.width) for y in (w.row, w.row + w.height)
        }
        assert set(polygon.exterior.coords) == corners
        assert polygon.exterior.is_ccw
        assert len(polygon.exterior.coords) == 5


@given(maps())
def test_regions_are_the_connected_cells_of_one_class_in_order(
    case: tuple[TileGrid, np.ndarray],
) -> None:
    grid, classes = case
    regions = dissolve(grid, PLAIN, classes=classes, nothing=NOTHING)
    found = {
        _cells_of(regions, region): int(regions.class_ids[region]) for region in range(len(regions))
    }
    assert found == _expected_regions(classes)
    assert ((regions.labels == -1) == (classes == NOTHING)).all()
    firsts = [min(_cells_of(regions, region)) for region in range(len(regions))]
    assert firsts == sorted(firsts)


@given(maps(), st.booleans())
def test_region_polygons_are_valid_disjoint_and_cover_their_cells_exactly(
    case: tuple[TileGrid, np.ndarray], keep_corners: bool
) -> None:
    grid, classes = case
    regions = dissolve(grid, PLAIN, classes=classes, nothing=NOTHING, keep_corners=keep_corners)
    polygons = regions.polygons()
    assert shapely.is_valid(polygons).all()
    for region, polygon in enumerate(polygons):
        rows, cols = (np.array(axis) for axis in zip(*_cells_of(regions, region), strict=True))
        cells = cell_polygons(grid, PLAIN, rows, cols)
        assert polygon.geom_type == "Polygon"
        assert polygon.area == shapely.area(cells).sum()  # integers: exactly
        assert polygon.equals(shapely.union_all(cells))
    # All areas together are that of the union: nothing overlaps.
    assert shapely.area(polygons).sum() == shapely.union_all(polygons).area


@given(maps(), affines, st.booleans())
def test_region_corners_are_cell_corners_exactly(
    case: tuple[TileGrid, np.ndarray], transform: Affine, keep_corners: bool
) -> None:
    grid, classes = case
    regions = dissolve(grid, transform, classes=classes, nothing=NOTHING, keep_corners=keep_corners)
    polygons = regions.polygons()
    grid_corners = {
        transform @ (x, y) for x in grid.col_edges().tolist() for y in grid.row_edges().tolist()
    }
    assert {tuple(point) for point in shapely.get_coordinates(polygons)} <= grid_corners
    assert shapely.is_ccw(shapely.get_exterior_ring(polygons)).all()
    if keep_corners:  # every corner of a cell that lies on an outline is one of its vertices
        plain = dissolve(
            grid, PLAIN, classes=classes, nothing=NOTHING, keep_corners=True
        ).polygons()
        for polygon in plain:
            sides = [
                b[0] - a[0] + b[1] - a[1]
                for ring in (polygon.exterior, *polygon.interiors)
                for a, b in _pairs(ring)
            ]
            assert max(map(abs, sides)) <= max(grid.cell_size)


def _pairs(ring: shapely.LinearRing) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    points = list(ring.coords)
    return list(pairwise(points))


@given(maps(), st.integers(0, 5), st.integers(0, 5))
def test_a_slice_of_polygons_is_the_slice_of_all(
    case: tuple[TileGrid, np.ndarray], start: int, count: int
) -> None:
    grid, classes = case
    regions = dissolve(grid, PLAIN, classes=classes, nothing=NOTHING)
    assert (
        regions.polygons(start, start + count).tolist()
        == regions.polygons()[start : start + count].tolist()
    )


def test_straight_outlines_have_corners_only_where_they_turn() -> None:
    regions = dissolve(
        TileGrid((6, 6), (2, 2)), PLAIN, classes=np.zeros((3, 3), int), nothing=NOTHING
    )
    assert len(regions.polygons()[0].exterior.coords) == 5
    kept = dissolve(
        TileGrid((6, 6), (2, 2)),
        PLAIN,
        classes=np.zeros((3, 3), int),
        nothing=NOTHING,
        keep_corners=True,
    )
    assert len(kept.polygons()[0].exterior.coords) == 13


def test_classes_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(3, 3\)"):
        dissolve(TileGrid((6, 6), (2, 2)), PLAIN, classes=np.zeros((2, 2), int), nothing=NOTHING)


@given(maps(), st.integers(0, 12))
def test_merging_leaves_no_small_region_that_has_a_neighbor(
    case: tuple[TileGrid, np.ndarray], least: int
) -> None:
    _, classes = case
    areas = np.ones(classes.shape)
    merged = merge_small(classes, areas, min_area=least, nothing=NOTHING)
    assert ((merged == NOTHING) == (classes == NOTHING)).all()
    together = ndimage.label(classes != NOTHING)[0]
    for cells in _expected_regions(merged):
        if len(cells) < least:  # then it is all there is within reach
            row, col = next(iter(cells))
            assert len(cells) == (together == together[row, col]).sum()
    # Regions that were large enough keep their class.
    for cells, value in _expected_regions(classes).items():
        if len(cells) >= least:
            assert {merged[cell] for cell in cells} == {value}


def test_merging_takes_the_longest_border_then_the_larger_then_the_lower_class() -> None:
    border = np.array([[1, 1, 1, 1], [2, 9, 9, 1], [2, 2, 2, 2]])
    areas = np.ones((3, 4))
    assert (
        merge_small(border, areas, min_area=3, nothing=NOTHING)[1, 1] == 1
    )  # 3 sides against 3, equal areas: lower class
    areas[2] = 5
    assert (
        merge_small(border, areas, min_area=3, nothing=NOTHING)[1, 1] == 2
    )  # equal sides: the larger
    border[1, 3] = 2
    areas[:] = 1
    assert merge_small(border, areas, min_area=3, nothing=NOTHING)[1, 1] == 2  # 4 sides against 2


def test_the_smallest_go_first_and_merged_regions_count_as_one() -> None:
    # 5 (one cell) joins the 3s, which are then large enough to stay.
    row = np.array([[3, 3, 5, 4, 4, 4, 4]])
    assert merge_small(
        row, np.array([[1, 1, 0.5, 1, 1, 1, 1.0]]), min_area=2.5, nothing=NOTHING
    ).tolist() == [[4] * 7]
    bridge = np.array([[3, 3, 5, 3, 3]])
    assert merge_small(bridge, np.ones((1, 5)), min_area=5, nothing=NOTHING).tolist() == [[3] * 5]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_large_noisy_maps_stay_valid(seed: int) -> None:
    classes = np.random.default_rng(seed).integers(NOTHING, 2, (120, 130))
    grid = TileGrid((120 * 4 - 1, 130 * 4 - 2), (4, 4))
    polygons = dissolve(grid, PLAIN, classes=classes, nothing=NOTHING).polygons()
    assert shapely.is_valid(polygons).all()
    cell_area = np.outer(np.diff(grid.row_edges()), np.diff(grid.col_edges()))
    assert shapely.area(polygons).sum() == cell_area[classes != NOTHING].sum()
