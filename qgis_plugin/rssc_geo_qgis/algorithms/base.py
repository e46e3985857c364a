"""What all algorithms do: read the parameters, run ``rssc-geo`` as a child, report, clean up."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterCrs,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingUtils,
)
from qgis.PyQt.QtGui import QIcon

from .. import results, settings
from ..backend import BackendError, find_backend
from ..command import run_command
from ..inputs import RasterInput, crs_text, read_raster, render, rendered_size, write_polygons
from . import parameters as shared

# Turned into arguments by methods of their own, as destinations are; every other parameter is the
# option of its name.
_NO_OPTION = frozenset({"INPUT", "AOI", "EXTENT", "RESOLUTION", "LABELS", "AT", "CLASSES"})


class RsscAlgorithm(QgsProcessingAlgorithm):
    """One command of ``rssc-geo``.

    Subclasses name it, list its parameters and say what became of the result.
    """

    NAME = ""
    COMMAND = ""
    TITLE = ""
    GROUP = ""
    TAGS = ""
    HELP = ""
    NEEDS: tuple[str, ...] = ()
    """Options without which the command is of no use here.

    An older backend may have the command for something else.
    """
    SUFFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType({"OUTPUT": ()})
    """What the name of each destination may end with; nothing: it is a folder."""

    def __init__(self) -> None:
        super().__init__()
        self._raster: RasterInput | None = None

    # What QGIS asks of an algorithm.

    def createInstance(self) -> QgsProcessingAlgorithm:
        return type(self)()

    def name(self) -> str:
        return self.NAME

    def displayName(self) -> str:
        return self.TITLE

    def group(self) -> str:
        return self.GROUP

    def groupId(self) -> str:
        return self.GROUP.lower().replace(" ", "")

    def tags(self) -> list[str]:
        return self.TAGS.split()

    def shortHelpString(self) -> str:
        return self.HELP

    def icon(self) -> QIcon:
        return QIcon(os.path.join(os.path.dirname(__file__), "..", "icons", f"{self.NAME}.svg"))

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        raster = QgsProcessingParameterRasterLayer("INPUT", "Raster layer")
        self.addParameter(
            shared.described(
                raster, "A raster file or URL; a WMS, WMTS or XYZ layer with an extent."
            )
        )
        for parameter in self.parameters():
            self.addParameter(parameter)

    def canExecute(self) -> tuple[bool, str]:
        try:
            find_backend().require(self.COMMAND, self.NEEDS)
        except BackendError as error:
            return False, str(error)
        return True, ""

    def checkParameterValues(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> tuple[bool, str]:
        good, message = super().checkParameterValues(parameters, context)
        if not good:
            return good, message
        try:
            raster = self._read_raster(parameters, context)
            window = self._window(parameters, context, raster)
            if raster.picture is not None:
                rendered_size(raster, *window)
            for destination, suffixes in self.SUFFIXES.items():
                path = self.parameterAsFileOutput(parameters, destination, context)
                if path:  # an optional one may be left out
                    self.check_destination(path, suffixes, context)
        except QgsProcessingException as error:
            return False, str(error)
        return True, ""

    def prepareAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> bool:
        # Layers belong to the main thread, on which QGIS calls this; the run itself may be on
        # another.
        self._raster = self._read_raster(parameters, context)
        return True

    def processAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> dict[str, Any]:
        output = self.output_path(parameters, context)
        try:
            backend = find_backend()
            backend.require(self.COMMAND, self.NEEDS)
        except BackendError as error:
            raise QgsProcessingException(str(error)) from error
        work = tempfile.mkdtemp(dir=QgsProcessingUtils.tempFolder())
        values = None
        try:
            arguments = self._arguments(parameters, context, feedback, work)
            if not feedback.isCanceled():
                values = run_command(
                    backend, [self.COMMAND, *arguments, *self.output_arguments(output)], feedback
                )
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if values is None:
                self._tidy(output, feedback)
        return {} if values is None else self.results(values, output, context)

    # What a subclass says.

    def parameters(self) -> shared.Parameters:
        """The parameters after INPUT."""
        raise NotImplementedError

    def raster_arguments(self, source: str) -> list[str]:
        """The raster on the command line."""
        return [source]

    def output_arguments(self, output: str) -> list[str]:
        """The result on the command line."""
        return ["-o", output]

    def more_arguments(
        self, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> list[str]:
        """Arguments that are not one option a parameter.

        ``work`` is a folder for files that last as long as the run.
        """
        return []

    def check_destination(
        self, path: str, suffixes: tuple[str, ...], context: QgsProcessingContext
    ) -> None:
        """Raise ``QgsProcessingException`` for a name that ends otherwise, or a file that a layer of the project reads."""
        if suffixes and not path.lower().endswith(suffixes):
            raise QgsProcessingException(
                f"The output '{path}' is not a file ending in {' or '.join(suffixes)}."
            )
        layer = results.open_layer_of(context.project(), path)
        if layer:
            raise QgsProcessingException(
                f"{path} is open in this project as the layer '{layer}'. Remove the layer, or"
                " choose another name."
            )

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        """The outputs for QGIS, from what the backend printed last."""
        return {"OUTPUT": output}

    # How.

    @property
    def raster(self) -> RasterInput:
        """The raster of this run."""
        if self._raster is None:
            raise QgsProcessingException("The run was not prepared.")
        return self._raster

    def _read_raster(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> RasterInput:
        layer = self.parameterAsRasterLayer(parameters, "INPUT", context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, "INPUT"))
        return read_raster(layer)

    def output_path(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        """The output file's or folder's full name."""
        return os.path.abspath(self.parameterAsFileOutput(parameters, "OUTPUT", context))

    def _window(
        self, parameters: dict[str, Any], context: QgsProcessingContext, raster: RasterInput
    ) -> tuple[Any, float]:
        if raster.picture is not None and self.parameterDefinition("EXTENT") is None:
            raise QgsProcessingException(
                f"'{raster.title}' is an online layer. Save it as a GeoTIFF first (Layer ▸ Save"
                " As…)."
            )
        extent = self.parameterAsExtent(parameters, "EXTENT", context, raster.crs)
        if parameters.get("EXTENT") not in (None, "") and extent.isEmpty():
            raise QgsProcessingException(
                "The extent is empty, as that of a map canvas is that shows nothing yet. Choose one"
                " again, or leave it out."
            )
        return extent, self.parameterAsDouble(parameters, "RESOLUTION", context)

    def _arguments(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        work: str,
    ) -> list[str]:
        raster, source = self.raster, self.raster.source
        arguments = []
        extent, resolution_m = self._window(parameters, context, raster)
        if raster.picture is not None:
            source = os.path.join(work, "picture.tif")
            render(raster, extent, resolution_m, source, feedback)
        elif not extent.isNull():
            corners = (extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum())
            arguments += ["--bounds=" + ",".join(f"{value:.15g}" for value in corners)]
        if raster.assume_crs:
            arguments += ["--assume-crs", raster.assume_crs]
        area = self.parameterAsSource(parameters, "AOI", context)
        if area is not None:
            path = os.path.join(work, "aoi.gpkg")
            write_polygons(area, path, area.sourceName())
            arguments += ["--aoi", path]
        for definition in self.parameterDefinitions():
            if definition.name() not in _NO_OPTION and not definition.isDestination():
                arguments += self._option(definition, parameters, context)
        return [
            *self.raster_arguments(source),
            *arguments,
            *self.more_arguments(parameters, context, work),
        ]

    def _option(
        self,
        definition: QgsProcessingParameterDefinition,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
    ) -> list[str]:
        """The option of a parameter's name, left out where the backend's own default is meant."""
        name = definition.name()
        option = "--" + name.lower().replace("_", "-")
        if isinstance(definition, QgsProcessingParameterBoolean):
            return [option] if self.parameterAsBool(parameters, name, context) else []
        if isinstance(definition, QgsProcessingParameterCrs):
            crs = self.parameterAsCrs(parameters, name, context)
            return [option, crs_text(crs)] if crs.isValid() else []
        if isinstance(definition, QgsProcessingParameterNumber):
            if parameters.get(name) is None:
                return []
            value = f"{self.parameterAsDouble(parameters, name, context):.15g}"
            default = definition.defaultValue()
            return (
                []
                if default is not None and float(value) == float(default)
                else [f"{option}={value}"]
            )
        value = self.parameterAsString(parameters, name, context).strip()
        if name == "DEVICE":
            value = value or settings.get(settings.DEVICE)
        return [f"{option}={value}"] if value and value != definition.defaultValue() else []

    def _tidy(self, output: str, feedback: QgsProcessingFeedback) -> None:
        """After a run that did not finish.

        What the next can go on from stays beside a named output, all else goes.
        """
        temporary = os.path.realpath(output).startswith(
            os.path.realpath(QgsProcessingUtils.tempFolder())
        )
        for path in glob.glob(glob.escape(output) + ".part*"):
            if os.path.isdir(path):  # a result that is a folder is begun anew
                shutil.rmtree(path, ignore_errors=True)
            elif temporary:
                with contextlib.suppress(
                    OSError
                ):  # the reason why the run ended is what the user has to see
                    os.remove(path)
            else:
                feedback.pushInfo(
                    f"What was done is kept in {path}: run again with the same output to go on."
                )
