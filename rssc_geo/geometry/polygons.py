"""From cells to polygons: outlines of cells and of regions, and small regions merged away.

Everything is built on integer cell corners and mapped once, through the cells' pixel edges and the
affine, so that neighbors share their corners to the last bit. Regions are 4-connected. Cell classes
travel as an integer array (cell rows, cell columns) in which one value, ``nothing``, marks the
cells without a class.
"""

from __future__ import annotations

import heapq
from array import array
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from rssc_geo.geometry.grid import TileGrid

_Integers = NDArray[np.integer[Any]]
_Integer = TypeVar("_Integer", bound=np.integer[Any])

# Directions of a region's outline, the region on its left (x = column, y = row): +x, +y, -x, -y.
# The corner of a cell at which its edge in that direction starts, as (row, col) offsets.
_START_ROW = np.array([0, 0, 1, 1])
_START_COL = np.array([0, 1, 1, 0])


@dataclass(frozen=True, slots=True)
class Outlines:
    """The rings around n regions, ordered by region, the exterior first.

    Attributes
    ----------
    corners : (corners, 2), x and y; the first corner of a ring is not repeated at its end
    ring_ends : int64 (rings,), where each ring ends among the corners
    region_ends : int64 (n,), where each region ends among the rings
    """

    corners: NDArray[Any]
    ring_ends: NDArray[np.int64]
    region_ends: NDArray[np.int64]

    def polygons(self, start: int = 0, stop: int | None = None) -> NDArray[np.object_]:
        """Polygons (n,), with holes, of the n regions from ``start`` up to ``stop``."""
        count = len(self.region_ends)
        stop = count if stop is None else min(stop, count)
        if start >= stop:
            return np.empty(0, object)
        first_ring = self.region_ends[start - 1] if start else 0
        ends = self.ring_ends[first_ring : self.region_ends[stop - 1]]
        first_corner = self.ring_ends[first_ring - 1] if first_ring else 0
        lengths = np.diff(ends, prepend=first_corner)
        rings = shapely.linearrings(
            self.corners[first_corner : ends[-1]],
            indices=np.repeat(np.arange(len(ends)), lengths),
        )
        counts = np.diff(self.region_ends[start:stop], prepend=first_ring)
        polygons: NDArray[np.object_] = shapely.polygons(
            rings, indices=np.repeat(np.arange(stop - start), counts)
        )
        return polygons


@dataclass(frozen=True, slots=True)
class Regions:
    """The 4-connected regions of one class, in the row-major order of their first cells.

    The outlines are kept as corner coordinates in the raster's CRS, some 20 bytes a corner, and
    become shapely polygons only where asked for.

    Attributes
    ----------
    labels : int32 (cell rows, cell columns), the region of each cell or -1
    class_ids : (n,), the class of each region
    outlines : in the raster's CRS, float64
    clockwise : whether the exteriors run that way there
    """

    labels: NDArray[np.int32]
    class_ids: _Integers
    outlines: Outlines
    clockwise: bool

    def __len__(self) -> int:
        return len(self.class_ids)

    def polygons(self, start: int = 0, stop: int | None = None) -> NDArray[np.object_]:
        """Polygons (n,), with holes, of the n regions from ``start`` up to ``stop``.

        Exteriors run counter-clockwise.
        """
        polygons = self.outlines.polygons(start, stop)
        return shapely.reverse(polygons) if self.clockwise else polygons


def cell_polygons(
    grid: TileGrid, transform: Affine, rows: _Integers, cols: _Integers
) -> NDArray[np.object_]:
    """Make the cells (``rows[i]``, ``cols[i]``) rectangles, counter-clockwise.

    Every corner is ``transform @ (pixel column, pixel row)`` exactly; a rotated transform gives
    rotated cells.

    Parameters
    ----------
    grid : of the raster's cells
    transform : affine of the raster, from (column, row) to its CRS
    rows, cols : integers (n,)

    Returns shapely polygons (n,).
    """
    row_step = np.array([0, 0, 1, 1] if transform.determinant >= 0 else [0, 1, 1, 0])
    col_step = np.array([0, 1, 1, 0] if transform.determinant >= 0 else [0, 0, 1, 1])
    rows, cols = np.asarray(rows, np.int64), np.asarray(cols, np.int64)
    corners = _to_crs(grid, transform, rows=rows[:, None] + row_step, cols=cols[:, None] + col_step)
    polygons: NDArray[np.object_] = shapely.polygons(corners)
    return polygons


