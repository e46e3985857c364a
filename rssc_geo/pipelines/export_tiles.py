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

from rssc_geo.errors import NothingToClassifyError
from rssc_geo.files import atomic_folder, check_not_input
from rssc_geo.inference import Plan, Source, make_plan
from rssc_geo.models import load_card
from rssc_geo.options import TileOptions, files_read
from rssc_geo.output import read_names, small_raster, write_gpkg_index
from rssc_geo.progress import Progress, reporting
from rssc_geo.raster import TileData

INDEX = "tiles.gpkg"
_LAYER = "tiles"
_DRIVERS = {
    "tif": ("GTiff", {"compress": "deflate", "photometric": "rgb"}),
    "png": ("PNG", {"worldfile": "yes"}),
}


@dataclass(frozen=True, slots=True)
class TileExport:
    """Folder, index file, chips written, and tiles left out for too few valid pixels."""

    folder: Path
    index: Path
    chips: int
    left_out: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "folder": str(self.folder),
            "index": str(self.index),
            "chips": self.chips,
            "left_out": self.left_out,
        }

    def to_geopandas(self) -> gpd.GeoDataFrame:
        """The chips' names and places, read back."""
        return gpd.read_file(self.index, layer=_LAYER)


def export_tiles(
    source: Source,
    folder: str | Path,
    options: TileOptions | None = None,
    *,
    progress: Progress | bool | None = None,
) -> TileExport:
    """Write ``folder/<name>_<row>_<col>.tif`` (or .png with a world file) and ``tiles.gpkg``.

    Chips hold the input of a model: the three chosen bands in 8 bit, with the scene-wide scaling,
    and the mask. The folder appears whole or not at all.

    Parameters
    ----------
    source, progress : as for :func:`rssc_geo.classify`
    options : ``size``: side of a chip in pixels, default the tile's own; ``format``: tif or png;
        ``model``: whose card decides the default tile size

    Raises ``OutputError`` where the folder exists (unless ``overwrite``) or cannot be written,
    ``InputError`` for a raster that cannot be used, ``NothingToClassifyError`` for one without a
    valid tile.

    Examples
    --------
    >>> from rssc_geo import TileOptions, export_tiles
    >>> options = TileOptions(format="png", tile_size="900m")
    >>> export_tiles("scene.tif", "chips", options).index.name
    'tiles.gpkg'
    """
    options = options or TileOptions()
    target = Path(folder)
    card = load_card(options.model, revision=options.revision)
    plan = make_plan(source, card, options, fine=False)
    check_not_input([target], [*plan.inputs(), *files_read(options)])
    with (
        atomic_folder(target, index=INDEX, overwrite=options.overwrite, others=_files_of) as made,
        reporting(progress) as report,
    ):
        records, left_out = _write_chips(plan, options, made, report)
        if not records:
            raise NothingToClassifyError(
                f"{plan.scene.source}: no tile has {options.min_valid:.0%} valid pixels, so there"
                " is nothing to export"
            )
        table = gpd.GeoDataFrame(records, crs=plan.scene.crs)
        write_gpkg_index(table, made / INDEX, _LAYER)
    return TileExport(target, target / INDEX, len(records), left_out)


def _files_of(folder: Path) -> set[str]:
    """Names of the chips in an earlier result, and of their world files."""
    chips = read_names(folder / INDEX, _LAYER, ["file"])
    return chips | {f"{name.removesuffix('.png')}.wld" for name in chips if name.endswith(".png")}


def _write_chips(
    plan: Plan, options: TileOptions, folder: Path, progress: Progress
) -> tuple[list[dict[str, Any]], int]:
    """The index's rows, and the number of tiles that were left out."""
    tiles = plan.cells.tiles()
    size = plan.grid.size if options.size is None else (options.size, options.size)
    records: list[dict[str, Any]] = []
    with plan.reader(tiles.tolist(), out_size=size) as reader:
        for done, data in enumerate(reader, start=1):
            if plan.cells.wanted(data.tile, data.valid_fraction, data.cell_fractions):
                tile = data.tile
                name = f"{plan.scene.name}_{tile.row:05d}_{tile.col:05d}.{options.format}"
                transform = _chip_transform(plan, data)
                crs = plan.scene.crs.to_wkt()
                _write(folder / name, data, transform, crs, options.format)
                records.append(_record(name, plan, data))
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
        with small_raster(path, profile) as chip:
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
