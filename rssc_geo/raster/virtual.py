"""Virtual rasters (VRTs): the XML of those made here, and restrictions of foreign ones.

A foreign VRT or tile index may name any file of this computer. Its sources must be rasters, which
only disclose pictures; raw bands and headers, which show the bytes of any file as pixels, and bands
computed by Python code are refused, in it and in all files that it names.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pyogrio
import rasterio
from pyogrio.errors import DataLayerError, DataSourceError

from rssc_geo.errors import InputError, one_line
from rssc_geo.raster.features import check_no_view
from rssc_geo.raster.gdal import GDAL_ERRORS

if TYPE_CHECKING:
    import pandas as pd

NO_OVERVIEWS = (("OVERVIEW_LEVEL", "NONE"),)
"""Option to open a file without its overviews."""

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
"""GDAL's name of each type of real numbers, by numpy's."""

_NAMES_A_SOURCE = frozenset({"SourceFilename", "SourceDataset", "Filename"})
_HEADER_BYTES = 4096  # GDAL looks for the mark of a VRT in the first 1024
_TEXT_HEADER_BYTES = 1 << 20  # of a header that is text
MOST_NESTED = 16

Rectangle = tuple[float, float, float, float]
"""Column, row, columns and rows, in pixels."""
SIDES = ("xOff", "yOff", "xSize", "ySize")
"""Their names in a VRT."""


@dataclass(frozen=True, slots=True)
class VrtSource:
    """A source of the pixels of a band of a VRT.

    Attributes
    ----------
    path, band : a raster by GDAL's name, and its band ("1", or "mask,1")
    color : which component of the band's palette is shown: 1, 2, 3 for red, green, blue
    lut : a table "from:to,…" that maps the values
    options : with which the file is opened, by GDAL's names
    part, place : the part of the file, and its place in the VRT; None: all of it
    """

    path: str
    band: str
    color: int | None = None
    lut: str = ""
    options: tuple[tuple[str, str], ...] = ()
    part: Rectangle | None = None
    place: Rectangle | None = None


@dataclass(frozen=True, slots=True)
class VrtBand:
    """A band of a VRT; several sources are multiplied: masks of which each must be valid.

    ``mosaic``: they lie beside or over each other instead.
    """

    sources: tuple[VrtSource, ...]
    dtype: str = "uint8"
    nodata: float | None = None
    mosaic: bool = False


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


def with_mask(text: str, name: str, mask: VrtBand) -> str:
    """The text of a VRT of this name with a dataset mask; it can be opened from anywhere."""
    # GDAL wrote this text from what it had parsed: it declares no entities.
    root = ET.fromstring(text)  # noqa: S314
    for element in root.iter("SourceFilename"):
        element.text = source_file(element, name)
        element.set("relativeToVRT", "0")
    _add_band(ET.SubElement(root, "MaskBand"), mask, {})
    return ET.tostring(root, encoding="unicode")


def source_file(element: ET.Element, name: str) -> str:
    """The file that an element of a VRT of this name tells, to be opened from anywhere."""
    file = element.text or ""
    relative = element.get("relativeToVRT", element.get("relativetoVRT", "0")) == "1"
    # Names in a VRT that is given as text start in the working folder.
    beside = relative and not name.lstrip().startswith("<")
    return os.path.join(os.path.dirname(name), file) if beside else file


def _add_band(parent: ET.Element, band: VrtBand, attributes: dict[str, str]) -> None:
    product = len(band.sources) > 1 and not band.mosaic
    if product:
        attributes = {**attributes, "subClass": "VRTDerivedRasterBand"}
    element = ET.SubElement(
        parent, "VRTRasterBand", {"dataType": VRT_TYPES[band.dtype], **attributes}
    )
    if band.nodata is not None:
        # Of "-9e+18" GDAL reads -9 for a band of integers.
        whole = np.dtype(band.dtype).kind in "iu" and float(band.nodata).is_integer()
        ET.SubElement(element, "NoDataValue").text = repr(
            int(band.nodata) if whole else float(band.nodata)
        )
    if product:
        # Of 255 times 255 GDAL keeps 255, the largest that a byte holds.
        ET.SubElement(element, "PixelFunctionType").text = "mul"
    for source in band.sources:
        _add_source(element, source)


def _add_source(parent: ET.Element, source: VrtSource) -> None:
    mapped = source.color is not None or source.lut
    element = ET.SubElement(parent, "ComplexSource" if mapped else "SimpleSource")
    ET.SubElement(element, "SourceFilename", relativeToVRT="0").text = source.path
    if source.options:
        options = ET.SubElement(element, "OpenOptions")
        for key, value in source.options:
            ET.SubElement(options, "OOI", key=key).text = value
    ET.SubElement(element, "SourceBand").text = source.band
    for tag, rectangle in (("SrcRect", source.part), ("DstRect", source.place)):
        if rectangle is not None:
            sides = zip(SIDES, rectangle, strict=True)
            ET.SubElement(element, tag, {key: repr(float(value)) for key, value in sides})
    if source.color is not None:
        ET.SubElement(element, "ColorTableComponent").text = str(source.color)
    if source.lut:
        ET.SubElement(element, "LUT").text = source.lut
        element.set("resampling", "nearest")  # a mean of the values is none of the table's


# Restrictions of rasters that are made of others.

_SOURCES_UNKNOWN = {
    "STACTA": "which name their tiles by a pattern",
    "STACIT": "which name their tiles in a catalog",
}
"""Kinds of rasters whose sources cannot be told before they are read, and why."""

_FILE_ELSEWHERE = {
    "MRF": rb"<(DataFile|IndexFile|Source)\b",
    "PDS4": rb"<file_name>[^<]*[/\\]",
    "PDS": rb"\^\w+\s*=[^\r\n]*[/\\]",
    "ISIS2": rb"\^\w+\s*=[^\r\n]*[/\\]",
    "ISIS3": rb"\^\w+\s*=[^\r\n]*[/\\]",
    "ERS": rb"DataFile\s*=[^\r\n]*[/\\]",
}
"""Drivers whose headers may show the bytes of any file, and the pattern of a file elsewhere."""

_PART_OF_FILE = re.compile(r"^PDS4:(.+):\d+:\d+$")
"""GDAL's name of a part of a file, with the file."""

