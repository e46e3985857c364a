"""Features of vector files: read, checked, repaired and reprojected."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import CRSError, ProjError
from shapely.geometry.base import BaseGeometry

from rssc_geo.errors import InputError, nearest, one_line

if TYPE_CHECKING:
    import geopandas as gpd

log = logging.getLogger(__name__)

VECTOR_ERRORS = (
    DataSourceError,
    DataLayerError,
    shapely.errors.ShapelyError,
    CRSError,
    OSError,
    ValueError,
    pa.ArrowException,
)
"""What reading a vector file raises, of a damaged one too."""

MOST_FEATURES = 1_000_000
"""Limit of features: a view of a database may never end."""

_MOST_CROSSINGS = 200_000
"""Limit of self-crossings: the repair takes time and memory for each."""

_SAMPLED_EDGES = 200

_MARGIN = 0.1
"""What is kept around a place, as a share of its longer side: its bounds are not exact."""

_EDGE_PARTS = 200
"""Longest piece of an edge before reprojection, as a share of the place's extent: edges bend."""

_FARTHEST = 1.1
"""Latitude that counts as a mistake, as a share of the pole's."""

_POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)

_EXACT = 2.0**53
"""From here on a float does not hold every whole number."""

_LOOK_BYTES = 4096
"""GDAL looks for the mark of a view in the first 1024 bytes."""

_PARQUET = (".parquet", ".geoparquet")
"""Suffixes of tables for which GDAL needs a library that comes with few of its builds."""

_VIEWS = ("OGR_VRT", "GDALG")
_VIEW_MARKS = (b"<OGRVRTDataSource", b"gdal_streamed_alg")

LAYER = "|layername="
"""How QGIS writes a layer of a file."""


def read_features(path: str, field: str | None) -> gpd.GeoDataFrame:
    """The layer of a vector file that has a column; without a name, the first with geometries.

    ``path``: a file, or one of its layers as ``file.gpkg|layername=review``; ``field``: the column,
    or None. Invalid polygons are repaired, with a warning.

    Raises ``InputError`` when the file, the layer or the column is not there, or several layers
    have it, and when its features have no places or no CRS, or are too many.
    """
    frame = _read(path, field)
    if getattr(frame, "crs", None) is None:
        raise InputError(f"{path} has no places, or no CRS; write it with one")
    check_count(len(frame), path)
    places = repaired(np.asarray(frame.geometry, object), path)
    return frame.set_geometry(places, crs=frame.crs)


def read_layers(path: str) -> Iterator[tuple[NDArray[np.object_], Any]]:
    """The geometries (n,) of each layer of a vector file that has places, and their CRS or None.

    ``path``: as of ``read_features``, of which it raises the errors, or those of ``VECTOR_ERRORS``.
    """
    file, _, layer = path.partition(LAYER)
    check_no_view(file)
    if _is_parquet(file):
        frame = _read_parquet(file, None)
        yield shapely.force_2d(np.asarray(frame.geometry, object)), frame.crs
        return
    kinds = {str(name): kind for name, kind in pyogrio.list_layers(file)}
    _check_layer(file, layer, list(kinds))
    for name in [layer] if layer else [name for name, kind in kinds.items() if kind is not None]:
        meta, _, wkb, _ = pyogrio.raw.read(
            file, layer=name, columns=[], force_2d=True, max_features=MOST_FEATURES + 1
        )
        check_count(len(wkb), path)
        yield shapely.from_wkb(wkb), meta["crs"]


def check_no_view(path: str) -> None:
    """Refuse a view of other files (OGR VRT, GDALG), whose columns and places it would show.

    In an archive and on the network, too.
    """
    head = path.encode("utf-8", "replace")
    with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
        head = file.read(_LOOK_BYTES)
    plain = os.path.isfile(path) and not path.lower().endswith(".zip")  # which pyogrio looks into
    if any(mark in head for mark in _VIEW_MARKS) or (not plain and _driver(path) in _VIEWS):
        raise InputError(
            f"{path} is a view of other files (OGR VRT or GDALG), which are not read through it:"
            " save what it shows as a GeoPackage"
        )


def _driver(path: str) -> str:
    """GDAL's driver for a vector file; "" for a database, and for one that cannot be opened."""
    with contextlib.suppress(*VECTOR_ERRORS):
        # ``read_info`` counts features, which may not end in a database. That takes SQLite's words.
        pyogrio.raw.read(path, sql="SELECT sqlite_version()", read_geometry=False)
        return ""
    with contextlib.suppress(*VECTOR_ERRORS):
        for layer in pyogrio.list_layers(path)[:, 0]:
            with contextlib.suppress(*VECTOR_ERRORS):
                return str(pyogrio.read_info(path, layer=str(layer))["driver"])
    return ""


