"""What a run wrote, as layers in the project: styled by the file, grouped under the name of the input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from qgis.core import (
    QgsFillSymbol,
    QgsGradientColorRamp,
    QgsGradientStop,
    QgsMapLayer,
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

TITLES = {"landuse": "Land use", "scenes": "Scenes", "captions": "Captions"}


def layer_sources(outputs: Sequence[str]) -> dict[str, str]:
    """The layers in the files of a run, by name: a GeoPackage holds several, other formats have a file each, in this order."""
    if not outputs[0].lower().endswith(".gpkg"):
        return dict(zip(("landuse", "scenes"), outputs))
    found = QgsProviderRegistry.instance().querySublayers(outputs[0])
    return {layer.name(): f"{outputs[0]}|layername={layer.name()}" for layer in found}


def open_layer_of(project: QgsProject | None, path: str) -> str:
    """The name of a layer of the project that reads the file, or one in the folder; '' if none does."""
    wanted = os.path.normcase(os.path.abspath(path))
    for layer in project.mapLayers().values() if project else ():
        decoded = QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source()).get("path") or ""
        found = os.path.normcase(os.path.abspath(decoded)) if decoded else ""
        if found == wanted or found.startswith(wanted + os.sep):
            return layer.name()
    return ""


def load_on_completion(context: QgsProcessingContext, asked: str, layers: dict[str, str], group: str) -> None:
    """Load the layers of a run in place of ``asked``, the file name that the dialog wanted loaded; nothing if it did not."""
    if not context.willLoadLayerOnCompletion(asked):
        return
    wanted = dict(context.layersToLoadOnCompletion())
    project = wanted.pop(asked).project
    context.setLayersToLoadOnCompletion(wanted)
    for name, source in layers.items():
        # Regions are drawn over cells: two see-through fills would hide the imagery.
        shown = name != "scenes" or len(layers) == 1
        _load(context, project, source, TITLES.get(name, name), _Finish.of(group, visible=shown))


def load_heat_map(context: QgsProcessingContext, path: str, title: str, group: str) -> None:
    """Load a raster of what speaks for (above 0) and against (below)."""
    _load(context, context.project(), path, title, _Finish.of(group, visible=True))


def _load(context: QgsProcessingContext, project: QgsProject, source: str, title: str, finish: _Finish) -> None:
    details = QgsProcessingContext.LayerDetails(title, project, title)
    details.forceName = True
    details.setPostProcessor(finish)
    context.addLayerToLoadOnCompletion(source, details)


class _Finish(QgsProcessingLayerPostProcessorInterface):
    """Styles a loaded layer and moves it into the group of its run; called by QGIS on its main thread."""

    _kept: ClassVar[list[_Finish]] = []  # QGIS keeps no reference

    def __init__(self, group: str, *, visible: bool) -> None:
        super().__init__()
        self._group = group
        self._visible = visible

    @classmethod
    def of(cls, group: str, *, visible: bool) -> _Finish:
        cls._kept.append(cls(group, visible=visible))
        return cls._kept[-1]

    def postProcessLayer(self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> None:
        self._kept.remove(self)
        if isinstance(layer, QgsRasterLayer):
            _colour(layer)
        # The style in the GeoPackage, which Processing leaves out; captions alone and other formats have none.
        elif not layer.loadDefaultStyle()[1] and layer.fields().indexOf("caption") >= 0:
            _outline(layer)
        node = context.project().layerTreeRoot().findLayer(layer.id())
        if node is None:
            return
        # QGIS adds a layer where the current one is, which may be the group that the first layer of the run went to.
        parent = node.parent()
        group = parent if parent.name() == self._group else parent.findGroup(self._group) or parent.insertGroup(0, self._group)
        moved = node.clone()
        moved.setItemVisibilityChecked(self._visible)
        group.insertChildNode(0 if self._visible else -1, moved)
        parent.removeChildNode(node)


def _colour(layer: QgsRasterLayer) -> None:
    """Blue below 0, clear at 0, orange above, to the same strength on both sides."""
    found = layer.dataProvider().bandStatistics(1)
    strongest = max(abs(found.minimumValue), abs(found.maximumValue))
    renderer = QgsSingleBandPseudoColorRenderer(layer.dataProvider(), 1)
    renderer.setClassificationMin(-strongest)
    renderer.setClassificationMax(strongest)
    clear = QgsGradientStop(0.5, QColor(255, 255, 255, 0))
    renderer.createShader(QgsGradientColorRamp(QColor("#2166ac"), QColor("#e66101"), False, [clear]))  # noqa: FBT003
    layer.setRenderer(renderer)


def _outline(layer: QgsVectorLayer) -> None:
    """Borders only, which leave the imagery in sight, and the caption as map tip."""
    symbol = QgsFillSymbol.createSimple({"style": "no", "outline_color": "#e66101", "outline_width": "0.3"})
    layer.setRenderer(QgsSingleSymbolRenderer(symbol))
    layer.setMapTipTemplate("[% replace(replace(\"caption\", '&', '&amp;'), '<', '&lt;') %]")
