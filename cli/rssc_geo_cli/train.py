"""``rssc-geo train``."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.errors import UsageError
from rssc_geo.options import (
    PolygonSourceOptions,
    RunOptions,
    TargetOptions,
    TrainOnPolygonsOptions,
    TrainOptions,
)
from rssc_geo_cli.console import running, say, show_result, tell_more
from rssc_geo_cli.options import Alternatives, Chosen, command

_EITHER = Alternatives(
    TrainOptions,
    TrainOnPolygonsOptions,
    ("is for training on a DATASET of pictures", "is for training on polygons, with --raster"),
)


@command("train", PolygonSourceOptions, TargetOptions, _EITHER, RunOptions)
@click.argument("dataset", nargs=-1, type=click.Path())
def train_command(
    polygons: PolygonSourceOptions,
    target: TargetOptions,
    chosen: Chosen,
    run: RunOptions,
    *,
    dataset: tuple[str, ...],
) -> None:
    """Train a model on DATASET, a folder of pictures with one folder a class.

    Several of them are learned together; --taxonomy states which classes of one legend the labels
    of each allow.

    Captions are read from its captions.jsonl, if there is one. A run that was stopped continues
    when the same command is given again. The embedded model takes about two hours on two processor
    cores.

    With --text-encoder (or --recipe): the whole network end to end on pictures and captions, at any
    size. Encoders are folders or hub ids of transformers or timm; without any, --model's network is
    trained further. With several GPUs: torchrun -m rssc_geo_cli.main train …

    Or, in seconds, on labeled polygons of rasters: --raster scene.tif --labels polygons.gpkg
    --field class. The encoders of --model stay as they are then (but with --fine-tune), and a new
    classifying layer is learned.
    """
    made_by = shlex.join(["rssc-geo", *sys.argv[1:]])
    if not dataset or polygons.raster:
        options = chosen(TrainOnPolygonsOptions)
        pairs = pairs_of(dataset, polygons)

        from rssc_geo.training.few_shot.train_on_polygons import train_on_polygons

        with running(run) as progress:
            learned = train_on_polygons(
                pairs, target.output, options, command=made_by, progress=progress
            )
        show_result({"bundle": target.output, **learned.as_dict()}, run, _tell_polygons)
        return
    tell_more(run)
    options = chosen(TrainOptions)

    from rssc_geo.training.train import train

    with running(run) as progress:
        card = train(dataset, target.output, options, command=made_by, progress=progress)
    if not int(os.environ.get("RANK", "0")):  # of several processes only the first one prints
        accuracy = json.loads(card.to_json())["accuracy"]
        show_result({"bundle": target.output, "accuracy": accuracy}, run, _tell)


def pairs_of(dataset: tuple[str, ...], polygons: PolygonSourceOptions) -> list[tuple[str, str]]:
    """The rasters with their labels; ``UsageError`` where they do not go together."""
    rasters, labels = polygons.raster, polygons.labels
    if dataset or not rasters or len(labels) not in {1, len(rasters)}:
        raise UsageError(
            "give a DATASET folder, or --raster with --labels, one for all rasters or one for each"
        )
    return list(zip(rasters, labels * len(rasters) if len(labels) == 1 else labels, strict=True))


def _tell(values: Mapping[str, Any]) -> None:
    for part, figures in values["accuracy"].items():
        told = ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in figures.items())
        say(f"{part.replace('_', ' '):<20} {told}")
    click.echo(values["bundle"])


def _tell_polygons(values: Mapping[str, Any]) -> None:
    scores = values["scores"]
    if scores is None:
        say("not measured: all labels lie in one place")
    else:
        tested, (low, high) = values["tested"], values["interval"]
        wide = max(24, *map(len, scores["per_class"]))
        say(f"{'class':<{wide}} {'precision':>9} {'recall':>7} {'F1':>7} {'tested':>12}")
        for name, row in scores["per_class"].items():
            figures = f"{row['precision']:>9.3f} {row['recall']:>7.3f} {row['f1']:>7.3f}"
            counts = tested["classes"][name]
            if not counts["tested"]:
                figures = f"{'-':>9} {'-':>7} {'-':>7}"
            of = f"{counts['tested']} of {counts['of']}"
            say(f"{name:<{wide}} {figures} {of:>12}")
        by = "on labels apart" if values["by_labels_apart"] else "by cross-validation in blocks"
        say(
            f"overall accuracy {scores['overall_accuracy']:.3f} ({low:.3f} to {high:.3f} with"
            f" 95 %), {by}, {tested['patches']} of {tested['of']} patches tested"
        )
    click.echo(values["bundle"])
