"""A raster's captions alone: a polygon layer of cells, or one line of JSON a tile."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import shapely

from rssc_geo.captioning import check_captioner
from rssc_geo.errors import UsageError
from rssc_geo.files import atomic_write, check_not_input, check_writable
from rssc_geo.geometry import Tile
from rssc_geo.inference import (
    Plan,
    Source,
    TileResult,
    make_plan,
    nothing_to_classify,
    predict_tiles,
)
from rssc_geo.models import load_card
from rssc_geo.options import (
    CaptionOptions,
    DescribingOptions,
    OutputOptions,
    PredictorOptions,
    files_read,
    values_of,
)
from rssc_geo.output import (
    CELL_FIELDS,
    GEOMETRY,
    GeoGrid,
    Layer,
    OutputTarget,
    Placement,
    make_target,
    provenance_document,
)
from rssc_geo.progress import Progress, reporting

if TYPE_CHECKING:
    from rssc_geo.inference import Predictor

log = logging.getLogger(__name__)

_SUFFIXES = (".gpkg", ".jsonl")
_FIELDS = tuple(field for field in CELL_FIELDS if field.name in {"caption", "row", "col"})
_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class CaptionResult:
    """The path of the captions, number of tiles, time and device."""

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
    options: CaptionOptions | None = None,
    *,
    model: Predictor | None = None,
    progress: Progress | bool | None = None,
) -> CaptionResult:
    """Describe a raster's tiles in words.

    ``classify`` with the same captioner and tiling then finds the captions cached.

    Parameters
    ----------
    source, model, progress : as for :func:`rssc_geo.classify`
    output : a .gpkg with the layer ``captions``, one polygon a cell with ``caption``, ``row`` and
        ``col`` of the cell, its caption being that of the tile whose center is nearest; or a .jsonl
        with one object a tile: ``row`` and ``col`` of the tile, ``bounds`` (min x, min y, max x,
        max y) in ``crs``, the raster's, and ``caption``
    options : all that the command line has; its defaults

    Raises ``RsscGeoError``, one clear line; captions that a large captioner wrote by then stay in
    the cache.

    Examples
    --------
    >>> from rssc_geo import CaptionOptions, caption
    >>> options = CaptionOptions(tile_size="900m")
    >>> caption("scene.tif", "captions.jsonl", options).output.name
    'captions.jsonl'
    """
    started = time.monotonic()
    options = options or CaptionOptions()
    path = Path(output)
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path}: captions are written as {' or '.join(_SUFFIXES)}")
    if options.captioner == "none":
        raise UsageError("--captioner none writes no captions; name one that does")
    if options.caption_when != CaptionOptions.caption_when:
        raise UsageError("--caption-when is for maps: every tile is described by caption")
    card = model.card if model else load_card(options.model, revision=options.revision)
    if model is None:
        check_captioner(options, card)
    plan = make_plan(source, card, options, fine=False)
    for warning in plan.warnings:
        log.warning("%s", warning)
    target = _check_output(path, options, plan)

    from rssc_geo.captioning import NoCaptioner
    from rssc_geo.inference import load_predictor

    predictor = model or load_predictor(PredictorOptions(**values_of(options, DescribingOptions)))
    if isinstance(predictor.captioner, NoCaptioner):
        raise UsageError("the model brings no captioner of its own; name one with --captioner")
    with reporting(progress) as report:
        results = _results(plan, predictor, report)
        if target is None:
            count = _write_lines(path, plan, results, overwrite=options.overwrite)
        else:
            count = _write_layer(target, plan, results, predictor.spec.captioner)
    return CaptionResult(
        path, count, time.monotonic() - started, str(predictor.compute.device), plan.warnings
    )


def _check_output(path: Path, options: CaptionOptions, plan: Plan) -> OutputTarget | None:
    """Refuse an output that could not be written at the end; the target of a GeoPackage."""
    read = [*plan.inputs(), *files_read(options)]
    if path.suffix.lower() != ".jsonl":
        return make_target(
            path,
            OutputOptions(crs=options.crs),
            overwrite=options.overwrite,
            area=plan.area,
            inputs=read,
        )
    if options.crs is not None:
        raise UsageError(
            "--crs is for a GeoPackage; the bounds in JSON Lines are in the raster's CRS"
        )
    check_writable(path, overwrite=options.overwrite)
    check_not_input([path], read)
    return None


def _results(plan: Plan, predictor: Predictor, progress: Progress) -> Iterator[TileResult]:
    """The tiles with valid pixels; ``NothingToClassifyError`` where there are none."""
    tiles = plan.cells.tiles()
    done = looked = 0
    with plan.reader(tiles.tolist(), out_size=predictor.card.input_size) as reader:
        for results in predict_tiles(reader, plan.cells, predictor):
            for result in results:
                if result.probabilities is not None:
                    looked += 1
                    yield result
            done += len(results)
            progress("caption", done, len(tiles))
    if not looked:
        raise nothing_to_classify(plan)


def _write_lines(path: Path, plan: Plan, results: Iterator[TileResult], *, overwrite: bool) -> int:
    """Write a line a tile; the number of tiles."""
    crs = ":".join(plan.scene.crs.to_authority() or ()) or plan.scene.crs.to_wkt()
    count = 0
    with (
        atomic_write(path, overwrite=overwrite) as made,
        made.open("w", encoding="utf-8") as file,
    ):
        for result in results:
            tile, bounds = result.tile, _bounds(plan, result.tile)
            values = {"row": tile.row, "col": tile.col, "bounds": bounds, "crs": crs}
            line = {**values, "caption": result.captions[0]}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
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
    target: OutputTarget, plan: Plan, results: Iterator[TileResult], captioner: str
) -> int:
    """Write the layer ``captions``; the number of tiles."""
    found: list[tuple[int, int, str]] = []
    count = 0
    for result in results:
        rows, cols = plan.grid.cells_of_tile(result.tile)
        own = plan.cells.own(result.tile) & plan.cells.valid(result.cell_fractions)
        for row, col in np.argwhere(own).tolist():
            found.append((rows.start + row, cols.start + col, result.captions[0]))
        count += 1
    layer = _layer(target, plan, sorted(found), captioner)
    provenance = provenance_document({"captioner": captioner, "rssc_geo": version("rssc-geo")})
    with target.staged() as staging:
        target.write_layers(staging, [layer], classes=(), provenance=provenance)
    return count


def _layer(
    target: OutputTarget, plan: Plan, found: Sequence[tuple[int, int, str]], captioner: str
) -> Layer:
    crs = plan.scene.crs
    geo = GeoGrid(plan.grid, plan.scene.transform, crs)
    placement = Placement(geo, target.crs_of(crs))

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(found), _CHUNK):
            rows, cols, captions = zip(*found[start : start + _CHUNK], strict=True)
            polygons = geo.polygons(np.array(rows, np.int32), np.array(cols, np.int32))
            outlines = shapely.to_wkb(placement.place(polygons))
            yield layer.batch({"caption": captions, "row": rows, "col": cols, GEOMETRY: outlines})

    layer = Layer(
        "captions",
        "Captions",
        f"Caption of each cell of {plan.scene.name} by rssc-geo's captioner {captioner}",
        _FIELDS,
        placement.geometry_type,
        placement.target,
        batches,
    )
    return layer
