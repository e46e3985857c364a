"""Train a classifier from labeled polygons."""

from __future__ import annotations

import os
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterFolderDestination,
)

from ..i18n import tr
from . import parameters as shared
from .base import RsscAlgorithm


class Train(RsscAlgorithm):
    """``rssc-geo train``."""

    NAME = "train"
    COMMAND = "train"
    TITLE = tr("Train classifier from labeled polygons")
    GROUP = "models"
    TAGS = tr("land use training fine tune samples ai")
    OPTIONS = "train --raster"
    # The labels say where, and patches are as large as tiles.
    LEFT_OUT = frozenset({"aoi", "bounds", "cell_size"})
    NEEDS = ("--raster", "--labels", "--field", "--class-words")
    HELP = tr(
        "Makes a model of your own classes from polygons that you have drawn "
        "over the raster and labeled.<br><br>Its folder is then the Model of "
        "Classify scene. Draw ten to twenty polygons of each class, in several "
        "places."
    )

    def parameters(self) -> shared.Parameters:
        labels = shared.polygons("LABELS", tr("Labeled polygons"))
        return [shared.described(labels, tr("Polygons of any CRS over the raster."))]

    def destination(self) -> QgsProcessingParameterDefinition:
        folder = QgsProcessingParameterFolderDestination("OUTPUT", tr("Model folder"))
        return shared.described(folder, tr("The folder that will hold the model."))

    def raster_arguments(self, source: str) -> list[str]:
        return ["--raster", source]

    def more_arguments(
        self, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> list[str]:
        labels = self.parameterAsSource(parameters, "LABELS", context)
        names = (
            self.parameterAsString(parameters, name, context) for name in ("FIELD", "GROUP_FIELD")
        )
        fields = dict.fromkeys(name for name in names if name)
        path = self.polygons_file(labels, os.path.join(work, "labels.gpkg"), list(fields))
        return ["--labels", path]
