"""Validity of pixels, and reading pixels together with their mask.

An alpha band, the dataset's own mask (internal or a ``.msk`` file) and nodata count, together where
there are several. By nodata a pixel is invalid only if *every* band of the three used holds its
nodata value (a band without a nodata value is valid everywhere); a value given by the user takes
the place of the dataset's. NaN, infinities and what is beyond any measured value (``FILL``) are
nodata in every floating-point raster, with or without a tag. In masks True is valid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Interleaving, MaskFlags, Resampling
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_raster
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from rssc_geo.geometry import Window
from rssc_geo.raster.bands import alpha_band

_EXACT = 2**53
"""From here on a float does not hold every whole number."""

FILL = 1e18
"""From here on numbers of floating-point rasters are fill values, of either sign.

3.4e38, the largest of float32, is what many programs fill with (ArcGIS, R), 9.97e36 is netCDF's.
"""

_NOT_ASKED, _MISSING, _STORED = range(3)


@dataclass(frozen=True, slots=True)
class MaskRule:
    """The rule by which pixels of a handle are invalid.

    Attributes
    ----------
    nodata : the value of each of the three bands, all three or None
    mask_band : 1-based band whose zeros are invalid (alpha)
    dataset_mask : whether the dataset has a mask of its own
    nan : whether NaN, infinities and fill values count (floating point)
    copied : whether nodata is looked for in copied pixels, not in averages: where a mask decides,
        GDAL changes averages that equal the file's own nodata value
    sparse_bands : 1-based bands of a GeoTIFF of which a block that none of them stores is invalid
        everywhere; empty where nothing is known of blocks that are not stored
    """

    nodata: tuple[float, float, float] | None = None
    mask_band: int | None = None
    dataset_mask: bool = False
    nan: bool = False
    copied: bool = False
    sparse_bands: tuple[int, ...] = ()

    def colors_valid(
        self, colors: NDArray[Any], *, resampled: bool = False
    ) -> NDArray[np.bool_] | None:
        """Mask (H, W) of pixels (H, W, 3) by its own values alone; None when all are valid.

        ``resampled``: by GDAL, which rounds whole numbers of 64 bits then.
        """
        if self.nodata is None and not self.nan:
            return None
        rounded = resampled and colors.dtype.kind in "iu" and colors.dtype.itemsize == 8
        if not rounded and not self._suspects(colors):
            return None
        valid = np.zeros(colors.shape[:2], dtype=bool)
        for band in range(3):
            values = colors[..., band]
            band_valid = np.ones(valid.shape, dtype=bool)
            if self.nodata is not None:
                same = _equals_rounded if rounded else _equals
                band_valid &= ~same(values, self.nodata[band])
            if self.nan:
                band_valid &= is_measured(values)
            valid |= band_valid
        return valid

    def fill_of(self, colors: NDArray[Any]) -> float | None:
        """A fill value among pixels (H, W, 3) of floating point that is not the nodata value."""
        known = [held(colors.dtype, value) for value in self.nodata or ()]
        far = colors[np.isfinite(colors) & ~is_measured(colors)]
        far = far[~np.isin(far, known)]
        return float(far[0]) if len(far) else None

    def _suspects(self, colors: NDArray[Any]) -> bool:
        # Nodata is mostly an extreme value, and minimum and maximum are cheap; most tiles end here.
        low, high = colors.min(), colors.max()
        if self.nan and not (low > -FILL and high < FILL):  # NaN, too
            return True
        return self.nodata is not None and any(bool(low <= value <= high) for value in self.nodata)


def is_measured(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values of a floating-point raster are neither NaN, nor infinite, nor a fill value."""
    return np.asarray(np.abs(values) < FILL)


def find_mask_rule(
    handle: rasterio.DatasetReader,
    indexes: tuple[int, int, int],
    *,
    mask_band: int | None,
    nodata_beside_mask: bool,
    copied: bool = False,
) -> MaskRule:
    """Find the rule by which pixels of an open dataset are invalid.

    Parameters
    ----------
    indexes : the 1-based bands read as red, green, blue
    mask_band : band of a virtual raster that holds its file's mask, where it has one
    nodata_beside_mask : whether nodata counts although GDAL passes over it, for alpha or
        ``mask_band``
    copied : as of ``MaskRule``
    """
    flags = handle.mask_flag_enums[indexes[0] - 1]
    alpha = alpha_band(handle) if mask_band is None else mask_band
    dataset_mask = alpha is None and MaskFlags.per_dataset in flags
    tagged = nodata_values(handle)
    values = [tagged[index - 1] for index in indexes]
    by_value = nodata_beside_mask or MaskFlags.nodata in flags
    nodata = None
    dtypes = [np.dtype(handle.dtypes[index - 1]) for index in indexes]
    if by_value and not dataset_mask and can_all_hold(dtypes, values):
        red, green, blue = (value for value in values if value is not None)
        nodata = red, green, blue
    nan = dtypes[0].kind == "f"
    sparse: tuple[int, ...] = ()
    # GDAL fills a block that a sparse GeoTIFF leaves out with nodata, or 0.
    if handle.driver == "GTiff" and not dataset_mask:
        if nodata is not None:
            by_band = handle.interleaving is Interleaving.band
            sparse = tuple(dict.fromkeys(indexes)) if by_band else indexes[:1]
        elif alpha is not None and tagged[alpha - 1] in (None, 0):
            sparse = (alpha,)
    return MaskRule(nodata, alpha, dataset_mask, nan, copied and nodata is not None, sparse)


