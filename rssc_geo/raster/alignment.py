"""A scene on the grid and in the light of another: what two dates need to be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rssc_geo.errors import InputError
from rssc_geo.raster.mask import find_mask_rule
from rssc_geo.raster.opening import gdal_env, gdal_errors
from rssc_geo.raster.radiometry import Radiometry, sample_windows
from rssc_geo.raster.scene import Scene
from rssc_geo.raster.warping import Onto

_SAME_PLACE = 1e-3
"""Of a pixel: grids that differ by less are one."""

_BLOCK = 8
"""Pixels a side whose means are compared: what a shift of a pixel changes little."""

_ROUNDS = 10
_FAR = 2.5 * 1.4826
"""Of the median of the distances: a place farther off than that many has changed."""

_LEAST_FAR = 2.0
"""Of 255: what is nearer than that never has."""

_MOST_GAIN = 3.0


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

    One linear change of each band, so that mean and standard deviation of the places that did not
    change are those of the other (the reduced major axis; which they are is found by turns).

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
        low_there, high_there = like_radiometry.low[band], like_radiometry.high[band]
        gain, offset = _line(
            (own[:, band] - low) * (255 / wide),
            (other[:, band] - low_there) * (255 / ((high_there - low_there) or 1.0)),
        )
        lows.append(float(low - offset / gain * wide / 255))
        highs.append(float(low + (255 - offset) / gain * wide / 255))
    return Radiometry(
        (lows[0], lows[1], lows[2]),
        (highs[0], highs[1], highs[2]),
        f"harmonized with {like.name}",
    )


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Gain and offset that turn most of x into y: the reduced major axis of what lies near it."""
    kept = np.ones(len(x), bool)
    line = _axis(x, y, kept)
    for _ in range(_ROUNDS):
        distance = np.abs(y - line[0] * x - line[1])
        near = distance <= max(_FAR * float(np.median(distance)), _LEAST_FAR)
        if (near == kept).all():
            break
        kept, line = near, _axis(x, y, near)
    return line


def _axis(
    x: NDArray[np.float64], y: NDArray[np.float64], kept: NDArray[np.bool_]
) -> tuple[float, float]:
    spread = float(x[kept].std())
    gain = float(y[kept].std()) / spread if spread > 0 else 1.0
    gain = min(max(gain, 1 / _MOST_GAIN), _MOST_GAIN)
    return gain, float(y[kept].mean() - gain * x[kept].mean())


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
    """Means (n, 3) of both over places where all is valid, in windows spread over the raster."""
    found: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
    with like.pixel_reader() as there, scene.pixel_reader() as here:
        for window in sample_windows(like, there):
            shape = (window.height, window.width)
            colors, valid = here.read(window, shape)
            others, valid_there = there.read(window, shape)
            both = np.ones(shape, bool)
            for mask in (valid, valid_there):
                both &= True if mask is None else mask
            whole = _means(both[..., None])[:, 0] == 1
            for each, values in zip(found, (colors, others), strict=True):
                each.append(_means(values)[whole])
    own, other = (np.concatenate(each) for each in found)
    finite = np.isfinite(own).all(1) & np.isfinite(other).all(1)
    return own[finite], other[finite]


def _means(values: NDArray[Any]) -> NDArray[np.float64]:
    """Means (n, bands) of the blocks of values (H, W, bands), of the whole where it is smaller."""
    sides = [min(_BLOCK, length) for length in values.shape[:2]]
    rows, cols = (length // side for length, side in zip(values.shape[:2], sides, strict=True))
    cut = values[: rows * sides[0], : cols * sides[1]].astype(np.float64)
    blocks = cut.reshape(rows, sides[0], cols, sides[1], -1).mean((1, 3))
    return np.asarray(blocks.reshape(rows * cols, -1))
