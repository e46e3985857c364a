"""Cost of a batch of 10,000 scenes without their classification: status, plan, merging; STAC.

    python benchmarks/many_scenes.py [status] [dry-run] [merge] [stac]

``status`` and ``dry-run``: seconds of the verbs for a finished batch, start-up not counted; the
journal and the maps are made directly. ``merge``: the command for a finished batch of as many
scenes, and of a tenth, maps of four cells that overlap with their neighbors; processor time of the
run that makes the merged map, since other work of the machine only adds. ``stac``: an
ItemCollection of 100,000 items to jobs, in a process of its own. POSIX.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import shapely
from common import CACHE, verdict
from pyproj import CRS
from shapely import affinity

from rssc_geo.batch import (
    Journal,
    SceneFigures,
    collect_jobs,
    plan_batch,
    read_status,
    run_batch,
    signatures,
)
from rssc_geo.inference import PredictorSpec
from rssc_geo.models import ModelCard, load_card
from rssc_geo.options import BatchOptions, CaptionerOptions, values_of
from rssc_geo.output import CELL_FIELDS, GEOMETRY, LANDUSE_FIELDS, Field, Layer, format_of

PLAIN = BatchOptions(tile_size="100m")
MERGING = BatchOptions(tile_size="100m", merge="first", crs="EPSG:32632")
_CELL_M = 100
_STEP_M = 190  # from scene to scene, of two cells a side
_HEADER = 40  # bytes of a GeoPackage's geometry before its WKB: flags, SRS, four sides


def made_scenes(count: int) -> Path:
    """A folder of so many files that have a raster's name; nothing opens them."""
    folder = CACHE / f"many_{count}"
    if not folder.exists():
        made = CACHE / f"many_{count}.part"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        for number in range(count):
            (made / f"scene_{number:05d}.tif").write_bytes(number.to_bytes(4, "big"))
        made.rename(folder)
    return folder


def write_map(path: Path, card: ModelCard) -> None:
    """A map of 2 × 2 cells of two classes."""
    cells = [
        shapely.box(j * _CELL_M, -(i + 1) * _CELL_M, (j + 1) * _CELL_M, -i * _CELL_M)
        for i in (0, 1)
        for j in (0, 1)
    ]
    regions = [shapely.union(cells[0], cells[1]), shapely.union(cells[2], cells[3])]
    for name, fields, shapes in (
        ("landuse", LANDUSE_FIELDS, regions),
        ("cells", CELL_FIELDS, cells),
    ):
        batch = features(fields, shapes, card)
        crs = CRS.from_epsg(32632)
        layer = Layer(name, name, name, fields, "Polygon", crs, lambda batch=batch: iter([batch]))
        format_of(path).write(layer, path, {})


def move_map(path: Path, east: float, north: float) -> None:
    """Move what lies in a map; writing a new one takes a hundred times as long."""
    with closing(sqlite3.connect(path)) as connection:
        run = connection.execute
        run("PRAGMA synchronous = OFF")
        for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            run(f"DROP TRIGGER {name}")
        for layer in ("landuse", "cells"):
            for fid, blob in run(f"SELECT fid, geom FROM {layer}").fetchall():
                polygon = affinity.translate(shapely.from_wkb(blob[_HEADER:]), east, north)
                left, bottom, right, top = polygon.bounds
                sides = struct.pack("<4d", left, right, bottom, top)
                moved = blob[:8] + sides + shapely.to_wkb(polygon, byte_order=1)
                run(f"UPDATE {layer} SET geom = ? WHERE fid = ?", (moved, fid))
                run(
                    f"INSERT OR REPLACE INTO rtree_{layer}_geom VALUES (?, ?, ?, ?, ?)",
                    (fid, left, right, bottom, top),
                )
        run(
            "UPDATE gpkg_contents SET min_x = min_x + ?, max_x = max_x + ?, min_y = min_y + ?,"
            " max_y = max_y + ?",
            (east, east, north, north),
        )
        connection.commit()


