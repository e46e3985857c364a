"""The algorithms whose result is polygons: two layers, landuse and scenes, in one file or two."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterVectorDestination,
)

from .. import results
from .base import RsscAlgorithm


class PolygonAlgorithm(RsscAlgorithm):
    """Adds OUTPUT (regions) and SCENES (cells), and loads both."""

    GROUP = "Land use"
    SUFFIXES = (".gpkg", ".fgb", ".geojson", ".shp")

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        super().initAlgorithm(configuration)
        output = QgsProcessingParameterVectorDestination("OUTPUT", "Land use", QgsProcessing.SourceType.TypeVectorPolygon)
        output.setHelp("A GeoPackage holds both layers with their styles; other formats get a second file, x_scenes.")
        self.addParameter(output)
        self.addOutput(QgsProcessingOutputVectorLayer("SCENES", "Scenes", QgsProcessing.SourceType.TypeVectorPolygon))

    def output_path(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        # Also tells the context to load it, where the user wants that.
        self._asked = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        return super().output_path({**parameters, "OUTPUT": self._asked}, context)

    def results(self, values: dict[str, Any], output: str, context: QgsProcessingContext) -> dict[str, Any]:
        layers = results.layer_sources(values.get("outputs") or [output])
        results.load_on_completion(context, self._asked, layers, self.raster.title)
        first = layers.get("landuse") or next(iter(layers.values()), output)
        return {"OUTPUT": first, "SCENES": layers.get("scenes", first)}