def check_count(features: int, path: str) -> None:
    """Refuse a file of which more than ``MOST_FEATURES`` were read."""
    if features > MOST_FEATURES:
        raise InputError(
            f"{path} has more than {MOST_FEATURES:,} features, or never ends; dissolve them, or"
            " save those that are needed first"
        )


def repaired(geometries: NDArray[np.object_], path: str) -> NDArray[np.object_]:
    """Geometries (n,), missing ones included; invalid ones become the polygons that are in them.

    Raises ``InputError`` for coordinates that are no numbers, and for polygons that cross
    themselves too often.
    """
    vertices, of = shapely.get_coordinates(geometries, return_index=True)
    strange = len(np.unique(of[~np.isfinite(vertices).all(1)]))
    if strange:
        raise InputError(
            f"{path}: {strange} feature(s) with coordinates that are no numbers: draw them again,"
            " or delete them"
        )
    bad = ~shapely.is_valid(geometries) & ~shapely.is_missing(geometries)
    if not bad.any():
        return geometries
    for geometry in geometries[bad]:
        _check_crossings(geometry, path)
    log.warning("%s: %d invalid polygon(s) repaired", path, int(bad.sum()))
    whole = geometries.copy()
    repairs = shapely.make_valid(geometries[bad])
    whole[bad] = [united_polygons(geometry) or None for geometry in repairs]
    return whole


def reprojected(
    geometries: NDArray[np.object_],
    crs: pyproj.CRS,
    target: pyproj.CRS,
    path: str,
    *,
    near: tuple[float, float, float, float],
) -> NDArray[np.object_]:
    """What of geometries (n,) of a file lies in and around a place, in that place's CRS and valid.

    A geometry that reaches farther is cut before it is projected: a country or the whole world has
    no outline in the CRS of a small place. Edges bend, so they get more vertices first. In degrees
    190 and -170 are the same place. Nothing nearby leaves an empty geometry.

    Parameters
    ----------
    geometries : of the file, in its ``crs``
    target : CRS of the place
    path : the file's name, for messages
    near : (min x, min y, max x, max y) of the place in ``target``; of a geographic CRS min x > max
        x across the antimeridian. Infinite where it lies in part off the Earth: nothing is cut

    Raises ``InputError`` where there is no way to that CRS, or a vertex has no place in it.
    """
    check_latitudes(geometries, crs, path)
    try:
        for margin in (_MARGIN, 0.0):  # Mercator ends where the whole world does
            moved = _moved(geometries, crs, target, near, margin)
            if np.isfinite(shapely.get_coordinates(moved)).all():
                break
        else:
            raise InputError(f"{path}: some features have no place in {target.name}")
    except ProjError as error:
        raise InputError(
            f"{path} cannot be brought into the CRS {target.name!r}: {one_line(error)}"
        ) from error
    bad = np.flatnonzero(~shapely.is_valid(moved) & ~shapely.is_missing(moved))
    for index in bad:
        # One by one: copies of the same place, a turn apart, overlap now, and a repair of the whole
        # would cut the overlap out.
        moved[index] = shapely.union_all(shapely.make_valid(shapely.get_parts(moved[index])))
    if np.isfinite(near).all():
        moved = _cut(moved, target, _around(near, target, margin=_MARGIN, wrapped=False))
    return _as_before(moved, geometries)


def _moved(
    geometries: NDArray[np.object_],
    crs: pyproj.CRS,
    target: pyproj.CRS,
    near: tuple[float, float, float, float],
    margin: float,
) -> NDArray[np.object_]:
    """Geometries cut to the surroundings of a place, with more vertices, in its CRS."""
    if crs == target:
        return geometries.copy()
    place = moved_bounds(near, target, crs)
    if np.isfinite(place).all():
        geometries = _cut(geometries, crs, _around(place, crs, margin=margin, wrapped=True))
    else:
        place = tuple(shapely.total_bounds(geometries))
    west, south, east, north = place
    width = east - west if east >= west else east - west + full_turn(crs)
    longest = max(width, north - south) / _EDGE_PARTS
    if longest > 0:
        geometries = shapely.segmentize(geometries, longest)
    transformer = pyproj.Transformer.from_crs(crs, target, always_xy=True)
    moved: NDArray[np.object_] = shapely.transform(
        geometries, transformer.transform, interleaved=False
    )
    return moved


