"""The Processing provider "RSSC Geo"."""

from __future__ import annotations

import os

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms.archive import Embed, Index, Search
from .algorithms.caption import Caption
from .algorithms.change import Change
from .algorithms.classify import Classify
from .algorithms.explain import Explain
from .algorithms.finished import Areas, AssessAccuracy, AssessSample, Refine
from .algorithms.info import Info
from .algorithms.train import Train
from .algorithms.zeroshot import ZeroShot
from .i18n import tr


class RsscGeoProvider(QgsProcessingProvider):
    """Always lists all algorithms, so that saved models keep working.

    Each says itself what it misses.
    """

    def id(self) -> str:
        return "rsscgeo"

    def name(self) -> str:
        return "RSSC Geo"

    def longName(self) -> str:
        return tr("RSSC Geo: land-use maps by scene classification with words")

    def icon(self) -> QIcon:
        return QIcon(os.path.join(os.path.dirname(__file__), "icons", "rssc_geo.svg"))

    def loadAlgorithms(self) -> None:
        made = (Classify, ZeroShot, Caption, Explain, Info, Train)
        archive = (Embed, Index, Search)
        for algorithm in (*made, *archive, Change, AssessSample, AssessAccuracy, Areas, Refine):
            self.addAlgorithm(algorithm())

    def supportedOutputVectorLayerExtensions(self) -> list[str]:
        return ["gpkg", "fgb", "geojson", "shp"]

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        return ["tif"]

    def supportsNonFileBasedOutput(self) -> bool:
        return False