def dissolve(
    grid: TileGrid,
    transform: Affine,
    *,
    classes: _Integers,
    nothing: int,
    keep_corners: bool = False,
) -> Regions:
    """Dissolve cells of one class into their 4-connected regions.

    Parameters
    ----------
    transform : affine of the raster, from (column, row) to its CRS
    classes : integers (cell rows, cell columns); ``nothing`` marks cells that belong to no region
    keep_corners : keep every cell corner along an outline, not only those where it turns. For
        outlines that are reprojected: neighbors then go on sharing their vertices.

    Raises ``ValueError`` where ``classes`` does not have the shape of the grid's cells.
    """
    if classes.shape != grid.cells_shape:
        raise ValueError(f"classes of shape {classes.shape} for a grid of {grid.cells_shape} cells")
    labels = label_regions(classes, nothing=nothing)
    class_ids = np.zeros(int(labels.max(initial=-1)) + 1, classes.dtype)
    class_ids[labels[labels >= 0]] = classes[labels >= 0]
    traced = trace_outlines(labels, keep_corners=keep_corners)
    cols, rows = traced.corners.T
    xy = _to_crs(grid, transform, rows=rows, cols=cols)
    outlines = Outlines(xy, traced.ring_ends, traced.region_ends)
    return Regions(labels, class_ids, outlines, transform.determinant < 0)


def squeezed(places: _Integers) -> NDArray[np.int64]:
    """Rows or columns of cells, counted so that every gap between them is one wide.

    Cells that are neighbors stay so, and no others become it, while the grid has no more than two
    lines for each one that has a cell. ``places``: integers (n,).

    Examples
    --------
    >>> import numpy as np
    >>> from rssc_geo.geometry import squeezed
    >>> squeezed(np.array([9000, 4, 3, 3, 6])).tolist()
    [5, 1, 0, 0, 3]
    """
    found, index = np.unique(places, return_inverse=True)
    steps = np.minimum(np.diff(found, prepend=found[:1]), 2)
    return np.cumsum(steps, dtype=np.int64)[index]


def label_regions(classes: _Integers, *, nothing: int) -> NDArray[np.int32]:
    """The 4-connected region of one class that each cell belongs to, from 0; -1 for none.

    ``classes``: integers (cell rows, cell columns); ``nothing`` marks cells that belong to none.
    """
    # One pass for all classes: on a grid of cells and the sides between them, where a side is open
    # when the cells on both of its sides are of one class.
    rows, cols = classes.shape
    filled = classes != nothing
    links = np.zeros((2 * rows - 1, 2 * cols - 1), bool)
    links[::2, ::2] = filled
    links[::2, 1::2] = filled[:, 1:] & (classes[:, 1:] == classes[:, :-1])
    links[1::2, ::2] = filled[1:] & (classes[1:] == classes[:-1])
    from scipy import ndimage  # a tenth of a second, so it is imported late

    labels, _ = ndimage.label(links)
    return np.ascontiguousarray(labels[::2, ::2], np.int32) - np.int32(1)


def merge_small(
    classes: NDArray[_Integer], cell_areas: NDArray[np.float64], *, min_area: float, nothing: int
) -> NDArray[_Integer]:
    """Give every region smaller than ``min_area`` to a neighbor; the smallest go first.

    The neighbor is the one with the longest shared border, counted in cell sides; of equals the
    larger, then the one of the lower class, then the first. Regions without a neighbor stay.

    Parameters
    ----------
    classes : integers (cell rows, cell columns), left as they are
    cell_areas : areas of the cells, same shape, in the unit of ``min_area``
    min_area : smaller regions are merged
    nothing : the value of cells that are in no region, and stay so

    Returns the classes after merging.
    """
    labels = label_regions(classes, nothing=nothing)
    inside = labels >= 0
    areas = np.bincount(labels[inside], weights=cell_areas[inside]).astype(np.float64)
    region_class = np.zeros(len(areas), classes.dtype)
    region_class[labels[inside]] = classes[inside]
    kept = absorb_small(areas, region_class, borders_of(labels), min_area=min_area)
    merged = classes.copy()
    merged[inside] = region_class[kept][labels[inside]]
    return merged


