"""Rasters that only QGIS can read, virtual ones or in memory: the backend gets a copy."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import numpy as np
import processing
from helpers import algorithm, classify, start_classify, temporary_files, wait_for, whole_tiles
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterDataProvider,
    QgsRasterLayer,
    QgsRasterRange,
    QgsRectangle,
    QgsVectorLayer,
)
from rssc_geo_qgis import inputs
from rssc_geo_qgis.inputs import read_raster, window_of, write_raster
from rssc_geo_qgis.loop import Loop
from rssc_geo_qgis.server import Server

WHOLE = QgsRectangle()


def virtual(raster, formula='"a@1" * 2', columns=800, rows=600):
    """A layer of QGIS's virtual raster provider, which computes with another."""
    given = QgsRasterDataProvider.VirtualRasterInputLayers()
    given.name, given.uri, given.provider = "a", raster.source(), "gdal"
    told = QgsRasterDataProvider.VirtualRasterParameters()
    told.crs, told.extent, told.formula = raster.crs(), raster.extent(), formula
    told.width, told.height, told.rInputLayers = columns, rows, [given]
    uri = QgsRasterDataProvider.encodeVirtualRasterProviderUri(told)
    made = QgsRasterLayer(uri, "my sum", "virtualraster")
    assert made.isValid()
    QgsProject.instance().addMapLayer(made)
    return made


@pytest.fixture
def layer(scene):
    return virtual(QgsRasterLayer(str(scene), "scene"))


@pytest.fixture
def in_memory(scene):
    """A layer of a file that only this process has."""
    gdal.GetDriverByName("GTiff").CreateCopy("/vsimem/scene.tif", gdal.Open(str(scene)))
    made = QgsRasterLayer("/vsimem/scene.tif", "in memory")
    QgsProject.instance().addMapLayer(made)
    yield made
    QgsProject.instance().removeMapLayer(made)
    gdal.Unlink("/vsimem/scene.tif")


@pytest.fixture
def copy_of(tmp_path, feedback):
    """The file that is made of a layer, opened by GDAL."""

    def copy(layer, extent=WHOLE):
        raster = read_raster(layer)
        assert raster.source == ""
        path = str(tmp_path / "copy.tif")
        write_raster(raster, window_of(raster, extent, 1.0), path, feedback)
        return gdal.Open(path)

    return copy


def refused(layer, **more):
    run = {"INPUT": layer, "OUTPUT": "TEMPORARY_OUTPUT", **more}
    good, message = algorithm("classify").checkParameterValues(run, QgsProcessingContext())
    assert not good
    return message


def test_a_virtual_raster_is_classified(layer, feedback):
    found = classify(feedback, INPUT=layer, BANDS="1,1,1")
    cells = QgsVectorLayer(found["CELLS"])
    assert cells.featureCount() == 48
    assert cells.crs().authid() == "EPSG:32632"
    assert cells.extent() == layer.extent()
    assert "Copying 800 × 600 pixels of 'my sum'." in feedback.lines
    assert not any("my-sum.tif" in name for name in temporary_files())


def test_what_the_backend_says_of_it_is_in_the_words_of_the_dialog(layer):
    told = "^'my sum' has 1 color band, .* give an RGB raster, or 'Bands' 1,1,1"
    with pytest.raises(QgsProcessingException, match=told):
        classify(INPUT=layer)


def test_what_lies_in_memory_is_classified_as_its_file(in_memory, scene, feedback):
    found = classify(feedback, INPUT=in_memory)
    same = classify(INPUT=str(scene))
    classes = [
        [cell["class"] for cell in QgsVectorLayer(made["CELLS"]).getFeatures()]
        for made in (found, same)
    ]
    assert classes[0] == classes[1]


def test_the_pixels_of_an_extent_are_those_of_the_layer(in_memory, scene, copy_of):
    """Whole pixels of the layer's own: all that the extent touches."""
    made = copy_of(in_memory, QgsRectangle(500_101, 4_999_803, 500_200, 4_999_900))
    assert made.GetGeoTransform() == (500_100, 2, 0, 4_999_900, 0, -2)
    assert (made.RasterXSize, made.RasterYSize, made.RasterCount) == (50, 49, 3)
    theirs = gdal.Open(str(scene)).ReadAsArray(50, 50, 50, 49)
    assert np.array_equal(made.ReadAsArray(), theirs)
    assert in_memory.crs().authid() == "EPSG:32632"
    assert 'ID["EPSG",32632]' in made.GetProjection() or '"32632"' in made.GetProjection()


