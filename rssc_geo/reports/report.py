"""The report of a run: one HTML page with the map, areas, confidence, patches and provenance.

The page is self-contained. Without scripts it is still complete; they only add zooming and
switching classes. Its texts are in ``templates/report.html``.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import shapely
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from rssc_geo.files import atomic_write
from rssc_geo.geometry import TileGrid, Window, dissolve
from rssc_geo.inference import CellMap, Plan, PredictorSpec, describe_run, without_folders
from rssc_geo.models import by_group, legend_of
from rssc_geo.output import (
    CONFIDENCE_STEPS,
    GEOMETRY,
    ClassTotal,
    LandUseSummary,
    Layer,
    ShownClasses,
    area_unit,
    read_cells,
    timestamp,
)
from rssc_geo.reports.page import render
from rssc_geo.reports.preview import filled, length_label, read_overview
from rssc_geo.reports.review import candidates_of, choose_cells, farthest_first, least_certain

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

BINS = 20  # of the confidence histogram: the borders of the confidence style fall on theirs
_CHART = 640, 190, 24  # width, height, height of the axis
_CHART_LETTER = 13  # width of a letter, as large as the style sheet makes it on a phone
_SIDE, _PATCH_SIDE = 1600, 176  # pixels of the map's and the patches' longer sides
_QUALITY = 82
_CLASSES = 40  # shown with examples, the largest first: a phone cannot hold thousands
_EXAMPLES, _LEAST_CERTAIN = 3, 12  # patches a class, and of the least certain ones
_SURE = 12  # most confident cells of a class from which its examples are picked
_MAP_SIDE = 1000.0  # units of the map's longer side
_MAP_CELLS = 250_000  # drawn at most: of a finer grid every k-th cell is shown, k × k as large


@dataclass(frozen=True, slots=True)
class _Found:
    """Results of one pass over all cells.

    ``histogram`` int (BINS,) by confidence from 0 to 1; tables of the most confident cells of each
    class and of the least confident ones.
    """

    histogram: NDArray[np.int64]
    sure: pa.Table
    least_certain: pa.Table


@dataclass(frozen=True, slots=True)
class Sheet:
    """The sheet of the map, north up.

    ``to_sheet`` turns (pixel column, pixel row) into its units, so that rotated and south-up
    rasters are shown correctly without resampling; ``size`` (width, height) in units.
    """

    to_sheet: Affine
    size: tuple[float, float]
    meters_a_unit: float

    @classmethod
    def of(cls, shape: tuple[int, int], transform: Affine, gsd_m: tuple[float, float]) -> Sheet:
        """The sheet of a raster of ``shape`` (rows, columns); meters a pixel (row, column)."""
        if transform.b == transform.d == 0:
            turned = Affine.scale(
                np.copysign(gsd_m[1], transform.a), np.copysign(gsd_m[0], -transform.e)
            )
        else:
            # One scale for both axes, as only their mean is known to hold in every direction.
            scale = float(np.sqrt(gsd_m[0] * gsd_m[1] / abs(transform.determinant)))
            turned = Affine.scale(scale, -scale) @ Affine(
                transform.a, transform.b, 0, transform.d, transform.e, 0
            )
        corners = [turned @ (col, row) for col in (0, shape[1]) for row in (0, shape[0])]
        x, y = zip(*corners, strict=True)
        width_m, height_m = max(x) - min(x), max(y) - min(y)
        unit = max(width_m, height_m) / _MAP_SIDE
        to_sheet = Affine.scale(1 / unit) @ Affine.translation(-min(x), -min(y)) @ turned
        return cls(to_sheet, (width_m / unit, height_m / unit), unit)

    def place(self, window: Window) -> tuple[float, float, float]:
        """The middle (x, y) and the side of a pixel window on the sheet."""
        x, y = self.to_sheet @ (window.col + window.width / 2, window.row + window.height / 2)
        side = max(window.width, window.height) * np.sqrt(abs(self.to_sheet.determinant))
        return x, y, float(side)


def write_report(
    path: Path,
    plan: Plan,
    summary: LandUseSummary,
    spec: PredictorSpec,
    *,
    full_provenance: bool = False,
    overwrite: bool,
) -> Path:
    """Write the report of a finished map to ``path``, which is returned.

    The cells are read back from the map, so that those of an interrupted run count; memory does not
    grow with their number beyond the classes that ``summary`` shows. Raises ``InputError`` when map
    or raster cannot be read, ``OutputError`` when the page cannot be written.
    """
    scene, classes, output = plan.scene, legend_of(spec.card), summary.paths[0]
    sheet = Sheet.of(scene.shape, scene.transform, scene.gsd_m)
    largest = sorted(summary.present, key=lambda t: -t.area_m2)
    found = _search(read_cells(output), shown=[total.id for total in largest[:_CLASSES]])
    chosen = choose_cells(candidates_of(found.least_certain, plan.grid.cells_shape), _LEAST_CERTAIN)
    doubtful = found.least_certain.take(chosen)
    with_cells = set(found.sure.column("class_id").to_pylist())
    sure = {t.id: _spread(found.sure, t.id, plan.grid) for t in largest if t.id in with_cells}
    pictures = _pictures([*sure.values(), doubtful], plan)
    titles = {scene_class.name: scene_class.title for scene_class in classes}
    patches = functools.partial(_patches, titles=titles, pictures=pictures, plan=plan, sheet=sheet)
    told = {"warnings": plan.warnings, "facts": _facts(plan, spec, output)}
    if not full_provenance:
        told = without_folders(told, plan, *spec.captioner_places, str(output))
    total_m2 = sum(total.area_m2 for total in largest)
    values: dict[str, Any] = {
        "title": scene.name,
        "width_m": scene.gsd_m[1] * scene.width,
        "height_m": scene.gsd_m[0] * scene.height,
        "cells": summary.cells,
        "regions": summary.regions,
        "warnings": told["warnings"],
        "map": _map(plan, sheet, summary.shown, classes),
        "groups": _groups(largest, classes),
        "present": len(largest),
        "total_m2": total_m2,
        "unit": area_unit(total_m2),
        "chart": _chart(found.histogram),
        "examples": [
            {"name": classes[i].title, "color": classes[i].color, "patches": patches(cells)}
            for i, cells in sure.items()
        ],
        "least_certain": patches(doubtful),
        "facts": told["facts"],
    }
    page = render("report.html", values, script="report.js", distance=length_label)
    with atomic_write(path, overwrite=overwrite) as made:
        made.write_text(page, encoding="utf-8")
    return path


def _facts(plan: Plan, spec: PredictorSpec, output: Path) -> dict[str, str]:
    """The provenance, by label."""
    run, scene, card = describe_run(plan, spec.card), plan.scene, spec.card
    scaling = plan.radiometry
    ranges = ", ".join(
        f"{low:g} to {high:g}" for low, high in zip(scaling.low, scaling.high, strict=True)
    )
    libraries = ("rssc-geo", "torch", "rasterio", "shapely")
    (rows, cols), (cell_rows, cell_cols) = run.tile_size_px, run.cell_size_px
    return {
        "Input": run.input,
        "Size": (
            f"{run.size_px[0]} rows, {run.size_px[1]} columns, {scene.gsd_m[0]:.3g} by"
            f" {scene.gsd_m[1]:.3g} m a pixel"
        ),
        "Coordinates": scene.crs.name,
        "Bands": f"{', '.join(map(str, run.bands))} as red, green, blue ({run.bands_by})",
        "Invalid pixels": run.mask,
        "Scaling to 8 bit": (
            scaling.method if scaling.method == "none" else f"{scaling.method}: {ranges}"
        ),
        "Tiles": (
            f"{rows} by {cols} pixels ({run.tile_size_by}), cells {cell_rows} by {cell_cols}"
        ),
        "Options": ", ".join(f"{name} {value}" for name, value in run.options.items()) or "none",
        "Model": f"{run.model}, {len(card.classes)} classes, {run.license}",
        "Captioner": spec.captioner,
        "Precision": spec.dtype,
        "Map": str(output),
        "Made": timestamp(),
        "With": ", ".join(f"{name} {version(name)}" for name in libraries),
    }


def _groups(largest: Sequence[ClassTotal], classes: Sequence[SceneClass]) -> list[dict[str, Any]]:
    """Areas group by group, of a group the largest class first; groups of one class are unnamed.

    ``largest``: the totals of the classes present, sorted.
    """
    whole = sum(total.area_m2 for total in largest) or 1.0
    groups = []
    for group, members in by_group(classes[total.id] for total in largest).items():
        totals = [total for total in largest if classes[total.id] in members]
        area_m2 = sum(total.area_m2 for total in totals)
        rows = [
            {
                "id": total.id,
                "name": total.title,
                "color": classes[total.id].color,
                "bar": f"{100 * total.area_m2 / (largest[0].area_m2 or 1.0):.1f}",
                "area_m2": total.area_m2,
                "share": total.area_m2 / whole,
            }
            for total in totals
        ]
        name = group if len(totals) > 1 else ""
        groups.append({"name": name, "area_m2": area_m2, "share": area_m2 / whole, "areas": rows})
    return groups


def _search(layer: Layer, *, shown: Sequence[int]) -> _Found:
    """One pass over all cells that keeps some tens of them a class."""
    histogram = np.zeros(BINS, np.int64)
    nothing = layer.schema.empty_table().drop_columns([GEOMETRY])
    sure, doubtful = nothing, nothing
    for batch in layer.batches():
        cells = pa.Table.from_batches([batch]).drop_columns([GEOMETRY])
        confidence = cells.column("confidence").to_numpy()
        # The borders 0.05, 0.1 … are no binary numbers: a share that is written as 0.85 belongs to
        # the bin from there.
        bins = np.floor(confidence * BINS + 1e-9).astype(int).clip(0, BINS - 1)
        histogram += np.bincount(bins, minlength=BINS)
        wanted = cells.filter(pa.array(np.isin(cells.column("class_id").to_numpy(), shown)))
        sure = _surest(pa.concat_tables([sure, wanted]))
        doubtful = least_certain(pa.concat_tables([doubtful, cells]), _LEAST_CERTAIN)
    return _Found(histogram, sure, doubtful)


def _surest(cells: pa.Table) -> pa.Table:
    """The most confident cells of each class, the first of equals."""
    row, col, class_ids, confidence = (
        cells.column(name).to_numpy() for name in ("row", "col", "class_id", "confidence")
    )
    order = np.lexsort([col, row, -confidence, class_ids])
    _, starts, counts = np.unique(class_ids[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    return cells.take(order[rank < _SURE])


def _spread(sure: pa.Table, index: int, grid: TileGrid) -> pa.Table:
    """Distant examples of a class, from its most confident cells; the most confident first."""
    cells = sure.filter(pa.array(sure.column("class_id").to_numpy() == index))
    places = np.stack([cells.column(name).to_numpy() for name in ("row", "col")], axis=1)
    places = places * np.array(grid.cell_size, float)

    def apart(at: int) -> NDArray[np.float64]:
        return np.asarray(((places - places[at]) ** 2).sum(axis=1))

    return cells.take(sorted(farthest_first(np.ones(len(cells)), apart, _EXAMPLES)))


def _tile_of(cell: Mapping[str, int], cells: CellMap) -> int:
    """The tile that the cell's caption is of."""
    row, col = cells.near_rows[cell["row"]], cells.near_cols[cell["col"]]
    return int(row) * cells.grid.tiles_shape[1] + int(col)


