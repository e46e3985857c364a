"""The algorithms over a finished map: its sample, its accuracy, its areas, another map of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputHtml,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorLayer,
    QgsVectorLayer,
)

from ..backend import options_in_use
from ..i18n import tr
from ..pages import shown_areas
from . import parameters as shared
from .base import RsscAlgorithm
from .landuse import LandUseAlgorithm
from .polygons import PolygonAlgorithm

_ANY = [QgsProcessing.SourceType.TypeVectorAnyGeometry]
_POLYGONS = [QgsProcessing.SourceType.TypeVectorPolygon]
_FROM_LAYERS = frozenset({"reference", "zones", "field"})
"""Options that are layers here, and the field of one."""


class MapAlgorithm(RsscAlgorithm):
    """One command over the file of a map that Classify scene wrote, whichever layer is chosen."""

    SUBCOMMAND = ""
    GROUP = "landuse"
    LEFT_OUT = _FROM_LAYERS
    REFERENCE = ""
    """What the layer of reference labels is for; empty: there is none."""
    REFERENCE_OPTIONAL = False

    def __init__(self) -> None:
        super().__init__()
        self._map, self._title, self._reference = "", "", ""

    def input(self) -> QgsProcessingParameterDefinition:
        layer = QgsProcessingParameterVectorLayer("INPUT", tr("Map"), _POLYGONS)
        return shared.described(
            layer, tr("A layer of a map that Classify scene made, or its file.")
        )

    def parameters(self) -> shared.Parameters:
        if not self.REFERENCE:
            return []
        optional = self.REFERENCE_OPTIONAL
        layer = QgsProcessingParameterVectorLayer(
            "REFERENCE", tr("Labeled sample"), _ANY, optional=optional
        )
        field = QgsProcessingParameterString("FIELD", tr("Field with the class"), "class")
        help_text = tr("The column of the labels: 'class' in a sample that was drawn here.")
        return [
            shared.described(layer, self.REFERENCE),
            shared.advanced(shared.described(field, help_text)),
        ]

    def check_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        map_file(self.parameterAsVectorLayer(parameters, "INPUT", context), tr("Map"))
        if parameters.get("REFERENCE"):
            _reference_of(self.parameterAsVectorLayer(parameters, "REFERENCE", context))

    def read_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        layer = self.parameterAsVectorLayer(parameters, "INPUT", context)
        self._map = map_file(layer, tr("Map"))
        self._title = title_of(self._map)
        sample = self.parameterAsVectorLayer(parameters, "REFERENCE", context)
        self._reference = "" if sample is None else _reference_of(sample)

    def input_arguments(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        work: str,
    ) -> list[str]:
        return [self._map]

    def input_title(self) -> str:
        return self._title

    def command_words(self) -> list[str]:
        return [self.COMMAND, self.SUBCOMMAND] if self.SUBCOMMAND else [self.COMMAND]

    def modes(self) -> list[str]:
        flags = {option.flag for option in options_in_use(self.OPTIONS or self.COMMAND)}
        return ["--json", *({"--overwrite"} & flags)]

    def more_arguments(
        self, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> list[str]:
        if not self._reference:
            return []
        field = self.parameterAsString(parameters, "FIELD", context)
        return [f"--reference={self._reference}", f"--field={field}"]


class AssessSample(MapAlgorithm, PolygonAlgorithm):
    """``rssc-geo assess sample``."""

    NAME = "assesssample"
    COMMAND, SUBCOMMAND, OPTIONS = "assess", "sample", "assess sample"
    TITLE = tr("Draw a sample to assess a map")
    TAGS = tr("accuracy assessment validation sample stratified reference labels")
    SUFFIXES = MappingProxyType({"OUTPUT": (".gpkg",)})
    LAYERS = MappingProxyType({"OUTPUT": "sample"})
    OUTPUT_HELP = tr("A GeoPackage with the form in which the units are labeled.")
    HELP = tr(
        "Draws a random sample of the cells of a map for you to label, to "
        "estimate its accuracy.<br><br>Open the form of each unit (Identify, or "
        "the attribute table in form view) and choose what is there without "
        "looking at the map; <i>cannot tell</i> is a valid label too. Then run "
        "<b>Assess a map by a labeled sample</b>."
    )

    def model_title(self, values: Mapping[str, Any]) -> str:
        return tr("sample")


class AssessAccuracy(MapAlgorithm):
    """``rssc-geo assess accuracy``."""

    NAME = "assessaccuracy"
    COMMAND, SUBCOMMAND, OPTIONS = "assess", "accuracy", "assess accuracy"
    TITLE = tr("Assess a map by a labeled sample")
    TAGS = tr("accuracy assessment validation error matrix confusion area adjusted")
    REFERENCE = tr("The sample that was labeled, or other points or polygons with a class.")
    HELP = tr(
        "Estimates the accuracy of a map and the area of each class from the "
        "labels of a sample: a page with the accuracies and their errors, the "
        "areas adjusted for the map's errors, and the error matrix; tables "
        "beside it."
    )

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        super().initAlgorithm(configuration)
        self.addOutput(QgsProcessingOutputHtml("PAGE", tr("Accuracy")))

    def destination(self) -> QgsProcessingParameterDefinition:
        folder = QgsProcessingParameterFolderDestination("OUTPUT", tr("Folder of the assessment"))
        return shared.described(folder, tr("Holds the page and the tables (JSON, CSV)."))

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        return {"OUTPUT": output, "PAGE": os.path.join(output, "accuracy.html")}


class Areas(MapAlgorithm):
    """``rssc-geo areas``."""

    NAME = "areas"
    COMMAND = "areas"
    TITLE = tr("Areas of the classes of a map")
    TAGS = tr("area statistics table zones hectares")
    SUFFIXES = MappingProxyType({"OUTPUT": (".csv",)})
    REFERENCE = tr("A labeled sample of the map: also areas adjusted for the map's errors.")
    REFERENCE_OPTIONAL = True
    HELP = tr(
        "Writes the area of each class of a map, as a whole and in zones, to a "
        "table (CSV) and shows it in the results viewer. A cell that a zone cuts "
        "counts in part, by its area."
    )

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        super().initAlgorithm(configuration)
        self.addOutput(QgsProcessingOutputHtml("PAGE", tr("Areas")))

    def parameters(self) -> shared.Parameters:
        zones = shared.polygons("ZONES", tr("Zones"), optional=True)
        return [
            shared.described(zones, tr("Polygons: also the areas of the classes in each.")),
            *super().parameters(),
        ]

    def destination(self) -> QgsProcessingParameterDefinition:
        table = QgsProcessingParameterFileDestination(
            "OUTPUT", tr("Table"), tr("CSV files (*.csv)")
        )
        return shared.described(table, tr("The areas as CSV."))

    def more_arguments(
        self, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> list[str]:
        found = super().more_arguments(parameters, context, work)
        zones = self.parameterAsSource(parameters, "ZONES", context)
        if zones is not None:
            field = self.parameterAsString(parameters, "ZONE_FIELD", context).strip()
            path = os.path.join(work, "zones.gpkg")
            found.append(f"--zones={self.polygons_file(zones, path, [field] if field else [])}")
        return found

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        return {"OUTPUT": output, "PAGE": shown_areas(self._title, output)}


class Refine(MapAlgorithm, LandUseAlgorithm):
    """``rssc-geo refine``."""

    NAME = "refine"
    COMMAND = "refine"
    TITLE = tr("Refine a map")
    LAYERS = MappingProxyType({"OUTPUT": "landuse", "CELLS": "cells"})
    TAGS = tr("legend crosswalk corine anderson generalize smooth majority filter")
    HELP = tr(
        "Makes a new map from the cells of a map, without raster or model: in "
        "another legend, with fewer classes, smoothed, or without small regions."
    )


def map_file(layer: QgsVectorLayer | None, title: str) -> str:
    """The file of a layer; raises ``QgsProcessingException`` where it has none."""
    path = "" if layer is None else layer.source().split("|")[0]
    if not os.path.isfile(path):
        raise QgsProcessingException(
            tr(
                "{title}: choose a layer that is a file on this computer. Save another one"
                " first (Export ▸ Save Features As…)."
            ).format(title=title)
        )
    if layer.isEditable() and layer.isModified():
        raise QgsProcessingException(
            tr(
                "{title}: the layer '{name}' has changes that are not saved. Save them first."
            ).format(title=title, name=layer.name())
        )
    return os.path.abspath(path)


def title_of(path: str) -> str:
    """What a map is called: the name of its file without the ending."""
    return os.path.splitext(os.path.basename(path))[0]


def _reference_of(layer: QgsVectorLayer | None) -> str:
    """The labels of a layer as its file has them; ``QgsProcessingException`` where they differ."""
    path = map_file(layer, tr("Labeled sample"))
    if layer.subsetString() or layer.crs() != layer.dataProvider().crs():
        raise QgsProcessingException(
            tr(
                "Labeled sample: the layer '{name}' has a filter, or a CRS that was chosen in QGIS,"
                " and its file has neither. Remove it, or save the layer as another file first"
                " (Export ▸ Save Features As…)."
            ).format(name=layer.name())
        )
    name = _layer_name(layer)
    return f"{path}|layername={name}" if name else path


def _layer_name(layer: QgsVectorLayer) -> str:
    """The layer of its file, '' where the file is the layer."""
    for part in layer.source().split("|")[1:]:
        key, _, value = part.partition("=")
        if key == "layername":
            return value
    return ""
