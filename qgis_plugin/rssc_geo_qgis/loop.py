"""Label, train, classify, review: the work of the panel, without its widgets."""

from __future__ import annotations

import html
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsMapLayer,
    QgsPointXY,
    QgsProcessingException,
    QgsProcessingUtils,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QObject, pyqtSignal

from . import results, settings
from .command import percent_of
from .i18n import tr
from .inputs import RasterInput, no_file, read_raster
from .labels import FIELD, Labels, review_layers
from .models import (
    EMBEDDED,
    colors_of,
    free_model_name,
    model_of,
    models_folder,
    provenance_of,
    rasters_of,
)
from .server import Listener, Server

_MAP_LAYERS = ("landuse", "cells")
_STAGES = {
    "begin": tr("Loading the model"),
    "read": tr("Reading the labels"),
    "look": tr("Encoding the labels"),
    "learn": tr("Learning"),
    "classify": tr("Classifying"),
    "explain": tr("Explaining"),
    "write": tr("Writing"),
}


@dataclass(frozen=True)
class Tiling:
    """How the model cuts a raster: ``info`` said so.

    ``tile_px``, ``cell_px``: sides in pixels; ``side``: that of a tile in units of the raster's
    CRS; ``meters``: of one such unit on the ground.
    """

    tile_px: int
    cell_px: int
    side: float
    meters: float