def _pictures(tables: Sequence[pa.Table], plan: Plan) -> dict[int, str]:
    """The tiles in which the cells were seen, as JPEGs in URIs, by tile."""
    cells = [cell for table in tables for cell in table.select(["row", "col"]).to_pylist()]
    tiles = sorted({_tile_of(cell, plan.cells) for cell in cells})
    longest = max(plan.grid.size)
    rows, cols = (max(1, round(_PATCH_SIDE * side / longest)) for side in plan.grid.size)
    with plan.reader(tiles, out_size=(rows, cols)) as reader:
        return {data.tile.index: jpeg(data.pixels, data.mask) for data in reader}


def _patches(
    table: pa.Table,
    *,
    titles: Mapping[str, str],
    pictures: Mapping[int, str],
    plan: Plan,
    sheet: Sheet,
) -> list[dict[str, Any]]:
    """Cells to look at: the model's results, their pixels, their place on the sheet.

    ``titles`` of the classes by their names.
    """
    patches = []
    for cell in table.to_pylist():
        window = plan.grid.cell(cell["row"], cell["col"]).window
        patch = {name: cell[name] for name in ("confidence", "margin", "caption", "row", "col")}
        patch["name"] = titles[cell["class"]]
        patch["runner_up"] = None if cell["runner_up"] is None else titles[cell["runner_up"]]
        patch["box"] = f"{window.col} {window.row} {window.width} {window.height}"
        patch["at"] = " ".join(f"{value:.3f}" for value in sheet.place(window))
        patch["picture"] = pictures[_tile_of(cell, plan.cells)]
        patches.append(patch)
    return patches


