"""The options of ``rssc-geo train`` for training end to end."""

from __future__ import annotations

from typing import Any

import click

from rssc_geo_cli.options import apply_options


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


END_TO_END = (
    "recipe",
    "text_encoder",
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
    "checkpointing",
    "compile",
)

full_options = apply_options(
    click.option(
        "--recipe", type=click.Choice(["stages", "full", "published"]),
        help="stages: encoder, captioner, fusion (default); full: the whole network end to end (default with --text-encoder); "
        "published: the same with the paper's settings.",
    ),
    click.option("--text-encoder", metavar="NAME", help="End to end: folder or hub id of a transformers text encoder or CLIP."),
    click.option("--captions", type=click.Path(), metavar="FILE", help="End to end: JSON Lines of captions."),
    click.option("--train-image-layers", type=_Layers(), default="all", help="End to end: which learn."),
    click.option("--train-text-layers", type=_Layers(), default="all", help="End to end: which learn."),
    click.option("--epochs", type=int, help="End to end: at most so many."),
    click.option("--batch-size", type=int, help="End to end: pictures a step, over all GPUs."),
    click.option("--accumulate", type=int, help="End to end: parts that each GPU's share of a batch is computed in."),
    click.option("--clip", type=float, help="End to end: largest norm of the gradient."),
    click.option("--patience", type=int, help="End to end: epochs without a better validation accuracy before the end."),
    click.option("--silent", type=float, help="End to end: share of pictures shown without their caption."),
    click.option("--levels", type=int, help="End to end: of the dual attention."),
    click.option("--width", type=int, help="End to end: of the dual attention."),
    click.option("--checkpointing", is_flag=True, help="End to end: compute activations twice to save memory."),
    click.option("--compile", is_flag=True, help="End to end: compile the network."),
    click.option("--workers", type=int, help="End to end: processes that prepare batches."),
)  # fmt: skip
