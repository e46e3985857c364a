"""Runs inside a QGIS desktop (--code): label, train, classify, look again, as a user clicks it.

test_loop.py starts it and says by RSSC_TASK what is clicked where. Each picture shows what a user
sees then.
"""

import json
import os
import sys
import time
import traceback
from types import FunctionType

from qgis.core import (
    QgsCoordinateTransform,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QCoreApplication, QPoint, Qt, QTimer
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication, QDockWidget
from qgis.utils import iface, plugins
from rssc_geo_qgis.dock import LoopDock
from rssc_geo_qgis.labels import Labels
from rssc_geo_qgis.loop import Loop
from rssc_geo_qgis.maptools import LabelTool
from rssc_geo_qgis.server import Server

FOLDER, TASK = os.environ["RSSC_SESSION"], json.loads(os.environ["RSSC_TASK"])
told = {"longest": ["", 0.0], "most_work": ["", 0.0]}
depth = [0]


def timed(owner, name, function):
    """The function, which notes how long it kept the event loop: those that it calls included."""

    def run(*arguments, **options):
        depth[0] += 1
        started, began = time.monotonic(), time.thread_time()
        try:
            # Signals tell more than a slot wants, which PyQt sees of a plain function alone.
            return function(*arguments[: function.__code__.co_argcount], **options)
        finally:
            depth[0] -= 1
            took = time.monotonic() - started
            worked = time.thread_time() - began
            if not depth[0] and took > told["longest"][1]:
                told["longest"] = [f"{owner.__name__}.{name}", took]
            if not depth[0] and worked > told["most_work"][1]:
                told["most_work"] = [f"{owner.__name__}.{name}", worked]

    return run


def watch():
    """Time whatever the event loop calls of the plugin, before any of it is connected."""
    for owner in (LoopDock, Loop, Server, Labels, LabelTool):
        for name, function in list(vars(owner).items()):
            if isinstance(function, FunctionType) and name != "_look":
                setattr(owner, name, timed(owner, name, function))


def clocks():
    """Seconds since any time, and processor seconds of QGIS and its backend, to be subtracted."""
    ticks = 0
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                values = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if os.getpid() in (int(entry), int(values[1])):
            ticks += sum(map(int, values[11:15]))
    return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK")


def took(name, before):
    """Note what a part of the loop took."""
    told.setdefault("took", {})[name] = [
        now - then for now, then in zip(clocks(), before, strict=True)
    ]


def wait(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(condition.__code__.co_names)
        QCoreApplication.processEvents()
        time.sleep(0.005)


def settle(seconds=1.5):
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def picture(name):
    iface.mapCanvas().refresh()
    settle()
    shown = QApplication.primaryScreen().grabWindow(0)
    shown.scaledToWidth(1200, Qt.TransformationMode.SmoothTransformation).save(
        f"{FOLDER}/{TASK['pictures']}-{name}.png"
    )


def places(name):
    """A point in each of the areas of a class, in the canvas's CRS."""
    areas = QgsVectorLayer(TASK["labels"], "areas")
    crs = iface.mapCanvas().mapSettings().destinationCrs()
    move = QgsCoordinateTransform(areas.crs(), crs, QgsProject.instance())
    for area in areas.getFeatures():
        if area[TASK["field"]] == name:
            yield move.transform(area.geometry().pointOnSurface().asPoint())


def on_screen(point):
    place = iface.mapCanvas().getCoordinateTransform().transform(QgsPointXY(point))
    return QPoint(round(place.x()), round(place.y()))


def click(point):
    viewport = iface.mapCanvas().viewport()
    QTest.mouseMove(viewport, on_screen(point))
    QTest.mouseClick(
        viewport,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        on_screen(point),
    )


def tree():
    root = QgsProject.instance().layerTreeRoot()
    return [[g.name(), [node.name() for node in g.findLayers()]] for g in root.findGroups()]


def cells_shown():
    (cells,) = QgsProject.instance().mapLayersByName("Cells")
    return cells.featureCount()


def session():
    window = iface.mainWindow()
    window.move(0, 0)
    window.resize(1600, 1000)
    layer = QgsRasterLayer(os.path.join(FOLDER, "scene.tif"), "scene")
    QgsProject.instance().addMapLayer(layer)
    for shown in window.findChildren(QDockWidget):
        shown.setVisible(shown.objectName() == "Layers")
    plugin = plugins["rssc_geo_qgis"]
    # The plugin has made its panel already: another one, which is watched.
    plugin.dock.close_down()
    iface.removeDockWidget(plugin.dock)
    watch()
    dock = plugin.dock = LoopDock(iface, window.windowIcon())
    iface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
    dock.setMinimumWidth(370)
    plugin.show_loop()
    canvas, loop = iface.mapCanvas(), dock.loop
    canvas.setExtent(layer.extent())
    canvas.refresh()
    wait(lambda: loop.tiling is not None)
    told["side_m"] = dock.side.value()

    # Twenty clicks.
    for name, count in TASK["clicks"].items():
        dock.add_class(name)
        if not dock.label_button.isChecked():
            dock.label_button.click()
        for point in list(places(name))[:count]:
            click(point)
    told["labels"] = dict(loop.labels.counts())
    picture("labels")

    stages, percents = [], []
    loop.busy.connect(stages.append)
    loop.progress.connect(percents.append)
    before = clocks()
    dock.train_button.click()
    wait(lambda: not loop.working)
    took("train", before)
    settle(0.2)
    told["trained"] = dock.status.text()
    told["model"] = os.path.isfile(os.path.join(loop.model, "config.json"))
    told["chosen"] = dock.model.currentData() == loop.model
    told["page"] = os.path.isfile(dock._page)
    told["page_file"] = dock._page
    told["stages"] = list(dict.fromkeys(stages))
    told["percents"] = list(percents)
    picture("trained")

    wait(lambda: loop.tiling is not None)
    seen = []
    loop.mapped.connect(seen.append)
    before = clocks()
    dock.classify_button.click()
    wait(lambda: len(seen) == 1)
    took("coarse", before)
    told["coarse"], told["cells"] = tree(), [cells_shown()]
    picture("coarse")
    wait(lambda: len(seen) == 2 and not loop.working)
    took("classify", before)
    told["fine"] = tree()
    told["cells"].append(cells_shown())
    told["classified"] = dock.status.text()
    picture("fine")

    # 2 × 2 km: from the click to the map in the legend, and what of it the backend took.
    middle, half = layer.extent().center(), 1000 / loop.tiling.meters
    canvas.setExtent(QgsRectangle.fromCenterAndSize(middle, 2 * half, 2 * half))
    shown = canvas.extent().intersect(layer.extent())
    told["shown_m"] = [side * loop.tiling.meters for side in (shown.width(), shown.height())]
    seen.clear()
    inside = []
    dock.server._take = lambda event: (inside.append(event.get("seconds", 0.0)), take(event))
    take = type(dock.server)._take.__get__(dock.server)
    started = time.monotonic()
    dock.classify_button.click()
    wait(lambda: len(seen) == 2 and not loop.working)
    told["added_s"] = time.monotonic() - started - sum(inside)
    canvas.setExtent(layer.extent())
    canvas.refresh()
    settle()

    answers = []
    loop.explained.connect(lambda text, file: answers.append([text, os.path.isfile(file)]))
    dock.explain_button.click()
    before = clocks()
    for point in list(places(TASK["explain"]))[:3]:
        click(point)
        wait(lambda: not loop.working)
    took("explain", before)
    told["explained"] = answers
    picture("explained")

    # Cancel, then go on: another process answers.
    dock.model.setCurrentIndex(0)
    dock._take_model()
    wait(lambda: loop.tiling is not None)
    stages.clear()
    dock.classify_button.click()
    wait(lambda: "Classifying" in stages)
    started = time.monotonic()
    dock.cancel_button.click()
    wait(lambda: not loop.working)
    told["cancel_s"] = time.monotonic() - started
    told["cancelled"] = dock.status.text()
    QgsProject.instance().clear()
    QTimer.singleShot(0, iface.actionExit().trigger)


def write():
    with open(os.path.join(FOLDER, "told.json"), "w", encoding="utf-8") as file:
        json.dump(told, file)


def fail(kind, error, trace):
    """Also of what a slot raises, for which QGIS would show a dialog and wait."""
    told["failed"] = "".join(traceback.format_exception(kind, error, trace))
    write()
    os._exit(1)


sys.excepthook = fail
try:
    session()
except BaseException as failed:
    fail(type(failed), failed, failed.__traceback__)
write()