def test_the_sums_of_a_virtual_raster(layer, scene, copy_of):
    made = copy_of(layer)
    theirs = gdal.Open(str(scene)).ReadAsArray()[0].astype(float) * 2
    assert np.array_equal(made.ReadAsArray(), theirs)


@pytest.fixture
def with_hole(scene):
    """The scene, whose corner of 100 × 100 pixels is nodata."""
    dataset = gdal.Open(str(scene), gdal.GA_Update)
    for band in (1, 2, 3):
        dataset.GetRasterBand(band).SetNoDataValue(0)
        dataset.GetRasterBand(band).WriteRaster(0, 0, 100, 100, bytes(10_000))
    return scene


def valid(made, band=1):
    return made.GetRasterBand(band).GetMaskBand().ReadAsArray().astype(bool)


def test_nodata_of_what_is_computed_stays_nodata(with_hole, copy_of):
    """QGIS names no nodata of it: older ones compute the lowest number there, newer ones NaN."""
    made = copy_of(virtual(QgsRasterLayer(str(with_hole), "scene")))
    assert not valid(made)[:100, :100].any()
    assert valid(made)[100:, 100:].all()
    theirs = gdal.Open(str(with_hole)).ReadAsArray()[0].astype(float) * 2
    assert np.array_equal(made.ReadAsArray()[valid(made)], theirs[valid(made)])


def test_nodata_of_what_is_computed_gets_no_class(with_hole):
    found = classify(INPUT=virtual(QgsRasterLayer(str(with_hole), "scene")), BANDS="1,1,1")
    cells = {(cell["row"], cell["col"]) for cell in QgsVectorLayer(found["CELLS"]).getFeatures()}
    assert len(cells) == 47
    assert (0, 0) not in cells


@pytest.mark.parametrize("nodata", [(0, 255, 7), (0, None, 7)])
def test_nodata_that_is_another_in_each_band(scene, copy_of, nodata):
    """A GeoTIFF has one for all; a value is nodata in its own band alone."""
    given = gdal.GetDriverByName("MEM").CreateCopy("", gdal.Open(str(scene)))
    corner = np.array([[0, 255], [7, 99]], np.uint8).tobytes()
    for band, value in enumerate(nodata, 1):
        given.GetRasterBand(band).WriteRaster(0, 0, 2, 2, corner)
        if value is not None:
            given.GetRasterBand(band).SetNoDataValue(value)
    gdal.GetDriverByName("GTiff").CreateCopy("/vsimem/pixels.tif", given)
    gdal.GetDriverByName("VRT").CreateCopy("/vsimem/bands.vrt", gdal.Open("/vsimem/pixels.tif"))
    bands = gdal.Open("/vsimem/bands.vrt", gdal.GA_Update)
    for band, value in enumerate(nodata, 1):
        bands.GetRasterBand(band).DeleteNoDataValue()
        if value is not None:
            bands.GetRasterBand(band).SetNoDataValue(value)
    del bands
    layer = QgsRasterLayer("/vsimem/bands.vrt", "bands")
    made = copy_of(layer)
    theirs = gdal.Open("/vsimem/bands.vrt").ReadAsArray()
    for band, value in enumerate(nodata, 1):
        expected = theirs[band - 1] != (-1 if value is None else value)
        assert np.array_equal(valid(made, band), expected)
        assert np.array_equal(made.ReadAsArray()[band - 1][expected], theirs[band - 1][expected])
    del layer
    gdal.Unlink("/vsimem/bands.vrt")
    gdal.Unlink("/vsimem/pixels.tif")


def test_nodata_of_the_file_and_of_the_user(in_memory, scene, copy_of):
    dataset = gdal.Open("/vsimem/scene.tif", gdal.GA_Update)
    for band in (1, 2, 3):
        dataset.GetRasterBand(band).SetNoDataValue(7)
    del dataset
    layer = QgsRasterLayer("/vsimem/scene.tif", "tagged")
    for band in (1, 2, 3):
        layer.dataProvider().setUserNoDataValue(band, [QgsRasterRange(99, 99)])
    made = copy_of(layer)
    assert made.GetRasterBand(1).GetNoDataValue() == 7
    theirs = gdal.Open(str(scene)).ReadAsArray()
    assert np.array_equal(made.ReadAsArray(), theirs)  # 99 is still there
    assert read_raster(layer).nodata == 99


