"""Opening of a source: as it is, as a virtual raster (VRT), or warped virtually.

Palettes and a nodata value that the file does not carry become a VRT (XML text, nothing is
written); rasters placed by ground control points or RPCs alone are warped virtually.
:func:`open_source` opens a file once and reads all properties; an :class:`Opening` holds text and
numbers, from which any thread or process opens the same again. Several files as one raster:
``separate.py``.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from affine import Affine
from rasterio.enums import Interleaving, MaskFlags, WktVersion
from rasterio.vrt import WarpedVRT

from rssc_geo.errors import GeoreferenceError, InputError, UsageError
from rssc_geo.raster.bands import BandChoice, alpha_band, choose_bands, is_paletted
from rssc_geo.raster.gaps import with_mask_of_gaps
from rssc_geo.raster.gdal import (
    check_beside,
    check_path,
    gdal_env,
    gdal_errors,
    gdal_name,
    unplaced_is_silent,
)
from rssc_geo.raster.mask import (
    MaskRule,
    can_all_hold,
    can_hold,
    find_mask_rule,
    held_nodata,
    nodata_values,
    number_text,
)
from rssc_geo.raster.virtual import (
    NO_OVERVIEWS,
    VRT_TYPES,
    VrtBand,
    VrtSource,
    check_sources,
    dtype_of,
    files_of,
    vrt_text,
)
from rssc_geo.raster.warping import Onto, Warp, warp_of

Scales = tuple[tuple[float, float], ...]
UNSCALED: Scales = ((1.0, 0.0),) * 3


@dataclass(frozen=True, slots=True)
class Opening:
    """Everything needed to open a raster repeatedly and read its three bands.

    Attributes
    ----------
    dataset : a path, URL or VRT text
    label : the source's name in messages
    warp : the virtual warp on top of it, if any
    indexes : 1-based bands of the handle to read as red, green, blue
    mask_rule : what makes a pixel of the handle invalid
    overviews : available reduction factors
    block_shape : (rows, columns) of a block as it is stored
    pixel_bytes : bytes of a pixel in GDAL's block cache
    onto : the grid of another raster on which it is read, if any
    """

    dataset: str
    label: str
    warp: Warp | None
    indexes: tuple[int, int, int]
    mask_rule: MaskRule
    overviews: tuple[int, ...]
    block_shape: tuple[int, int]
    pixel_bytes: int
    onto: Onto | None = None

    def open(self) -> rasterio.DatasetReader | WarpedVRT:
        """A new handle, to be used by one thread and closed by it, with all that is under a warp.

        Raises ``InputError`` when it cannot be opened.
        """
        with gdal_errors(self.label), gdal_env(self.dataset):
            handle = rasterio.open(self.dataset)
            try:
                for warp in (self.warp, self.onto):
                    handle = handle if warp is None else warp.over(handle)
            except BaseException:
                handle.close()
                raise
            return handle


@dataclass(frozen=True, slots=True)
class Source:
    """Properties of a raster, read from the open dataset.

    Attributes
    ----------
    opening : how to open it again
    name : a short title
    files : paths of the files that it consists of, as far as GDAL lists them
    shape, transform : (rows, columns), affine from (column, row) to the CRS
    crs : the raster's own, None where it has none
    bands : the source bands taken as red, green, blue
    dtype : numpy name of the pixels' type
    nodata, mask : the nodata value in force, and in words what makes a pixel invalid
    scales : (scale, offset) of each band used, by its tags
    bits : of a pixel, where the tags of a file of bytes declare fewer than 8
    palette : whether the pixels are the colors of a palette
    notes : warnings for the user
    """

    opening: Opening
    name: str
    files: tuple[str, ...]
    shape: tuple[int, int]
    transform: Affine
    crs: pyproj.CRS | None
    bands: BandChoice
    dtype: str
    nodata: float | None
    mask: str
    scales: Scales
    bits: int | None
    palette: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """The raster that is read: the file itself, a VRT over files, or a warp over a file.

    Attributes
    ----------
    bands : the source bands taken as red, green, blue
    indexes : 1-based bands of the view that show them
    warp, vrt : the warp, or the VRT's text, if any
    vrt_block_shape : of the file behind a VRT, since a VRT's own blocks are arbitrary
    mask_band : band of the VRT that holds the file's own mask
    gaps : whether the VRT masks the gaps between the tiles of a mosaic
    alpha_too : whether its mask is that of the file and of its alpha band
    nodata_copied : whether a nodata value counts that GDAL passes over, see ``MaskRule.copied``
    palette, palette_nodata : whether the VRT expands a palette, and the index that is invalid
    scales : of the bands, as ``Source`` has them
    bits : as ``Source`` has it
    notes : warnings for the user
    """

    bands: BandChoice
    indexes: tuple[int, int, int] = (1, 2, 3)
    warp: Warp | None = None
    vrt: str = ""
    vrt_block_shape: tuple[int, int] = (0, 0)
    mask_band: int | None = None
    gaps: bool = False
    alpha_too: bool = False
    nodata_copied: bool = False
    palette: bool = False
    palette_nodata: float | None = None
    scales: Scales = UNSCALED
    bits: int | None = None
    notes: tuple[str, ...] = ()

    @contextlib.contextmanager
    def over(self, dataset: rasterio.DatasetReader) -> Iterator[rasterio.DatasetReader]:
        """The view of an open dataset; a second dataset is opened only for a VRT or a warp."""
        if self.vrt:
            with rasterio.open(self.vrt) as handle:
                yield handle
        elif self.warp is not None:
            with self.warp.over(dataset) as handle:
                yield handle
        else:
            yield dataset


def open_source(
    source: str | Path,
    *,
    bands: Sequence[int] | None,
    nodata: float | None,
    assume_crs: str | None,
) -> Source:
    """Open one file once and find how it is read; arguments and errors of ``open_scene``."""
    path = os.fspath(source)
    check_path(path)
    check_beside(path)
    with (
        gdal_errors(path),
        gdal_env(path),
        unplaced_is_silent(),
        rasterio.open(path) as dataset,
    ):
        view = _view_file(dataset, path, bands=bands, nodata=nodata, assume_crs=assume_crs)
        is_text = path.lstrip().startswith("<")
        name = "scene" if is_text else Path(path.split("?", maxsplit=1)[0]).stem
        files = tuple(files_of(dataset)) or (path,)
        with view.over(dataset) as handle:
            return describe_source(
                handle, view, dataset=view.vrt or path, label=path, name=name, files=files
            )


# Properties of the view of a source.


def describe_source(
    handle: rasterio.DatasetReader,
    view: View,
    *,
    dataset: str,
    label: str,
    name: str,
    files: tuple[str, ...],
) -> Source:
    """Collect all properties of the open view of a source."""
    first, indexes = view.indexes[0], view.indexes
    dtype = dtype_of(handle, first, label)
    if any(dtype_of(handle, index, label) != dtype for index in indexes):
        raise InputError(
            f"{label}: its bands have different types ({', '.join(handle.dtypes)}); convert it"
            " to one type"
        )
    warp_nodata = view.warp is not None and view.warp.nodata is not None
    rule = find_mask_rule(
        handle,
        indexes,
        mask_band=view.mask_band,
        nodata_beside_mask=view.mask_band is not None or warp_nodata,
        copied=view.nodata_copied,
    )
    by_pixel = handle.interleaving is Interleaving.pixel
    opening = Opening(
        dataset=dataset,
        label=label,
        warp=view.warp,
        indexes=indexes,
        mask_rule=rule,
        overviews=tuple(handle.overviews(first)),
        block_shape=view.vrt_block_shape if view.vrt else handle.block_shapes[first - 1],
        pixel_bytes=np.dtype(dtype).itemsize * (handle.count if by_pixel else 4),
    )
    crs = None
    if handle.crs:
        crs = pyproj.CRS.from_wkt(handle.crs.to_wkt(version=WktVersion.WKT2_2019))
    return Source(
        opening=opening,
        name=name,
        files=files,
        shape=(handle.height, handle.width),
        transform=handle.transform,
        crs=crs,
        bands=view.bands,
        dtype=dtype,
        nodata=rule.nodata[0] if rule.nodata else view.palette_nodata,
        mask=_describe_mask(rule, view, files),
        scales=view.scales,
        bits=view.bits,
        palette=view.palette,
        notes=view.notes,
    )


def _describe_mask(rule: MaskRule, view: View, files: Sequence[str]) -> str:
    """The rule by which a pixel is invalid, in words."""
    words = []
    if view.gaps:
        words.append("gaps between its tiles")
    elif rule.mask_band is not None and view.mask_band is not None:
        words.append("the file's own mask")
    elif rule.mask_band is not None:
        words.append("alpha band" if view.warp is None else "outside the warped picture")
    if view.alpha_too:
        words.append("alpha band")
    if rule.dataset_mask and view.palette_nodata is not None:
        words.append(f"palette index {number_text(view.palette_nodata)}")
    elif rule.dataset_mask and view.palette:
        words.append("palette transparency or mask")
    elif rule.dataset_mask and not view.gaps:
        sidecar = any(file.endswith(".msk") for file in files)
        words.append("sidecar mask" if sidecar else "internal mask")
    if rule.nodata is not None:
        words.append("nodata " + "/".join(map(number_text, dict.fromkeys(rule.nodata))))
    if rule.nan and (rule.nodata is None or not all(map(math.isnan, rule.nodata))):
        words.append("NaN and fill values")
    return " and ".join(words) or "none"


def _view_file(
    dataset: rasterio.DatasetReader,
    path: str,
    *,
    bands: Sequence[int] | None,
    nodata: float | None,
    assume_crs: str | None,
) -> View:
    """Decide whether a file is read as it is, warped, or through a VRT."""
    if dataset.count == 0:
        inside = f"; it contains {dataset.subdatasets[0]} and others" if dataset.subdatasets else ""
        raise InputError(f"{path} has no raster bands{inside}")
    check_sources(dataset, path)
    warp = warp_of(dataset, path, nodata=nodata, assume_crs=assume_crs)
    if nodata is not None:
        for dtype in dataset.dtypes:
            check_nodata(nodata, dtype, path)
    if is_paletted(dataset) and (bands is None or list(bands) == [1, 1, 1]):
        if warp is not None:
            raise GeoreferenceError(
                f"{path} is paletted and placed by control points alone: warp it first with"
                " gdalwarp"
            )
        return _palette_view(dataset, path, nodata=nodata)
    choice = choose_bands(dataset, bands=bands, source=path)
    first = choice.bands[0]
    view = View(
        choice,
        indexes=choice.bands,
        warp=warp,
        scales=tuple(scale_of(dataset, band) for band in choice.bands),
        bits=bits_of(dataset, first),
        notes=nodata_notes(dataset, first, path) if nodata is None else (),
    )
    return view if warp is not None else _masked_view(dataset, path, view, nodata=nodata)


def _masked_view(
    dataset: rasterio.DatasetReader, path: str, view: View, *, nodata: float | None
) -> View:
    """The view with several masks at once: gaps of a mosaic, a mask, alpha, nodata."""
    name, bands = gdal_name(path), view.bands.bands
    own = _own_masks(dataset, name)
    gaps = None if own else gaps_of(dataset, name, bands, nodata=nodata)
    tags = nodata_values(dataset)
    tagged = [tags[band - 1] for band in bands]
    dtypes = [np.dtype(dtype_of(dataset, band, path)) for band in bands]
    every = [nodata] * len(bands)
    given = every if nodata is not None and (own or tagged != every) else []
    values = given or _beside_masks(dataset, own, tagged, dtypes)
    if gaps is None and len(own) < 2 and not values:
        return view
    view = replace(
        view,
        vrt_block_shape=dataset.block_shapes[0],
        gaps=gaps is not None,
        alpha_too=len(own) > 1,
        nodata_copied=bool(own) and values == tagged,
    )
    if gaps is not None and not values and not gaps.options:
        return replace(view, vrt=gaps.path)
    masks = own if gaps is None else (gaps,)
    whole = masks[0] if masks else VrtSource(name, "1")
    if given:
        # The overviews are left out: they were averaged without this nodata value, so that a
        # collar has bled in.
        whole = replace(whole, options=(*whole.options, *NO_OVERVIEWS))
    parts = []
    for place, (band, dtype) in enumerate(zip(bands, dtypes, strict=True)):
        value = held_nodata(dtype, values[place]) if values else None
        parts.append(VrtBand((replace(whole, band=str(band)),), dtype.name, value))
    beside = VrtBand(masks) if masks else None
    if beside is not None and values:
        parts.append(replace(beside, dtype=parts[0].dtype))  # read together: of one type
    return replace(
        view,
        indexes=(1, 2, 3),
        vrt=vrt_text(dataset, parts, mask=None if values else beside),
        mask_band=4 if len(parts) > len(bands) else None,
    )


def _beside_masks(
    dataset: rasterio.DatasetReader,
    own: Sequence[VrtSource],
    tagged: Sequence[float | None],
    dtypes: Sequence[np.dtype[Any]],
) -> list[float | None]:
    """The nodata values by their tags where GDAL passes over them, for a mask of the file's own.

    NaN counts anyway.
    """
    if (
        not own
        or MaskFlags.nodata in dataset.mask_flag_enums[0]
        or not can_all_hold(dtypes, tagged)
    ):
        return []
    return [] if all(math.isnan(value or 0) for value in tagged) else list(tagged)


def _own_masks(dataset: rasterio.DatasetReader, name: str) -> tuple[VrtSource, ...]:
    """The mask of the file, and its alpha band where GDAL passes over that: there is both."""
    alpha, flags = alpha_band(dataset), dataset.mask_flag_enums[0]
    masks = [VrtSource(name, "mask,1")] if MaskFlags.per_dataset in flags else []
    if alpha is not None and MaskFlags.alpha not in flags:
        masks.append(VrtSource(name, str(alpha)))
    return tuple(masks)


def gaps_of(
    dataset: rasterio.DatasetReader, name: str, bands: Sequence[int], *, nodata: float | None
) -> VrtSource | None:
    """The mask of a mosaic's gaps where neither a mask nor a nodata value marks them."""
    tags = nodata_values(dataset)
    own = [tags[band - 1] for band in bands]
    if nodata is None:
        dtypes = [np.dtype(dtype_of(dataset, band, name)) for band in bands]
        told = can_all_hold(dtypes, own)
    else:
        told = all(nodata == (0 if value is None else value) for value in own)
    return None if told else with_mask_of_gaps(dataset, name, bands)


