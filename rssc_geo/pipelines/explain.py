"""Why cells were given their class: pictures, maps of evidence, and the words that count."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rssc_geo.captioning import Captioner, make_captioner
from rssc_geo.errors import InputError, UsageError
from rssc_geo.files import atomic_folder
from rssc_geo.inference import (
    CellAggregator,
    CellMap,
    Plan,
    Source,
    TileClassifier,
    TilingOptions,
    choose_compute,
    classify_tiles,
    make_plan,
)
from rssc_geo.models import Model, ReadCaption, attribute, load_bundle, load_card
from rssc_geo.options import CaptionerOptions
from rssc_geo.output import rgb
from rssc_geo.pipelines.explain_cells import (
    Choice,
    cells_at,
    cells_of_result,
    same_reading,
    warn_of_differences,
)
from rssc_geo.pipelines.explanation import (
    Explanation,
    content_shape,
    panel_of,
    write_heat_map,
    write_index,
)
from rssc_geo.progress import Progress
from rssc_geo.raster import Radiometry, TileData, TileReader, fit_radiometry
from rssc_geo.reports import write_panel

log = logging.getLogger(__name__)

INDEX = "explain.gpkg"
_CELLS = 20


@dataclass(frozen=True, slots=True)
class ExplainResult:
    """Folder, its GeoPackage, and the cells in the order in which they were chosen."""

    folder: Path
    index: Path
    cells: tuple[Explanation, ...]
    seconds: float
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "folder": str(self.folder),
            "index": str(self.index),
            "cells": [cell.as_dict() for cell in self.cells],
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
        }


def explain(
    source: Source,
    output: str | Path,
    *,
    at: Sequence[tuple[float, float]] = (),
    at_crs: str | None = None,
    result: str | Path | None = None,
    cells: int | None = None,
    where: str | None = None,
    model: str | Path | Model = "compact",
    revision: str | None = None,
    captioner: str | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **tiling: Any,
) -> ExplainResult:
    """Explain the classes of some cells into a folder: ``explain.gpkg``, and a picture and a heat
    map (GeoTIFF) each.

    Parameters
    ----------
    source : as for ``classify``
    output : the folder, which appears whole or not at all
    at, at_crs : points (x, y) in the raster's CRS or in ``at_crs`` (x = east or longitude): the
        cells under them
    result, cells, where : instead, a map that ``classify`` wrote of the raster: its ``cells`` (20)
        least certain ones, of those that ``where`` finds, an OGR attribute filter over the
        ``cells`` layer. Options that are not given are those of that run, if the map is a
        GeoPackage
    model, revision, captioner, device : as for ``classify``; always computed in float32
    overwrite : replace an earlier explanation
    progress : called from this thread, see ``Progress``
    **tiling : the fields of ``TilingOptions``

    Raises ``UsageError`` for points or filters that mean no cell, ``InputError`` for a cell without
    enough valid pixels or a map of another raster, ``OutputError`` when the folder exists or cannot
    be written.
    """
    started = time.monotonic()
    _check_asked(at=bool(at), at_crs=at_crs, result=result is not None, cells=cells, where=where)
    card = model.card if isinstance(model, Model) else load_card(model, revision=revision)
    if len(card.classes) < 2:
        raise UsageError(
            f"the model {card.name!r} knows one class only: there is nothing to explain"
        )
    options = TilingOptions(**tiling)
    if result is not None:
        options = same_reading(Path(result), card, options)
    plan = make_plan(source, card, options)
    for warning in plan.warnings:
        log.warning("%s", warning)
    if result is None:
        choices = cells_at(at, plan, crs=at_crs)
    else:
        choices = cells_of_result(Path(result), plan, count=cells or _CELLS, where=where)
    _spare_inputs(Path(output), [*plan.scene.files, *([] if result is None else [result])])
    with atomic_folder(Path(output), index=INDEX, overwrite=overwrite) as folder:
        compute = choose_compute(device, dtype="float32")
        loaded = model if isinstance(model, Model) else load_bundle(model, revision=revision)
        asked = CaptionerOptions(captioner=captioner)
        writes = make_captioner(loaded, asked, device=compute.device, dtype=compute.dtype)
        job = _Job(plan, choices, options, loaded, writes)
        classifier = TileClassifier(loaded, writes, compute)
        radiometry = fit_radiometry(plan.scene, stretch=options.stretch)
        found = {
            (cell.row, cell.col): cell for cell in job.run(folder, classifier, radiometry, progress)
        }
        missing = [choice for choice in choices if (choice.row, choice.col) not in found]
        if missing:
            raise InputError(
                f"{missing[0].words}: less than {options.min_valid:.0%} of the cell's pixels are"
                " valid, so it has no class (--min-valid lowers the share)"
            )
        if result is not None:
            warn_of_differences(
                choices, {key: cell.class_name for key, cell in found.items()}, result=str(result)
            )
        explained = tuple(found[choice.row, choice.col] for choice in choices)
        write_index(folder / INDEX, explained, plan)
    target = Path(output)
    return ExplainResult(
        target, target / INDEX, explained, time.monotonic() - started, plan.warnings
    )


def _check_asked(
    *, at: bool, at_crs: str | None, result: bool, cells: int | None, where: str | None
) -> None:
    """Refuse options that do not say which cells are meant."""
    if at == result:
        raise UsageError(
            "say which cells to explain: either points (--at X,Y) or a map that classify wrote"
            " (--result FILE)"
        )
    if not result and (cells is not None or where is not None):
        raise UsageError(
            "--cells and --where choose from a map that classify wrote: give it with --result FILE"
        )
    if result and at_crs is not None:
        raise UsageError("--at-crs is the CRS of points: give them with --at X,Y")
    if cells is not None and cells < 1:
        raise UsageError(f"--cells {cells} is not a number of cells; give 1 or more")


def _spare_inputs(folder: Path, inputs: Sequence[str | Path]) -> None:
    """Refuse a folder that holds what is being read, as it may be replaced."""
    for path in inputs:
        if Path(path).resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"{path} lies in {folder}, which is to hold the result alone; choose another folder"
            )


class _Job:
    """The chosen cells of a scene.

    Classified exactly as by ``classify``, then explained one by one.
    """

    def __init__(
        self,
        plan: Plan,
        choices: Sequence[Choice],
        options: TilingOptions,
        model: Model,
        captioner: Captioner,
    ) -> None:
        self._plan, self._model, self._captioner = plan, model, captioner
        self._selected = np.zeros(plan.grid.cells_shape, bool)
        self._selected[[c.row for c in choices], [c.col for c in choices]] = True
        self._cells = CellMap(plan.grid, self._selected, min_valid=options.min_valid)
        self._tiles: dict[tuple[int, int], TileData] = {}

    def run(
        self,
        folder: Path,
        classifier: TileClassifier,
        radiometry: Radiometry,
        progress: Progress | None,
    ) -> Iterator[Explanation]:
        """The cells that have enough valid pixels, each once its files are written."""
        plan, card = self._plan, self._model.card
        tiles = self._cells.tiles().tolist()
        aggregator = CellAggregator(self._cells, classes=len(card.classes))
        count = int(self._selected.sum())
        done = 0
        with TileReader(
            plan.scene, plan.grid, radiometry, out_size=card.input_size, tiles=tiles
        ) as reader:
            for results in classify_tiles(map(self._keep, reader), self._cells, classifier):
                batch = aggregator.add(results)
                rows, cols = batch.rows.tolist(), batch.cols.tolist()
                for row, col, probabilities, caption in zip(
                    rows, cols, batch.probabilities, batch.captions, strict=True
                ):
                    yield self._explain(folder, row, col, probabilities, caption)
                    done += 1
                    if progress is not None:
                        progress("explain", done, count)

    def _keep(self, data: TileData) -> TileData:
        """Hold on to the tile for those chosen cells that it is the nearest of."""
        rows, cols = self._plan.grid.cells_of_tile(data.tile)
        wanted = (
            self._cells.near(data.tile)
            & self._selected[rows.start : rows.stop, cols.start : cols.stop]
        )
        for row, col in np.argwhere(wanted).tolist():
            self._tiles[rows.start + row, cols.start + col] = data
        return data

    def _explain(
        self, folder: Path, row: int, col: int, probabilities: np.ndarray, caption: str
    ) -> Explanation:
        card, data = self._model.card, self._tiles.pop((row, col))
        order = np.argsort(-probabilities, kind="stable")
        best, second = int(order[0]), int(order[1])
        source = self._captioner.source
        words_read = bool(caption) and self._model.reads(source)
        reasons = attribute(
            self._model,
            data.pixels,
            data.mask,
            class_id=best,
            caption=ReadCaption(caption, source, words_read),
        )
        name = f"cell_{row:05d}_{col:05d}"
        explanation = Explanation(
            row=row,
            col=col,
            class_name=card.classes[best].name,
            class_id=best,
            confidence=float(probabilities[best]),
            runner_up=card.classes[second].name,
            margin=float(probabilities[best] - probabilities[second]),
            caption=caption,
            words_read=words_read,
            reasons=reasons,
            panel=f"{name}.png",
            heat_map=f"{name}.tif",
        )
        shape = content_shape(self._plan.grid, data)
        write_heat_map(folder / explanation.heat_map, self._plan, data, explanation, shape)
        write_panel(
            folder / explanation.panel,
            panel_of(self._plan, data, explanation, shape, rgb(card.classes[best].color)),
        )
        return explanation
