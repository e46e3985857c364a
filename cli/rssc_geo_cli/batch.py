"""``rssc-geo batch run``, ``batch status`` and ``batch areas``."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rssc_geo.errors import NothingToClassifyError, RsscGeoError
from rssc_geo.options import (
    BatchAreasOptions,
    BatchOptions,
    BatchRunOptions,
    PrintOptions,
    ScenesRunOptions,
    TargetOptions,
)
from rssc_geo.progress import duration
from rssc_geo_cli.console import (
    echo_areas,
    end_with_parent,
    print_json,
    say,
    show_result,
    wants_bar,
)
from rssc_geo_cli.groups import CommandGroup
from rssc_geo_cli.options import command

if TYPE_CHECKING:
    from rssc_geo.batch import BatchProgress


log = logging.getLogger(__name__)

_NEW_FAILURES, _KNOWN_FAILURES = 4, 5
"""Exit codes of a batch of which some scenes failed."""


@click.group("batch", cls=CommandGroup)
def batch_group() -> None:
    """Map many scenes, on this machine or on a cluster, and keep a journal of them."""


@command("run", TargetOptions, BatchOptions, BatchRunOptions)
@click.argument("inputs", nargs=-1, required=True, type=click.Path())
def run_command(
    target: TargetOptions,
    options: BatchOptions,
    run: BatchRunOptions,
    *,
    inputs: tuple[str, ...],
) -> int:
    """Map INPUTS: rasters, URLs, globs, folders, manifests (.txt, .csv), STAC .json, tile indexes.

    The result is a folder, or files such as 'maps/{id}.parquet'. Each scene becomes a map; its
    state is recorded in a journal beside the maps. The same command given again continues where it
    stopped. A scene that fails does not stop the others; the exit code is then 4, or 5 where all
    that failed had failed before (--fail-on).
    """
    if run.verbose < 2 and options.scheduler is not None:
        silence_dask()
    if run.dry_run:
        return _dry_run(inputs, target.output, options, run)

    from rssc_geo.batch import run_batch

    end_with_parent(run)
    progress = print_progress if run.progress == "json" else wants_bar(run)
    values = run_batch(inputs, target.output, options, progress=progress).as_dict()
    show_result(values, run, _tell)
    return exit_code(values, run, scenes=values["scenes"])


def print_progress(now: BatchProgress) -> None:
    """Progress over all scenes, as JSON Lines on stdout."""
    event = {"event": "progress", "stage": "batch", "total": now.scenes}
    print_json({**event, **asdict(now)})


@command("status", PrintOptions)
@click.argument("folder", metavar="DIR", type=click.Path())
def status_command(printing: PrintOptions, *, folder: str) -> None:
    """Show the journal of the batch whose results are in DIR."""
    from rssc_geo.batch import read_status

    show_result(read_status(folder), printing, _tell_status)


def _tell_status(values: Mapping[str, Any]) -> None:
    from rssc_geo.output import area_in_words

    rows = [("state", "progress", "tries", "work s", "took", "area", "scene", "note")]
    for scene in values["scenes"]:
        done, tiles = scene["tiles_done"] or 0, scene["tiles"]
        share = "" if tiles is None else f"{done}/{tiles}"
        # Not the time from start to end: scenes wait for each other, and users add up the columns.
        work = [scene[f"{stage}_s"] for stage in ("reading", "model", "writing")]
        took = "" if None in work else f"{sum(work):.1f}"
        whole = "" if scene["seconds"] is None else duration(scene["seconds"])
        known = [entry["area_m2"] for entry in scene["classes"] or []]
        area = "{:,.1f} {}".format(*area_in_words(sum(known))) if known else ""
        about = (share, str(scene["attempts"]), took, whole, area)
        rows.append((scene["state"], *about, scene["output"], scene["error"] or ""))
    rows += [
        ("failed", *[""] * 5, problem["label"], problem["message"])
        for problem in values["problems"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        columns = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        say("  ".join([*columns, row[-1]]).rstrip())
    counts = [f"{count} {state}" for state, count in values["counts"].items() if count]
    if values["problems"]:
        counts.append(f"{len(values['problems'])} of the inputs unusable")
    areas: Counter[str] = Counter()
    for scene in values["scenes"]:
        areas.update({entry["name"]: entry["area_m2"] for entry in scene["classes"] or []})
    echo_areas(areas)
    for run in values["runs"]:
        say(f"run of {run['started']} to {run['ended'] or '…'}: {run['outcome'] or 'open'}")
    say(", ".join(counts) or "no scenes")


@command("areas", TargetOptions, BatchAreasOptions, PrintOptions)
@click.argument("folder", metavar="DIR", type=click.Path())
def areas_command(
    target: TargetOptions, options: BatchAreasOptions, printing: PrintOptions, *, folder: str
) -> None:
    """Write a table (CSV) of each class's area in each scene of the batch in DIR.

    It is read from the journal: no map is opened.
    """
    from rssc_geo.batch import tabulate_batch

    table = tabulate_batch(folder, target.output, options)
    show_result(table.as_dict(), printing, lambda values: click.echo(values["outputs"][0]))


def silence_dask() -> None:
    """Silence Dask's own messages: our errors give the reason in one line."""
    with contextlib.suppress(ImportError):  # reported where it is needed
        importlib.import_module("distributed")  # sets levels of its own when it is imported

    foreign = ("distributed", "dask", "tornado")
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in foreign:
            logging.getLogger(name).setLevel(logging.CRITICAL)
            logging.getLogger(name).handlers.clear()


