"""The parts of the panel by themselves: what the mouse labels, what is kept, what is explained.

The desktop test of the panel (test_loop.py) clicks through all of it once.
"""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from helpers import classify, wait_for
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QEvent, QPoint, QPointF, Qt
from qgis.PyQt.QtGui import QMouseEvent
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication
from rssc_geo_qgis.dock import LoopDock
from rssc_geo_qgis.labels import Labels
from rssc_geo_qgis.loop import Loop
from rssc_geo_qgis.maptools import LabelTool
from rssc_geo_qgis.server import Server

PLACE = QgsPointXY(500_300, 4_999_500)
UTM = QgsCoordinateReferenceSystem("EPSG:32632")
LEFT, NO_KEY = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier


@pytest.fixture
def layer(scene):
    made = QgsRasterLayer(str(scene), "scene")
    QgsProject.instance().addMapLayer(made)
    return made


@pytest.fixture
def labels(layer):
    return Labels.of(layer)


@pytest.fixture
def canvas():
    """800 × 600 pixels of 2 m, as the scene; its tool is of 50 m, and notes what it tells."""
    made = QgsMapCanvas()
    made.resize(800, 600)
    made.setDestinationCrs(UTM)
    made.setExtent(QgsRectangle(500_000, 4_998_800, 501_600, 5_000_000))
    made.show()
    tool = LabelTool(made, lambda points: Labels.shape(points, 50.0))
    made.setMapTool(tool)
    made.told = []
    tool.clicked.connect(lambda point: made.told.append(("clicked", point)))
    tool.painted.connect(lambda points: made.told.append(("painted", points)))
    tool.erased.connect(lambda point: made.told.append(("erased", point)))
    yield made
    made.unsetMapTool(tool)
    sip.delete(made)


def place(canvas, point):
    found = canvas.getCoordinateTransform().transform(point)
    return QPoint(round(found.x()), round(found.y()))


def test_a_click_labels_a_drag_paints_and_shift_erases(canvas):
    viewport = canvas.viewport()
    west, east = QgsPointXY(500_400, 4_999_400), QgsPointXY(500_600, 4_999_400)
    QTest.mouseClick(viewport, LEFT, NO_KEY, place(canvas, west))
    QTest.mouseClick(viewport, LEFT, Qt.KeyboardModifier.ShiftModifier, place(canvas, east))
    QTest.mousePress(viewport, LEFT, NO_KEY, place(canvas, west))
    moved = QMouseEvent(
        QEvent.Type.MouseMove, QPointF(place(canvas, east)), Qt.MouseButton.NoButton, LEFT, NO_KEY
    )
    QApplication.sendEvent(viewport, moved)
    QTest.mouseRelease(viewport, LEFT, NO_KEY, place(canvas, east))
    (clicked, point), (erased, other), (painted, stroke) = canvas.told
    assert (clicked, erased, painted) == ("clicked", "erased", "painted")
    assert point.distance(west) < 3
    assert other.distance(east) < 3
    assert stroke[0].distance(west) < 3
    assert stroke[-1].distance(east) < 3
    square, brush = Labels.shape([point], 50.0), Labels.shape(stroke, 50.0)
    assert square.area() == pytest.approx(2500)
    assert brush.boundingBox().height() == pytest.approx(50, abs=1)
    assert brush.boundingBox().width() == pytest.approx(250, abs=5)


class Panel:
    """The panel's clicks, without its window."""

    _paint, _erase, _change_labels = LoopDock._paint, LoopDock._erase, LoopDock._change_labels
    _to_labels = LoopDock._to_labels

    def __init__(self, canvas, labels):
        self._iface = SimpleNamespace(mapCanvas=lambda: canvas)
        self.loop = SimpleNamespace(labels=labels, open_labels=lambda: labels)
        self.told = []

    def _chosen(self):
        return "field"

    def _side(self):
        return 50.0

    def _show_idle(self, message, _level):
        self.told.append(message)

    def _show_classes(self):
        pass


def test_a_click_off_the_earth_is_told(canvas, labels):
    canvas.setDestinationCrs(QgsCoordinateReferenceSystem("EPSG:4326"))
    panel, nowhere = Panel(canvas, labels), QgsPointXY(9.0, 95.0)
    panel._paint([nowhere])
    panel._erase(nowhere)
    assert len(panel.told) == 2
    assert all("does not exist in the CRS of the raster" in message for message in panel.told)
    assert labels.counts() == {}
    panel._paint([QgsPointXY(9.0, 45.15)])
    assert labels.counts() == {"field": 1}


