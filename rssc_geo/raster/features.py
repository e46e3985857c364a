"""Features of vector files: read, checked, repaired and reprojected."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
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
)
"""What reading a vector file raises, of a damaged one too."""

MOST_FEATURES = 1_000_000
"""Limit of features: a view of a database may never end."""

_MOST_CROSSINGS = 200_000
"""Limit of self-crossings: the repair takes time and memory for each."""

_SAMPLED_EDGES = 200

_LOOK_BYTES = 4096
"""GDAL looks for the mark of a view in the first 1024 bytes."""

LAYER = "|layername="
"""How QGIS writes a layer of a file."""


def read_features(path: str, field: str | None) -> gpd.GeoDataFrame:
    """The layer of a vector file that has a column; without a name, the first with geometries.

    ``path``: a file, or one of its layers as ``file.gpkg|layername=review``. Raises ``InputError``
    when the file, the layer or the column is not there, or several layers have it, and when its
    features have no places or no CRS, or are too many. Invalid polygons are repaired, with a
    warning.
    """
    frame = _read(path, field)
    if getattr(frame, "crs", None) is None:
        raise InputError(f"{path} has no places, or no CRS; write it with one")
    check_count(len(frame), path)
    places = repaired(np.asarray(frame.geometry, object), path)
    return frame.set_geometry(places, crs=frame.crs)


def check_no_view(path: str) -> None:
    """Refuse a view of other files (OGR VRT), whose columns and places it would show."""
    head = path.encode("utf-8", "replace")
    with contextlib.suppress(OSError, ValueError), open(path, "rb") as file:
        head = file.read(_LOOK_BYTES)
    if b"<OGRVRTDataSource" in head:
        raise InputError(
            f"{path} is a view of other files (OGR VRT), which are not read through it: save what"
            " it shows as a GeoPackage"
        )


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
    whole[bad] = [_polygonal(geometry) for geometry in shapely.make_valid(geometries[bad])]
    return whole


def reprojected(
    geometries: NDArray[np.object_], crs: pyproj.CRS, target: pyproj.CRS, path: str
) -> NDArray[np.object_]:
    """Geometries (n,) of a file in another CRS, vertex by vertex, and valid there.

    Raises ``InputError`` where there is no way to that CRS, or a vertex has no place in it.
    """
    if crs == target:
        return geometries
    try:
        transformer = pyproj.Transformer.from_crs(crs, target, always_xy=True)
        moved = shapely.transform(geometries, transformer.transform, interleaved=False)
    except ProjError as error:
        raise InputError(
            f"{path} cannot be brought into the CRS {target.name!r}: {one_line(error)}"
        ) from error
    if not np.isfinite(shapely.get_coordinates(moved)).all():
        raise InputError(f"{path}: some features have no place in {target.name}")
    return np.asarray(shapely.make_valid(moved))


def _polygonal(geometry: BaseGeometry) -> BaseGeometry | None:
    """The polygons of a repaired geometry, without the lines and points left; None without any."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    polygons = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return shapely.union_all(polygons) if len(polygons) else None


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
        names = [str(name) for name in pyogrio.list_layers(file)[:, 0]]
        if layer and layer not in names:
            raise InputError(
                f"{file} has no layer {layer!r}; there are {', '.join(map(repr, names))}"
                f"{nearest(layer, names)}"
            )
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


def _columns(file: str, layer: str) -> list[str]:
    """Names of the columns, by one feature: ``read_info`` counts them all, without an end."""
    meta, *_ = pyogrio.raw.read(file, layer=layer, max_features=1, read_geometry=False)
    return [str(name) for name in meta["fields"]]


def _frame(file: str, layer: str) -> gpd.GeoDataFrame:
    return pyogrio.read_dataframe(file, layer=layer, max_features=MOST_FEATURES + 1)


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
