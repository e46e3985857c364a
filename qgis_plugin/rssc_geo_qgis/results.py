"""The results of a run as layers in the project.

Styled by the file, each run in a group of its own.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsFillSymbol,
    QgsGradientColorRamp,
    QgsGradientStop,
    QgsLayerTreeGroup,
    QgsLayerTreeLayer,
    QgsMapLayer,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProject,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsRendererCategory,
    QgsSingleBandPseudoColorRenderer,
    QgsSingleSymbolRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor

from .i18n import tr

TITLES = {
    "landuse": tr("Land use"),
    "cells": tr("Cells"),
    "review": tr("Cells to review"),
    "classes": tr("Classes as raster"),
    "captions": tr("Captions"),
    "sample": tr("Sample"),
    "change": tr("Change"),
    "hits": tr("Hits"),
}
_PROVENANCE = "urn:rssc-geo:provenance:1"
_RUN = "rssc_geo/run"
"""The property of a group that says which run's layers it holds."""
_BELOW = ("cells", "classes")
"""Switched off, under the regions: see-through fills on each other would hide the imagery."""

Paint = Callable[[QgsMapLayer], None]
Classes = Sequence[Mapping[str, Any]]
"""The classes that occur, as the backend tells them: name, title, color."""


def layer_files(output: str) -> dict[str, str]:
    """The file of each layer of a land-use map, by name: a GeoPackage holds them all."""
    stem, suffix = os.path.splitext(output)
    apart = () if suffix.lower() == ".gpkg" else ("cells", "review")
    return {"landuse": output, **{name: f"{stem}_{name}{suffix}" for name in apart}}


def layer_sources(output: str, written: Sequence[str]) -> dict[str, str]:
    """The layers that a run has made, by name; ``written`` are all its files."""
    if not output.lower().endswith(".gpkg"):
        return {name: file for name, file in layer_files(output).items() if file in written}
    found = QgsProviderRegistry.instance().querySublayers(output)
    return {layer.name(): f"{output}|layername={layer.name()}" for layer in found}


def read_provenance(path: str) -> dict[str, Any]:
    """The provenance of a GeoPackage; empty where it has none."""
    if not path.lower().endswith(".gpkg"):
        return {}
    try:
        uri = f"{Path(path).resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            query = "SELECT metadata FROM gpkg_metadata WHERE md_standard_uri = ?"
            found = connection.execute(query, (_PROVENANCE,)).fetchone()
        made = json.loads(found[0]) if found else {}
    except (sqlite3.Error, ValueError, OSError):
        return {}
    return made if isinstance(made, dict) else {}


def model_of_map(path: str) -> str:
    """The name of the model that a map was made with, '' where the file does not say."""
    return str(read_provenance(path).get("model", {}).get("name", ""))


def file_of(layer: QgsMapLayer) -> str:
    """The file that a layer reads, '' where there is none."""
    decoded = QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source())
    return decoded.get("path") or ""


def open_layer_of(project: QgsProject | None, path: str) -> str:
    """The name of a layer of the project that reads the file, or one in the folder.

    '' if none does.
    """
    wanted = os.path.normcase(os.path.abspath(path))
    for layer in project.mapLayers().values() if project else ():
        file = file_of(layer)
        found = os.path.normcase(os.path.abspath(file)) if file else ""
        if found == wanted or found.startswith(wanted + os.sep):
            return layer.name()
    return ""


def load_on_completion(
    context: QgsProcessingContext,
    asked: str,
    layers: dict[str, str],
    group: RunGroup,
    *,
    classes: Classes = (),
) -> None:
    """Load the layers of a run in place of ``asked``, the file name that the dialog wanted loaded.

    Nothing if it did not. ``classes``: those that occur.
    """
    project = _take(context, asked)
    for name, source in layers.items() if project else ():
        _load(
            context,
            project,
            source,
            TITLES.get(name, name),
            _Finish.of(
                group, lambda layer: show_classes(layer, classes), visible=name not in _BELOW
            ),
        )


def load_class_raster(
    context: QgsProcessingContext, asked: str, path: str, titles: Mapping[int, str], group: RunGroup
) -> None:
    """The same for a raster of classes, whose legend gets their ``titles``."""
    project = _take(context, asked)
    if project:
        finish = _Finish.of(
            group, lambda layer: _name_classes(layer, titles), visible="classes" not in _BELOW
        )
        _load(context, project, path, TITLES["classes"], finish)


def load_heat_map(context: QgsProcessingContext, path: str, title: str, group: RunGroup) -> None:
    """Load a raster of evidence for (above 0) and against (below 0) a class."""
    _load(context, context.project(), path, title, _Finish.of(group, color_heat_map, visible=True))


@dataclass(frozen=True)
class RunGroup:
    """The group of the layers of one run: its own, whatever others are called."""

    title: str
    run: str

    @classmethod
    def of(cls, raster: str, model: str) -> RunGroup:
        """That of a new run, called by raster, model and time."""
        return cls(f"{raster}, {model}, {time.strftime('%H:%M:%S')}", uuid.uuid4().hex)

    def node(self, project: QgsProject) -> QgsLayerTreeGroup:
        """The group in the legend, made at its top where it is not there."""
        root = project.layerTreeRoot()
        for group in root.findGroups():
            if group.customProperty(_RUN) == self.run:
                return group
        group = root.insertGroup(0, self.title)
        group.setCustomProperty(_RUN, self.run)
        return group