@dataclass(frozen=True, slots=True)
class Borders:
    """Which regions touch: ``one`` < ``other``, each pair once, and how many sides they share.

    All int64 (pairs,).
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    sides: NDArray[np.int64]

    @classmethod
    def of_pairs(
        cls, one: _Integers, other: _Integers, sides: NDArray[np.int64] | None = None
    ) -> Borders:
        """Add up pairs, in any order and more than once; those of a region with itself go.

        ``sides``: of each, None: one.
        """
        count = np.ones(len(one), np.int64) if sides is None else sides
        low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other).astype(np.int64)
        differ = low != high
        regions = int(high.max(initial=0)) + 1
        keys, place = np.unique(low[differ] * regions + high[differ], return_inverse=True)
        total = np.bincount(place, count[differ], minlength=len(keys)).astype(np.int64)
        return cls(keys // regions, keys % regions, total)


def borders_of(labels: _Integers) -> Borders:
    """Which regions touch, ``labels``: the region of each cell, below 0 for none."""
    pairs = []
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        border = (one != other) & (one >= 0) & (other >= 0)
        pairs.append(np.stack([one[border], other[border]]))
    return Borders.of_pairs(*np.concatenate(pairs, 1))


def absorb_small(
    areas: NDArray[np.float64], classes: _Integers, borders: Borders, *, min_area: float
) -> NDArray[np.int64]:
    """Which region each one becomes a part of, as ``merge_small`` says; int64 (regions,).

    ``areas``, ``classes``: (regions,).
    """
    area, class_of = areas.tolist(), classes.tolist()
    beside: list[dict[int, int]] = [{} for _ in area]
    for one, other, shared in zip(
        borders.one.tolist(), borders.other.tolist(), borders.sides.tolist(), strict=True
    ):
        beside[one][other] = beside[other][one] = shared
    parent = list(range(len(area)))

    def absorb(region: int, other: int) -> None:
        parent[other] = region
        area[region] += area[other]
        for neighbor, sides in beside[other].items():
            del beside[neighbor][other]
            if neighbor != region:
                beside[region][neighbor] = beside[region].get(neighbor, 0) + sides
                beside[neighbor][region] = beside[region][neighbor]
        beside[other].clear()

    queue = [(size, region) for region, size in enumerate(area) if size < min_area]
    heapq.heapify(queue)
    while queue:
        size, region = heapq.heappop(queue)
        if parent[region] != region or size != area[region] or not beside[region]:
            continue  # merged or grown since it was queued, or alone
        target = max(beside[region], key=lambda n: (beside[region][n], area[n], -class_of[n], -n))
        # Neighbors of the target's class now touch it through this region and are merged with it.
        alike = sorted(n for n in beside[region] if n != target and class_of[n] == class_of[target])
        for other in (region, *alike):
            absorb(target, other)
        if area[target] < min_area:
            heapq.heappush(queue, (area[target], target))
    return np.array([_root(parent, region) for region in range(len(parent))], np.int64)


def _root(parent: list[int], region: int) -> int:
    while parent[region] != region:
        parent[region] = region = parent[parent[region]]
    return region


def trace_outlines(labels: NDArray[np.int32], *, keep_corners: bool) -> Outlines:
    """Trace the rings around the regions; x and y of their corners are columns and rows, int64.

    Where two cells of a region touch at a corner only, the outline crosses over to the other cell:
    since regions are 4-connected, each ring is then simple and rings meet in points only, which is
    what makes the polygons valid.
    """
    width = labels.shape[1] + 2
    flat = np.pad(labels, 1, constant_values=-1).ravel()
    cells = np.flatnonzero(flat >= 0)
    ahead, right = (1, width, -1, -width), (-width, 1, width, -1)
    own = [cells[flat[cells + right[turn]] != flat[cells]] for turn in range(4)]
    first = np.cumsum([0, *(len(edges) for edges in own)])
    # Edge of a cell in a direction -> its running number.
    number = np.full((4, flat.size), -1, np.int32)
    for turn in range(4):
        number[turn, own[turn]] = np.arange(first[turn], first[turn + 1])
    following = np.empty(first[4], np.int32)
    for turn in range(4):
        here = own[turn]
        straight, diagonal = here + ahead[turn], here + ahead[turn] + right[turn]
        turns_right, goes_on = flat[diagonal] == flat[here], flat[straight] == flat[here]
        following[first[turn] : first[turn + 1]] = np.where(
            turns_right,
            number[turn - 1, diagonal],
            np.where(goes_on, number[turn, straight], number[(turn + 1) % 4, here]),
        )
    del number
    order, ends = _rings(following, starts=len(own[0]))
    cell = np.concatenate(own)[order]
    turn_of = np.repeat(np.arange(4, dtype=np.int8), np.diff(first))[order]
    starts = ends - np.diff(ends, prepend=0)
    region_of_ring = flat[cell[starts]]
    if keep_corners:
        kept = np.ones(len(order), bool)
    else:
        before = np.roll(turn_of, 1)
        before[starts] = turn_of[ends - 1]
        kept = turn_of != before
    # A region's exterior holds the first edge of its first cell, so it was met before its holes: a
    # stable sort.
    by_region = np.argsort(region_of_ring, kind="stable")
    lengths = np.diff(ends, prepend=0)[by_region]
    new_ends = np.cumsum(lengths)
    picked = np.arange(len(order)) + np.repeat(starts[by_region] - (new_ends - lengths), lengths)
    kept = kept[picked]
    picked = picked[kept]
    ring_ends = np.concatenate(([0], np.cumsum(kept)))[new_ends]
    rows = cell[picked] // width - 1 + _START_ROW[turn_of[picked]]
    cols = cell[picked] % width - 1 + _START_COL[turn_of[picked]]
    region_ends = np.cumsum(np.bincount(region_of_ring, minlength=int(labels.max(initial=-1)) + 1))
    return Outlines(np.stack([cols, rows], 1), ring_ends, region_ends)


def _rings(
    following: NDArray[np.int32], *, starts: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges in the order in which the rings run, and where each ring ends.

    Every ring has an edge among the first ``starts`` (those in +x), so that rings are looked for
    there only.
    """
    successor = following.tolist()
    seen = bytearray(len(successor))
    order, ends = array("i"), array("i")
    for start in range(starts):
        if seen[start]:
            continue
        edge = start
        while not seen[edge]:
            seen[edge] = 1
            order.append(edge)
            edge = successor[edge]
        ends.append(len(order))
    return np.asarray(order, np.int64), np.asarray(ends, np.int64)


