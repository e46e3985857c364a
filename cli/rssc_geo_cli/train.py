"""``rssc-geo train``."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Any

import click

from rssc_geo_cli.options import Numbers, run_options, set_up_logging
from rssc_geo_cli.progress import Reporter, exit_on_stdin_eof, show_result
from rssc_geo_cli.train_full import END_TO_END, full_options
from rssc_geo_cli.train_polygons import polygon_options, take_polygon_options, train_from_polygons


class _Schedule(click.ParamType[tuple[tuple[int, int], ...]]):
    """``6x128,8x160``: epochs and pixels a side of each part."""

    name = "EPOCHSxPIXELS,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, int], ...]:
        try:
            parts = tuple(
                (int(a), int(b)) for a, b in (part.split("x") for part in str(value).split(","))
            )
        except ValueError:
            self.fail(f"{value!r} is not {self.name}, such as 6x128,8x160", param, ctx)
        if any(epochs < 1 or size < 32 for epochs, size in parts):
            self.fail(f"{value!r}: at least 1 epoch and 32 pixels each", param, ctx)
        return parts


@click.command("train")
@click.argument("dataset", type=click.Path(), required=False)
@polygon_options
@click.option("-o", "--output", required=True, metavar="DIR", help="The bundle to write.")
@click.option(
    "--work", metavar="DIR", help="Where the stages keep what they made. Default: OUTPUT.work."
)
@click.option("--model", default="compact", show_default=True, help="Bundle to start from.")
@click.option(
    "--image-encoder",
    metavar="NAME",
    help="Another timm model, with --weights; at full size: see below.",
)
@click.option("--weights", type=click.Path(), help="Its weights, safetensors.")
@click.option(
    "--pad-type",
    type=click.Choice(["", "same"]),
    default="",
    help="Padding of TensorFlow-born timm models.",
)
@click.option(
    "--sentence-encoder",
    type=click.Path(),
    help="Folder of a sentence encoder to distill the text encoder from.",
)
@click.option(
    "--whole-sentence-encoder",
    is_flag=True,
    help="Keep it whole as the text encoder, instead of distilling it.",
)
@click.option(
    "--schedule",
    type=_Schedule(),
    help="Parts of the image encoder's training. Default: 6x128,8x160,6x192.",
)
@click.option(
    "--learning-rate", type=float, help="Of the image encoder's heads; at full size of all."
)
@click.option("--caption-epochs", type=int, help="Epochs of each captioner.")
@click.option(
    "--fusion-epochs",
    type=int,
    help="Epochs of the fusion: so many, then half as many for the words.",
)
@click.option("--folds", type=int, default=2, show_default=True, help="Of the captioners.")
@click.option(
    "--views",
    type=int,
    default=4,
    show_default=True,
    help="Copies of each picture, the first as it is.",
)
@click.option(
    "--val", type=float, default=0.1, show_default=True, help="Share of the validation part."
)
@click.option(
    "--test",
    type=float,
    default=0.1,
    show_default=True,
    help="Share of the test part, looked at once.",
)
@click.option(
    "--footprint",
    type=Numbers(float, count=3, metavar="MIN,PREFERRED,MAX"),
    help="Metres a picture covers.",
)
@click.option(
    "--gsd-range",
    type=Numbers(float, count=2, metavar="MIN,MAX"),
    help="Metres a pixel of rasters.",
)
@full_options
@click.option("--name", default="trained", show_default=True, help="Of the bundle.")
@click.option("--bundle-version", default="1", show_default=True, help="Of the bundle.")
@click.option("--description", default="", help="One line for the card.")
@click.option("--license", default="unspecified", help="Of the weights.")
@click.option("--data", default="", help="What the data set is and its license, for the card.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1, mps. Default: the fastest there is.")
@run_options
def command(
    *,
    dataset: str | None,
    output: str,
    device: str | None,
    progress: str,
    watch_stdin: bool,
    as_json: bool,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a model on DATASET, a folder of pictures with one folder a class (and captions.jsonl,
    if there is one).

    A run that was stopped goes on when the same command is given again. The default model is made
    with AID's pictures at about two hours on two processor cores.

    With --text-encoder (or --recipe): the whole network end to end on pictures and captions, at any
    size. Encoders are folders or hub ids of transformers or timm; without any, --model's network
    goes on learning. With several GPUs: torchrun -m rssc_geo_cli.main train …

    Or, in seconds, on labeled polygons of rasters: --raster scene.tif --labels polygons.gpkg
    --field class. The encoders of --model stay as they are then (but with --fine-tune), and a new
    classifying layer is learned.
    """
    if watch_stdin:
        exit_on_stdin_eof()
    polygons = take_polygon_options(options)
    if dataset is None or polygons["rasters"]:
        if any(options[name] for name in END_TO_END):
            raise click.UsageError(
                "options of training end to end are for a DATASET of pictures, not for --raster"
            )
        show = {"progress": progress, "as_json": as_json, "quiet": quiet}
        train_from_polygons(
            dataset, output, polygons, device=device, verbose=verbose, show=show, options=options
        )
        return
    set_up_logging(verbose=max(verbose, 0 if quiet else 1), quiet=quiet)

    from rssc_geo.options import TrainOptions
    from rssc_geo.training.train import train

    chosen = TrainOptions(device=device, **options)
    with Reporter(progress, quiet=quiet) as reporter:
        card = train(
            dataset,
            output,
            chosen,
            command=shlex.join(["rssc-geo", *sys.argv[1:]]),
            progress=reporter,
        )
    if int(os.environ.get("RANK", "0")):
        return  # of several processes the first one tells
    values = {"bundle": output, "accuracy": json.loads(card.to_json())["accuracy"]}
    show_result(values, progress=progress, as_json=as_json, quiet=quiet, tell=_tell)


def _tell(values: dict[str, Any]) -> None:
    for part, figures in values["accuracy"].items():
        click.echo(
            f"{part.replace('_', ' '):<20} "
            + ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in figures.items())
        )
    click.echo(values["bundle"])
