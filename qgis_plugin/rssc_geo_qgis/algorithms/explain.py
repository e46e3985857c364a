"""Explain what a class was decided by."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingParameterPoint, QgsProcessingParameterRasterDestination

from . import parameters as shared
from .base import RsscAlgorithm


class Explain(RsscAlgorithm):
    """``rssc-geo explain``."""

    NAME = "explain"
    COMMAND = "explain"
    TITLE = "Explain"
    GROUP = "Land use"
    TAGS = "explanation heat map attention saliency ai"
    HELP = (
        "Shows what in the tile at a point made the model decide on its class: a raster in which high values mark the "
        "pixels that counted most.<br><br>Use the options of the classification that you want explained."
    )
    SUFFIXES = (".tif", ".tiff")

    def parameters(self) -> shared.Parameters:
        output = QgsProcessingParameterRasterDestination("OUTPUT", "Explanation")
        return [
            shared.described(QgsProcessingParameterPoint("AT", "Point"), "A place in the tile, in any CRS."),
            *shared.tiling(),
            shared.model(),
            shared.captioner(),
            *shared.compute(),
            shared.described(output, "A GeoTIFF."),
        ]

    def more_arguments(self, parameters: dict[str, Any], context: QgsProcessingContext, work: str) -> list[str]:
        point = self.parameterAsPoint(parameters, "AT", context, self.raster.crs)
        return [f"--at={point.x():.15g},{point.y():.15g}"]

    def output_path(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        # Also tells the context to load it, where the user wants that.
        return super().output_path({**parameters, "OUTPUT": self.parameterAsOutputLayer(parameters, "OUTPUT", context)}, context)
