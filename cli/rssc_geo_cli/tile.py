"""``rssc-geo tile``."""

from __future__ import annotations

from typing import Any

import click

from rssc_geo_cli.options import (
    json_option,
    log_options,
    model_options,
    print_json,
    scene_options,
    set_up_logging,
    source_of,
    stretch_options,
)
from rssc_geo_cli.progress import Reporter


@click.command("tile")
@scene_options
@stretch_options
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    metavar="FOLDER",
    help="Folder of chips; its index is tiles.gpkg.",
)
@click.option(
    "--size",
    "size_px",
    type=int,
    metavar="PIXELS",
    help="Side of a chip. Default: the tile's own pixels.",
)
@click.option(
    "--format",
    "image_format",
    default="tif",
    show_default=True,
    help="tif, or png with a world file.",
)
@model_options
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
@json_option
@log_options
def command(
    *,
    raster: str | None,
    bands_from: tuple[str, str, str] | None,
    folder: str,
    as_json: bool,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Export the tiles of RASTER as georeferenced 8-bit chips with an index."""
    set_up_logging(verbose=verbose, quiet=quiet)

    from rssc_geo.pipelines.export_tiles import export_tiles

    with Reporter("auto", quiet=quiet) as reporter:
        done = export_tiles(source_of(raster, bands_from), folder, progress=reporter, **options)
    if as_json:
        print_json(
            {
                "folder": str(done.folder),
                "index": str(done.index),
                "chips": done.chips,
                "left_out": done.left_out,
            }
        )
    elif not quiet:
        click.echo(f"{done.chips} chips ({done.left_out} tiles left out: too few valid pixels)")
        click.echo(str(done.index))