_MARKS = (
    *(b"<VRTDataset", b"<GDALTileIndexDataset", b"<MRF_META", b"Product_Observational"),
    *(b"PDS_VERSION_ID", b"IsisCube", b"DatasetHeader Begin", b"stac_version"),
    b"gdal_streamed_alg",
)
"""First bytes of files that may name others."""

_TILE_INDEX = ".gti."
"""Part of the names of tile indexes that GDAL opens as rasters (``scene.gti.gpkg``)."""


def check_sources(dataset: rasterio.DatasetReader, label: str) -> None:
    """Refuse a raster that shows the bytes of any file, or runs code, by itself or by its sources.

    VRTs and tile indexes are followed to the end. Raises ``InputError``, also for a tile that its
    index names and that is not there: GDAL would read it as black.
    """
    waiting = [(_Named.of(dataset), 0)]
    seen: set[str] = set()
    while waiting:
        named, depth = waiting.pop()
        named.check(label)
        if depth == MOST_NESTED:
            raise InputError(
                f"{label} names VRTs in VRTs more than {MOST_NESTED} deep: convert it with"
                " gdal_translate to a GeoTIFF"
            )
        for source in named.sources:
            if source not in seen:
                seen.add(source)
                inner = _opened(source)
                if inner is not None:
                    waiting.append((inner, depth + 1))


