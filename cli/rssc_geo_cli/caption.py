"""``rssc-geo caption``."""

from __future__ import annotations

from typing import Any

import click

from rssc_geo_cli.captioning import captioner_option, captioning_options, take_caption_options
from rssc_geo_cli.mapping import compute_options
from rssc_geo_cli.options import (
    model_options,
    run_options,
    scene_options,
    set_up_logging,
    source_of,
    stretch_options,
)
from rssc_geo_cli.progress import Reporter, exit_on_stdin_eof, show_result

_OF_PICTURES = ("model", "revision", "captioner", "device", "dtype", "batch_size", "overwrite")


@click.command("caption")
@scene_options
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="Result: .gpkg (a polygon a cell) or .jsonl (a line a tile).",
)
@click.option(
    "--pictures",
    is_flag=True,
    help="RASTER is a folder of pictures, one folder a class; writes a line a picture.",
)
@captioner_option
@captioning_options
@model_options
@stretch_options
@compute_options
@click.option("--crs", metavar="CRS", help="CRS of the GeoPackage. Default: the raster's.")
@click.option("--overwrite", is_flag=True, help="Replace an existing result.")
@run_options
def command(
    *,
    raster: str | None,
    bands_from: tuple[str, str, str] | None,
    pictures: bool,
    output: str,
    progress: str,
    watch_stdin: bool,
    as_json: bool,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Describe the tiles of RASTER in words, or with --pictures those of a data set, for `train
    --captions`.

    Captions of hf: and openai: captioners are kept in a cache that `classify` uses too: a run that
    was stopped goes on when the same command is given again.
    """
    set_up_logging(verbose=verbose, quiet=quiet)
    source = source_of(raster, bands_from)
    if watch_stdin:
        exit_on_stdin_eof()
    caption_options = take_caption_options(options)

    with Reporter(progress, quiet=quiet) as reporter:
        common: dict[str, Any] = {"caption_options": caption_options, "progress": reporter}
        if pictures:
            from rssc_geo.training.caption_pictures import caption_pictures

            chosen = {name: options[name] for name in _OF_PICTURES}
            result = caption_pictures(str(source), output, **common, **chosen)
        else:
            from rssc_geo.pipelines.caption import caption

            result = caption(source, output, **common, **options)
    show_result(result.as_dict(), progress=progress, as_json=as_json, quiet=quiet, tell=_tell)


def _tell(values: dict[str, Any]) -> None:
    click.echo(f"{values['tiles']} tiles captioned, {values['seconds']:.1f} s")
    click.echo(values["outputs"][0])
