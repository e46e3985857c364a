"""Pictures with a class each, cut from the labeled areas of a raster."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from rssc_geo.errors import InputError
from rssc_geo.geometry import TileGrid
from rssc_geo.inference import Plan, Source, make_plan
from rssc_geo.models import ModelCard
from rssc_geo.options import TilingOptions
from rssc_geo.raster import Scene, TileReader
from rssc_geo.training.few_shot.labels import Labels, class_shares, read_labels, tiles_over

log = logging.getLogger(__name__)

_PARTS = 4
"""Patches start at multiples of a quarter of their side."""
_PER_POLYGON, _PER_CLASS = 8, 200
_CANDIDATES = 2000
_BLOCK = 4
"""Side of a block of places in patches."""


_COLUMNS = ("pixels", "names", "places", "mixed", "groups", "where")


@dataclass(frozen=True, slots=True)
class Patches:
    """Labeled pictures of one raster or several.

    Attributes
    ----------
    pixels : uint8 (N, H, W, 3)
    names : class names (N,)
    places : float64 (N, 3), the centers in meters, geocentric, so that places of different rasters
        can be compared
    mixed : bool (N,), whether the class covers less than the required share
    groups : names (N,) of the groups of their labels, "" for none
    where : names (N,) of the places in their rasters, for messages
    side_m : side of the largest patch in meters
    """

    pixels: NDArray[np.uint8]
    names: NDArray[np.object_]
    places: NDArray[np.float64]
    mixed: NDArray[np.bool_]
    groups: NDArray[np.object_]
    where: NDArray[np.object_]
    side_m: float

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in alphabetical order."""
        return tuple(sorted(set(self.names.tolist())))

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Patches:
        """Those of ``rows``: places int64 (n,), or a bool for each patch."""
        taken: dict[str, Any] = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return Patches(**taken, side_m=self.side_m)

    @property
    def blocks(self) -> NDArray[np.int64]:
        """Block numbers (N,): one for each group, and cubes of four patches where there is none.

        Patches of one block are no independent examples of their classes.
        """
        cubes = np.floor(self.places / (_BLOCK * self.side_m)).astype(np.int64)
        block = np.unique(cubes, axis=0, return_inverse=True)[1].reshape(-1)
        for group in sorted(set(self.groups.tolist()) - {""}):
            block[self.groups == group] = block.max() + 1
        return np.asarray(np.unique(block, return_inverse=True)[1].reshape(-1), np.int64)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Each patch's place in ``classes``, (N,)."""
        codes = {name: code for code, name in enumerate(self.classes)}
        return np.array([codes[name] for name in self.names.tolist()], np.int64)


def read_labeled(
    raster: Source,
    labels: str | Path,
    card: ModelCard,
    options: TilingOptions,
    *,
    field: str,
    group_field: str | None = None,
) -> tuple[Plan, Labels]:
    """The plan of a raster, whose warnings are logged, and the labels on it.

    A point stands for the tile around it; ``field``, ``group_field``: as for :func:`read_labels`.
    Raises what :func:`rssc_geo.make_plan` and ``read_labels`` do.
    """
    plan = make_plan(raster, card, options)
    for warning in plan.warnings:
        log.warning("%s", warning)
    found = read_labels(
        labels,
        plan.scene,
        field=field,
        group_field=group_field,
        around_points=plan.grid.size,
        within=plan.area,
    )
    return plan, found


