"""The class raster: one pixel a cell, where the cells are."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from pyproj import CRS

from rssc_geo.errors import OutputError

if TYPE_CHECKING:
    from conftest import Case

ROTATED = Affine.rotation(30) @ Affine(2, 0, 0, 0, -3, 0)


@pytest.mark.parametrize(
    "transform", [Affine(10, 0, 500000, 0, -10, 5200000), Affine(1, 0, 4, 0, 1, 5), ROTATED]
)
def test_every_cell_is_one_pixel_in_its_place(
    make_case: Callable[..., Case], tmp_path: Path, transform: Affine
) -> None:
    case = make_case(transform=transform)
    summary = case.write(tmp_path / "map.gpkg", class_raster=tmp_path / "map.tif")
    assert sorted(os.listdir(tmp_path)) == ["map.gpkg", "map.tif", "map.tif.aux.xml"]
    assert summary.paths == (tmp_path / "map.gpkg", tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as raster:
        pixels = raster.read(1)
        assert (pixels.dtype, raster.nodata, raster.count) == (np.uint8, 255, 1)
        assert (pixels == np.where(case.class_grid < 0, 255, case.class_grid)).all()
        assert CRS(raster.crs.to_wkt()) == case.crs
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        for row, col in ((0, 0), (3, 2), (7, 5)):
            corner = case.transform @ (col * 8, row * 8)
            assert raster.transform @ (col, row) == pytest.approx(corner, rel=1e-12)
        for scene_class in case.classes:
            rgb = tuple(int(scene_class.color[k : k + 2], 16) for k in (1, 3, 5))
            assert raster.colormap(1)[scene_class.id] == (*rgb, 255)
        tags = raster.tags(1)
        assert tags["CLASS_1"] == "Water, \"deep\" & 'blue'"
        assert tags["CLASS_5"] == "農地"


def test_merged_regions_show_in_the_raster_and_it_may_lie_elsewhere(
    case: Case, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    raster = tmp_path / "elsewhere" / "classes.tif"
    summary = case.write(tmp_path / "map.gpkg", class_raster=raster, min_area=1e9)
    with rasterio.open(raster) as file:
        pixels = file.read(1)
    assert (pixels == np.where(summary.shown.class_grid < 0, 255, summary.shown.class_grid)).all()
    assert (summary.shown.class_grid != case.class_grid).any()
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["classes.tif", "classes.tif.aux.xml"]


def test_gdal_knows_titles_groups_and_colors(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path / "map.gpkg", class_raster=tmp_path / "map.tif")
    rasterio.shutil.copy(tmp_path / "map.tif", tmp_path / "read.vrt", driver="VRT")
    band = ET.parse(tmp_path / "read.vrt").find("VRTRasterBand")
    assert band is not None
    titles = [scene_class.title.replace("\x07", "\ufffd") for scene_class in case.classes]
    assert [entry.text for entry in band.iter("Category")] == titles
    columns = [column.findtext("Name") for column in band.iter("FieldDefn")]
    assert columns == ["Value", "Class", "Group", "Red", "Green", "Blue"]
    assert [[field.text or "" for field in row] for row in band.iter("Row")] == [
        [str(c.id), title, c.group, *(str(int(c.color[k : k + 2], 16)) for k in (1, 3, 5))]
        for c, title in zip(case.classes, titles, strict=True)
    ]


def test_the_legend_is_replaced_with_the_raster_and_only_with_it(
    case: Case, tmp_path: Path
) -> None:
    raster, legend = tmp_path / "map.tif", tmp_path / "map.tif.aux.xml"
    legend.write_text("of another raster")
    with pytest.raises(OutputError, match=r"map\.tif\.aux\.xml exists"):
        case.write(tmp_path / "map.gpkg", class_raster=raster)
    assert legend.read_text() == "of another raster"
    case.write(tmp_path / "map.gpkg", class_raster=raster, overwrite=True)
    assert "Title of" in legend.read_text(encoding="utf-8")
