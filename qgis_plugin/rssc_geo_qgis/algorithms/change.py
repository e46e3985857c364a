"""Change between two dates."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingParameterRasterLayer,
)

from .. import results
from ..i18n import tr
from ..inputs import RasterInput, read_together
from . import parameters as shared
from .polygons import PolygonAlgorithm


class Change(PolygonAlgorithm):
    """``rssc-geo change`` of two rasters."""

    NAME = "change"
    COMMAND = "change"
    TITLE = tr("Change between two dates")
    TAGS = tr("change detection difference time series before after land use ai")
    # Labels of a finished result, which Areas of the classes of a map takes.
    LEFT_OUT = frozenset({"reference", "field"})
    SUFFIXES = MappingProxyType({"OUTPUT": (".gpkg",)})
    LAYERS = MappingProxyType({"OUTPUT": "change", "CELLS": "cells"})
    OUTPUT_HELP = tr("A GeoPackage with both layers and their styles.")
    HELP = tr(
        "Says where the land use changed between two pictures of one place, and from what to what."
        " They need not share grid, CRS or resolution; pictures of one season serve best."
        "<br><br><b>Change</b>: one polygon for each region of one change, in the color of what it"
        " became; also by what it was, and by how probable the change is.<br><b>Cells</b>: each"
        " cell that both have, by how probable its change is."
    )

    def __init__(self) -> None:
        super().__init__()
        self._later: RasterInput | None = None

    def parameters(self) -> shared.Parameters:
        later = QgsProcessingParameterRasterLayer("LATER", tr("Later raster layer"))
        return [shared.described(later, tr("The same place at a later date."))]

    def check_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        self._read_both(parameters, context)

    def read_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        self._raster, self._later = self._read_both(parameters, context)

    def raster_arguments(self, source: str) -> list[str]:
        return [source, self._later.source]

    def classes(self, values: Mapping[str, Any]) -> results.Classes:
        return [{"name": row["after"]} for row in values["transitions"] if row["changed_m2"]]

    def model_title(self, values: Mapping[str, Any]) -> str:
        return tr("change to {later}").format(later=self._later.title)

    def _read_both(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> list[RasterInput]:
        layers = []
        for name in ("INPUT", "LATER"):
            layers.append(self.parameterAsRasterLayer(parameters, name, context))
            if layers[-1] is None:
                raise QgsProcessingException(self.invalidRasterError(parameters, name))
        return read_together(layers)