def moved_bounds(
    bounds: tuple[float, float, float, float], crs: pyproj.CRS, target: pyproj.CRS
) -> tuple[float, float, float, float]:
    """Bounds in another CRS, as ``reprojected`` takes them."""
    if crs == target or not np.isfinite(bounds).all():
        return bounds
    transformer = pyproj.Transformer.from_crs(crs, target, always_xy=True)
    try:
        west, south, east, north = transformer.transform_bounds(*bounds, densify_pts=21)
    except ProjError:
        return (math.inf,) * 4
    return west, south, east, north


def _cut(
    geometries: NDArray[np.object_], crs: pyproj.CRS, boxes: Sequence[BaseGeometry]
) -> NDArray[np.object_]:
    """The parts of geometries in boxes, wherever their longitudes begin to count."""
    area = shapely.union_all(boxes)
    shapely.prepare(area)
    turn = full_turn(crs)
    parts = np.stack(
        [
            _parts_in(shapely.transform(geometries, _shift(x)), area)
            for x in ((-turn, 0.0, turn) if turn else (0.0,))
        ]
    )
    there = ~shapely.is_empty(parts)
    result: NDArray[np.object_] = parts[there.argmax(0), np.arange(len(geometries))]
    for index in np.flatnonzero(there.sum(0) > 1):
        result[index] = shapely.union_all(parts[:, index])
    return _as_before(result, geometries)


def _around(
    place: tuple[float, float, float, float], crs: pyproj.CRS, *, margin: float, wrapped: bool
) -> list[BaseGeometry]:
    """Boxes over a place and a margin around it, a share of its longer side.

    ``wrapped``: cut at the antimeridian, so that no longitude lies beyond it.
    """
    west, south, east, north = place
    turn = full_turn(crs)
    if east < west:
        east, wrapped = east + turn, True
    more = margin * max(east - west, north - south)
    beside = min(more, max(0.0, (turn - (east - west)) / 2)) if turn else more
    whole = shapely.box(west - beside, south - more, east + beside, north + more)
    if not (turn and wrapped):
        return [whole]
    boxes = []
    for x in (-turn, 0.0, turn):
        part = shapely.intersection(
            shapely.transform(whole, _shift(x)),
            shapely.box(-turn / 2, south - more, turn / 2, north + more),
        )
        if part.area > 0:
            boxes.append(part)
    return boxes


def _parts_in(geometries: NDArray[np.object_], area: BaseGeometry) -> NDArray[np.object_]:
    result = np.full(len(geometries), shapely.Polygon(), object)
    whole = shapely.covers(area, geometries)
    result[whole] = geometries[whole]
    cut = shapely.intersects(area, geometries) & ~whole
    result[cut] = shapely.intersection(geometries[cut], area)
    return result


