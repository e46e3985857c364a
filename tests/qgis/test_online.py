"""Layers without a file (XYZ here): rendered for an extent, at a resolution, within a limit."""

from __future__ import annotations

import time

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import classify, start_classify, temporary_files, wait_for
from qgis.core import (
    QgsProcessingException,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QBuffer, QByteArray
from qgis.PyQt.QtGui import QColor, QImage, QPainter
from rssc_geo_qgis.inputs import read_raster, window_of

# 45° north, where a meter of the web map is 0.707 on the ground.
BOX = QgsRectangle(1_113_000, 5_621_000, 1_114_000, 5_622_000)
EXTENT = "1113000,1114000,5621000,5622000 [EPSG:3857]"


@pytest.fixture
def layer(web_server):
    image = QImage(256, 256, QImage.Format.Format_ARGB32)
    image.fill(QColor(90, 140, 80))
    painter = QPainter(image)
    painter.fillRect(40, 40, 120, 90, QColor(190, 180, 160))
    painter.end()
    data = QByteArray()
    buffer = QBuffer(data)
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    image.save(buffer, "PNG")
    web_server.tile = bytes(data)
    found = QgsRasterLayer(
        f"type=xyz&url={web_server.url}/{{z}}/{{x}}/{{y}}.png&zmin=0&zmax=19&crs=EPSG:3857",
        "Web map",
        "wms",
    )
    assert found.isValid()
    return found


def test_it_is_fetched_and_classified(layer, web_server, feedback):
    found = classify(feedback, INPUT=layer, EXTENT=EXTENT, RESOLUTION=2.0)
    cells = QgsVectorLayer(found["CELLS"])
    assert cells.featureCount() > 0
    assert cells.crs().authid() == "EPSG:3857"
    assert BOX.buffered(5).contains(cells.extent())
    assert cells.extent().width() > 990
    assert any("Fetching 355 × 353 pixels of 'Web map'" in line for line in feedback.warnings), (
        feedback.warnings
    )
    assert web_server.asked
    assert not any("Web-map.tif" in name for name in temporary_files())


def test_on_another_thread(layer, tmp_path, feedback):
    output = tmp_path / "map.gpkg"
    _, ended = start_classify(
        feedback, INPUT=layer, EXTENT=EXTENT, RESOLUTION=2.0, OUTPUT=str(output)
    )
    wait_for(lambda: ended)
    assert ended[0][0], feedback.errors
    assert output.is_file()


def test_cancel_while_it_is_fetched(layer, web_server, tmp_path, feedback):
    web_server.delay_s = 0.5
    wide = "1110000,1122000,5618000,5630000 [EPSG:3857]"
    output = tmp_path / "map.gpkg"
    task, ended = start_classify(
        feedback, INPUT=layer, EXTENT=wide, RESOLUTION=2.0, OUTPUT=str(output)
    )
    wait_for(lambda: len(web_server.asked) > 5)
    stopped = time.monotonic()
    task.cancel()
    wait_for(lambda: ended)
    assert time.monotonic() - stopped < 1
    assert not output.exists()
    assert not any("Web-map.tif" in name for name in temporary_files())


def test_the_resolution_is_meters_on_the_ground(layer):
    window = window_of(read_raster(layer), BOX, 1.0)
    assert 700 < window.columns < 715
    assert 700 < window.rows < 715


def test_without_an_extent(layer, web_server):
    with pytest.raises(
        QgsProcessingException, match="'Web map' is an online layer: choose the extent"
    ):
        classify(INPUT=layer)
    assert web_server.asked == []


def test_too_large(layer, web_server):
    wide = "1000000,1200000,5500000,5700000 [EPSG:3857]"
    with pytest.raises(
        QgsProcessingException,
        match=r"100 million pixels are fetched at most.*resolution of 14\.\d m or coarser",
    ):
        classify(INPUT=layer, EXTENT=wide, RESOLUTION=1.0)
    assert web_server.asked == []


def test_a_layer_that_only_shows_elsewhere_s_data(layer, tmp_path):
    with pytest.raises(
        QgsProcessingException,
        match="'Web map' has no file for the backend. Save it as a GeoTIFF first",
    ):
        processing.run(
            "rsscgeo:explain",
            {
                "INPUT": layer,
                "AT": "1113500,5621500 [EPSG:3857]",
                "OUTPUT": str(tmp_path / "a.tif"),
            },
        )


def test_a_server_that_sends_no_pictures(web_server, layer):
    web_server.tile = b"no picture"
    with pytest.raises(QgsProcessingException, match="could not be fetched|nothing to classify"):
        classify(INPUT=layer, EXTENT=EXTENT, RESOLUTION=2.0)


def test_what_did_not_come_is_an_error_and_never_nodata(web_server, layer, monkeypatch):
    """QGIS draws missing tiles as transparent; here some come and some do not."""
    whole = web_server.RequestHandlerClass.do_GET

    def some(self):
        if int(self.path.split("/")[2]) % 2:
            self.send_error(503)
        else:
            whole(self)

    monkeypatch.setattr(web_server.RequestHandlerClass, "do_GET", some)
    with pytest.raises(QgsProcessingException, match=r"could not be fetched: .*\(and \d+ more\)"):
        classify(INPUT=layer, EXTENT=EXTENT, RESOLUTION=2.0)


def test_a_server_that_is_gone(web_server, layer):
    web_server.shutdown()
    web_server.server_close()
    with pytest.raises(QgsProcessingException, match="could not be fetched: "):
        classify(INPUT=layer, EXTENT=EXTENT, RESOLUTION=2.0)
