"""``rssc-geo caption``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import CaptionOptions, CaptionSourceOptions, RunOptions, TargetOptions
from rssc_geo_cli.console import running, say, show_result
from rssc_geo_cli.options import command, raster_argument, source_of


@command("caption", CaptionSourceOptions, TargetOptions, CaptionOptions, RunOptions)
@raster_argument
def caption_command(
    source: CaptionSourceOptions,
    target: TargetOptions,
    options: CaptionOptions,
    run: RunOptions,
    *,
    raster: str | None,
) -> None:
    """Describe the tiles of RASTER in words.

    With --pictures those of a data set, for `train --captions`. The result is a .gpkg (a polygon a
    cell) or a .jsonl (a line a tile). Captions of hf: and openai: captioners are kept in a cache
    that `classify` uses too: a run that was stopped continues when the same command is given again.
    """
    scene = source_of(raster, source)
    with running(run) as progress:
        if source.pictures:
            from rssc_geo.training import caption_pictures

            result = caption_pictures(str(scene), target.output, options, progress=progress)
        else:
            from rssc_geo.pipelines.caption import caption

            result = caption(scene, target.output, options, progress=progress)
    show_result(result.as_dict(), run, _tell)


def _tell(values: Mapping[str, Any]) -> None:
    say(f"{values['tiles']} tiles captioned, {values['seconds']:.1f} s")
    click.echo(values["outputs"][0])
