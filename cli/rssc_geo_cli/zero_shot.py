"""``rssc-geo zero-shot``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rssc_geo_cli.mapping import map_land_use, mapping_options
from rssc_geo_cli.options import scene_options


@click.command("zero-shot")
@scene_options
@click.option("--classes", required=True, metavar="A,B,…", help="Names of the classes, or a JSON file: {name: [words, …]}.")
@mapping_options
def command(*, classes: str, **options: Any) -> None:
    """Map RASTER into classes that are named by words.

    Every cell gets the class whose words are most like it: name what there is, not only what you look for.
    """
    from rssc_geo.zeroshot import name_classes

    named = _read(classes)
    map_land_use(prepare=lambda model: name_classes(model, named), **options)


def _read(text: str) -> dict[str, list[str]] | list[str]:
    """The names, or the names and their words."""
    from rssc_geo.errors import InputError

    if not text.lower().endswith(".json"):
        return [name.strip() for name in text.split(",") if name.strip()]
    try:
        values = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{text} cannot be read as JSON: {error}") from error
    alike = isinstance(values, dict) and all(
        isinstance(words, list) and all(isinstance(word, str) for word in words) for words in values.values()
    )
    if not alike:
        raise InputError(f'{text}: expected {{"class": ["word or phrase", …], …}}')
    return {str(name): words for name, words in values.items()}
