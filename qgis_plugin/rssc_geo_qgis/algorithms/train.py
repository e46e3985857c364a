"""Train a classifier from labeled polygons."""

from __future__ import annotations

import os
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterNumber,
)

from ..inputs import write_polygons
from . import parameters as shared
from .base import RsscAlgorithm


class Train(RsscAlgorithm):
    """``rssc-geo train``."""

    NAME = "train"
    COMMAND = "train"
    TITLE = "Train classifier from labeled polygons"
    GROUP = "Models"
    TAGS = "land use training fine tune samples ai"
    NEEDS = ("--raster", "--labels", "--field", "--words")
    HELP = (
        "Makes a model of your own classes from polygons that you have drawn over the raster and"
        " labeled.<br><br>Its folder is then the Model of Classify scene. Draw at least some twenty"
        " tiles of each class, in several places."
    )

    def parameters(self) -> shared.Parameters:
        labels = QgsProcessingParameterFeatureSource(
            "LABELS", "Labeled polygons", [QgsProcessing.SourceType.TypeVectorPolygon]
        )
        field = QgsProcessingParameterField(
            "FIELD", "Field with the class", parentLayerParameterName="LABELS"
        )
        folder = QgsProcessingParameterFolderDestination("OUTPUT", "Model folder")
        return [
            shared.described(labels, "Polygons of any CRS over the raster."),
            shared.described(field, "The column that names the class of a polygon."),
            shared.tile_size(),
            *shared.reading(),
            shared.advanced(
                QgsProcessingParameterNumber(
                    "PURITY",
                    "Purity",
                    QgsProcessingParameterNumber.Type.Double,
                    0.6,
                    minValue=0.5,
                    maxValue=1,
                ),
                "Share of a tile that polygons of one class must cover for it to be learned from.",
            ),
            shared.advanced(
                QgsProcessingParameterFile(
                    "WORDS", "Words for the classes", extension="json", optional=True
                ),
                'JSON {"class": ["word or phrase", ...], ...}: what to go by where a class has one'
                " or two tiles.",
            ),
            shared.advanced(
                QgsProcessingParameterBoolean(
                    "FINE_TUNE", "Fine-tune the image encoder", defaultValue=False
                ),
                "Takes minutes instead of seconds.",
            ),
            shared.model(),
            shared.device(),
            shared.described(folder, "The folder that will hold the model."),
        ]

    def raster_arguments(self, source: str) -> list[str]:
        return ["--raster", source]

    def more_arguments(
        self, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> list[str]:
        path = os.path.join(work, "labels.gpkg")
        labels = self.parameterAsSource(parameters, "LABELS", context)
        write_polygons(
            labels, path, labels.sourceName(), self.parameterAsString(parameters, "FIELD", context)
        )
        return ["--labels", path]
