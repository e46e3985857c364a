"""``rssc-geo info``."""

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


@click.command("info")
@scene_options
@stretch_options
@model_options
@json_option
@log_options
def command(
    *,
    raster: str | None,
    bands_from: tuple[str, str, str] | None,
    model: str,
    revision: str | None,
    as_json: bool,
    verbose: int,
    quiet: bool,
    **tiling: Any,
) -> None:
    """Show what the program sees in RASTER and what `classify` would do with it."""
    set_up_logging(verbose=verbose, quiet=quiet)

    from rssc_geo.inference import TilingOptions, describe_plan, make_plan
    from rssc_geo.models import load_card
    from rssc_geo.raster import fit_radiometry

    card = load_card(model, revision=revision)
    plan = make_plan(source_of(raster, bands_from), card, TilingOptions(**tiling))
    values = describe_plan(plan, card, fit_radiometry(plan.scene, stretch=tiling["stretch"]))
    if as_json:
        print_json(values)
        return
    width = max(len(key) for key in values)
    for key, value in values.items():
        for line in value if isinstance(value, list) and key == "warnings" else [value]:
            click.echo(f"{key.replace('_', ' '):<{width}}  {_text(line)}")


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
