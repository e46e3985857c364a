"""Labeled pictures from a raster: what polygons say about the tiles that a model would look at."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from rssc_geo.errors import InputError
from rssc_geo.geometry import TileGrid
from rssc_geo.raster import Scene, TileReader, fit_radiometry
from rssc_geo.training.data import SceneImages
from rssc_geo.training.few_shot.labels import class_shares, read_labels, tiles_over

log = logging.getLogger(__name__)

PURITY = 0.6


def labeled_tiles(
    scene: Scene,
    grid: TileGrid,
    labels: str | Path,
    *,
    field: str,
    out_size: tuple[int, int],
    purity: float = PURITY,
    min_valid: float = 0.5,
    stretch: str | None = None,
) -> SceneImages:
    """The tiles of which polygons of one class cover at least ``purity``, as pictures with that
    class.

    ``labels``, ``field``: as for :func:`read_labels`. Raises ``InputError`` when the file or column
    is not there, or no tile is covered enough.
    """
    found = read_labels(labels, scene, field=field)
    near = [tiles_over(grid, tuple(area.bounds)) for area in found.areas]
    tiles, first = np.unique(np.concatenate([indices for indices, _ in near]), return_index=True)
    shares = class_shares(np.concatenate([boxes for _, boxes in near])[first], found)
    wanted = shares.max(1) >= purity
    if not wanted.any():
        raise InputError(
            f"no tile of {scene.source} is covered to {purity:.0%} by polygons of one class of"
            f" {labels}; draw larger polygons or use smaller tiles (--tile-size)"
        )
    pixels, valid = read_tiles(scene, grid, tiles[wanted], out_size=out_size, stretch=stretch)
    kept = valid >= min_valid
    if not kept.any():
        raise InputError(
            f"the labeled tiles of {scene.source} have no data (--min-valid {min_valid:g})"
        )
    log.info("%d tiles are labeled", kept.sum())
    names = tuple(f"tile {index}" for index in tiles[wanted][kept].tolist())
    return SceneImages(
        pixels[kept], shares[wanted][kept].argmax(1), names, found.classes, ((),) * len(names)
    )


def read_tiles(
    scene: Scene,
    grid: TileGrid,
    tiles: np.ndarray,
    *,
    out_size: tuple[int, int],
    stretch: str | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 ``(K, H, W, 3)`` of the tiles with these indices, as a model would see them, and their valid shares."""
    radiometry = fit_radiometry(scene, stretch=stretch)
    with TileReader(scene, grid, radiometry, out_size=out_size, tiles=tiles.tolist()) as reader:
        read = list(reader)
    return np.stack([tile.pixels for tile in read]), np.array(
        [tile.valid_fraction for tile in read]
    )
