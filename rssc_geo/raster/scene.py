"""A raster as the rest of the program sees it: three bands, a mask, a place on Earth.

:func:`open_scene` looks at the raster once and settles everything that must be the same for every
tile; a :class:`Scene` holds only plain values, and :meth:`Scene.open` makes the handles, one for
each thread.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyproj
import rasterio
from affine import Affine
from rasterio.enums import Interleaving, MaskFlags, WktVersion
from rasterio.vrt import WarpedVRT

from rssc_geo.errors import GeoreferenceError, InputError
from rssc_geo.geometry import check_earth, ground_sampling, lonlat_bounds, parse_crs
from rssc_geo.raster.bands import alpha_band
from rssc_geo.raster.source import SourcePlan, plan_source
from rssc_geo.raster.validity import PixelReader, Validity
from rssc_geo.raster.virtual import Opening, Warp, dtype_of, gdal_env

_HEADER_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Scene:
    """A raster opened for classification; made by :func:`open_scene`, safe to send to another
    process.

    Attributes
    ----------
    source, name : the raster as it was given (several files joined by ", "), and a short title
    height, width, transform, crs : pixels, affine from (col, row) to ``crs``, never ``None``
    bands, bands_reason : the 1-based source bands taken as red, green, blue, and why
    dtype : numpy name of the pixels' type
    nodata, mask : the nodata value in force, and in words what makes a pixel invalid
    gsd_m : geodesic metres a pixel at the center along (row, column)
    overviews, block_shape : reduction factors there are, and the (rows, columns) of a stored block
    read_indexes : band indexes to read on a handle of :meth:`open`
    warnings : what the user should know
    """

    source: str
    name: str
    height: int
    width: int
    transform: Affine
    crs: pyproj.CRS
    bands: tuple[int, int, int]
    bands_reason: str
    dtype: str
    nodata: float | None
    mask: str
    gsd_m: tuple[float, float]
    overviews: tuple[int, ...]
    block_shape: tuple[int, int]
    read_indexes: tuple[int, int, int]
    warnings: tuple[str, ...]
    opening: Opening
    validity: Validity
    files: tuple[str, ...]
    pixel_bytes: int
    """What a pixel takes of GDAL's block cache."""
    hole_bands: tuple[int, ...] = ()
    """Bands whose blocks, where a sparse GeoTIFF stores none of them, are invalid; empty.

    No way to tell.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    def open(self) -> rasterio.DatasetReader | WarpedVRT:
        """A new handle for one thread, to be closed by it.

        ``InputError`` when the raster cannot be opened.
        """
        return self.opening.open()

    def pixel_reader(self, handle: rasterio.DatasetReader | WarpedVRT) -> PixelReader:
        """A reader of windows with their masks on a handle of :meth:`open`."""
        return PixelReader(handle, self.read_indexes, self.validity)

    def bounds_lonlat(self) -> tuple[float, float, float, float]:
        """West, south, east, north in WGS84 degrees; west > east across the antimeridian."""
        return lonlat_bounds(self.crs, self.transform, self.shape)

    def fingerprint(self) -> str:
        """SHA-256 of what identifies the content cheaply.

        Size, time and header of its files, and the options.
        """
        digest = hashlib.sha256()
        fields = (
            self.bands,
            self.nodata,
            self.mask,
            self.shape,
            tuple(self.transform)[:6],
            self.crs.to_wkt(),
            self.dtype,
        )
        digest.update(repr(fields).encode())
        for file in self.files:
            digest.update(file.encode())
            if Path(file).is_file():
                stat = Path(file).stat()
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
                with Path(file).open("rb") as stream:
                    digest.update(stream.read(_HEADER_BYTES))
        return digest.hexdigest()


def open_scene(
    source: str | Path | Sequence[str | Path],
    *,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    assume_crs: str | None = None,
) -> Scene:
    """Look at a raster and settle bands, mask, CRS and ground sampling.

    Parameters
    ----------
    source : a path, URL or ``/vsi`` path of anything GDAL reads; or several single-band files (red,
        green, blue)
    bands : three 1-based bands as red, green, blue; default: by color interpretation, by
        description, the first three
    nodata : value that marks invalid pixels, also where the raster carries no such tag
    assume_crs : the CRS of the raster's coordinates, for rasters that carry none or a wrong one

    Raises
    ------
    InputError, GeoreferenceError
        The raster cannot be read, has too few bands, or no usable place on Earth.
    UsageError
        ``bands`` or ``assume_crs`` cannot be meant.
    """
    return _scene(
        plan_source(source, bands=bands, nodata=nodata, assume_crs=assume_crs),
        assume_crs=assume_crs,
    )


def _scene(plan: SourcePlan, *, assume_crs: str | None) -> Scene:
    label, indexes = plan.opening.label, plan.indexes
    notes = [plan.choice.warning] if plan.choice.warning else []
    # The settings hold while GDAL looks for masks and overviews too, which it does when it is first
    # asked for them.
    with gdal_env(plan.opening.dataset), plan.opening.open() as handle:
        crs = _crs_of(handle, label, assume_crs, notes, plan.opening.warp)
        shape = (handle.height, handle.width)
        gsd_m = ground_sampling(crs, handle.transform, shape, label)
        dtype = dtype_of(handle, indexes[0])
        if any(dtype_of(handle, index) != dtype for index in indexes):
            raise InputError(
                f"{label}: its bands have different types ({', '.join(handle.dtypes)}); convert it"
                " to one type"
            )
        validity, words = _validity(handle, plan, dtype)
        return Scene(
            source=label, name=plan.name, height=shape[0], width=shape[1], transform=handle.transform, crs=crs,
            bands=plan.choice.bands, bands_reason=plan.choice.reason, dtype=dtype,
            nodata=validity.nodata[0] if validity.nodata else plan.palette_nodata, mask=words, gsd_m=gsd_m,
            overviews=tuple(handle.overviews(indexes[0])), block_shape=plan.block_shape or handle.block_shapes[indexes[0] - 1],
            read_indexes=indexes, warnings=tuple(notes), opening=plan.opening, validity=validity, files=plan.files,
            pixel_bytes=np.dtype(dtype).itemsize * (handle.count if handle.interleaving is Interleaving.pixel else 4),
            hole_bands=_hole_bands(handle, indexes, validity),
        )  # fmt: skip


def _validity(handle: rasterio.DatasetReader, plan: SourcePlan, dtype: str) -> tuple[Validity, str]:
    words = []
    flags = handle.mask_flag_enums[plan.indexes[0] - 1]
    alpha = 4 if plan.has_mask_band else alpha_band(handle)
    values = [handle.nodatavals[index - 1] for index in plan.indexes]
    by_value = (
        plan.has_mask_band
        or MaskFlags.nodata in flags
        or (plan.opening.warp and plan.opening.warp.nodata is not None)
    )
    by_mask = alpha is None and MaskFlags.per_dataset in flags
    if alpha is not None:
        own = (
            "outside the warped picture"
            if plan.opening.warp and not plan.opening.dataset.startswith("<")
            else "alpha band"
        )
        words.append("the file's own mask" if plan.has_mask_band else own)
        by_value = by_value and (plan.has_mask_band or plan.opening.warp is not None)
    if by_mask and plan.palette_nodata is not None:
        words.append(f"palette index {plan.palette_nodata:g}")
    elif by_mask and plan.choice.reason == "palette expanded":
        words.append("palette transparency or mask")
    elif by_mask:
        words.append(
            "sidecar mask" if any(file.endswith(".msk") for file in plan.files) else "internal mask"
        )
    nodata = None
    if by_value and not by_mask and None not in values:
        nodata = float(values[0]), float(values[1]), float(values[2])
        words.append("nodata " + "/".join(f"{value:g}" for value in dict.fromkeys(nodata)))
    nan = dtype.startswith("float")
    if nan and (nodata is None or not all(math.isnan(value) for value in nodata)):
        words.append("NaN")
    return Validity(nodata, alpha, by_mask, nan), " and ".join(words) or "none"


def _hole_bands(
    handle: rasterio.DatasetReader, indexes: tuple[int, int, int], validity: Validity
) -> tuple[int, ...]:
    """GDAL fills a block that a sparse GeoTIFF leaves out with nodata, or 0.

    Invalid by nodata, or by an alpha of 0.
    """
    if handle.driver != "GTiff" or validity.dataset_mask:
        return ()
    if validity.nodata is not None:
        return (
            tuple(dict.fromkeys(indexes))
            if handle.interleaving is Interleaving.band
            else indexes[:1]
        )
    if validity.mask_band is not None and handle.nodatavals[validity.mask_band - 1] in (None, 0):
        return (validity.mask_band,)
    return ()


def _crs_of(
    handle: rasterio.DatasetReader,
    label: str,
    assume_crs: str | None,
    notes: list[str],
    warp: Warp | None,
) -> pyproj.CRS:
    own = (
        pyproj.CRS.from_wkt(handle.crs.to_wkt(version=WktVersion.WKT2_2019)) if handle.crs else None
    )
    if warp is not None:
        notes.append(
            f"{label} is placed by RPCs alone: warped virtually at {warp.rpc_height_m:g} m height, "
            "so that places in hilly country may be off by tens of metres"
            if warp.rpc_height_m is not None
            else f"{label} is placed by ground control points alone: warped virtually between them"
        )
    if assume_crs is not None and (warp is None or warp.rpc_height_m is None):
        crs = parse_crs(assume_crs, option="--assume-crs")
        if warp is None and own is not None and own != crs:
            notes.append(
                f"{label} says its CRS is {own.name!r}; --assume-crs {assume_crs} is used instead"
            )
    elif own is None:
        raise GeoreferenceError(
            f"{label} has no CRS: name the CRS of its coordinates with --assume-crs (such as"
            " EPSG:32633)"
        )
    else:
        crs = own
    check_earth(crs, label)
    return crs
