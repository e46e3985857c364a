"""``rssc-geo models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rssc_geo_cli.options import json_option, print_json


@click.group("models")
def command() -> None:
    """List model bundles, show a model's card, import the authors' checkpoints.

    The cache of captions.
    """


@command.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """Show the models that come with the program."""
    from rssc_geo.models import embedded_names, load_card

    cards = [load_card(name) for name in embedded_names()]
    if as_json:
        print_json(
            [
                {
                    "name": c.name,
                    "version": c.version,
                    "description": c.description,
                    "classes": len(c.classes),
                }
                for c in cards
            ]
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
    from rssc_geo.models import AS_PUBLISHED, load_card

    card = load_card(model, revision=revision)
    if as_json:
        print_json(json.loads(card.to_json()))
        return
    low, high = card.gsd_range_m
    click.echo(f"{card.name} {card.version} ({card.license}): {card.description}")
    click.echo(
        f"input      {card.input_size[0]} x {card.input_size[1]} pixels, bands"
        f" {', '.join(card.bands)}"
    )
    click.echo(
        f"footprint  {card.footprint.minimum_m:g} to {card.footprint.maximum_m:g} m, preferred"
        f" {card.footprint.preferred_m:g} m; rasters of {low:g} to {high:g} m a pixel"
    )
    if card.variant == AS_PUBLISHED:
        click.echo(
            "variant    as published by the authors, with its defects: for comparison, not for maps"
        )
    for part, values in card.accuracy.items():
        click.echo(
            f"{part:<10} "
            + ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in values.items())
        )
    click.echo("classes    " + ", ".join(c.name for c in card.classes))


@command.command("cache")
@click.option(
    "--info",
    "action",
    flag_value="info",
    default="info",
    help="Show where it lies and what it holds (default).",
)
@click.option("--clear", "action", flag_value="clear", help="Forget all captions.")
@json_option
def cache(*, action: str, as_json: bool) -> None:
    """Show or clear the cache of captions by large models; $RSSC_GEO_CACHE names its folder."""
    from rssc_geo.captioning import CaptionCache

    captions = CaptionCache()
    cleared = {"cleared": captions.clear()} if action == "clear" else {}
    values = {**cleared, **captions.info()}
    if as_json:
        print_json(values)
        return
    if action == "clear":
        click.echo(f"{values['cleared']} captions cleared")
    click.echo(f"{values['path']}: {values['captions']} captions, {values['bytes'] / 1e6:.1f} MB")
    for name, count in values["captioners"].items():
        click.echo(f"  {count:>8} {name}")


@command.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, metavar="DIR", help="The bundle to write.")
@click.option(
    "--classes",
    required=True,
    metavar="A,B,…|FILE",
    help="Class names in their order, or a file with one a line.",
)
@click.option(
    "--levels",
    type=int,
    required=True,
    help="Levels it was trained with; the published command has 2.",
)
@click.option(
    "--heads", type=int, default=4, show_default=True, help="Heads of the dual attention."
)
@click.option(
    "--variant",
    type=click.Choice(["as-published", "corrected"]),
    default="as-published",
    show_default=True,
    help="Their network with its defects, or ours with their weights, to train on.",
)
@click.option(
    "--tokenizer",
    default="openai/clip-vit-base-patch32",
    show_default=True,
    help="Folder or hub id of CLIP's tokenizer.",
)
@click.option("--name", help="Of the bundle. Default: the checkpoint's.")
@json_option
def import_(*, checkpoint: Path, output: str, classes: str, as_json: bool, **options: Any) -> None:
    """Make a bundle of CHECKPOINT, a state dict of the paper's code
    (github.com/CJR7/MultiAtt-RSSC).

    Nothing in the file is run. The bundle reads captions: give `classify` a --captioner.
    """
    from rssc_geo.models import import_checkpoint
    from rssc_geo.options import ImportOptions

    options["bundle_name"] = options.pop("name")
    card = import_checkpoint(
        checkpoint, output, classes=_class_names(classes), options=ImportOptions(**options)
    )
    if as_json:
        print_json(
            {
                "bundle": output,
                "name": card.name,
                "variant": card.variant,
                "classes": [c.name for c in card.classes],
            }
        )
    else:
        click.echo(output)


def _class_names(text: str) -> list[str]:
    """``a,b,c``, or the lines of a file of that name."""
    file = Path(text)
    parts = file.read_text(encoding="utf-8").splitlines() if file.is_file() else text.split(",")
    return [part.strip() for part in parts if part.strip()]
