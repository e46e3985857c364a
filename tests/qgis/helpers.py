"""What the tests share: sizes of tiles, runs as a script or the desktop starts them, waiting."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processing
from qgis.core import (
    QgsApplication,
    QgsLayerTreeGroup,
    QgsProcessingAlgorithm,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingUtils,
    QgsProject,
)
from qgis.PyQt.QtCore import QCoreApplication


def whole_tiles(size: str) -> dict[str, str]:
    """Parameters for tiles of a size that are one cell each, also of models that map fine cells."""
    return {"TILE_SIZE": size, "CELL_SIZE": size}


def algorithm(name: str) -> QgsProcessingAlgorithm:
    return QgsApplication.processingRegistry().algorithmById(f"rsscgeo:{name}").create()


def classify(feedback: QgsProcessingFeedback | None = None, **parameters: Any) -> dict[str, Any]:
    """As a script does it; whole tiles of 100 pixels, 48 of them in the fixture ``scene``."""
    run = {"OUTPUT": "TEMPORARY_OUTPUT", **whole_tiles("100px"), **parameters}
    return processing.run("rsscgeo:classify", run, feedback=feedback)


def group_of(raster: str) -> QgsLayerTreeGroup:
    """The one group of the runs on a raster; its name says the model and the time too."""
    groups = QgsProject.instance().layerTreeRoot().findGroups()
    (found,) = [group for group in groups if group.name().startswith(f"{raster}, ")]
    return found


def loaded(path: Path) -> QgsProcessingOutputLayerDefinition:
    """An output that the desktop loads into the project."""
    return QgsProcessingOutputLayerDefinition(str(path), QgsProject.instance())


def start_classify(
    feedback: QgsProcessingFeedback, **parameters: Any
) -> tuple[QgsProcessingAlgRunnerTask, list[tuple[bool, dict[str, Any]]]]:
    """As a task of the desktop, on another thread; the list gets what it ended with."""
    context, ended = QgsProcessingContext(), []
    task = QgsProcessingAlgRunnerTask(algorithm("classify"), parameters, context, feedback)
    # With the context, which has to live as long as the task.
    task.executed.connect(lambda good, results, _context=context: ended.append((good, results)))
    QgsApplication.taskManager().addTask(task)
    return task, ended


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    """Let QGIS go on until the condition holds; by default as long as a busy machine may take."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        QCoreApplication.processEvents()
        time.sleep(0.005)


def look_at_backend() -> None:
    """Until it is known which backend there is, as some moments after QGIS has started."""
    from rssc_geo_qgis import tasks

    tasks.look()
    wait_for(lambda: tasks._Look.running is None)


def temporary_files() -> set[str]:
    """All files in QGIS's folder for temporary ones."""
    return {
        os.path.join(folder, name)
        for folder, _, names in os.walk(QgsProcessingUtils.tempFolder())
        for name in names
    }


def script(path: Path, text: str) -> Path:
    """A program of a few lines of shell."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path
