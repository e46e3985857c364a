"""``rssc-geo explain``."""

from __future__ import annotations

from typing import Any

import click

from rssc_geo_cli.options import (
    Numbers,
    model_options,
    run_options,
    scene_options,
    set_up_logging,
    source_of,
    stretch_options,
)
from rssc_geo_cli.progress import Reporter, exit_on_stdin_eof, show_result


@click.command("explain")
@scene_options
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FOLDER",
    help="Folder of pictures and heat maps, with explain.gpkg.",
)
@click.option(
    "--at",
    multiple=True,
    type=Numbers(float, count=2, metavar="X,Y"),
    help="Explain the cell under a point; may be repeated.",
)
@click.option(
    "--at-crs",
    metavar="CRS",
    help="CRS of the points (EPSG:4326: longitude,latitude). Default: the raster's.",
)
@click.option(
    "--result",
    metavar="FILE",
    help="A map that classify wrote of RASTER: explain some of its cells.",
)
@click.option(
    "--cells",
    type=int,
    metavar="N",
    help="So many cells of it, the least certain ones. Default: 20.",
)
@click.option(
    "--where",
    metavar="FILTER",
    help="Only cells that fit, such as \"confidence < 0.5 AND class = 'Port'\".",
)
@stretch_options
@click.option("--captioner", help="As for classify.")
@model_options
@click.option("--device", help="cpu, cuda, cuda:1, mps. Default: the fastest there is.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier explanation.")
@run_options
def command(
    *,
    raster: str | None,
    bands_from: tuple[str, str, str] | None,
    output: str,
    progress: str,
    watch_stdin: bool,
    as_json: bool,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Show why cells of RASTER are given their class.

    For every cell a picture (the tile, what spoke for its class and against it, where the network
    looked, the words of the caption), a georeferenced heat map, and a feature with the top words in
    explain.gpkg. What they mean and what they do not: docs/explain.md.
    """
    set_up_logging(verbose=verbose, quiet=quiet)
    if watch_stdin:
        exit_on_stdin_eof()

    from rssc_geo.pipelines.explain import explain

    with Reporter(progress, quiet=quiet) as reporter:
        result = explain(source_of(raster, bands_from), output, progress=reporter, **options)
    show_result(result.as_dict(), progress=progress, as_json=as_json, quiet=quiet, tell=_tell)


def _tell(values: dict[str, Any]) -> None:
    """A line a cell for people."""
    for cell in values["cells"]:
        words = f"  {cell['top_words']}" if cell["top_words"] else ""
        click.echo(
            f"{cell['panel']}  {cell['class']} {cell['confidence']:.0%}, then"
            f" {cell['runner_up']}{words}"
        )
    click.echo(values["index"])
