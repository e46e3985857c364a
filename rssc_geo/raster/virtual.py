"""Opening a raster again and again, also where its three bands only exist virtually.

Separate files, palettes and a nodata value that the file does not carry become a VRT (XML text,
nothing is written); rasters placed by ground control points or RPCs are warped virtually. An
:class:`Opening` holds only text and numbers, so that it can be sent to another process.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from rssc_geo.errors import InputError, one_line

_REMOTE_ENV = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": "TRUE"}
_VRT_TYPES = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "uint64": "UInt64", "int64": "Int64", "float32": "Float32", "float64": "Float64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Warp:
    """A virtual warp.

    CRS of the control points, CRS to warp to, nodata on both sides, mean height for RPCs.
    """

    src_crs: str
    crs: str
    nodata: float | None = None
    rpc_height_m: float | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open a raster: a path, URL or VRT text, and the warp on top of it, if any."""

    dataset: str
    label: str
    warp: Warp | None = None

    def open(self) -> rasterio.DatasetReader | WarpedVRT:
        """A new handle, to be used by one thread and closed by it.

        ``InputError`` when it cannot be opened.
        """
        with gdal_errors(self.label), gdal_env(self.dataset):
            source = rasterio.open(self.dataset)
            if self.warp is None:
                return source
            # Named, since a file may also store a geotransform that says nothing.
            extra = {"METHOD": "GCP_POLYNOMIAL"}
            if self.warp.rpc_height_m is not None:
                extra = {"METHOD": "RPC", "RPC_HEIGHT": repr(self.warp.rpc_height_m)}
            has_mask = ColorInterp.alpha in source.colorinterp or self.warp.nodata is not None
            return WarpedVRT(
                source, src_crs=self.warp.src_crs, crs=self.warp.crs, resampling=Resampling.bilinear,
                src_nodata=self.warp.nodata, nodata=self.warp.nodata, add_alpha=not has_mask, **extra,
            )  # fmt: skip


def is_remote(path: str) -> bool:
    """Whether the path is a URL or one of GDAL's virtual file systems."""
    return "://" in path or path.startswith("/vsi")


def gdal_env(dataset: str, *, cache_bytes: int | None = None) -> rasterio.Env:
    """GDAL's settings for the raster: no listing of remote folders, remote reads cached, and the
    block cache's size.

    GDAL's own cache grows to 5 % of the machine's memory; the user's ``GDAL_CACHEMAX`` is left in
    force.
    """
    options: dict[str, str | int] = (
        dict(_REMOTE_ENV) if is_remote(dataset) or "/vsi" in dataset[:4096] else {}
    )
    if cache_bytes is not None and "GDAL_CACHEMAX" not in os.environ:
        options["GDAL_CACHEMAX"] = cache_bytes
    return rasterio.Env(**options)


@contextlib.contextmanager
def gdal_errors(label: str) -> Iterator[None]:
    """Turn what GDAL could not read into an ``InputError`` of one line with GDAL's own reason."""
    try:
        yield
    except (RasterioError, OSError) as error:
        # rasterio's own text is general ("Read failed. See previous exception"); the cause has
        # GDAL's reason.
        reason = one_line(error.__cause__ or error)
        raise InputError(f"{label} cannot be read as a raster: {reason}") from error


@dataclass(frozen=True, slots=True)
class VirtualBand:
    """One band of a VRT: a band of a file (by GDAL's name), or one color of its palette.

    ``lut`` maps values.
    """

    path: str
    band: str
    dtype: str = "uint8"
    nodata: float | None = None
    color: int | None = None
    lut: str = ""
    overviews: bool = True


def vrt_xml(
    like: rasterio.DatasetReader, bands: Sequence[VirtualBand], *, mask: VirtualBand | None = None
) -> str:
    """A VRT of the bands with the size and place of ``like``, and with a dataset mask if given."""
    root = ET.Element("VRTDataset", rasterXSize=str(like.width), rasterYSize=str(like.height))
    if like.crs:
        ET.SubElement(root, "SRS").text = like.crs.to_wkt()
    ET.SubElement(root, "GeoTransform").text = ", ".join(
        repr(float(value)) for value in like.transform.to_gdal()
    )
    for number, band in enumerate(bands, start=1):
        _add_band(root, band, {"band": str(number)})
    if mask is not None:
        _add_band(ET.SubElement(root, "MaskBand"), mask, {})
    return ET.tostring(root, encoding="unicode")


def _add_band(parent: ET.Element, band: VirtualBand, attributes: dict[str, str]) -> None:
    element = ET.SubElement(
        parent, "VRTRasterBand", {"dataType": _VRT_TYPES[band.dtype], **attributes}
    )
    if band.nodata is not None:
        ET.SubElement(element, "NoDataValue").text = repr(float(band.nodata))
    mapped = band.color is not None or band.lut
    source = ET.SubElement(element, "ComplexSource" if mapped else "SimpleSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = band.path
    if not band.overviews:
        options = ET.SubElement(source, "OpenOptions")
        ET.SubElement(options, "OOI", key="OVERVIEW_LEVEL").text = "NONE"
    ET.SubElement(source, "SourceBand").text = band.band
    if band.color is not None:
        ET.SubElement(source, "ColorTableComponent").text = str(band.color)
    if band.lut:
        ET.SubElement(source, "LUT").text = band.lut


def gdal_name(dataset: rasterio.DatasetReader) -> str:
    """The name GDAL itself knows the file by: an absolute path, or a ``/vsi`` path for a URL."""
    name = str(dataset.files[0] if dataset.files else dataset.name)
    return name if is_remote(name) else os.path.abspath(name)


def dtype_of(dataset: rasterio.DatasetReader, band: int) -> str:
    """The numpy name of a band's type; ``InputError`` for complex numbers, which are no picture."""
    name = str(dataset.dtypes[band - 1])
    if name not in _VRT_TYPES:
        raise InputError(
            f"{dataset.name}: its pixels are of type {name}; a picture of real numbers is needed"
        )
    return name


def palette_xml(dataset: rasterio.DatasetReader, *, nodata: float | None) -> str:
    """A VRT with red, green and blue of a paletted raster, masked where the index is nodata or transparent."""
    path = gdal_name(dataset)
    # A nodata value that no byte has makes GDAL average colors; without one it would average, then
    # look up, indices.
    colors = [VirtualBand(path, "1", nodata=math.nan, color=component) for component in (1, 2, 3)]
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        return vrt_xml(dataset, colors, mask=VirtualBand(path, "mask,1"))
    size = 256 if dataset.dtypes[0] == "uint8" else 65536
    alpha = np.zeros(size, dtype=np.uint8)
    for index, color in dataset.colormap(1).items():
        alpha[index] = color[3]
    if nodata is not None and nodata in range(size):
        alpha[int(nodata)] = 0
    if alpha.all():
        return vrt_xml(dataset, colors)
    table = ",".join(f"{index}:{value}" for index, value in enumerate(alpha))
    return vrt_xml(dataset, colors, mask=VirtualBand(path, "1", nodata=math.nan, lut=table))
