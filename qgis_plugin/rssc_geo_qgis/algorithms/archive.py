"""An archive of scenes: made of rasters, and searched by words and examples."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessing,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterPoint,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsRectangle,
)

from .. import settings
from ..i18n import tr
from ..inputs import RasterInput, bounds_text, read_together
from ..results import Classes
from . import parameters as shared
from .base import RsscAlgorithm
from .polygons import PolygonAlgorithm

_CARD = "archive.json"
_EXAMPLES = ("LIKE", "UNLIKE")


class Embed(RsscAlgorithm):
    """``rssc-geo embed`` of one raster."""

    NAME = "embed"
    COMMAND = "embed"
    GROUP = "archive"
    TITLE = tr("Embeddings of a scene")
    TAGS = tr("embedding vector feature foundation model parquet ai")
    SUFFIXES = MappingProxyType({"OUTPUT": (".parquet",)})
    HELP = tr(
        "Writes a table (GeoParquet) of the cells of a raster: class, caption, outline, and a"
        " vector in the space that pictures and words share. GeoPandas and DuckDB read it."
    )

    def destination(self) -> QgsProcessingParameterDefinition:
        table = QgsProcessingParameterFileDestination(
            "OUTPUT", tr("Embeddings"), tr("GeoParquet files (*.parquet)")
        )
        return shared.described(table, tr("One row per cell."))


class Index(RsscAlgorithm):
    """``rssc-geo index`` of layers."""

    NAME = "index"
    COMMAND = "index"
    GROUP = "archive"
    TITLE = tr("Make an archive to search")
    TAGS = tr("index archive embedding vector database retrieval ai")
    # Of clusters and of lists of files, which the command line is for; bounds are of one raster.
    LEFT_OUT = frozenset({"asset", "scheduler", "attempts", "retry_failed", "threads", "bounds"})
    HELP = tr(
        "Classifies and describes rasters and keeps their cells in an archive, a "
        "folder in which <b>Search archive</b> finds what fits words or an "
        "example.<br><br>Choose the same folder again to add rasters: only new "
        "or changed rasters are read."
    )

    def __init__(self) -> None:
        super().__init__()
        self._rasters: list[RasterInput] = []

    def input(self) -> QgsProcessingParameterDefinition:
        kind = QgsProcessing.SourceType.TypeRaster
        layers = QgsProcessingParameterMultipleLayers("INPUT", tr("Raster layers"), kind)
        return shared.described(layers, tr("Raster files or URLs. Each is one scene."))

    def destination(self) -> QgsProcessingParameterDefinition:
        folder = QgsProcessingParameterFolderDestination("OUTPUT", tr("Archive"))
        return shared.described(folder, tr("A new folder, or an archive to add to."))

    def check_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        self.read_input(parameters, context)

    def read_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        self._rasters = read_together(
            self.parameterAsLayerList(parameters, "INPUT", context), kept=True
        )
        self._raster = self._rasters[0]

    def input_arguments(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        work: str,
    ) -> list[str]:
        return [raster.source for raster in self._rasters]

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        settings.put(settings.ARCHIVE, output)
        return super().results(values, output, context)


class Search(PolygonAlgorithm):
    """``rssc-geo search`` for words, an example, or both."""

    NAME = "search"
    COMMAND = "search"
    GROUP = "archive"
    TITLE = tr("Search archive")
    TAGS = tr("search find similar like text words image retrieval archive ai")
    # Layers and places of the map stand for them.
    LEFT_OUT = frozenset(
        {"like", "at", "like_area", "unlike", "unlike_at", "at_crs", "bounds", "overwrite"}
    )
    SUFFIXES = MappingProxyType({"OUTPUT": (".gpkg",)})
    LAYERS = MappingProxyType({"OUTPUT": "hits"})
    OUTPUT_HELP = tr("A GeoPackage of the cells found, with their styles.")
    HELP = tr(
        "Finds the cells of an archive that fit words (<i>airport with many planes</i>), an example"
        " on a raster, or both; the best have the first ranks.<br><br>The example is the cell at a"
        " point, the cells in polygons, or the whole raster, which need not be in the archive."
        " <i>More like this</i> on a feature of the result (Identify, or its form) searches again,"
        " by that cell."
    )

    def __init__(self) -> None:
        super().__init__()
        self._archive, self._title = "", ""
        self._examples: dict[str, RasterInput] = {}
        self._sources: dict[str, str] = {}

    def input(self) -> QgsProcessingParameterDefinition:
        archive = QgsProcessingParameterFile(
            "INPUT",
            tr("Archive"),
            QgsProcessingParameterFile.Behavior.Folder,
            defaultValue=settings.get(settings.ARCHIVE) or None,
        )
        return shared.described(archive, tr("The folder that Make an archive to search wrote."))

    def parameters(self) -> shared.Parameters:
        def raster(name: str, title: str) -> QgsProcessingParameterDefinition:
            return QgsProcessingParameterRasterLayer(name, title, optional=True)

        def point(name: str, title: str) -> QgsProcessingParameterDefinition:
            return QgsProcessingParameterPoint(name, title, optional=True)

        words = QgsProcessingParameterString("WORDS", tr("Words"), optional=True)
        extent = QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True)
        area = shared.polygons("LIKE_AREA", tr("Area of the example"), optional=True)
        at_help = tr("A place in the cell, in any CRS.")
        return [
            shared.described(words, tr("What is looked for, in a simple sentence.")),
            shared.described(raster("LIKE", tr("Example")), tr("A raster that shows it.")),
            shared.described(point("AT", tr("Point of the example")), at_help),
            shared.described(area, tr("The cells in these polygons are the example.")),
            shared.described(extent, tr("Only cells that touch this rectangle.")),
            shared.advanced(
                shared.described(
                    raster("UNLIKE", tr("Counterexample")),
                    tr("A raster that shows what is not looked for."),
                )
            ),
            shared.advanced(
                shared.described(point("UNLIKE_AT", tr("Point of the counterexample")), at_help)
            ),
        ]

    def check_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        archive = self.parameterAsString(parameters, "INPUT", context)
        if not os.path.isfile(os.path.join(archive, _CARD)):
            raise QgsProcessingException(
                tr(
                    "Archive: '{archive}' is no archive. Choose a folder that Make an archive to "
                    "search wrote."
                ).format(archive=archive)
            )
        examples = self._read_examples(parameters, context)
        words = self.parameterAsString(parameters, "WORDS", context).strip()
        if not words and "LIKE" not in examples:
            raise QgsProcessingException(tr("Enter what to look for: Words, an Example, or both."))
        for place, example in (("AT", "LIKE"), ("LIKE_AREA", "LIKE"), ("UNLIKE_AT", "UNLIKE")):
            if parameters.get(place) not in (None, "") and example not in examples:
                raise QgsProcessingException(
                    tr("{place}: choose the raster on which it lies.").format(
                        place=self.parameterDefinition(place).description()
                    )
                )

    def read_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        self._archive = os.path.abspath(self.parameterAsString(parameters, "INPUT", context))
        self._examples = self._read_examples(parameters, context)

    def input_arguments(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        work: str,
    ) -> list[str]:
        words = self.parameterAsString(parameters, "WORDS", context).strip().lstrip("-")
        whole = (QgsRectangle(), 1.0)
        self._sources = {
            name: self.source_of(raster, whole, feedback, work)
            for name, raster in self._examples.items()
        }
        example = self._examples.get("LIKE")
        self._title = words or tr("like {example}").format(example=example.title)
        return [self._archive, *([words] if words else [])]

    def more_arguments(
        self, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> list[str]:
        found = []
        for name, raster in self._examples.items():
            found.append(f"--{name.lower()}={self._sources[name]}")
            place = {"LIKE": "AT", "UNLIKE": "UNLIKE_AT"}[name]
            if parameters.get(place) not in (None, ""):
                point = self.parameterAsPoint(parameters, place, context, raster.crs)
                option = place.lower().replace("_", "-")
                found.append(f"--{option}={point.x():.15g},{point.y():.15g}")
        area = self.parameterAsSource(parameters, "LIKE_AREA", context)
        if area is not None:
            path = self.polygons_file(area, os.path.join(work, "example.gpkg"))
            found.append(f"--like-area={path}")
        lonlat = QgsCoordinateReferenceSystem("EPSG:4326")
        extent = self.parameterAsExtent(parameters, "EXTENT", context, lonlat)
        if not extent.isNull():
            found.append(f"--bounds={bounds_text(extent)}")
        return found

    def input_title(self) -> str:
        return os.path.basename(self._archive)

    def model_title(self, values: Mapping[str, Any]) -> str:
        return self._title

    def classes(self, values: Mapping[str, Any]) -> Classes:
        return [{"name": name} for name in {hit["class"] for hit in values["hits"]}]

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        settings.put(settings.ARCHIVE, self._archive)
        return super().results(values, output, context)

    def _read_examples(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> dict[str, RasterInput]:
        """The rasters of the examples, by parameter; ``QgsProcessingException`` for unfit ones."""
        found = {}
        for name in _EXAMPLES:
            layer = self.parameterAsRasterLayer(parameters, name, context)
            if layer is not None:
                (found[name],) = read_together([layer])
                if found[name].assume_crs:
                    raise QgsProcessingException(
                        tr(
                            "The CRS of '{name}' was chosen in QGIS and is not that of its file."
                            " Save it as a GeoTIFF first (Layer ▸ Save As…)."
                        ).format(name=layer.name())
                    )
        return found
