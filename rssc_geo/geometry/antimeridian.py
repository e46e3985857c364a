"""Polygons in longitude and latitude, cut where they cross the antimeridian (RFC 7946, section 3.1.9)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely


def crosses(lon: np.ndarray, *, wrapped: bool) -> bool:
    """Whether a line through these longitudes (degrees) passes the antimeridian.

    ``wrapped`` as in ``split``.
    """
    return bool((np.abs(lon) > 180).any() or (wrapped and (np.abs(np.diff(lon)) > 180).any()))


def split(polygons: np.ndarray, *, wrapped: bool) -> np.ndarray:
    """Cut polygons at ±180° where they cross it; those that do not are returned as they are.

    With ``wrapped``, as a projection's inverse gives them, longitudes lie in [-180, 180], and
    neighboring vertices more than 180° apart are joined across the antimeridian; a polygon around a
    pole gets its pole. Without, longitudes run on beyond ±180°.
    """
    result = np.array(polygons, object)
    coordinates, owner = shapely.get_coordinates(polygons, return_index=True)
    beyond = np.abs(coordinates[:, 0]) > 180
    if wrapped:
        beyond[1:] |= (np.abs(np.diff(coordinates[:, 0])) > 180) & (owner[1:] == owner[:-1])
    for index in np.unique(owner[beyond]):
        result[index] = _split_one(polygons[index], wrapped=wrapped)
    return result


def _split_one(geometry: shapely.Geometry, *, wrapped: bool) -> shapely.Geometry:
    pieces = []
    for polygon in shapely.get_parts(geometry):
        outline, *holes = (
            _unrolled(ring) if wrapped else shapely.polygons(ring)
            for ring in shapely.get_rings(polygon)
        )
        # A hole may have been unrolled a whole turn away from its outline.
        turns = [
            shapely.transform(hole, _shifted(turn)) for hole in holes for turn in (-360, 0, 360)
        ]
        whole = shapely.difference(outline, shapely.union_all(turns)) if turns else outline
        for turn in (-360, 0, 360):
            box = shapely.box(turn - 180, -90, turn + 180, 90)
            piece = shapely.transform(shapely.intersection(whole, box), _shifted(-turn))
            pieces += [
                part
                for part in shapely.get_parts(piece)
                if part.geom_type == "Polygon" and not part.is_empty
            ]
    # Around a pole two pieces share the meridian at which the ring was unrolled.
    return shapely.orient_polygons(shapely.union_all(pieces))


def _unrolled(ring: shapely.LinearRing) -> shapely.Polygon:
    """The ring as a polygon whose longitudes run on beyond ±180° instead of jumping."""
    coordinates = shapely.get_coordinates(ring)
    steps = np.diff(coordinates[:, 0])
    steps -= 360 * np.round(steps / 360)
    lon = coordinates[0, 0] + np.concatenate(([0], np.cumsum(steps)))
    points = np.column_stack([lon, coordinates[:, 1]])
    if abs(lon[-1] - lon[0]) > 180:  # once around a pole: close the ring along it
        pole = 90.0 if coordinates[:, 1].mean() > 0 else -90.0
        points = np.vstack([points, [(lon[-1], pole), (lon[0], pole)]])
    return shapely.polygons(points)


def _shifted(degrees: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda coordinates: coordinates + np.array([degrees, 0.0])
