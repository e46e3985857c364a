"""``rssc-geo tile``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import RunOptions, SourceOptions, TargetOptions, TileOptions
from rssc_geo_cli.console import running, say, show_result
from rssc_geo_cli.options import command, raster_argument, source_of


@command("tile", SourceOptions, TargetOptions, TileOptions, RunOptions)
@raster_argument
def tile_command(
    source: SourceOptions,
    target: TargetOptions,
    options: TileOptions,
    run: RunOptions,
    *,
    raster: str | None,
) -> None:
    """Export the tiles of RASTER as georeferenced 8-bit chips.

    The result is a folder with an index, tiles.gpkg.
    """
    scene = source_of(raster, source)

    from rssc_geo.pipelines.export_tiles import export_tiles

    with running(run) as progress:
        result = export_tiles(scene, target.output, options, progress=progress)
    show_result(result.as_dict(), run, _tell)


def _tell(values: Mapping[str, Any]) -> None:
    left_out = f"{values['left_out']} tiles left out: too few valid pixels"
    say(f"{values['chips']} chips ({left_out})")
    click.echo(values["index"])
