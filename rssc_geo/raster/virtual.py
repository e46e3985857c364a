"""Virtual rasters (VRTs): the text of those that we make, and what others may not do.

A VRT that someone sends may name any file of this computer. Its sources must be rasters, which
show only what is a picture anyway; raw bands, which show the bytes of any file as pixels, and
bands computed by Python code are refused, in the VRT and in every VRT that it names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import rasterio
from rasterio.errors import RasterioError

from rssc_geo.errors import InputError

VRT_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}
"""GDAL's word for each type of real numbers, by numpy's."""

_NAMES_A_SOURCE = frozenset({"SourceFilename", "SourceDataset", "Filename"})
_HEADER_BYTES = 4096  # GDAL looks for the mark of a VRT in the first 1024
_MOST_NESTED = 16


@dataclass(frozen=True, slots=True)
class VrtSource:
    """Where a band of a VRT takes its pixels from.

    Attributes
    ----------
    path, band : a raster by GDAL's name, and its band ("1", or "mask,1")
    color : which component of the band's palette is shown: 1, 2, 3 for red, green, blue
    lut : a table "from:to,…" that maps the values
    overviews : whether those of the file may be read
    """

    path: str
    band: str
    color: int | None = None
    lut: str = ""
    overviews: bool = True


@dataclass(frozen=True, slots=True)
class VrtBand:
    """A band of a VRT; several sources are multiplied: masks of which each must be valid."""

    sources: tuple[VrtSource, ...]
    dtype: str = "uint8"
    nodata: float | None = None


def vrt_text(
    like: rasterio.DatasetReader, bands: Sequence[VrtBand], *, mask: VrtBand | None = None
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


def _add_band(parent: ET.Element, band: VrtBand, attributes: dict[str, str]) -> None:
    if len(band.sources) > 1:
        attributes = {**attributes, "subClass": "VRTDerivedRasterBand"}
    element = ET.SubElement(
        parent, "VRTRasterBand", {"dataType": VRT_TYPES[band.dtype], **attributes}
    )
    if band.nodata is not None:
        ET.SubElement(element, "NoDataValue").text = repr(float(band.nodata))
    if len(band.sources) > 1:
        # Of 255 times 255 GDAL keeps 255, the largest that a byte holds.
        ET.SubElement(element, "PixelFunctionType").text = "mul"
    for source in band.sources:
        _add_source(element, source)


def _add_source(parent: ET.Element, source: VrtSource) -> None:
    mapped = source.color is not None or source.lut
    element = ET.SubElement(parent, "ComplexSource" if mapped else "SimpleSource")
    ET.SubElement(element, "SourceFilename", relativeToVRT="0").text = source.path
    if not source.overviews:
        options = ET.SubElement(element, "OpenOptions")
        ET.SubElement(options, "OOI", key="OVERVIEW_LEVEL").text = "NONE"
    ET.SubElement(element, "SourceBand").text = source.band
    if source.color is not None:
        ET.SubElement(element, "ColorTableComponent").text = str(source.color)
    if source.lut:
        ET.SubElement(element, "LUT").text = source.lut


# What VRTs of others may not do.


def check_vrt(dataset: rasterio.DatasetReader, label: str) -> None:
    """Refuse a VRT with raw bands or Python code, its own or in a VRT that it names.

    Any other raster passes. Raises ``InputError``.
    """
    waiting = [(_text_of(dataset), dataset.name, 0)]
    seen: set[str] = set()
    while waiting:
        text, name, depth = waiting.pop()
        if not text:
            continue
        _check_text(text, label)
        if depth == _MOST_NESTED:
            raise InputError(
                f"{label} names VRTs in VRTs more than {_MOST_NESTED} deep: convert it with"
                " gdal_translate to a GeoTIFF"
            )
        for source in _sources_of(text, name):
            if source not in seen:
                seen.add(source)
                waiting.append((_text_if_virtual(source), source, depth + 1))


def _check_text(text: str, label: str) -> None:
    if "VRTRawRasterBand" in text:
        raise InputError(
            f"{label} has or names a VRT with a raw band (VRTRawRasterBand), which shows the bytes"
            " of any file as pixels: convert it with gdal_translate to a GeoTIFF, if you trust it"
        )
    if re.search(r"<PixelFunctionLanguage[^>]*>\s*Python", text, re.IGNORECASE):
        raise InputError(
            f"{label} has or names a VRT that computes a band by Python code, which is not run:"
            " convert it with gdal_translate to a GeoTIFF, if you trust it"
        )


def _text_of(dataset: rasterio.DatasetReader) -> str:
    """The XML of a VRT; empty for any other raster."""
    return str(dataset.tags(ns="xml:VRT").get("xml:VRT", "")) if dataset.driver == "VRT" else ""


def _text_if_virtual(name: str) -> str:
    """The XML of a raster that a VRT names, where it is a VRT too; it is opened only if need be."""
    try:
        if os.path.isfile(name):
            with Path(name).open("rb") as stream:
                if b"<VRTDataset" not in stream.read(_HEADER_BYTES):
                    return ""
        with rasterio.open(name) as dataset:
            return _text_of(dataset)
    except (RasterioError, OSError, ValueError):
        return ""  # what cannot be opened shows nothing


def _sources_of(text: str, name: str) -> Iterator[str]:
    """The rasters that a VRT of this name takes its pixels from."""
    # GDAL wrote this text from what it had parsed: it declares no entities.
    for element in ET.fromstring(text).iter():  # noqa: S314
        if element.tag in _NAMES_A_SOURCE and element.text:
            relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
            yield os.path.join(os.path.dirname(name), element.text) if relative else element.text
