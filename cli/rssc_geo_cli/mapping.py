"""What the commands that write a land-use map have in common.

Options, the run, what is told at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from rssc_geo_cli.options import (
    apply_options,
    model_options,
    run_options,
    set_up_logging,
    source_of,
    stretch_options,
)
from rssc_geo_cli.progress import Reporter, echo_areas, exit_on_stdin_eof, show_result

if TYPE_CHECKING:
    from rssc_geo.models import Model

compute_options = apply_options(
    click.option("--device", help="cpu, cuda, cuda:1, mps. Default: the fastest there is."),
    click.option(
        "--dtype", help="float32, bfloat16, float16. Default: bfloat16 on CUDA, else float32."
    ),
    click.option("--batch-size", type=int, help="Tiles a batch. Default: by the device."),
)
mapping_options = apply_options(
    click.option(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="Result: .gpkg, .fgb, .geojson, .parquet or .shp.",
    ),
    model_options,
    stretch_options,
    compute_options,
    click.option(
        "--crs", metavar="CRS", help="CRS of the result. Default: the raster's; GeoJSON: WGS84."
    ),
    click.option(
        "--aoi-clip", is_flag=True, help="Also clip the polygons to the area of interest."
    ),
    click.option(
        "--min-area",
        "min_area_m2",
        type=float,
        default=0.0,
        metavar="M2",
        help="Smaller regions join a neighbor.",
    ),
    click.option(
        "--probabilities", is_flag=True, help="One p_<class> column each in the cells layer."
    ),
    click.option("--class-raster", metavar="FILE", help="Also a COG of classes, one pixel a cell."),
    click.option(
        "--preview", metavar="PNG", help="Also a picture: scene, classes, legend, scale bar."
    ),
    click.option(
        "--report",
        metavar="HTML",
        help="Also a page: map, areas, examples, doubtful cells, provenance.",
    ),
    click.option(
        "--review", type=int, metavar="N", help="Also a layer of the N cells most worth labeling."
    ),
    click.option("--overwrite", is_flag=True, help="Replace existing results."),
    run_options,
)


def map_land_use(
    *,
    raster: str | None,
    bands_from: tuple[str, str, str] | None,
    progress: str,
    watch_stdin: bool,
    as_json: bool,
    verbose: int,
    quiet: bool,
    output: str,
    prepare: Callable[[Model], Model] | None = None,
    **options: Any,
) -> None:
    """Run ``rssc_geo.classify`` with a command's values.

    ``prepare`` changes the model once it is loaded.
    """
    set_up_logging(verbose=verbose, quiet=quiet)
    source = source_of(raster, bands_from)
    if watch_stdin:
        exit_on_stdin_eof()

    from rssc_geo.pipelines.classify import classify

    if prepare is not None:
        from rssc_geo.models import load_bundle

        options["model"] = prepare(load_bundle(options["model"], revision=options["revision"]))
    with Reporter(progress, quiet=quiet) as reporter:
        result = classify(source, output, progress=reporter, **options)
    show_result(result.as_dict(), progress=progress, as_json=as_json, quiet=quiet, tell=_tell)


def _tell(values: dict[str, Any]) -> None:
    """A few lines for people: where the results are and what covers most."""
    click.echo(f"{values['cells']} cells in {values['regions']} regions, {values['seconds']:.1f} s")
    echo_areas({entry["name"]: entry["area_m2"] for entry in values["classes"]})
    for path in values["outputs"]:
        click.echo(path)