@dataclass(frozen=True, slots=True)
class _Named:
    """A raster that may be made of others: its driver, text or header, and sources.

    ``header``: None for one that lies where it cannot be read by its bytes.
    """

    driver: str
    text: str
    header: bytes | None
    sources: tuple[str, ...]

    @classmethod
    def of(cls, dataset: rasterio.DatasetReader) -> _Named:
        name, driver = dataset.name, dataset.driver
        if driver == "VRT":
            text = str(dataset.tags(ns="xml:VRT").get("xml:VRT", ""))
            return cls(driver, text, b"", tuple(_sources_of(text, name)) if text else ())
        if driver == "GTI":
            return cls(driver, "", b"", index_tiles(dataset))
        files = tuple(str(file) for file in dataset.files if str(file) != name)
        header: bytes | None = b""
        if driver in _FILE_ELSEWHERE:
            place = _PART_OF_FILE.sub(r"\1", name)
            header = _beginning(place, _TEXT_HEADER_BYTES) if os.path.isfile(place) else None
        return cls(driver, "", header, files)

    def check(self, label: str) -> None:
        """Raise ``InputError`` for what is not allowed."""
        if "VRTRawRasterBand" in self.text:
            raise InputError(
                f"{label} has or names a VRT with a raw band (VRTRawRasterBand), which shows the"
                " bytes of any file as pixels: convert it with gdal_translate to a GeoTIFF, if you"
                " trust it"
            )
        if re.search(r"<PixelFunctionLanguage[^>]*>\s*Python", self.text, re.IGNORECASE):
            raise InputError(
                f"{label} has or names a VRT that computes a band by Python code, which is not run:"
                " convert it with gdal_translate to a GeoTIFF, if you trust it"
            )
        if self.driver == "GDALG":  # since GDAL 3.11
            raise InputError(
                f"{label} is or names a pipeline of GDAL (GDALG), which may read any file: run it"
                " with gdal, if you trust it, and give its result"
            )
        if reason := _SOURCES_UNKNOWN.get(self.driver):
            raise InputError(
                f"{label} is or names tiled assets of STAC ({self.driver}), {reason}:"
                " build a VRT of the tiles with gdalbuildvrt"
            )
        if self.header is None:
            raise InputError(
                f"{label} is or names a header ({self.driver}) in an archive, on the network or in"
                " a name, where it is not known which file its pixels come from: unpack or download"
                " it"
            )
        if self.driver in _FILE_ELSEWHERE and re.search(_FILE_ELSEWHERE[self.driver], self.header):
            raise InputError(
                f"{label} is or names a header ({self.driver}) that takes its pixels from a file"
                " elsewhere, whatever that is: convert it with gdal_translate to a GeoTIFF, if you"
                " trust it"
            )


def files_of(dataset: rasterio.DatasetReader) -> list[str]:
    """The files of a raster as far as it names them: sidecars, sources of a VRT, tiles of an index.

    Without sidecars of statistics: programs write them when they only display a raster, also while
    it is being read. Raises ``InputError`` for a tile that is not there.
    """
    own = [str(file) for file in dataset.files if not _is_statistics(str(file))]
    return [*own, *index_tiles(dataset)]


def _is_statistics(name: str) -> bool:
    """Whether a file is a sidecar of GDAL that holds nothing but statistics of the bands."""
    text = _beginning(name, _TEXT_HEADER_BYTES) if name.endswith(".aux.xml") else b""
    try:
        root = None if b"<!" in text else ET.fromstring(text)  # noqa: S314 -- declares nothing
    except ET.ParseError:
        return False
    return root is not None and all(
        band.tag == "PAMRasterBand" and all(map(_holds_statistics, band)) for band in root
    )


def _holds_statistics(part: ET.Element) -> bool:
    """Whether a part of a band's entry in a sidecar is its histogram, or metadata of statistics."""
    if part.tag == "Histograms":
        return True
    keys = [item.get("key", "") for item in part]
    own = part.tag == "Metadata" and not part.get("domain")
    return own and all(key.startswith("STATISTICS_") for key in keys)


