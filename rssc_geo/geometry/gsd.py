"""Where a raster lies on Earth: its CRS, metres a pixel, longitude and latitude."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyproj
from affine import Affine
from pyproj.exceptions import CRSError, ProjError

from rssc_geo.errors import GeoreferenceError, UsageError, one_line

_EARTH_RADIUS_M = (6.3e6, 6.4e6)
_ASSUME = "if that CRS is wrong, name the right one with --assume-crs (for example EPSG:32633)"


def parse_crs(text: str, *, option: str) -> pyproj.CRS:
    """A CRS from what a user wrote (EPSG code, WKT, PROJ string).

    ``UsageError`` naming the option.
    """
    try:
        return pyproj.CRS.from_user_input(text)
    except CRSError:
        raise UsageError(
            f"{option} {text!r} is not a CRS: give a code such as EPSG:32633, or WKT"
        ) from None


def check_earth(crs: pyproj.CRS, source: str) -> None:
    """Raise ``GeoreferenceError`` unless the CRS places its coordinates on Earth."""
    ellipsoid = crs.ellipsoid
    if crs.geodetic_crs is None or ellipsoid is None:
        raise GeoreferenceError(
            f"{source}: its CRS {crs.name!r} is local and has no place on Earth; {_ASSUME}"
        )
    if not _EARTH_RADIUS_M[0] < ellipsoid.semi_major_metre < _EARTH_RADIUS_M[1]:
        raise GeoreferenceError(
            f"{source}: its CRS {crs.name!r} is on a body of"
            f" {ellipsoid.semi_major_metre / 1000:,.0f} km radius, not on Earth; {_ASSUME}"
        )


def to_lonlat(
    crs: pyproj.CRS, x: Sequence[float], y: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """WGS84 longitudes and latitudes, degrees; infinite where the CRS cannot say."""
    transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lon, lat = transformer.transform(
        np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    )
    return lon, lat


def ground_sampling(
    crs: pyproj.CRS, transform: Affine, shape: tuple[int, int], source: str
) -> tuple[float, float]:
    """Geodesic metres a pixel at the raster's center along (row, column).

    One pixel's step along each axis is measured on the ellipsoid, so that it holds in degrees and
    in CRSs whose own metres are stretched (EPSG:3857, EPSG:3395), for rotated and for non-square
    pixels.

    Raises ``GeoreferenceError`` where the center has no longitude and latitude.
    """
    row, col = shape[0] / 2, shape[1] / 2
    points = [
        transform @ xy
        for xy in ((col, row - 0.5), (col, row + 0.5), (col - 0.5, row), (col + 0.5, row))
    ]
    try:
        lon, lat = to_lonlat(crs, [p[0] for p in points], [p[1] for p in points])
    except ProjError as error:
        raise GeoreferenceError(
            f"{source}: its coordinates cannot be placed on Earth ({one_line(error)}); {_ASSUME}"
        ) from None
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()) or np.abs(lat).max() > 90:
        x, y = transform @ (col, row)
        raise GeoreferenceError(
            f"{source}: its center ({x:.10g}, {y:.10g}) lies outside its CRS {crs.name!r};"
            f" {_ASSUME}"
        )
    _, _, metres = pyproj.Geod(ellps="WGS84").inv(
        lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]]
    )
    if not all(math.isfinite(m) and m > 0 for m in metres):
        raise GeoreferenceError(
            f"{source}: its pixels have no size on the ground (transform {tuple(transform)[:6]});"
            f" {_ASSUME}"
        )
    return float(metres[0]), float(metres[1])


def lonlat_bounds(
    crs: pyproj.CRS, transform: Affine, shape: tuple[int, int]
) -> tuple[float, float, float, float]:
    """West, south, east, north in WGS84 degrees.

    West > east where the raster crosses the antimeridian.
    """
    rows, cols = shape
    corners = [transform @ corner for corner in ((0, 0), (cols, 0), (cols, rows), (0, rows))]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    west, south, east, north = transformer.transform_bounds(min(xs), min(ys), max(xs), max(ys))
    return float(west), float(south), float(east), float(north)
