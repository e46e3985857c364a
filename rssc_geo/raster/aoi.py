"""The area of interest of a raster: polygons of a vector file, or a rectangle."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyproj
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rssc_geo.errors import InputError, UsageError, one_line
from rssc_geo.geometry import TileGrid
from rssc_geo.raster.features import (
    LAYER,
    VECTOR_ERRORS,
    read_layers,
    repaired,
    reprojected,
    single_polygons,
    united_polygons,
)
from rssc_geo.raster.gdal import is_remote
from rssc_geo.raster.scene import Scene

_CENTERS_AT_ONCE = 1 << 20


def read_aoi(path: str | Path, scene: Scene) -> BaseGeometry:
    """Read the polygons of a vector file: their union in the raster's CRS, cut to the raster.

    Any format and CRS that pyogrio knows, and GeoParquet; the layer that is named
    (``file.gpkg|layername=districts``), else the first with polygons counts. Invalid polygons
    are repaired, with a warning. Raises ``InputError`` for a file that is missing, unreadable,
    without polygons, without CRS, or elsewhere.
    """
    path = os.fspath(path)
    polygons, crs = _read_polygons(path)
    polygons = repaired(polygons, path)
    area = united_polygons(shapely.union_all(polygons))
    if area.is_empty:
        raise InputError(f"{path} has no polygon with an area")
    raster = footprint(scene.transform, scene.shape)
    (area,) = reprojected(np.array([area]), crs, scene.crs, path, near=raster.bounds)
    area = united_polygons(shapely.intersection(area, raster))
    if area.is_empty:
        raise InputError(f"{path}: no polygon lies on the raster {scene.source}, {_where(scene)}")
    return area


def bounds_polygon(bounds: Sequence[float], scene: Scene) -> BaseGeometry:
    """Make the rectangle (min x, min y, max x, max y) in the raster's CRS a polygon.

    Raises ``UsageError`` where it is no rectangle (swapped corners) and ``InputError`` where it
    misses the raster.
    """
    check_bounds(bounds)
    shown = _shown(bounds)
    rectangle = shapely.box(*bounds)
    raster = footprint(scene.transform, scene.shape)
    if shapely.intersection(rectangle, raster).area == 0:
        raise InputError(
            f"--bounds {shown} lies outside the raster, whose bounds are {_shown(raster.bounds)}"
            f" ({scene.crs.name})"
        )
    return rectangle


def check_bounds(bounds: Sequence[float]) -> None:
    """Refuse with ``UsageError`` what is the box of no raster."""
    shown = _shown(bounds)
    if len(bounds) != 4 or not all(math.isfinite(value) for value in bounds):
        raise UsageError(
            f"--bounds {shown}: four numbers are needed, MINX,MINY,MAXX,MAXY in the raster's CRS"
        )
    min_x, min_y, max_x, max_y = bounds
    if min_x >= max_x or min_y >= max_y:
        raise UsageError(
            f"--bounds {shown}: the first corner must be the lower left one, MINX,MINY,MAXX,MAXY"
        )


def _shown(bounds: Sequence[float]) -> str:
    return ",".join(f"{value:.12g}" for value in bounds)


def check_area_file(path: str) -> None:
    """Refuse with ``InputError`` a file of an area of interest that is not there."""
    if not is_remote(path) and not os.path.exists(path.partition(LAYER)[0]):
        raise InputError(f"--aoi {path} does not exist")


def cells_inside(grid: TileGrid, transform: Affine, geometry: BaseGeometry) -> NDArray[np.bool_]:
    """Select the cells whose center lies in a geometry or on its border.

    Parameters
    ----------
    grid : of the raster's cells
    transform : affine of the raster, from (column, row) to its CRS
    geometry : in the raster's CRS

    Returns bool (cell rows, cell columns).
    """
    shapely.prepare(geometry)
    row_edges, col_edges = grid.row_edges(), grid.col_edges()
    rows, cols = (row_edges[:-1] + row_edges[1:]) / 2, (col_edges[:-1] + col_edges[1:]) / 2
    inside = np.empty(grid.cells_shape, dtype=bool)
    step = max(1, _CENTERS_AT_ONCE // len(cols))
    for start in range(0, len(rows), step):
        row, col = np.meshgrid(rows[start : start + step], cols, indexing="ij")
        x, y = transform @ (col, row)
        inside[start : start + step] = shapely.intersects_xy(geometry, x, y)
    return inside


def footprint(transform: Affine, shape: tuple[int, int]) -> BaseGeometry:
    """Outline a raster of (rows, columns) in its CRS."""
    rows, cols = shape
    return shapely.Polygon(
        [transform @ corner for corner in ((0, 0), (cols, 0), (cols, rows), (0, rows))]
    )


def _read_polygons(path: str) -> tuple[NDArray[np.object_], pyproj.CRS]:
    """Polygons of the first layer that has some, and the layer's CRS."""
    check_area_file(path)
    try:
        for geometries, crs in read_layers(path):
            parts = single_polygons(geometries)
            if len(parts) == 0:
                continue
            if not crs:
                raise InputError(
                    f"{path} has no CRS, so that its place is unknown: save it with one"
                )
            return parts, pyproj.CRS.from_user_input(crs)
    except VECTOR_ERRORS as error:
        raise InputError(f"{path} cannot be read as a vector file: {one_line(error)}") from error
    raise InputError(f"{path} has no polygons: an area of interest is one or more polygons")


def _where(scene: Scene) -> str:
    west, south, east, north = scene.bounds_lonlat()
    return (
        f"which covers longitude {west:.5g} to {east:.5g} and latitude {south:.5g} to {north:.5g}"
    )