def index_tiles(dataset: rasterio.DatasetReader) -> tuple[str, ...]:
    """The rasters that a tile index of GDAL (GTI) names; none for any other raster.

    Raises ``InputError`` for a tile that is not there.
    """
    if dataset.driver != "GTI":
        return ()
    place = dataset.name.removeprefix("GTI:")
    text = (
        place
        if place.lstrip().startswith("<")
        else _beginning(place, _TEXT_HEADER_BYTES).decode("utf-8", "replace")
    )
    layer = field = None
    folders = [os.path.dirname(place), ""]
    if "<GDALTileIndexDataset" in text:
        told = {element.tag: element.text or "" for element in _parsed(text, dataset.name).iter()}
        layer, field = told.get("IndexLayer"), told.get("LocationField")
        index = told.get("IndexDataset", "")
        place = next((p for p in _placed(index, folders) if os.path.exists(p)), index)
        folders.insert(0, os.path.dirname(place))
    tiles: dict[str, None] = {}
    for table in _tables(place, layer):
        location = next((c for c in table if c.lower() == (field or "location").lower()), None)
        for column in table.columns:
            # The index's own metadata may name another column than this one.
            for value in dict.fromkeys(v for v in table[column].tolist() if isinstance(v, str)):
                found = next((p for p in _placed(value, folders) if os.path.exists(p)), None)
                if found is None and column == location and not _is_no_path(value):
                    raise InputError(
                        f"{dataset.name} is an index of tiles, and {value!r} in it is not there:"
                        " make the index again with gdaltindex, or bring the tile back"
                    )
                if found is not None or _is_no_path(value):
                    tiles[found or value] = None
    return tuple(tiles)


def _tables(path: str, layer: str | None) -> Iterator[pd.DataFrame]:
    """The layers of a vector file, or one of them."""
    check_no_view(path)
    try:
        for name in [layer] if layer else [str(one) for one in pyogrio.list_layers(path)[:, 0]]:
            yield pyogrio.read_dataframe(path, layer=name, read_geometry=False)
    except (DataSourceError, DataLayerError) as error:
        raise InputError(
            f"{path} is no index of tiles that can be read: {one_line(error)}"
        ) from error


def _placed(name: str, folders: Sequence[str]) -> Iterator[str]:
    return (os.path.join(folder, name) for folder in folders)


def _is_no_path(name: str) -> bool:
    """Whether GDAL opens this name by other means than as a file on disk."""
    return name.startswith(("/vsi", "<")) or ":" in name[2:]


def may_name_others(name: str) -> bool:
    """Whether a file, by its first bytes or its name, may be a raster that names others."""
    if _TILE_INDEX in os.path.basename(name).lower():
        return True
    beginning = _beginning(name, _HEADER_BYTES)
    return any(mark in beginning for mark in _MARKS)


def _opened(name: str) -> _Named | None:
    """A raster that another names, where it may name others too; opened only if need be."""
    if os.path.isfile(name) and not may_name_others(name):
        return None
    try:
        with rasterio.open(name) as dataset:
            return _Named.of(dataset)
    except (*GDAL_ERRORS, OSError, ValueError):
        return None  # a file that cannot be opened shows nothing


def _beginning(name: str, count: int) -> bytes:
    """The first bytes of a file on disk; none of anything else."""
    try:
        with Path(name).open("rb") as stream:
            return stream.read(count)
    except (OSError, ValueError):
        return b""


def _parsed(text: str, name: str) -> ET.Element:
    if "<!" not in text:
        with contextlib.suppress(ET.ParseError):
            return ET.fromstring(text)  # noqa: S314 -- nothing is declared in it
    raise InputError(f"{name} is no index of tiles that can be read: its XML is not plain")


def _sources_of(text: str, name: str) -> Iterator[str]:
    """The rasters that a VRT of this name takes its pixels from."""
    # GDAL wrote this text from what it had parsed: it declares no entities.
    for element in ET.fromstring(text).iter():  # noqa: S314
        if element.tag in _NAMES_A_SOURCE and element.text:
            yield source_file(element, name)


def dtype_of(dataset: rasterio.DatasetReader, band: int, label: str) -> str:
    """The numpy name of a band's type; ``InputError`` for complex numbers, which are no picture."""
    name = str(dataset.dtypes[band - 1])
    if name not in VRT_TYPES:
        raise InputError(
            f"{label}: its pixels are of type {name}; a picture of real numbers is needed"
        )
    return name
