"""Explanation of cells' classes: pictures, maps of evidence, and the words with an effect."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from rssc_geo.captioning import check_captioner
from rssc_geo.errors import InputError, NothingToClassifyError, UsageError, one_line
from rssc_geo.files import atomic_folder, check_not_input
from rssc_geo.inference import CellAggregator, CellMap, Plan, Source, make_plan, predict_tiles
from rssc_geo.models import ModelCard, class_choice, load_card
from rssc_geo.options import (
    ClassChoiceOptions,
    ExplainOptions,
    PredictorOptions,
    files_read,
    given_of,
    values_of,
)
from rssc_geo.output import (
    Shares,
    map_files,
    read_names,
    read_provenance,
)
from rssc_geo.pipelines.cell_choice import (
    CellChoice,
    cells_at,
    cells_of_map,
    check_raster_of_map,
    options_of_map,
    warn_of_differences,
)
from rssc_geo.pipelines.explanation import (
    LAYER,
    Explanation,
    content_shape,
    panel_of,
    write_heat_map,
    write_index,
)
from rssc_geo.progress import Progress, reporting
from rssc_geo.raster import TileData
from rssc_geo.reports import write_panel

if TYPE_CHECKING:
    from rssc_geo.inference import Predictor

log = logging.getLogger(__name__)

_INDEX = "explain.gpkg"

_PAGE = "explanation.html"
"""The QGIS plugin adds it to a result."""

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

    def to_geopandas(self) -> gpd.GeoDataFrame:
        """The explained cells as polygons with their words, read back."""
        return gpd.read_file(self.index, layer=LAYER)


def explain(
    source: Source,
    output: str | Path,
    options: ExplainOptions,
    *,
    model: Predictor | None = None,
    progress: Progress | bool | None = None,
) -> ExplainResult:
    """Explain the classes of some cells.

    Writes a folder with ``explain.gpkg``, and a picture and a heat map (GeoTIFF) of each cell.
    Everything is computed in float32.

    Parameters
    ----------
    source, progress : as for :func:`rssc_geo.classify`
    output : the folder, which appears whole or not at all
    options : ``at`` and ``at_crs``: points (x, y; x = east or longitude), the cells under them; or
        ``result``: a map that ``classify`` wrote of the raster, of which the cells at the points
        or, without any, ``cells`` (20) are explained, the least certain ones of those that
        ``where`` finds, an OGR attribute filter over the ``cells`` layer. Options that are not
        given are then those of that run, if the map is a GeoPackage
    model : a loaded one in float32, whose options of model, computing and captions then have no
        effect, except those that restrict the classes

    Raises ``UsageError`` for points or filters that match no cell, ``NothingToClassifyError`` for a
    cell without enough valid pixels, ``InputError`` for a map of another raster, ``OutputError``
    when the folder exists or cannot be written.

    Examples
    --------
    >>> from rssc_geo import ExplainOptions, explain
    >>> why = explain("scene.tif", "why", ExplainOptions(at=((423000.0, 4860000.0),)))
    >>> why.to_geopandas()["class"][0] == why.cells[0].class_name
    True
    """
    started = time.monotonic()
    _check_choice(options)
    card = model.card if model else load_card(options.model, revision=options.revision)
    _choice_of(card, options)
    if model is None:
        check_captioner(_predictor_options(options), card)
    plan, choices = _plan_cells(source, card, options)
    made = {} if options.result is None else read_provenance(Path(options.result))
    shares = None
    if not given_of(options, ClassChoiceOptions):  # as for the map, which is of the same model
        allowed = made.get("class_choice") or ()
        names = tuple(map(str, allowed)) if isinstance(allowed, list) else ()
        options = replace(options, only_classes=names)
        shares = _shares_of_map(made, card)
    choice = _choice_of(card, options)
    check_not_input([Path(output)], [*plan.inputs(), *_map(options.result), *files_read(options)])
    with (
        atomic_folder(
            Path(output), index=_INDEX, overwrite=options.overwrite, others=_files_of
        ) as folder,
        reporting(progress) as report,
    ):
        from rssc_geo.inference import load_predictor

        predictor = model.choosing(choice) if model else load_predictor(_predictor_options(options))
        work = _ChosenCells(plan, choices, predictor, shares)
        found = {(cell.row, cell.col): cell for cell in work.explain(folder, report)}
        missing = [choice for choice in choices if (choice.row, choice.col) not in found]
        if missing:
            raise NothingToClassifyError(
                f"{missing[0].label}: less than {plan.options.min_valid:.0%} of the cell's pixels"
                " are valid, so it has no class (--min-valid lowers the share)"
            )
        if options.result is not None:
            classes = {place: cell.class_name for place, cell in found.items()}
            smoothed = "smooth" in made.get("steps", {})
            warn_of_differences(choices, classes, result=options.result, smoothed=smoothed)
        explained = tuple(found[choice.row, choice.col] for choice in choices)
        write_index(folder / _INDEX, explained, plan)
    target = Path(output)
    return ExplainResult(
        target, target / _INDEX, explained, time.monotonic() - started, plan.warnings
    )


def _files_of(folder: Path) -> set[str]:
    """Names of the pictures in an earlier result, and of its page."""
    return {*read_names(folder / _INDEX, LAYER, ["panel", "heat_map"]), _PAGE}


def _plan_cells(
    source: Source, card: ModelCard, options: ExplainOptions
) -> tuple[Plan, list[CellChoice]]:
    """The plan of the raster, and the chosen cells."""
    if options.result is None:
        plan = make_plan(source, card, options)
        choices = cells_at(options.at, plan, crs=options.at_crs)
    else:
        result = Path(options.result)
        plan = make_plan(source, card, options_of_map(result, card, options))
        if options.at:
            check_raster_of_map(result, plan.scene)
            choices = cells_at(options.at, plan, crs=options.at_crs)
        else:
            choices = cells_of_map(result, plan, count=options.cells or _CELLS, where=options.where)
    for warning in plan.warnings:
        log.warning("%s", warning)
    return plan, choices


def _shares_of_map(made: Mapping[str, Any], card: ModelCard) -> Shares | None:
    """The shares that the cells of a map were adapted to, by its provenance, if they were."""
    record = made.get("steps", {}).get("adapt_shares", {"done": False})
    try:
        if not record["done"]:
            return None
        values = [record["shares"].get(known.name, 0.0) for known in card.classes]
        return Shares(np.array(values, np.float64), int(record["rounds"]))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the map is damaged, or was edited: its provenance ({one_line(error)}): make the map"
            " again"
        ) from error


def _predictor_options(options: ExplainOptions) -> PredictorOptions:
    return PredictorOptions(
        model=options.model,
        revision=options.revision,
        captioner=options.captioner,
        device=options.device,
        dtype="float32",
        **values_of(options, ClassChoiceOptions),
    )


def _choice_of(card: ModelCard, options: ExplainOptions) -> tuple[int, ...] | None:
    """As ``class_choice``; ``UsageError`` where there is nothing to choose."""
    choice = class_choice(card, options)
    if len(card.classes if choice is None else choice) < 2:
        raise UsageError(
            f"the model {card.name!r} has one class only to choose: there is nothing to explain"
        )
    return choice


def _check_choice(options: ExplainOptions) -> None:
    """Refuse options that do not define which cells to explain."""
    if not options.at and options.result is None:
        raise UsageError(
            "say which cells to explain: points (--at X,Y), a map that classify wrote (--result"
            " FILE), or both: the cells of the map at the points"
        )
    if options.result is None and (options.cells is not None or options.where is not None):
        raise UsageError(
            "--cells and --where choose from a map that classify wrote: give it with --result FILE"
        )
    if options.at and (options.cells is not None or options.where is not None):
        raise UsageError("--cells and --where choose cells, --at names them: give one of both")
    if not options.at and options.at_crs is not None:
        raise UsageError("--at-crs is the CRS of points: give them with --at X,Y")


def _map(result: str | None) -> tuple[Path, ...]:
    return () if result is None else map_files(result)


class _ChosenCells:
    """The chosen cells of a scene: classified exactly as by ``classify``, then explained."""

    def __init__(
        self,
        plan: Plan,
        choices: Sequence[CellChoice],
        predictor: Predictor,
        shares: Shares | None,
    ) -> None:
        """``shares``: those that the cells of the map were adapted to, if they were."""
        self._plan, self._predictor, self._shares = plan, predictor, shares
        selected: NDArray[np.bool_] = np.zeros(plan.grid.cells_shape, bool)
        selected[[c.row for c in choices], [c.col for c in choices]] = True
        self._cells = CellMap(plan.grid, selected, min_valid=plan.options.min_valid)
        self._units = self._cells
        if plan.blocks is not None:
            self._units = CellMap(plan.blocks, selected, min_valid=plan.options.min_valid)
        self._tiles: dict[tuple[int, int], TileData] = {}

    def explain(self, folder: Path, progress: Progress) -> Iterator[Explanation]:
        """The cells that have enough valid pixels, each once its files are written."""
        card, fine = self._predictor.card, self._plan.blocks is not None
        units = self._units.tiles().tolist()
        aggregator = CellAggregator(self._units, classes=len(card.classes))
        count, done = int(self._cells.selected.sum()), 0
        if fine:
            with self._plan.reader(self._nearest(), out_size=card.input_size) as tiles:
                for data in tiles:
                    self._keep(data)
        with self._plan.unit_reader(units, input_size=card.input_size) as reader:
            looked = reader if fine else map(self._keep, reader)
            for results in predict_tiles(looked, self._units, self._predictor):
                batch = aggregator.add(results)
                places = zip(batch.rows.tolist(), batch.cols.tolist(), strict=True)
                for place, probabilities, caption in zip(
                    places, batch.probabilities, batch.captions, strict=True
                ):
                    yield self._explain(folder, place, probabilities, caption)
                    done += 1
                    progress("explain", done, count)

    def _nearest(self) -> list[int]:
        """Indices of the tiles by which the chosen cells are explained, ascending."""
        rows, cols = np.nonzero(self._cells.selected)
        across = self._cells.grid.tiles_shape[1]
        tiles = self._cells.near_rows[rows] * across + self._cells.near_cols[cols]
        return [int(tile) for tile in np.unique(tiles)]

    def _keep(self, data: TileData) -> TileData:
        """Keep the tile for those chosen cells that it is nearest to."""
        rows, cols = self._plan.grid.cells_of_tile(data.tile)
        for row, col in np.argwhere(self._cells.own(data.tile)).tolist():
            self._tiles[rows.start + row, cols.start + col] = data
        return data

    def _explain(
        self,
        folder: Path,
        place: tuple[int, int],
        probabilities: NDArray[np.float32],
        caption: str,
    ) -> Explanation:
        """Write the files of a cell; ``place``: its (row, column)."""
        from rssc_geo.models import ReadCaption, attribute

        model, source = self._predictor.model, self._predictor.captioner.source
        card, data = model.card, self._tiles.pop(place)
        if self._shares is not None:
            probabilities = self._shares.adapt(probabilities[None])[0]
        order = np.argsort(-probabilities, kind="stable")
        best, second = int(order[0]), int(order[1])
        # The cells of a fine map have their class by their features alone.
        words_read = bool(caption) and model.reads(source) and self._plan.blocks is None
        reasons = attribute(
            model,
            data.pixels,
            data.mask,
            class_id=best,
            caption=ReadCaption(caption, source, words_read),
        )
        row, col = place
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
        classes = card.classes[best], card.classes[second]
        panel = panel_of(self._plan, data, explanation, shape, classes)
        write_panel(folder / explanation.panel, panel)
        return explanation