def _to_crs(
    grid: TileGrid, transform: Affine, *, rows: _Integers, cols: _Integers
) -> NDArray[np.float64]:
    """Coordinates (..., 2) of cell corners (...), as the affine computes them for one point."""
    x, y = grid.col_edges()[cols].astype(np.float64), grid.row_edges()[rows].astype(np.float64)
    return np.stack(transform @ (x, y), axis=-1)


_QUAD = 5
"""Coordinates of the ring of a cell that is cut by no clip and no antimeridian."""


def unite(
    polygons: NDArray[np.object_], labels: NDArray[np.int32], count: int
) -> NDArray[np.object_]:
    """The union of the cells of each region, (count,).

    ``polygons``: (n,), of cells that share their corners; ``labels``: (n,), the region of each.
    """
    whole = bool((shapely.get_num_coordinates(polygons) == _QUAD).all())
    boxes = shapely.area(shapely.box(*shapely.bounds(polygons).T))
    straight = whole and np.allclose(shapely.area(polygons), boxes, rtol=1e-9, atol=0)
    union = shapely.coverage_union_all if whole else shapely.union_all
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=count))
    outlines = np.empty(count, object)
    for region, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        members = polygons[order[start:end]]
        outlines[region] = members[0] if len(members) == 1 else union(members)
    if straight:  # corners in the middle of an edge; elsewhere neighbors share them
        outlines = shapely.simplify(outlines, 0)
    return np.asarray(shapely.orient_polygons(outlines))


def as_multipolygons(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """Polygons and multipolygons (n,) as multipolygons (n,); the input is not changed."""
    single = shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON
    made = polygons.copy()
    made[single] = shapely.multipolygons(polygons[single], indices=np.arange(single.sum()))
    return made


def as_one_type(polygons: NDArray[np.object_]) -> tuple[NDArray[np.object_], str]:
    """Polygons and multipolygons (n,) as the features (n,) of one layer, which has one type.

    Multipolygons where one of them is, else polygons; and that type's name in OGC's standards.
    """
    if (shapely.get_type_id(polygons) == shapely.GeometryType.MULTIPOLYGON).any():
        return as_multipolygons(polygons), "MultiPolygon"
    return polygons, "Polygon"
