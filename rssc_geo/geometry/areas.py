"""Areas on the ellipsoid."""

from __future__ import annotations

import math

import numpy as np
import shapely
from pyproj import CRS, Transformer

from rssc_geo.errors import GeoreferenceError

# Edges are measured as geodesics between vertices. On polygons wider than this a straight edge of
# the CRS (a parallel, say) lies visibly off the geodesic between its ends, so vertices are added.
_WIDE_DEGREES = 0.5
_PARTS = 256


def geodesic_area_m2(polygons: np.ndarray, crs: CRS) -> np.ndarray:
    """Areas in m² of polygons and multipolygons given in ``crs``, on its own ellipsoid; float64
    (n,).

    After C. F. F. Karney, Algorithms for geodesics (2013), through pyproj: polygons may lie across
    the antimeridian or around a pole. NaN where a vertex has no geographic position.
    Raises ``GeoreferenceError`` for a CRS without an ellipsoid.
    """
    geod, geographic = crs.get_geod(), crs.geodetic_crs
    if geod is None or geographic is None:
        raise GeoreferenceError(
            f"the CRS {crs.name!r} has no ellipsoid, so areas cannot be measured in it: assign"
            " another CRS"
        )
    to_geographic = Transformer.from_crs(crs, geographic, always_xy=True)
    degrees = math.degrees(
        geographic.axis_info[0].unit_conversion_factor
    )  # not 1 where the CRS counts in grads

    def lonlat(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lon, lat = to_geographic.transform(x, y)
        if math.isclose(degrees, 1.0, rel_tol=1e-12):
            return lon, lat
        return lon * degrees, lat * degrees

    polygons = np.array(polygons, object)
    west, south, east, north = shapely.bounds(polygons).T
    (lon_1, lat_1), (lon_2, lat_2) = lonlat(west, south), lonlat(east, north)
    with np.errstate(invalid="ignore"):  # inf - inf outside the projection's domain
        wide = np.maximum(np.abs(lon_2 - lon_1), np.abs(lat_2 - lat_1)) > _WIDE_DEGREES
    polygons[wide] = shapely.segmentize(polygons[wide], shapely.length(polygons[wide]) / _PARTS)

    parts, polygon_of_part = shapely.get_parts(polygons, return_index=True)
    rings, part_of_ring = shapely.get_rings(parts, return_index=True)
    lon, lat = lonlat(*np.ascontiguousarray(shapely.get_coordinates(rings).T))
    ends = np.cumsum(shapely.get_num_coordinates(rings))
    measured = np.empty(len(rings))
    start = 0
    for ring, end in enumerate(ends.tolist()):
        measured[ring] = abs(geod.polygon_area_perimeter(lon[start:end], lat[start:end])[0])
        start = end
    is_hole = np.diff(part_of_ring, prepend=-1) == 0
    areas = np.zeros(len(polygons))
    np.add.at(areas, polygon_of_part[part_of_ring], np.where(is_hole, -measured, measured))
    return areas
