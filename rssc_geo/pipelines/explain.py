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
from affine import Affine
from numpy.typing import NDArray

from rssc_geo.captioning import check_captioner
from rssc_geo.errors import InputError, NothingToClassifyError, UsageError, one_line
from rssc_geo.files import atomic_folder, check_not_input
from rssc_geo.geometry import TileGrid, Window, cell_polygons
from rssc_geo.inference import CellAggregator, CellMap, Plan, Source, make_plan
from rssc_geo.models import ModelCard, SceneClass, class_choice, load_card
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
    rgb,
    small_raster,
    write_gpkg_index,
)
from rssc_geo.pipelines.cell_choice import (
    CellChoice,
    cells_at,
    cells_of_map,
    check_raster_of_map,
    options_of_map,
    warn_of_differences,
)
from rssc_geo.progress import Progress, reporting
from rssc_geo.raster import TileData
from rssc_geo.reports import Panel, write_panel

if TYPE_CHECKING:
    from rssc_geo.inference import Predictor
    from rssc_geo.models import Attribution

LAYER = "explained"


log = logging.getLogger(__name__)

INDEX = "explain.gpkg"
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
            Path(output), index=INDEX, overwrite=options.overwrite, others=_files_of
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
        write_index(folder / INDEX, explained, plan)
    target = Path(output)
    return ExplainResult(
        target, target / INDEX, explained, time.monotonic() - started, plan.warnings
    )


def _files_of(folder: Path) -> set[str]:
    """Names of the pictures in an earlier result, and of its page."""
    return {*read_names(folder / INDEX, LAYER, ["panel", "heat_map"]), _PAGE}


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
    if options.cells is not None and options.cells < 1:
        raise UsageError(f"--cells {options.cells} is not a number of cells; give 1 or more")


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
        from rssc_geo.inference import predict_tiles

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A cell with its class and the reasons for it.

    ``row``, ``col`` count cells; ``margin`` and ``confidence`` are probabilities, as ``classify``
    writes them; ``evidence`` and the words are those of the tile whose center is nearest, encoded
    by itself, also of a fine map. ``words_read``: whether the class was found with the caption's
    words. ``panel`` and ``heat_map`` are names of files in the result's folder.
    """

    row: int
    col: int
    class_name: str
    class_id: int
    confidence: float
    runner_up: str
    margin: float
    caption: str
    words_read: bool
    reasons: Attribution
    panel: str
    heat_map: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it; the field names are those of the GeoPackage."""
        words = [
            {
                "text": word.text,
                "effect": round(word.effect, 4),
                "attention": word.attention and round(word.attention, 4),
            }
            for word in self.reasons.words
        ]
        return {**self.fields(), "words": words}

    def fields(self) -> dict[str, Any]:
        """The cell's fields in the GeoPackage."""
        return {
            "row": self.row,
            "col": self.col,
            "class": self.class_name,
            "class_id": self.class_id,
            "confidence": round(self.confidence, 6),
            "runner_up": self.runner_up,
            "margin": round(self.margin, 6),
            "caption": self.caption,
            "top_words": ", ".join(self.reasons.top_words),
            "words_read": self.words_read,
            "evidence": round(self.reasons.total, 4),
            "panel": self.panel,
            "heat_map": self.heat_map,
        }


def content_shape(grid: TileGrid, data: TileData) -> tuple[int, int]:
    """Rows and columns of the tile's picture that show the raster.

    The rest, where an axis is shorter than a tile, is padding.
    """
    window, (rows, cols) = data.tile.window, data.mask.shape
    return max(1, round(window.height / grid.size[0] * rows)), max(
        1, round(window.width / grid.size[1] * cols)
    )