def _map(
    plan: Plan, sheet: Sheet, shown: ShownClasses, classes: Sequence[SceneClass]
) -> dict[str, Any]:
    """Data of the SVG map: the scene's picture in the raster's pixels, and one path a class.

    ``matrix`` turns pixels into the sheet's units, ``shown_matrix`` what paths are in into pixels.
    """
    overview = read_overview(plan, side=_SIDE)
    return {
        "width": f"{sheet.size[0]:.2f}",
        "height": f"{sheet.size[1]:.2f}",
        "meters_a_unit": f"{sheet.meters_a_unit:.9g}",
        "matrix": svg_matrix(sheet.to_sheet),
        "shown_matrix": svg_matrix(~plan.scene.transform @ shown.geo.transform),
        "rows": plan.scene.height,
        "cols": plan.scene.width,
        "picture": jpeg(overview.pixels, overview.mask),
        "shapes": [
            {"id": i, "path": path, "color": classes[i].color, "name": classes[i].title}
            for i, path in class_paths(shown.class_grid, shown.geo.grid)
        ],
    }


def svg_matrix(matrix: Affine) -> str:
    """The numbers of SVG's ``matrix``."""
    numbers = (matrix.a, matrix.d, matrix.b, matrix.e, matrix.c, matrix.f)
    return " ".join(f"{number:.9g}" for number in numbers)


