"""The algorithms whose result is polygons: one layer, or several in one file or a file each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingOutputHtml,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterVectorDestination,
)

from .. import results
from ..i18n import tr
from ..pages import shown_areas
from . import parameters as shared
from .base import RsscAlgorithm

_AREAS, _AREAS_PAGE = "AREAS", "AREAS_PAGE"
_POLYGONS = QgsProcessing.SourceType.TypeVectorPolygon


class PolygonAlgorithm(RsscAlgorithm):
    """Adds outputs for the other layers, and loads all layers that were written."""

    GROUP = "landuse"
    LAYERS: Mapping[str, str] = MappingProxyType({})
    """The backend's layers, by the output that names them.

    OUTPUT first, the only one that is always there.
    """
    OUTPUT_HELP = ""

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        super().initAlgorithm(configuration)
        for name, layer in self.LAYERS.items():
            if name != "OUTPUT":
                title = results.TITLES[layer]
                self.addOutput(QgsProcessingOutputVectorLayer(name, title, _POLYGONS))

        if self.parameterDefinition(_AREAS) is not None:
            self.addOutput(QgsProcessingOutputHtml(_AREAS_PAGE, tr("Areas")))

    def classes(self, values: Mapping[str, Any]) -> results.Classes:
        """The classes that occur, for the legend."""
        return values.get("classes", ())

    def model_title(self, values: Mapping[str, Any]) -> str:
        """What made the result, for the name of its group."""
        written = values.get("outputs") or [""]
        return results.model_of_map(written[0]) or self.TITLE.lower()

    def destination(self) -> QgsProcessingParameterDefinition:
        title = results.TITLES[self.LAYERS["OUTPUT"]]
        output = QgsProcessingParameterVectorDestination("OUTPUT", title, _POLYGONS)
        return shared.described(output, self.OUTPUT_HELP)

    def output_path(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        # Also tells the context to load it, where the user wants that.
        self._asked = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        return super().output_path({**parameters, "OUTPUT": self._asked}, context)

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        layers = results.layer_sources(output, values.get("outputs", ()))
        self.run_group = results.RunGroup.of(self.input_title(), self.model_title(values))
        classes = self.classes(values)
        results.load_on_completion(context, self._asked, layers, self.run_group, classes=classes)
        found = {name: layers[layer] for name, layer in self.LAYERS.items() if layer in layers}
        found.update(self.files_made())
        if _AREAS in found:
            found[_AREAS_PAGE] = shown_areas(self.input_title(), found[_AREAS])
        return found
