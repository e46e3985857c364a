"""``rssc-geo assess``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import (
    AccuracyOptions,
    AssessmentTargetOptions,
    PrintOptions,
    ReferenceOptions,
    SampleOptions,
    TargetOptions,
)
from rssc_geo_cli.console import say, show_result
from rssc_geo_cli.groups import CommandGroup
from rssc_geo_cli.options import command

_ROOM = (16, 19, 14, 24)


@click.group("assess", cls=CommandGroup)
def assess_group() -> None:
    """Assess the accuracy of a finished map: draw a sample, label it, get accuracies and areas."""


@command("sample", TargetOptions, SampleOptions, PrintOptions)
@click.argument("map_path", metavar="MAP", type=click.Path())
def sample_command(
    target: TargetOptions, options: SampleOptions, printing: PrintOptions, *, map_path: str
) -> None:
    """Draw a sample of cells of MAP to label: a GeoPackage with a form for QGIS.

    Fill in its field `class` with what is there, without looking at the map; `cannot tell` is a
    valid label too. Then `assess accuracy` estimates the accuracy of the map.
    """
    from rssc_geo.pipelines.assess_sample import assess_sample

    result = assess_sample(map_path, target.output, options)
    show_result(result.as_dict(), printing, _tell_sample)


def _tell_sample(values: Mapping[str, Any]) -> None:
    say(
        f"{values['units']} units ({values['unit']}s, {values['design']}); expected standard error"
        f" of the overall accuracy {values['expected_standard_error']:.3f}"
    )
    width = max(len(stratum["name"]) for stratum in values["strata"])
    say(f"  {'stratum':<{width}} {'cells':>10} {'expected':>9} {'drawn':>7}")
    for stratum in values["strata"]:
        counts = f"{stratum['cells']:>10,} {stratum['expected_accuracy']:>9.0%}"
        say(f"  {stratum['name']:<{width}} {counts} {stratum['drawn']:>7}")
    for path in values["outputs"]:
        click.echo(path)


@command("accuracy", ReferenceOptions, AssessmentTargetOptions, AccuracyOptions, PrintOptions)
@click.argument("maps", metavar="MAP...", nargs=-1, required=True, type=click.Path())
def accuracy_command(
    reference: ReferenceOptions,
    target: AssessmentTargetOptions,
    options: AccuracyOptions,
    printing: PrintOptions,
    *,
    maps: tuple[str, ...],
) -> None:
    """Estimate the accuracy of MAP, and the area of each class, from the labels of a sample.

    Of several maps on the same labels, the first is compared with the others.
    """
    from rssc_geo.pipelines.assess_accuracy import assess_accuracy

    result = assess_accuracy(maps, reference.reference, options)
    values = result.as_dict()
    if target.output:
        values["outputs"] = [str(path) for path in result.write(target.output)]
    show_result(values, printing, _tell_accuracy)


def _tell_accuracy(values: Mapping[str, Any]) -> None:
    from rssc_geo.output import area_unit

    for found in values["maps"]:
        unit = area_unit(found["area_m2"])
        say(f"{found['map']}: {found['labeled']} labeled units. {found['estimator']}")
        say(f"overall accuracy {_share(found['overall_accuracy'])}")
        if found["named_accuracy"]:
            say(f"accuracy of what is named {_share(found['named_accuracy'])}")
        width = max(len(row["name"]) for row in found["classes"])
        areas = (f"map, {unit.sign}", f"adjusted area, {unit.sign}")
        names = ("user's accuracy", "producer's accuracy", *areas)
        head = " ".join(f"{name:>{room}}" for name, room in zip(names, _ROOM, strict=True))
        say(f"  {'class':<{width}} {head}")
        for row in found["classes"]:
            figures = (
                _share(row["users_accuracy"]),
                _share(row["producers_accuracy"]),
                f"{row['map_area_m2'] / unit.size_m2:,.1f}",
                _with_half(row["area_m2"], 1 / unit.size_m2, ",.1f"),
            )
            line = " ".join(f"{text:>{room}}" for text, room in zip(figures, _ROOM, strict=True))
            say(f"  {row['name']:<{width}} {line}")
    for row in values["comparisons"]:
        p_value = "?" if row["p_value"] is None else f"{row['p_value']:.3g}"
        difference = f"{_share(row['difference'])} (p = {p_value})"
        say(f"{row['map']} less {row['other']}: {difference}, {row['units']} units")
    for path in values.get("outputs", []):
        click.echo(path)


def _share(estimate: Mapping[str, float | None]) -> str:
    return _with_half(estimate, 1, ".4f")


def _with_half(estimate: Mapping[str, float | None], factor: float, form: str) -> str:
    """A figure and half of its 95 % interval."""
    value, high = estimate["value"], estimate["high"]
    if value is None:
        return "-"
    half = "?" if high is None else format((high - value) * factor, form)
    return f"{format(value * factor, form)} ± {half}"


assess_group.add_command(sample_command)
assess_group.add_command(accuracy_command)
