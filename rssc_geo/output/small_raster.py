"""Rasters of a tile's size: chips, heat maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from rasterio.io import DatasetWriter

from rssc_geo.files import write_error
from rssc_geo.raster import GDAL_ERRORS


@contextmanager
def small_raster(path: Path, profile: Mapping[str, Any]) -> Iterator[DatasetWriter]:
    """A raster to write, which is read back at the end.

    GDAL tells nobody when the disk is full as it closes a file, and leaves half of it. Raises
    ``OutputError`` where it cannot be written.
    """
    try:
        with rasterio.open(path, "w", **profile) as raster:
            yield raster
        with rasterio.open(path) as raster:
            raster.read()
    except (*GDAL_ERRORS, OSError) as error:
        raise write_error(path, str(error)) from error
