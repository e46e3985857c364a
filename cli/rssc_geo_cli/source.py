"""The raster that a command works on: one file, or three single-band ones."""

from __future__ import annotations

import click

from rssc_geo.errors import UsageError
from rssc_geo.options import SourceOptions

raster_argument = click.argument("raster", required=False)


def source_of(raster: str | None, options: SourceOptions) -> str | tuple[str, ...]:
    """The one raster or the three files, exactly one of which must be given."""
    if bool(raster) == bool(options.bands_from):
        raise UsageError(
            "give a raster, or three single-band ones with --bands-from RED GREEN BLUE"
        )
    return options.bands_from or str(raster)
