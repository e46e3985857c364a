"""Zones of a vector file, placed on a finished map."""

from __future__ import annotations

import numpy as np
from pyproj import CRS

from rssc_geo.errors import InputError
from rssc_geo.output.areas import Zones
from rssc_geo.raster import class_name, read_features, reprojected


def read_zones(
    path: str, crs: CRS, near: tuple[float, float, float, float], *, field: str | None
) -> Zones:
    """Read polygons in any CRS as zones in ``crs``, as far as they lie near ``near``.

    Parameters
    ----------
    path : vector file
    crs : of the map
    near : min x, min y, max x, max y of the map, in ``crs``
    field : column of their names, features of one name being one zone; None: each feature is one,
        named by its place in the file, from 1

    Raises ``InputError`` for a file that cannot be used.
    """
    frame = read_features(path, field)
    kinds = set(frame.geom_type.dropna())
    if frame.empty or not kinds <= {"Polygon", "MultiPolygon"}:
        met = ", ".join(sorted(kinds)) or "nothing"
        raise InputError(f"{path} holds {met}; zones are polygons")
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    if frame.empty:
        raise InputError(f"{path} holds no polygon with an area; zones are polygons")
    polygons = reprojected(np.asarray(frame.geometry, object), frame.crs, crs, path, near=near)
    if field is None:
        return Zones(
            tuple(str(place + 1) for place in frame.index),
            polygons,
            np.arange(len(frame)),
        )
    labels = [class_name(value) for value in frame[field]]
    if "" in labels:
        raise InputError(f"{path}: {labels.count('')} zones have no name in column {field!r}")
    names = tuple(dict.fromkeys(labels))
    places = {name: place for place, name in enumerate(names)}
    return Zones(names, polygons, np.array([places[label] for label in labels]))
