"""What a run wrote, as layers in the project.

Styled by the file, grouped under the name of the input.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from qgis.core import (
    QgsFillSymbol,
    QgsGradientColorRamp,
    QgsGradientStop,
    QgsLayerTreeGroup,
    QgsMapLayer,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProject,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsSingleBandPseudoColorRenderer,
    QgsSingleSymbolRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor

TITLES = {
    "landuse": "Land use",
    "cells": "Cells",
    "review": "Cells to review",
    "classes": "Classes as raster",
    "captions": "Captions",
}
_RUN = "rssc_geo/run"
"""The property of a group that says which run's layers it holds."""
_BELOW = ("cells", "classes")
"""Switched off, under the regions: see-through fills on each other would hide the imagery."""

Paint = Callable[[QgsMapLayer], None]


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


def open_layer_of(project: QgsProject | None, path: str) -> str:
    """The name of a layer of the project that reads the file, or one in the folder.

    '' if none does.
    """
    wanted = os.path.normcase(os.path.abspath(path))
    for layer in project.mapLayers().values() if project else ():
        decoded = (
            QgsProviderRegistry.instance()
            .decodeUri(layer.providerType(), layer.source())
            .get("path")
            or ""
        )
        found = os.path.normcase(os.path.abspath(decoded)) if decoded else ""
        if found == wanted or found.startswith(wanted + os.sep):
            return layer.name()
    return ""


def load_on_completion(
    context: QgsProcessingContext, asked: str, layers: dict[str, str], group: str
) -> None:
    """Load the layers of a run in place of ``asked``, the file name that the dialog wanted loaded.

    Nothing if it did not.
    """
    project = _take(context, asked)
    for name, source in layers.items() if project else ():
        _load(
            context,
            project,
            source,
            TITLES.get(name, name),
            _Finish.of(group, _style, visible=name not in _BELOW),
        )


def load_class_raster(
    context: QgsProcessingContext, asked: str, path: str, titles: Mapping[int, str], group: str
) -> None:
    """The same for a raster of classes, whose legend gets their ``titles``."""
    project = _take(context, asked)
    if project:
        finish = _Finish.of(
            group, lambda layer: _name_classes(layer, titles), visible="classes" not in _BELOW
        )
        _load(context, project, path, TITLES["classes"], finish)


def load_heat_map(context: QgsProcessingContext, path: str, title: str, group: str) -> None:
    """Load a raster of what speaks for (above 0) and against (below)."""
    _load(context, context.project(), path, title, _Finish.of(group, color_heat_map, visible=True))


def group_of_run(project: QgsProject, title: str, run: str) -> QgsLayerTreeGroup:
    """The group of a run's layers at the top of the legend: its own, whatever others are called."""
    root = project.layerTreeRoot()
    for group in root.findGroups():
        if group.customProperty(_RUN) == run:
            return group
    group = root.insertGroup(0, title)
    group.setCustomProperty(_RUN, run)
    return group


def group_title(raster: str, model: str) -> str:
    """What a run's group is called: raster, model and time."""
    return f"{raster}, {model}, {time.strftime('%H:%M:%S')}"


def add_layer(
    project: QgsProject, group: QgsLayerTreeGroup, layer: QgsMapLayer, *, visible: bool
) -> None:
    """Add a layer to a group: on top where it is shown, else below the others."""
    project.addMapLayer(layer, addToLegend=False)
    node = group.insertLayer(0 if visible else -1, layer)
    node.setItemVisibilityChecked(visible)
    node.setExpanded(visible)


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

    def __init__(self, group: str, paint: Paint, *, visible: bool) -> None:
        super().__init__()
        self._group = group
        self._paint = paint
        self._visible = visible

    @classmethod
    def of(cls, group: str, paint: Paint, *, visible: bool) -> _Finish:
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
        # QGIS adds a layer where the current one is, which may be the group that the first layer of
        # the run went to.
        parent = node.parent()
        group = (
            parent
            if parent.name() == self._group
            else parent.findGroup(self._group) or parent.insertGroup(0, self._group)
        )
        moved = node.clone()
        moved.setItemVisibilityChecked(self._visible)
        group.insertChildNode(0 if self._visible else -1, moved)
        parent.removeChildNode(node)


def _style(layer: QgsVectorLayer) -> None:
    """The style in the GeoPackage, which Processing leaves out.

    Captions alone and other formats have none.
    """
    if not layer.loadDefaultStyle()[1] and layer.fields().indexOf("caption") >= 0:
        _outline(layer)


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
    """Borders only, which leave the imagery in sight, and the caption as map tip."""
    symbol = QgsFillSymbol.createSimple(
        {"style": "no", "outline_color": "#e66101", "outline_width": "0.3"}
    )
    layer.setRenderer(QgsSingleSymbolRenderer(symbol))
    layer.setMapTipTemplate("[% replace(replace(\"caption\", '&', '&amp;'), '<', '&lt;') %]")
