"""What a run wrote, as layers in the project: styled by the file, grouped under the name of the input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from qgis.core import (
    QgsMapLayer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProject,
    QgsProviderRegistry,
)

TITLES = {"landuse": "Land use", "scenes": "Scenes"}


def layer_sources(outputs: Sequence[str]) -> dict[str, str]:
    """The layers in the files of a run, by name: a GeoPackage holds several, other formats one a file."""
    found: dict[str, str] = {}
    for path in outputs:
        if path.lower().endswith(".gpkg"):
            for layer in QgsProviderRegistry.instance().querySublayers(path):
                found[layer.name()] = f"{path}|layername={layer.name()}"
        else:
            stem = os.path.splitext(os.path.basename(path))[0]
            found["scenes" if stem.endswith("_scenes") else "landuse"] = path
    return found


def open_layer_of(project: QgsProject | None, path: str) -> str:
    """The name of a layer of the project that reads the file, '' if none does."""
    wanted = os.path.normcase(os.path.abspath(path))
    for layer in project.mapLayers().values() if project else ():
        decoded = QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source()).get("path") or ""
        if decoded and os.path.normcase(os.path.abspath(decoded)) == wanted:
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
        details = QgsProcessingContext.LayerDetails(TITLES.get(name, name), project, name)
        details.forceName = True
        details.setPostProcessor(_Grouping.of(group, visible=name != "scenes" or len(layers) == 1))
        context.addLayerToLoadOnCompletion(source, details)


class _Grouping(QgsProcessingLayerPostProcessorInterface):
    """Moves a loaded layer into the group of its run; called by QGIS on its main thread."""

    _kept: ClassVar[list[_Grouping]] = []  # QGIS keeps no reference

    def __init__(self, group: str, *, visible: bool) -> None:
        super().__init__()
        self._group = group
        self._visible = visible

    @classmethod
    def of(cls, group: str, *, visible: bool) -> _Grouping:
        cls._kept.append(cls(group, visible=visible))
        return cls._kept[-1]

    def postProcessLayer(self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> None:
        self._kept.remove(self)
        layer.loadDefaultStyle()  # the style in the GeoPackage, which Processing leaves out
        node = context.project().layerTreeRoot().findLayer(layer.id())
        if node is None:
            return
        # QGIS adds a layer where the current one is, which may be the group that the first layer of the run went to.
        parent = node.parent()
        group = parent if parent.name() == self._group else parent.findGroup(self._group) or parent.insertGroup(0, self._group)
        moved = node.clone()
        # Regions are drawn over cells: two see-through fills would hide the imagery.
        moved.setItemVisibilityChecked(self._visible)
        group.insertChildNode(0 if self._visible else -1, moved)
        parent.removeChildNode(node)
