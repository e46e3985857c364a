"""The main job.

Read → caption → classify → aggregate → write, each waiting for none of the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rssc_geo.captioning import Captioner, describe_captioner, make_captioner
from rssc_geo.inference import (
    Maker,
    SceneJob,
    Source,
    TileClassifier,
    TilingOptions,
    choose_compute,
    classify_tiles,
    make_plan,
    output_options,
)
from rssc_geo.models import Model, load_bundle, load_card
from rssc_geo.options import CaptionerOptions
from rssc_geo.output import LandUseSummary
from rssc_geo.progress import Progress
from rssc_geo.raster import TileReader
from rssc_geo.reports import (
    add_review,
    check_extra,
    check_review,
    draw_preview,
    make_extras,
    make_report,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """What a run did: counts, areas, where the results lie, how long it took."""

    summary: LandUseSummary
    tiles: int
    tiles_classified: int
    resumed_at: int
    seconds: float
    device: str
    dtype: str
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
            "device": self.device,
            "dtype": self.dtype,
            "warnings": list(self.warnings),
        }


def classify(
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
    aoi_clip: bool = False,
    min_area_m2: float = 0.0,
    probabilities: bool = False,
    class_raster: str | Path | None = None,
    preview: str | Path | None = None,
    report: str | Path | None = None,
    review: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **tiling: Any,
) -> ClassifyResult:
    """Classify a raster into land-use polygons and write them.

    Parameters
    ----------
    source : path, URL or /vsi path of a raster; a sequence of single-band ones as red, green, blue
    output : .gpkg, .fgb, .geojson, .parquet or .shp
    model : embedded name, bundle folder or hub id (``revision``: of the hub id), or a loaded one
        for many rasters
    captioner, caption_options : see ``CaptionerOptions``; or a loaded captioner for many rasters
    device, dtype, batch_size : see ``choose_compute``
    crs : CRS of the output; the raster's by default
    aoi_clip : also clip the polygons to ``aoi``
    min_area_m2 : regions below this area join a neighbor, in the ``landuse`` layer
    probabilities : one p_<class> column each in the ``cells`` layer
    class_raster, preview, report : also write a COG of classes, a PNG picture, an HTML page
    review : also write a layer of so many cells that are worth labeling (see
        ``inference/review.py``)
    overwrite : replace existing results
    progress : called from this thread, see ``Progress``
    **tiling : the fields of ``TilingOptions``

    Raises
    ------
    RsscGeoError
        One clear line; whatever was classified so far stays in ``<output>.part`` and the same call
        goes on there.
    """
    started = time.monotonic()
    options = TilingOptions(**tiling)
    card = model.card if isinstance(model, Model) else load_card(model, revision=revision)
    plan = make_plan(source, card, options)
    for warning in plan.warnings:
        log.warning("%s", warning)
    wanted = output_options(
        plan,
        output,
        crs=crs,
        aoi_clip=aoi_clip,
        min_area_m2=min_area_m2,
        probabilities=probabilities,
        class_raster=class_raster,
        overwrite=overwrite,
    )
    for option, extra in (("--preview", preview), ("--report", report)):
        if extra is not None:
            check_extra(option, Path(extra), plan=plan, overwrite=overwrite)
    if review is not None:
        check_review(wanted, review)
    compute = choose_compute(device, dtype=dtype, batch_size=batch_size)
    loaded = model if isinstance(model, Model) else load_bundle(model, revision=revision)
    writes = captioner
    if writes is None or isinstance(writes, str):
        asked = replace(caption_options or CaptionerOptions(), captioner=writes)
        writes = make_captioner(loaded, asked, device=compute.device, dtype=compute.dtype)
    classifier = TileClassifier(loaded, writes, compute)
    maker = Maker(
        loaded.card, describe_captioner(writes), str(compute.dtype).removeprefix("torch.")
    )
    tell = progress or _silent
    with SceneJob(plan, options, wanted, maker) as job:
        classified = _run(job, classifier, loaded.card.input_size, tell)
        tell("write", 0, 1)
        summary = job.finish(
            {"seconds": round(time.monotonic() - started, 1), "tiles_classified": classified}
        )
        makers: dict[str, Callable[[], Path | None]] = {}
        if preview is not None:
            makers["the preview"] = partial(
                draw_preview,
                Path(preview),
                plan=plan,
                radiometry=job.radiometry,
                class_grid=summary.class_grid,
                classes=loaded.card.classes,
            )
        if review is not None:
            makers["the review"] = partial(
                add_review, wanted, review, cells_shape=plan.grid.cells_shape
            )
        if report is not None:
            makers["the report"] = partial(
                make_report,
                Path(report),
                plan=plan,
                options=options,
                radiometry=job.radiometry,
                maker=maker,
                output=wanted.path,
                summary=summary,
            )
        extras = make_extras(wanted.path, makers)
        tell("write", 1, 1)
    return ClassifyResult(
        replace(summary, paths=tuple(dict.fromkeys([*summary.paths, *extras]))),
        tiles=len(job.tiles),
        tiles_classified=classified,
        resumed_at=job.watermark,
        seconds=time.monotonic() - started,
        device=str(compute.device),
        dtype=maker.dtype,
        warnings=plan.warnings,
    )


def _silent(_stage: str, _done: int, _total: int) -> None:
    """No one watches."""


def _run(job: SceneJob, classifier: TileClassifier, size: tuple[int, int], report: Progress) -> int:
    """Classify all tiles that an earlier run has not; the number that were looked at."""
    done = len(job.tiles) - len(job.todo)
    looked = 0
    report("classify", done, len(job.tiles))
    with (
        TileReader(
            job.plan.scene, job.plan.grid, job.radiometry, out_size=size, tiles=job.todo.tolist()
        ) as reader,
        job.sink() as sink,
    ):
        for results in classify_tiles(reader, job.cells, classifier):
            sink.put(results)
            done += len(results)
            looked += sum(result.probabilities is not None for result in results)
            report("classify", done, len(job.tiles))
    return looked
