"""``rssc-geo batch run`` and ``rssc-geo batch status``."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from rssc_geo_cli.captioning import (
    caption_when_option,
    captioner_option,
    captioning_options,
    take_caption_options,
)
from rssc_geo_cli.options import (
    Numbers,
    apply_options,
    json_option,
    log_options,
    model_options,
    print_json,
    progress_option,
    set_up_logging,
    stretch_options,
)
from rssc_geo_cli.progress import echo_areas

if TYPE_CHECKING:
    from tqdm import tqdm

    from rssc_geo.batch import BatchOptions, BatchProgress

_scene_options = apply_options(
    click.option(
        "--bands",
        type=Numbers(int, metavar="R,G,B"),
        help="Bands to use as red, green, blue, counted from 1.",
    ),
    click.option(
        "--nodata", type=float, help="A value that counts as nodata, with or without a tag."
    ),
    click.option(
        "--assume-crs", metavar="CRS", help="The rasters' CRS, where they say none or a wrong one."
    ),
    click.option(
        "--tile-size",
        metavar="SIZE",
        help="Side of a tile: 256px, 400m. Default: by the model card.",
    ),
    click.option(
        "--cell-size",
        metavar="SIZE",
        help="Side of a cell, at most the tile's. Default: the tile's.",
    ),
    click.option(
        "--aoi",
        metavar="FILE",
        help="Vector file of polygons: only cells with their center inside.",
    ),
    click.option(
        "--bounds",
        type=Numbers(float, count=4, metavar="MINX,MINY,MAXX,MAXY"),
        help="The same, a box.",
    ),
    stretch_options,
    click.option(
        "--crs", metavar="CRS", help="CRS of the results. Default: the rasters'; merged: EPSG:4326."
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
    click.option(
        "--class-raster", metavar="TEMPLATE", help="Also a COG of classes for each scene."
    ),
    click.option("--preview", metavar="TEMPLATE", help="Also a picture of each scene (.png)."),
)
_engine_options = apply_options(
    model_options,
    captioner_option,
    caption_when_option,
    captioning_options,
    click.option(
        "--device",
        help=(
            "cpu, cuda, cuda:1, or several: cuda:0,cuda:1. Default: every CUDA device, else the"
            " fastest."
        ),
    ),
    click.option(
        "--dtype", help="float32, bfloat16, float16. Default: bfloat16 on CUDA, else float32."
    ),
    click.option("--batch-size", type=int, help="Tiles a batch. Default: by the device."),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="Processor threads. Default: as there are processors.",
    ),
)


@click.group("batch")
def command() -> None:
    """Map many scenes, on this machine or on a cluster, and keep a journal of them."""


@command.command("run")
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="TEMPLATE",
    help="A folder, or files such as 'maps/{id}.parquet'.",
)
@click.option(
    "--merge",
    metavar="RULE",
    help="One file of all scenes; where they overlap: first, last, most-confident.",
)
@click.option(
    "--asset", metavar="NAME", help="Key or role of the STAC asset, or three keys: red,green,blue."
)
@_scene_options
@_engine_options
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Dask cluster: tcp://host:8786 or a scheduler file. Default: this machine.",
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Times that a block is tried.",
)
@click.option(
    "--retry-failed", is_flag=True, help="Also do scenes again that failed in an earlier run."
)
@click.option("--overwrite", is_flag=True, help="Also replace files that no batch has made.")
@click.option(
    "--dry-run", is_flag=True, help="Show what would be done, its size and an estimate of the time."
)
@click.option(
    "--prometheus",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Keep figures for Prometheus in a text file.",
)
@click.option("--log-json", is_flag=True, help="Messages on stderr as JSON Lines.")
@progress_option
@json_option
@log_options
def run(
    *,
    inputs: tuple[str, ...],
    dry_run: bool,
    log_json: bool,
    progress: str,
    as_json: bool,
    verbose: int,
    quiet: bool,
    **values: Any,
) -> int:
    """Map INPUTS: rasters, URLs, globs, folders, .txt or .csv manifests, STAC .json, tile indexes.

    Each scene becomes a map; what became of it stands in a journal beside the maps. The same
    command given again goes on where it stopped. A scene that fails does not stop the others: the
    failures are listed at the end, and the exit code is 1.
    """
    set_up_logging(verbose=verbose, quiet=quiet)
    if log_json:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_JsonLine())
    if verbose < 2:
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # pystac's retries
    if values["scheduler"] is not None and verbose < 2:
        _silence_dask()
    options = _options(values)
    if dry_run:
        return _dry_run(inputs, options, as_json=as_json)

    from rssc_geo.batch import run_batch

    with _Reporter(progress, quiet=quiet) as reporter:
        result = run_batch(inputs, options, progress=reporter)
    if progress == "json":
        print_json({"event": "result", **result})
    elif as_json:
        print_json(result)
    elif not quiet:
        _tell(result)
    return _failures(result["failed"])


@command.command("status")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def status(*, folder: Path, as_json: bool) -> None:
    """Show the journal of the batch whose results are in DIR."""
    from rssc_geo.batch import read_status

    values = read_status(folder)
    if as_json:
        print_json(values)
        return
    rows = [("state", "tiles", "tries", "work s", "scene", "note")]
    for scene in values["scenes"]:
        done, tiles = scene["tiles_done"] or 0, scene["tiles"]
        share = "" if tiles is None else f"{done}/{tiles}"
        # Not from its beginning to its end: scenes wait for each other, and people add up what
        # stands in a column.
        work = [scene[f"{stage}_s"] for stage in ("reading", "model", "writing")]
        took = "" if None in work else f"{sum(work):.1f}"
        rows.append(
            (
                scene["state"],
                share,
                str(scene["attempts"]),
                took,
                scene["output"],
                scene["error"] or "",
            )
        )
    rows += [
        ("failed", "", "", "", problem["label"], problem["message"])
        for problem in values["problems"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        click.echo(
            "  ".join(
                [*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]
            ).rstrip()
        )
    counts = [f"{count} {state}" for state, count in values["counts"].items() if count]
    if values["problems"]:
        counts.append(f"{len(values['problems'])} of the inputs of no use")
    click.echo(", ".join(counts) or "no scenes")


def _silence_dask() -> None:
    """Our errors say in one line what Dask's messages repeat at length."""
    with contextlib.suppress(ImportError):  # said where it is needed
        import distributed

    for name in [
        name
        for name in logging.root.manager.loggerDict
        if name.split(".")[0] in ("distributed", "dask", "tornado")
    ]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
        logging.getLogger(name).handlers.clear()


