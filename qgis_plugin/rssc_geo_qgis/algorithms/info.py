"""Raster info."""

from __future__ import annotations

import html
from types import MappingProxyType
from typing import Any

from qgis.core import QgsProcessingContext, QgsProcessingParameterDefinition

from ..i18n import tr
from ..pages import page
from . import parameters as shared
from .base import RsscAlgorithm


class Info(RsscAlgorithm):
    """``rssc-geo info``."""

    NAME = "info"
    COMMAND = "info"
    TITLE = tr("Raster info")
    GROUP = "landuse"
    TAGS = tr("information bands mask crs resolution tiles plan")
    HELP = tr(
        "Shows how Classify scene would read a raster: bands, mask, CRS, meters "
        "a pixel, scaling, tiles, and the estimated time. Nothing is classified."
    )
    SUFFIXES = MappingProxyType({"OUTPUT": shared.HTML})

    def destination(self) -> QgsProcessingParameterDefinition:
        report = shared.html_file("OUTPUT", tr("Raster info"))
        return shared.described(
            report, tr("A page with the findings, shown in the results viewer.")
        )

    def output_arguments(self, output: str) -> list[str]:
        return []

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        rows = "".join(
            f"<tr><th align='left'>{html.escape(name.replace('_', ' '))}</th>"
            f"<td>{_shown(value)}</td></tr>"
            for name, value in values.items()
        )
        with open(output, "w", encoding="utf-8") as file:
            file.write(page(self.raster.title, f"<table cellpadding='4'>{rows}</table>"))
        return {"OUTPUT": output}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ("<br>" if any(isinstance(item, str) for item in value) else ", ").join(
            _shown(item) for item in value
        )
    if isinstance(value, dict):
        return "<br>".join(
            f"{html.escape(str(key))}: {_shown(item)}" for key, item in value.items()
        )
    return f"{value:.6g}" if isinstance(value, float) else html.escape(str(value))
