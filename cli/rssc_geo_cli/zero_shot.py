"""``rssc-geo zero-shot``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from rssc_geo_cli.mapping import map_land_use, mapping_options
from rssc_geo_cli.options import read_words, scene_options, source_of

if TYPE_CHECKING:
    from rssc_geo.models import Model


@click.command("zero-shot")
@scene_options
@click.option(
    "--classes",
    required=True,
    metavar="A,B,…",
    help="Names of the classes, or a JSON file: {name: [words, …]}.",
)
@click.option(
    "--other/--no-other",
    default=True,
    show_default=True,
    help="Also a class for what is none of these.",
)
@click.option(
    "--refine",
    is_flag=True,
    help="Move the classes towards the clusters of this raster's tiles (looks twice).",
)
@mapping_options
def command(*, classes: str, other: bool, refine: bool, **options: Any) -> None:
    """Map RASTER into classes that are named by words.

    Every cell gets the class whose words are most like it, or "other" where it is more like one of
    the model's own classes. Name what there is, not only what you look for.
    """
    from rssc_geo.inference import TilingOptions
    from rssc_geo.models import name_classes
    from rssc_geo.pipelines import refine_classes

    named = _read(classes)

    def prepare(model: Model) -> Model:
        chosen = name_classes(model, named, other=other)
        if not refine:
            return chosen
        source = source_of(options["raster"], options["bands_from"])
        return refine_classes(
            chosen, source, **{name: options[name] for name in TilingOptions.__slots__}
        )

    map_land_use(prepare=prepare, **options)


def _read(text: str) -> Mapping[str, list[str]] | list[str]:
    """The names, or the names and their words."""
    if not text.lower().endswith(".json"):
        return [name.strip() for name in text.split(",") if name.strip()]
    return read_words(text)
