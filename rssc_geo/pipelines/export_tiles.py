"""Export a raster's tiles as georeferenced pictures with an index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
from affine import Affine
from shapely.geometry import Polygon

from rssc_geo.errors import InputError, UsageError
from rssc_geo.files import atomic_folder
from rssc_geo.inference import CellMap, Plan, Source, TilingOptions, make_plan
from rssc_geo.models import load_card
from rssc_geo.progress import Progress
from rssc_geo.raster import TileData, TileReader, fit_radiometry

INDEX = "tiles.gpkg"
_DRIVERS = {
    "tif": ("GTiff", {"compress": "deflate", "photometric": "rgb"}),
    "png": ("PNG", {"worldfile": "yes"}),
}


@dataclass(frozen=True, slots=True)
class TileExport:
    """Folder, index file, chips written, and tiles left out because too little of them is valid."""

    folder: Path
    index: Path
    chips: int
    left_out: int


def export_tiles(
    source: Source,
    folder: str | Path,
    *,
    model: str | Path = "compact",
    revision: str | None = None,
    size_px: int | None = None,
    image_format: str = "tif",
    overwrite: bool = False,
    progress: Progress | None = None,
    **tiling: Any,
) -> TileExport:
    """Write ``folder/<name>_<row>_<col>.tif`` (or .png with a world file) and
    ``folder/tiles.gpkg``.

    Chips hold what a model would be shown: the three chosen bands in 8 bit, with the scene-wide
    scaling, and the mask. ``size_px``: side of a chip in pixels; default: the tile's own pixels.
    ``model``: whose card decides the default tile size. ``**tiling``: the fields of
    ``TilingOptions``. The folder appears whole or not at all.

    Raises ``UsageError`` for an unknown format or size, ``OutputError`` where the folder exists
    (unless ``overwrite``) or cannot be written, ``InputError`` for a raster that cannot be used.
    """
    if image_format not in _DRIVERS:
        raise UsageError(f"--format {image_format!r} is unknown; use one of {', '.join(_DRIVERS)}")
    if size_px is not None and size_px < 1:
        raise UsageError(f"--size {size_px} is not a number of pixels; give 1 or more")
    target = Path(folder)
    options = TilingOptions(**tiling)
    with atomic_folder(target, index=INDEX, overwrite=overwrite) as part:
        plan = make_plan(source, load_card(model, revision=revision), options)
        records, left_out = _write_chips(
            plan, options, part, size_px=size_px, image_format=image_format, progress=progress
        )
        if not records:
            raise InputError(
                f"{plan.scene.source}: no tile has {options.min_valid:.0%} valid pixels, so there"
                " is nothing to export"
            )
        gpd.GeoDataFrame(records, crs=plan.scene.crs).to_file(
            part / INDEX, layer="tiles", driver="GPKG", VERSION="1.3"
        )
    return TileExport(target, target / INDEX, len(records), left_out)


def _write_chips(
    plan: Plan,
    options: TilingOptions,
    folder: Path,
    *,
    size_px: int | None,
    image_format: str,
    progress: Progress | None,
) -> tuple[list[dict[str, Any]], int]:
    cells = CellMap(plan.grid, plan.selected, min_valid=options.min_valid)
    tiles = cells.tiles()
    size = plan.grid.size if size_px is None else (size_px, size_px)
    radiometry = fit_radiometry(plan.scene, stretch=options.stretch)
    records: list[dict[str, Any]] = []
    with TileReader(
        plan.scene, plan.grid, radiometry, out_size=size, tiles=tiles.tolist()
    ) as reader:
        for done, data in enumerate(reader, start=1):
            if cells.wanted(data.tile, data.valid_fraction, data.cell_fractions):
                name = f"{plan.scene.name}_{data.tile.row:05d}_{data.tile.col:05d}.{image_format}"
                transform = _chip_transform(plan, data)
                _write(folder / name, data, transform, plan.scene.crs.to_wkt(), image_format)
                records.append(_record(name, plan, data))
            if progress is not None:
                progress("export", done, len(tiles))
    return records, len(tiles) - len(records)


def _chip_transform(plan: Plan, data: TileData) -> Affine:
    """Affine of the chip's own pixels; a padded tile keeps the scale of its real part."""
    window, grid = data.tile.window, plan.grid
    rows, cols = data.mask.shape
    scale = Affine.scale(grid.size[1] / cols, grid.size[0] / rows)
    return plan.scene.transform @ Affine.translation(window.col, window.row) @ scale


def _write(path: Path, data: TileData, transform: Affine, crs: str, image_format: str) -> None:
    driver, extra = _DRIVERS[image_format]
    rows, cols = data.mask.shape
    profile = {
        "driver": driver,
        "height": rows,
        "width": cols,
        "count": 3,
        "dtype": "uint8",
        "crs": crs,
        "transform": transform,
        **extra,
    }
    bands = np.ascontiguousarray(data.pixels.transpose(2, 0, 1))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        if image_format == "png":  # its mask is an alpha band
            profile["count"] = 4
            bands = np.concatenate([bands, data.mask[None] * np.uint8(255)])
        with rasterio.open(path, "w", **profile) as chip:
            chip.write(bands)
            if image_format == "tif" and not data.mask.all():
                chip.write_mask(data.mask)


def _record(name: str, plan: Plan, data: TileData) -> dict[str, Any]:
    window, transform = data.tile.window, plan.scene.transform
    right, bottom = window.col + window.width, window.row + window.height
    corners = [(window.col, window.row), (window.col, bottom), (right, bottom), (right, window.row)]
    return {
        "file": name,
        "row": data.tile.row,
        "col": data.tile.col,
        "pixel_row": window.row,
        "pixel_col": window.col,
        "valid_fraction": data.valid_fraction,
        "geometry": Polygon([transform @ corner for corner in corners]),
    }
