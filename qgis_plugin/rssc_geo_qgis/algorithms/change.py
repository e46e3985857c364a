"""Change between dates."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qgis.core import (
    QgsMapLayer,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterMultipleLayers,
    QgsVectorLayer,
)

from .. import results
from ..i18n import tr
from ..inputs import RasterInput, read_together
from ..options import Option
from . import parameters as shared
from .finished import map_file, title_of
from .polygons import PolygonAlgorithm

_KINDS = [QgsProcessing.SourceType.TypeRaster, QgsProcessing.SourceType.TypeVectorPolygon]
_OF_RASTERS = shared.FROM_LAYER | {"bounds", "bands", "nodata"}
"""Options that say how a raster is read."""


class Change(PolygonAlgorithm):
    """``rssc-geo change`` of rasters, or of maps that were made of them."""

    NAME = "change"
    COMMAND = "change"
    TITLE = tr("Change between dates")
    TAGS = tr("change detection difference time series before after land use ai")
    # Labels of a finished result, which Areas of the classes of a map takes.
    LEFT_OUT = frozenset({"reference", "field"})
    SUFFIXES = MappingProxyType({"OUTPUT": (".gpkg",)})
    LAYERS = MappingProxyType({"OUTPUT": "change", "CELLS": "cells"})
    OUTPUT_HELP = tr("A GeoPackage with both layers and their styles.")
    HELP = tr(
        "Shows where the land use changed between pictures of one place, and "
        "from which class to which. Grid, CRS and resolution may differ; "
        "pictures of the same season work best. Maps that Classify scene made "
        "can be used instead; only their classes are "
        "compared.<br><br><b>Change</b>: one polygon for each region of one "
        "change, in the color of the new class; more styles show the old class "
        "and the probability. Where both classes are the same, the ground was replaced "
        "by other ground of its class.<br><b>Cells</b>: each cell with data at all dates, "
        "by the probability of its change.<br><br>With more than two dates, the "
        "change of a cell is the one with the highest probability."
    )

    def __init__(self) -> None:
        super().__init__()
        self._dates: list[RasterInput] = []
        self._maps: list[str] = []
        self._titles: list[str] = []

    def input(self) -> QgsProcessingParameterDefinition:
        return _layer("INPUT", tr("Earlier layer"), tr("A raster, or a layer of a map."))

    def parameters(self) -> shared.Parameters:
        more = QgsProcessingParameterMultipleLayers(
            "MORE",
            tr("Still later layers"),
            QgsProcessing.SourceType.TypeMapLayer,
            optional=True,
        )
        return [
            _layer("LATER", tr("Later layer"), tr("The same place at a later date.")),
            shared.described(more, tr("Further dates, the earliest first.")),
        ]

    def check_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        self.read_input(parameters, context)
        if self._maps and parameters.get("EXTENT") not in (None, ""):
            raise QgsProcessingException(
                tr("Extent: for rasters only; maps are compared as a whole. Leave it empty.")
            )

    def read_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        layers = self._layers_of(parameters, context)
        maps = [layer for layer in layers if isinstance(layer, QgsVectorLayer)]
        self._maps, self._dates, self._raster = [], [], None
        if maps and len(maps) < len(layers):
            raster = next(layer for layer in layers if layer not in maps)
            raise QgsProcessingException(
                tr(
                    "'{map}' is a map and '{raster}' is not: choose only rasters, or only "
                    "maps that Classify scene made."
                ).format(map=maps[0].name(), raster=raster.name())
            )
        if maps:
            self._maps = [map_file(layer, layer.name()) for layer in maps]
            self._titles = [title_of(path) for path in self._maps]
        else:
            self._dates = read_together(layers)
            self._raster = self._dates[0]
            self._titles = [raster.title for raster in self._dates]

    def input_arguments(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        work: str,
    ) -> list[str]:
        windows = [self._window(parameters, context, raster) for raster in self._dates]
        return self._maps or [
            self.source_of(raster, window, feedback, work)
            for raster, window in zip(self._dates, windows)
        ]

    def option_value(
        self, option: Option, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> Any:
        if self._maps and option.name in _OF_RASTERS:
            return None
        return super().option_value(option, parameters, context, work)

    def input_title(self) -> str:
        return self._titles[0]

    def classes(self, values: Mapping[str, Any]) -> results.Classes:
        return [{"name": row["after"]} for row in values["transitions"] if row["changed_m2"]]

    def model_title(self, values: Mapping[str, Any]) -> str:
        return tr("change to {later}").format(later=self._titles[-1])

    def _layers_of(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> list[QgsMapLayer]:
        layers = []
        for name in ("INPUT", "LATER"):
            layers.append(self.parameterAsLayer(parameters, name, context))
            if layers[-1] is None:
                raise QgsProcessingException(self.invalidSourceError(parameters, name))
        return [*layers, *self.parameterAsLayerList(parameters, "MORE", context)]


def _layer(name: str, title: str, help_text: str) -> QgsProcessingParameterDefinition:
    return shared.described(
        QgsProcessingParameterMapLayer(name, title, types=_KINDS),
        help_text,
    )