def class_paths(class_grid: NDArray[np.int32], grid: TileGrid) -> list[tuple[int, str]]:
    """Of each class present its number and the outline of all its cells, in pixels."""
    step = max(1, int(np.ceil(np.sqrt(class_grid.size / _MAP_CELLS))))
    if step > 1:
        rows, cols = (
            np.minimum(np.arange(-(-count // step)) * step + step // 2, count - 1)
            for count in class_grid.shape
        )
        class_grid = class_grid[np.ix_(rows, cols)]
        grid = TileGrid(grid.shape, (grid.cell_size[0] * step, grid.cell_size[1] * step))
    regions = dissolve(grid, Affine.identity(), classes=class_grid, nothing=-1)
    found: dict[int, list[str]] = {}
    for index, polygon in zip(regions.class_ids.tolist(), regions.polygons(), strict=True):
        found.setdefault(index, []).extend(_ring(ring) for ring in shapely.get_rings(polygon))
    return [(index, "".join(rings)) for index, rings in sorted(found.items())]


def _ring(ring: shapely.LinearRing) -> str:
    """A ring of sides along the axes as SVG commands."""
    corners = shapely.get_coordinates(ring).astype(int)
    steps = np.diff(corners, axis=0)[:-1]  # the last side is drawn by closing
    sides = "".join(f"h{x}" if x else f"v{y}" for x, y in steps.tolist())
    return f"M{corners[0, 0]} {corners[0, 1]}{sides}z"


def _chart(histogram: NDArray[np.int64]) -> dict[str, Any]:
    """Bars of the histogram in the colors of the confidence style, and two shares."""
    width, height, below = _CHART
    most, cells = max(int(histogram.max()), 1), max(int(histogram.sum()), 1)
    left = 12 + _CHART_LETTER * len(f"{most:,}")
    step, base = (width - left) / BINS, height - below
    bars = []
    for index, count in enumerate(histogram.tolist()):
        lower = index / BINS
        color = next(
            look.color for look in reversed(CONFIDENCE_STEPS) if lower >= look.lower - 1e-9
        )
        tall = (base - 14) * count / most
        bars.append(
            {
                "x": f"{left + index * step + 1:.1f}",
                "y": f"{base - tall:.1f}",
                "width": f"{step - 2:.1f}",
                "height": f"{tall:.1f}",
                "color": color,
                "title": f"{100 * lower:.0f} to {100 * (index + 1) / BINS:.0f} %: {count:,} cells",
            }
        )
    anchors = {0: "start", 25: "middle", 50: "middle", 75: "middle", 100: "end"}
    return {
        "width": width,
        "height": height,
        "left": left,
        "base": base,
        "most": most,
        "bars": bars,
        "ticks": [
            {"x": f"{left + tick / 100 * (width - left):.1f}", "anchor": anchor, "percent": tick}
            for tick, anchor in anchors.items()
        ],
        "low": int(histogram[: BINS // 2].sum()) / cells,
        "high": int(histogram[-1]) / cells,
    }


def jpeg(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """uint8 (H, W, 3) with its mask (True = valid) as a JPEG in a URI, the void in gray."""
    buffer = io.BytesIO()
    picture = Image.fromarray(filled(pixels, mask))
    picture.save(buffer, format="JPEG", quality=_QUALITY, optimize=True, progressive=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
