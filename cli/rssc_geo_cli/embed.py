"""``rssc-geo embed``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import EmbedOptions, RunOptions, TargetOptions
from rssc_geo_cli.console import running, say, show_result
from rssc_geo_cli.options import command


@command("embed", TargetOptions, EmbedOptions, RunOptions)
@click.argument("rasters", metavar="RASTER...", nargs=-1, required=True, type=click.Path())
def embed_command(
    target: TargetOptions,
    options: EmbedOptions,
    run: RunOptions,
    *,
    rasters: tuple[str, ...],
) -> None:
    """Write the cells of each RASTER with their embeddings as GeoParquet.

    One row a cell: scene, date, class, caption, outline, and a vector in the space that pictures
    and words share. GeoPandas and DuckDB read the table. A run that was stopped continues when the
    same command is given again.
    """
    from rssc_geo.pipelines.embed import embed

    with running(run) as progress:
        result = embed(rasters, target.output, options, progress=progress)
    show_result(result.as_dict(), run, _tell)


def _tell(values: Mapping[str, Any]) -> None:
    scenes = values["scenes"]
    say(
        f"{values['rows']} cells of {scenes} scene{'s' * (scenes != 1)},"
        f" {values['width']} numbers each, {values['seconds']:.1f} s"
    )
    for path in values["outputs"]:
        click.echo(path)
