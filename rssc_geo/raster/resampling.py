"""Resampling with the same result at a place for every window that is read: no I/O.

GDAL can resample while it reads, but interpolates at the edge of a window without the pixels
beyond, and scales a window that is no whole number of result pixels as a whole. Blocks that share
pixels must agree on them, so their pixels are weighted by their place on the raster alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STRIP = 128
"""Result rows that are made at once."""

_LEAST = 1e-6
"""Share of a result pixel below which a source pixel, or what is valid of it, does not count."""


@dataclass(frozen=True, slots=True)
class Taps:
    """Which source pixels make each result pixel along one axis.

    Attributes
    ----------
    places : int64 ``(N, K)``, source pixels, counted from the raster's origin
    weights : float32 ``(N, K)``, rows summing to 1
    """

    places: NDArray[np.int64]
    weights: NDArray[np.float32]

    @property
    def span(self) -> tuple[int, int]:
        """First source pixel, and the one after the last."""
        used = self.places[self.weights > 0]
        return int(used.min()), int(used.max()) + 1


def taps(start: int, stop: int, *, scale: float, length: int) -> Taps:
    """Taps of the result pixels ``[start, stop)`` of an axis.

    Parameters
    ----------
    start, stop : result pixels, counted from the raster's origin; their centers lie on the raster
    scale : source pixels of a result pixel. From 1 up the source is averaged over the result
        pixel's extent, below it is interpolated linearly between pixel centers
    length : source pixels of the axis; beyond there are none

    Examples
    --------
    >>> found = taps(1, 3, scale=1.5, length=6)
    >>> found.places.tolist(), (3 * found.weights).round().tolist()
    ([[1, 2, 1], [3, 4, 3]], [[1.0, 2.0, 0.0], [2.0, 1.0, 0.0]])
    """
    place = np.arange(start, stop, dtype=np.float64)
    if scale >= 1:
        low, high = place * scale, (place + 1) * scale
        first = np.floor(low + 1e-9).astype(np.int64)
        count = int(np.ceil(scale - 1e-9)) + 1
        places = first[:, None] + np.arange(count)
        weights = np.minimum(high[:, None], places + 1) - np.maximum(low[:, None], places)
    else:
        center = np.clip((place + 0.5) * scale - 0.5, 0, length - 1)
        first = np.floor(center).astype(np.int64)
        places = np.stack([first, first + 1], axis=1)
        weights = np.stack([1 - (center - first), center - first], axis=1)
    weights = np.where(places < length, np.maximum(weights, 0), 0)
    weights[weights < _LEAST] = 0
    places = np.where(weights > 0, places, places[:, :1])
    return Taps(places, (weights / weights.sum(1, keepdims=True)).astype(np.float32))


def resampled(
    colors: NDArray[np.uint8],
    valid: NDArray[np.bool_] | None,
    rows: Taps,
    cols: Taps,
    *,
    origin: tuple[int, int],
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Weigh source pixels, of the invalid ones none, and round.

    Parameters
    ----------
    colors : ``(H, W, 3)``
    valid : bool ``(H, W)``, True = valid; None: all are
    rows, cols : taps of N rows and M columns
    origin : (row, column) on the raster of ``colors[0, 0]``

    Returns uint8 ``(N, M, 3)``, 0 where no valid pixel was weighed, and bool ``(N, M)``, where one
    was; None: everywhere.
    """
    shape = len(rows.places), len(cols.places)
    found = np.empty((colors.shape[2], *shape), np.uint8)
    seen = None if valid is None else np.empty(shape, bool)
    # By bands and strips: a block of a fine map has some four million pixels, floats four bytes.
    for start in range(0, shape[0], _STRIP):
        part = slice(start, start + _STRIP)
        strip = Taps(rows.places[part], rows.weights[part])
        top, bottom = max(origin[0], int(strip.places.min())), int(strip.places.max()) + 1
        source = slice(top - origin[0], bottom - origin[0])
        axes = strip, cols, (top, origin[1])
        inside = share = None
        if valid is not None and seen is not None:
            inside = valid[source]
            share = _weighed(inside.astype(np.float32), *axes)
            seen[part] = share > _LEAST
            np.maximum(share, _LEAST, out=share)
        for band in range(colors.shape[2]):
            values = colors[source, :, band].astype(np.float32)
            if inside is not None:
                values *= inside
            weighed = _weighed(values, *axes)
            if share is not None and seen is not None:
                weighed /= share
                weighed *= seen[part]
            np.rint(weighed, out=found[band, part], casting="unsafe")
    return found.transpose(1, 2, 0), seen


def _weighed(
    plane: NDArray[np.float32], rows: Taps, cols: Taps, origin: tuple[int, int]
) -> NDArray[np.float32]:
    """Weighted pixels (N, M) of a band (H, W)."""
    for axis, along in enumerate((rows, cols)):
        places = along.places - origin[axis]
        shape = (-1, 1) if axis == 0 else (-1,)
        total = plane.take(places[:, 0], axis) * along.weights[:, 0].reshape(shape)
        for tap in range(1, places.shape[1]):
            weight = along.weights[:, tap]
            if weight.any():
                total += plane.take(places[:, tap], axis) * weight.reshape(shape)
        plane = total
    return plane
