"""``rssc-geo evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.errors import UsageError
from rssc_geo.options import (
    BaselineOptions,
    EvaluateOptions,
    EvaluationTargetOptions,
    PolygonSourceOptions,
    PrintOptions,
)
from rssc_geo_cli.console import print_json, say, show_result, tell_more
from rssc_geo_cli.options import Alternatives, Chosen, command

_EITHER = Alternatives(
    EvaluateOptions,
    BaselineOptions,
    ("has no effect with --baselines, which trains networks of its own", "goes with --baselines"),
)


@command("evaluate", PolygonSourceOptions, EvaluationTargetOptions, _EITHER, PrintOptions)
@click.argument("model", type=click.Path())
@click.argument("dataset", nargs=-1, type=click.Path())
def evaluate_command(
    polygons: PolygonSourceOptions,
    target: EvaluationTargetOptions,
    chosen: Chosen,
    printing: PrintOptions,
    *,
    model: str,
    dataset: tuple[str, ...],
) -> None:
    """Measure MODEL on DATASET, a folder of pictures with one folder a class.

    Or on several; --taxonomy states which classes their labels allow.

    Or on labeled polygons of a raster: --raster scene.tif --labels polygons.gpkg. With --baselines:
    train the paper's baselines beside it.
    """
    if click.get_current_context().params["baselines"] is not None:
        tell_more(printing)
        _compare(model, dataset, chosen(BaselineOptions), polygons, target, printing)
        return
    options = chosen(EvaluateOptions)
    if (not dataset) == (not polygons.raster) or len(polygons.raster) != len(polygons.labels):
        raise UsageError("give a DATASET folder, or --raster together with --labels")

    from rssc_geo.evaluation import evaluate_on_polygons
    from rssc_geo.evaluation.evaluate import evaluate

    if dataset:
        result = evaluate(model, dataset, options, output=target.output)
    else:
        pairs = list(zip(polygons.raster, polygons.labels, strict=True))
        result = evaluate_on_polygons(model, pairs, options, output=target.output)
    show_result(result.as_dict(), printing, _tell)


def _compare(
    model: str,
    dataset: tuple[str, ...],
    options: BaselineOptions,
    polygons: PolygonSourceOptions,
    target: EvaluationTargetOptions,
    printing: PrintOptions,
) -> None:
    """Print the table of baselines."""
    if polygons.raster or polygons.labels or target.output:
        raise UsageError("--raster, --labels and --output have no effect with --baselines")
    if not dataset:
        raise UsageError("--baselines needs a DATASET folder and --work")

    from rssc_geo.evaluation import compare_baselines

    table = compare_baselines(model, dataset, options)
    if printing.json:
        print_json(table.as_dict())
    else:
        click.echo(table.markdown())


def _tell(values: Mapping[str, Any]) -> None:
    low, high = values["interval"]
    say(f"{values['images']} pictures, overall accuracy {low:.3f} to {high:.3f} with 95 %")
    for name in ("overall_accuracy", "average_accuracy", "kappa", "expected_calibration_error"):
        say(f"{name.replace('_', ' '):<28} {values[name]:.4f}")
    wide = max(20, *map(len, values["per_class"]))
    say(f"{'class':<{wide}} {'precision':>9} {'recall':>7} {'F1':>7} {'pictures':>8}")
    for name, row in values["per_class"].items():
        if row["support"]:
            figures = f"{row['precision']:>9.3f} {row['recall']:>7.3f} {row['f1']:>7.3f}"
            say(f"{name:<{wide}} {figures} {row['support']:>8.0f}")
    for name, row in values.get("sets", {}).items():
        figures = f"accuracy {row['overall_accuracy']:.4f}"
        error = f"calibration error {row['expected_calibration_error']:.4f}"
        say(f"{name:<20} {figures}, {error}, {row['images']} pictures")
    for title in ("captions", "robustness"):
        for name, value in values.get(title, {}).items():
            say(f"{name:<32} {value:.4f}")
    for path in values.get("files", []):
        click.echo(path)
