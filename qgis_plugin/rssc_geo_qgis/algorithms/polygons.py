"""The algorithms whose result is polygons: one layer of captions, or the layers landuse and scenes in one file or two."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterVectorDestination,
)

from .. import results
from . import parameters as shared
from .base import RsscAlgorithm


class PolygonAlgorithm(RsscAlgorithm):
    """Adds OUTPUT (regions, or what a subclass says) and SCENES (cells), and loads all layers that were written."""

    GROUP = "Land use"
    SUFFIXES = (".gpkg", ".fgb", ".geojson", ".shp")
    LAYERS: Mapping[str, str] = MappingProxyType({"OUTPUT": "landuse", "SCENES": "scenes"})
    """The backend's layers, by the output that names them."""
    OUTPUT_HELP = "A GeoPackage holds both layers with their styles; other formats get a second file, x_scenes."

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        super().initAlgorithm(configuration)
        kind, title = QgsProcessing.SourceType.TypeVectorPolygon, results.TITLES[self.LAYERS["OUTPUT"]]
        self.addParameter(shared.described(QgsProcessingParameterVectorDestination("OUTPUT", title, kind), self.OUTPUT_HELP))
        if "SCENES" in self.LAYERS:
            self.addOutput(QgsProcessingOutputVectorLayer("SCENES", results.TITLES["scenes"], kind))

    def output_path(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        # Also tells the context to load it, where the user wants that.
        self._asked = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        return super().output_path({**parameters, "OUTPUT": self._asked}, context)

    def results(self, values: dict[str, Any], output: str, context: QgsProcessingContext) -> dict[str, Any]:
        layers = results.layer_sources(values.get("outputs") or [output])
        results.load_on_completion(context, self._asked, layers, self.raster.title)
        return {name: layers[layer] for name, layer in self.LAYERS.items()}