def _dry_run(
    inputs: Sequence[str], output: str, options: BatchOptions, run: BatchRunOptions
) -> int:
    from rssc_geo.batch import Problem, plan_batch

    values = plan_batch(inputs, output, options).as_dict()
    for problem in values["failed"]:
        log.error("%s", Problem(problem["input"], problem["error"]))
    show_result(values, run, _tell_plan)
    return exit_code(values, run, scenes=sum(bool(entry["output"]) for entry in values["plan"]))


def _tell_plan(values: Mapping[str, Any]) -> None:
    for entry in values["plan"]:
        if entry["size_px"] is not None:
            rows, cols = entry["size_px"]
            size = f"{entry['cells']:>9} cells  {rows} x {cols} px"
            say(f"{size}  {entry['input']} -> {entry['output']}")
    seconds = values["estimated_seconds_on_cpu"]
    over = [
        f"{values[state]} are {words}"
        for state, words in (("skipped", "done"), ("empty", "empty"))
        if values[state]
    ]
    before = f" ({', '.join(over)})" if over else ""
    time = (
        "time unknown: the model's card gives no rate"
        if seconds is None
        else f"about {duration(seconds)} on this processor"
    )
    say(
        f"{values['scenes']} scenes to do{before}, {values['cells']} cells,"
        f" {values['bytes_in'] / 1e6:.1f} MB in,"
        f" about {values['estimated_bytes_out'] / 1e6:.1f} MB out, {time}"
    )


def exit_code(values: Mapping[str, Any], run: ScenesRunOptions, *, scenes: int) -> int:
    """Report how many inputs failed; the exit code. ``scenes``: how many the inputs give."""
    failed = values["failed"]
    new = sum(not problem["known"] for problem in failed)
    if not failed:
        return NothingToClassifyError.exit_code if 0 < scenes == values["empty"] else 0
    log.error("%d of the inputs failed, %d of them for the first time, see above", len(failed), new)
    if scenes == 0:
        return RsscGeoError.exit_code  # nothing could be started
    if run.fail_on == "none" or (run.fail_on == "new" and not new):
        return 0
    return _NEW_FAILURES if new else _KNOWN_FAILURES


def _tell(values: Mapping[str, Any]) -> None:
    """A few lines for people."""
    empty = f", {values['empty']} with nothing to classify" if values["empty"] else ""
    say(
        f"{values['done']} of {values['scenes']} scenes done ({values['skipped']} before){empty},"
        f" {duration(values['seconds'])}"
    )
    if values["tiles"]:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in values["time_share"].items())
        rate = f"{values['tiles_per_s']:.1f} a second"
        say(f"{values['tiles']} tiles or blocks now, {rate}; time: {shares}")
    echo_areas(values["area_m2"])
    for path in values.get("outputs", []):
        click.echo(path)


for made in (run_command, status_command, areas_command):
    batch_group.add_command(made)
