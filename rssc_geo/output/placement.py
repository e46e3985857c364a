"""Where cells and polygons lie: on the ground, and in the output's CRS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from rssc_geo.errors import OutputError
from rssc_geo.geometry import (
    TileGrid,
    cell_polygons,
    crosses_antimeridian,
    geodesic_area_m2,
    split_at_antimeridian,
)

_POLYGON, _MULTIPOLYGON = 3, 6  # shapely type ids
_BORDER_POINTS = 64


@dataclass(frozen=True, slots=True)
class GeoGrid:
    """A raster's grid of cells with its place: ``transform`` turns (col, row) into ``crs``."""

    grid: TileGrid
    transform: Affine
    crs: CRS

    def polygons(self, rows: NDArray[np.int32], cols: NDArray[np.int32]) -> NDArray[np.object_]:
        """The cells at (n,) rows and columns as polygons in ``crs``."""
        return cell_polygons(self.grid, self.transform, rows, cols)


class Placement:
    """Places polygons of a raster in the output.

    Parameters
    ----------
    geo : the raster's grid
    target : CRS of the output
    clip : polygon or multipolygon in the raster's CRS to which polygons are cut, or None
    wrap : cut polygons at the antimeridian even when nothing is reprojected, as GeoJSON asks for

    Raises ``OutputError`` when the target cannot be reached from the raster's CRS.
    """

    def __init__(
        self,
        geo: GeoGrid,
        target: CRS,
        *,
        clip: shapely.Geometry | None = None,
        wrap: bool = False,
    ) -> None:
        self.geo, self.target = geo, target
        self._clip = clip
        self._to_target = None
        if not geo.crs.equals(target, ignore_axis_order=True):
            try:
                self._to_target = Transformer.from_crs(geo.crs, target, always_xy=True)
            except ProjError as error:
                raise OutputError(
                    f"{geo.crs.name!r} cannot be converted to {target.name!r} ({error}): choose"
                    " another --crs"
                ) from error
        self._splits = target.is_geographic and (wrap or self.reprojects) and self._border_crosses()
        if clip is not None:
            shapely.prepare(clip)

    @property
    def reprojects(self) -> bool:
        """Whether the output's CRS is another than the raster's."""
        return self._to_target is not None

    @property
    def geometry_type(self) -> str:
        """Type of the layer that holds the placed polygons."""
        return "MultiPolygon" if self._splits or self._clip is not None else "Polygon"

    def clip(self, polygons: NDArray[np.object_]) -> NDArray[np.object_]:
        """Polygons cut to the clip geometry; None where nothing is left. Unchanged without one."""
        if self._clip is None:
            return polygons
        clipped = np.array(polygons, object)
        cut = ~shapely.contains(self._clip, polygons)
        clipped[cut] = [
            _polygonal(piece) for piece in shapely.intersection(polygons[cut], self._clip)
        ]
        return clipped

    def areas_m2(self, clipped: NDArray[np.object_]) -> NDArray[np.float64]:
        """Geodesic areas of polygons given in the raster's CRS."""
        return geodesic_area_m2(clipped, self.geo.crs)

    def place(self, clipped: NDArray[np.object_]) -> NDArray[np.object_]:
        """Clipped polygons in the output's CRS, of the layer's geometry type.

        Raises ``OutputError`` where a corner has no position there.
        """
        placed = clipped
        if self._to_target is not None:
            placed = shapely.transform(placed, self._to_target.transform, interleaved=False)
            if not np.isfinite(shapely.get_coordinates(placed)).all():
                raise OutputError(
                    f"parts of the raster have no position in {self.target.name!r}: choose another"
                    " --crs"
                )
        if self._splits:
            placed = split_at_antimeridian(placed, wrapped=not self.geo.crs.is_geographic)
        if self.geometry_type == "MultiPolygon":
            single = shapely.get_type_id(placed) == _POLYGON
            placed = placed.copy()
            placed[single] = shapely.multipolygons(placed[single], indices=np.arange(single.sum()))
        return placed

    def _border_crosses(self) -> bool:
        """Whether the raster's border crosses the antimeridian in the output's CRS."""
        steps = np.linspace(0, 1, _BORDER_POINTS)
        zero, one = np.zeros(_BORDER_POINTS), np.ones(_BORDER_POINTS)
        x = np.concatenate([steps, one, steps[::-1], zero]) * self.geo.grid.shape[1]
        y = np.concatenate([zero, steps, one, steps[::-1]]) * self.geo.grid.shape[0]
        transform = self.geo.transform
        lon, lat = (
            transform.a * x + transform.b * y + transform.c,
            transform.d * x + transform.e * y + transform.f,
        )
        if self._to_target is not None:
            lon, lat = self._to_target.transform(lon, lat)
        wrapped = not self.geo.crs.is_geographic
        return crosses_antimeridian(lon[np.isfinite(lon)], wrapped=wrapped)


def _polygonal(geometry: shapely.Geometry) -> shapely.Geometry | None:
    """The polygons of an intersection, without the points and lines in which it may also touch."""
    if shapely.get_type_id(geometry) in (_POLYGON, _MULTIPOLYGON):
        return None if geometry.is_empty else geometry
    parts = [part for part in shapely.get_parts(geometry) if shapely.get_type_id(part) == _POLYGON]
    return shapely.multipolygons(parts) if parts else None
