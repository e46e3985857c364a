"""``rssc-geo change``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import ChangeOptions, RunOptions, TargetOptions
from rssc_geo_cli.console import running, say, show_result
from rssc_geo_cli.options import command

_SHOWN = 12
"""Number of transitions that are printed; the table has all."""


@command("change", TargetOptions, ChangeOptions, RunOptions)
@click.argument("paths", metavar="OLD NEW...", nargs=-1, required=True, type=click.Path())
def change_command(
    target: TargetOptions, options: ChangeOptions, run: RunOptions, *, paths: tuple[str, ...]
) -> None:
    """Map what changed between OLD and NEW, and when in a longer series.

    All are rasters of one place, which need not share grid, CRS or resolution, or all are maps that
    `classify` made. The result has two layers, `change` (regions) and `cells`, styled for QGIS. A
    run over rasters that was stopped continues when the same command is given again.
    """
    from rssc_geo.pipelines.change import change

    with running(run) as progress:
        result = change(paths, target.output, options, progress=progress)
    show_result(result.as_dict(), run, _tell)


def _tell(values: Mapping[str, Any]) -> None:
    from rssc_geo.output import area_in_words

    def words(area_m2: float) -> str:
        area, unit = area_in_words(area_m2)
        return f"{area:,.1f} {unit}"

    def share(area_m2: float) -> float:
        return area_m2 / float(values["compared_m2"] or 1.0)

    found = values["class_change"]
    regions = f"{found['regions']} region{'' if found['regions'] == 1 else 's'}"
    within = found["within_group_m2"]
    part = f", {words(within)} of it within a group" if within else ""
    say(
        f"{found['cells']} of {values['cells']} cells changed their class, in {regions},"
        f" {words(found['area_m2'])} ({share(found['area_m2']):.1%}){part};"
        f" {values['seconds']:.1f} s"
    )
    moved = [row for row in values["transitions"] if row["before"] != row["after"]]
    lines = [(row["name"], row["area_m2"]) for row in moved[:_SHOWN]]
    if values["changed_cells"] > found["cells"]:
        lines.append(("other ground of its class", values["changed_m2"] - found["area_m2"]))
    width = max((len(name) for name, _ in lines), default=0)
    for name, area_m2 in lines:
        say(f"  {name:<{width}} {words(area_m2):>12} {share(area_m2):>6.1%}")
    if len(moved) > _SHOWN:
        say(f"  and {len(moved) - _SHOWN} more changes of class")
    for path in values["outputs"]:
        click.echo(path)
