"""The options of ``rssc-geo train`` for the whole network at full size."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rssc_geo_cli.options import apply_options

if TYPE_CHECKING:
    from rssc_geo.training import FullRecipe


class _Layers(click.ParamType["int | None"]):
    """``none``, ``all`` or a number: 0, None or that."""

    name = "none|K|all"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        words = {"none": 0, "all": None}
        if value in words:
            return words[value]
        if not str(value).isdecimal():
            self.fail(f"{value!r} is not {self.name}", param, ctx)
        return int(value)


_NAMES = (
    "captions",
    "epochs",
    "batch_size",
    "accumulate",
    "clip",
    "patience",
    "silent",
    "levels",
    "width",
    "workers",
)
_FLAGS = ("checkpointing", "compile")

full_options = apply_options(
    click.option(
        "--recipe", type=click.Choice(["stages", "full", "published"]),
        help="stages: encoder, captioner, fusion (default); full: the whole network end to end (default with --text-encoder); "
        "published: the same with the paper's settings.",
    ),
    click.option("--text-encoder", metavar="NAME", help="Full size: folder or hub id of a transformers text encoder or CLIP."),
    click.option("--captions", type=click.Path(path_type=Path), metavar="FILE", help="Full size: JSON Lines of captions."),
    click.option("--train-image-layers", "image_layers", type=_Layers(), default="all", help="Full size: which learn."),
    click.option("--train-text-layers", "text_layers", type=_Layers(), default="all", help="Full size: which learn."),
    click.option("--epochs", type=int, help="Full size: at most so many."),
    click.option("--batch-size", type=int, help="Full size: pictures a step, over all GPUs."),
    click.option("--accumulate", type=int, help="Full size: parts that each GPU's share of a batch is computed in."),
    click.option("--clip", type=float, help="Full size: largest norm of the gradient."),
    click.option("--patience", type=int, help="Full size: epochs without a better validation accuracy before the end."),
    click.option("--silent", type=float, help="Full size: share of pictures shown without their caption."),
    click.option("--levels", type=int, help="Full size: of the dual attention."),
    click.option("--width", type=int, help="Full size: of the dual attention."),
    click.option("--checkpointing", is_flag=True, help="Full size: compute activations twice to save memory."),
    click.option("--compile", is_flag=True, help="Full size: compile the network."),
    click.option("--workers", type=int, help="Full size: processes that prepare batches."),
)  # fmt: skip


def take_full_options(options: dict[str, Any]) -> dict[str, Any]:
    """Remove from a command's values, and return, what only concerns training at full size."""
    return {
        name: options.pop(name)
        for name in ("recipe", "text_encoder", "image_layers", "text_layers", *_NAMES, *_FLAGS)
    }


def full_recipe(
    chosen: dict[str, Any],
    *,
    image_encoder: str | None,
    weights: Path | None,
    start: str,
    learning_rate: float | None,
) -> FullRecipe | None:
    """The recipe that the options ask for; None: by stages.

    ``UsageError`` where they contradict each other.
    """
    from rssc_geo.errors import UsageError
    from rssc_geo.training import PUBLISHED, FullRecipe

    kind = chosen["recipe"] or ("full" if chosen["text_encoder"] else "stages")
    given = {name: chosen[name] for name in _NAMES if chosen[name] is not None}
    given |= {name: True for name in _FLAGS if chosen[name]}
    if kind == "stages":
        if given or chosen["text_encoder"]:
            named = ", ".join(f"--{name.replace('_', '-')}" for name in given) or "--text-encoder"
            raise UsageError(
                f"{named}: only for training at full size, with --text-encoder or --recipe full"
            )
        return None
    recipe = PUBLISHED if kind == "published" else FullRecipe()
    if image_encoder or chosen["text_encoder"]:
        given["image_encoder"] = image_encoder or recipe.image_encoder
        given["text_encoder"] = chosen["text_encoder"] or recipe.text_encoder
    elif start != "compact":
        given |= {"image_encoder": None, "text_encoder": None}
    if learning_rate is not None:
        given["learning_rate"] = learning_rate
    layers = {"image_layers": chosen["image_layers"], "text_layers": chosen["text_layers"]}
    return dataclasses.replace(recipe, weights=weights, **layers, **given)
