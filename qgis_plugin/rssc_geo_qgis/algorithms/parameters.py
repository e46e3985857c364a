"""The parameters of the algorithms, made from the options of ``rssc-geo``.

Each option becomes a parameter of its type. ``OVERRIDES`` holds the widgets of QGIS: a layer, an
extent, a point or a destination instead of the text of the option.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from qgis.core import (
    QgsProcessing,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterCrs,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterPoint,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterString,
)

from ..i18n import tr
from ..options import Option

Parameters = list[QgsProcessingParameterDefinition]
Make = Callable[[str, str], QgsProcessingParameterDefinition]

FROM_LAYER = frozenset({"assume_crs"})
"""Options whose value is read from the raster layer: no parameters."""

HTML = (".html", ".htm")
SUFFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "HTML": HTML,
        "PNG": (".png",),
        "CSV": (".csv",),
        "PARQUET": (".parquet",),
        "JSON": (".json",),
        "FILE": (),
    }
)
"""What the name of an output file may end with, by the form of its option; empty: anything."""

_PLAIN_GROUPS = frozenset({"Input"})
"""Shown at once; the options of all other groups are among the advanced parameters."""
_OUTPUT_GROUP = "Output"
_SIZE = "SIZE"
_LAST_OF_SHOWN = ("bounds", "aoi", "cell_size", "model")
_WIDGETS = __name__.replace("algorithms.parameters", "widgets")
_OPTIONAL_DESTINATION = MappingProxyType({"optional": True, "createByDefault": False})


@dataclass(frozen=True)
class Override:
    """What QGIS has instead of an option's text.

    Attributes
    ----------
    name, title, help : of the parameter, where those made from the option do not fit
    make : makes the parameter from its name and title
    plain : shown at once
    suffixes : what the name of a destination ends with
    widget : the class in ``widgets`` that the dialog shows in place of a line of text
    """

    name: str = ""
    title: str = ""
    help: str = ""
    make: Make | None = None
    plain: bool = False
    suffixes: tuple[str, ...] = ()
    widget: str = ""


def polygons(name: str, title: str, *, optional: bool = False) -> QgsProcessingParameterDefinition:
    """A vector layer of polygons."""
    kinds = [QgsProcessing.SourceType.TypeVectorPolygon]
    return QgsProcessingParameterFeatureSource(name, title, kinds, optional=optional)


OVERRIDES: Mapping[str, Override] = MappingProxyType(
    {
        "aoi": Override(
            title=tr("Area of interest"),
            help=tr(
                "Only cells whose center lies in these polygons; 'Selected features only'"
                " narrows it further."
            ),
            make=lambda name, title: polygons(name, title, optional=True),
            plain=True,
        ),
        "cell_size": Override(plain=True),
        "model": Override(plain=True, widget="ModelWidget"),
        "captioner": Override(widget="CaptionerWidget"),
        "bands": Override(
            help=tr("Bands to use as red, green, blue; by default those that the layer shows."),
            widget="BandsWidget",
        ),
        # A text: a number of QGIS holds no whole numbers of 64 bits.
        "nodata": Override(
            make=lambda name, title: QgsProcessingParameterString(name, title, optional=True),
        ),
        "bounds": Override(
            name="EXTENT",
            title=tr("Extent"),
            help=tr(
                "Only cells whose center lies in this rectangle, for example the canvas"
                " extent. Online layers need it."
            ),
            make=lambda name, title: QgsProcessingParameterExtent(name, title, optional=True),
            plain=True,
        ),
        "at": Override(
            title=tr("Point"),
            help=tr("A place in the cell, in any CRS."),
            make=QgsProcessingParameterPoint,
            plain=True,
        ),
        "field": Override(
            title=tr("Field with the class"),
            help=tr("The column that names the class of a polygon."),
            make=lambda name, title: QgsProcessingParameterField(
                name, title, parentLayerParameterName="LABELS"
            ),
            plain=True,
        ),
        "class_words": Override(
            make=lambda name, title: QgsProcessingParameterFile(
                name, title, extension="json", optional=True
            ),
        ),
        "class_raster": Override(
            title=tr("Classes as raster"),
            help=tr(
                "A GeoTIFF with one pixel a cell, or finer where outlines follow the picture:"
                " the class_id of its class."
            ),
            make=lambda name, title: QgsProcessingParameterRasterDestination(
                name, title, **_OPTIONAL_DESTINATION
            ),
            suffixes=(".tif", ".tiff"),
        ),
        "review": Override(
            title=tr("Cells to review"),
            help=tr(
                "Also a layer of this number of cells, those whose labels would help a "
                "model most: fill in its field 'label' and train with it."
            ),
        ),
        "other": Override(
            title=tr("No class 'other'"), help=tr("Every tile gets one of the classes.")
        ),
        "no_unknown": Override(title=tr("No class 'Unknown'")),
        "adapt_shares": Override(title=tr("Adapt to the shares of the classes")),
        "smooth": Override(title=tr("No smoothing by neighboring cells")),
        "snap": Override(title=tr("Outlines follow the picture")),
        "areas": Override(title=tr("Table of areas")),
        "zone_field": Override(title=tr("Field of the zones' names")),
        "sample_size": Override(title=tr("Units to draw"), plain=True),
        "legend": Override(
            help=tr(
                "groups, anderson-1, anderson-2, corine-1, corine-2 or osm-landuse, or the"
                " JSON file of a crosswalk. Empty: the map's own classes."
            ),
        ),
        "only_classes": Override(title=tr("Only these classes")),
        "exclude_classes": Override(title=tr("Without these classes")),
        "crs": Override(title=tr("CRS of the result")),
        "device": Override(
            help=tr(
                "cpu, cuda, cuda:1 or mps. Empty: that of the settings, else the fastest there is."
            ),
            widget="DeviceWidget",
        ),
    }
)
_NONE = Override()


def parameter_name(option: Option) -> str:
    """The name of an option's parameter."""
    return OVERRIDES.get(option.name, _NONE).name or option.parameter


