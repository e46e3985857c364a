"""Runs inside a QGIS desktop (--code): what a new user does, with a picture of each step. test_desktop.py starts it."""

import json
import os
import time
import traceback

import processing
from qgis.core import QgsApplication, QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QCoreApplication, QTimer
from qgis.PyQt.QtWidgets import QDockWidget, QProgressBar, QPushButton, QTextEdit
from qgis.utils import iface, plugins
from rssc_geo_qgis.options_page import OptionsPage

FOLDER = os.environ["RSSC_SESSION"]
told = {}


def wait(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(condition.__code__.co_names)
        QCoreApplication.processEvents()
        time.sleep(0.01)


def settle(seconds=1.0):
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def picture(name, widget=None):
    settle()
    if widget is None:
        os.system(f"import -window root '{FOLDER}/{name}.png'")
    else:
        widget.grab().save(f"{FOLDER}/{name}.png")


def log(dialog):
    return dialog.findChild(QTextEdit, "txtLog").toPlainText()


def session():
    window = iface.mainWindow()
    window.move(0, 0)
    window.resize(1600, 1000)
    layer = QgsRasterLayer(os.path.join(FOLDER, "scene.tif"), "scene")
    QgsProject.instance().addMapLayer(layer)
    iface.mapCanvas().setExtent(layer.extent())
    for dock in window.findChildren(QDockWidget):
        dock.setVisible(dock.objectName() in ("Layers", "ProcessingToolbox"))
    plugin = plugins["rssc_geo_qgis"]
    classify = QgsApplication.processingRegistry().algorithmById("rsscgeo:classify")
    told["missing"] = classify.create().canExecute()[1]
    item = iface.messageBar().currentItem()
    told["offer"] = item.text()
    picture("1-missing")

    # The first click: it installs, then checks.
    next(button for button in item.findChildren(QPushButton) if button.text() == "Install backend").click()
    wait(lambda: plugin.task is not None)
    wait(lambda: plugin.task is None)
    told["installed"] = [item.text() for item in iface.messageBar().items()]
    iface.messageBar().clearWidgets()
    toolbox = window.findChild(QDockWidget, "ProcessingToolbox")
    toolbox.searchBox.setText("RSSC")
    toolbox.setMinimumWidth(360)
    picture("2-toolbox")

    # The second: Run, in the algorithm's own dialog.
    dialog = processing.createAlgorithmDialog("rsscgeo:classify", {"INPUT": layer, "TILE_SIZE": "300m"})
    dialog.resize(900, 620)
    dialog.show()
    picture("3-dialog", dialog)
    dialog.runButton().click()
    wait(lambda: len(QgsProject.instance().mapLayers()) == 3 or "failed" in log(dialog))
    told["log"] = log(dialog)
    picture("4-done", dialog)
    dialog.close()
    toolbox.hide()
    tree = QgsProject.instance().layerTreeRoot()
    told["tree"] = [[group.name(), [node.name() for node in group.findLayers()]] for group in tree.findGroups()]
    told["renderers"] = {node.name(): node.layer().renderer().type() for node in tree.findLayers()}
    iface.mapCanvas().setExtent(layer.extent())
    iface.mapCanvas().refresh()
    picture("5-result")

    # Cancel, in the dialog.
    again = processing.createAlgorithmDialog("rsscgeo:classify", {"INPUT": layer, "TILE_SIZE": "60m"})
    again.resize(900, 620)
    again.show()
    again.runButton().click()
    bar = again.findChild(QProgressBar)
    wait(lambda: bar.value() > 2, 120)
    picture("6-running", again)
    stopped = time.monotonic()
    again.cancelButton().click()
    wait(lambda: not again.cancelButton().isEnabled(), 30)
    told["cancel_s"] = time.monotonic() - stopped
    again.close()
    page = OptionsPage(None)
    page.resize(900, 560)
    page.show()
    picture("7-settings", page)
    told["status"] = page.status.text()
    page.close()


try:
    session()
except BaseException:
    told["failed"] = traceback.format_exc()
    picture("failed")
with open(os.path.join(FOLDER, "told.json"), "w", encoding="utf-8") as file:
    json.dump(told, file)
if "failed" in told:
    os._exit(1)
QgsProject.instance().clear()
# From the event loop, as a user's click: called from here, QGIS would wait for its threads while this one holds Python.
QTimer.singleShot(0, iface.actionExit().trigger)
