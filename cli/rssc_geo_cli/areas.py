"""``rssc-geo areas``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import AreasOptions, PrintOptions, TargetOptions
from rssc_geo_cli.console import echo_areas, say, show_result
from rssc_geo_cli.options import command


@command("areas", TargetOptions, AreasOptions, PrintOptions)
@click.argument("map_path", metavar="MAP", type=click.Path())
def areas_command(
    target: TargetOptions, options: AreasOptions, printing: PrintOptions, *, map_path: str
) -> None:
    """Write the area of each class of MAP: as a whole, in zones, adjusted for its errors.

    The result is a table, CSV. A cell that a zone cuts counts in part, by its area.
    """
    from rssc_geo.pipelines.tabulate_areas import tabulate_areas

    result = tabulate_areas(map_path, target.output, options)
    show_result(result.as_dict(), printing, _tell)


def _tell(values: Mapping[str, Any]) -> None:
    zones: dict[str, dict[str, float]] = {}
    for row in values["areas"]:
        zones.setdefault(row["zone"], {})[row["name"]] = row["area_m2"]
    for zone, areas in zones.items():
        if len(zones) > 1:
            say(zone)
        echo_areas(areas)
    for path in values["outputs"]:
        click.echo(path)
