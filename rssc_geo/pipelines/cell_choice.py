"""Choice of cells: those at points, or those of a finished map that a filter finds."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
from shapely.geometry.base import BaseGeometry

from rssc_geo.errors import InputError, UsageError, one_line
from rssc_geo.geometry import parse_crs
from rssc_geo.inference import Plan
from rssc_geo.models import UNKNOWN_CLASS, ModelCard
from rssc_geo.options import TilingOptions, given_of, options_of
from rssc_geo.output import format_of, read_provenance
from rssc_geo.raster import Scene, footprint, full_turn

log = logging.getLogger(__name__)

_LAYER = "cells"
_COLUMNS = ("row", "col", "class", "confidence")
_READING = ("bands", "nodata", "assume_crs", "tile_size", "cell_size", "min_valid", "stretch")
_TOLERANCE = 0.02  # of a cell's side, for reprojected coordinates


@dataclass(frozen=True, slots=True)
class CellChoice:
    """A cell that was chosen: its place, how it was named ("--at 3,4"), its class in a map."""

    row: int
    col: int
    label: str
    known_class: str | None = None


def cells_at(
    points: Sequence[tuple[float, float]],
    plan: Plan,
    *,
    crs: str | None = None,
    flag: str = "--at",
) -> list[CellChoice]:
    """The cells under points (x, y) of the raster's CRS, or of ``crs``; each cell once.

    Parameters
    ----------
    points : x is east or longitude
    plan : of the raster
    crs : that of the points
    flag : the option that named them, for messages

    Raises ``UsageError`` for a point that is invalid, or lies outside the raster or the area of
    interest.
    """
    scene = plan.scene
    to_scene = None
    if crs is not None:
        to_scene = pyproj.Transformer.from_crs(
            parse_crs(crs, option="--at-crs"), scene.crs, always_xy=True
        )
    chosen: dict[tuple[int, int], CellChoice] = {}
    for point in points:
        words = f"{flag} {point[0]:.12g},{point[1]:.12g}"
        x, y = point if to_scene is None else to_scene.transform(*point)
        if not (math.isfinite(x) and math.isfinite(y)):
            raise UsageError(f"{words} has no place in the raster's CRS {scene.crs.name!r}")
        pixel = _pixel(x, y, scene)
        if pixel is None:
            extent = ",".join(
                f"{value:.10g}" for value in footprint(scene.transform, scene.shape).bounds
            )
            hint = "" if crs else "; points in another CRS: --at-crs"
            raise UsageError(
                f"{words} lies outside the raster, whose bounds are {extent}"
                f" ({scene.crs.name}){hint}"
            )
        cell = pixel[0] // plan.grid.cell_size[0], pixel[1] // plan.grid.cell_size[1]
        if not plan.selected[cell]:
            raise UsageError(f"{words} lies in a cell outside the area of interest")
        chosen.setdefault(cell, CellChoice(*cell, words))
    return list(chosen.values())


def _pixel(x: float, y: float, scene: Scene) -> tuple[int, int] | None:
    """Row and column of the pixel at a point; None outside. In degrees 190 is also -170."""
    turn = full_turn(scene.crs)
    for longitude in (x, x - turn, x + turn):
        col, row = ~scene.transform @ (longitude, y)
        if 0 <= row < scene.height and 0 <= col < scene.width:
            return int(row), int(col)
    return None


def cells_of_map(result: Path, plan: Plan, *, count: int, where: str | None) -> list[CellChoice]:
    """The ``count`` least certain cells of a finished map, of those that ``where`` finds.

    ``where``: an OGR attribute filter.

    Raises ``InputError`` when the file, its layer or its fields are not there or its cells are not
    those of the plan; ``UsageError`` when the filter is not understood or finds nothing.
    """
    table = _read(result, where)
    inside = [
        _selected(plan, row, col) for row, col in zip(table["row"], table["col"], strict=True)
    ]
    if not len(table) or not any(inside):
        about = f"--where {where!r} finds" if where is not None else "there is"
        raise UsageError(
            f"{result}: {about} no cell" + (" in the area of interest" if len(table) else "")
        )
    table = table[inside].sort_values("confidence", kind="stable").head(count)
    table = _in_raster_crs(result, table, plan)
    chosen = []
    places = zip(table["row"], table["col"], table["class"], table.geometry, strict=True)
    for row, col, name, shape in places:
        if not _fits(shape, plan, int(row), int(col)):
            raise InputError(
                f"{result}: its cell (row {row}, column {col}) lies elsewhere than that of"
                f" {plan.scene.source} in cells of {plan.grid.cell_size[0]} x"
                f" {plan.grid.cell_size[1]} pixels: give that run's raster, --tile-size and"
                " --cell-size"
            )
        label = f"cell (row {row}, column {col}) of {result}"
        # Of an Unknown cell the runner-up is explained.
        known = None if name == UNKNOWN_CLASS else str(name)
        chosen.append(CellChoice(int(row), int(col), label, known))
    return chosen


def options_of_map(result: Path, card: ModelCard, options: TilingOptions) -> TilingOptions:
    """The options of the run that made a GeoPackage, where others are not given.

    Its tiles are read again in the same way. A map without provenance (another format) leaves the
    options unchanged.

    Parameters
    ----------
    result : the map's file
    card : of the model that is to explain or show the map's cells
    options : those that are given

    Raises ``UsageError`` when the map was made with another model.
    """
    made = read_provenance(result)
    model = made.get("model", {})
    if model and model.get("identity") != card.identity:
        raise UsageError(
            f"{result} was made with the model {model.get('name')} {model.get('version')}, not"
            f" {card.name} {card.version} (weights or config.json differ): give that one with"
            " --model"
        )
    known = {option.name: option for option in options_of(TilingOptions)}
    recorded = {
        name: known[name].from_plain(value)
        for name, value in made.get("options", {}).items()
        if name in _READING and value is not None
    }
    return TilingOptions(**{**recorded, **given_of(options, TilingOptions)})


def check_raster_of_map(result: Path, scene: Scene) -> None:
    """Raise ``InputError`` where a GeoPackage was made from another raster's content.

    By the hashes of the files, whatever their names are now; files that were added later, such as
    overviews, do not count.
    """
    made = read_provenance(result)
    marks = scene.content_marks().values()
    lacking = any(mark not in marks for mark in made.get("input_marks", {}).values())
    if lacking:
        raise InputError(
            f"{scene.source} is not the raster that {result} was made of, {made.get('input')}, or"
            " has changed since: give that one"
        )


def warn_of_differences(
    choices: Sequence[CellChoice],
    found: Mapping[tuple[int, int], str],
    *,
    result: str,
    smoothed: bool,
) -> None:
    """Warn when cells got another class than in the map.

    There they were smoothed with their neighbors (``smoothed``), or something was read differently.
    """
    others = [
        c for c in choices if c.known_class is not None and c.known_class != found[c.row, c.col]
    ]
    if others:
        first = others[0]
        log.warning(
            "%s: %d of %d cells have another class there (row %d, column %d: %s, now %s): %s",
            result,
            len(others),
            len(choices),
            first.row,
            first.col,
            first.known_class,
            found[first.row, first.col],
            "the map was smoothed (--smooth), the explanation is of the single cells"
            if smoothed
            else "the raster, the captioner or the options differ from that run's",
        )


def _read(result: Path, where: str | None) -> gpd.GeoDataFrame:
    """Row, column, class, confidence and geometry of the cells."""
    output_format = format_of(result)
    path = output_format.layer_path(result, _LAYER)
    path = path if path.exists() else result
    if not path.exists():
        raise InputError(f"--result {result} does not exist")
    if path.suffix.lower() == ".parquet":
        raise InputError(
            f"--result {result}: explain reads .gpkg, .fgb, .geojson and .shp, not GeoParquet"
        )
    try:
        layers = [name for name, _ in pyogrio.list_layers(path)]
        layer = layers[0] if not output_format.multilayer and layers else _LAYER
        if layer not in layers:
            raise InputError(
                f"{path} has no layer {_LAYER!r}, only {', '.join(layers)}: give a map that"
                " classify wrote"
            )
        missing = [
            name for name in _COLUMNS if name not in pyogrio.read_info(path, layer=layer)["fields"]
        ]
        if missing:
            raise InputError(
                f"{path}: its layer {layer!r} has no field {missing[0]!r}: give a map that classify"
                " wrote"
            )
        return pyogrio.read_dataframe(path, layer=layer, columns=list(_COLUMNS), where=where)
    except (RuntimeError, ValueError) as error:  # RuntimeError: base of pyogrio's errors
        if where is None:
            raise InputError(f"{path} cannot be read: {one_line(error)}") from error
        raise UsageError(f"--where {where!r} is not understood: {one_line(error)}") from error


def _selected(plan: Plan, row: int, col: int) -> bool:
    """Whether a cell is asked for.

    A cell outside of the grid is accepted here, and refused later with its reason.
    """
    rows, cols = plan.grid.cells_shape
    return not (0 <= row < rows and 0 <= col < cols) or bool(plan.selected[row, col])


def _in_raster_crs(result: Path, table: gpd.GeoDataFrame, plan: Plan) -> gpd.GeoDataFrame:
    if table.crs is None:
        raise InputError(f"{result} has no CRS: give a map that classify wrote")
    return table if table.crs == plan.scene.crs else table.to_crs(plan.scene.crs)


def _fits(shape: BaseGeometry | None, plan: Plan, row: int, col: int) -> bool:
    """Whether a feature lies in the cell it names.

    It may be smaller where an area of interest clipped it.
    """
    rows, cols = plan.grid.cells_shape
    if not (0 <= row < rows and 0 <= col < cols) or shape is None or shape.is_empty:
        return False
    window = plan.grid.cell(row, col).window
    x, y = np.array(shape.bounds)[[0, 2, 0, 2]], np.array(shape.bounds)[[1, 1, 3, 3]]
    if plan.scene.transform.b or plan.scene.transform.d:  # a turned cell does not fill its bounds
        x, y = (np.array([value]) for value in shape.representative_point().coords[0])
    found_col, found_row = ~plan.scene.transform @ (x, y)
    edges = ((found_row, window.row, window.height), (found_col, window.col, window.width))
    return all(
        bool(
            (
                (at >= start - _TOLERANCE * length - 1)
                & (at <= start + length + _TOLERANCE * length + 1)
            ).all()
        )
        for at, start, length in edges
    )