def cut_patches(plan: Plan, labels: Labels, *, purity: float, out_size: tuple[int, int]) -> Patches:
    """Cut patches as large as the plan's tiles inside and across the labeled areas.

    A patch counts where its own area and others of that class cover at least ``purity`` of it, and
    no other class more than the rest; up to eight an area, not nearer to each other than half their
    side, and up to 200 a class. An area too small for that gives the one patch it covers most, as a
    mixed one, unless another class covers more of it.

    ``out_size``: (rows, cols) of the pictures. Raises ``InputError`` when no patch is left.
    """
    scene, size = plan.scene, plan.grid.size
    grid = TileGrid(scene.shape, size, (max(1, size[0] // _PARTS), max(1, size[1] // _PARTS)))
    found: dict[int, tuple[int, bool, str]] = {}  # tile → class, mixed, group
    lost = 0
    for area, code, group in zip(labels.areas, labels.codes.tolist(), labels.groups, strict=True):
        own = _of_area(grid, area, code, labels, purity)
        lost += not own
        for tile, impure in own.items():
            found.setdefault(tile, (code, impure, group))
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
    chosen = [found[tile] for tile in tiles.tolist()]
    codes = np.array([code for code, _, _ in chosen], np.int64)
    mixed = np.array([impure for _, impure, _ in chosen], np.bool_)
    groups = np.array([group for _, _, group in chosen], object)
    kept = _balanced(codes)
    tiles, codes, mixed, groups = tiles[kept], codes[kept], mixed[kept], groups[kept]
    pixels, valid = _read_tiles(plan, grid, tiles, out_size=out_size)
    seen = valid >= plan.options.min_valid
    if not seen.any():
        raise InputError(
            f"{scene.source} has no data where it is labeled"
            f" (--min-valid {plan.options.min_valid:g})"
        )
    if not seen.all():
        log.warning(
            "%s: %d labeled patch(es) without data left out", scene.source, int((~seen).sum())
        )
    names = np.array(labels.classes, object)[codes]
    places = _places(scene, grid, tiles[seen])
    side_m = max(side * gsd for side, gsd in zip(size, scene.gsd_m, strict=True))
    windows = [grid.tile(tile).window for tile in tiles[seen].tolist()]
    where = np.array([f"{scene.source}, row {w.row}, column {w.col}" for w in windows], object)
    return Patches(pixels[seen], names[seen], places, mixed[seen], groups[seen], where, side_m)


def join_patches(parts: Sequence[Patches]) -> Patches:
    """The patches of several rasters as one set."""
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS
    }
    return Patches(**joined, side_m=max(part.side_m for part in parts))


def _read_tiles(
    plan: Plan, grid: TileGrid, tiles: NDArray[np.int64], *, out_size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Pixels (K, H, W, 3) of tiles by index, as a model would see them, and valid shares (K,)."""
    reader = TileReader(plan.scene, grid, plan.radiometry, out_size=out_size, tiles=tiles.tolist())
    with reader:
        read = list(reader)
    pixels = np.stack([tile.pixels for tile in read])
    return pixels, np.array([tile.valid_fraction for tile in read])


def _of_area(
    grid: TileGrid, area: shapely.Geometry, code: int, labels: Labels, purity: float
) -> dict[int, bool]:
    """The patches of one labeled area: tile → mixed."""
    tiles, boxes = tiles_over(grid, tuple(area.bounds))
    if len(tiles) > _CANDIDATES:  # a very large area: every n-th of its tiles
        chosen = np.linspace(0, len(tiles) - 1, _CANDIDATES).astype(int)
        tiles, boxes = tiles[chosen], boxes[chosen]
    near = shapely.intersects(labels.areas, shapely.union_all(boxes).envelope)
    around = Labels(labels.areas[near], labels.codes[near], labels.classes, labels.groups[near])
    shares = class_shares(boxes, around)
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


def _balanced(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of at most so many of each class, spread evenly over them."""
    kept = [np.flatnonzero(codes == code) for code in np.unique(codes)]
    kept = [
        places[np.linspace(0, len(places) - 1, min(len(places), _PER_CLASS)).round().astype(int)]
        for places in kept
    ]
    return np.sort(np.concatenate(kept))


def _places(scene: Scene, grid: TileGrid, tiles: NDArray[np.int64]) -> NDArray[np.float64]:
    """The centers of tiles, geocentric, in meters: (K, 3)."""
    windows = [grid.tile(tile).window for tile in tiles.tolist()]
    centers = [scene.transform @ (w.col + w.width / 2, w.row + w.height / 2) for w in windows]
    x, y = np.array(centers).T
    lon, lat = pyproj.Transformer.from_crs(scene.crs, "EPSG:4326", always_xy=True).transform(x, y)
    geocentric = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    return np.column_stack(geocentric.transform(lon, lat, np.zeros_like(lon)))
