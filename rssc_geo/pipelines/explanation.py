"""The explanation of one cell's class: its fields, heat map and picture, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
from affine import Affine

from rssc_geo.geometry import TileGrid, Window, cell_polygons
from rssc_geo.inference import Plan
from rssc_geo.models import SceneClass
from rssc_geo.output import rgb, small_raster, write_gpkg_index
from rssc_geo.raster import TileData
from rssc_geo.reports import Panel

if TYPE_CHECKING:
    from rssc_geo.models import Attribution

LAYER = "explained"


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
