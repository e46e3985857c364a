"""What a report needs of a finished run.

How sure the model is, cells to show, and their pictures.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from rssc_geo.inference import Maker, Plan
from rssc_geo.options import TilingOptions, describe_options
from rssc_geo.output import GEOMETRY, LandUseSummary, Layer, read_cells, timestamp
from rssc_geo.raster import Radiometry, TileReader
from rssc_geo.reports.overview import read_overview
from rssc_geo.reports.report import BINS, Patch, ReportContent, write_report
from rssc_geo.reports.report_map import lay_out, map_svg
from rssc_geo.reports.review import POOL, choose, doubts, farthest_first

_SIDE, _PATCH_SIDE = 1600, 176  # pixels of the map's and the patches' longer sides
_QUALITY = 82
_CLASSES = (
    40  # shown with examples, the largest first: a page of thousands would be too large for a phone
)
_EXAMPLES, _DOUBTFUL = 3, 12  # patches a class, and of the least certain ones
_SURE = 12  # most confident cells of a class from which its examples are picked
_VOID = np.array((232, 235, 238), np.uint8)


@dataclass(frozen=True, slots=True)
class _Found:
    """Of all cells.

    ``histogram`` int (BINS,) by confidence, and tables of the surest of each class and the least
    certain.
    """

    histogram: np.ndarray
    sure: pa.Table
    doubtful: pa.Table


def make_report(
    path: Path,
    *,
    plan: Plan,
    options: TilingOptions,
    radiometry: Radiometry,
    maker: Maker,
    output: Path,
    summary: LandUseSummary,
) -> Path:
    """Write the report of the finished map ``output``, made by ``maker`` with ``options``, to
    ``path``, which is returned.

    The cells are read back from the map, so that those of an interrupted run count; memory does not
    grow with their number beyond the class grid of ``summary``. Raises ``InputError`` when map or
    raster cannot be read.
    """
    scene, classes = plan.scene, maker.card.classes
    page = lay_out(scene.shape, scene.transform, scene.gsd_m)
    found = _search(read_cells(output), shown=_largest(summary))
    sure = {
        int(index): _spread(found.sure, int(index), plan)
        for index in np.unique(found.sure.column("class_id").to_numpy())
    }
    doubtful = found.doubtful.take(choose(doubts(found.doubtful, plan.grid.cells_shape), _DOUBTFUL))
    pictures = _pictures([*sure.values(), doubtful], plan, radiometry)
    svg = map_svg(
        page,
        picture=_jpeg(*read_overview(plan, radiometry, side=_SIDE)),
        shape=scene.shape,
        class_grid=summary.class_grid,
        grid=plan.grid,
        classes=classes,
    )
    content = ReportContent(
        title=scene.name,
        ground_m=(scene.gsd_m[0] * scene.height, scene.gsd_m[1] * scene.width),
        page=page,
        map=svg,
        classes=classes,
        summary=summary,
        histogram=found.histogram,
        examples={index: _patches(cells, pictures, plan) for index, cells in sure.items()},
        doubtful=_patches(doubtful, pictures, plan),
        facts=_facts(plan, options, radiometry, maker, output),
        warnings=plan.warnings,
    )
    write_report(path, content)
    return path


def _facts(
    plan: Plan, options: TilingOptions, radiometry: Radiometry, maker: Maker, output: Path
) -> dict[str, str]:
    """What a reader asks about the making, by label."""
    scene, grid, card = plan.scene, plan.grid, maker.card
    given = {
        name: value
        for name, value in describe_options(options).items()
        if value != getattr(TilingOptions(), name)
    }
    ranges = ", ".join(
        f"{low:g} to {high:g}" for low, high in zip(radiometry.low, radiometry.high, strict=True)
    )
    libraries = ", ".join(
        f"{name} {version(name)}" for name in ("rssc-geo", "torch", "rasterio", "shapely")
    )
    return {
        "Input": scene.source,
        "Size": (
            f"{scene.height} rows, {scene.width} columns, {scene.gsd_m[0]:.3g} by"
            f" {scene.gsd_m[1]:.3g} m a pixel"
        ),
        "Coordinates": scene.crs.name,
        "Bands": f"{', '.join(map(str, scene.bands))} as red, green, blue ({scene.bands_reason})",
        "Invalid pixels": scene.mask,
        "Scaling to 8 bit": (
            radiometry.method if radiometry.method == "none" else f"{radiometry.method}: {ranges}"
        ),
        "Tiles": (
            f"{grid.size[0]} by {grid.size[1]} pixels ({plan.tiling.reason}), cells"
            f" {grid.cell_size[0]} by {grid.cell_size[1]}"
        ),
        "Options": ", ".join(f"{name} {value}" for name, value in given.items()) or "none",
        "Model": f"{card.name} {card.version}, {len(card.classes)} classes, {card.license}",
        "Captioner": maker.captioner,
        "Precision": maker.dtype,
        "Map": str(output),
        "Made": timestamp(),
        "With": libraries,
    }


def _largest(summary: LandUseSummary) -> list[int]:
    present = [total for total in summary.classes if total.cells]
    return [total.id for total in sorted(present, key=lambda total: -total.area_m2)[:_CLASSES]]


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
        doubtful = pa.concat_tables([doubtful, cells])
        order = np.lexsort([doubtful.column(name).to_numpy() for name in ("col", "row", "margin")])
        doubtful = doubtful.take(order[: POOL * _DOUBTFUL])
    return _Found(histogram, sure, doubtful)


def _surest(cells: pa.Table) -> pa.Table:
    """The most confident cells of each class, the first of equals."""
    class_ids, confidence = (
        cells.column("class_id").to_numpy(),
        cells.column("confidence").to_numpy(),
    )
    order = np.lexsort(
        [cells.column("col").to_numpy(), cells.column("row").to_numpy(), -confidence, class_ids]
    )
    _, starts, counts = np.unique(class_ids[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(starts, counts)
    return cells.take(order[rank < _SURE])


def _spread(sure: pa.Table, index: int, plan: Plan) -> pa.Table:
    """Examples of a class that lie far from each other, from its surest cells; the surest first."""
    cells = sure.filter(pa.array(sure.column("class_id").to_numpy() == index))
    places = np.stack(
        [cells.column(name).to_numpy() for name in ("row", "col")], axis=1
    ) * np.array(plan.grid.cell_size, float)
    chosen = farthest_first(
        np.ones(len(cells)),
        lambda at: np.asarray(((places - places[at]) ** 2).sum(axis=1)),
        _EXAMPLES,
    )
    return cells.take(sorted(chosen))


def _tile_of(cell: Mapping[str, int], plan: Plan) -> int:
    """The tile that the cell's caption is of."""
    rows, cols = plan.grid.nearest_tiles()
    return int(rows[cell["row"]]) * plan.grid.tiles_shape[1] + int(cols[cell["col"]])


