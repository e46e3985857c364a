"""All files that a raster consists of, those behind virtual rasters (VRT) included."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import rasterio
from rasterio.errors import RasterioError

from rssc_geo.raster.opening import gdal_env, is_remote

_BEGINNING = 4096
_VIRTUAL = (b"<VRTDataset", b"<GDALTileIndexDataset")


def all_files(files: Iterable[str]) -> tuple[str, ...]:
    """The files with those that virtual rasters among them are made of, to any depth.

    GDAL names the files of one level only. Each comes once, in the order in which it is met.
    """
    found = dict.fromkeys(files)
    left = list(found)
    while left:
        name = left.pop()
        if not _is_virtual(name):
            continue
        for inner in _files_of(name):
            if inner not in found:
                found[inner] = None
                left.append(inner)
    return tuple(found)


def _is_virtual(name: str) -> bool:
    if is_remote(name):
        return name.lower().endswith(".vrt")
    try:
        with Path(name).open("rb") as file:
            beginning = file.read(_BEGINNING)
    except (OSError, ValueError):
        return False
    return any(mark in beginning for mark in _VIRTUAL)


def _files_of(name: str) -> list[str]:
    """What GDAL names; nothing for a virtual raster that cannot be opened by itself."""
    with contextlib.suppress(RasterioError, OSError), gdal_env(name), rasterio.open(name) as inner:
        return [str(file) for file in inner.files]
    return []
