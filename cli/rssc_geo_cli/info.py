"""``rssc-geo info``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from rssc_geo.options import InfoOptions, PrintOptions, SourceOptions, describe_options
from rssc_geo_cli.console import print_json, say, show_result
from rssc_geo_cli.options import command, raster_argument, source_of


@command("info", SourceOptions, InfoOptions, PrintOptions)
@raster_argument
def info_command(
    source: SourceOptions, options: InfoOptions, printing: PrintOptions, *, raster: str | None
) -> None:
    """Show how the program reads RASTER and what `classify` would do with it.

    With --json and without RASTER: print the version and the options of all commands, for programs
    that call this one.
    """
    if printing.json and not raster and not source.bands_from:
        print_json({"version": version("rssc-geo"), "options": describe_options()})
        return
    from rssc_geo.inference import describe_run, estimated_seconds, make_plan
    from rssc_geo.models import load_card

    card = load_card(options.model, revision=options.revision)
    plan = make_plan(source_of(raster, source), card, options)
    seconds = estimated_seconds(plan, card)
    values = describe_run(plan, card).as_dict()
    values["estimated_seconds_on_cpu"] = None if seconds is None else round(seconds, 1)
    show_result(values, printing, _tell)


def _tell(values: Mapping[str, Any]) -> None:
    width = max(len(key) for key in values)
    for key, value in values.items():
        for line in value if key == "warnings" else [value]:
            say(f"{key.replace('_', ' '):<{width}}  {_text(line)}")


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
