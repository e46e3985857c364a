"""Base of all algorithms: read the parameters, run ``rssc-geo`` as a child, report, clean up."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterCrs,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingUtils,
    QgsRectangle,
)
from qgis.PyQt.QtGui import QIcon

from .. import results, settings
from ..backend import BackendError, check_known, find_backend, options_in_use
from ..command import run_command
from ..i18n import tr
from ..inputs import (
    RasterInput,
    bounds_text,
    crs_text,
    no_file,
    read_raster,
    window_of,
    write_polygons,
    write_raster,
)
from ..labels import plain_name
from ..metadata import help_page
from ..options import Option
from . import parameters as shared

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_GROUPS = {"landuse": tr("Land use"), "models": tr("Models"), "archive": tr("Archive")}


class RsscAlgorithm(QgsProcessingAlgorithm):
    """One command of ``rssc-geo``.

    Its options are the parameters. Subclasses name the command, add the parameters that stand for
    its arguments, and describe the result.
    """

    NAME = ""
    COMMAND = ""
    OPTIONS = ""
    """Key of its options, where that is not the command: a command may have two forms."""
    LEFT_OUT: frozenset[str] = frozenset()
    """Options of the command that are not needed here."""
    TITLE = ""
    GROUP = ""
    TAGS = ""
    HELP = ""
    NEEDS: tuple[str, ...] = ()
    """Options that the command must have.

    An older backend may have the command for something else.
    """
    SUFFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType({"OUTPUT": ()})
    """Suffixes of each destination, except those that are options.

    Nothing: it is a folder.
    """

    def __init__(self) -> None:
        super().__init__()
        self._raster: RasterInput | None = None
        self.files: dict[str, str] = {}
        """The destinations of this run that are options, by parameter; those asked for alone."""
        self.titles: dict[str, str] = {}
        """What the files that this run writes for the backend are called in QGIS."""
        self._offered: tuple[Option, ...] = ()
        """The options that the parameters were made from: those of the program known then."""

    # Methods that QGIS calls.

    def createInstance(self) -> QgsProcessingAlgorithm:
        return type(self)()

    def name(self) -> str:
        return self.NAME

    def displayName(self) -> str:
        return self.TITLE

    def group(self) -> str:
        return _GROUPS[self.GROUP]

    def groupId(self) -> str:
        return self.GROUP

    def tags(self) -> list[str]:
        return self.TAGS.split()

    def shortHelpString(self) -> str:
        return self.HELP

    def helpUrl(self) -> str:
        return help_page()

    def icon(self) -> QIcon:
        return QIcon(os.path.join(os.path.dirname(__file__), "..", "icons", f"{self.NAME}.svg"))

    def initAlgorithm(self, configuration: Mapping[str, Any] | None = None) -> None:
        parameters, files = [], []
        self._offered = self.options()
        for option in shared.in_order(self._offered):
            if option.name not in shared.FROM_LAYER:
                parameter = shared.parameter_of(option)
                (files if parameter.isDestination() else parameters).append(parameter)
                if parameter.name() == "EXTENT":
                    parameters.append(shared.resolution())
        for parameter in (
            self.input(),
            *self.parameters(),
            *parameters,
            self.destination(),
            *files,
        ):
            self.addParameter(parameter)

    def canExecute(self) -> tuple[bool, str]:
        try:
            check_known(self.COMMAND, self.NEEDS)
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
            self.check_input(parameters, context)
            for destination, suffixes in self._suffixes().items():
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
        self.read_input(parameters, context)
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
                line = [*self.command_words(), *arguments, *self.output_arguments(output)]
                values = run_command(
                    backend, line, feedback, modes=self.modes(), reworded=self.reworded
                )
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if values is None:
                self._tidy(output, feedback)
        return {} if values is None else self.results(values, output, context)

    # Methods of subclasses.

    def input(self) -> QgsProcessingParameterDefinition:
        """The parameter INPUT."""
        return shared.described(
            QgsProcessingParameterRasterLayer("INPUT", tr("Raster layer")),
            tr(
                "A raster file, URL or virtual raster, of WCS or PostGIS too; a WMS, WMTS or XYZ"
                " layer with an extent."
            ),
        )

    def check_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        """Refuse an INPUT that cannot be used; raises ``QgsProcessingException``."""
        raster = self._read_raster(parameters, context)
        extent, resolution_m = self._window(parameters, context, raster)
        if raster.picture is not None:
            window_of(raster, extent, resolution_m)

    def read_input(self, parameters: dict[str, Any], context: QgsProcessingContext) -> None:
        """Keep what the run needs of INPUT; on QGIS's main thread."""
        self._raster = self._read_raster(parameters, context)

    def input_arguments(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        work: str,
    ) -> list[str]:
        """INPUT on the command line; what has no file is written into ``work``."""
        window = self._window(parameters, context, self.raster)
        return self.raster_arguments(self.source_of(self.raster, window, feedback, work))

    def input_title(self) -> str:
        """The name of INPUT, for the group of the results."""
        return self.raster.title

    def command_words(self) -> list[str]:
        """The command on the command line."""
        return [self.COMMAND]

    def modes(self) -> list[str] | None:
        """The modes of the command's output; None: those in its help."""
        return None

    def parameters(self) -> shared.Parameters:
        """The parameters after INPUT that are not options but arguments of the command."""
        return []

    def destination(self) -> QgsProcessingParameterDefinition:
        """The parameter OUTPUT."""
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
        """Arguments that are not options; ``work`` is a folder for files of this run."""
        return []

    def option_value(
        self, option: Option, parameters: dict[str, Any], context: QgsProcessingContext, work: str
    ) -> Any:
        """The value of an option in this run; None where the program's own default is meant."""
        if option.name == "assume_crs":
            return self.raster.assume_crs
        if option.name == "bounds":
            extent, _ = self._window(parameters, context, self.raster)
            if extent.isNull() or self.raster.picture is not None:
                return None
            return bounds_text(extent)
        if option.name == "aoi":
            area = self.parameterAsSource(parameters, "AOI", context)
            if area is None:
                return None
            return self.polygons_file(area, os.path.join(work, "aoi.gpkg"))
        value = self._value_by_type(option, parameters, context)
        if option.name in ("bands", "nodata") and value in (None, ""):
            return getattr(self.raster, option.name)
        return settings.get(settings.DEVICE) if option.name == "device" and not value else value

    def check_destination(
        self, path: str, suffixes: tuple[str, ...], context: QgsProcessingContext
    ) -> None:
        """Refuse a name that ends otherwise, and a file that a layer of the project reads.

        Raises ``QgsProcessingException``.
        """
        if suffixes and not path.lower().endswith(suffixes):
            raise QgsProcessingException(
                tr("The output '{path}' is not a file ending in {suffixes}.").format(
                    path=path, suffixes=tr(" or ").join(suffixes)
                )
            )
        layer = results.open_layer_of(context.project(), path)
        if layer:
            raise QgsProcessingException(
                tr(
                    "{path} is open in this project as the layer '{layer}'. Remove the layer, or"
                    " choose another name."
                ).format(path=path, layer=layer)
            )

    def results(
        self, values: dict[str, Any], output: str, context: QgsProcessingContext
    ) -> dict[str, Any]:
        """The outputs for QGIS, from what the backend printed last."""
        return {"OUTPUT": output, **self.files_made()}

    def files_made(self) -> dict[str, str]:
        """The files of this run that were asked for by options, by parameter."""
        return {name: os.path.abspath(path) for name, path in self.files.items()}

    # Implementation.

    def source_of(
        self,
        raster: RasterInput,
        window: tuple[QgsRectangle, float],
        feedback: QgsProcessingFeedback,
        work: str,
    ) -> str:
        """The file of a raster; of what has none, one in ``work`` with the layer's name.

        ``window``: the extent in the raster's CRS that is then written, a null one for all, and the
        meters a pixel of what has no pixels of its own.
        """
        if raster.picture is None:
            return raster.source
        path = os.path.join(tempfile.mkdtemp(dir=work), f"{plain_name(raster.title)}.tif")
        self.titles[path] = raster.title
        write_raster(raster, window_of(raster, *window), path, feedback)
        return path

    def polygons_file(
        self, source: QgsProcessingFeatureSource, path: str, fields: Sequence[str] = ()
    ) -> str:
        """Write polygons, with some of their fields, to a file that messages call by its layer.

        Returns its path.
        """
        self.titles[path] = source.sourceName()
        write_polygons(source, path, source.sourceName(), fields)
        return path

    def reworded(self, message: str) -> str:
        """A message of the backend in the words of the dialog: its fields, and names of layers."""
        for path, title in self.titles.items():
            message = message.replace(path, f"'{title}'")
        fields = {}
        for option in self.options():
            parameter = self.parameterDefinition(shared.parameter_name(option))
            if parameter is not None:
                fields[option.switch] = f"'{parameter.description()}'"
        return _OPTION.sub(lambda found: fields.get(found[0], found[0]), message)

    def options(self) -> tuple[Option, ...]:
        """The options of the command that a run may set.

        Options that delete files, override a refusal or run code are left to the command line.
        """
        return tuple(
            option
            for option in options_in_use(self.OPTIONS or self.COMMAND)
            if option.name not in self.LEFT_OUT and not option.commandline_only
        )

    @property
    def raster(self) -> RasterInput:
        """The raster of this run."""
        if self._raster is None:
            raise QgsProcessingException(tr("The run was not prepared."))
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
    ) -> tuple[QgsRectangle, float]:
        drawn = raster.picture is not None and raster.pixels is None
        if drawn and self.parameterDefinition("EXTENT") is None:
            raise no_file(raster)
        extent = self.parameterAsExtent(parameters, "EXTENT", context, raster.crs)
        if parameters.get("EXTENT") not in (None, "") and extent.isEmpty():
            raise QgsProcessingException(
                tr(
                    "The extent is empty; that of a map canvas is empty until a layer is "
                    "shown. Choose another one, or leave the field empty."
                )
            )
        return extent, self.parameterAsDouble(parameters, "RESOLUTION", context)

    def _arguments(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        work: str,
    ) -> list[str]:
        source = self.input_arguments(parameters, context, feedback, work)
        self.files = {}
        arguments = []
        known = {option.switch: option for option in self.options()}
        for option in self._offered:
            value = self.option_value(option, parameters, context, work)
            if option.switch in known:
                arguments += known[option.switch].arguments(value)
            elif option.arguments(value):
                raise self._lacks(option)
        return [
            *source,
            *arguments,
            *self.more_arguments(parameters, context, work),
        ]

    def _value_by_type(
        self, option: Option, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> Any:
        name = shared.parameter_name(option)
        definition = self.parameterDefinition(name)
        if definition.isDestination():
            return self._file_asked_for(definition, parameters, context)
        if isinstance(definition, QgsProcessingParameterBoolean):
            return self.parameterAsBool(parameters, name, context)
        if isinstance(definition, QgsProcessingParameterCrs):
            crs = self.parameterAsCrs(parameters, name, context)
            return crs_text(crs) if crs.isValid() else None
        if isinstance(definition, QgsProcessingParameterNumber):
            if parameters.get(name) is None:
                return None
            whole = definition.dataType() == QgsProcessingParameterNumber.Type.Integer
            read = self.parameterAsInt if whole else self.parameterAsDouble
            return read(parameters, name, context)
        if isinstance(definition, QgsProcessingParameterEnum):
            return self.parameterAsEnumString(parameters, name, context)
        text = self.parameterAsString(parameters, name, context).strip()
        return [line.strip() for line in text.splitlines()] if option.multiple else text

    def _file_asked_for(
        self,
        definition: QgsProcessingParameterDefinition,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
    ) -> str | None:
        # Asked once a run: a temporary output gets another name each time.
        name = definition.name()
        raster = isinstance(definition, QgsProcessingParameterRasterDestination)
        read = self.parameterAsOutputLayer if raster else self.parameterAsFileOutput
        path = read(parameters, name, context)
        if not path:
            return None
        self.files[name] = path
        return os.path.abspath(path)

    def _lacks(self, option: Option) -> QgsProcessingException:
        backend = find_backend()
        return QgsProcessingException(
            tr(
                "The backend at {program} is version {version} and has no '{field}': leave that"
                " field as it was, or install the version of the plugin (Plugins ▸ RSSC Geo ▸"
                " Install backend)."
            ).format(
                program=backend.program,
                version=backend.version,
                field=self.parameterDefinition(shared.parameter_name(option)).description(),
            )
        )

    def _suffixes(self) -> dict[str, tuple[str, ...]]:
        """Suffixes of each destination; empty: any."""
        found = dict(self.SUFFIXES)
        for option in self.options():
            definition = self.parameterDefinition(shared.parameter_name(option))
            if definition is not None and definition.isDestination():
                found[definition.name()] = shared.suffixes_of(option)
        return found

    def _tidy(self, output: str, feedback: QgsProcessingFeedback) -> None:
        """After a run that did not finish.

        Files from which the next run can continue stay beside a named output, the others are
        deleted.
        """
        temporary = os.path.realpath(output).startswith(
            os.path.realpath(QgsProcessingUtils.tempFolder())
        )
        for path in glob.glob(glob.escape(output) + ".part*"):
            if os.path.isdir(path):  # a result that is a folder is started again
                shutil.rmtree(path, ignore_errors=True)
            elif temporary:
                # The user has to see the reason why the run ended.
                with contextlib.suppress(OSError):
                    os.remove(path)
            else:
                feedback.pushInfo(
                    tr(
                        "The finished part is kept in {path}. Run again with the same output to "
                        "continue."
                    ).format(path=path)
                )
