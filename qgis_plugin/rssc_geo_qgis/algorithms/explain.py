"""Explain what a class was decided by."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingOutputHtml,
    QgsProcessingOutputRasterLayer,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterPoint,
)

from .. import results
from . import parameters as shared
from .base import RsscAlgorithm


class Explain(RsscAlgorithm):
    """``rssc-geo explain`` for the cell under one point."""

    NAME = "explain"
    COMMAND = "explain"
    TITLE = "Explain"
    GROUP = "Land use"
    TAGS = "explanation heat map attention saliency ai"
    NEEDS = ("--at", "--output")
    HELP = (
        "Shows what in the tile at a point spoke for its class and what against it: a heat map over"
        " the raster (orange: for, blue: against), and a page with the tile, the class, and the"
        " words of its caption.<br><br>Use the options of the classification that you want"
        " explained."
    )

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        super().initAlgorithm(configuration)
        self.addOutput(QgsProcessingOutputRasterLayer("HEAT_MAP", "Heat map"))
        self.addOutput(QgsProcessingOutputHtml("PAGE", "Explanation"))

    def parameters(self) -> shared.Parameters:
        folder = QgsProcessingParameterFolderDestination("OUTPUT", "Folder of the explanation")
        return [
            shared.described(
                QgsProcessingParameterPoint("AT", "Point"), "A place in the tile, in any CRS."
            ),
            *shared.tiling(),
            shared.model(),
            shared.captioner(),
            shared.device(),
            shared.described(folder, "Holds the heat map, the picture and the page."),
        ]

    def more_arguments(
        self, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> list[str]:
        point = self.parameterAsPoint(parameters, "AT", context, self.raster.crs)
        return [f"--at={point.x():.15g},{point.y():.15g}"]

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        cell = values["cells"][0]
        heat_map, page = (
            os.path.join(output, cell["heat_map"]),
            os.path.join(output, "explanation.html"),
        )
        title = html.escape(f"{cell['class']}, {cell['confidence']:.0%}")
        with open(page, "w", encoding="utf-8") as file:
            file.write(
                "<html><head><meta"
                f" charset='utf-8'><title>{title}</title></head><body><h2>{title}</h2><p>{html.escape(cell['caption'])}</p><img"
                f" src='{html.escape(cell['panel'])}' width='900'></body></html>\n"
            )
        results.load_heat_map(context, heat_map, f"Evidence for {cell['class']}", self.raster.title)
        return {"OUTPUT": output, "HEAT_MAP": heat_map, "PAGE": page}
