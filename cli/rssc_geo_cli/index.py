"""``rssc-geo index``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import IndexOptions, ScenesRunOptions, TargetOptions
from rssc_geo.progress import duration
from rssc_geo_cli.batch import exit_code, print_progress, silence_dask
from rssc_geo_cli.console import end_with_parent, say, show_result, wants_bar
from rssc_geo_cli.options import command


@command("index", TargetOptions, IndexOptions, ScenesRunOptions)
@click.argument("inputs", nargs=-1, required=True, type=click.Path())
def index_command(
    target: TargetOptions,
    options: IndexOptions,
    run: ScenesRunOptions,
    *,
    inputs: tuple[str, ...],
) -> int:
    """Make an archive of INPUTS that `search` looks through, or add them to it.

    INPUTS are those of `batch run`: rasters, URLs, globs, folders, manifests, STAC .json, tile
    indexes. The result is a folder. The same command given again continues where it stopped, and
    processes only scenes that are new or have changed.
    """
    if run.verbose < 2 and options.scheduler is not None:
        silence_dask()

    from rssc_geo.archive.index import index

    end_with_parent(run)
    progress = print_progress if run.progress == "json" else wants_bar(run)
    values = index(inputs, target.output, options, progress=progress).as_dict()
    show_result(values, run, _tell)
    return exit_code(values, run, scenes=values["scenes"])


def _tell(values: Mapping[str, Any]) -> None:
    held = values["archive"]
    say(
        f"{values['done']} of {values['scenes']} scenes done ({values['skipped']} before),"
        f" {held['added']} added now, {duration(values['seconds'])}"
    )
    say(f"the archive holds {held['cells']} cells of {held['scenes']} scenes")
    for path in values["outputs"]:
        click.echo(path)
