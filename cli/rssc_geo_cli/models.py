"""``rssc-geo models``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import (
    ClassNamesOptions,
    ImportOptions,
    ModelInfoOptions,
    PrintOptions,
    TargetOptions,
)
from rssc_geo_cli.console import print_json, say, show_result
from rssc_geo_cli.groups import CommandGroup
from rssc_geo_cli.options import command


@click.group("models", cls=CommandGroup)
def models_group() -> None:
    """List model bundles, show a model's card, import the authors' checkpoints.

    Also shows and clears the cache of captions.
    """


@command("list", PrintOptions)
def list_command(printing: PrintOptions) -> None:
    """Show the models that come with the program."""
    from rssc_geo.models import embedded_names, load_card

    cards = [load_card(name) for name in embedded_names()]
    if printing.json:
        rows = [
            {
                "name": card.name,
                "version": card.version,
                "description": card.description,
                "classes": len(card.classes),
            }
            for card in cards
        ]
        print_json(rows)
        return
    for card in cards:
        say(f"{card.name} {card.version}: {card.description}")


@command("info", ModelInfoOptions, PrintOptions)
@click.argument("model", default="compact", type=click.Path())
def info_command(options: ModelInfoOptions, printing: PrintOptions, *, model: str) -> None:
    """Show the card of MODEL (embedded name, bundle folder or hub id)."""
    from rssc_geo.models import load_card, write_model_item

    if options.stac_item is not None:
        made = write_model_item(
            model, options.stac_item, revision=options.revision, overwrite=options.overwrite
        )
        show_result({"outputs": [str(made)]}, printing, lambda _: click.echo(str(made)))
        return
    card = load_card(model, revision=options.revision)
    show_result(json.loads(card.to_json()), printing, _tell_card)


def _tell_card(card: Mapping[str, Any]) -> None:
    from rssc_geo.models import AS_PUBLISHED

    rows, cols = card["input_size"]
    footprint = card["footprint"]
    low, high = card["gsd_range_m"]
    say(f"{card['name']} {card['version']} ({card['license']}): {card['description']}")
    say(f"input      {rows} x {cols} pixels, bands {', '.join(card['bands'])}")
    say(
        f"footprint  {footprint['minimum_m']:g} to {footprint['maximum_m']:g} m, preferred"
        f" {footprint['preferred_m']:g} m; rasters of {low:g} to {high:g} m a pixel"
    )
    if card["network"].get("variant") == AS_PUBLISHED:
        say(
            "variant    as published by the authors, with its defects: for comparison, not for maps"
        )
    for part, values in card["accuracy"].items():
        told = ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in values.items())
        say(f"{part:<10} {told}")
    say("classes    " + ", ".join(entry["name"] for entry in card["classes"]))


@command("cache", PrintOptions)
@click.option(
    "--info",
    "action",
    flag_value="info",
    default="info",
    help="Show its path and what it holds (default).",
)
@click.option("--clear", "action", flag_value="clear", help="Delete all captions.")
def cache_command(printing: PrintOptions, *, action: str) -> None:
    """Show or clear the cache of captions by large models; $RSSC_GEO_CACHE names its folder."""
    from rssc_geo.captioning import CaptionCache

    captions = CaptionCache()
    cleared = {"cleared": captions.clear()} if action == "clear" else {}
    show_result({**cleared, **captions.info()}, printing, _tell_cache)


def _tell_cache(values: Mapping[str, Any]) -> None:
    if "cleared" in values:
        say(f"{values['cleared']} captions cleared")
    say(f"{values['path']}: {values['captions']} captions, {values['bytes'] / 1e6:.1f} MB")
    for name, count in values["captioners"].items():
        say(f"  {count:>8} {name}")


@command("import", TargetOptions, ClassNamesOptions, ImportOptions, PrintOptions)
@click.argument("checkpoint", type=click.Path())
def import_command(
    target: TargetOptions,
    names: ClassNamesOptions,
    options: ImportOptions,
    printing: PrintOptions,
    *,
    checkpoint: str,
) -> None:
    """Make a bundle of CHECKPOINT, a state dict of the paper's code.

    github.com/CJR7/MultiAtt-RSSC. Nothing in the file is run. The bundle reads captions: give
    `classify` a --captioner.
    """
    from rssc_geo.models import import_checkpoint
    from rssc_geo.pipelines import read_classes

    card = import_checkpoint(checkpoint, target.output, list(read_classes(names.classes)), options)
    values = {
        "bundle": target.output,
        "name": card.name,
        "variant": card.variant,
        "classes": [c.name for c in card.classes],
    }
    show_result(values, printing, lambda found: click.echo(found["bundle"]))


for made in (list_command, info_command, cache_command, import_command):
    models_group.add_command(made)
