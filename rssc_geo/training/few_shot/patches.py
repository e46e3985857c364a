"""Pictures to learn from, cut where people have labeled a raster."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyproj
import shapely

from rssc_geo.errors import InputError
from rssc_geo.geometry import TileGrid
from rssc_geo.raster import Scene
from rssc_geo.training.few_shot.labels import Labels, class_shares, tiles_over
from rssc_geo.training.few_shot.polygons import PURITY, read_tiles

log = logging.getLogger(__name__)

_PARTS = 4
"""Patches start at multiples of a quarter of their side."""
_PER_POLYGON, _PER_CLASS = 8, 200
_CANDIDATES = 2000


@dataclass(frozen=True, slots=True)
class Patches:
    """Labeled pictures of one raster or several.

    ``pixels``: uint8 ``(N, H, W, 3)``; ``labels``: class names ``(N,)``; ``places``: float64 ``(N,
    3)``, the centers in metres, geocentric, so that places of different rasters can be compared;
    ``mixed``: bool ``(N,)``, whether less than the share asked for is covered by the class;
    ``side_m``: of the largest patch.
    """

    pixels: np.ndarray
    labels: np.ndarray
    places: np.ndarray
    mixed: np.ndarray
    side_m: float


def cut_patches(
    scene: Scene,
    size: tuple[int, int],
    labels: Labels,
    *,
    out_size: tuple[int, int],
    purity: float = PURITY,
    min_valid: float = 0.5,
    stretch: str | None = None,
) -> Patches:
    """Cut patches of ``size`` (rows, cols) pixels inside and across the labeled areas.

    A patch counts where its own area and others of that class cover at least ``purity`` of it, and
    no other class more than the rest; up to eight an area, not nearer to each other than half their
    side, and up to 200 a class. An area too small for that gives the one patch it covers most, as a
    mixed one, unless another class covers more of it.

    Raises ``InputError`` when no patch is left.
    """
    grid = TileGrid(scene.shape, size, (max(1, size[0] // _PARTS), max(1, size[1] // _PARTS)))
    found: dict[int, tuple[int, bool]] = {}  # tile → class, mixed
    lost = 0
    for area, code in zip(labels.areas, labels.codes.tolist(), strict=True):
        chosen = _of_area(grid, area, code, labels, purity)
        lost += not chosen
        for tile, impure in chosen.items():
            found.setdefault(tile, (code, impure))
    if lost:
        log.warning(
            "%s: %d labeled area(s) are covered more by other classes; left out", scene.source, lost
        )
    if not found:
        raise InputError(
            f"{scene.source}: areas of different classes lie upon each other everywhere; label each"
            " place once"
        )
    tiles = np.array(sorted(found))
    codes, mixed = (
        np.array(values) for values in zip(*(found[tile] for tile in tiles.tolist()), strict=True)
    )
    kept = _balanced(codes)
    tiles, codes, mixed = tiles[kept], codes[kept], mixed[kept]
    pixels, valid = read_tiles(scene, grid, tiles, out_size=out_size, stretch=stretch)
    seen = valid >= min_valid
    if not seen.any():
        raise InputError(
            f"{scene.source} has no data where it is labeled (--min-valid {min_valid:g})"
        )
    if not seen.all():
        log.warning(
            "%s: %d labeled patch(es) without data left out", scene.source, int((~seen).sum())
        )
    names = np.array(labels.classes, object)[codes]
    side_m = max(side * gsd for side, gsd in zip(size, scene.gsd_m, strict=True))
    return Patches(
        pixels[seen], names[seen], _places(scene, grid, tiles[seen]), mixed[seen], side_m
    )


def join_patches(parts: Sequence[Patches]) -> Patches:
    """The patches of several rasters as one set."""
    pixels, labels, places, mixed = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("pixels", "labels", "places", "mixed")
    )
    return Patches(pixels, labels, places, mixed, max(part.side_m for part in parts))


def _of_area(
    grid: TileGrid, area: shapely.Geometry, code: int, labels: Labels, purity: float
) -> dict[int, bool]:
    """The patches of one labeled area: tile → mixed."""
    tiles, boxes = tiles_over(grid, tuple(area.bounds))
    if len(tiles) > _CANDIDATES:  # a very large area: every so many of its tiles
        chosen = np.linspace(0, len(tiles) - 1, _CANDIDATES).astype(int)
        tiles, boxes = tiles[chosen], boxes[chosen]
    near = shapely.intersects(labels.areas, shapely.union_all(boxes).envelope)
    shares = class_shares(boxes, Labels(labels.areas[near], labels.codes[near], labels.classes))
    own = shares[:, code]
    other = np.delete(shares, code, axis=1).max(1, initial=0.0)
    covered = shapely.area(shapely.intersection(boxes, area))
    centers = shapely.centroid(boxes)
    order = np.lexsort((shapely.distance(centers, area.centroid), -covered.round(6)))
    x, y = shapely.get_x(centers), shapely.get_y(centers)
    taken: list[int] = []
    for place in order.tolist():
        pure = own[place] >= purity and other[place] <= 1 - purity + 1e-9 and covered[place] > 0
        apart = all(
            abs(x[place] - x[k]) >= grid.size[1] / 2 or abs(y[place] - y[k]) >= grid.size[0] / 2
            for k in taken
        )
        if pure and apart:
            taken.append(place)
            if len(taken) == _PER_POLYGON:
                break
    if taken:
        return {int(tiles[place]): False for place in taken}
    best = int(order[0])
    return {int(tiles[best]): True} if own[best] > other[best] or not shares[best].any() else {}


def _balanced(codes: np.ndarray) -> np.ndarray:
    """Places of at most so many of each class, spread evenly over them."""
    kept = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    kept = [
        places[np.linspace(0, len(places) - 1, min(len(places), _PER_CLASS)).round().astype(int)]
        for places in kept
    ]
    return np.sort(np.concatenate(kept))


def _places(scene: Scene, grid: TileGrid, tiles: np.ndarray) -> np.ndarray:
    """The centers of tiles, geocentric, in metres: float64 ``(K, 3)``."""
    windows = [grid.tile(tile).window for tile in tiles.tolist()]
    centers = [scene.transform @ (w.col + w.width / 2, w.row + w.height / 2) for w in windows]
    x, y = np.array(centers).T
    lon, lat = pyproj.Transformer.from_crs(scene.crs, "EPSG:4326", always_xy=True).transform(x, y)
    geocentric = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    return np.column_stack(geocentric.transform(lon, lat, np.zeros_like(lon)))
