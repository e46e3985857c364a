"""The time of acquisition of a scene, by its tags."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import rasterio

from rssc_geo.raster.gdal import GDAL_ERRORS, gdal_env
from rssc_geo.raster.scene import Scene


def acquired(scene: Scene) -> datetime | None:
    """The time in GDAL's tags, in UTC; None where they have none.

    First the acquisition that drivers of satellite products read (``ACQUISITIONDATETIME`` of the
    ``IMAGERY`` domain), then the TIFF's own ``DateTime``, which knows no zone.
    """
    # By its own name: a file may hold several rasters, such as the pages of a TIFF. Several files
    # have none in common.
    name = scene.files[0] if ", " in scene.source else scene.source
    with (
        contextlib.suppress(*GDAL_ERRORS, OSError),
        gdal_env(name),
        rasterio.open(name) as raster,
    ):
        imagery = _moment(raster.tags(ns="IMAGERY").get("ACQUISITIONDATETIME", ""))
        return imagery or _moment(raster.tags().get("TIFFTAG_DATETIME", ""))
    return None


def _moment(text: str) -> datetime | None:
    """An ISO date and time, or TIFF's with colons in the date (TIFF 6.0, section 8)."""
    date, _, time = text.strip().replace("T", " ").partition(" ")
    try:
        moment = datetime.fromisoformat(f"{date.replace(':', '-')} {time}".strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):  # a zone can lead out of the years 1 to 9999
        return None
