"""Positions on Earth: CRS, ground sampling, areas, and the antimeridian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import CRSError, ProjError

from rssc_geo.errors import GeoreferenceError, UsageError, one_line
from rssc_geo.geometry.poles import at_pole, from_nearest, from_pole

_EARTH_RADIUS_M = (6.3e6, 6.4e6)
_ASSUME = "if that CRS is wrong, name the right one with --assume-crs (for example EPSG:32633)"

# Edges are measured as geodesics between vertices. On polygons wider than this a straight edge of
# the CRS (such as a parallel) lies visibly off the geodesic between its ends, so vertices are
# added.
_WIDE_DEGREES = 0.5
_PARTS = 256

_FLATTEST = 0.02
"""Smallest sine of the angle between the sides of a pixel, about 1 degree."""

_LATTICE = 129
"""Points along each side that sample a whole raster."""

_PIECES = 32
"""Pieces along each side of a polygon that lies on Earth in part."""


def parse_crs(text: str, *, option: str) -> pyproj.CRS:
    """Make a CRS of a user's text: EPSG code, WKT, PROJ string.

    Raises ``UsageError`` naming the option.
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
    if crs.is_geocentric:
        raise GeoreferenceError(
            f"{source}: its CRS {crs.name!r} is geocentric, which places no picture; {_ASSUME}"
        )
    if not _EARTH_RADIUS_M[0] < ellipsoid.semi_major_metre < _EARTH_RADIUS_M[1]:
        raise GeoreferenceError(
            f"{source}: its CRS {crs.name!r} is on a body of"
            f" {ellipsoid.semi_major_metre / 1000:,.0f} km radius, not on Earth; {_ASSUME}"
        )


def ground_sampling(
    crs: pyproj.CRS, transform: Affine, shape: tuple[int, int], source: str
) -> tuple[float, float]:
    """Measure the geodesic meters a pixel at the raster's center along (row, column).

    One pixel's step along each axis is measured on the ellipsoid, so that it holds in degrees and
    in CRSs whose own meters are stretched (EPSG:3857, EPSG:3395), for rotated and for non-square
    pixels.

    Parameters
    ----------
    crs : of the raster
    transform : from its pixels (column, row) to its CRS
    shape : pixels (rows, columns)
    source : the raster's name, for messages

    Raises ``GeoreferenceError`` where the center has no longitude and latitude, and where pixels
    have no size.
    """
    _check_poles(crs, transform, shape, source)
    row, col = shape[0] / 2, shape[1] / 2
    points = [
        transform @ xy
        for xy in ((col, row - 0.5), (col, row + 0.5), (col - 0.5, row), (col + 0.5, row))
    ]
    try:
        lon, lat = _to_lonlat(crs, [p[0] for p in points], [p[1] for p in points])
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
    _, _, meters = pyproj.Geod(ellps="WGS84").inv(
        lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]]
    )
    if not all(math.isfinite(m) and m > 0 for m in meters):
        raise GeoreferenceError(
            f"{source}: its pixels have no size on the ground (transform {tuple(transform)[:6]});"
            f" {_ASSUME}"
        )
    sides = math.hypot(transform.a, transform.d) * math.hypot(transform.b, transform.e)
    if abs(transform.determinant) < _FLATTEST * sides:
        raise GeoreferenceError(
            f"{source}: its rows and columns run in one direction (transform"
            f" {tuple(transform)[:6]}); give it the right geotransform, with gdal_edit or a world"
            " file"
        )
    return float(meters[0]), float(meters[1])


def _check_poles(crs: pyproj.CRS, transform: Affine, shape: tuple[int, int], source: str) -> None:
    """Refuse a raster in degrees that reaches beyond a pole by more than a part of a pixel."""
    if not crs.is_geographic:
        return
    rows, cols = shape
    lat = [(transform @ corner)[1] for corner in ((0, 0), (cols, 0), (cols, rows), (0, rows))]
    center = (transform @ (cols / 2, rows / 2))[1]
    pole = _pole(crs)
    if abs(center) <= pole and max(map(abs, lat)) >= pole + abs(transform.d) + abs(transform.e):
        raise GeoreferenceError(
            f"{source}: it reaches from latitude {min(lat):.6g} to {max(lat):.6g}, beyond the pole;"
            f" cut it to 90 degrees with gdal_translate -projwin, or {_ASSUME}"
        )


