"""*More like this*: an action on the features of maps and hits, which opens Search archive."""

from __future__ import annotations

import os

from qgis.core import Qgis, QgsFeature, QgsMapLayer, QgsProject, QgsRasterLayer, QgsVectorLayer
from qgis.gui import QgisInterface, QgsGui, QgsMapLayerAction

from .i18n import tr
from .models import provenance_of
from .results import file_of

_TITLE = "RSSC Geo"
_SOURCE = "source"  # the field of hits that names their raster


class MoreLikeThis:
    """The action, while it is registered."""

    def __init__(self, iface: QgisInterface) -> None:
        self._iface = iface
        self.action = QgsMapLayerAction(
            tr("More like this"),
            iface.mainWindow(),
            QgsMapLayer.LayerType.VectorLayer,
            QgsMapLayerAction.Target.SingleFeature,
        )
        self.action.triggeredForFeature.connect(self._search)
        QgsGui.mapLayerActionRegistry().addMapLayerAction(self.action)

    def close_down(self) -> None:
        """Take the action back."""
        QgsGui.mapLayerActionRegistry().removeMapLayerAction(self.action)

    def _search(self, layer: QgsMapLayer, feature: QgsFeature) -> None:
        parameters = question_of(layer, feature)
        if not parameters:
            self._iface.messageBar().pushMessage(
                _TITLE,
                tr(
                    "'{name}' is no map of a raster in this project: add its raster to the project"
                    " first, or choose another layer."
                ).format(name=layer.name()),
                Qgis.MessageLevel.Warning,
            )
            return
        import processing

        processing.execAlgorithmDialog("rsscgeo:search", parameters)


def question_of(layer: QgsVectorLayer, feature: QgsFeature) -> dict[str, object]:
    """The parameters of Search archive: the cell of a feature as the example.

    Empty where its raster is not a layer of the project.
    """
    wanted = str(provenance_of(layer).get("input", ""))
    if layer.fields().indexOf(_SOURCE) >= 0:
        wanted = str(feature[_SOURCE])
    for raster in QgsProject.instance().mapLayers().values():
        name = os.path.basename(file_of(raster)) if isinstance(raster, QgsRasterLayer) else ""
        if name and name == os.path.basename(wanted):
            place = feature.geometry().pointOnSurface().asPoint()
            at = f"{place.x():.15g},{place.y():.15g} [{layer.crs().authid()}]"
            return {"LIKE": raster, "AT": at}
    return {}
