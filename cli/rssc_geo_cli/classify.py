"""``rssc-geo classify``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import ClassifyOptions, RunOptions, SourceOptions, TargetOptions
from rssc_geo_cli.console import echo_areas, running, say, show_result
from rssc_geo_cli.options import command, raster_argument, source_of


@command("classify", SourceOptions, TargetOptions, ClassifyOptions, RunOptions)
@raster_argument
def classify_command(
    source: SourceOptions,
    target: TargetOptions,
    options: ClassifyOptions,
    run: RunOptions,
    *,
    raster: str | None,
) -> None:
    """Classify RASTER into land-use polygons.

    The result's suffix is its format: .gpkg, .fgb, .geojson, .parquet or .shp. It has two layers,
    `landuse` (regions) and `cells` (one polygon a cell, with its caption), styled for QGIS. A run
    that was stopped continues when the same command is given again.
    """
    scene = source_of(raster, source)

    from rssc_geo.pipelines.classify import classify

    with running(run) as progress:
        result = classify(scene, target.output, options, progress=progress)
    show_result(result.as_dict(), run, tell_map)


def tell_map(values: Mapping[str, Any]) -> None:
    """A short summary: the largest classes, and where the results are."""
    say(f"{values['cells']} cells in {values['regions']} regions, {values['seconds']:.1f} s")
    echo_areas({entry["name"]: entry["area_m2"] for entry in values["classes"]})
    for path in values["outputs"]:
        click.echo(path)