def _pole(crs: pyproj.CRS) -> float:
    """The north pole's latitude in the unit of a geographic CRS: 90, or 100 grads."""
    return math.pi / 2 / float(crs.axis_info[0].unit_conversion_factor)


def at_most_poles(polygons: NDArray[np.object_], crs: pyproj.CRS) -> NDArray[np.object_]:
    """Polygons (n,) of a geographic CRS with the vertices beyond a pole moved onto it.

    Global grids whose pixels' centers lie at the poles reach half a pixel beyond them.
    """
    pole = _pole(crs)

    def clipped(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([xy[:, 0], xy[:, 1].clip(-pole, pole)])

    moved: NDArray[np.object_] = shapely.transform(polygons, clipped)
    return moved


def lonlat_bounds(
    crs: pyproj.CRS, transform: Affine, shape: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Bound a raster by west, south, east, north in WGS84 degrees.

    West > east where the raster crosses the antimeridian. Of a raster of which parts lie off the
    Earth (the corners of a full disk) those on it count.

    Parameters
    ----------
    crs : of the raster
    transform : from its pixels (column, row) to its CRS
    shape : pixels (rows, columns)

    Raises ``GeoreferenceError`` where no part is on the Earth.
    """
    rows, cols = shape
    corners = [transform @ corner for corner in ((0, 0), (cols, 0), (cols, rows), (0, rows))]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    try:
        bounds = transformer.transform_bounds(min(xs), min(ys), max(xs), max(ys))
    except ProjError:
        bounds = (math.inf,) * 4
    if not np.isfinite(bounds).all():
        bounds = _bounds_on_earth(crs, transform, shape)
    west, south, east, north = map(float, bounds)
    return west, max(south, -90.0), east, min(north, 90.0)


def lattice(
    transform: Affine, shape: tuple[int, int], *, points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points over a whole raster, its border included: x and y in its CRS, ``(points, points)``.

    ``transform``: from pixels (column, row) to the CRS; ``shape``: pixels (rows, columns).
    """
    rows, cols = shape
    col, row = np.meshgrid(np.linspace(0, cols, points), np.linspace(0, rows, points))
    x, y = transform @ (col, row)
    return x, y


def _bounds_on_earth(
    crs: pyproj.CRS, transform: Affine, shape: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The bounds of those of a lattice of points that lie on Earth."""
    x, y = lattice(transform, shape, points=_LATTICE)
    lon, lat = _to_lonlat(crs, x.ravel(), y.ravel())
    on_earth = np.isfinite(lon) & np.isfinite(lat)
    if not on_earth.any():
        raise GeoreferenceError(f"no part of the raster lies on Earth in {crs.name!r}; {_ASSUME}")
    lon, lat = np.sort(lon[on_earth]), lat[on_earth]
    # The raster lies opposite the widest gap between its longitudes.
    gaps = np.diff(lon, append=lon[0] + 360)
    widest = int(gaps.argmax())
    return lon[(widest + 1) % len(lon)], lat.min(), lon[widest], lat.max()


def _to_lonlat(
    crs: pyproj.CRS,
    x: Sequence[float] | NDArray[np.float64],
    y: Sequence[float] | NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """WGS84 longitudes and latitudes (n,), degrees; infinite where the CRS cannot say."""
    transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lon, lat = transformer.transform(
        np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    )
    return lon, lat


def geodesic_area_m2(polygons: NDArray[np.object_], crs: pyproj.CRS) -> NDArray[np.float64]:
    """Measure polygons and multipolygons (n,) given in ``crs`` on its own ellipsoid.

    After C. F. F. Karney, Algorithms for geodesics (2013), through pyproj: polygons may lie across
    the antimeridian or around a pole.

    Of a polygon that lies in part off the Earth (at the limb of a full disk) the part on it counts.

    Returns areas in m², float64 (n,). Raises ``GeoreferenceError`` for a CRS without an ellipsoid.
    """
    areas = _areas(polygons, crs)
    for index in np.flatnonzero(~np.isfinite(areas)):
        pieces = _areas(_pieces(polygons[index]), crs)
        areas[index] = pieces[np.isfinite(pieces)].sum()
    return areas


def _pieces(polygon: shapely.Geometry) -> NDArray[np.object_]:
    """A polygon cut along a lattice."""
    west, south, east, north = shapely.bounds(polygon)
    x, y = np.linspace(west, east, _PIECES + 1), np.linspace(south, north, _PIECES + 1)
    left, low = (side.ravel() for side in np.meshgrid(x[:-1], y[:-1]))
    right, high = (side.ravel() for side in np.meshgrid(x[1:], y[1:]))
    pieces: NDArray[np.object_] = shapely.intersection(polygon, shapely.box(left, low, right, high))
    return np.asarray(pieces[shapely.area(pieces) > 0])


def _areas(polygons: NDArray[np.object_], crs: pyproj.CRS) -> NDArray[np.float64]:
    """As ``geodesic_area_m2``, and NaN where a vertex has no geographic position."""
    geod, geographic = crs.get_geod(), crs.geodetic_crs
    if geod is None or geographic is None:
        raise GeoreferenceError(
            f"the CRS {crs.name!r} has no ellipsoid, so areas cannot be measured in it: assign"
            " another CRS"
        )
    to_geographic = pyproj.Transformer.from_crs(crs, geographic, always_xy=True)
    # Not 1 where the CRS counts in grads.
    degrees = math.degrees(geographic.axis_info[0].unit_conversion_factor)

    def lonlat(
        x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        lon, lat = to_geographic.transform(x, y)
        if not math.isclose(degrees, 1.0, rel_tol=1e-12):
            lon, lat = lon * degrees, lat * degrees
        return lon, np.where(np.isfinite(lat), np.clip(lat, -90, 90), lat)

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


def crosses_antimeridian(lon: NDArray[np.float64], *, wrapped: bool) -> bool:
    """Whether a line through these longitudes (n,), in degrees, passes the antimeridian.

    ``wrapped`` as in ``split_at_antimeridian``.
    """
    return bool((np.abs(lon) > 180).any() or (wrapped and (np.abs(np.diff(lon)) > 180).any()))


def split_at_antimeridian(polygons: NDArray[np.object_], *, wrapped: bool) -> NDArray[np.object_]:
    """Cut polygons in longitude and latitude at ±180° where they cross it (RFC 7946, 3.1.9).

    Parameters
    ----------
    polygons : (n,), in degrees; those that do not cross are returned as they are
    wrapped : longitudes lie in [-180, 180], as a projection's inverse gives them: neighboring
        vertices more than 180° apart are joined across the antimeridian, and a polygon around a
        pole, or with a vertex there, gets its pole. Otherwise longitudes run on beyond ±180°.
    """
    result = np.array(polygons, object)
    coordinates, owner = shapely.get_coordinates(polygons, return_index=True)
    beyond = np.abs(coordinates[:, 0]) > 180
    if wrapped:
        beyond |= at_pole(coordinates)
        beyond[1:] |= (np.abs(np.diff(coordinates[:, 0])) > 180) & (owner[1:] == owner[:-1])
    for index in np.unique(owner[beyond]):
        result[index] = _split_polygon(polygons[index], wrapped=wrapped)
    return result


def _split_polygon(geometry: shapely.Geometry, *, wrapped: bool) -> shapely.Geometry:
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
    through = bool(at_pole(coordinates).any())
    # From the vertex nearest to a pole on, nothing of the ring lies between it and the pole.
    coordinates = from_pole(coordinates) if through else from_nearest(coordinates)
    turns = np.cumsum(np.round(np.diff(coordinates[:, 0], prepend=coordinates[0, 0]) / 360))
    # Whole turns: a corner where two rings meet stays one point.
    lon = coordinates[:, 0] - 360 * turns
    points = np.column_stack([lon, coordinates[:, 1]])
    if abs(lon[-1] - lon[0]) > 180 and not through:  # once around a pole: close the ring along it
        pole = 90.0 if coordinates[:, 1].mean() > 0 else -90.0
        points = np.vstack([points, [(lon[-1], pole), (lon[0], pole)]])
    return shapely.polygons(points)


def _shifted(degrees: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda coordinates: coordinates + np.array([degrees, 0.0])
