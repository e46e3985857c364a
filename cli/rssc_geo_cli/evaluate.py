"""``rssc-geo evaluate``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
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
    "words",
    "beam",
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
    "--words",
    type=click.Choice(["own", "none", "human"]),
    default="own",
    show_default=True,
    help="Captions that the classifier may read.",
)
@click.option(
    "--caption-beam",
    "beam",
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
    type=click.Path(path_type=Path),
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
    type=click.Path(path_type=Path),
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
    class_map: Path | None,
    seeds: int | None,
    work: Path | None,
    as_json: bool,
    verbose: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure MODEL on DATASET, a folder of pictures with one folder a class, or on labeled polygons of a raster."""
    set_up_logging(verbose=verbose if seeds is None or quiet else max(verbose, 1), quiet=quiet)

    from rssc_geo.errors import UsageError
    from rssc_geo.evaluation import write_report
    from rssc_geo.evaluation.evaluate import evaluate
    from rssc_geo.inference import choose_compute
    from rssc_geo.models import load_bundle

    if seeds is not None:
        _compare(model, dataset, seeds, work, as_json=as_json, options=options)
        return
    if (dataset is None) == (raster is None) or (raster is None) != (labels is None):
        raise UsageError("give a DATASET folder, or --raster together with --labels")
    loaded = load_bundle(model, revision=options["revision"])
    if dataset is not None:
        data = _pictures(dataset, loaded.card, options)
    else:
        data = _tiles(str(raster), str(labels), loaded.card, options)
    result = evaluate(
        loaded,
        data,
        words=options["words"],
        class_map=_read_map(class_map) if class_map is not None else None,
        robustness=options["robustness"],
        beam=options["beam"],
        device=choose_compute(options["device"]).device,
    )
    values = result.to_dict()
    if options["output"]:
        values["files"] = [
            str(path) for path in write_report(result, options["output"], model=loaded)
        ]
    if as_json:
        print_json(values)
    else:
        _tell(values)


def _compare(
    model: str,
    dataset: str | None,
    seeds: int,
    work: Path | None,
    *,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    """Print the table of baselines."""
    from rssc_geo.errors import UsageError
    from rssc_geo.evaluation import compare_on_folder
    from rssc_geo.inference import choose_compute
    from rssc_geo.models import load_bundle

    if dataset is None or work is None or seeds < 2:
        raise UsageError("--baselines needs at least 2 seeds, a DATASET folder and --work")
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
    loaded = load_bundle(model, revision=options["revision"])
    training = _training(loaded.card, options)
    if options["fusion_epochs"] is not None:
        training = dataclasses.replace(
            training, fusion=training.fusion.shortened(options["fusion_epochs"])
        )
    device = choose_compute(options["device"]).device
    table = compare_on_folder(
        loaded, dataset, work=work, seeds=seeds, device=device, options=training
    )
    if as_json:
        print_json(table.to_dict())
    else:
        click.echo(table.markdown())


def _training(card: Any, options: dict[str, Any]) -> Any:
    """How the model was trained, but for what the command line says of the split."""
    from rssc_geo.training import trained_with

    return dataclasses.replace(
        trained_with(card),
        **{k: options[k] for k in ("seed", "val", "test") if options[k] is not None},
    )


def _pictures(dataset: str, card: Any, options: dict[str, Any]) -> Any:
    from rssc_geo.training import load_image_folder, stratified_split

    data = load_image_folder(dataset, size=card.input_size[0])
    if options["part"] == "all":
        return data
    split = _training(card, options)
    return data.take(
        stratified_split(data, seed=split.seed, val=split.val, test=split.test)[options["part"]]
    )


def _tiles(raster: str, labels: str, card: Any, options: dict[str, Any]) -> Any:
    from rssc_geo.inference import TilingOptions, make_plan
    from rssc_geo.training import labeled_tiles

    plan = make_plan(raster, card, TilingOptions(tile_size=options["tile_size"]))
    return labeled_tiles(
        plan.scene, plan.grid, labels, field=options["field"], out_size=card.input_size
    )


def _read_map(path: Path) -> dict[str, str]:
    from rssc_geo.errors import InputError

    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in values.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a JSON object of class names: {error}") from error


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