def write_heat_map(
    path: Path, plan: Plan, data: TileData, cell: Explanation, shape: tuple[int, int]
) -> None:
    """Evidence and attention over exactly the tile's window, in the raster's CRS.

    NaN where the raster is invalid.
    """
    window, reasons = data.tile.window, cell.reasons
    place = Affine.translation(window.col, window.row) @ Affine.scale(
        window.width / shape[1], window.height / shape[0]
    )
    bands = {f"Evidence for {cell.class_name} (log-odds)": reasons.evidence}
    if reasons.attention is not None:
        bands["Attention to the picture (1 = even)"] = reasons.attention
    here = slice(shape[0]), slice(shape[1])
    profile = {
        "driver": "GTiff",
        "height": shape[0],
        "width": shape[1],
        "count": len(bands),
        "dtype": "float32",
        "nodata": np.nan,
        "crs": plan.scene.crs.to_wkt(),
        "transform": plan.scene.transform @ place,
        "compress": "deflate",
        "predictor": 3,
    }
    with small_raster(path, profile) as raster:
        for number, (description, values) in enumerate(bands.items(), 1):
            raster.write(np.where(data.mask, values, np.nan).astype(np.float32)[here], number)
            raster.set_band_description(number, description)


def panel_of(
    plan: Plan,
    data: TileData,
    cell: Explanation,
    shape: tuple[int, int],
    classes: tuple[SceneClass, SceneClass],
) -> Panel:
    """The picture of a cell; ``shape`` as ``content_shape`` gives it.

    ``classes``: its own and the one after it, which people read by their titles.
    """
    own, runner_up = classes
    here = slice(shape[0]), slice(shape[1])
    window, reasons = data.tile.window, cell.reasons
    second = cell.confidence - cell.margin
    detail = f"{cell.confidence:.0%}  ·  then {runner_up.title}, " + (
        f"{second:.0%}" if second >= 0.005 else "under 1%"
    )
    return Panel(
        pixels=data.pixels[here],
        mask=data.mask[here],
        metres_a_pixel=plan.scene.gsd_m[1] * window.width / shape[1],
        cell=_within(plan.grid.cell(cell.row, cell.col).window, window, shape),
        evidence=reasons.evidence[here],
        attention=None if reasons.attention is None else reasons.attention[here],
        words=[(word.text, word.effect) for word in reasons.words],
        title=own.title,
        detail=f"{detail}  ·  {plan.scene.name}, cell row {cell.row}, column {cell.col}",
        color=rgb(own.color),
        evidence_note="For the class (orange), against it (blue)",
        words_note=_words_note(cell),
    )


def _words_note(cell: Explanation) -> str:
    """The effect of the words on the class."""
    if not cell.reasons.words:
        return "Classified without words."
    strongest = max(abs(word.effect) for word in cell.reasons.words)
    measure = (
        f"log-odds {cell.reasons.total:+.1f} of the picture, {strongest:.2g} of the strongest word"
    )
    if cell.words_read:
        return (
            "Words for the class (orange) and against it (blue), classified with the picture:"
            f" {measure}"
        )
    return (
        "Words for the class (orange) and against it (blue). This cell was classified by the"
        f" picture alone. With the words: {measure}"
    )


def _within(
    cell: Window, tile: Window, shape: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """The cell's (top, left, bottom, right) in the tile's picture; None where it is all of it."""
    if (cell.row, cell.col, cell.height, cell.width) == (
        tile.row,
        tile.col,
        tile.height,
        tile.width,
    ):
        return None
    down, across = shape[0] / tile.height, shape[1] / tile.width
    top, left = (cell.row - tile.row) * down, (cell.col - tile.col) * across
    return top, left, top + cell.height * down, left + cell.width * across


def write_index(path: Path, cells: Sequence[Explanation], plan: Plan) -> None:
    """The GeoPackage of the cells: one polygon each."""
    rows, cols = (
        np.array(values) for values in zip(*((cell.row, cell.col) for cell in cells), strict=True)
    )
    shapes = cell_polygons(plan.grid, plan.scene.transform, rows, cols)
    table = gpd.GeoDataFrame([cell.fields() for cell in cells], geometry=shapes, crs=plan.scene.crs)
    write_gpkg_index(table, path, LAYER)
