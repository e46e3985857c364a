"""``rssc-geo classify``."""

from __future__ import annotations

from typing import Any

import click

from rssc_geo_cli.captioning import (
    caption_when_option,
    captioner_option,
    captioning_options,
    take_caption_options,
)
from rssc_geo_cli.mapping import map_land_use, mapping_options
from rssc_geo_cli.options import scene_options


@click.command("classify")
@scene_options
@captioner_option
@caption_when_option
@captioning_options
@mapping_options
def command(**options: Any) -> None:
    """Classify RASTER into land-use polygons.

    Writes two layers, `landuse` (regions) and `cells` (one polygon a cell, with its caption),
    styled for QGIS. A run that was stopped goes on when the same command is given again.
    """
    map_land_use(caption_options=take_caption_options(options), **options)