@pytest.mark.parametrize(("alpha", "expected"), [("YES", gdal.GCI_AlphaBand), ("NO", None)])
def test_a_fourth_band_is_alpha_where_it_was(copy_of, alpha, expected):
    made = gdal.GetDriverByName("GTiff").Create(
        "/vsimem/four.tif", 40, 30, 4, options=[f"ALPHA={alpha}"]
    )
    made.SetGeoTransform((500_000, 2, 0, 5_000_000, 0, -2))
    made.SetProjection(gdal.osr.GetUserInputAsWKT("EPSG:32632"))
    del made
    layer = QgsRasterLayer("/vsimem/four.tif", "four")
    made = copy_of(layer)
    found = made.GetRasterBand(4).GetColorInterpretation()
    assert (found == gdal.GCI_AlphaBand) == (expected is not None)
    del layer
    gdal.Unlink("/vsimem/four.tif")


def test_a_crs_that_was_chosen_in_qgis(in_memory, copy_of):
    in_memory.setCrs(QgsCoordinateReferenceSystem("EPSG:32633"))
    assert "32633" in copy_of(in_memory).GetProjection()


def test_one_line_where_it_is_too_large(layer, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_COPIED_BYTES", 1_000_000)
    message = refused(layer)
    assert "a copy of 800 × 600 pixels would take 0.0 GB; 0.001 GB are copied at most" in message
    run = {"INPUT": layer, "OUTPUT": "TEMPORARY_OUTPUT"}
    some = {**run, "EXTENT": "500000,500200,4999800,5000000 [EPSG:32632]"}
    assert algorithm("classify").checkParameterValues(some, QgsProcessingContext())[0]


def test_one_line_where_the_disk_is_full(layer, copy_of, monkeypatch):
    monkeypatch.setattr(inputs.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(QgsProcessingException, match=r"'my sum' may take 0\.0 GB, and 0\.0 GB are"):
        copy_of(layer)


def test_an_extent_beside_it(layer):
    assert "The extent lies beside 'my sum'" in refused(layer, EXTENT="0,9,0,9 [EPSG:32632]")


def test_cancel_while_it_is_copied(scene, tmp_path, feedback):
    large = virtual(QgsRasterLayer(str(scene), "scene"), columns=20_000, rows=15_000)
    output = tmp_path / "map.gpkg"
    task, ended = start_classify(
        feedback, INPUT=large, OUTPUT=str(output), BANDS="1,1,1", **whole_tiles("100px")
    )
    wait_for(lambda: any("Copying" in line for line in feedback.lines))
    stopped = time.monotonic()
    task.cancel()
    wait_for(lambda: ended)
    assert time.monotonic() - stopped < 1
    assert not output.exists()
    assert not any("my-sum.tif" in name for name in temporary_files())


def test_an_input_that_is_gone_is_an_error(scene, tmp_path):
    """A virtual raster whose file was deleted: no map of nothing."""
    layer = virtual(QgsRasterLayer(str(scene), "scene"))
    scene.unlink()
    with pytest.raises(QgsProcessingException):
        classify(QgsProcessingFeedback(), INPUT=layer, OUTPUT=str(tmp_path / "map.gpkg"))
    assert not (tmp_path / "map.gpkg").exists()


def test_an_archive_wants_a_file(layer, tmp_path):
    run = {"INPUT": [layer.id()], "OUTPUT": str(tmp_path / "archive")}
    with pytest.raises(QgsProcessingException, match="'my sum' has no file for the backend"):
        processing.run("rsscgeo:index", run)


def test_the_panel_wants_a_file_too(layer):
    """Its labels are of a raster that stays."""
    told = []
    loop = Loop(Server())
    loop.idle.connect(lambda message, _level: told.append(message))
    loop.set_raster(layer)
    loop.classify(layer.extent(), layer.crs())
    assert told == [
        "'my sum' has no file for the backend. Save it as a GeoTIFF first (Export ▸ Save As…)."
    ]