def add_layer(
    project: QgsProject, group: QgsLayerTreeGroup, layer: QgsMapLayer, *, visible: bool
) -> None:
    """Add a layer to a group: on top where it is shown, else below the others."""
    project.addMapLayer(layer, addToLegend=False)
    node = QgsLayerTreeLayer(layer)
    node.setItemVisibilityChecked(visible)
    node.setExpanded(not visible)
    group.insertChildNode(0 if visible else -1, node)
    node.setExpanded(visible)  # the legend follows a change alone


def _take(context: QgsProcessingContext, asked: str) -> QgsProject | None:
    """Take a file out of what will be loaded.

    The project it was for, None if it was not among them.
    """
    if not context.willLoadLayerOnCompletion(asked):
        return None
    wanted = dict(context.layersToLoadOnCompletion())
    project = wanted.pop(asked).project
    context.setLayersToLoadOnCompletion(wanted)
    return project


def _load(
    context: QgsProcessingContext, project: QgsProject, source: str, title: str, finish: _Finish
) -> None:
    details = QgsProcessingContext.LayerDetails(title, project, title)
    details.forceName = True
    details.setPostProcessor(finish)
    context.addLayerToLoadOnCompletion(source, details)


class _Finish(QgsProcessingLayerPostProcessorInterface):
    """Styles a loaded layer and moves it into the group of its run.

    Called by QGIS on its main thread.
    """

    _kept: ClassVar[list[_Finish]] = []  # QGIS keeps no reference

    def __init__(self, group: RunGroup, paint: Paint, *, visible: bool) -> None:
        super().__init__()
        self._group = group
        self._paint = paint
        self._visible = visible

    @classmethod
    def of(cls, group: RunGroup, paint: Paint, *, visible: bool) -> _Finish:
        cls._kept.append(cls(group, paint, visible=visible))
        return cls._kept[-1]

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        self._kept.remove(self)
        self._paint(layer)
        node = context.project().layerTreeRoot().findLayer(layer.id())
        if node is None:
            return
        parent, group = node.parent(), self._group.node(context.project())
        moved = node.clone()
        moved.setItemVisibilityChecked(self._visible)
        moved.setExpanded(not self._visible)
        group.insertChildNode(0 if self._visible else -1, moved)
        moved.setExpanded(self._visible)
        parent.removeChildNode(node)


def show_classes(layer: QgsVectorLayer, classes: Classes) -> None:
    """The style in the GeoPackage, else one of our own, in a legend of the classes that occur."""
    fields = layer.fields()
    if layer.loadDefaultStyle()[1]:
        _leave_out_absent(layer, {entry["name"] for entry in classes})
    elif fields.indexOf("class") >= 0 and fields.indexOf("rank") < 0 and classes:
        _categorize(layer, classes)
    elif fields.indexOf("caption") >= 0:
        _outline(layer)


def _leave_out_absent(layer: QgsVectorLayer, names: Container[str]) -> None:
    renderer = layer.renderer()
    if not isinstance(renderer, QgsCategorizedSymbolRenderer) or not names:
        return
    if renderer.classAttribute() != "group":
        kept = renderer.clone()
        absent = [
            place
            for place, entry in enumerate(kept.categories())
            if entry.value() not in names and entry.value() != ""
        ]
        for place in reversed(absent):
            kept.deleteCategory(place)
        layer.setRenderer(kept)


def _categorize(layer: QgsVectorLayer, classes: Classes) -> None:
    """The style by class that a GeoPackage would bring; for the other formats."""
    categories = []
    for entry in classes:
        fill = QColor(entry.get("color") or "#9e9e9e")
        outline = fill.darker(167).name()
        fill.setAlphaF(0.6)
        symbol = QgsFillSymbol.createSimple({"outline_color": outline, "outline_width": "0.2"})
        symbol.setColor(fill)
        categories.append(QgsRendererCategory(entry["name"], symbol, entry["title"]))
    layer.setRenderer(QgsCategorizedSymbolRenderer("class", categories))


def _name_classes(layer: QgsRasterLayer, titles: Mapping[int, str]) -> None:
    """The file's own colors, in a legend of the classes that occur."""
    provider = layer.dataProvider()
    entries = QgsPalettedRasterRenderer.colorTableToClassData(provider.colorTable(1))
    shown = [
        QgsPalettedRasterRenderer.Class(entry.value, entry.color, titles[entry.value])
        for entry in entries
        if entry.value in titles
    ]
    layer.setRenderer(QgsPalettedRasterRenderer(provider, 1, shown))


def color_heat_map(layer: QgsMapLayer) -> None:
    """Blue below 0, clear at 0, orange above, to the same strength on both sides."""
    found = layer.dataProvider().bandStatistics(1)
    strongest = max(abs(found.minimumValue), abs(found.maximumValue))
    renderer = QgsSingleBandPseudoColorRenderer(layer.dataProvider(), 1)
    renderer.setClassificationMin(-strongest)
    renderer.setClassificationMax(strongest)
    clear = QgsGradientStop(0.5, QColor(255, 255, 255, 0))
    renderer.createShader(
        QgsGradientColorRamp(QColor("#2166ac"), QColor("#e66101"), discrete=False, stops=[clear])
    )
    layer.setRenderer(renderer)


def _outline(layer: QgsVectorLayer) -> None:
    """Borders only, which leave the imagery visible, and the caption as map tip."""
    symbol = QgsFillSymbol.createSimple(
        {"style": "no", "outline_color": "#e66101", "outline_width": "0.3"}
    )
    layer.setRenderer(QgsSingleSymbolRenderer(symbol))
    layer.setMapTipTemplate("[% replace(replace(\"caption\", '&', '&amp;'), '<', '&lt;') %]")
