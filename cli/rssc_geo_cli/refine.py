"""``rssc-geo refine``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import PrintOptions, RefineOptions, TargetOptions
from rssc_geo_cli.console import echo_areas, say, show_result
from rssc_geo_cli.options import command


@command("refine", TargetOptions, RefineOptions, PrintOptions)
@click.argument("map_path", metavar="MAP", type=click.Path())
def refine_command(
    target: TargetOptions, options: RefineOptions, printing: PrintOptions, *, map_path: str
) -> None:
    """Derive another map from MAP: another legend, fewer classes, smoother or larger regions.

    It is made from the cells of MAP, without raster or model.
    """
    from rssc_geo.pipelines.refine import refine

    result = refine(map_path, target.output, options)
    show_result(result.as_dict(), printing, _tell)


def _tell(values: Mapping[str, Any]) -> None:
    say(f"{values['cells']} cells in {values['regions']} regions")
    echo_areas({entry["name"]: entry["area_m2"] for entry in values["classes"]})
    for path in values["outputs"]:
        click.echo(path)
