"""Which classes of a map lie under the units of a sample."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from rssc_geo.output import FinishedMap

_SLIVER = 1e-3
"""An overlap is rounding where it is no more than this share of the cell, and of the unit.

GeoJSON keeps coordinates to about a centimeter.
"""


def locate_units(
    finished: FinishedMap,
    codes: NDArray[np.int16],
    geometry: NDArray[np.object_],
    *,
    classes: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The classes of the map under points and polygons.

    A point is of the cell in which it lies, on a border of the first; a polygon of all that it
    covers, in parts by area. The cells are read in a stream.

    Parameters
    ----------
    finished : the map
    codes : (cells,), the class of each cell of the map
    geometry : (n,), points or polygons in the map's CRS
    classes : how many there are, C

    Returns the share of what lies on the map that each class has, float64 (n, C), zero where none
    does, and the share of each unit that lies on the map, (n,).
    """
    shares = np.zeros((len(geometry), classes))
    points = shapely.get_type_id(geometry) == shapely.GeometryType.POINT
    tree = shapely.STRtree(geometry)
    whole = np.where(points, 1.0, shapely.area(geometry))
    for start, polygons in finished.outlines():
        cell, unit = tree.query(polygons, predicate="intersects")
        own = codes[start + cell]
        at = points[unit]
        first = shares[unit[at]].sum(1) == 0
        # Of several cells of one chunk that a point touches, the first.
        met, index = np.unique(unit[at][first], return_index=True)
        shares[met, own[at][first][index]] = 1
        if not at.all():
            below = polygons[cell[~at]]
            covered = shapely.area(shapely.intersection(below, geometry[unit[~at]]))
            smaller = np.minimum(shapely.area(below), whole[unit[~at]])
            covered[covered < _SLIVER * smaller] = 0
            np.add.at(shares, (unit[~at], own[~at]), covered / whole[unit[~at]])
    inside = shares.sum(1)
    with np.errstate(invalid="ignore"):
        shares = np.where(inside[:, None] > 0, shares / inside[:, None], 0)
    return shares, np.minimum(inside, 1.0)
