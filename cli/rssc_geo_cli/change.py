"""``rssc-geo change``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import ChangeOptions, RunOptions, TargetOptions
from rssc_geo_cli.console import running, say, set_up_logging, show_result
from rssc_geo_cli.options import command

_SHOWN = 12
"""Number of transitions that are printed; the table has all."""


@command("change", TargetOptions, ChangeOptions, RunOptions)
@click.argument("paths", metavar="OLD NEW...", nargs=-1, required=True)
def change_command(
    target: TargetOptions, options: ChangeOptions, run: RunOptions, *, paths: tuple[str, ...]
) -> None:
    """Map what changed between OLD and NEW, and when in a longer series.

    All are rasters of one place, which need not share grid, CRS or resolution, or all are maps that
    `classify` made. The result has two layers, `change` (regions) and `cells`, styled for QGIS. A
    run over rasters that was stopped continues when the same command is given again.
    """
    set_up_logging(run)

    from rssc_geo.pipelines.change import change

    with running(run) as progress:
        result = change(paths, target.output, options, progress=progress)
    show_result(result.as_dict(), run, _tell)


def _tell(values: Mapping[str, Any]) -> None:
    from rssc_geo.output import area_in_words

    def words(area_m2: float) -> str:
        area, unit = area_in_words(area_m2)
        return f"{area:,.1f} {unit}"

    share = values["changed_m2"] / (values["compared_m2"] or 1.0)
    regions = f"{values['regions']} region{'' if values['regions'] == 1 else 's'}"
    say(
        f"{values['changed_cells']} of {values['cells']} cells changed in {regions},"
        f" {words(values['changed_m2'])} ({share:.1%}), {values['seconds']:.1f} s"
    )
    moved = [row for row in values["transitions"] if row["before"] != row["after"]]
    width = max((len(row["name"]) for row in moved[:_SHOWN]), default=0)
    for row in moved[:_SHOWN]:
        say(f"  {row['name']:<{width}} {words(row['area_m2']):>12} {row['share']:>6.1%}")
    if len(moved) > _SHOWN:
        say(f"  and {len(moved) - _SHOWN} more")
    for path in values["outputs"]:
        click.echo(path)