class Loop(QObject):
    """One raster, its labels and a model; one request at a time to the backend."""

    busy = pyqtSignal(str)
    """Something has begun, or its stage has changed."""
    progress = pyqtSignal(float)
    idle = pyqtSignal(str, int)
    """It has ended: a message and its ``Qgis.MessageLevel`` as a number."""
    tiled = pyqtSignal(object)
    """The ``Tiling`` of the raster is known."""
    trained = pyqtSignal(str, str)
    """The folder of a new model and its page."""
    mapped = pyqtSignal(bool)
    """A map was loaded; whether it is the fine one."""
    explained = pyqtSignal(str, str)
    """A text (HTML) and a picture about a cell."""

    def __init__(self, server: Server, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._server = server
        self._request = 0
        self._reached = 0.0
        self._raster: QgsRasterLayer | None = None
        self.labels: Labels | None = None
        self.model = EMBEDDED
        self.tiling: Tiling | None = None

    @property
    def working(self) -> bool:
        """Whether a request is under way."""
        return self._request != 0

    @property
    def raster(self) -> QgsRasterLayer | None:
        """The raster that is labeled and classified."""
        return self._raster

    def set_raster(self, raster: QgsRasterLayer | None) -> None:
        """Work on another raster; raises nothing, what is wrong with it is told when it is used."""
        self._raster, self.labels, self.tiling = raster, None, None
        self._ask_tiling()

    def set_model(self, model: str) -> None:
        """Classify with another model: the embedded one or a folder."""
        self.model = model
        self._ask_tiling()

    def prepare_labels(self) -> None:
        """Have the file of the labels made before the first one is: the first takes its time."""
        try:
            self._input()
            Labels.prepare(self._raster)
        except (OSError, QgsProcessingException):
            return  # told when there is something to label

    def open_labels(self) -> Labels:
        """The raster's labels; raises ``OSError`` or ``QgsProcessingException``."""
        if self.labels is None or _gone(self.labels.layer):
            self._input()
            self.labels = Labels.of(self._raster)
        return self.labels

    def train(self, side_m: float) -> None:
        """Learn from the raster's labels and the reviewed cells; ``side_m``: of a label."""
        work = tempfile.mkdtemp(dir=QgsProcessingUtils.tempFolder())
        try:
            raster = self._input()
            path = os.path.join(work, "labels.gpkg")
            counts = self.open_labels().write(path, review_layers())
            os.makedirs(models_folder(), exist_ok=True)
        except (OSError, QgsProcessingException) as error:
            shutil.rmtree(work, ignore_errors=True)
            self._refuse(error)
            return
        if len(counts) < 2:
            shutil.rmtree(work, ignore_errors=True)
            self._refuse(tr("Label at least two classes, each in several places, then train."))
            return
        name = free_model_name(raster.title)
        output = os.path.join(models_folder(), name)
        page = f"{output}.html"
        options = {
            **self._reading(raster),
            "model": EMBEDDED,
            "field": FIELD,
            "name": name,
            "tile_size": f"{side_m:.6g}m",
            "report": page,
        }

        def done(values: Mapping[str, Any]) -> None:
            shutil.rmtree(work, ignore_errors=True)
            self.model = output
            if self.labels is not None and not _gone(self.labels.layer):
                self.labels.recolor(colors_of(output))
            scores = values["scores"]
            told = tr("not measured: label each class in several places")
            if scores is not None:
                told = tr("overall accuracy {accuracy:.0%}, by cross-validation").format(
                    accuracy=scores["overall_accuracy"]
                )
            self._end(tr("Trained {name}: {told}.").format(name=name, told=told))
            self.trained.emit(output, page)
            self._ask_tiling()

        arguments = {"raster": raster.source, "labels": path, "output": output}
        self._ask(
            "train", arguments, options, done, after=lambda: shutil.rmtree(work, ignore_errors=True)
        )

    def classify(self, extent: QgsRectangle, crs: QgsCoordinateReferenceSystem) -> None:
        """Classify what lies in an extent: whole tiles at once, then fine cells in their place."""
        try:
            raster = self._input()
            bounds = self._inside(extent, crs)
        except QgsProcessingException as error:
            self._refuse(error)
            return
        group = results.RunGroup.of(raster.title, os.path.basename(self.model))
        view = _View(raster, bounds, self.model, group)
        if self.tiling is None:  # what is not known yet is not waited for
            self._classify(view, None, [])
        else:
            self._classify(view, self.tiling.tile_px, [])

    def explain(
        self, point: QgsPointXY, crs: QgsCoordinateReferenceSystem, map_layers: list[QgsMapLayer]
    ) -> None:
        """Explain the cell of the topmost map at a point, or of the raster where there is no map.

        ``map_layers``: what is shown, the topmost first.
        """
        for layer in map_layers:
            made = provenance_of(layer)
            if made and _covers(layer, point, crs):
                self._explain_map(layer, made, point, crs)
                return
        try:
            self._explain([self._input()], point, crs, {"model": self.model})
        except QgsProcessingException as error:
            self._refuse(error)

    def cancel(self) -> None:
        """Stop what is under way."""
        self._server.cancel(self._request)

    # How.

    def _input(self) -> RasterInput:
        """The raster as the backend opens it; raises ``QgsProcessingException``."""
        if self._raster is None or _gone(self._raster):
            raise QgsProcessingException(tr("Choose a raster layer first."))
        raster = read_raster(self._raster)
        if raster.picture is not None:  # labels are of a raster that stays
            raise no_file(raster)
        return raster

    def _reading(self, raster: RasterInput) -> dict[str, Any]:
        options = {
            "device": settings.get(settings.DEVICE),
            "assume_crs": raster.assume_crs,
            "bands": raster.bands,
            "nodata": raster.nodata,
        }
        return {name: value for name, value in options.items() if value not in ("", None)}

    def _inside(self, extent: QgsRectangle, crs: QgsCoordinateReferenceSystem) -> QgsRectangle:
        move = QgsCoordinateTransform(crs, self._raster.crs(), QgsProject.instance())
        try:
            bounds = move.transformBoundingBox(extent).intersect(self._raster.extent())
        except QgsCsException:
            bounds = QgsRectangle()
        if bounds.isEmpty():
            raise QgsProcessingException(
                tr("The map shows nothing of '{name}': zoom to the layer first.").format(
                    name=self._raster.name()
                )
            )
        return bounds

    def _ask_tiling(self) -> None:
        """Ask how the model cuts the raster, and have the model loaded meanwhile."""
        self.tiling = None
        try:
            raster = self._input()
        except QgsProcessingException:
            return
        asked = (self._raster, self.model)
        units_a_pixel = self._raster.rasterUnitsPerPixelX()

        def done(values: Mapping[str, Any]) -> None:
            if asked == (self._raster, self.model):
                tile, cell = values["tile_size_px"][1], values["cell_size_px"][1]
                meters = values["gsd_m"][1] / units_a_pixel
                self.tiling = Tiling(tile, cell, tile * units_a_pixel, meters)
                self.tiled.emit(self.tiling)

        listener = Listener(done, lambda _message, _stopped: None, lambda *_: None)
        options = {**self._reading(raster), "model": self.model}
        options.pop("device", None)  # nothing is computed
        self._server.ask("info", {"raster": raster.source}, options, listener)
        nothing = Listener(lambda _: None, lambda _message, _stopped: None, lambda *_: None)
        self._server.ask("load", {}, {"model": self.model}, nothing)

    def _classify(self, view: _View, tile_px: int | None, coarse: list[str]) -> None:
        """``tile_px``: coarse, in whole tiles; ``coarse``: the layers to be replaced."""
        output = QgsProcessingUtils.generateTempFilename("map.gpkg")
        corners = view.bounds
        options = {
            **self._reading(view.raster),
            "model": view.model,
            "bounds": [
                corners.xMinimum(),
                corners.yMinimum(),
                corners.xMaximum(),
                corners.yMaximum(),
            ],
        }
        if tile_px is not None:
            options.update(tile_size=f"{tile_px}px", cell_size=f"{tile_px}px")

        def done(values: Mapping[str, Any]) -> None:
            shown = self._show_map(view, output, coarse, values["classes"])
            finer = (
                tile_px is not None and self.tiling is not None and self.tiling.cell_px < tile_px
            )
            self._end(
                tr("{cells} cells in {regions} regions.").format(
                    cells=values["cells"], regions=values["regions"]
                ),
                last=not finer,
            )
            self.mapped.emit(not finer)
            if finer:
                self._classify(view, None, shown)

        arguments = {"raster": view.raster.source, "output": output}
        self._ask("classify", arguments, options, done)

    def _show_map(
        self, view: _View, output: str, earlier: list[str], classes: results.Classes
    ) -> list[str]:
        project = QgsProject.instance()
        group = view.group.node(project)
        shown = []
        for name in _MAP_LAYERS:
            layer = QgsVectorLayer(f"{output}|layername={name}", results.TITLES[name], "ogr")
            results.show_classes(layer, classes)
            results.add_layer(project, group, layer, visible=name == "landuse")
            shown.append(layer.id())
        project.removeMapLayers([known for known in earlier if project.mapLayer(known)])
        return shown

    def _explain_map(
        self,
        layer: QgsMapLayer,
        made: Mapping[str, Any],
        point: QgsPointXY,
        crs: QgsCoordinateReferenceSystem,
    ) -> None:
        model = model_of(made, self.model)
        if not model:
            self._refuse(
                tr(
                    "'{name}' was made with the model {model} {version}, which is not among those"
                    " trained here: choose it as the model first."
                ).format(
                    name=layer.name(), model=made["model"]["name"], version=made["model"]["version"]
                )
            )
            return
        layers = rasters_of(made, self._raster)
        if not layers:
            self._refuse(
                tr("'{name}' was made of {raster}: add that raster to the project first.").format(
                    name=layer.name(), raster=made["input"]
                )
            )
            return
        try:
            rasters = [read_raster(found) for found in layers]
        except QgsProcessingException as error:
            self._refuse(error)
            return
        path = layer.source().split("|")[0]
        self._explain(rasters, point, crs, {"model": model, "result": path})

    def _explain(
        self,
        rasters: list[RasterInput],
        point: QgsPointXY,
        crs: QgsCoordinateReferenceSystem,
        options: dict[str, Any],
    ) -> None:
        """Explain by the first of the rasters, by the next where the map is not of that one."""
        raster, *others = rasters
        place = QgsCoordinateTransform(crs, raster.crs, QgsProject.instance()).transform(point)
        output = QgsProcessingUtils.generateTempFilename("why")
        reading = self._reading(raster)
        if "result" in options:  # the map says how its raster was read
            reading = {name: value for name, value in reading.items() if name == "device"}
        wanted = {**reading, **options, "at": [[place.x(), place.y()]]}

        def done(values: Mapping[str, Any]) -> None:
            self._show_reasons(values["cells"][0], output, raster.title)

        def failed(message: str) -> bool:
            if others and " is not the raster that " in message:
                self._explain(others, point, crs, options)
                return True
            return False

        arguments = {"raster": raster.source, "output": output}
        self._ask("explain", arguments, wanted, done, failed=failed)

    def _show_reasons(self, cell: Mapping[str, Any], output: str, title: str) -> None:
        project = QgsProject.instance()
        group = results.RunGroup(tr("Explanations"), "explanations").node(project)
        heat = QgsRasterLayer(
            os.path.join(output, cell["heat_map"]),
            tr("{title}: evidence for {name}").format(title=title, name=cell["class"]),
        )
        results.color_heat_map(heat)
        results.add_layer(project, group, heat, visible=True)
        words = html.escape(cell["top_words"] or "")
        told = tr("{name} {confidence:.0%}, then {second}").format(
            name=f"<b>{html.escape(cell['class'])}</b>",
            confidence=cell["confidence"],
            second=html.escape(cell["runner_up"]),
        )
        if words:
            words = "<br>" + tr("Most important words: {words}").format(words=f"<i>{words}</i>")
        text = f"{told}<br>{html.escape(cell['caption'])}{words}"
        self._end(f"{cell['class']}, {cell['confidence']:.0%}.")
        self.explained.emit(text, os.path.join(output, cell["panel"]))

    def _ask(
        self,
        command: str,
        arguments: Mapping[str, str],
        options: Mapping[str, Any],
        done: Callable[[Mapping[str, Any]], None],
        *,
        failed: Callable[[str], bool] = lambda _message: False,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """``failed`` may go on in another way; ``after``: once it has failed for good."""
        if self.working:
            after()
            self.idle.emit(tr("Something is still running: wait for it, or cancel it."), _INFO)
            return

        def error(message: str, stopped: bool) -> None:  # noqa: FBT001 -- as Listener has it
            self._request = 0
            if stopped or not failed(message):
                after()
                self._end(tr("Cancelled.") if stopped else message, _INFO if stopped else _WARNING)

        def result(values: Mapping[str, Any]) -> None:
            self._request = 0
            done(values)

        self._reached = 0.0
        self.busy.emit(_STAGES["begin"])
        self._request = self._server.ask(
            command, arguments, options, Listener(result, error, self._follow)
        )

    def _follow(self, stage: str, done: float, total: float) -> None:
        self.busy.emit(_STAGES.get(stage, stage))
        self._reached = max(self._reached, percent_of(stage, done, total))
        self.progress.emit(self._reached)

    def _refuse(self, error: object) -> None:
        self._end(str(error), _WARNING)

    def _end(self, message: str, level: int | None = None, *, last: bool = True) -> None:
        if last:
            self.idle.emit(message, _SUCCESS if level is None else level)


@dataclass(frozen=True)
class _View:
    """What is classified: part of a raster, with a model, and the group of its layers."""

    raster: RasterInput
    bounds: QgsRectangle
    model: str
    group: results.RunGroup


_INFO, _WARNING, _SUCCESS = (
    int(level)
    for level in (Qgis.MessageLevel.Info, Qgis.MessageLevel.Warning, Qgis.MessageLevel.Success)
)


def _covers(layer: QgsVectorLayer, point: QgsPointXY, crs: QgsCoordinateReferenceSystem) -> bool:
    move = QgsCoordinateTransform(crs, layer.crs(), QgsProject.instance())
    try:
        return layer.extent().contains(move.transform(point))
    except QgsCsException:
        return False


def _gone(layer: QgsMapLayer) -> bool:
    """Whether a layer was removed from the project meanwhile."""
    try:
        return layer.id() not in QgsProject.instance().mapLayers()
    except RuntimeError:  # its C++ part was deleted
        return True
