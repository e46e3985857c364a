"""``rssc-geo classify``."""

from __future__ import annotations

from typing import Any

import click

from rssc_geo_cli.mapping import map_land_use, mapping_options
from rssc_geo_cli.options import scene_options


@click.command("classify")
@scene_options
@click.option("--captioner", help="compact (the model's own, the default where it has one) or none.")
@mapping_options
def command(**options: Any) -> None:
    """Classify RASTER into land-use polygons.

    Writes two layers, `landuse` (regions) and `scenes` (one polygon a cell, with its caption), styled for QGIS. A run that
    was stopped goes on when the same command is given again.
    """
    map_land_use(**options)