def test_labels_are_kept_undone_and_erased(labels, layer):
    for west, name in ((500_100, "field"), (500_300, "field"), (500_500, "water")):
        labels.add(Labels.shape([QgsPointXY(west, 4_999_500)], 100.0), name)
    assert labels.counts() == {"field": 2, "water": 1}
    form = labels.layer.editorWidgetSetup(labels.layer.fields().indexOf("class"))
    assert form.type() == "ValueMap"
    assert form.config()["map"] == [{"field": "field"}, {"water": "water"}]
    labels.undo()
    assert labels.counts() == {"field": 2}
    labels.erase(QgsPointXY(500_120, 4_999_520))
    assert labels.counts() == {"field": 1}
    # In another project, and for the same raster under the same name, they are there again.
    source = layer.source()
    QgsProject.instance().clear()
    again = QgsRasterLayer(source, "scene")
    QgsProject.instance().addMapLayer(again)
    kept = Labels.of(again)
    assert kept.counts() == {"field": 1}
    kept.remove_class("field")
    assert kept.counts() == {}
    assert list(kept.classes) == []


def test_one_class_is_not_trained(labels, layer):
    labels.add(QgsGeometry.fromRect(QgsRectangle(500_000, 4_999_000, 500_200, 4_999_200)), "field")
    server, told = Server(), []
    loop = Loop(server)
    loop.idle.connect(lambda message, _level: told.append(message))
    loop.set_raster(layer)
    loop.train(100.0)
    server.close()
    assert told == ["Label at least two classes, each in several places, then train."]


@pytest.fixture
def explained(backend):
    """Ask for the cell at a point of a map; what was told, and the errors."""
    server = Server()
    loop = Loop(server)
    told, ended = [], []
    loop.explained.connect(lambda text, _picture: told.append(text))
    loop.idle.connect(lambda message, _level: ended.append(message))

    def ask(layers, point=PLACE, crs=UTM):
        told.clear()
        ended.clear()
        loop.explain(point, crs, layers)
        wait_for(lambda: ended)
        return (told or [""])[0], ended[0]

    yield ask
    server.close()


@pytest.fixture
def mapped(scene, tmp_path):
    # The scene is a drawn texture, which the model would not name.
    made = classify(INPUT=str(scene), NO_UNKNOWN=True, OUTPUT=str(tmp_path / "map.gpkg"))
    found = QgsVectorLayer(made["OUTPUT"], "Land use")
    QgsProject.instance().addMapLayer(found)
    return found


def other_content(scene, folder):
    """A raster of the same name and place, whose red is turned round."""
    folder.mkdir()
    path = folder / scene.name
    shutil.copy(scene, path)
    dataset = gdal.Open(str(path), gdal.GA_Update)
    dataset.GetRasterBand(1).WriteArray(255 - dataset.GetRasterBand(1).ReadAsArray())
    return path


def test_the_raster_of_a_map_is_found_by_its_content(mapped, scene, tmp_path, explained):
    """Of two layers of one name; the point is in the canvas's CRS."""
    project = QgsProject.instance()
    wrong = QgsRasterLayer(str(other_content(scene, tmp_path / "copy")), "copy")
    project.addMapLayer(wrong)
    text, ended = explained([mapped])
    assert text == ""
    assert "is not the raster that" in ended
    right = QgsRasterLayer(str(scene), "scene")
    project.addMapLayer(right)
    degrees = QgsCoordinateReferenceSystem("EPSG:4326")
    point = QgsCoordinateTransform(UTM, degrees, project).transform(QgsPointXY(500_300, 4_999_500))
    text, ended = explained([mapped], point, degrees)
    here = next(one for one in mapped.getFeatures() if one.geometry().contains(PLACE))
    assert text.startswith(f"<b>{here['class']}</b> "), (text, ended)
    heats = [layer for layer in project.mapLayers().values() if "evidence for" in layer.name()]
    assert [heat.name() for heat in heats] == [f"scene: evidence for {here['class']}"]


def test_a_map_whose_raster_or_model_is_not_here_says_so(mapped, explained, monkeypatch):
    _, ended = explained([mapped])
    assert ended == "'Land use' was made of scene.tif: add that raster to the project first."
    monkeypatch.setattr("rssc_geo_qgis.loop.model_of", lambda made, chosen: "")
    _, ended = explained([mapped])
    assert ended.startswith("'Land use' was made with the model compact ")
    assert ended.endswith("choose it as the model first.")
