"""The algorithms over a finished map: its sample, its accuracy, its areas, another map of it."""

from __future__ import annotations

import html
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
    QgsProcessingUtils,
    QgsVectorLayer,
)

from ..options import options_of
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
    GROUP = "Land use"
    LEFT_OUT = _FROM_LAYERS
    REFERENCE = ""
    """What the layer of reference labels is for; empty: there is none."""
    REFERENCE_OPTIONAL = False

    def __init__(self) -> None:
        super().__init__()
        self._map, self._title = "", ""

    def input(self) -> QgsProcessingParameterDefinition:
        layer = QgsProcessingParameterVectorLayer("INPUT", "Map", _POLYGONS)
        return shared.described(layer, "A layer of a map that Classify scene made, or its file.")

    def parameters(self) -> shared.Parameters:
        if not self.REFERENCE:
            return []
        optional = self.REFERENCE_OPTIONAL
        layer = QgsProcessingParameterVectorLayer(
            "REFERENCE", "Labeled sample", _ANY, optional=optional
        )
        field = QgsProcessingParameterString("FIELD", "Field with the class", "class")
        help_text = "The column of the labels: 'class' in a sample that was drawn here."
        return [
            shared.described(layer, self.REFERENCE),
            shared.advanced(shared.described(field, help_text)),
        ]

    def check_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        _file_of(self.parameterAsVectorLayer(parameters, "INPUT", context), "Map")
        if parameters.get("REFERENCE"):
            layer = self.parameterAsVectorLayer(parameters, "REFERENCE", context)
            _file_of(layer, "Labeled sample")

    def read_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        layer = self.parameterAsVectorLayer(parameters, "INPUT", context)
        self._map = _file_of(layer, "Map")
        self._title = os.path.splitext(os.path.basename(self._map))[0]
        self._layers = {}
        for name in ("REFERENCE", "ZONES"):
            chosen = self.parameterAsVectorLayer(parameters, name, context)
            if chosen is not None:
                source = _file_of(chosen, name.capitalize())
                layer_name = _layer_name(chosen)
                self._layers[name] = f"{source}|layername={layer_name}" if layer_name else source

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
        flags = {option.flag for option in options_of(self.OPTIONS or self.COMMAND)}
        return ["--json", *({"--overwrite"} & flags)]

    def more_arguments(
        self, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> list[str]:
        found = [f"--{name.lower()}={source}" for name, source in self._layers.items()]
        if "REFERENCE" in self._layers:
            found.append(f"--field={self.parameterAsString(parameters, 'FIELD', context)}")
        return found


class AssessSample(MapAlgorithm, PolygonAlgorithm):
    """``rssc-geo assess sample``."""

    NAME = "assesssample"
    COMMAND, SUBCOMMAND, OPTIONS = "assess", "sample", "assess sample"
    TITLE = "Draw a sample to assess a map"
    TAGS = "accuracy assessment validation sample stratified reference labels"
    SUFFIXES = MappingProxyType({"OUTPUT": (".gpkg",)})
    LAYERS = MappingProxyType({"OUTPUT": "sample"})
    OUTPUT_HELP = "A GeoPackage with the form in which the units are labeled."
    HELP = (
        "Draws cells of a map, by chance, to be labeled by you: the basis of an honest figure of"
        " its accuracy.<br><br>Open the form of each unit (Identify, or the attribute table in form"
        " view) and choose what is there without looking at the map; <i>cannot tell</i> is an"
        " answer too. Then run <b>Assess a map by a labeled sample</b>."
    )

    def model_title(self, values: Mapping[str, Any]) -> str:
        return "sample"


class AssessAccuracy(MapAlgorithm):
    """``rssc-geo assess accuracy``."""

    NAME = "assessaccuracy"
    COMMAND, SUBCOMMAND, OPTIONS = "assess", "accuracy", "assess accuracy"
    TITLE = "Assess a map by a labeled sample"
    TAGS = "accuracy assessment validation error matrix confusion area adjusted"
    REFERENCE = "The sample that was labeled, or other points or polygons with a class."
    HELP = (
        "Says how right a map is by labels of a sample, and how much of each class there is: a page"
        " with the accuracies and their errors, the areas adjusted for the map's mistakes, and the"
        " error matrix; tables beside it."
    )

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        super().initAlgorithm(configuration)
        self.addOutput(QgsProcessingOutputHtml("PAGE", "Accuracy"))

    def destination(self) -> QgsProcessingParameterDefinition:
        folder = QgsProcessingParameterFolderDestination("OUTPUT", "Folder of the assessment")
        return shared.described(folder, "Holds the page and the tables (JSON, CSV).")

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        return {"OUTPUT": output, "PAGE": os.path.join(output, "accuracy.html")}


class Areas(MapAlgorithm):
    """``rssc-geo areas``."""

    NAME = "areas"
    COMMAND = "areas"
    TITLE = "Areas of the classes of a map"
    TAGS = "area statistics table zones hectares"
    SUFFIXES = MappingProxyType({"OUTPUT": (".csv",)})
    REFERENCE = "A labeled sample of the map: the areas adjusted for its mistakes, too."
    REFERENCE_OPTIONAL = True
    HELP = (
        "Writes how much of each class a map has, as a whole and in zones, to a table (CSV) and"
        " shows it in the results viewer. A cell that a zone cuts counts in part, by its area."
    )

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        super().initAlgorithm(configuration)
        self.addOutput(QgsProcessingOutputHtml("PAGE", "Areas"))

    def parameters(self) -> shared.Parameters:
        zones = QgsProcessingParameterVectorLayer("ZONES", "Zones", _POLYGONS, optional=True)
        return [
            shared.described(zones, "Polygons: the areas of the classes in each too."),
            *super().parameters(),
        ]

    def destination(self) -> QgsProcessingParameterDefinition:
        table = QgsProcessingParameterFileDestination("OUTPUT", "Table", "CSV files (*.csv)")
        return shared.described(table, "The areas as CSV.")

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        page = QgsProcessingUtils.generateTempFilename("areas.html")
        with open(page, "w", encoding="utf-8") as file:
            file.write(areas_page(self._title, values["areas"]))
        return {"OUTPUT": output, "PAGE": page}


class Refine(MapAlgorithm, LandUseAlgorithm):
    """``rssc-geo refine``."""

    NAME = "refine"
    COMMAND = "refine"
    TITLE = "Refine a map"
    LAYERS = MappingProxyType({"OUTPUT": "landuse", "CELLS": "cells"})
    TAGS = "legend crosswalk corine anderson generalize smooth majority filter"
    HELP = (
        "Makes another map of a map's cells, without raster or model: told in another legend, with"
        " fewer classes, smoother, or without small regions."
    )


def areas_page(title: str, rows: list[dict[str, Any]]) -> str:
    """The table of areas as a page: a row a class and zone, in hectares and shares of the zone."""
    lines = [
        f"<tr><td>{html.escape(str(row['zone']))}</td><td>{html.escape(row['name'])}</td>"
        f"<td align='right'>{row['area_m2'] / 1e4:,.2f}</td>"
        f"<td align='right'>{row['share']:.1%}</td></tr>"
        for row in rows
    ]
    return (
        f"<html><head><meta charset='utf-8'><title>{html.escape(title)}</title></head><body>"
        f"<h2>{html.escape(title)}</h2><table cellpadding='4'><tr><th align='left'>Zone</th>"
        "<th align='left'>Class</th><th align='right'>Area, ha</th><th align='right'>Share</th>"
        f"</tr>{''.join(lines)}</table></body></html>\n"
    )


def _file_of(layer: QgsVectorLayer | None, title: str) -> str:
    """The file of a layer; raises ``QgsProcessingException`` where it has none."""
    path = "" if layer is None else layer.source().split("|")[0]
    if not os.path.isfile(path):
        raise QgsProcessingException(
            f"{title}: choose a layer that is a file on this computer. Save another one first"
            " (Export ▸ Save Features As…)."
        )
    if layer.isEditable() and layer.isModified():
        raise QgsProcessingException(
            f"{title}: the layer '{layer.name()}' has changes that are not saved. Save them first."
        )
    return os.path.abspath(path)


def _layer_name(layer: QgsVectorLayer) -> str:
    """The layer of its file, '' where the file is the layer."""
    for part in layer.source().split("|")[1:]:
        key, _, value = part.partition("=")
        if key == "layername":
            return value
    return ""
