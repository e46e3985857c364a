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
        "Says where the land use changed between pictures of one place, and from what to what."
        " They need not share grid, CRS or resolution; pictures of one season serve best. Maps that"
        " Classify scene made may stand for them: they are compared by their classes alone."
        "<br><br><b>Change</b>: one polygon for each region of one change, in the color of what it"
        " became; also by what it was, and by how probable the change is.<br><b>Cells</b>: each"
        " cell that all have, by how probable its change is.<br><br>Of more than two dates each"
        " cell is told by when it changed most."
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
            shared.described(more, tr("Of a longer series, the earliest first.")),
        ]

    def check_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        self.read_input(parameters, context)
        if self._maps and parameters.get("EXTENT") not in (None, ""):
            raise QgsProcessingException(
                tr("Extent: is for rasters; of maps all is compared. Leave it out.")
            )

    def read_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        layers = self._layers_of(parameters, context)
        maps = [layer for layer in layers if isinstance(layer, QgsVectorLayer)]
        self._maps, self._dates, self._raster = [], [], None
        if maps and len(maps) < len(layers):
            raster = next(layer for layer in layers if layer not in maps)
            raise QgsProcessingException(
                tr(
                    "'{map}' is a map and '{raster}' is none: choose rasters, or maps that Classify"
                    " scene made of them."
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
