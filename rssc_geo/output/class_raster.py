"""The classes of a map as a raster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.shutil import copy
from rasterio.windows import Window

from rssc_geo.files import write_error
from rssc_geo.geometry import TileGrid
from rssc_geo.output.placement import GeoGrid
from rssc_geo.output.symbology import rgb, xml_text
from rssc_geo.raster import GDAL_ERRORS

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_NODATA = 255
_OPAQUE = 255
_MOST_SHOWN = 4_000_000
_INTEGER, _TEXT = "0", "2"
# Of the attribute table: name, GDALRATFieldType, GDALRATFieldUsage.
_COLUMNS = (
    ("Value", _INTEGER, "5"),
    ("Class", _TEXT, "2"),
    ("Group", _TEXT, "0"),
    ("Red", _INTEGER, "6"),
    ("Green", _INTEGER, "7"),
    ("Blue", _INTEGER, "8"),
)


def legend_path(raster: Path) -> Path:
    """The sidecar in which GDAL keeps metadata that a GeoTIFF cannot hold."""
    return raster.with_name(f"{raster.name}.aux.xml")


@dataclass(frozen=True, slots=True)
class ClassPixels:
    """The classes of a map as pixels.

    Attributes
    ----------
    shape, transform : rows and columns, and from (column, row) to the map's CRS
    blocks : starts the stream of classes (h, w), below 0 for none, and the row and column at which
        each begins; together they are all that have a class
    """

    shape: tuple[int, int]
    transform: Affine
    blocks: Callable[[], Iterator[tuple[tuple[int, int], NDArray[np.integer[Any]]]]]

    @classmethod
    def of_cells(cls, class_grid: NDArray[np.int32], geo: GeoGrid) -> ClassPixels:
        """One pixel a cell.

        Where the raster's sides are no multiples of the cell's, the last row and column of pixels
        reach beyond its edge, as pixels are all of one size.
        """
        rows, cols = geo.grid.cell_size
        return cls(
            geo.grid.cells_shape,
            geo.transform @ Affine.scale(cols, rows),
            lambda: iter([((0, 0), class_grid)]),
        )


@dataclass(frozen=True, slots=True)
class ShownClasses:
    """The classes of a map as a grid to look at.

    Attributes
    ----------
    class_grid : int32 (rows, columns), below 0 for none
    geo : the grid whose cells these are
    """

    class_grid: NDArray[np.int32]
    geo: GeoGrid

    @classmethod
    def of_pixels(cls, pixels: ClassPixels, crs: CRS) -> ShownClasses:
        """Every pixel, or of too many the same share along both axes."""
        step = max(1, math.ceil(math.sqrt(math.prod(pixels.shape) / _MOST_SHOWN)))
        places = [
            np.minimum(np.arange(0, length, step) + step // 2, length - 1)
            for length in pixels.shape
        ]
        class_grid = np.full([len(axis) for axis in places], -1, np.int32)
        for start, found in pixels.blocks():
            inside = [
                slice(*np.searchsorted(axis, (first, first + length)))
                for axis, first, length in zip(places, start, found.shape, strict=True)
            ]
            rows, cols = (
                axis[part] - first for axis, part, first in zip(places, inside, start, strict=True)
            )
            class_grid[tuple(inside)] = found[np.ix_(rows, cols)]
        grid = TileGrid(pixels.shape, (step, step))
        return cls(class_grid, GeoGrid(grid, pixels.transform, crs))


def write_class_raster(
    path: Path, pixels: ClassPixels, crs: CRS, classes: Sequence[SceneClass]
) -> None:
    """Write classes as a uint8 COG with a color table and nodata 255.

    The names of the classes go to the band's tags, ``CLASS_<id>``; their titles, as the band's
    categories, and a table of title, group and color, to ``legend_path``. Raises ``OutputError``
    when it cannot be written.
    """
    scratch = path.with_name(f"{path.name}.scratch")  # a COG cannot be written piece by piece
    try:
        with rasterio.open(
            scratch,
            "w",
            driver="GTiff",
            height=pixels.shape[0],
            width=pixels.shape[1],
            count=1,
            dtype="uint8",
            nodata=_NODATA,
            crs=crs.to_wkt(),
            transform=pixels.transform,
            compress="DEFLATE",
            tiled=True,
            bigtiff="IF_SAFER",
        ) as raster:
            raster.write_colormap(
                1, {scene_class.id: (*rgb(scene_class.color), _OPAQUE) for scene_class in classes}
            )
            raster.set_band_description(1, "Land use class")
            raster.update_tags(
                1, **{f"CLASS_{scene_class.id}": scene_class.name for scene_class in classes}
            )
            for (row, col), found in pixels.blocks():
                values = np.where(found >= 0, found, _NODATA).astype(np.uint8)
                raster.write(values, 1, window=Window(col, row, *values.shape[::-1]))
        copy(scratch, path, driver="COG", compress="DEFLATE", overview_resampling="MODE")
        scratch.unlink()
        legend_path(path).write_text(_legend(classes), encoding="utf-8")
    except (*GDAL_ERRORS, OSError) as error:
        raise write_error(path, str(error)) from error


def _legend(classes: Sequence[SceneClass]) -> str:
    """Categories and attribute table as GDAL keeps them (PAM); rasterio has no functions for them.

    Categories have no numbers: they count from 0, as the ids of classes do.
    """
    root = Element("PAMDataset")
    band = SubElement(root, "PAMRasterBand", band="1")
    categories = SubElement(band, "CategoryNames")
    table = SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_COLUMNS):
        column = SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", name), ("Type", kind), ("Usage", usage)):
            SubElement(column, tag).text = text
    for scene_class in classes:
        title = xml_text(scene_class.title)
        SubElement(categories, "Category").text = title
        row = SubElement(table, "Row", index=str(scene_class.id))
        group = xml_text(scene_class.group)
        for value in (scene_class.id, title, group, *rgb(scene_class.color)):
            SubElement(row, "F").text = str(value)
    return tostring(root, encoding="unicode")
