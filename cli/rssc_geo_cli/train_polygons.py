"""The half of ``rssc-geo train`` that learns from labeled polygons."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from rssc_geo_cli.options import (
    apply_options,
    read_words,
    reading_options,
    set_up_logging,
    stretch_options,
)
from rssc_geo_cli.progress import Reporter, show_result

_OWN = ("rasters", "labels", "column", "purity", "fine_tune", "words")
_TILING = ("bands", "nodata", "assume_crs", "tile_size", "stretch", "min_valid")
_CARD = {
    "start": "model",
    "name": "name",
    "version": "bundle_version",
    "description": "description",
    "license": "license",
    "data": "data",
}

polygon_options = apply_options(
    click.option(
        "--raster",
        "rasters",
        multiple=True,
        metavar="FILE",
        help="Instead of DATASET: a raster; may be repeated.",
    ),
    click.option(
        "--labels",
        multiple=True,
        metavar="FILE",
        help="Its labeled polygons; one for all rasters, or one each.",
    ),
    click.option(
        "--field", "column", default="class", show_default=True, help="Column of the class names."
    ),
    click.option(
        "--purity",
        type=float,
        default=0.6,
        show_default=True,
        help="Share of a patch that its class covers.",
    ),
    click.option(
        "--fine-tune",
        is_flag=True,
        help="The image encoder learns too: minutes instead of seconds.",
    ),
    click.option(
        "--words",
        metavar="FILE",
        help="JSON {class: [words, …]}: what to go by where a class has few patches.",
    ),
    reading_options,
    stretch_options,
)


def take_polygon_options(options: dict[str, Any]) -> dict[str, Any]:
    """Remove from a command's values, and return, what only concerns polygons."""
    return {name: options.pop(name) for name in (*_OWN, *_TILING)}


def train_from_polygons(
    dataset: str | None,
    output: str,
    polygons: dict[str, Any],
    *,
    device: str | None,
    verbose: int,
    show: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Run ``train_on_polygons`` with the command's values and tell how good the model is."""
    set_up_logging(verbose=verbose, quiet=show["quiet"])

    from rssc_geo.errors import UsageError
    from rssc_geo.inference import TilingOptions
    from rssc_geo.training import CustomOptions
    from rssc_geo.training.few_shot.train_on_polygons import train_on_polygons

    rasters, labels = polygons["rasters"], polygons["labels"]
    if dataset is not None or not rasters or len(labels) not in {1, len(rasters)}:
        raise UsageError(
            "give a DATASET folder, or --raster with --labels, one for all rasters or one for each"
        )
    chosen = CustomOptions(
        column=polygons["column"],
        purity=polygons["purity"],
        fine_tune=polygons["fine_tune"],
        words=None if polygons["words"] is None else read_words(polygons["words"]),
        tiling=TilingOptions(**{name: polygons[name] for name in _TILING}),
        **{name: options[option] for name, option in _CARD.items()},
    )
    pairs = list(zip(rasters, labels * len(rasters) if len(labels) == 1 else labels, strict=True))
    with Reporter(show["progress"], quiet=show["quiet"]) as reporter:
        result = train_on_polygons(
            pairs,
            output,
            options=chosen,
            device=device,
            command=shlex.join(["rssc-geo", *sys.argv[1:]]),
            progress=reporter,
        )
    values = {
        "bundle": output,
        "patches": dict(result.card.training["patches"]),
        "scores": None if result.scores is None else result.scores.to_dict(),
        "warnings": list(result.warnings),
    }
    show_result(values, **show, tell=_tell)


def _tell(values: dict[str, Any]) -> None:
    scores = values["scores"]
    if scores is None:
        click.echo("not measured: all labels lie in one place")
    else:
        click.echo(f"{'class':<24} {'precision':>9} {'recall':>7} {'F1':>7} {'patches':>8}")
        for name, row in scores["per_class"].items():
            click.echo(
                f"{name:<24} {row['precision']:>9.3f} {row['recall']:>7.3f} {row['f1']:>7.3f}"
                f" {row['support']:>8}"
            )
        click.echo(
            f"overall accuracy {scores['overall_accuracy']:.3f}, by cross-validation in blocks of"
            " space"
        )
    click.echo(values["bundle"])