def features(fields: tuple[Field, ...], shapes: list[shapely.Geometry], card: ModelCard) -> object:
    half = len(shapes) // 2
    classes = [card.classes[0]] * half + [card.classes[1]] * half
    values: dict[str, list[object]] = {
        "class": [each.name for each in classes],
        "class_id": [each.id for each in classes],
        "confidence": [0.5] * len(shapes),
        "area_m2": [shape.area for shape in shapes],
        "cells": [2] * len(shapes),
    }
    blank: dict[str, object] = {"text": "x", "integer": 0, "real": 0.5}
    columns = {
        field.name: values.get(field.name, [blank[field.kind]] * len(shapes)) for field in fields
    }
    kinds = {"text": pa.string(), "integer": pa.int32(), "real": pa.float64()}
    arrays = [pa.array(columns[field.name], kinds[field.kind]) for field in fields]
    names = [field.name for field in fields]
    return pa.record_batch([*arrays, pa.array(shapely.to_wkb(shapes))], names=[*names, GEOMETRY])


def maps_mark() -> str:
    """What tells maps of one layout from those of another: a hash of their layers' fields."""
    fields = [(each.name, each.kind) for each in (*LANDUSE_FIELDS, *CELL_FIELDS)]
    return hashlib.sha256(repr(fields).encode()).hexdigest()[:8]


def made_maps(count: int, card: ModelCard) -> Path:
    """A folder of so many maps in a lattice, which overlap a little."""
    folder = CACHE / f"many_maps_{maps_mark()}_{count}"
    if not folder.exists():
        made = folder.with_suffix(".part")
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        first = made / "first.gpkg"
        write_map(first, card)
        for number in range(count):
            row, col = divmod(number, math.isqrt(count))
            path = Path(shutil.copy(first, made / f"scene_{number:05d}.gpkg"))
            move_map(path, 300_000 + col * _STEP_M, 5_000_000 - row * _STEP_M)
        first.unlink()
        made.rename(folder)
    return folder


def finished(scenes: Path, output: str, options: BatchOptions, card: ModelCard) -> None:
    """Write the journal of a batch that is over, whose maps are there."""
    captioner = str(values_of(options, CaptionerOptions))
    made_by = PredictorSpec(card, captioner, str(options.dtype)).as_dict()
    jobs = collect_jobs([str(scenes)], output, options).jobs
    folder = Path(output).parent
    classes = [{"name": card.classes[0].name, "cells": 4, "area_m2": 4e4}]
    figures = SceneFigures(4, classes, seconds=1.0, reading_s=0.2, model_s=0.7, writing_s=0.1)
    with Journal(folder, options={}) as journal:
        journal.await_scenes(
            {
                "output": journal.key(job.output),
                "id": job.id,
                "input": job.label,
                "options_hash": job.options_hash(made_by, folder),
                "input_files": signatures(job.source, job.folder),
            }
            for job in jobs
        )
        for job in jobs:
            key = journal.key(job.output)
            journal.expect_output(key)
            journal.finish_scene(key, figures, [job.output])
        journal.end("done")


def plain_batch(count: int, card: ModelCard, out: Path) -> tuple[Path, str]:
    """The scenes and the output of a finished batch in ``out``; its maps are no maps."""
    scenes, output = made_scenes(count), f"{out}/{{id}}.gpkg"
    for job in collect_jobs([str(scenes)], output, PLAIN).jobs:
        job.output.write_bytes(b"a map")
    finished(scenes, output, PLAIN, card)
    return scenes, output


def status(arguments: argparse.Namespace) -> bool:
    card = load_card("compact")
    with tempfile.TemporaryDirectory(dir=CACHE) as out:
        plain_batch(arguments.scenes, card, Path(out))
        started = time.perf_counter()
        counts = read_status(out)["counts"]
        seconds = time.perf_counter() - started
    assert counts["done"] == arguments.scenes, counts
    return verdict(f"seconds of the status of {arguments.scenes} scenes", seconds, at_most=2)


def dry_run(arguments: argparse.Namespace) -> bool:
    card = load_card("compact")
    with tempfile.TemporaryDirectory(dir=CACHE) as out:
        scenes, output = plain_batch(arguments.scenes, card, Path(out))
        started = time.perf_counter()
        plan = plan_batch([scenes], output, PLAIN).as_dict()
        seconds = time.perf_counter() - started
    assert plan["skipped"] == arguments.scenes, plan["skipped"]
    return verdict(f"seconds of --dry-run of {arguments.scenes} scenes", seconds, at_most=2)


