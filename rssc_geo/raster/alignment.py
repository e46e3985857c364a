"""A scene on the grid and with the colors of another, so that two dates can be compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from rssc_geo.errors import InputError
from rssc_geo.raster.gdal import gdal_env, gdal_errors
from rssc_geo.raster.mask import find_mask_rule, is_measured
from rssc_geo.raster.radiometry import Radiometry, VeiledRadiometry, as_triple, sample_windows
from rssc_geo.raster.scene import Scene
from rssc_geo.raster.warping import Onto, Scale

_SAME_PLACE = 1e-3
"""Share of a pixel: grids that differ by less are the same."""

_BLOCK = 8
"""Pixels a side of blocks whose means are compared, which a shift by a pixel changes little."""

_ROUNDS = 10
_FAR = 2.5 * 1.4826
"""Multiple of the median distance: a block farther off than that has changed."""

_LEAST_FAR = 2.0
"""Of 255: a block nearer than that is unchanged."""

_MOST_GAIN = 3.0

_LEAST_PLACES = 64
"""Least number of blocks for fitting how gain and offset vary across a raster."""

_MOST_SLOPE = 1.0
"""Largest variation of the gain across the raster: half to one and a half times the middle's."""

_LEAST_VEIL = 1.0
"""Of 255: haze that changes nearly all values by less is not removed."""

_VEILED = 2 / 3
"""Share of the distances without correction: removing haze has to reduce them at least to that."""


