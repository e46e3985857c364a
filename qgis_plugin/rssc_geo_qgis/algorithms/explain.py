"""Explain the class of a cell."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingOutputHtml,
    QgsProcessingOutputRasterLayer,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterFolderDestination,
)

from .. import results
from ..i18n import tr
from ..options import Option
from ..pages import page
from . import parameters as shared
from .base import RsscAlgorithm


class Explain(RsscAlgorithm):
    """``rssc-geo explain`` for the cell under one point."""

    NAME = "explain"
    COMMAND = "explain"
    TITLE = "Explain"
    GROUP = "landuse"
    TAGS = tr("explanation heat map attention saliency ai")
    NEEDS = ("--at", "--output")
    # The cell is chosen by one point, in the raster's CRS.
    LEFT_OUT = frozenset({"at_crs", "result", "cells", "where", "aoi", "bounds"})
    HELP = tr(
        "Shows which parts of the tile at a point are evidence for its class and "
        "which against it: a heat map over the raster (orange: for, blue: "
        "against), and a page with the tile, the class, and the words of its "
        "caption.<br><br>Use the options of the classification that you want "
        "explained."
    )

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        super().initAlgorithm(configuration)
        self.addOutput(QgsProcessingOutputRasterLayer("HEAT_MAP", tr("Heat map")))
        self.addOutput(QgsProcessingOutputHtml("PAGE", tr("Explanation")))

    def destination(self) -> QgsProcessingParameterDefinition:
        folder = QgsProcessingParameterFolderDestination("OUTPUT", tr("Folder of the explanation"))
        return shared.described(folder, tr("Holds the heat map, the picture and the page."))

    def option_value(
        self, option: Option, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> Any:
        if option.name != "at":
            return super().option_value(option, parameters, context, work)
        point = self.parameterAsPoint(parameters, "AT", context, self.raster.crs)
        return f"{point.x():.15g},{point.y():.15g}"

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        cell = values["cells"][0]
        heat_map = os.path.join(output, cell["heat_map"])
        path = os.path.join(output, "explanation.html")
        caption, panel = html.escape(cell["caption"]), html.escape(cell["panel"])
        with open(path, "w", encoding="utf-8") as file:
            title = f"{cell['class']}, {cell['confidence']:.0%}"
            file.write(page(title, f"<p>{caption}</p><img src='{panel}' width='900'>"))
        group = results.RunGroup.of(self.raster.title, tr("explained"))
        results.load_heat_map(
            context, heat_map, tr("Evidence for {name}").format(name=cell["class"]), group
        )
        return {"OUTPUT": output, "HEAT_MAP": heat_map, "PAGE": path}
