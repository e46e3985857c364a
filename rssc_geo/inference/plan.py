"""What would be done with a raster, before any of it is: scene, tiles, selection. No torch here."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from shapely.geometry.base import BaseGeometry

from rssc_geo.errors import UsageError
from rssc_geo.geometry import TileChoice, TileGrid, choose_tile_size, parse_cell_size
from rssc_geo.inference.aggregate import CellMap
from rssc_geo.models import ModelCard
from rssc_geo.raster import Radiometry, Scene, bounds_polygon, cells_inside, open_scene, read_aoi

log = logging.getLogger(__name__)

Source = str | Path | Sequence[str | Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class TilingOptions:
    """How a raster is read and cut; the defaults are those of the command line.

    ``bands``: 1-based bands used as red, green, blue; ``nodata``: a value that counts as nodata;
    ``assume_crs``: the raster's CRS where it says none or a wrong one; ``tile_size``,
    ``cell_size``: "256px", "400m", None = by the model card; ``min_valid``: share of valid pixels a
    cell needs; ``stretch``: see ``fit_radiometry``; ``aoi``: a vector file, ``bounds``: (min x, min
    y, max x, max y) in the raster's CRS: only cells with their center inside.
    """

    bands: tuple[int, ...] | None = None
    nodata: float | None = None
    assume_crs: str | None = None
    tile_size: str | None = None
    cell_size: str | None = None
    min_valid: float = 0.5
    stretch: str | None = None
    aoi: str | None = None
    bounds: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.min_valid <= 1:
            raise UsageError(
                f"--min-valid {self.min_valid:g} is not a share; give a number above 0 and up to 1"
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """A scene, its grid, which cells are asked for (bool, cells_shape), and what the user should know."""

    scene: Scene
    tiling: TileChoice
    grid: TileGrid
    selected: np.ndarray
    area: BaseGeometry | None
    warnings: tuple[str, ...]

    def cpu_seconds(self, card: ModelCard) -> float | None:
        """A rough time on this machine's processor, from the rate measured for the card on one core."""
        if card.cpu_tiles_per_s is None:
            return None
        return float(self.selected.sum()) / (card.cpu_tiles_per_s * (os.cpu_count() or 1))


def make_plan(source: Source, card: ModelCard, options: TilingOptions) -> Plan:
    """Open the raster and decide on tiles and cells.

    Raises the ``RsscGeoError`` of whatever does not fit: the raster, its place on Earth, the
    options.
    """
    scene = open_scene(
        source, bands=options.bands, nodata=options.nodata, assume_crs=options.assume_crs
    )
    shape = (scene.height, scene.width)
    footprint = card.footprint
    tiling = choose_tile_size(
        shape,
        scene.gsd_m,
        footprint_m=(footprint.minimum_m, footprint.preferred_m, footprint.maximum_m),
        requested=options.tile_size,
    )
    cell_size = (
        tiling.size
        if options.cell_size is None
        else parse_cell_size(options.cell_size, tiling.size, scene.gsd_m)
    )
    grid = TileGrid(shape, tiling.size, cell_size)
    area = _area(scene, options)
    if area is None:
        selected = np.ones(grid.cells_shape, bool)
    else:
        selected = cells_inside(grid, scene.transform, area)
        if not selected.any():
            raise UsageError(
                "the area of interest contains no cell's center; make it larger or the tiles"
                " smaller (--tile-size)"
            )
    warnings = (*scene.warnings, *tiling.warnings, *_resolution(scene, tiling, card))
    return Plan(scene, tiling, grid, selected, area, warnings)


def _area(scene: Scene, options: TilingOptions) -> BaseGeometry | None:
    parts = []
    if options.aoi is not None:
        parts.append(read_aoi(options.aoi, scene))
    if options.bounds is not None:
        parts.append(bounds_polygon(options.bounds, scene))
    if len(parts) == 2:
        both = parts[0].intersection(parts[1])
        if both.is_empty:
            raise UsageError("--aoi and --bounds do not overlap")
        return both
    return parts[0] if parts else None


def _resolution(scene: Scene, tiling: TileChoice, card: ModelCard) -> list[str]:
    """A warning when what the network will see is coarser or finer than what it was trained on.

    A raster finer than the card's range is no problem by itself: its tiles are read reduced.
    """
    low, high = card.gsd_range_m
    coarse = max(scene.gsd_m)
    trained = f"{card.name} was trained on {low:g}–{high:g} m a pixel"
    if coarse > high:
        return [f"the raster has {coarse:.3g} m a pixel, {trained}: expect less certain classes"]
    read = min(
        gsd * max(1.0, size / wanted)
        for gsd, size, wanted in zip(scene.gsd_m, tiling.size, card.input_size, strict=True)
    )
    if read < low and not tiling.warnings:  # else the tile's own warning has said why
        return [
            f"tiles are read at {read:.3g} m a pixel, {trained}: expect less certain classes"
            " (larger tiles: --tile-size)"
        ]
    return []


def describe_options(options: TilingOptions) -> Mapping[str, Any]:
    """The options as plain data, for provenance and for telling runs apart."""
    return {name: getattr(options, name) for name in TilingOptions.__slots__}


def describe_plan(plan: Plan, card: ModelCard, radiometry: Radiometry) -> dict[str, Any]:
    """What ``rssc-geo info`` shows: plain data, in the order in which a user asks."""
    scene, grid = plan.scene, plan.grid
    tiles = CellMap(grid, plan.selected, min_valid=0.5).tiles()
    seconds = plan.cpu_seconds(card)
    authority = scene.crs.to_authority()
    west, south, east, north = scene.bounds_lonlat()
    return {
        "input": scene.source,
        "size_px": [scene.height, scene.width],
        "dtype": scene.dtype,
        "bands": list(scene.bands),
        "bands_by": scene.bands_reason,
        "mask": scene.mask,
        "crs": ":".join(authority) if authority else scene.crs.name,
        "gsd_m": [round(value, 6) for value in scene.gsd_m],
        "bounds_lonlat": [round(value, 6) for value in (west, south, east, north)],
        "overviews": list(scene.overviews),
        "scaling": radiometry.method,
        "scaling_low": list(radiometry.low),
        "scaling_high": list(radiometry.high),
        "model": f"{card.name} {card.version}",
        "tile_size_px": list(grid.size),
        "tile_size_m": [
            round(size * gsd, 3) for size, gsd in zip(grid.size, scene.gsd_m, strict=True)
        ],
        "tile_size_by": plan.tiling.reason,
        "cell_size_px": list(grid.cell_size),
        "tiles": len(tiles),
        "cells": int(plan.selected.sum()),
        "estimated_seconds_on_cpu": None if seconds is None else round(seconds, 1),
        "warnings": list(plan.warnings),
    }
