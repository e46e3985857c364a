"""Regions computed block by block are those of the whole grid."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine

from rssc_geo.geometry import (
    JoinedPieces,
    PieceJoiner,
    PixelEdges,
    Regions,
    TileGrid,
    dissolve,
    join_outlines,
    merge_small,
    piece_outlines,
)

NORTH_UP = Affine(2, 0, 100, 0, -2, 500)


def spots(seed: int, shape: tuple[int, int], classes: int = 3) -> np.ndarray:
    """Classes in spots, and pixels without one (-1), some blocks of which have none at all."""
    random = np.random.default_rng(seed)
    noise = random.random((classes, shape[0] // 3 + 1, shape[1] // 3 + 1))
    found = noise.argmax(0).repeat(3, 0).repeat(3, 1)[: shape[0], : shape[1]]
    single = random.random(shape) < 0.05
    found[single] = random.integers(0, classes, int(single.sum()))
    found[random.random(shape) < 0.02] = -1
    found[8:16, 8:24] = -1
    return found


def in_blocks(
    classes: np.ndarray, side: int, min_area: float = 0.0
) -> tuple[list[tuple[tuple[int, int], np.ndarray]], JoinedPieces]:
    joiner = PieceJoiner(classes.shape[1])
    blocks = []
    for top in range(0, classes.shape[0], side):
        for left in range(0, classes.shape[1], side):
            part = classes[top : top + side, left : left + side]
            if (part >= 0).any():
                blocks.append(((top, left), joiner.add(part, (top, left))))
    count = sum(int((np.unique(pieces) >= 0).sum()) for _, pieces in blocks)
    areas = np.zeros(count)
    for _, pieces in blocks:
        areas += np.bincount(pieces[pieces >= 0], minlength=count)
    return blocks, joiner.join(areas, min_area=min_area)


def drawn(
    classes: np.ndarray, side: int, *, tolerance: float, keep_corners: bool = False
) -> Regions:
    blocks, joined = in_blocks(classes, side)
    pieces = [
        piece_outlines(np.append(joined.region_of, -1)[numbers], place, tolerance=tolerance)
        for place, numbers in blocks
    ]
    ids, polygons = (np.concatenate(values) for values in zip(*pieces, strict=True))
    edges = PixelEdges(*(np.arange(length + 1.0) for length in classes.shape), NORTH_UP)
    return join_outlines(
        (ids, polygons),
        edges,
        labels=np.zeros((1, 1), np.int32),
        class_ids=joined.class_ids,
        keep_corners=keep_corners,
    )


@pytest.mark.parametrize("side", [4, 8, 64])
@pytest.mark.parametrize("min_area", [0, 7])
def test_pieces_become_the_regions_of_the_whole(side: int, min_area: float) -> None:
    classes = spots(1, (50, 41))
    blocks, joined = in_blocks(classes, side, min_area)
    found = np.full(classes.shape, -1)
    for (top, left), pieces in blocks:
        inside = pieces >= 0
        here = found[top : top + pieces.shape[0], left : left + pieces.shape[1]]
        here[inside] = joined.class_ids[joined.region_of[pieces[inside]]]
    expected = merge_small(classes, np.ones(classes.shape), min_area=min_area, nothing=-1)
    # Of equal neighbors the first is taken, which depends on the order in which they are met.
    assert (found == expected).mean() > (0.999 if min_area == 0 else 0.97)
    regions = dissolve(TileGrid(classes.shape, (1, 1)), NORTH_UP, classes=found, nothing=-1)
    assert len(regions) == len(joined.class_ids)


@pytest.mark.parametrize("side", [4, 16])
def test_outlines_that_are_not_simplified_are_those_of_the_whole(side: int) -> None:
    classes = spots(2, (37, 45))
    whole = dissolve(TileGrid(classes.shape, (1, 1)), NORTH_UP, classes=classes, nothing=-1)
    found = drawn(classes, side, tolerance=0)
    assert sorted(found.class_ids.tolist()) == sorted(whole.class_ids.tolist())
    expected = {shapely.to_wkb(shapely.normalize(polygon)) for polygon in whole.polygons()}
    assert {shapely.to_wkb(shapely.normalize(polygon)) for polygon in found.polygons()} == expected
    assert all(polygon.exterior.is_ccw for polygon in found.polygons())


@pytest.mark.parametrize("keep_corners", [False, True])
def test_simpler_outlines_leave_no_gap_and_do_not_overlap(keep_corners: bool) -> None:
    rows, cols = np.indices((90, 110))
    classes = (rows + 2 * cols > 140).astype(int) + 2 * ((rows - 50) ** 2 + (cols - 60) ** 2 < 500)
    classes[30:34, 70:90] = -1
    found = drawn(classes, 32, tolerance=1, keep_corners=keep_corners)
    polygons = found.polygons()
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).sum() == pytest.approx(4 * (classes >= 0).sum(), abs=1e-6)
    union = shapely.union_all(polygons)
    assert union.area == pytest.approx(4 * (classes >= 0).sum(), abs=1e-6)
    if keep_corners:
        assert shapely.coverage_is_valid(polygons)
    whole = dissolve(TileGrid(classes.shape, (1, 1)), NORTH_UP, classes=classes, nothing=-1)
    corners = shapely.get_num_coordinates(polygons).sum()
    if not keep_corners:
        assert corners < shapely.get_num_coordinates(whole.polygons()).sum() / 2
    for polygon, straight in zip(polygons, whole.polygons(), strict=True):
        assert polygon.boundary.hausdorff_distance(straight.boundary) <= 2 * 2
