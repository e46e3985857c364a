"""The poles inside a projected raster, near which straight edges are not straight in degrees."""

from __future__ import annotations

import math

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

_AT_POLE = 1e-9
"""Degrees from a pole within which a longitude has no meaning."""
_BEND = 1 / 32
"""Longest piece of an edge, as a share of its distance from the pole: 2 degrees of longitude."""


def poles_near(crs: pyproj.CRS, transform: Affine, shape: tuple[int, int]) -> NDArray[np.float64]:
    """The poles (n, 2) in a projected CRS that lie in a raster, or no farther than its size off.

    ``transform``: from the raster's pixels (column, row) to its ``crs``; ``shape``: pixels (rows,
    columns). In other CRSs there are none, (0, 2).
    """
    found = []
    if crs.is_projected:
        rows, cols = shape
        corners = np.array([transform @ xy for xy in ((0, 0), (cols, 0), (cols, rows), (0, rows))])
        low, high = corners.min(0), corners.max(0)
        place = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        for pole in (90.0, -90.0):
            try:
                x, y = place.transform(0.0, pole, errcheck=True)
                _, back = place.transform(x, y, direction="INVERSE", errcheck=True)
            except ProjError:
                continue
            point = np.array([x, y])
            near = (point >= 2 * low - high).all() and (point <= 2 * high - low).all()
            if near and abs(back - pole) < _AT_POLE:
                found.append(point)
    return np.array(found).reshape(-1, 2)


def with_bends(
    polygons: NDArray[np.object_], poles: NDArray[np.float64], *, shortest: float
) -> NDArray[np.object_]:
    """Polygons with vertices added where their edges pass close to a pole.

    Parameters
    ----------
    polygons : (n,) polygons or multipolygons, in the CRS of the poles
    poles : (p, 2), at least one
    shortest : no edge shorter than this is divided
    """
    result = np.array(polygons, object)
    parts, of_part = shapely.get_parts(polygons, return_index=True)
    rings, of_ring = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    long = _too_long(points, poles, shortest) & (ring[1:] == ring[:-1])
    for index in np.unique(of_part[of_ring[ring[1:][long]]]):
        bent = [_bent(part, poles, shortest) for part in shapely.get_parts(polygons[index])]
        result[index] = bent[0] if len(bent) == 1 else shapely.multipolygons(bent)
    return result


def _bent(polygon: shapely.Polygon, poles: NDArray[np.float64], shortest: float) -> shapely.Polygon:
    rings = []
    for ring in shapely.get_rings(polygon):
        points = shapely.get_coordinates(ring)
        while (long := _too_long(points, poles, shortest)).any():
            places = np.flatnonzero(long) + 1
            points = np.insert(points, places, (points[places - 1] + points[places]) / 2, axis=0)
        rings.append(shapely.linearrings(points))
    return shapely.polygons(rings[0], rings[1:] or None)


def _too_long(
    points: NDArray[np.float64], poles: NDArray[np.float64], shortest: float
) -> NDArray[np.bool_]:
    """Which edges between points (n, 2) are longer than their distance from a pole allows."""
    start, edge = points[:-1], np.diff(points, axis=0)
    square = (edge**2).sum(1)
    distance = np.full(len(edge), math.inf)
    for pole in poles:
        along = ((pole - start) * edge).sum(1) / np.where(square > 0, square, 1)
        nearest = start + edge * along.clip(0, 1)[:, None]
        distance = np.minimum(distance, np.hypot(*(pole - nearest).T))
    return np.asarray(np.sqrt(square) > np.maximum(_BEND * distance, shortest))


def at_pole(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points (n, 2) of longitude and latitude are poles."""
    return np.asarray(np.abs(points[:, 1]) > 90 - _AT_POLE)


def from_pole(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A ring (n, 2) with a vertex at a pole, cut open there.

    The pole comes first and last, at the longitudes of its neighbors: it is all of a parallel.
    """
    first = int(at_pole(points[:-1]).argmax())
    _, *others = np.roll(points[:-1], -first, axis=0)
    pole = points[first, 1]
    return np.array([(others[0][0], pole), *others, (others[-1][0], pole)])


def from_nearest(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A ring (n, 2) that begins and ends at its vertex nearest to a pole."""
    turned = np.roll(points[:-1], -int(np.abs(points[:-1, 1]).argmax()), axis=0)
    return np.vstack([turned, turned[:1]])
