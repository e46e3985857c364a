"""Which pixels are valid, and reading pixels together with that.

The rules are those of rasterio's ``dataset_mask``, over the three bands used: an alpha band
decides, or else the dataset's own mask (internal or a ``.msk`` file), or else nodata, where a pixel
is invalid only if *every* band holds its nodata value (a band without a nodata value is valid
everywhere). A nodata value given by the user counts in addition to alpha and masks. NaN is nodata
in every floating-point raster, with or without a tag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window as RasterioWindow

from rssc_geo.geometry import Window


@dataclass(frozen=True, slots=True)
class Validity:
    """What makes pixels invalid on a handle.

    Parameters
    ----------
    nodata : the value of each of the three bands, all three or ``None``
    mask_band : 1-based band whose zeros are invalid (alpha)
    dataset_mask : whether the dataset has a mask of its own
    nan : whether NaN counts (floating point)
    """

    nodata: tuple[float, float, float] | None = None
    mask_band: int | None = None
    dataset_mask: bool = False
    nan: bool = False

    @property
    def always(self) -> bool:
        """Whether every pixel is valid by construction, so that no mask needs a look."""
        return (
            self.nodata is None
            and self.mask_band is None
            and not self.dataset_mask
            and not self.nan
        )

    def colors_valid(self, colors: np.ndarray) -> np.ndarray | None:
        """Mask (H, W) of pixels (H, W, 3) by nodata and NaN alone; ``None`` when all are valid."""
        if self.nodata is None and not self.nan:
            return None
        if not self._suspects(colors):
            return None
        valid = np.zeros(colors.shape[:2], dtype=bool)
        for band in range(3):
            values = colors[..., band]
            seen = np.ones(valid.shape, dtype=bool)
            if self.nodata is not None:
                seen &= ~_equals(values, self.nodata[band])
            if self.nan:
                seen &= ~np.isnan(values)
            valid |= seen
        return valid

    def _suspects(self, colors: np.ndarray) -> bool:
        # Nodata is mostly an extreme value, and the extremes cost little; most tiles end here.
        low, high = colors.min(), colors.max()
        if np.isnan(low):
            return True
        return self.nodata is not None and any(bool(low <= value <= high) for value in self.nodata)


def _equals(values: np.ndarray, nodata: float) -> np.ndarray:
    if np.isnan(nodata):
        return np.asarray(np.isnan(values))
    if values.dtype.kind == "f":
        # GDAL keeps nodata as a double and compares in the band's own precision.
        return np.asarray(values == values.dtype.type(nodata))
    if not holds(values.dtype, nodata):
        return np.zeros(values.shape, dtype=bool)
    return np.asarray(values == values.dtype.type(int(nodata)))


def holds(dtype: np.dtype, value: float) -> bool:
    """Whether pixels of the type can have the value."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


@dataclass(frozen=True, slots=True)
class PixelReader:
    """Reads windows of three bands and their mask from one handle (of one thread)."""

    dataset: rasterio.DatasetReader
    indexes: tuple[int, int, int]
    validity: Validity

    def read(
        self, window: Window, out_shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels (H, W, 3; a view of planes) at ``out_shape`` and their mask (H, W), ``None`` when
        all are valid.

        Reduced by averaging and enlarged bilinearly, on each axis by the larger change; copied at
        1:1. A reduced pixel is valid when any valid pixel went into it, since GDAL averages the
        valid ones alone.
        """
        region = RasterioWindow(window.col, window.row, window.width, window.height)
        resampling = choose_resampling((window.height, window.width), out_shape)
        bands = (
            self.indexes
            if self.validity.mask_band is None
            else (*self.indexes, self.validity.mask_band)
        )
        # Band by band, as GDAL's cache holds them and as the network wants them: interleaving would
        # cost as much again.
        planes = np.empty((len(bands), *out_shape), dtype=self.dataset.dtypes[self.indexes[0] - 1])
        self.dataset.read(bands, window=region, out=planes, resampling=resampling)
        colors = planes[:3].transpose(1, 2, 0)
        valid = self.validity.colors_valid(colors)
        if self.validity.mask_band is not None:
            valid = _both(valid, planes[3] > 0)
        if self.validity.dataset_mask:
            mask = self.dataset.read_masks(
                self.indexes[0], window=region, out_shape=out_shape, resampling=resampling
            )
            valid = _both(valid, mask > 0)
        return colors, None if valid is None or valid.all() else valid

    def valid_at_full_resolution(self, window: Window) -> np.ndarray:
        """The window's mask (H, W), pixel by pixel."""
        if self.validity.nodata is None and not self.validity.nan:
            region = RasterioWindow(window.col, window.row, window.width, window.height)
            if self.validity.mask_band is not None:
                return np.asarray(self.dataset.read(self.validity.mask_band, window=region) > 0)
            return np.asarray(self.dataset.read_masks(self.indexes[0], window=region) > 0)
        _, valid = self.read(window, (window.height, window.width))
        return np.ones((window.height, window.width), dtype=bool) if valid is None else valid


def choose_resampling(shape: tuple[int, int], out_shape: tuple[int, int]) -> Resampling:
    """Average when an axis is reduced, bilinear when enlarging, nearest (a plain copy) at 1:1."""
    if out_shape == shape:
        return Resampling.nearest
    if out_shape[0] < shape[0] or out_shape[1] < shape[1]:
        return Resampling.average
    return Resampling.bilinear


def _both(first: np.ndarray | None, second: np.ndarray) -> np.ndarray:
    return second if first is None else first & second
