"""``rssc-geo models``."""

from __future__ import annotations

import json

import click

from rssc_geo_cli.options import json_option, print_json


@click.group("models")
def command() -> None:
    """List model bundles, show a model's card."""


@command.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """Show the models that come with the program."""
    from rssc_geo.models.bundle import embedded_names, load_card

    cards = [load_card(name) for name in embedded_names()]
    if as_json:
        print_json(
            [{"name": c.name, "version": c.version, "description": c.description, "classes": len(c.classes)} for c in cards]
        )
        return
    for card in cards:
        click.echo(f"{card.name} {card.version}: {card.description}")


@command.command("info")
@click.argument("model", default="compact")
@click.option("--revision", help="Revision of a hub id.")
@json_option
def info(*, model: str, revision: str | None, as_json: bool) -> None:
    """Show the card of MODEL (embedded name, bundle folder or hub id)."""
    from rssc_geo.models.bundle import load_card

    card = load_card(model, revision=revision)
    if as_json:
        print_json(json.loads(card.to_json()))
        return
    low, high = card.gsd_range_m
    click.echo(f"{card.name} {card.version} ({card.licence}): {card.description}")
    click.echo(f"input      {card.input_size[0]} x {card.input_size[1]} pixels, bands {', '.join(card.bands)}")
    click.echo(
        f"footprint  {card.footprint.minimum_m:g} to {card.footprint.maximum_m:g} m, preferred {card.footprint.preferred_m:g} m; "
        f"rasters of {low:g} to {high:g} m a pixel"
    )
    for part, values in card.accuracy.items():
        click.echo(f"{part:<10} " + ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in values.items()))
    click.echo("classes    " + ", ".join(c.name for c in card.classes))