def align_scene(scene: Scene, onto: Scene) -> Scene:
    """The scene, read through a virtual warp to the grid of another one; unchanged if on that grid.

    Cubic, averaged over what a pixel of the other covers where that is more. Nothing is written.

    Raises ``InputError`` where the two do not overlap, or the scene cannot be read.

    Examples
    --------
    >>> from rssc_geo import open_scene
    >>> from rssc_geo.raster import align_scene
    >>> scene = open_scene("scene.tif")
    >>> align_scene(scene, scene) is scene
    True
    """
    if not _overlap(scene, onto):
        raise InputError(f"{scene.source} does not overlap {onto.source}: give dates of one place")
    if _on_one_grid(scene, onto):
        return scene
    warp = Onto(
        onto.crs.to_wkt(),
        onto.transform,
        onto.height,
        onto.width,
        scene.opening.mask_rule,
        _scale(scene, onto),
    )
    opening = replace(scene.opening, onto=warp)
    with gdal_errors(scene.source), gdal_env(opening.dataset), opening.open() as handle:
        alpha = handle.count if warp.adds_alpha else scene.opening.mask_rule.mask_band
        rule = find_mask_rule(
            handle, opening.indexes, mask_band=alpha, nodata_beside_mask=not warp.adds_alpha
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
    """The scaling of a scene that matches its colors to those of another of the same area.

    One linear change of each band, so that mean and standard deviation of the unchanged blocks are
    those of the other (the reduced major axis; unchanged blocks and line are found by iteration).
    Where haze increases across the scene, gain and offset of the band also vary linearly with the
    place.

    ``scene`` is on the grid of ``like``; ``radiometry``, ``like_radiometry``: of each by itself.
    Raises ``InputError`` where they have no valid pixel in common, or one cannot be read.
    """
    own, other, places = _common_pixels(scene, like)
    if not len(own):
        raise InputError(
            f"{scene.source} and {like.source} have no valid pixel in common: nothing can be"
            " compared"
        )
    plain, veiled = [], []
    for band in range(3):
        x, y = (
            (values[:, band] - scaling.low[band])
            * (255 / ((scaling.high[band] - scaling.low[band]) or 1.0))
            for values, scaling in ((own, radiometry), (other, like_radiometry))
        )
        plain.append(_fit(x, y))
        veiled.append(_fit(x, y, places))
    # A real change on one side of the scene, such as fallen leaves, is no haze: correcting for it
    # would not bring the other blocks closer.
    closer = sum(fit.distance for fit in veiled) <= _VEILED * sum(fit.distance for fit in plain)
    is_veiled = closer and max(fit.veil for fit in veiled) >= _LEAST_VEIL
    lines = [fit.line for fit in (veiled if is_veiled else plain)]
    lows, highs = [], []
    for line, low, high in zip(lines, radiometry.low, radiometry.high, strict=True):
        wide = (high - low) or 1.0
        lows.append(float(low - line.offset / line.gain * wide / 255))
        highs.append(float(low + (255 - line.offset) / line.gain * wide / 255))
    found = Radiometry(as_triple(lows), as_triple(highs), f"matched to {like.name}")
    if not is_veiled:
        return found
    return VeiledRadiometry(
        found.low,
        found.high,
        found.method,
        shape=like.shape,
        gain=tuple(line.gains for line in lines),
        offset=tuple(line.offsets for line in lines),
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """The conversion of a band's values to those of another date.

    ``y = gain * x + offset``, then times ``1 + gains @ place`` and plus ``offsets @ place``, of
    places (row, column) from -1/2 to 1/2.
    """

    gain: float
    offset: float
    gains: tuple[float, float] = (0.0, 0.0)
    offsets: tuple[float, float] = (0.0, 0.0)

    def without_veil(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the values x (n,) become, but for the change by the place."""
        return self.gain * x + self.offset

    def residual(
        self, x: NDArray[np.float64], y: NDArray[np.float64], places: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """What is left of y (n,) without what x (n,) at these places (n, 2) becomes."""
        lit = self.without_veil(x)
        return np.asarray(y - lit * (1 + places @ self.gains) - places @ self.offsets)


@dataclass(frozen=True, slots=True)
class _Fit:
    """A line that was fitted.

    ``distance``: median residual of the values; ``veil``: largest change of nearly all values by
    the place.
    """

    line: _Line
    distance: float
    veil: float


def _fit(
    x: NDArray[np.float64], y: NDArray[np.float64], places: NDArray[np.float64] | None = None
) -> _Fit:
    """Fit y to x (n,), robustly: a line, with a linear change by places (n, 2) where given."""
    kept = np.ones(len(x), bool)
    line = _axis(x, y, kept)
    where = np.zeros((len(x), 2)) if places is None else places
    for _ in range(_ROUNDS):
        distance = np.abs(line.residual(x, y, where))
        near = distance <= max(_FAR * float(np.median(distance)), _LEAST_FAR)
        same, kept = bool((near == kept).all()), near
        gains, offsets = line.gains, line.offsets
        if places is not None:
            gains, offsets = _veil(line.without_veil(x[kept]), y[kept], where[kept])
        # The line of the values without the haze.
        clear = (y - where @ offsets) / (1 + where @ gains)
        line = replace(_axis(x, clear, kept), gains=gains, offsets=offsets)
        if same:
            break
    lit = line.without_veil(x[kept])
    strength = np.abs(lit * (where[kept] @ line.gains) + where[kept] @ line.offsets)
    distance = np.abs(line.residual(x, y, where))
    return _Fit(line, float(np.median(distance)), float(np.quantile(strength, 0.95)))


def _veil(
    lit: NDArray[np.float64], y: NDArray[np.float64], places: NDArray[np.float64]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ``gains`` and ``offsets`` by which values (n,) become y (n,) at places (n, 2).

    0 where there are too few places.
    """
    if len(y) < _LEAST_PLACES:
        return (0.0, 0.0), (0.0, 0.0)
    terms = np.concatenate([lit[:, None] * places, places], 1)
    found = np.linalg.lstsq(terms, y - lit, rcond=1e-3)[0]
    down, across = found[:2].clip(-_MOST_SLOPE, _MOST_SLOPE).tolist()
    add_down, add_across = found[2:].tolist()
    return (down, across), (add_down, add_across)


def _axis(x: NDArray[np.float64], y: NDArray[np.float64], kept: NDArray[np.bool_]) -> _Line:
    """The reduced major axis of the values that are kept."""
    spread = float(x[kept].std())
    gain = float(y[kept].std()) / spread if spread > 0 else 1.0
    gain = min(max(gain, 1 / _MOST_GAIN), _MOST_GAIN)
    return _Line(gain, float(y[kept].mean() - gain * x[kept].mean()))


def _on_one_grid(scene: Scene, onto: Scene) -> bool:
    if scene.shape != onto.shape or not scene.crs.equals(onto.crs, ignore_axis_order=True):
        return False
    offset = ~onto.transform @ scene.transform
    corners = [(0, 0), (scene.width, 0), (0, scene.height)]
    moved = [offset @ corner for corner in corners]
    return bool(np.allclose(moved, corners, rtol=0, atol=_SAME_PLACE))


def _scale(scene: Scene, onto: Scene) -> Scale | None:
    """How many pixels of ``onto`` a pixel of the scene covers along its columns and rows.

    In the middle of ``onto``; None where the scene's CRS has no place for it, or ends there.
    """
    col, row = onto.width / 2, onto.height / 2
    places = [onto.transform @ place for place in ((col, row), (col + 1, row), (col, row + 1))]
    to_scene = pyproj.Transformer.from_crs(onto.crs, scene.crs, always_xy=True)
    middle, right, below = (
        np.array(~scene.transform @ to_scene.transform(*place)) for place in places
    )
    with np.errstate(invalid="ignore"):  # of points without a place
        steps = np.stack([right - middle, below - middle], axis=1)
    covered = np.prod(scene.gsd_m) / np.prod(onto.gsd_m)
    if not np.isfinite(steps).all() or not 0.5 < abs(np.linalg.det(steps)) * covered < 2:
        return None
    across, down = np.linalg.norm(np.linalg.inv(steps), axis=0).tolist()
    return across, down


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


def _common_pixels(
    scene: Scene, like: Scene
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Means (n, 3) of both over blocks where all is valid, in windows spread over the raster.

    And the places of the blocks, (n, 2): row and column from -1/2 to 1/2. Where no block is wholly
    valid, as between stripes of nodata, means are of the pixels that are valid in both.
    """
    found: tuple[list[NDArray[Any]], ...] = ([], [], [])
    shares_found: list[NDArray[np.float64]] = []
    with like.pixel_reader() as there, scene.pixel_reader() as here:
        for window in sample_windows(like, there):
            shape = (window.height, window.width)
            colors, valid = here.read(window, shape)
            with gdal_errors(like.source):  # around all of this are those of ``scene``
                others, valid_there = there.read(window, shape)
            both = np.ones(shape, bool)
            for mask in (valid, valid_there):
                both &= True if mask is None else mask
            share = _means(both[..., None])
            some = share[:, 0] > 0
            rows, cols = np.meshgrid(
                (window.row + np.arange(window.height) + 0.5) / like.height - 0.5,
                (window.col + np.arange(window.width) + 0.5) / like.width - 0.5,
                indexing="ij",
            )
            for each, values in zip(
                found, (colors, others, np.stack([rows, cols], -1)), strict=True
            ):
                each.append(_means(np.where(both[..., None], values, 0))[some] / share[some])
            shares_found.append(share[some, 0])
    own, other, places = (np.concatenate(each) for each in found)
    whole = np.concatenate(shares_found) == 1
    kept = is_measured(own).all(1) & is_measured(other).all(1)
    if (kept & whole).any():
        kept &= whole
    return own[kept], other[kept], places[kept]


def _means(values: NDArray[Any]) -> NDArray[np.float64]:
    """Means (n, bands) of the blocks of values (H, W, bands), of the whole where it is smaller."""
    sides = [min(_BLOCK, length) for length in values.shape[:2]]
    rows, cols = (length // side for length, side in zip(values.shape[:2], sides, strict=True))
    cut = values[: rows * sides[0], : cols * sides[1]].astype(np.float64)
    blocks = cut.reshape(rows, sides[0], cols, sides[1], -1).mean((1, 3))
    return np.asarray(blocks.reshape(rows * cols, -1))
