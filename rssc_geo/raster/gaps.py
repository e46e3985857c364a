"""Gaps between the tiles of a mosaic: pixels that no tile covers, which GDAL reads as 0.

A virtual raster (VRT) or tile index (GTI) with a nodata value or a mask marks its gaps by that. For
other VRTs the places of tiles are read from the XML; for other indexes GDAL makes a mask.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from xml.etree import ElementTree as ET

import rasterio
import shapely
from rasterio.enums import MaskFlags

from rssc_geo.raster.gdal import GDAL_ERRORS
from rssc_geo.raster.virtual import (
    MOST_NESTED,
    SIDES,
    Rectangle,
    VrtBand,
    VrtSource,
    may_name_others,
    source_file,
    vrt_text,
    with_mask,
)

_WHOLE = (
    '<VRTDataset rasterXSize="1" rasterYSize="1"><VRTRasterBand dataType="Byte" band="1">'
    "<NoDataValue>255</NoDataValue></VRTRasterBand></VRTDataset>"
)
"""One pixel of 255: GDAL fills a band that has no source with its nodata value."""
_WITH_MASK = (("MASK_BAND", "YES"),)
_ROUNDING = 1e-3  # GDAL's tolerance for the pixels that a tile touches


def with_mask_of_gaps(
    dataset: rasterio.DatasetReader, name: str, bands: Sequence[int]
) -> VrtSource | None:
    """How to open a mosaic so that it has a mask, 255 where tiles cover all of the bands.

    Parameters
    ----------
    dataset, name : the mosaic, which has no mask of its own, and the name by which GDAL opens it
    bands : 1-based

    Returns the mask, a band of what is to be opened; None where there are no gaps.
    """
    if dataset.driver == "GTI":
        return VrtSource(name, "mask,1", options=_WITH_MASK)
    found = [_covered(dataset, name, band, depth=0) for band in bands]
    masks = tuple(dict.fromkeys(mask for mask in found if mask is not None))
    if not masks:
        return None
    text = dataset.tags(ns="xml:VRT")["xml:VRT"]
    return VrtSource(with_mask(text, dataset.name, VrtBand(masks)), "mask,1")


def _covered(
    dataset: rasterio.DatasetReader, name: str, band: int, *, depth: int
) -> VrtSource | None:
    """The mask of a band of a mosaic by its tiles; None: no gaps are known."""
    if dataset.driver == "GTI":
        return VrtSource(name, "mask,1", options=_WITH_MASK)
    text = dataset.tags(ns="xml:VRT").get("xml:VRT") if dataset.driver == "VRT" else None
    if text is None or depth == MOST_NESTED:
        return None
    # GDAL wrote this text from what it had parsed: it declares no entities.
    root = ET.fromstring(text)  # noqa: S314
    tiles = list(_tiles(root.findall("VRTRasterBand")[band - 1], dataset, depth=depth))
    # Other kinds (warped, pansharpened) have no tiles.
    if root.get("subClass") or not tiles or _cover(tiles, dataset):
        return None
    return VrtSource(vrt_text(dataset, [VrtBand(tuple(tiles), mosaic=True)]), "1")


def _tiles(band: ET.Element, dataset: rasterio.DatasetReader, *, depth: int) -> Iterator[VrtSource]:
    """Masks of a band's tiles, each where the tile lies."""
    for source in band:
        file = source.find("SourceFilename")
        part, place = _rectangle(source, "SrcRect"), _rectangle(source, "DstRect")
        if file is None or (part is None) != (place is None):
            continue  # GDAL reads nothing of a single one
        path = source_file(file, dataset.name)
        if part is None or place is None:
            part = place = _whole(source, path)
        number = source.findtext("SourceBand") or "1"
        inside = None
        if number.isdecimal():
            inside = _covered_within(path, int(number), depth=depth + 1)
        if inside is None:
            yield VrtSource(_WHOLE, "1", part=(0, 0, 1, 1), place=place)
        else:
            yield replace(inside, part=part, place=place)


def _whole(source: ET.Element, path: str) -> Rectangle:
    """All of a tile."""
    told = source.find("SourceProperties")
    if told is not None:
        return 0, 0, float(told.get("RasterXSize", "0")), float(told.get("RasterYSize", "0"))
    with rasterio.open(path) as tile:
        return 0, 0, tile.width, tile.height


def _covered_within(path: str, band: int, *, depth: int) -> VrtSource | None:
    """The mask of a tile that is a mosaic itself; None: it has no gaps."""
    if not (may_name_others(path) or path.lower().endswith(".vrt")):
        return None
    with contextlib.suppress(*GDAL_ERRORS, OSError), rasterio.open(path) as tile:
        if MaskFlags.per_dataset in tile.mask_flag_enums[band - 1]:
            return VrtSource(path, "mask,1")
        return _covered(tile, path, band, depth=depth)
    return None


def _cover(tiles: Sequence[VrtSource], dataset: rasterio.DatasetReader) -> bool:
    """Whether tiles that have no gaps themselves leave no pixel out."""
    places = [tile.place for tile in tiles if tile.path == _WHOLE and tile.place is not None]
    boxes = [
        shapely.box(
            math.floor(col + _ROUNDING),
            math.floor(row + _ROUNDING),
            math.ceil(col + cols - _ROUNDING),
            math.ceil(row + rows - _ROUNDING),
        )
        for col, row, cols, rows in places
    ]
    whole = shapely.box(0, 0, dataset.width, dataset.height)
    return bool(shapely.union_all(boxes).covers(whole))


def _rectangle(source: ET.Element, tag: str) -> Rectangle | None:
    found = source.find(tag)
    if found is None:
        return None
    col, row, cols, rows = (float(found.get(key, "0")) for key in SIDES)
    return col, row, cols, rows
