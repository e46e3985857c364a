"""``rssc-geo explain``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import ExplainOptions, RunOptions, SourceOptions, TargetOptions
from rssc_geo_cli.console import running, say, show_result
from rssc_geo_cli.options import command, raster_argument, source_of


@command("explain", SourceOptions, TargetOptions, ExplainOptions, RunOptions)
@raster_argument
def explain_command(
    source: SourceOptions,
    target: TargetOptions,
    options: ExplainOptions,
    run: RunOptions,
    *,
    raster: str | None,
) -> None:
    """Show why cells of RASTER are given their class.

    For every cell a picture (the tile, evidence for and against its class, attention of the
    network, the words of the caption), a georeferenced heat map, and a feature with the top words
    in explain.gpkg. What they mean and what they do not: docs/explain.md.
    """
    scene = source_of(raster, source)

    from rssc_geo.pipelines.explain import explain

    with running(run) as progress:
        result = explain(scene, target.output, options, progress=progress)
    show_result(result.as_dict(), run, _tell)


def _tell(values: Mapping[str, Any]) -> None:
    """One line of text a cell."""
    for cell in values["cells"]:
        words = f"  {cell['top_words']}" if cell["top_words"] else ""
        then = f"{cell['class']} {cell['confidence']:.0%}, then {cell['runner_up']}"
        say(f"{cell['panel']}  {then}{words}")
    click.echo(values["index"])
