"""The main job: a raster becomes a map of land use."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssc_geo.captioning import check_captioner, check_whole_tiles
from rssc_geo.inference import Plan, SceneRun, Source, make_plan
from rssc_geo.models import ModelCard, check_class_choice, check_embeddings, load_card
from rssc_geo.options import ClassifyOptions, MapOptions, files_read
from rssc_geo.output import LandUseSummary, make_target, read_layer
from rssc_geo.progress import Progress, reporting
from rssc_geo.reports import Extras

if TYPE_CHECKING:
    import geopandas as gpd

    from rssc_geo.inference import Predictor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """The result of a run.

    ``summary``: files, cells, regions, areas; ``tiles`` (of a fine map: blocks) of the scene, those
    that the network processed in this run, and the one from which an interrupted run was continued.
    """

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
            "classes": [asdict(total) for total in summary.present],
            "tiles": self.tiles,
            "tiles_classified": self.tiles_classified,
            "resumed_at": self.resumed_at,
            "seconds": round(self.seconds, 3),
            "device": self.device,
            "dtype": self.dtype,
            "warnings": list(self.warnings),
        }

    def to_geopandas(self, layer: str = "landuse") -> gpd.GeoDataFrame:
        """The layer ``landuse`` (regions) or ``cells`` of the map, read back."""
        return read_layer(self.summary.paths[0], layer)


def classify(
    source: Source,
    output: str | Path,
    options: ClassifyOptions | None = None,
    *,
    model: Predictor | None = None,
    progress: Progress | bool | None = None,
) -> ClassifyResult:
    """Classify a raster into land-use polygons and write them.

    Parameters
    ----------
    source : path, URL or /vsi path of a raster; a sequence of single-band ones as red, green, blue
    output : .gpkg, .fgb, .geojson, .parquet or .shp
    options : all that the command line has; its defaults
    model : a loaded one (:func:`rssc_geo.load_model`), for many rasters; the options of model,
        computing and captions then have no effect, except those that restrict the classes
    progress : True for a bar on stderr, or a function, called from this thread, see ``Progress``

    Raises
    ------
    RsscGeoError
        One clear line; classified tiles stay in ``<output>.part`` and the same call continues
        there.

    Examples
    --------
    >>> from rssc_geo import ClassifyOptions, classify
    >>> result = classify("scene.tif", "landuse.gpkg", ClassifyOptions(min_area=200_000))
    >>> len(result.to_geopandas()) == result.summary.regions
    True
    """
    options = options or ClassifyOptions()
    card = model.card if model else load_card(options.model, revision=options.revision)
    choice = check_class_choice(card, options)
    if model is None:
        check_captioner(options, card)

    def load(_plan: Plan) -> Predictor:
        from rssc_geo.inference import load_predictor

        return model.choosing(choice) if model else load_predictor(options)

    with reporting(progress) as report:
        return map_scene(source, output, options, card, load, report)


def map_scene(
    source: Source,
    output: str | Path,
    options: MapOptions,
    card: ModelCard,
    load: Callable[[Plan], Predictor],
    progress: Progress,
) -> ClassifyResult:
    """Map a scene with the predictor of ``load``, after all checks that do not need it.

    ``card``: of that predictor's model, except for the classes.
    """
    started = time.monotonic()
    progress("open", 0, 1)
    if options.embeddings is not None:
        check_embeddings(card)
    plan = make_plan(source, card, options)
    for warning in plan.warnings:
        log.warning("%s", warning)
    read = [*plan.inputs(), *files_read(options)]
    target = make_target(output, options, overwrite=options.overwrite, area=plan.area, inputs=read)
    extras = Extras(options, target, plan)
    progress("load model", 0, 1)
    predictor = load(plan)
    if plan.blocks is not None:
        check_whole_tiles(predictor.captioner)
    with SceneRun(plan, target, predictor.spec) as run:
        looked = run.classify(predictor, progress)
        progress("write", 0, 1)
        seconds = round(time.monotonic() - started, 1)
        summary = run.finish({"seconds": seconds, "tiles_classified": looked})
        files = extras.write(summary, run)
        progress("write", 1, 1)
    return ClassifyResult(
        replace(summary, paths=tuple(dict.fromkeys([*summary.paths, *files]))),
        tiles=len(run.tiles),
        tiles_classified=looked,
        resumed_at=run.watermark,
        seconds=time.monotonic() - started,
        device=str(predictor.compute.device),
        dtype=predictor.spec.dtype,
        warnings=(*plan.warnings, *summary.warnings),
    )
