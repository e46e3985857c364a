"""Labels on a raster: polygons (or points) with a class each."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rssc_geo.errors import InputError
from rssc_geo.files import path_of
from rssc_geo.fingerprints import content_hash
from rssc_geo.geometry import TileGrid
from rssc_geo.raster import LAYER, Scene, class_name, footprint, read_features, reprojected

log = logging.getLogger(__name__)

_MOST_CLASSES = 500


@dataclass(frozen=True, slots=True)
class Labels:
    """Labeled areas of one raster.

    Attributes
    ----------
    areas : polygons (P,) in pixels, x = column and y = row
    codes : int64 (P,), into ``classes``
    classes : names in alphabetical order
    groups : names (P,) of the groups of areas, "" for an area without group
    """

    areas: NDArray[np.object_]
    codes: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: NDArray[np.object_]


def read_labels(
    path: str | Path,
    scene: Scene,
    *,
    field: str,
    group_field: str | None = None,
    around_points: tuple[int, int] | None = None,
    within: BaseGeometry | None = None,
) -> Labels:
    """Read a vector file in any CRS: the areas on the raster, and their classes.

    Parameters
    ----------
    path : a vector file, or one of its layers as ``file.gpkg|layername=review``
    field : column of the class names; features without one are left out
    group_field : column of the names of their groups
    around_points : (rows, columns) in pixels of the area that a point stands for; None: points are
        no labels
    within : area of interest in the raster's CRS, to which the areas are clipped

    Raises ``InputError`` when the file, the layer or the column is not there, nothing usable lies
    on the raster, or there are too many different values for classes.
    """
    path = path_of(path)
    frame = read_features(path, field)
    places = np.asarray(frame.geometry, object)
    raster = footprint(scene.transform, scene.shape)
    geometry = reprojected(places, frame.crs, scene.crs, path, near=raster.bounds)
    areas = np.array([_area(shape, around_points) for shape in _pixels(geometry, scene)], object)
    names = np.array([class_name(value) for value in frame[field]], object)
    named = names != ""
    if not named.any():
        raise InputError(
            f"{path}: column {field!r} names no class in any of its {len(frame)} features"
        )
    groups = np.full(len(frame), "", object)
    if group_field is not None:
        if group_field not in frame.columns:
            columns = ", ".join(repr(name) for name in frame.columns if name != "geometry")
            raise InputError(f"{path} has no column {group_field!r}; there are {columns}")
        groups = np.array([class_name(value) for value in frame[group_field]], object)
    usable = (2,) if around_points is None else (0, 2)  # dimensions: polygons, points
    elsewhere = np.isin(shapely.get_dimensions(places), usable) & ~shapely.is_empty(places)
    flat = shapely.is_empty(areas) & ~elsewhere
    if flat[named].all():
        kinds = ", ".join(sorted(set(frame.geom_type[named].dropna())))
        raise InputError(
            f"{path} holds {kinds}, no polygons; draw areas (or buffer lines) and label those"
        )
    here = shapely.intersects(areas, shapely.box(0, 0, scene.width, scene.height))
    where = str(scene.source)
    if within is not None:
        areas = shapely.intersection(areas, _pixels(within, scene))
        here &= shapely.area(areas) > 0
        where = f"the area of interest on {where}"
    for left_out, what in (
        (~named, "without a class"),
        (named & flat, "without an area"),
        (named & ~flat & ~here, f"outside {where}"),
    ):
        if left_out.any():
            log.warning("%s: %d feature(s) %s left out", path, int(left_out.sum()), what)
    kept = named & ~flat & here
    if not kept.any():
        place = f"the raster {where}" if within is None else where
        raise InputError(f"{path}: no labeled polygon lies on {place}")
    classes = tuple(sorted(set(names[kept].tolist())))
    if len(classes) > _MOST_CLASSES:
        columns = ", ".join(repr(name) for name in frame.columns if name != "geometry")
        raise InputError(
            f"{path}: column {field!r} holds {len(classes)} different values, no classes; there are"
            f" {columns}"
        )
    codes = np.array([classes.index(name) for name in names[kept].tolist()], np.int64)
    return Labels(areas[kept], codes, classes, groups[kept])


def labels_mark(path: str | Path) -> str:
    """The hash by which a file of labels, or the file of a layer, is recognized."""
    return content_hash(Path(str(path).partition(LAYER)[0]))


def class_shares(boxes: NDArray[np.object_], labels: Labels) -> NDArray[np.float64]:
    """Share of each of B boxes (polygons in pixels) that each class covers, (B, C).

    Overlaps of one class count once.
    """
    shares = np.zeros((len(boxes), len(labels.classes)))
    for code in np.unique(labels.codes):
        merged = shapely.union_all(labels.areas[labels.codes == code])
        shapely.prepare(merged)
        touched = np.flatnonzero(shapely.intersects(merged, boxes))
        covered = shapely.area(shapely.intersection(boxes[touched], merged))
        shares[touched, code] = covered / shapely.area(boxes[touched])
    return shares


def tiles_over(
    grid: TileGrid, bounds: tuple[float, float, float, float]
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """The tiles that touch ``bounds`` (min column, min row, max column, max row), in pixels.

    Returns their indices, int64 (K,), and boxes, polygons (K,) in pixels.
    """
    axes = []
    for low, high, size, cell_size, count in (
        (bounds[1], bounds[3], grid.size[0], grid.cell_size[0], grid.tiles_shape[0]),
        (bounds[0], bounds[2], grid.size[1], grid.cell_size[1], grid.tiles_shape[1]),
    ):
        first, last = int((low - size) // cell_size), int(high // cell_size)
        near = {min(max(k, 0), count - 1) for k in (first, last)}
        # The last tile is shifted inwards, so that its place differs from its number.
        axes.append(np.union1d(np.arange(min(near), max(near) + 1), [count - 1]))
    indices = (axes[0][:, None] * grid.tiles_shape[1] + axes[1][None]).ravel()
    windows = [grid.tile(index).window for index in indices.tolist()]
    boxes = shapely.box(
        *np.array([(w.col, w.row, w.col + w.width, w.row + w.height) for w in windows], float).T
    )
    touching = shapely.intersects(boxes, shapely.box(*bounds))
    return indices[touching], boxes[touching]


def _pixels(geometry: Any, scene: Scene) -> Any:
    """Geometries of the raster's CRS in pixels."""
    inverse = ~scene.transform
    return shapely.transform(geometry, lambda points: np.column_stack(inverse @ tuple(points.T)))


def _area(shape: Any, around_points: tuple[int, int] | None) -> Any:
    """The polygons of a geometry; points become boxes of ``around_points``."""
    parts = shapely.get_parts(shapely.get_parts(shape)) if shape is not None else np.array([])
    kinds = shapely.get_type_id(parts)
    polygons = list(parts[kinds == shapely.GeometryType.POLYGON])
    if around_points is not None:
        half = np.array(around_points[::-1]) / 2
        points = shapely.get_coordinates(parts[kinds == shapely.GeometryType.POINT])
        polygons += list(shapely.box(*(points - half).T, *(points + half).T))
    return shapely.union_all(polygons)