def scale_of(dataset: rasterio.DatasetReader, band: int) -> tuple[float, float]:
    """(scale, offset) by the band's tags."""
    return float(dataset.scales[band - 1]), float(dataset.offsets[band - 1])


def bits_of(dataset: rasterio.DatasetReader, band: int) -> int | None:
    """Bits of a pixel, where bytes hold fewer than 8."""
    bits = dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", "8")
    less = dataset.dtypes[band - 1] == "uint8" and bits.isdecimal() and 1 <= int(bits) < 8
    return int(bits) if less else None


def nodata_notes(dataset: rasterio.DatasetReader, band: int, path: str) -> tuple[str, ...]:
    """A warning where the raster's own nodata value is one that its pixels cannot have."""
    value, dtype = nodata_values(dataset)[band - 1], str(dataset.dtypes[band - 1])
    if value is None or dtype not in VRT_TYPES or can_hold(np.dtype(dtype), value):
        return ()
    note = (
        f"{path} has the nodata value {number_text(value)}, which its {dtype} pixels never have: no"
        " pixel is invalid by it; --nodata names the right value"
    )
    return (note,)


def _palette_view(dataset: rasterio.DatasetReader, path: str, *, nodata: float | None) -> View:
    """The view of a paletted raster: its colors, through a VRT.

    Masked by the file's own mask and, in addition, where the index is nodata or its color
    transparent.
    """
    name = gdal_name(path)
    own_mask = MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    value = dataset.nodata if nodata is None else nodata
    # A nodata value that no byte has makes GDAL average colors; without one it would average, then
    # look up, indices.
    colors = [
        VrtBand((VrtSource(name, "1", color=component),), nodata=math.nan)
        for component in (1, 2, 3)
    ]
    size = 256 if dataset.dtypes[0] == "uint8" else 65536
    alpha = np.zeros(size, dtype=np.uint8)
    for index, color in dataset.colormap(1).items():
        alpha[index] = color[3]
    if value is not None and value in range(size):
        alpha[int(value)] = 0
    gaps = None if own_mask else gaps_of(dataset, name, (1,), nodata=nodata)
    masks = [gaps] if gaps is not None else [VrtSource(name, "mask,1")] if own_mask else []
    if not alpha.all():
        table = ",".join(f"{index}:{value}" for index, value in enumerate(alpha))
        masks.append(VrtSource(name, "1", lut=table))
    mask = VrtBand(tuple(masks), nodata=math.nan) if masks else None
    return View(
        BandChoice((1, 1, 1), "palette expanded"),
        vrt=vrt_text(dataset, colors, mask=mask),
        vrt_block_shape=dataset.block_shapes[0],
        gaps=gaps is not None,
        palette=True,
        palette_nodata=value,
        notes=nodata_notes(dataset, 1, path) if nodata is None else (),
    )


def check_nodata(nodata: float, dtype: str, path: str) -> None:
    """Without this GDAL would clip a value outside of the type's range to the nearest valid one."""
    if np.dtype(dtype).kind in "iuf" and not can_hold(np.dtype(dtype), nodata):
        raise UsageError(
            f"--nodata {number_text(nodata)}: {path} has pixels of type {dtype}, which never have"
            " that value"
        )
