"""A scene on the grid and in the light of another: what two dates need to be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rssc_geo.errors import InputError
from rssc_geo.raster.mask import find_mask_rule
from rssc_geo.raster.opening import Onto, gdal_env, gdal_errors
from rssc_geo.raster.radiometry import Radiometry, sample_windows
from rssc_geo.raster.scene import Scene

_SAME_PLACE = 1e-3
"""Of a pixel: grids that differ by less are one."""

_QUANTILES = (10, 50, 90)
_MOST_GAIN = 3.0
_SAMPLE_STEP = 2
"""Every so many pixels of the sampled windows, along both axes."""


def align_scene(scene: Scene, onto: Scene) -> Scene:
    """The scene read through a virtual warp to the grid of another one; itself where it is on it.

    Cubic, averaged over what a pixel of the other covers where that is more. Nothing is written.

    Raises ``InputError`` where the two have no ground in common, or the scene cannot be read.

    Examples
    --------
    >>> from rssc_geo import open_scene
    >>> from rssc_geo.raster import align_scene
    >>> scene = open_scene("scene.tif")
    >>> align_scene(scene, scene) is scene
    True
    """
    if not _overlap(scene, onto):
        raise InputError(
            f"{scene.source} shows nothing of what {onto.source} shows: give dates of one place"
        )
    if _on_one_grid(scene, onto):
        return scene
    warp = Onto(onto.crs.to_wkt(), onto.transform, onto.height, onto.width, scene.opening.mask_rule)
    opening = replace(scene.opening, onto=warp)
    with gdal_errors(scene.source), gdal_env(opening.dataset), opening.open() as handle:
        alpha = handle.count if warp.adds_alpha else scene.opening.mask_rule.mask_band
        rule = find_mask_rule(
            handle, opening.indexes, mask_band=alpha, nodata_beside_alpha=not warp.adds_alpha
        )
        opening = replace(
            opening,
            mask_rule=rule,
            overviews=(),
            block_shape=handle.block_shapes[opening.indexes[0] - 1],
        )
    return replace(
        scene,
        height=onto.height,
        width=onto.width,
        transform=onto.transform,
        crs=onto.crs,
        gsd_m=onto.gsd_m,
        overviews=(),
        opening=opening,
    )


def harmonize(
    scene: Scene, radiometry: Radiometry, like: Scene, like_radiometry: Radiometry
) -> Radiometry:
    """The scaling of a scene that makes it look as another of the same ground does.

    One linear change of each band, so that the median and the spread between the 10th and the 90th
    percentile of the pixels that both have are those of the other. Quantiles do not mind what has
    changed in less than a tenth of the ground, nor where exactly a pixel lies.

    ``scene`` lies on the grid of ``like``; ``radiometry``, ``like_radiometry``: of each by itself.
    Raises ``InputError`` where they have no valid pixel in common, or one cannot be read.
    """
    own, other = _common_pixels(scene, like)
    if not len(own):
        raise InputError(
            f"{scene.source} and {like.source} have no valid pixel in common: nothing can be"
            " compared"
        )
    lows, highs = [], []
    for band in range(3):
        low, high = radiometry.low[band], radiometry.high[band]
        wide = (high - low) or 1.0
        here = np.percentile((own[:, band] - low) * (255 / wide), _QUANTILES)
        low_there, high_there = like_radiometry.low[band], like_radiometry.high[band]
        scale = 255 / ((high_there - low_there) or 1.0)
        there = np.percentile((other[:, band] - low_there) * scale, _QUANTILES)
        spread = here[2] - here[0]
        gain = (there[2] - there[0]) / spread if spread > 0 else 1.0
        gain = float(np.clip(gain, 1 / _MOST_GAIN, _MOST_GAIN))
        lows.append(float(low + (here[1] - there[1] / gain) * wide / 255))
        highs.append(float(low + (here[1] + (255 - there[1]) / gain) * wide / 255))
    return Radiometry(
        (lows[0], lows[1], lows[2]),
        (highs[0], highs[1], highs[2]),
        f"harmonized with {like.name}",
    )


def _on_one_grid(scene: Scene, onto: Scene) -> bool:
    if scene.shape != onto.shape or not scene.crs.equals(onto.crs, ignore_axis_order=True):
        return False
    offset = ~onto.transform @ scene.transform
    corners = [(0, 0), (scene.width, 0), (0, scene.height)]
    moved = [offset @ corner for corner in corners]
    return bool(np.allclose(moved, corners, rtol=0, atol=_SAME_PLACE))


def _overlap(scene: Scene, onto: Scene) -> bool:
    """Whether the rasters' outlines meet in longitude and latitude."""
    return bool(shapely.intersects(_outline(scene), _outline(onto)))


def _outline(scene: Scene) -> shapely.Geometry:
    west, south, east, north = scene.bounds_lonlat()
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union(
        shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)
    )


def _common_pixels(scene: Scene, like: Scene) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values (n, 3) of both at places where both are valid, from windows spread over the raster."""
    found: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
    step = np.s_[::_SAMPLE_STEP, ::_SAMPLE_STEP]
    with like.pixel_reader() as there, scene.pixel_reader() as here:
        for window in sample_windows(like, there):
            shape = (window.height, window.width)
            colors, valid = here.read(window, shape)
            others, valid_there = there.read(window, shape)
            both = np.ones(shape, bool)
            for mask in (valid, valid_there):
                both &= True if mask is None else mask
            for each, values in zip(found, (colors, others), strict=True):
                each.append(values[step][both[step]].astype(np.float64))
    own, other = (np.concatenate(each) for each in found)
    finite = np.isfinite(own).all(1) & np.isfinite(other).all(1)
    return own[finite], other[finite]
