"""Labelled tiles of a raster: what polygons say about the tiles that a model would look at."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import shapely

from rssc_geo.errors import InputError
from rssc_geo.geometry.grid import TileGrid
from rssc_geo.raster.radiometry import fit_radiometry
from rssc_geo.raster.reader import TileReader
from rssc_geo.raster.scene import Scene
from rssc_geo.training.data import SceneImages

log = logging.getLogger(__name__)


def labelled_tiles(
    scene: Scene,
    grid: TileGrid,
    labels: str | Path,
    *,
    field: str,
    out_size: tuple[int, int],
    purity: float = 0.6,
    min_valid: float = 0.5,
    stretch: str | None = None,
) -> SceneImages:
    """The tiles of which polygons of one class cover at least ``purity``, as pictures with that class.

    ``labels``: a vector file in any CRS; ``field``: its column of class names. Raises ``InputError`` when the file or
    column is not there, or no tile is covered enough.
    """
    polygons, names = _read(labels, field, scene)
    classes = tuple(sorted(set(names)))
    codes = np.array([classes.index(name) for name in names])
    shares = _shares(scene, grid, polygons, codes, len(classes))
    best = shares.argmax(1)
    wanted = np.flatnonzero(shares.max(1) >= purity)
    if not len(wanted):
        raise InputError(
            f"no tile of {scene.source} is covered to {purity:.0%} by polygons of one class of {labels}; "
            "draw larger polygons or use smaller tiles (--tile-size)"
        )
    pixels, kept = [], []
    radiometry = fit_radiometry(scene, stretch=stretch)
    with TileReader(scene, grid, radiometry, out_size=out_size, tiles=wanted.tolist()) as reader:
        for tile in reader:
            if tile.valid_fraction >= min_valid:
                pixels.append(tile.pixels)
                kept.append(tile.tile.index)
    if not kept:
        raise InputError(f"the labelled tiles of {scene.source} have no data (--min-valid {min_valid:g})")
    log.info("%d of %d tiles are labelled", len(kept), len(shares))
    labelled = best[kept].astype(np.int64)
    return SceneImages(np.stack(pixels), labelled, tuple(f"tile {k}" for k in kept), classes, ((),) * len(kept))


def _read(labels: str | Path, field: str, scene: Scene) -> tuple[np.ndarray, list[str]]:
    """Valid polygons in the scene's CRS, and their class names."""
    import geopandas as gpd
    from pyogrio.errors import DataSourceError

    try:
        frame = gpd.read_file(labels)
    except (DataSourceError, OSError, ValueError) as error:
        raise InputError(f"{labels} cannot be read as labelled polygons: {error}") from error
    if field not in frame.columns:
        raise InputError(f"{labels} has no column {field!r}; there are {', '.join(c for c in frame.columns if c != 'geometry')}")
    if frame.crs is None:
        raise InputError(f"{labels} has no CRS; write it with one")
    frame = frame.to_crs(scene.crs)
    geometry = shapely.make_valid(np.asarray(frame.geometry))
    usable = frame[field].notna().to_numpy() & (shapely.area(geometry) > 0)
    if not usable.any():
        raise InputError(f"{labels} has no polygon with a class in column {field!r}")
    return geometry[usable], [str(name) for name in frame[field][usable]]


def _shares(scene: Scene, grid: TileGrid, polygons: np.ndarray, codes: np.ndarray, classes: int) -> np.ndarray:
    """Share of each tile's area covered by each class, float ``(tiles, classes)``; overlaps of one class count once."""
    corners = np.array(
        [
            (w.col, w.row, w.col + w.width, w.row + w.height)
            for w in (tile.window for tile in grid.tiles())
        ]
    )  # fmt: skip
    left, top, right, bottom = corners.T
    rings = np.stack([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], axis=1).T  # (tiles, 5, 2)
    across, down = rings[..., 0], rings[..., 1]
    a, b, c, d, e, f = tuple(scene.transform)[:6]
    tiles = shapely.polygons(np.stack([a * across + b * down + c, d * across + e * down + f], axis=-1))
    shares = np.zeros((len(tiles), classes))
    for code in np.unique(codes):
        merged = shapely.union_all(polygons[codes == code])
        shapely.prepare(merged)
        touched = np.flatnonzero(shapely.intersects(merged, tiles))
        shares[touched, code] = shapely.area(shapely.intersection(tiles[touched], merged)) / shapely.area(tiles[touched])
    return shares
