"""Runs inside a QGIS desktop (--code): what a new user does, with a picture of each step.

test_desktop.py starts it. The pictures have the names that the documentation shows them by.
"""

import json
import os
import time
import traceback

import processing
from processing.core.ProcessingResults import resultsList
from qgis.core import QgsApplication, QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QCoreApplication, Qt, QTimer
from qgis.PyQt.QtWidgets import (
    QApplication,
    QDockWidget,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QTextEdit,
)
from qgis.utils import iface, plugins
from rssc_geo_qgis import settings
from rssc_geo_qgis.options_page import OptionsPage
from rssc_geo_qgis.tasks import BackendTask

FOLDER = os.environ["RSSC_SESSION"]
told = {}
kept = []


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
    """Of a dialog, or of all that is on the screen."""
    settle()
    shown = widget.grab() if widget else QApplication.primaryScreen().grabWindow(0)
    shown.scaledToWidth(min(shown.width(), 1200), Qt.TransformationMode.SmoothTransformation).save(
        f"{FOLDER}/{name}.png"
    )


def log(dialog):
    return dialog.findChild(QTextEdit, "txtLog").toPlainText()


def install_button(item):
    buttons = item.findChildren(QPushButton)
    return next((button for button in buttons if button.text() == "Install backend"), None)


def offers():
    """The messages with a button to install."""
    return [item for item in iface.messageBar().items() if install_button(item)]


def ticking():
    """A timer on QGIS's own thread, and how long it had to wait each time."""
    gaps_s, last = [], [time.monotonic()]

    def tick():
        gaps_s.append(time.monotonic() - last[0])
        last[0] = time.monotonic()

    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(5)
    return timer, gaps_s


def session():
    window = iface.mainWindow()
    window.move(0, 0)
    window.resize(1600, 1000)
    layer = QgsRasterLayer(os.path.join(FOLDER, "scene.tif"), "scene")
    QgsProject.instance().addMapLayer(layer)
    iface.mapCanvas().setExtent(layer.extent())
    for dock in window.findChildren(QDockWidget):
        dock.setVisible(dock.objectName() in ("Layers", "ProcessingToolbox"))
    assert "rssc_geo_qgis" in plugins
    classify = QgsApplication.processingRegistry().algorithmById("rsscgeo:classify")
    told["missing"] = classify.create().canExecute()[1]
    wait(offers)
    item = offers()[0]
    told["offer"] = item.text()
    picture("qgis-offer")

    # The first click: it installs, then checks.
    timer, gaps_s = ticking()
    install_button(item).click()
    wait(lambda: BackendTask.current is not None)
    wait(lambda: BackendTask.current is None)
    timer.stop()
    told["gaps_s"] = sorted(gaps_s)
    told["installed"] = [item.text() for item in iface.messageBar().items()]
    iface.messageBar().clearWidgets()
    toolbox = window.findChild(QDockWidget, "ProcessingToolbox")
    toolbox.searchBox.setText("RSSC")
    toolbox.setMinimumWidth(360)
    picture("qgis-toolbox")

    # The second: Run, in the algorithm's own dialog.
    run = {"INPUT": layer, "TILE_SIZE": "300m", "REPORT": "TEMPORARY_OUTPUT"}
    dialog = processing.createAlgorithmDialog("rsscgeo:classify", run)
    dialog.resize(800, 550)
    dialog.show()
    picture("qgis-dialog", dialog)
    dialog.runButton().click()
    wait(lambda: len(QgsProject.instance().mapLayers()) == 3 or "failed" in log(dialog))
    told["log"] = log(dialog)
    told["pages"] = {page.name: os.path.isfile(page.filename) for page in resultsList.getResults()}
    dialog.close()
    for dock in window.findChildren(QDockWidget):  # the results viewer has come up
        dock.setVisible(dock.objectName() == "Layers")
    tree = QgsProject.instance().layerTreeRoot()
    told["tree"] = [
        [group.name(), [node.name() for node in group.findLayers()]] for group in tree.findGroups()
    ]
    told["renderers"] = {node.name(): node.layer().renderer().type() for node in tree.findLayers()}
    iface.mapCanvas().setExtent(layer.extent())
    iface.mapCanvas().refresh()
    picture("qgis-result")

    # Cancel, in the dialog.
    again = processing.createAlgorithmDialog(
        "rsscgeo:classify", {"INPUT": layer, "TILE_SIZE": "60m"}
    )
    again.resize(800, 550)
    again.show()
    again.runButton().click()
    bar = again.findChild(QProgressBar)
    wait(lambda: bar.value() > 2, 120)
    picture("qgis-running", again)
    stopped = time.monotonic()
    again.cancelButton().click()
    wait(lambda: not again.cancelButton().isEnabled(), 30)
    told["cancel_s"] = time.monotonic() - stopped
    again.close()
    settings.put(settings.WHEELS, "")
    page = OptionsPage(None)
    page.resize(760, 640)
    page.show()
    picture("qgis-settings", page)
    told["status"] = page.status.text()
    page.close()

    # A run that QGIS is closed during.
    last = processing.createAlgorithmDialog(
        "rsscgeo:classify", {"INPUT": layer, "TILE_SIZE": "60m"}
    )
    kept.append(last)  # this function ends before its run
    last.show()
    last.runButton().click()
    wait(lambda: last.findChild(QProgressBar).value() > 2, 120)
    QgsProject.instance().clear()
    told["asked"] = []
    QTimer.singleShot(0, iface.actionExit().trigger)
    QTimer.singleShot(500, leave)


def leave():
    """Say yes to what QGIS asks about the run, and exit again where it only ended the run.

    From the event loop, as a user's clicks: called from the session, QGIS would wait for its
    threads while this one holds Python.
    """
    box = QApplication.activeModalWidget()
    if isinstance(box, QMessageBox):
        told["asked"].append(box.text())
        write()
        box.button(QMessageBox.StandardButton.Yes).click()
        QTimer.singleShot(3000, iface.actionExit().trigger)
    else:
        QTimer.singleShot(500, leave)


def write():
    with open(os.path.join(FOLDER, "told.json"), "w", encoding="utf-8") as file:
        json.dump(told, file)


try:
    session()
except BaseException:
    told["failed"] = traceback.format_exc()
    picture("failed")
write()
if "failed" in told:
    os._exit(1)
