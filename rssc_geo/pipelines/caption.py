"""A raster's captions alone: a polygon layer of cells, or one line of JSON a tile."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from rssc_geo.captioning import Captioner, NoCaptioner, describe_captioner, make_captioner
from rssc_geo.errors import InputError, OutputError, UsageError
from rssc_geo.geometry import Tile, cell_polygons
from rssc_geo.inference import (
    CellMap,
    Plan,
    Source,
    TileClassifier,
    TileResult,
    TilingOptions,
    choose_compute,
    classify_tiles,
    make_plan,
    output_options,
    spare_the_input,
)
from rssc_geo.models import Model, load_bundle, load_card
from rssc_geo.options import CaptionerOptions
from rssc_geo.output import (
    CELL_FIELDS,
    Layer,
    OutputOptions,
    Placement,
    Workshop,
    check_file,
    format_of,
)
from rssc_geo.progress import Progress
from rssc_geo.raster import TileReader, fit_radiometry

log = logging.getLogger(__name__)

_SUFFIXES = (".gpkg", ".jsonl")
_FIELDS = tuple(field for field in CELL_FIELDS if field.name in ("caption", "row", "col"))
_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class CaptionResult:
    """Where the captions lie, of how many tiles, how long it took and on which device."""

    output: Path
    tiles: int
    seconds: float
    device: str
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "outputs": [str(self.output)],
            "tiles": self.tiles,
            "seconds": round(self.seconds, 3),
            "device": self.device,
            "warnings": list(self.warnings),
        }


def caption(
    source: Source,
    output: str | Path,
    *,
    model: str | Path | Model = "compact",
    revision: str | None = None,
    captioner: str | Captioner | None = None,
    caption_options: CaptionerOptions | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    crs: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **tiling: Any,
) -> CaptionResult:
    """Describe a raster's tiles in words; ``classify`` with the same captioner and tiling then
    finds the captions cached.

    ``output``: a .gpkg with the layer ``captions``, one polygon a cell with ``caption``, ``row``
    and ``col`` of the cell, its caption being that of the tile whose center is nearest; or a .jsonl
    with one object a tile: ``row`` and ``col`` of the tile, ``bounds`` (min x, min y, max x, max y)
    in ``crs``, the raster's, and ``caption``. The other arguments are those of ``classify``.

    Raises ``RsscGeoError``, one clear line; captions that a large captioner wrote by then stay in
    the cache.
    """
    started = time.monotonic()
    target = Path(output)
    if target.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{target.name}: captions are written as {' or '.join(_SUFFIXES)}")
    options = TilingOptions(**tiling)
    plan = make_plan(
        source,
        model.card if isinstance(model, Model) else load_card(model, revision=revision),
        options,
    )
    for warning in plan.warnings:
        log.warning("%s", warning)
    lines = target.suffix.lower() == ".jsonl"
    wanted = None if lines else output_options(plan, target, crs=crs, overwrite=overwrite)
    if lines:
        _check_lines(plan, target, crs=crs, overwrite=overwrite)
    compute = choose_compute(device, dtype=dtype, batch_size=batch_size)
    loaded = model if isinstance(model, Model) else load_bundle(model, revision=revision)
    writes = captioner
    if writes is None or isinstance(writes, str):
        asked = replace(caption_options or CaptionerOptions(), captioner=writes)
        writes = make_captioner(loaded, asked, device=compute.device, dtype=compute.dtype)
    if isinstance(writes, NoCaptioner):
        raise UsageError("--captioner none writes no captions; name one that does")
    cells = CellMap(plan.grid, plan.selected, min_valid=options.min_valid)
    results = _results(
        plan, options, cells, TileClassifier(loaded, writes, compute), loaded, progress
    )
    count = (
        _write_lines(target, plan, results)
        if wanted is None
        else _write_layer(wanted, plan, cells, results, writes)
    )
    if not count:
        raise InputError(
            f"{plan.scene.source}: no cell has {options.min_valid:.0%} valid pixels, so there is"
            " nothing to describe (--min-valid lowers the share, --nodata names another value)"
        )
    return CaptionResult(
        target, count, time.monotonic() - started, str(compute.device), plan.warnings
    )


def _results(
    plan: Plan,
    options: TilingOptions,
    cells: CellMap,
    classifier: TileClassifier,
    model: Model,
    progress: Progress | None,
) -> Iterator[TileResult]:
    """The tiles that were looked at."""
    tiles = cells.tiles()
    radiometry = fit_radiometry(plan.scene, stretch=options.stretch)
    done = 0
    with TileReader(
        plan.scene, plan.grid, radiometry, out_size=model.card.input_size, tiles=tiles.tolist()
    ) as reader:
        for results in classify_tiles(reader, cells, classifier):
            yield from (result for result in results if result.probabilities is not None)
            done += len(results)
            if progress is not None:
                progress("caption", done, len(tiles))


def _check_lines(plan: Plan, path: Path, *, crs: str | None, overwrite: bool) -> None:
    """Refuse before the work starts what could not be written at its end."""
    if crs is not None:
        raise UsageError(
            "--crs is for a GeoPackage; the bounds in JSON Lines are in the raster's CRS"
        )
    check_file(path, overwrite=overwrite)
    spare_the_input(plan, path)


def _write_lines(path: Path, plan: Plan, results: Iterator[TileResult]) -> int:
    """Write a line a tile; the file appears whole or not at all."""
    crs = ":".join(plan.scene.crs.to_authority() or ()) or plan.scene.crs.to_wkt()
    part = path.with_name(path.name + ".part")
    count = 0
    try:
        with part.open("w", encoding="utf-8") as file:
            for result in results:
                tile = result.tile
                bounds = _bounds(plan, tile)
                values = {
                    "row": tile.row,
                    "col": tile.col,
                    "bounds": bounds,
                    "crs": crs,
                    "caption": result.caption,
                }
                file.write(json.dumps(values, ensure_ascii=False) + "\n")
                count += 1
        if count:
            os.replace(part, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return count


def _bounds(plan: Plan, tile: Tile) -> list[float]:
    window, transform = tile.window, plan.scene.transform
    corners = [
        transform @ (window.col + right * window.width, window.row + down * window.height)
        for right in (0, 1)
        for down in (0, 1)
    ]
    x, y = zip(*corners, strict=True)
    return [min(x), min(y), max(x), max(y)]


def _write_layer(
    wanted: OutputOptions,
    plan: Plan,
    cells: CellMap,
    results: Iterator[TileResult],
    captioner: Captioner,
) -> int:
    """Write the layer ``captions``; the number of tiles."""
    found: list[tuple[int, int, str]] = []
    count = 0
    for result in results:
        rows, cols = plan.grid.cells_of_tile(result.tile)
        asked = plan.selected[rows.start : rows.stop, cols.start : cols.stop]
        own = cells.near(result.tile) & cells.valid(result.cell_fractions) & asked
        found += [
            (rows.start + int(row), cols.start + int(col), result.caption)
            for row, col in np.argwhere(own)
        ]
        count += 1
    if found:
        layer = _layer(wanted, plan, sorted(found), captioner)
        with Workshop(wanted) as workshop:
            format_of(wanted.path).write(layer, workshop.temporary(wanted.path), {})
            workshop.publish()
    return count if found else 0


def _layer(
    wanted: OutputOptions, plan: Plan, found: Sequence[tuple[int, int, str]], captioner: Captioner
) -> Layer:
    crs, transform = plan.scene.crs, plan.scene.transform
    placement = Placement(
        crs, wanted.crs or crs, grid=plan.grid, transform=transform, clip=None, wrap=False
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(found), _CHUNK):
            rows, cols, captions = zip(*found[start : start + _CHUNK], strict=True)
            polygons = placement.place(
                cell_polygons(
                    plan.grid, transform, np.array(rows, np.int32), np.array(cols, np.int32)
                )
            )
            columns = [
                pa.array(captions, pa.string()),
                pa.array(rows, pa.int32()),
                pa.array(cols, pa.int32()),
                pa.array(shapely.to_wkb(polygons), pa.binary()),
            ]
            yield pa.record_batch(columns, schema=layer.schema)

    layer = Layer(
        "captions",
        "Captions",
        f"What rssc-geo's captioner says about each cell of {plan.scene.name}:"
        f" {describe_captioner(captioner)}",
        _FIELDS,
        placement.geometry_type,
        placement.target,
        batches,
    )
    return layer