def merge(arguments: argparse.Namespace) -> bool:
    card = load_card("compact")
    spent = []
    for count in (arguments.scenes // 10, arguments.scenes):
        with tempfile.TemporaryDirectory(dir=CACHE) as out:
            output = Path(out, "all.gpkg")
            maps = output.with_suffix(".parts")
            shutil.copytree(made_maps(count, card), maps, copy_function=os.link)
            scenes = made_scenes(count)
            finished(scenes, str(output), MERGING, card)
            started, before = time.perf_counter(), time.process_time()
            result = run_batch([scenes], output, MERGING)
            spent.append(time.process_time() - before)
            seconds, size = time.perf_counter() - started, output.stat().st_size / 1e6
        assert result.skipped == count, (result.skipped, result.failed[:3])
        assert math.isclose(sum(result.area_m2.values()), covered_m2(count), rel_tol=0.01)
        print(
            f"{count} scenes merged in {seconds:.1f} s, {spent[-1]:.1f} s of them of the processor;"
            f" {size:.1f} MB"
        )
    return verdict("ten times the scenes, processor time", spent[1] / spent[0], at_most=12)


def covered_m2(count: int) -> float:
    """What the scenes of a lattice cover, about: its last row may be short."""
    columns = math.isqrt(count)
    return count * _STEP_M**2 + (columns + count / columns) * _STEP_M * (2 * _CELL_M - _STEP_M)


_PLAN_STAC = """
import json, sys, time
from common import own_peak_mb
from rssc_geo.batch import collect_jobs
from rssc_geo.options import BatchOptions
started = time.perf_counter()
jobs = collect_jobs([sys.argv[1]], "maps/{id}.gpkg", BatchOptions())
seconds = time.perf_counter() - started
print(json.dumps([len(jobs.jobs), len(jobs.problems), seconds, own_peak_mb()]))
"""


def stac_items(count: int) -> Iterator[str]:
    """Items as catalogs of Sentinel-2 have them: a dozen assets."""
    bands = ("blue", "green", "red", "nir", "swir16", "swir22", "scl", "wvp", "aot", "visual")
    for number in range(count):
        place = f"https://example.com/scenes/{number}"
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "stac_extensions": ["https://stac-extensions.github.io/eo/v1.1.0/schema.json"],
            "id": f"scene_{number}",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[7, 50], [8, 50], [8, 51], [7, 51], [7, 50]]],
            },
            "bbox": [7, 50, 8, 51],
            "properties": {"datetime": "2024-06-01T10:00:00Z", "eo:cloud_cover": 3.5},
            "links": [{"rel": "self", "href": f"{place}/item.json"}],
            "assets": {
                band: {
                    "href": f"{place}/{band}.tif",
                    "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                    "roles": ["data"],
                    "eo:bands": [{"name": band, "common_name": band}],
                }
                for band in bands
            },
        }
        yield json.dumps(item)


def stac(arguments: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        file = Path(folder, "items.json")
        with file.open("w") as out:
            out.write('{"type": "FeatureCollection", "features": [')
            for number, item in enumerate(stac_items(arguments.items)):
                out.write(("," if number else "") + item)
            out.write("]}")
        done = subprocess.run(
            [sys.executable, "-c", _PLAN_STAC, str(file)],
            check=True,
            capture_output=True,
            cwd=Path(__file__).parent,  # to import what the benchmarks share
        )
        size = file.stat().st_size / 1e6
    jobs, problems, seconds, megabytes = json.loads(done.stdout)
    print(f"{arguments.items} items in a file of {size:.0f} MB: {jobs} jobs, {problems} problems")
    met = verdict("seconds to plan them", seconds, at_most=60)
    return verdict("MB at most", megabytes, at_most=500) and met


PARTS = {"stac": stac, "status": status, "dry-run": dry_run, "merge": merge}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=100_000)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part(s) {', '.join(sorted(unknown))}")
    CACHE.mkdir(parents=True, exist_ok=True)
    met = [part(arguments) for name, part in PARTS.items() if name in (arguments.parts or PARTS)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
