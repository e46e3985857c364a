"""The classes as a raster: a COG with one pixel a cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from rssc_geo.files import write_error
from rssc_geo.output.placement import GeoGrid
from rssc_geo.output.styles import rgb

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_NODATA = 255
_OPAQUE = 255


def write_class_raster(
    path: Path, class_grid: NDArray[np.int32], geo: GeoGrid, classes: Sequence[SceneClass]
) -> None:
    """Write the class of every cell as a uint8 COG with a color table and nodata 255.

    ``class_grid``: (cell rows, cell columns), below 0 for no class. The names of the classes go to
    the band's tags, ``CLASS_<id>``. Where the raster's sides are no multiples of the cell's, the
    last row and column of pixels reach beyond its edge, as pixels are all of one size. Raises
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
    except (RasterioError, OSError) as error:
        raise write_error(path, str(error)) from error
