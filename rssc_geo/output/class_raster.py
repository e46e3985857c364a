"""The classes of a map as a raster, one pixel a cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from rssc_geo.files import write_error
from rssc_geo.output.placement import GeoGrid
from rssc_geo.output.styles import rgb, xml_text

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_NODATA = 255
_OPAQUE = 255
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
    """The file beside a raster in which GDAL keeps what a GeoTIFF has no place for."""
    return raster.with_name(f"{raster.name}.aux.xml")


def write_class_raster(
    path: Path, class_grid: NDArray[np.int32], geo: GeoGrid, classes: Sequence[SceneClass]
) -> None:
    """Write the class of every cell as a uint8 COG with a color table and nodata 255.

    ``class_grid``: (cell rows, cell columns), below 0 for no class. The names of the classes go to
    the band's tags, ``CLASS_<id>``; their titles, as the band's categories, and a table of title,
    group and color, to ``legend_path``. Where the raster's sides are no multiples of the cell's,
    the last row and column of pixels reach beyond its edge, as pixels are all of one size. Raises
    ``OutputError`` when it cannot be written.
    """
    rows, cols = geo.grid.cell_size
    pixels = np.where(class_grid >= 0, class_grid, _NODATA).astype(np.uint8)
    try:
        with rasterio.open(
            path,
            "w",
            driver="COG",
            height=pixels.shape[0],
            width=pixels.shape[1],
            count=1,
            dtype="uint8",
            nodata=_NODATA,
            crs=geo.crs.to_wkt(),
            transform=geo.transform @ Affine.scale(cols, rows),
            compress="DEFLATE",
            overview_resampling="MODE",
        ) as raster:
            raster.write(pixels, 1)
            raster.write_colormap(
                1, {scene_class.id: (*rgb(scene_class.color), _OPAQUE) for scene_class in classes}
            )
            raster.set_band_description(1, "Land use class")
            raster.update_tags(
                1, **{f"CLASS_{scene_class.id}": scene_class.name for scene_class in classes}
            )
        legend_path(path).write_text(_legend(classes), encoding="utf-8")
    except (RasterioError, OSError) as error:
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
