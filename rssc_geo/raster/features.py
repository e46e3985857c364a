"""Features of a vector file with a column of names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from rssc_geo.errors import InputError, nearest, one_line

if TYPE_CHECKING:
    import geopandas as gpd

LAYER = "|layername="
"""How QGIS writes a layer of a file."""


def read_features(path: str, field: str | None) -> gpd.GeoDataFrame:
    """The layer of a vector file that has a column; without a name, the first with geometries.

    ``path``: a file, or one of its layers as ``file.gpkg|layername=review``. Raises ``InputError``
    when the file, the layer or the column is not there, or several layers have it, and when its
    features have no places or no CRS.
    """
    frame = _read(path, field)
    if getattr(frame, "crs", None) is None:
        raise InputError(f"{path} has no places, or no CRS; write it with one")
    return frame


def _read(path: str, field: str | None) -> gpd.GeoDataFrame:
    import geopandas as gpd

    file, _, layer = path.partition(LAYER)
    try:
        names = [str(name) for name in pyogrio.list_layers(file)[:, 0]]
        if layer and layer not in names:
            raise InputError(
                f"{file} has no layer {layer!r}; there are {', '.join(map(repr, names))}"
                f"{nearest(layer, names)}"
            )
        if field is None:
            places = (str(name) for name, kind in pyogrio.list_layers(file) if kind is not None)
            return gpd.read_file(file, layer=layer or next(places, names[0]))
        columns = {
            name: list(pyogrio.read_info(file, layer=name)["fields"])
            for name in ([layer] if layer else names)
        }
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
        return gpd.read_file(file, layer=having[0])
    except (DataSourceError, DataLayerError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a vector file: {one_line(error)}") from error


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