def _options(values: dict[str, Any]) -> BatchOptions:
    from rssc_geo.batch import BatchOptions, EngineSpec, SceneOptions
    from rssc_geo.inference import TilingOptions

    def taken(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: values.pop(name) for name in names if name in values}

    captions = take_caption_options(values)
    tiling = TilingOptions(**taken(TilingOptions.__slots__))
    engine = EngineSpec(**taken(EngineSpec.__slots__), caption_options=captions)
    scene = SceneOptions(tiling=tiling, **taken(SceneOptions.__slots__))
    return BatchOptions(scene=scene, engine=engine, **values)


def _dry_run(inputs: tuple[str, ...], options: BatchOptions, *, as_json: bool) -> int:
    from dataclasses import asdict

    from rssc_geo.batch import plan_jobs, standings, totals
    from rssc_geo.batch.estimate import estimate
    from rssc_geo.models import load_card

    card = load_card(options.engine.model, revision=options.engine.revision)
    jobs = plan_jobs(inputs, options)
    found = list(estimate(jobs, standings(jobs.jobs, options, card), card))
    values = totals(found, card)
    if as_json:
        print_json({**values, "plan": [asdict(entry) for entry in found]})
        return _failures(values["failed"])
    for entry in found:
        if entry.size_px is not None:
            rows, cols = entry.size_px
            click.echo(
                f"{entry.tiles:>9} tiles  {rows} x {cols} px  {entry.input} -> {entry.output}"
            )
    seconds = values["estimated_seconds_on_cpu"]
    before = f" ({values['done_before']} are done)" if values["done_before"] else ""
    click.echo(
        f"{values['cells']} scenes to do{before}, {values['tiles']} tiles,"
        f" {values['bytes_in'] / 1e6:.1f} MB in, about {values['estimated_bytes_out'] / 1e6:.1f} MB"
        " out, "
        + (
            "time unknown: the model's card gives no rate"
            if seconds is None
            else f"about {_duration(seconds)} on this processor"
        )
    )
    return _failures(values["failed"])


def _failures(failed: list[dict[str, str]]) -> int:
    """List what failed on stderr, a line each; the exit code."""
    for entry in failed:
        message = " ".join(entry["error"].split())
        name = (
            "" if message.startswith(entry["input"]) else f"{entry['input']}: "
        )  # most messages begin with it
        click.echo(f"rssc-geo: error: {name}{message}", err=True)
    if failed:
        click.echo(f"rssc-geo: error: {len(failed)} of the inputs failed, see above", err=True)
    return 1 if failed else 0


def _tell(values: dict[str, Any]) -> None:
    """A few lines for people."""
    click.echo(
        f"{values['done']} of {values['cells']} scenes done ({values['done_before']} before),"
        f" {_duration(values['seconds'])}"
    )
    if values["tiles"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in values["time_share"].items())
        click.echo(
            f"{values['tiles']} tiles now, {values['tiles_per_s']:.1f} a second; time: {shares}"
        )
    echo_areas(values["area_m2"])
    for path in values.get("outputs", []):
        click.echo(path)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min"
        if hours
        else f"{minutes} min {rest:02} s"
        if minutes
        else f"{seconds:.1f} s"
    )


class _Reporter:
    """Progress over all scenes: a bar on a terminal, or JSON Lines on stdout."""

    def __init__(self, kind: str, *, quiet: bool) -> None:
        self._json = kind == "json"
        self._wanted = kind == "bar" or (kind == "auto" and not quiet and sys.stderr.isatty())
        self._bar: tqdm[None] | None = None

    def __call__(self, now: BatchProgress) -> None:
        if self._json:
            from dataclasses import asdict

            print_json({"event": "progress", "stage": "batch", "total": now.scenes, **asdict(now)})
        elif self._wanted:
            from tqdm import tqdm

            if self._bar is None:
                shape = "{percentage:3.0f}%|{bar}| {desc}"
                self._bar = tqdm(total=1.0, file=sys.stderr, bar_format=shape)
            left = "" if now.seconds_left is None else f", {_duration(now.seconds_left)} left"
            failed = f", {now.failed} failed" if now.failed else ""
            text = (
                f"{now.done}/{now.scenes} scenes{failed}, {now.tiles} tiles,"
                f" {now.tiles_per_s:.1f}/s{left}"
            )
            self._bar.n = now.done_share
            self._bar.set_description_str(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class _JsonLine(logging.Formatter):
    """One JSON object a message."""

    def format(self, record: logging.LogRecord) -> str:
        message = " ".join(record.getMessage().split())
        time = self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z")
        values = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        return json.dumps(values, ensure_ascii=False)
