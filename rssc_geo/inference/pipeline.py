"""The main job: read → caption → classify → aggregate → write, each waiting for none of the others."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from pyproj.exceptions import CRSError

from rssc_geo.captioning.base import Captioner, NoCaptioner
from rssc_geo.captioning.compact import CompactCaptioner
from rssc_geo.errors import InputError, UsageError
from rssc_geo.inference.aggregate import CellAggregator, CellMap, TileResult
from rssc_geo.inference.device import TileClassifier, choose_compute
from rssc_geo.inference.picture import check_preview, draw_preview
from rssc_geo.inference.plan import Plan, Source, TilingOptions, describe_options, make_plan
from rssc_geo.inference.sink import CellSink
from rssc_geo.models.bundle import Model, load_card, load_model
from rssc_geo.raster.radiometry import Radiometry, fit_radiometry
from rssc_geo.raster.reader import TileData, TileReader
from rssc_geo.vector.landuse import LandUseSummary, LandUseWriter, OutputOptions, check_output

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with a stage's name ("classify", "write"), how much of it is done, and how much there is."""

_PENDING = 16384  # tiles without data (some 300 bytes each) that may wait for a batch to fill before it is run as it is


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """What a run did: counts, areas, where the results lie, how long it took."""

    summary: LandUseSummary
    tiles: int
    tiles_classified: int
    resumed_at: int
    seconds: float
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it; only classes that occur."""
        summary = self.summary
        return {
            "outputs": [str(path) for path in summary.paths],
            "cells": summary.cells,
            "regions": summary.regions,
            "classes": [asdict(total) for total in summary.classes if total.cells],
            "tiles": self.tiles,
            "tiles_classified": self.tiles_classified,
            "resumed_at": self.resumed_at,
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
        }


def make_captioner(name: str | None, model: Model) -> Captioner:
    """The captioner called ``name``: ``compact`` (the bundle's own) or ``none``; by default the own one, if there is one.

    Raises ``UsageError`` for another name, or where there is no own one.
    """
    if name == "none" or (name is None and model.decoder is None):
        return NoCaptioner()
    if name in (None, "compact"):
        if model.decoder is None or model.vocabulary is None:
            raise UsageError(f"the model {model.card.name!r} brings no captioner of its own; use --captioner none")
        return CompactCaptioner(model.decoder, model.vocabulary)
    raise UsageError(f"--captioner {name!r} is unknown; use compact or none")


def classify(
    source: Source,
    output: str | Path,
    *,
    model: str | Path | Model = "compact",
    revision: str | None = None,
    captioner: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    crs: str | None = None,
    aoi_clip: bool = False,
    min_area_m2: float = 0.0,
    probabilities: bool = False,
    class_raster: str | Path | None = None,
    preview: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **tiling: Any,
) -> ClassifyResult:
    """Classify a raster into land-use polygons and write them.

    Parameters
    ----------
    source : path, URL or /vsi path of a raster; a sequence of single-band ones as red, green, blue
    output : .gpkg, .fgb, .geojson, .parquet or .shp
    model : embedded name, bundle folder or hub id (``revision``: of the hub id), or a loaded one for many rasters
    captioner : "compact" (the bundle's own, the default where it has one) or "none"
    device, dtype, batch_size : see ``choose_compute``
    crs : CRS of the output; the raster's by default
    aoi_clip : also clip the polygons to ``aoi``
    min_area_m2 : regions below this area join a neighbour, in the ``landuse`` layer
    probabilities : one p_<class> column each in the ``scenes`` layer
    class_raster, preview : also write a COG of classes, a PNG picture
    overwrite : replace existing results
    progress : called from this thread, see ``Progress``
    **tiling : the fields of ``TilingOptions``

    Raises
    ------
    RsscGeoError
        One clear line; whatever was classified so far stays in ``<output>.part`` and the same call goes on there.
    """
    started = time.monotonic()
    options = TilingOptions(**tiling)
    card = model.card if isinstance(model, Model) else load_card(model, revision=revision)
    plan = make_plan(source, card, options)
    if aoi_clip and plan.area is None:
        raise UsageError("--aoi-clip needs --aoi or --bounds to clip to")
    for warning in plan.warnings:
        log.warning("%s", warning)
    wanted = OutputOptions(
        path=Path(output),
        crs=_parse_crs(crs),
        min_area_m2=min_area_m2,
        probabilities=probabilities,
        overwrite=overwrite,
        aoi_clip=plan.area if aoi_clip else None,
        class_raster=None if class_raster is None else Path(class_raster),
    )
    check_output(wanted)
    if preview is not None:
        check_preview(Path(preview), overwrite=overwrite)
    _spare_the_input(plan, [*wanted.results, *([] if preview is None else [Path(preview)])])
    compute = choose_compute(device, dtype=dtype, batch_size=batch_size)
    loaded = model if isinstance(model, Model) else load_model(model, revision=revision)
    writes = make_captioner(captioner, loaded)
    classifier = TileClassifier(loaded, writes, compute)
    radiometry = fit_radiometry(plan.scene, stretch=options.stretch)
    run = {
        "input": plan.scene.fingerprint(),
        "options": {**describe_options(options), "aoi": None, "selected": hashlib.sha256(plan.selected.tobytes()).hexdigest()},
        "scaling": asdict(radiometry),
        "model": {
            "name": loaded.card.name,
            "version": loaded.card.version,
            "sha256": dict(loaded.card.sha256),
            "classes": {c.name: c.description for c in loaded.card.classes},
        },
        "captioner": writes.name,
        "dtype": str(compute.dtype).removeprefix("torch."),
        "program": version("rssc-geo"),
        "probabilities": probabilities,
    }
    with LandUseWriter(
        wanted,
        grid=plan.grid,
        transform=plan.scene.transform,
        crs=plan.scene.crs,
        classes=loaded.card.classes,
        run_key=run,
        provenance=_provenance(plan, radiometry, loaded, run),
    ) as writer:
        job = _Job(plan, CellMap(plan.grid, plan.selected, min_valid=options.min_valid), classifier, loaded)
        job.run(writer, radiometry, progress)
        report = progress or _silent
        report("write", 0, 1)
        if not len(writer):
            writer.discard()
            raise InputError(
                f"{plan.scene.source}: no cell has {options.min_valid:.0%} valid pixels, so there is nothing to classify "
                "(--min-valid lowers the share, --nodata names another value)"
            )
        summary = writer.finish({"seconds": round(time.monotonic() - started, 1), "tiles_classified": job.classified})
        if preview is not None:
            draw_preview(
                Path(preview), plan=plan, radiometry=radiometry, class_grid=summary.class_grid, classes=loaded.card.classes
            )
        report("write", 1, 1)
    return ClassifyResult(summary, len(job.tiles), job.classified, job.watermark, time.monotonic() - started, plan.warnings)


def _silent(_stage: str, _done: int, _total: int) -> None:
    """No one watches."""


def _parse_crs(text: str | None) -> pyproj.CRS | None:
    if text is None:
        return None
    try:
        return pyproj.CRS.from_user_input(text)
    except CRSError:
        raise UsageError(f"--crs {text!r} is not a CRS; give for example EPSG:4326") from None


def _spare_the_input(plan: Plan, results: list[Path]) -> None:
    """Refuse to replace the raster that is being read, whatever ``overwrite`` says."""
    inputs = {Path(file).resolve() for file in plan.scene.files}
    for path in results:
        if path.resolve() in inputs:
            raise UsageError(f"{path} is the input itself; choose another name for the result")


def _provenance(plan: Plan, radiometry: Radiometry, model: Model, run: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader of the output needs to know where it comes from."""
    scene = plan.scene
    return {
        "input": scene.source,
        "input_fingerprint": run["input"],
        "bands": list(scene.bands),
        "bands_reason": scene.bands_reason,
        "mask": scene.mask,
        "gsd_m": list(scene.gsd_m),
        "tile_size_px": list(plan.grid.size),
        "stride_px": list(plan.grid.stride),
        "scaling": asdict(radiometry),
        "options": run["options"],
        "model": {**run["model"], "licence": model.card.licence, "accuracy": dict(model.card.accuracy)},
        "captioner": run["captioner"],
        "dtype": run["dtype"],
        "rssc_geo": run["program"],
        "versions": {name: version(name) for name in ("torch", "rasterio", "pyogrio", "shapely")},
        "warnings": list(plan.warnings),
    }


class _Job:
    """The loop between reader and writer."""

    def __init__(self, plan: Plan, cells: CellMap, classifier: TileClassifier, model: Model) -> None:
        self._plan = plan
        self._cells = cells
        self._classifier = classifier
        self._model = model
        self.tiles = cells.tiles()
        self.classified = 0
        self.watermark = 0

    def run(self, writer: LandUseWriter, radiometry: Radiometry, progress: Progress | None) -> None:
        """Classify all tiles that an earlier run has not."""
        report = progress or _silent
        self.watermark = writer.watermark
        todo = self.tiles[self.tiles >= self._cells.restart(self.watermark)] if self.watermark else self.tiles
        if self.watermark:
            log.info("going on after %d of %d tiles", int((self.tiles < self.watermark).sum()), len(self.tiles))
        aggregator = CellAggregator(self._cells, classes=len(self._model.card.classes), done=self.watermark)
        done = len(self.tiles) - len(todo)
        report("classify", done, len(self.tiles))
        size = self._model.card.input_size
        with (
            TileReader(self._plan.scene, self._plan.grid, radiometry, out_size=size, tiles=todo.tolist()) as reader,
            CellSink(aggregator, writer.append) as sink,
        ):
            for results in self._results(reader):
                sink.put(results)
                done += len(results)
                report("classify", done, len(self.tiles))

    def _results(self, reader: TileReader) -> Iterator[list[TileResult]]:
        """Runs of consecutive tiles with their results, a model batch in each."""
        pending: list[TileData | TileResult] = []
        wanted = 0
        for data in reader:
            if self._cells.wanted(data.tile, data.valid_fraction, data.cell_fractions):
                pending.append(data)
                wanted += 1
            else:  # its pixels are not kept
                pending.append(TileResult(data.tile, data.valid_fraction, data.cell_fractions, None, ""))
            if wanted >= self._classifier.batch_size or len(pending) >= _PENDING + wanted:
                yield self._batch(pending)
                pending, wanted = [], 0
        if pending:
            yield self._batch(pending)

    def _batch(self, pending: list[TileData | TileResult]) -> list[TileResult]:
        looked = [data for data in pending if isinstance(data, TileData)]
        if not looked:
            return [result for result in pending if isinstance(result, TileResult)]
        found = self._classifier(np.stack([data.pixels for data in looked]), np.stack([data.mask for data in looked]))
        self.classified += len(looked)
        rows = iter(zip(found.probabilities, found.captions, strict=True))
        return [
            item if isinstance(item, TileResult) else TileResult(item.tile, item.valid_fraction, item.cell_fractions, *next(rows))
            for item in pending
        ]