def _shift(x: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda points: np.add(points, (x, 0.0))


def full_turn(crs: pyproj.CRS) -> float:
    """All longitudes in the unit of a CRS: 360, or 400 grads; 0 if it is projected."""
    if not crs.is_geographic:
        return 0.0
    return 2 * math.pi / float(crs.axis_info[0].unit_conversion_factor)


def _as_before(
    changed: NDArray[np.object_], geometries: NDArray[np.object_]
) -> NDArray[np.object_]:
    """Of polygons the polygons, without the lines and points that cuts and repairs leave."""
    was_area = np.isin(shapely.get_type_id(geometries), _POLYGONS)
    for index in np.flatnonzero(was_area & ~np.isin(shapely.get_type_id(changed), _POLYGONS)):
        changed[index] = united_polygons(changed[index]) or shapely.Polygon()
    return changed


def check_latitudes(geometries: NDArray[np.object_], crs: pyproj.CRS, path: str) -> None:
    """Refuse with ``InputError`` meters that are given as degrees.

    Global grids reach half a pixel beyond a pole.
    """
    if not crs.is_geographic:
        return
    farthest = np.abs(shapely.get_coordinates(geometries)[:, 1]).max(initial=0.0)
    if farthest > _FARTHEST * full_turn(crs) / 4:
        raise InputError(
            f"{path}: some features have no place in {crs.name}, with latitudes to {farthest:.6g}:"
            " name the CRS that the file is in (in QGIS, Assign projection)"
        )


def single_polygons(geometries: NDArray[np.object_]) -> NDArray[np.object_]:
    """All single polygons, also those in collections; neither missing nor empty ones."""
    parts = shapely.get_parts(shapely.get_parts(geometries[~shapely.is_missing(geometries)]))
    is_polygon = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    return np.asarray(parts[is_polygon & ~shapely.is_empty(parts)])


def united_polygons(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons of a geometry, without the lines and points that cuts and repairs leave.

    Empty where it has none.
    """
    return shapely.union_all(single_polygons(np.array([geometry], object)))


def _check_crossings(polygon: BaseGeometry, path: str) -> None:
    """Refuse a polygon with too many self-crossings, estimated from a sample of its edges."""
    ends, ring = shapely.get_coordinates(
        shapely.get_rings(shapely.get_parts(polygon)), return_index=True
    )
    inner = ring[1:] == ring[:-1]
    edges = shapely.linestrings(np.stack([ends[:-1][inner], ends[1:][inner]], axis=1))
    if not len(edges):
        return
    sample = edges[np.linspace(0, len(edges) - 1, min(_SAMPLED_EDGES, len(edges))).astype(int)]
    met = shapely.STRtree(edges).query(sample, predicate="crosses").shape[1]
    crossings = met / len(sample) * len(edges) / 2
    if crossings > _MOST_CROSSINGS:
        raise InputError(
            f"{path}: a polygon of {len(edges):,} edges crosses itself some {crossings:,.0f} times:"
            " draw it again, or repair it (in QGIS, Fix geometries) first"
        )


def _read(path: str, field: str | None) -> gpd.GeoDataFrame:
    file, _, layer = path.partition(LAYER)
    check_no_view(file)
    try:
        if _is_parquet(file):
            return _read_parquet(file, field)
        names = [str(name) for name in pyogrio.list_layers(file)[:, 0]]
        _check_layer(file, layer, names)
        if field is None:
            places = (str(name) for name, kind in pyogrio.list_layers(file) if kind is not None)
            return _frame(file, layer or next(places, names[0]))
        columns = {name: _columns(file, name) for name in ([layer] if layer else names)}
        having = [name for name, found in columns.items() if field in found]
        if len(having) != 1:
            there = "; ".join(
                f"{name}: {', '.join(found) or 'none'}" for name, found in columns.items()
            )
            if not having:
                known = [name for found in columns.values() for name in found]
                raise InputError(
                    f"{file} has no column {field!r}; there are {there}{nearest(field, known)}"
                )
            which = f"{file}: layers {', '.join(having)} have a column {field!r}"
            raise InputError(f"{which}; name one, as '{file}{LAYER}{having[0]}'")
        return _frame(file, having[0])
    except VECTOR_ERRORS as error:
        raise InputError(f"{path} cannot be read as a vector file: {one_line(error)}") from error


def _check_layer(file: str, layer: str, names: Sequence[str]) -> None:
    """Refuse a layer that a file does not have; "" is none that is asked for."""
    if layer and layer not in names:
        raise InputError(
            f"{file} has no layer {layer!r}; there are {', '.join(map(repr, names))}"
            f"{nearest(layer, names)}"
        )


def _is_parquet(file: str) -> bool:
    return file.lower().endswith(_PARQUET) and os.path.isfile(file)


def _read_parquet(file: str, field: str | None) -> gpd.GeoDataFrame:
    """A GeoParquet table; ``InputError`` where it lacks the column, or is too long."""
    import geopandas as gpd

    check_count(pq.read_metadata(file).num_rows, file)
    frame = gpd.read_parquet(file)
    if field is not None and field not in frame:
        names = [str(name) for name in frame if name != frame.geometry.name]
        raise InputError(
            f"{file} has no column {field!r}; there are {', '.join(names) or 'none'}"
            f"{nearest(field, names)}"
        )
    return frame


def _columns(file: str, layer: str) -> list[str]:
    """Names of the columns, by one feature: ``read_info`` counts them all, without an end."""
    meta, *_ = pyogrio.raw.read(file, layer=layer, max_features=1, read_geometry=False)
    return [str(name) for name in meta["fields"]]


def _frame(file: str, layer: str) -> gpd.GeoDataFrame:
    frame = pyogrio.read_dataframe(file, layer=layer, max_features=MOST_FEATURES + 1)
    # Whole numbers of a column with nulls come as floats.
    floats = frame.select_dtypes(np.float64)
    rounded = [str(name) for name in floats if (floats[name].abs() >= _EXACT).any()]
    if rounded:
        _, table = pyogrio.read_arrow(
            file,
            layer=layer,
            columns=rounded,
            max_features=MOST_FEATURES + 1,
            read_geometry=False,
        )
        for name in rounded:
            frame[name] = np.array(table.column(name).to_pylist(), object)
    return frame


def class_name(value: Any) -> str:
    """A class's name as it will be shown: whole numbers without a point, nothing for null."""
    if value is None or str(value) in {"NaT", "<NA>"}:
        return ""
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return ""
        if float(value).is_integer():
            return str(int(value))
    return str(value).strip()
