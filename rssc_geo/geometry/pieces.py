"""Regions of a grid of pixels that is too large for memory: block by block, joined at the seams.

The part of a region in one block is a *piece*. Blocks come row by row, twice: first to number the
pieces and to find out which belong together (:class:`PieceJoiner`), then to draw the outlines of
the resulting regions (:func:`piece_outlines`), which :func:`join_outlines` puts together. Rows and
columns of pixels are integers, and so are the outlines' corners until the last step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from rssc_geo.geometry.polygons import (
    Borders,
    Outlines,
    Regions,
    absorb_small,
    borders_of,
    label_regions,
    trace_outlines,
)

_Integers = NDArray[np.integer[Any]]
_NONE = -1


@dataclass(frozen=True, slots=True)
class JoinedPieces:
    """The regions of n pieces.

    Attributes
    ----------
    region_of : int64 (n,), the region of each piece; they count in the order of their first pieces
    class_ids : int64 (regions,)
    """

    region_of: NDArray[np.int64]
    class_ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Edge:
    """The pieces, -1 for none, and the classes of the last pixels before the one at ``place``."""

    place: tuple[int, int]
    pieces: NDArray[np.int64]
    classes: NDArray[np.int64]


class PieceJoiner:
    """Numbers the 4-connected pieces of blocks, and joins those that touch across seams.

    ``width``: columns of the whole grid. Memory depends on it and on how many pieces there are.
    """

    def __init__(self, width: int) -> None:
        self._count = 0
        self._classes: list[NDArray[np.int64]] = []
        self._joints: list[NDArray[np.int64]] = []
        self._borders: list[Borders] = []
        nothing = np.full(width, _NONE, np.int64)
        self._above = self._lowest = _Edge((_NONE, 0), nothing, nothing)
        self._left = self._above

    def add(self, classes: _Integers, place: tuple[int, int]) -> NDArray[np.int64]:
        """The number of the piece that each pixel of the next block belongs to, -1 for none.

        Parameters
        ----------
        classes : integers (h, w), below 0 for none
        place : row and column of its first pixel; blocks come row by row, from left to right, those
            without a class may be left out
        """
        (top, left), (rows, cols) = place, classes.shape
        labels = label_regions(classes, nothing=_NONE).astype(np.int64)
        inside = labels >= 0
        own = np.zeros(int(labels.max(initial=_NONE)) + 1, np.int64)
        own[labels[inside]] = classes[inside]
        labels[inside] += self._count
        self._count += len(own)
        self._classes.append(own)
        self._borders.append(borders_of(labels))
        if self._lowest.place[0] != top + rows:
            nothing = np.full((2, len(self._lowest.pieces)), _NONE, np.int64)
            self._above, self._lowest = self._lowest, _Edge((top + rows, 0), *nothing)
        across = slice(left, left + cols)
        if self._above.place[0] == top:
            self._meet(self._above, across, labels[0], classes[0])
        if self._left.place == (top, left):
            self._meet(self._left, slice(None), labels[:, 0], classes[:, 0])
        self._lowest.pieces[across], self._lowest.classes[across] = labels[-1], classes[-1]
        self._left = _Edge((top, left + cols), labels[:, -1], classes[:, -1].astype(np.int64))
        return labels

    def _meet(
        self, edge: _Edge, part: slice, pieces: NDArray[np.int64], classes: _Integers
    ) -> None:
        """Record which pieces touch along a seam."""
        one = edge.pieces[part]
        both = (one >= 0) & (pieces >= 0)
        same = both & (edge.classes[part] == classes)
        self._joints.append(np.stack([one[same], pieces[same]]))
        self._borders.append(Borders.of_pairs(one[both & ~same], pieces[both & ~same]))

    def join(self, areas: NDArray[np.float64], *, min_area: float) -> JoinedPieces:
        """The regions that the pieces make; smaller ones than ``min_area`` join a neighbor.

        ``areas``: of the pieces, in the unit of ``min_area``; as ``merge_small`` does.
        """
        from scipy import sparse

        classes = np.concatenate([np.empty(0, np.int64), *self._classes])
        joints = np.concatenate([np.empty((2, 0), np.int64), *self._joints], 1)
        links = sparse.coo_matrix(
            (np.ones(joints.shape[1], bool), (joints[0], joints[1])), (self._count, self._count)
        )
        regions, of_piece = sparse.csgraph.connected_components(links, directed=False)
        class_of = np.zeros(regions, np.int64)
        class_of[of_piece] = classes
        if min_area > 0:
            one, other = (
                of_piece[np.concatenate([getattr(border, end) for border in self._borders])]
                for end in ("one", "other")
            )
            sides = np.concatenate([border.sides for border in self._borders])
            sizes = np.bincount(of_piece, areas, minlength=regions).astype(np.float64)
            borders = Borders.of_pairs(one, other, sides)
            of_piece = absorb_small(sizes, class_of, borders, min_area=min_area)[of_piece]
        kept, first, place = np.unique(of_piece, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))
        order = np.argsort(first)
        return JoinedPieces(rank[place], class_of[kept][order])


def piece_outlines(
    regions: NDArray[np.int64], place: tuple[int, int], *, tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """The outlines of the pieces of a block, simplified where they run inside the block.

    Simplified by Visvalingam and Whyatt's algorithm as a coverage, so that neighbors go on sharing
    their outlines; the block's edge and that of what has no region keep every corner, so that
    the pieces of another block fit.

    Parameters
    ----------
    regions : (h, w), the region of each pixel, below 0 for none
    place : row and column of the first pixel
    tolerance : in pixels, the root of the area of the triangles that go

    Returns the region of each piece (n,) and its polygon (n,), x a column and y a row.
    """
    labels = label_regions(regions, nothing=_NONE)
    inside = labels >= 0
    of_piece = np.zeros(int(labels.max(initial=_NONE)) + 1, np.int64)
    of_piece[labels[inside]] = regions[inside]
    if not len(of_piece):
        return of_piece, np.empty(0, object)
    traced = trace_outlines(labels, keep_corners=True)
    xy = traced.corners + np.array([place[1], place[0]], np.float64)
    polygons = Outlines(xy, traced.ring_ends, traced.region_ends).polygons()
    simpler = shapely.coverage_simplify(polygons, tolerance, simplify_boundary=False)
    return of_piece, np.asarray(simpler)


@dataclass(frozen=True, slots=True)
class PixelEdges:
    """Where the rows (N + 1,) and columns (M + 1,) of pixels end, in pixels of a raster.

    ``transform``: from (column, row) of that raster to its CRS.
    """

    rows: NDArray[np.float64]
    cols: NDArray[np.float64]
    transform: Affine


def join_outlines(
    pieces: tuple[NDArray[np.int64], NDArray[np.object_]],
    edges: PixelEdges,
    *,
    labels: NDArray[np.int32],
    class_ids: NDArray[np.int64],
    keep_corners: bool,
) -> Regions:
    """The regions that pieces make: their polygons put together across the seams.

    Parameters
    ----------
    pieces : of all blocks, as ``piece_outlines`` gives them
    edges : where the pixels end, in the regions' CRS
    labels : int32 (cell rows, cell columns), the region that counts each cell, -1 for none
    class_ids : (regions,)
    keep_corners : keep also the corners at which an outline along rows or columns does not turn
    """
    of_piece, polygons = pieces
    order = np.argsort(of_piece, kind="stable")
    ends = np.cumsum(np.bincount(of_piece, minlength=len(class_ids)))
    whole = np.empty(len(class_ids), object)
    for region, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        mine = polygons[order[start:end]]
        whole[region] = mine[0] if len(mine) == 1 else shapely.coverage_union_all(mine)
    whole = shapely.orient_polygons(whole)
    rings, region_of = shapely.get_rings(whole, return_index=True)
    xy, ring_of = shapely.get_coordinates(rings, return_index=True)
    last = np.append(ring_of[1:] != ring_of[:-1], True)  # repeats the ring's first
    xy, ring_of = xy[~last], ring_of[~last]
    if not keep_corners:
        ring_ends = np.cumsum(np.bincount(ring_of, minlength=len(rings)))
        starts = np.concatenate([[0], ring_ends[:-1]])
        before, after = np.roll(xy, 1, 0), np.roll(xy, -1, 0)
        before[starts], after[ring_ends - 1] = xy[ring_ends - 1], xy[starts]
        straight = ((before == xy) & (after == xy)).any(1)
        xy, ring_of = xy[~straight], ring_of[~straight]
    cols, rows = np.rint(xy).astype(np.int64).T
    placed = np.stack(edges.transform @ (edges.cols[cols], edges.rows[rows]), axis=-1)
    outlines = Outlines(
        placed,
        np.cumsum(np.bincount(ring_of, minlength=len(rings))),
        np.cumsum(np.bincount(region_of, minlength=len(class_ids))),
    )
    return Regions(labels, class_ids, outlines, edges.transform.determinant < 0)