def suffixes_of(option: Option) -> tuple[str, ...]:
    """What the name of the file that an option asks for ends with; empty: anything."""
    return OVERRIDES.get(option.name, _NONE).suffixes or SUFFIXES.get(option.form, ())


def parameter_of(option: Option) -> QgsProcessingParameterDefinition:
    """The parameter of an option, with its tool tip."""
    override = OVERRIDES.get(option.name, _NONE)
    name = parameter_name(option)
    title = override.title or tr(option.title)
    parameter = override.make(name, title) if override.make else _by_type(option, name, title)
    described(parameter, override.help or tr(option.help))
    if widget := "SizeWidget" if option.form == _SIZE else override.widget:
        parameter.setMetadata({"widget_wrapper": {"class": f"{_WIDGETS}.{widget}"}})
    shown = _is_shown(option) or parameter.isDestination()
    return parameter if shown else advanced(parameter)


def in_order(options: Iterable[Option]) -> list[Option]:
    """As the dialog lists them.

    What an algorithm alone asks for; where, how finely and by which model; then the advanced ones.
    """

    def place(option: Option) -> int:
        if option.name in _LAST_OF_SHOWN:
            return _LAST_OF_SHOWN.index(option.name)
        return -1 if _is_shown(option) else len(_LAST_OF_SHOWN)

    return sorted(options, key=place)


def _is_shown(option: Option) -> bool:
    """Whether the dialog shows it at once, not among the advanced parameters."""
    plain = OVERRIDES.get(option.name, _NONE).plain
    return plain or option.required or option.group in _PLAIN_GROUPS


def described(
    parameter: QgsProcessingParameterDefinition, text: str
) -> QgsProcessingParameterDefinition:
    """The parameter with its tool tip, which QGIS takes for HTML."""
    parameter.setHelp(html.escape(text, quote=False))
    return parameter


def advanced(parameter: QgsProcessingParameterDefinition) -> QgsProcessingParameterDefinition:
    """The parameter, among the advanced ones."""
    parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced)
    return parameter


def resolution() -> QgsProcessingParameterDefinition:
    """How finely a layer that has no file is fetched."""
    double = QgsProcessingParameterNumber.Type.Double
    parameter = QgsProcessingParameterNumber(
        "RESOLUTION", tr("Resolution of online layers (m)"), double, 1.0, minValue=0.01
    )
    help_text = tr(
        "Meters a pixel at which a WMS, WMTS or XYZ layer is fetched; files are read as they are."
    )
    return advanced(described(parameter, help_text))


def html_file(name: str, title: str) -> QgsProcessingParameterFileDestination:
    """A page to write, shown in the results viewer."""
    return _file_to_write("HTML", name, title, optional=False)


def _by_type(option: Option, name: str, title: str) -> QgsProcessingParameterDefinition:
    optional = not option.required
    if option.multiple:  # one value a line
        return QgsProcessingParameterString(name, title, multiLine=True, optional=optional)
    if option.type == "boolean":
        return QgsProcessingParameterBoolean(name, title, defaultValue=False)
    if option.choices:
        return QgsProcessingParameterEnum(
            name,
            title,
            options=option.choices,
            defaultValue=option.default,
            optional=optional,
            usesStaticStrings=True,
        )
    if option.type in ("integer", "number"):
        return _number(option, name, title)
    if option.form == "CRS":
        return QgsProcessingParameterCrs(name, title, option.default, optional=optional)
    if option.path and option.group == _OUTPUT_GROUP:
        return _file_to_write(option.form, name, title, optional=optional)
    if option.path:
        behavior = (
            QgsProcessingParameterFile.Behavior.Folder
            if option.form == "DIR"
            else QgsProcessingParameterFile.Behavior.File
        )
        return QgsProcessingParameterFile(
            name, title, behavior, defaultValue=option.default, optional=optional
        )
    return QgsProcessingParameterString(name, title, option.default_text, optional=optional)


def _number(option: Option, name: str, title: str) -> QgsProcessingParameterNumber:
    whole, real = (
        QgsProcessingParameterNumber.Type.Integer,
        QgsProcessingParameterNumber.Type.Double,
    )
    limits = {"minValue": option.minimum, "maxValue": option.maximum}
    return QgsProcessingParameterNumber(
        name,
        title,
        whole if option.type == "integer" else real,
        option.default,
        optional=not option.required,
        **{key: limit for key, limit in limits.items() if limit is not None},
    )


def _file_to_write(
    form: str, name: str, title: str, *, optional: bool
) -> QgsProcessingParameterFileDestination:
    suffixes = SUFFIXES.get(form, ())
    kinds = tr("All files (*)")
    if suffixes:
        kinds = tr("{form} files (*{suffix})").format(form=form, suffix=suffixes[0])
    by_default = {} if not optional else _OPTIONAL_DESTINATION
    return QgsProcessingParameterFileDestination(name, title, kinds, **by_default)