def nodata_values(dataset: rasterio.DatasetReader) -> tuple[float | None, ...]:
    """The nodata value of each band by its tag; a whole number where a float would round it.

    Of integers of 64 bits rasterio tells floats, and none for 2^64 - 1.
    """
    values = list(dataset.nodatavals)
    rounded = [
        place
        for place, (value, dtype, flags) in enumerate(
            zip(values, dataset.dtypes, dataset.mask_flag_enums, strict=True)
        )
        if dtype in ("int64", "uint64")
        and (MaskFlags.nodata in flags if value is None else abs(value) >= _EXACT)
    ]
    if rounded:
        with MemoryFile(ext=".vrt") as file:
            copy_raster(dataset, file.name, driver="VRT")
            # GDAL wrote this text: it declares no entities.
            bands = ET.fromstring(file.read()).findall("VRTRasterBand")  # noqa: S314
        for place in rounded:
            text = bands[place].findtext("NoDataValue", "")
            # Of a virtual warp, which rounds the pixels, too, GDAL writes a float.
            values[place] = int(text) if text.lstrip("-").isdecimal() else int(float(text))
    return tuple(values)


def number_text(value: float) -> str:
    """A nodata value for messages: a whole number in full."""
    whole = math.isfinite(value) and value == int(value) and abs(value) <= 2**64
    return str(int(value)) if whole else f"{value:g}"


def can_hold(dtype: np.dtype[Any], value: float) -> bool:
    """Whether pixels of the type can have the value; a float as its own digits print it."""
    as_held = held(dtype, value)
    if dtype.kind == "f":
        return math.isfinite(as_held) or not math.isfinite(value)
    limits = np.iinfo(dtype)
    return (
        math.isfinite(as_held) and as_held == int(as_held) and limits.min <= as_held <= limits.max
    )


def can_all_hold(dtypes: Sequence[np.dtype[Any]], values: Sequence[float | None]) -> bool:
    """Whether each band has a nodata value, and one that its pixels can have."""
    return all(
        value is not None and can_hold(dtype, value)
        for value, dtype in zip(values, dtypes, strict=True)
    )


def held(dtype: np.dtype[Any], value: float) -> float:
    """The value as pixels of the type hold it.

    -3.4028235e+38 is the lowest of float32, 1.8446744073709552e+19 the highest of uint64.
    """
    if dtype.kind != "f":
        highest = int(np.iinfo(dtype).max)
        return highest if value == float(highest) else value
    with np.errstate(over="ignore"):
        return float(dtype.type(value))


def held_nodata(dtype: np.dtype[Any], value: float | None) -> float | None:
    """A nodata value by its tag as pixels of the type hold it; None where they cannot."""
    return held(dtype, value) if value is not None and can_hold(dtype, value) else None


