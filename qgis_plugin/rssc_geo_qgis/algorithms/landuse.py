"""What the algorithms that make a land-use map give.

Its layers, a page about them, a raster of classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterDestination,
)

from .. import results
from . import parameters as shared
from .polygons import PolygonAlgorithm


class LandUseAlgorithm(PolygonAlgorithm):
    """Adds OUTPUT (regions), SCENES (cells) and, where they are asked for, REVIEW_LAYER, REPORT and CLASS_RASTER."""

    SUFFIXES = MappingProxyType(
        {
            "OUTPUT": (".gpkg", ".fgb", ".geojson", ".shp"),
            "REPORT": shared.HTML,
            "CLASS_RASTER": (".tif", ".tiff"),
        }
    )
    LAYERS = MappingProxyType({"OUTPUT": "landuse", "CELLS": "cells", "REVIEW_LAYER": "review"})
    OUTPUT_HELP = (
        "A GeoPackage holds all layers with their styles; other formats get more files, such as"
        " x_cells."
    )

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        super().initAlgorithm(configuration)
        optional = {"optional": True, "createByDefault": False}
        page = QgsProcessingParameterFileDestination(
            "REPORT", "Report", "HTML files (*.html)", **optional
        )
        raster = QgsProcessingParameterRasterDestination(
            "CLASS_RASTER", results.TITLES["classes"], **optional
        )
        self.addParameter(
            shared.described(
                page,
                "A page to send: map, areas, examples, doubtful tiles; also shown in the results"
                " viewer.",
            )
        )
        self.addParameter(
            shared.described(raster, "A GeoTIFF with one pixel a cell: the class_id of its class.")
        )

    def check_destination(
        self, path: str, suffixes: tuple[str, ...], context: QgsProcessingContext
    ) -> None:
        super().check_destination(path, suffixes, context)
        for file in (
            results.layer_files(path).values() if suffixes == self.SUFFIXES["OUTPUT"] else ()
        ):
            super().check_destination(file, suffixes, context)

    def more_arguments(
        self, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> list[str]:
        # Asked once a run: a temporary output gets another name each time.
        self._page = self.parameterAsFileOutput(parameters, "REPORT", context)
        self._classes = self.parameterAsOutputLayer(parameters, "CLASS_RASTER", context)
        wanted = {"--report": self._page, "--class-raster": self._classes}
        return [f"{option}={os.path.abspath(path)}" for option, path in wanted.items() if path]

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        found = super().results(values, output, context)
        if self._page:
            found["REPORT"] = os.path.abspath(self._page)
        if self._classes:
            found["CLASS_RASTER"] = os.path.abspath(self._classes)
            names = {entry["id"]: entry["name"] for entry in values["classes"]}
            results.load_class_raster(
                context, self._classes, found["CLASS_RASTER"], names, self.raster.title
            )
        return found
