"""Positions of cells and polygons, in the raster's CRS and in the output's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from rssc_geo.errors import OutputError, one_line
from rssc_geo.geometry import (
    TileGrid,
    as_multipolygons,
    at_most_poles,
    cell_polygons,
    crosses_antimeridian,
    geodesic_area_m2,
    lattice,
    poles_near,
    split_at_antimeridian,
    with_bends,
)

_POLYGON, _MULTIPOLYGON = shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON
_LATTICE_POINTS = 65
_GROWTH, _LEAP = 8, 50
_NEARLY_ROUND = 359.999
_POLAR_PART = 1 / 16
"""Shortest piece of an edge near a pole, in pixels."""


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
        self._seam: _Seam | None = None
        if target.is_geocentric or not (target.is_geographic or target.is_projected):
            raise OutputError(
                f"{target.name!r} is no CRS of a flat map: choose another --crs, such as EPSG:4326"
            )
        if not geo.crs.equals(target, ignore_axis_order=True):
            self._to_target = _transformer(geo.crs, target)
        x, y = lattice(self.geo.transform, self.geo.grid.shape, points=_LATTICE_POINTS)
        self._splits = target.is_geographic and (wrap or self.reprojects) and self._crosses(x, y)
        if self._to_target is not None and not target.is_geographic:
            lines = shapely.linestrings(
                np.concatenate([np.stack([x, y], -1), np.stack([x.T, y.T], -1)])
            )
            placed = _moved(lines, self._to_target)
            if _jumps(lines, placed, self._to_target):
                self._seam = _Seam.of(geo.crs, target)
        self._beyond_pole = geo.crs.is_geographic and bool(np.abs(y).max() > 90)
        # Near a pole, straight edges in the raster's CRS are curved in longitude and latitude.
        self._poles = np.empty((0, 2))
        if self.reprojects and (target.is_geographic or self._seam is not None):
            self._poles = poles_near(geo.crs, geo.transform, geo.grid.shape)
            self._splits |= target.is_geographic and len(self._poles) > 0
        self._shortest = _POLAR_PART * min(_sides(geo))
        # In degrees, around the world: both ends of a region around a pole may become one line; at
        # a pole: an edge may become one point, where parts of a region then meet.
        self._closes = (
            self.reprojects
            and geo.crs.is_geographic
            and not target.is_geographic
            and bool(np.ptp(x) > _NEARLY_ROUND or np.abs(y).max() >= 90)
        )
        if clip is not None:
            shapely.prepare(clip)

    @property
    def reprojects(self) -> bool:
        """Whether the output's CRS is another than the raster's."""
        return self._to_target is not None

    @property
    def geometry_type(self) -> str:
        """Type of the layer that holds the placed polygons."""
        cut = self._splits or self._seam is not None or self._clip is not None or self._closes
        return "MultiPolygon" if cut else "Polygon"

    def clip(self, polygons: NDArray[np.object_]) -> NDArray[np.object_]:
        """Polygons (n,) cut to the clip geometry, None where nothing is left."""
        if self._clip is None:
            return polygons
        clipped = np.array(polygons, object)
        cut = ~shapely.contains(self._clip, polygons)
        pieces = shapely.intersection(polygons[cut], self._clip)
        clipped[cut] = [_polygons_or_none(piece) for piece in pieces]
        return clipped

    def areas_m2(self, clipped: NDArray[np.object_]) -> NDArray[np.float64]:
        """Geodesic areas, in m², (n,), of polygons in the raster's CRS, (n,)."""
        return geodesic_area_m2(clipped, self.geo.crs)

    def place(self, clipped: NDArray[np.object_]) -> NDArray[np.object_]:
        """Clipped polygons (n,) in the output's CRS, of the layer's geometry type.

        Raises ``OutputError`` where a corner has no position there, or an edge would run around the
        world.
        """
        placed = clipped
        if self._beyond_pole:
            placed = at_most_poles(placed, self.geo.crs)
        if len(self._poles):
            placed = with_bends(placed, self._poles, shortest=self._shortest)
        if self._seam is not None:
            placed = self._seam.cut(placed)
            self._check(placed)
        before = placed
        last = self._to_target if self._seam is None else self._seam.to_target
        if last is not None:
            placed = _moved(placed, last)
            self._check(placed)
            if not self.target.is_geographic and _jumps(before, placed, last):
                raise OutputError(
                    f"polygons of the raster would run around the world in {self.target.name!r}:"
                    " choose another --crs"
                )
        if self._splits:
            try:
                placed = split_at_antimeridian(placed, wrapped=self.reprojects)
            except shapely.errors.GEOSException as error:
                raise OutputError(
                    f"polygons of the raster cannot be cut at the antimeridian ({one_line(error)}):"
                    " choose another --crs"
                ) from error
        if self._closes:
            placed = np.array(placed, object)
            torn = ~shapely.is_valid(placed)
            joined = shapely.make_valid(placed[torn], method="structure", keep_collapsed=False)
            placed[torn] = [_polygons_or_none(geometry) for geometry in joined]
        if self.geometry_type == "MultiPolygon":
            placed = as_multipolygons(placed)
        return placed

    def _check(self, placed: NDArray[np.object_]) -> None:
        if not np.isfinite(shapely.get_coordinates(placed)).all():
            raise OutputError(
                f"parts of the raster have no position in {self.target.name!r}: choose another"
                " --crs"
            )

    def _crosses(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
        """Whether a line of the lattice crosses the antimeridian in the output's CRS."""
        lon = x
        if self._to_target is not None:
            lon, _ = self._to_target.transform(x, y)
        lines = (*lon, *lon.T)
        return any(
            crosses_antimeridian(line[np.isfinite(line)], wrapped=self.reprojects) for line in lines
        )


@dataclass(frozen=True, slots=True)
class _Seam:
    """The meridian at which a projection is cut, opposite its central one.

    Attributes
    ----------
    to_lonlat, to_target : from the raster's CRS to longitude and latitude, and on to the output's
    center : longitude of the central meridian
    """

    to_lonlat: Transformer
    to_target: Transformer
    center: float

    @classmethod
    def of(cls, source: CRS, target: CRS) -> _Seam:
        operation, lonlat = target.coordinate_operation, target.geodetic_crs
        if operation is None or lonlat is None:
            raise OutputError(
                f"the raster crosses an edge of {target.name!r}: choose another --crs"
            )
        center = next(
            (param.value for param in operation.params if param.name.startswith("Longitude of")),
            0.0,
        )
        return cls(_transformer(source, lonlat), _transformer(lonlat, target), float(center))

    def cut(self, polygons: NDArray[np.object_]) -> NDArray[np.object_]:
        """The polygons in longitude and latitude, cut at the seam."""

        def relative(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
            lon, lat = self.to_lonlat.transform(x, y)
            return np.stack([(lon - self.center + 180) % 360 - 180, lat])

        turned = shapely.transform(polygons, lambda xy: relative(xy[:, 0], xy[:, 1]).T)
        if not np.isfinite(shapely.get_coordinates(turned)).all():
            return np.asarray(turned)  # reported by the caller
        pieces = split_at_antimeridian(turned, wrapped=True)
        back = np.array([self.center, 0.0])
        return np.asarray(shapely.transform(pieces, lambda xy: xy + back))


def _sides(geo: GeoGrid) -> tuple[float, float]:
    """Width and height of a pixel, in the raster's CRS."""
    place = geo.transform
    return math.hypot(place.a, place.d), math.hypot(place.b, place.e)


def _transformer(source: CRS, target: CRS) -> Transformer:
    try:
        return Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        raise OutputError(
            f"{source.name!r} cannot be converted to {target.name!r} ({error}): choose another"
            " --crs"
        ) from error


def _moved(geometries: NDArray[np.object_], transformer: Transformer) -> NDArray[np.object_]:
    return np.asarray(shapely.transform(geometries, transformer.transform, interleaved=False))


def _jumps(
    before: NDArray[np.object_], after: NDArray[np.object_], transformer: Transformer
) -> bool:
    """Whether an edge was moved elsewhere: across a seam, around the world.

    Edges that grew far more than others are checked: the middle of such an edge, transformed back,
    must be near its original place.
    """
    (old, line), new = _vertices(before), _vertices(after)[0]
    same = line[1:] == line[:-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        length = np.hypot(*np.diff(old, axis=0)[same].T)
        growth = np.hypot(*np.diff(new, axis=0)[same].T) / length
        usable = np.isfinite(growth)
        if not usable.any():
            return False
        suspect = usable & (growth > _GROWTH * np.quantile(growth[usable], 0.1))
    if not suspect.any():
        return False
    middle = ((new[1:] + new[:-1]) / 2)[same][suspect]
    x, y = transformer.transform(middle[:, 0], middle[:, 1], direction="INVERSE")
    wanted = ((old[1:] + old[:-1]) / 2)[same][suspect]
    off_x, off_y = x - wanted[:, 0], y - wanted[:, 1]
    if transformer.source_crs is not None and transformer.source_crs.is_geographic:
        # Near a pole a degree of longitude is very short.
        off_x = ((off_x + 180) % 360 - 180) * np.cos(np.radians(wanted[:, 1]))
    with np.errstate(invalid="ignore"):
        elsewhere = np.hypot(off_x, off_y) > length[suspect]
        # At the rim of a projection the middle of a valid edge may lie just outside.
        lost = ~np.isfinite(off_x) & (growth[suspect] > _LEAP * np.median(growth[usable]))
    return bool((elsewhere | lost).any())


def _vertices(geometries: NDArray[np.object_]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Vertices (n, 2) of lines or rings, and which one each belongs to."""
    parts = shapely.get_parts(geometries)
    if len(parts) and shapely.get_type_id(parts[0]) == _POLYGON:
        parts = shapely.get_rings(parts)
    vertices, line = shapely.get_coordinates(parts, return_index=True)
    return vertices, line


def _polygons_or_none(geometry: shapely.Geometry) -> shapely.Geometry | None:
    """The polygons of an intersection, without the points and lines in which it may also touch."""
    if shapely.get_type_id(geometry) in (_POLYGON, _MULTIPOLYGON):
        return None if geometry.is_empty else geometry
    parts = [part for part in shapely.get_parts(geometry) if shapely.get_type_id(part) == _POLYGON]
    return shapely.multipolygons(parts) if parts else None
