"""``rssc-geo evaluate``."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from rssc_geo_cli.options import json_option, log_options, print_json, set_up_logging

_OF_ONE_MODEL = (
    "raster",
    "labels",
    "field",
    "tile_size",
    "output",
    "caption_source",
    "caption_beam",
    "part",
    "class_map",
    "robustness",
)


@click.command("evaluate")
@click.argument("model")
@click.argument("dataset", required=False)
@click.option("--raster", metavar="FILE", help="Instead of DATASET: a raster, with --labels.")
@click.option("--labels", metavar="FILE", help="Polygons with a class each.")
@click.option("--field", default="class", show_default=True, help="Column of the class names.")
@click.option(
    "--tile-size",
    metavar="SIZE",
    help="Of the raster's tiles: 256px, 400m. Default: by the model card.",
)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    help="Also write JSON, confusion matrix, t-SNE and worst mistakes there.",
)
@click.option(
    "--caption-source",
    type=click.Choice(["own", "none", "human"]),
    default="own",
    show_default=True,
    help="Captions that the classifier may read.",
)
@click.option(
    "--caption-beam",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Sentences that the model's own captioner follows at a time.",
)
@click.option(
    "--part",
    type=click.Choice(["all", "train", "val", "test"]),
    default="all",
    show_default=True,
    help="Of the data set.",
)
@click.option(
    "--seed", type=int, help="Of the split into parts. Default: that of MODEL's training."
)
@click.option(
    "--val", type=float, help="Share of the validation part. Default: that of MODEL's training."
)
@click.option(
    "--test", type=float, help="Share of the test part. Default: that of MODEL's training."
)
@click.option(
    "--class-map",
    metavar="FILE",
    help='JSON: {"class of the data set": "class of the model"}.',
)
@click.option(
    "--robustness", is_flag=True, help="Also the accuracy under corruptions and other footprints."
)
@click.option(
    "--baselines",
    "seeds",
    type=int,
    metavar="SEEDS",
    help="Instead: train the paper's baselines so many times.",
)
@click.option(
    "--work",
    metavar="DIR",
    help="With --baselines: the work folder of the training.",
)
@click.option(
    "--fusion-epochs",
    type=int,
    help="With --baselines: epochs of each network. Default: as in the training.",
)
@click.option("--revision", help="Revision of a hub id.")
@click.option("--device", help="cpu, cuda, cuda:1, mps. Default: the fastest there is.")
@json_option
@log_options
def command(
    *,
    model: str,
    dataset: str | None,
    raster: str | None,
    labels: str | None,
    output: str | None,
    seeds: int | None,
    as_json: bool,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure MODEL on DATASET, a folder of pictures with one folder a class.

    Or on labeled polygons of a raster: --raster scene.tif --labels polygons.gpkg.
    """
    set_up_logging(verbose=verbose if seeds is None or quiet else max(verbose, 1), quiet=quiet)

    from rssc_geo.errors import UsageError
    from rssc_geo.options import EvaluateOptions, options_of

    if seeds is not None:
        _compare(model, dataset, seeds, as_json=as_json, options=options)
        return
    if (dataset is None) == (raster is None) or (raster is None) != (labels is None):
        raise UsageError("give a DATASET folder, or --raster together with --labels")

    from rssc_geo.evaluation.evaluate import evaluate, evaluate_on_polygons

    chosen = EvaluateOptions(**{o.name: options[o.name] for o in options_of(EvaluateOptions)})
    if dataset is not None:
        result = evaluate(model, dataset, chosen, output=output)
    else:
        pairs = [(str(raster), str(labels))]
        result = evaluate_on_polygons(model, pairs, chosen, output=output)
    values = result.as_dict()
    if as_json:
        print_json(values)
    else:
        _tell(values)


def _compare(
    model: str, dataset: str | None, seeds: int, *, as_json: bool, options: dict[str, Any]
) -> None:
    """Print the table of baselines."""
    from rssc_geo.errors import UsageError
    from rssc_geo.evaluation import compare_baselines
    from rssc_geo.options import BaselineOptions, options_of

    if dataset is None:
        raise UsageError("--baselines needs a DATASET folder and --work")
    context = click.get_current_context()
    for option in context.command.params:
        if (
            option.name in _OF_ONE_MODEL
            and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
        ):
            raise UsageError(
                f"--baselines trains and measures networks of its own: {option.opts[-1]} means"
                " nothing there"
            )
    values = {"baselines": seeds, **options}
    chosen = BaselineOptions(**{o.name: values[o.name] for o in options_of(BaselineOptions)})
    table = compare_baselines(model, dataset, chosen)
    if as_json:
        print_json(table.as_dict())
    else:
        click.echo(table.markdown())


def _tell(values: dict[str, Any]) -> None:
    click.echo(f"{values['images']} pictures")
    for name in ("overall_accuracy", "average_accuracy", "kappa", "expected_calibration_error"):
        click.echo(f"{name.replace('_', ' '):<28} {values[name]:.4f}")
    click.echo(f"{'class':<20} {'precision':>9} {'recall':>7} {'F1':>7} {'pictures':>8}")
    for name, row in values["per_class"].items():
        if row["support"]:
            click.echo(
                f"{name:<20} {row['precision']:>9.3f} {row['recall']:>7.3f} {row['f1']:>7.3f}"
                f" {row['support']:>8}"
            )
    for title in ("captions", "robustness"):
        for name, value in values.get(title, {}).items():
            click.echo(f"{name:<32} {value:.4f}")
    for path in values.get("files", []):
        click.echo(path)
