"""What a layer's properties say reaches the backend: shown bands, no data values, a missing CRS."""

from __future__ import annotations

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import algorithm, classify, whole_tiles
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsMultiBandColorRenderer,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsRasterRange,
    QgsVectorLayer,
)


@pytest.fixture
def layer(scene):
    made = QgsRasterLayer(str(scene), "scene")
    QgsProject.instance().addMapLayer(made)
    return made


def arguments_of(layer, feedback, **more):
    processing.run(
        "rsscgeo:classify",
        {"INPUT": layer, **whole_tiles("100px"), **more, "OUTPUT": "TEMPORARY_OUTPUT"},
        feedback=feedback,
    )
    return next(line for line in feedback.lines if " classify " in line)


def test_nothing_is_said_of_a_layer_as_it_was_opened(layer, feedback):
    told = arguments_of(layer, feedback)
    assert "--bands" not in told
    assert "--nodata" not in told


def test_the_bands_that_are_shown_and_the_user_s_nodata(layer, feedback):
    layer.setRenderer(QgsMultiBandColorRenderer(layer.dataProvider(), 3, 2, 1))
    for band in (1, 2, 3):
        layer.dataProvider().setUserNoDataValue(band, [QgsRasterRange(7, 7)])
    told = arguments_of(layer, feedback)
    assert "--bands=3,2,1" in told
    assert "--nodata=7" in told


def test_what_the_dialog_says_counts_before_the_layer(layer, feedback):
    layer.setRenderer(QgsMultiBandColorRenderer(layer.dataProvider(), 3, 2, 1))
    assert "--bands=2,1,3" in arguments_of(layer, feedback, BANDS="2,1,3")


@pytest.mark.parametrize("nodata", ["9007199254740993", 9007199254740993])
def test_whole_numbers_of_64_bits_are_not_rounded(layer, feedback, nodata):
    with pytest.raises(QgsProcessingException, match="9007199254740993: .* pixels of type uint8"):
        arguments_of(layer, feedback, NODATA=nodata)


def test_a_range_of_nodata_is_refused(layer):
    layer.dataProvider().setUserNoDataValue(1, [QgsRasterRange(0, 9)])
    good, message = algorithm("classify").checkParameterValues(
        {"INPUT": layer, "OUTPUT": "TEMPORARY_OUTPUT"}, QgsProcessingContext()
    )
    assert not good
    assert "more than one additional no data value" in message


def test_an_area_of_interest_without_a_crs_is_named(layer):
    area = QgsVectorLayer("Polygon", "my area", "memory")
    area.setCrs(QgsCoordinateReferenceSystem())
    area.dataProvider().addFeature(QgsFeature())
    with pytest.raises(QgsProcessingException, match="The layer 'my area' has no CRS"):
        classify(QgsProcessingFeedback(), INPUT=layer, AOI=area)