def _equals(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    if np.isnan(nodata):
        return np.asarray(np.isnan(values))
    if values.dtype.kind == "f":
        # GDAL keeps nodata as a double and compares in the band's own precision.
        return np.asarray(values == held(values.dtype, nodata))
    if not can_hold(values.dtype, nodata):
        return np.zeros(values.shape, dtype=bool)
    return np.asarray(values == values.dtype.type(int(held(values.dtype, nodata))))


def _equals_rounded(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Of whole numbers of 64 bits that GDAL has resampled in double precision."""
    same = values.astype(np.float64) == float(nodata)
    if float(nodata) >= 2.0**64:  # which overflows
        same |= values == 0
    return np.asarray(same)


class PixelReader:
    """Reads windows of three bands and their mask from one handle (of one thread)."""

    def __init__(
        self, dataset: rasterio.DatasetReader, indexes: tuple[int, int, int], rule: MaskRule
    ) -> None:
        self._dataset, self._indexes, self._rule = dataset, indexes, rule
        self.fill: float | None = None
        """A fill value that was met and that is not the nodata value in force."""
        self._sparse = _SparseBlocks(dataset, rule.sparse_bands)

    def read(
        self, window: Window, out_shape: tuple[int, int]
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read the pixels of a window, reduced or enlarged, and their mask.

        Reduced by averaging and enlarged bilinearly, on each axis by the larger change; copied at
        1:1. A reduced pixel is valid when any valid pixel went into it, since GDAL averages the
        valid ones alone.

        Parameters
        ----------
        out_shape : (rows, columns) H, W of the result

        Returns pixels (H, W, 3) of the raster's type, a view of planes (3, H, W), and the mask
        bool (H, W), None when all are valid. Raises rasterio's errors.
        """
        region = _region(window)
        resampling = _choose_resampling((window.height, window.width), out_shape)
        bands: tuple[int, ...] = self._indexes
        if self._rule.mask_band is not None:
            bands = (*bands, self._rule.mask_band)
        # Band by band, as in GDAL's cache and in the network's input: interleaving would cost as
        # much again.
        dtype = self._dataset.dtypes[self._indexes[0] - 1]
        planes = np.empty((len(bands), *out_shape), dtype=dtype)
        self._dataset.read(bands, window=region, out=planes, resampling=resampling)
        colors = planes[:3].transpose(1, 2, 0)
        resampled = resampling is not Resampling.nearest or isinstance(self._dataset, WarpedVRT)
        valid = self._rule.colors_valid(colors, resampled=resampled)
        if valid is not None and self._rule.nan and self.fill is None:
            self.fill = self._rule.fill_of(colors)
        if self._rule.copied and resampling is not Resampling.nearest:
            copied = self._dataset.read(self._indexes, window=region, out_shape=(3, *out_shape))
            by_value = self._rule.colors_valid(copied.transpose(1, 2, 0))
            valid = valid if by_value is None else _both(valid, by_value)
        if self._rule.mask_band is not None:
            valid = _both(valid, planes[3] > 0)
        if self._rule.dataset_mask:
            mask = self._dataset.read_masks(
                self._indexes[0], window=region, out_shape=out_shape, resampling=resampling
            )
            valid = _both(valid, mask > 0)
        return colors, None if valid is None or valid.all() else valid

    def valid_at_full_resolution(self, window: Window) -> NDArray[np.bool_]:
        """The window's mask (H, W), pixel by pixel."""
        if self._rule.nodata is None and not self._rule.nan:
            region = _region(window)
            if self._rule.mask_band is not None:
                return np.asarray(self._dataset.read(self._rule.mask_band, window=region) > 0)
            return np.asarray(self._dataset.read_masks(self._indexes[0], window=region) > 0)
        _, valid = self.read(window, (window.height, window.width))
        return np.ones((window.height, window.width), dtype=bool) if valid is None else valid

    def is_missing(self, window: Window) -> bool:
        """Whether the window is known to be invalid everywhere, as a sparse file stores none of it.

        False where that is not known.
        """
        return self._sparse.are_missing(window)


class _SparseBlocks:
    """Finds windows that lie wholly in blocks that a sparse GeoTIFF does not store.

    A sparse raster of 100,000 × 100,000 pixels has some 150,000 tiles of 256 pixels; asking the
    file's own index costs microseconds where reading a window costs half a millisecond.
    """

    def __init__(self, handle: rasterio.DatasetReader, bands: tuple[int, ...]) -> None:
        self._handle, self._bands = handle, bands
        if bands:
            self._block_rows, self._block_cols = handle.block_shapes[bands[0] - 1]
            self._blocks_across = -(-handle.width // self._block_cols)
            # One byte a block: not asked yet, missing, stored.
            self._known = bytearray(-(-handle.height // self._block_rows) * self._blocks_across)

    def are_missing(self, window: Window) -> bool:
        if not self._bands:
            return False
        last_row, last_col = window.row + window.height - 1, window.col + window.width - 1
        rows = range(window.row // self._block_rows, last_row // self._block_rows + 1)
        cols = range(window.col // self._block_cols, last_col // self._block_cols + 1)
        return all(self._block_is_missing(row, col) for row in rows for col in cols)

    def _block_is_missing(self, row: int, col: int) -> bool:
        place = row * self._blocks_across + col
        if self._known[place] == _NOT_ASKED:
            name = f"BLOCK_OFFSET_{col}_{row}"
            stored = any(
                self._handle.get_tag_item(name, "TIFF", bidx=band) is not None
                for band in self._bands
            )
            self._known[place] = _STORED if stored else _MISSING
        return bool(self._known[place] == _MISSING)


def _region(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col, window.row, window.width, window.height)


def _choose_resampling(shape: tuple[int, int], out_shape: tuple[int, int]) -> Resampling:
    """Average when an axis is reduced, bilinear when enlarging, nearest (a plain copy) at 1:1."""
    if out_shape == shape:
        return Resampling.nearest
    if out_shape[0] < shape[0] or out_shape[1] < shape[1]:
        return Resampling.average
    return Resampling.bilinear


def _both(first: NDArray[np.bool_] | None, second: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return second if first is None else first & second
