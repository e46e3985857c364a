"""Outputs of the algorithms that make a land-use map.

Its layers, a page about them, a raster of classes.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from qgis.core import QgsProcessingContext

from .. import results
from ..i18n import tr
from .polygons import PolygonAlgorithm


class LandUseAlgorithm(PolygonAlgorithm):
    """Gives OUTPUT (regions) and CELLS, and what is asked for of REVIEW_LAYER and the files."""

    SUFFIXES = MappingProxyType({"OUTPUT": (".gpkg", ".fgb", ".geojson", ".shp")})
    LAYERS = MappingProxyType({"OUTPUT": "landuse", "CELLS": "cells", "REVIEW_LAYER": "review"})
    OUTPUT_HELP = tr(
        "A GeoPackage holds all layers with their styles; other formats get more"
        " files, such as x_cells."
    )

    def check_destination(
        self, path: str, suffixes: tuple[str, ...], context: QgsProcessingContext
    ) -> None:
        super().check_destination(path, suffixes, context)
        for file in (
            results.layer_files(path).values() if suffixes == self.SUFFIXES["OUTPUT"] else ()
        ):
            super().check_destination(file, suffixes, context)

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        found = super().results(values, output, context)
        if "CLASS_RASTER" in found:
            titles = {entry["id"]: entry["title"] for entry in values["classes"]}
            results.load_class_raster(
                context,
                self.files["CLASS_RASTER"],
                found["CLASS_RASTER"],
                titles,
                self.run_group,
            )
        return found