def _pictures(tables: Sequence[pa.Table], plan: Plan, radiometry: Radiometry) -> dict[int, bytes]:
    """The tiles in which the cells were seen, as JPEGs by tile."""
    tiles = sorted(
        {
            _tile_of(cell, plan)
            for table in tables
            for cell in table.select(["row", "col"]).to_pylist()
        }
    )
    longest = max(plan.grid.size)
    rows, cols = (max(1, round(_PATCH_SIDE * side / longest)) for side in plan.grid.size)
    with TileReader(
        plan.scene, plan.grid, radiometry, out_size=(rows, cols), tiles=tiles
    ) as reader:
        return {data.tile.index: _jpeg(data.pixels, data.mask) for data in reader}


def _patches(cells: pa.Table, pictures: Mapping[int, bytes], plan: Plan) -> list[Patch]:
    return [
        Patch(
            name=cell["class"],
            confidence=cell["confidence"],
            runner_up=cell["runner_up"],
            margin=cell["margin"],
            caption=cell["caption"] or "",
            row=cell["row"],
            col=cell["col"],
            window=plan.grid.cell(cell["row"], cell["col"]).window,
            jpeg=pictures[_tile_of(cell, plan)],
        )
        for cell in cells.to_pylist()
    ]


def _jpeg(pixels: np.ndarray, mask: np.ndarray) -> bytes:
    """uint8 (H, W, 3) with its mask (True = valid) as a JPEG, the void in gray."""
    buffer = io.BytesIO()
    picture = Image.fromarray(np.where(mask[..., None], pixels, _VOID))
    picture.save(buffer, format="JPEG", quality=_QUALITY, optimize=True, progressive=True)
    return buffer.getvalue()
