"""Every option of the program, declared once.

An option is a field of one of the dataclasses below. From the fields come the command line, the
rows of a batch manifest, the keys of a configuration file, the environment variables, the
parameters of the Python functions, the parameter list of the QGIS plugin and the options page of
the documentation. A command's options are one dataclass, put together from shared groups by
inheritance; a function that needs some of them asks for the group, and is given the whole.

This module uses the standard library and ``rssc_geo.errors`` alone, so that the plugin's build and
``--help`` can read it without loading anything.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, TypeVar, Unpack

from rssc_geo.errors import UsageError

T = TypeVar("T")

ENVIRONMENT_PREFIX = "RSSC_GEO_"


# How the text of an option becomes its value.


@dataclass(frozen=True, slots=True)
class Kind:
    """What an option's text means: ``parse`` raises ``ValueError`` for one that cannot be meant.

    ``name`` stands in the help (``SIZE``); ``json_type`` is the type in JSON, as JSON Schema names
    it; ``choices``: all that is allowed, if that is a list; ``expected``: what a text should have
    been, for the message about one that cannot be meant; ``minimum`` and ``maximum``: the limits of
    a number, themselves allowed.
    """

    name: str
    parse: Callable[[str], Any]
    json_type: str = "string"
    choices: tuple[str, ...] = ()
    expected: str = "a text"
    minimum: float | None = None
    maximum: float | None = None


def _parse_flag(text: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _parse_share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def _parse_area(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:  # nor nan
        raise ValueError(text)
    return value


def _parse_positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


def _parse_count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _parse_schedule(text: str) -> tuple[tuple[int, int], ...]:
    parts = tuple((int(a), int(b)) for a, b in (part.split("x") for part in text.split(",")))
    if any(epochs < 1 or size < 32 for epochs, size in parts):
        raise ValueError(text)
    return parts


def _parse_layers(text: str) -> int | None:
    words = {"none": 0, "all": None}
    if text in words:
        return words[text]
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def choice(*names: str) -> Kind:
    """One of some names."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    expected = f"one of {', '.join(filter(None, names))}"
    return Kind("|".join(names), parse, choices=names, expected=expected)


def numbers(kind: type[int | float], form: str) -> Kind:
    """Numbers with commas between them, as many as ``form`` names (``X,Y``)."""
    count = form.count(",") + 1

    def parse(text: str) -> tuple[float, ...]:
        values = tuple(kind(part) for part in text.split(","))
        if len(values) != count:
            raise ValueError(text)
        return values

    return Kind(form, parse, "array", expected=f"{count} numbers, {form}")


def _parse_names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ValueError(text)
    return names


TEXT = Kind("TEXT", str)
FILE = Kind("FILE", str)
FOLDER = Kind("DIR", str)
NAME = Kind("NAME", str)
CRS = Kind("CRS", str)
SIZE = Kind("SIZE", str)
RANGE = Kind("LOW,HIGH", str)
DEVICE = Kind("DEVICE", str)
FLAG = Kind("true|false", _parse_flag, "boolean", expected="true or false")
INTEGER = Kind("N", int, "integer", expected="a whole number")
COUNT = Kind("N", _parse_count, "integer", expected="a whole number; give 1 or more", minimum=1)
NUMBER = Kind("NUMBER", float, "number", expected="a number")
SHARE = Kind("SHARE", _parse_share, "number", expected="a share from 0 to 1", minimum=0, maximum=1)
POSITIVE = Kind("NUMBER", _parse_positive, "number", expected="a number above 0")
AREA = Kind("M2", _parse_area, "number", expected="an area of 0 or more", minimum=0)
SCHEDULE = Kind(
    "EPOCHSxPIXELS,…",
    _parse_schedule,
    expected="EPOCHSxPIXELS,… with at least 1 epoch and 32 pixels each, such as 6x128,8x160",
)
NAMES = Kind("NAME,…", _parse_names, "array", expected="names with commas between them")
LAYERS = Kind("none|N|all", _parse_layers, expected="none, all or a number")


# How an option is declared.


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a field says of its option beside its name, type and default.

    Attributes
    ----------
    help : one sentence, for people
    group : heading in the help and in QGIS
    kind : how its text is read
    unit : of a number ("m²")
    flag : the long option on the command line; default: the field's name with dashes
    short : a letter for the command line, if any
    negative : the long option that switches off what is on by default
    multiple : may be given several times; the value is a tuple
    count : may be given several times; the value is how often
    words : values on the command line, with the words for them in the help; 1 value by default
    commandline_only : it destroys, overrides a refusal or runs code, so that neither the
        environment nor a file may set it
    row : a row of a batch manifest may set it for its scene
    path : it names a file or folder: a relative one in a manifest starts from the manifest's folder
    required : it must be given
    """

    help: str
    group: str
    kind: Kind = TEXT
    unit: str = ""
    flag: str = ""
    short: str = ""
    negative: str = ""
    multiple: bool = False
    count: bool = False
    words: str = ""
    commandline_only: bool = False
    row: bool = False
    path: bool = False
    required: bool = False


_KEY = "option"
GROUPS = (
    INPUT := "Input",
    OUTPUT := "Output",
    TILES := "Tiles and cells",
    RASTER := "Raster",
    MODEL := "Model",
    CAPTIONS := "Captions",
    COMPUTING := "Computing",
    CHOICE := "Choice of cells",
    BATCH := "Batch",
    SEARCH := "Search",
    POLYGONS := "Labeled polygons",
    SAMPLE := "Sample",
    SPLIT := "Parts of the data set",
    LEARNING := "Learning",
    FULL_SIZE := "Training end to end",
    CARD := "Model card",
    RUN := "This run",
)
"""Headings of the help, in their order."""


class Settings(TypedDict, total=False):
    """The attributes of a ``Declaration`` that few options need."""

    unit: str
    flag: str
    short: str
    negative: str
    multiple: bool
    count: bool
    words: str
    commandline_only: bool
    row: bool
    path: bool
    required: bool


def option(
    help: str,  # noqa: A002 -- what click calls it
    group: str,
    kind: Kind = TEXT,
    *,
    default: T,
    **settings: Unpack[Settings],
) -> T:
    """A dataclass field that is an option; see ``Declaration``."""
    declaration = Declaration(help, group, kind, **settings)
    return dataclasses.field(default=default, metadata={_KEY: declaration})


@dataclass(frozen=True, slots=True)
class Option:
    """An option as the doors see it: a declaration with its name and default."""

    name: str
    default: Any
    declaration: Declaration

    @property
    def flag(self) -> str:
        """The long option of the command line."""
        return self.declaration.flag or "--" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """Its key in a manifest and in a configuration file: the flag without its dashes."""
        return self.flag.removeprefix("--")

    @property
    def variable(self) -> str | None:
        """The environment variable; None where the environment must not set it."""
        if self.declaration.commandline_only:
            return None
        return ENVIRONMENT_PREFIX + self.key.replace("-", "_").upper()

    @property
    def is_written(self) -> bool:
        """Whether it names a file that the run makes."""
        return self.declaration.path and self.declaration.group == OUTPUT

    def parse(self, text: str) -> Any:
        """The value of a text; ``UsageError`` names the option and what was expected."""
        kind = self.declaration.kind
        try:
            return kind.parse(text)
        except ValueError:
            raise UsageError(f"{self.flag} {text!r} is not {kind.expected}") from None

    def from_plain(self, value: Any) -> Any:
        """The value of plain data: of a configuration file, or of a request in JSON.

        A list holds the values of an option that may be given several times, else the parts of one.
        ``UsageError`` for what cannot be meant.
        """
        if self.declaration.multiple or self.declaration.words:
            items = value if isinstance(value, list) else [value]
            return tuple(self.parse(_plain_text(item)) for item in items)
        if self.declaration.count and isinstance(value, int):
            return value
        return self.parse(_plain_text(value))

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: what the QGIS plugin and the options page read."""
        declaration, kind = self.declaration, self.declaration.kind
        return {
            "name": self.name,
            "flag": self.flag,
            "negative": declaration.negative or None,
            "short": declaration.short or None,
            "variable": self.variable,
            "group": declaration.group,
            "help": declaration.help,
            "type": kind.json_type,
            "form": kind.name,
            "choices": list(kind.choices) or None,
            "minimum": kind.minimum,
            "maximum": kind.maximum,
            "unit": declaration.unit or None,
            "default": list(self.default) if isinstance(self.default, tuple) else self.default,
            "multiple": declaration.multiple,
            "required": declaration.required,
            "commandline_only": declaration.commandline_only,
            "row": declaration.row,
            "path": declaration.path,
        }


def _plain_text(value: Any) -> str:
    """Plain data as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(_plain_text(item) for item in value)
    return str(value)


@functools.lru_cache(maxsize=64)
def options_of(group: type) -> tuple[Option, ...]:
    """The options of a dataclass: by heading, then in the order of their declaration."""
    fields = {field.name: field for field in dataclasses.fields(group)}
    names = dict.fromkeys(name for base in group.__mro__ for name in inspect.get_annotations(base))
    found = [
        Option(name, fields[name].default, fields[name].metadata[_KEY])
        for name in names
        if name in fields and _KEY in fields[name].metadata
    ]
    return tuple(sorted(found, key=lambda option: GROUPS.index(option.declaration.group)))


def values_of(options: object, group: type) -> dict[str, Any]:
    """Those of the options that belong to a group, by name: for hashes and provenance."""
    return {option.name: getattr(options, option.name) for option in options_of(group)}


def given_of(options: object, group: type) -> dict[str, Any]:
    """Those of a group's options that are not at their defaults, by name."""
    defaults = values_of(group(), group)
    values = values_of(options, group)
    return {name: value for name, value in values.items() if value != defaults[name]}


def narrowed(options: object, group: type[T]) -> T:
    """The options of a group alone, out of a command's."""
    return group(**values_of(options, group))


# The groups, and the commands that are made of them.


@dataclass(frozen=True, kw_only=True)
class PrintOptions:
    """What a command prints, and the file that sets its other options."""

    config: str | None = option(
        "Options from a file: TOML, keys as the options; [classify] for one command.",
        RUN,
        FILE,
        default=None,
        path=True,
    )
    json: bool = option("Print one JSON object on stdout.", RUN, FLAG, default=False)
    verbose: int = option(
        "More messages, with their times; -vv: all of them.",
        RUN,
        INTEGER,
        default=0,
        short="v",
        count=True,
    )
    quiet: bool = option("Errors only.", RUN, FLAG, default=False, short="q")
    log_json: bool = option("Messages on stderr as JSON Lines.", RUN, FLAG, default=False)
    log_file: str | None = option(
        "Append the messages to a file too, with their times, and those of -v.",
        RUN,
        FILE,
        default=None,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions(PrintOptions):
    """How a command that takes its time runs."""

    progress: str = option(
        "json: JSON Lines on stdout.",
        RUN,
        choice("auto", "bar", "json", "none"),
        default="auto",
    )
    exit_on_stdin_eof: bool = option(
        "Stop when standard input closes (for parents).", RUN, FLAG, default=False
    )


@dataclass(frozen=True, kw_only=True)
class ServeOptions(PrintOptions):
    """How long ``serve`` waits for work."""

    idle: int = option("End after so long without a request.", RUN, COUNT, default=900, unit="s")


@dataclass(frozen=True, kw_only=True)
class ScenesRunOptions(RunOptions):
    """How a run over many scenes ends."""

    fail_on: str = option(
        "Failures that give an exit code: any (4: some are new, 5: all are known from an earlier"
        " run), only new ones (4), none.",
        RUN,
        choice("any", "new", "none"),
        default="any",
    )


@dataclass(frozen=True, kw_only=True)
class BatchRunOptions(ScenesRunOptions):
    """How a batch runs."""

    dry_run: bool = option(
        "Show what would be done, its size and an estimate of the time.", RUN, FLAG, default=False
    )


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The raster, where it is not one file."""

    bands_from: tuple[str, ...] | None = option(
        "Three single-band rasters as one scene.",
        INPUT,
        FILE,
        default=None,
        words="RED GREEN BLUE",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class CaptionSourceOptions(SourceOptions):
    """What is described."""

    pictures: bool = option(
        "RASTER is a folder of pictures, one folder a class; writes a line a picture.",
        INPUT,
        FLAG,
        default=False,
    )


@dataclass(frozen=True, kw_only=True)
class PolygonSourceOptions:
    """Labeled polygons, instead of a data set of pictures."""

    raster: tuple[str, ...] = option(
        "Instead of DATASET: a raster; may be repeated.",
        POLYGONS,
        FILE,
        default=(),
        multiple=True,
        path=True,
    )
    labels: tuple[str, ...] = option(
        "Its labeled polygons; one file for all rasters, or one each.",
        POLYGONS,
        FILE,
        default=(),
        multiple=True,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """Where the result goes."""

    output: str = option(
        "The result.", OUTPUT, Kind("PATH", str), default="", short="o", path=True, required=True
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationTargetOptions:
    """Where figures and pictures of an evaluation go."""

    output: str | None = option(
        "Also write JSON, confusion matrix, t-SNE and worst mistakes into this folder.",
        OUTPUT,
        Kind("PATH", str),
        default=None,
        short="o",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class ClassNamesOptions:
    """Which classes."""

    classes: str = option(
        "Names of the classes, or a file: JSON {name: [words, …]}, or text, a name a line.",
        MODEL,
        Kind("A,B,…|FILE", str),
        default="",
        required=True,
    )


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How a raster is read: which bands, what is invalid, where it lies, how it becomes 8 bit."""

    bands: tuple[int, ...] | None = option(
        "Bands to use as red, green, blue, counted from 1.",
        RASTER,
        numbers(int, "R,G,B"),
        default=None,
        row=True,
    )
    nodata: float | None = option(
        "A value that counts as nodata, with or without a tag.",
        RASTER,
        NUMBER,
        default=None,
        row=True,
    )
    assume_crs: str | None = option(
        "The raster's CRS, where it says none or a wrong one.", RASTER, CRS, default=None, row=True
    )
    stretch: str | None = option(
        "Scaling to 8 bit: '2%,98%' (default beyond 8 bit), '0,3000', 'minmax'.",
        RASTER,
        RANGE,
        default=None,
        row=True,
    )


@dataclass(frozen=True, kw_only=True)
class TilingOptions(ReadingOptions):
    """How a raster is read and cut into tiles and cells, and which cells are asked for."""

    tile_size: str | None = option(
        "Side of a tile: 256px, 400m. Default: by the model card.",
        TILES,
        SIZE,
        default=None,
        row=True,
    )
    cell_size: str | None = option(
        "Side of a cell, at most the tile's. Default: a sixth of it, of models that map fine cells;"
        " else the tile's.",
        TILES,
        SIZE,
        default=None,
        row=True,
    )
    min_valid: float = option(
        "Share of valid pixels that a cell needs, above 0.", TILES, SHARE, default=0.5, row=True
    )
    aoi: str | None = option(
        "Vector file of polygons: only cells with their center inside.",
        TILES,
        FILE,
        default=None,
        row=True,
        path=True,
    )
    bounds: tuple[float, ...] | None = option(
        "The same, a box in the raster's CRS.",
        TILES,
        numbers(float, "MINX,MINY,MAXX,MAXY"),
        default=None,
        row=True,
    )
    force: bool = option(
        "Go on where pixels or tiles are far outside what the model was trained on.",
        TILES,
        FLAG,
        default=False,
        commandline_only=True,
    )

    def __post_init__(self) -> None:
        if not 0 < self.min_valid <= 1:
            raise UsageError(
                f"--min-valid {self.min_valid:g} is not a share; give a number above 0 and up to 1"
            )


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model."""

    model: str = option("Embedded name, bundle folder or hub id.", MODEL, NAME, default="compact")
    revision: str | None = option("Revision of a hub id.", MODEL, NAME, default=None)


@dataclass(frozen=True, kw_only=True)
class ClassChoiceOptions:
    """Among which of the model's classes is chosen."""

    only_classes: tuple[str, ...] = option(
        "Choose among these classes alone; a group's name stands for all of its classes.",
        MODEL,
        NAMES,
        default=(),
    )
    exclude_classes: tuple[str, ...] = option(
        "Never choose these classes, or the classes of these groups.", MODEL, NAMES, default=()
    )


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where the network runs."""

    device: str | None = option(
        "cpu, cuda, cuda:1, mps. Default: the fastest there is.", COMPUTING, DEVICE, default=None
    )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(DeviceOptions):
    """Where and how the network runs."""

    dtype: str | None = option(
        "Precision. Default: bfloat16 on CUDA, else float32.",
        COMPUTING,
        choice("float32", "bfloat16", "float16"),
        default=None,
    )
    batch_size: int | None = option(
        "Tiles a batch. Default: by the device.", COMPUTING, COUNT, default=None
    )


@dataclass(frozen=True, kw_only=True)
class CaptionerOptions:
    """Who describes the tiles, and how; all but ``caption_beam`` are of large captioners."""

    captioner: str | None = option(
        "compact (the model's own, the default where it has one), none, hf:ID[@REVISION], hf:FOLDER"
        " or openai:http://HOST:PORT/v1#MODEL (a key goes into the environment as"
        " RSSC_GEO_API_KEY).",
        CAPTIONS,
        NAME,
        default=None,
    )
    caption_when: str = option(
        "always, or uncertain[:0.9]: only tiles whose class is less likely than that without.",
        CAPTIONS,
        Kind("WHEN", str),
        default="always",
    )
    caption_beam: int = option("compact: sentences followed at a time.", CAPTIONS, COUNT, default=1)
    prompt: str = option(
        "What hf: and openai: are asked: published, closed, free, or text.",
        CAPTIONS,
        default="published",
    )
    caption_tokens: int = option("Longest answer.", CAPTIONS, COUNT, default=192, unit="tokens")
    share_captions: bool = option(
        "Tiles that look the same get one caption.", CAPTIONS, FLAG, default=False
    )
    caption_cache: str | None = option(
        "Where captions are kept. Default: see `models cache`.",
        CAPTIONS,
        FILE,
        default=None,
        path=True,
    )
    caption_requests: int = option("openai: requests at a time.", CAPTIONS, COUNT, default=8)
    caption_timeout: float = option(
        "openai: time for an answer.", CAPTIONS, POSITIVE, default=120.0, unit="s"
    )
    caption_batch_size: int | None = option(
        "hf: tiles a batch. Default: by the device.", CAPTIONS, COUNT, default=None
    )
    quantize: str | None = option(
        "hf: weights in 4 or 8 bit, with bitsandbytes on CUDA.",
        CAPTIONS,
        choice("4bit", "8bit"),
        default=None,
    )
    trust_remote_code: bool = option(
        "hf: run the Python code that the model's repository brings.",
        CAPTIONS,
        FLAG,
        default=False,
        commandline_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class OverwriteOptions:
    """Whether a result may replace an earlier one."""

    overwrite: bool = option(
        "Replace existing results.", OUTPUT, FLAG, default=False, commandline_only=True
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What a map holds and what is written beside it."""

    crs: str | None = option(
        "CRS of the result. Default: the raster's; GeoJSON: WGS84.",
        OUTPUT,
        CRS,
        default=None,
        row=True,
    )
    aoi_clip: bool = option(
        "Also clip the polygons to the area of interest.", OUTPUT, FLAG, default=False, row=True
    )
    min_area: float = option(
        "Smaller regions join a neighbor.",
        OUTPUT,
        AREA,
        default=0.0,
        unit="m²",
        row=True,
    )
    probabilities: bool = option(
        "One p_<class> column each in the cells layer.", OUTPUT, FLAG, default=False, row=True
    )
    adapt_shares: bool = option(
        "Estimate each class's share of the scene from all cells and weigh their probabilities by"
        " it.",
        OUTPUT,
        FLAG,
        default=False,
        row=True,
    )
    smooth: bool = option(
        "Where cells are smaller than tiles: let neighbors tell a cell's class too, less where the"
        " picture changes between them.",
        OUTPUT,
        FLAG,
        default=True,
        negative="--no-smooth",
        row=True,
    )
    snap: bool = option(
        "Let the outlines of landuse and class raster follow what the picture shows, not the sides"
        " of cells (looks at it once more).",
        OUTPUT,
        FLAG,
        default=False,
        row=True,
    )
    class_raster: str | None = option(
        "Also a COG of classes, one pixel a cell; with --snap finer.",
        OUTPUT,
        FILE,
        default=None,
        row=True,
        path=True,
    )
    embeddings: str | None = option(
        "Also a table of the cells with their embeddings, in the space of words.",
        OUTPUT,
        Kind("PARQUET", str),
        default=None,
        row=True,
        path=True,
    )
    preview: str | None = option(
        "Also a picture: scene, classes, legend, scale bar.",
        OUTPUT,
        Kind("PNG", str),
        default=None,
        row=True,
        path=True,
    )
    date: str | None = option(
        "When the scene was taken: 2024-06-01, or with a time. Default: by its tags.",
        RASTER,
        Kind("DATE", str),
        default=None,
        row=True,
    )
    no_unknown: bool = option(
        "Name every cell, also those unlike anything that the model has learned.",
        OUTPUT,
        FLAG,
        default=False,
    )
    full_provenance: bool = option(
        "Map and report name files with their folders.", OUTPUT, FLAG, default=False
    )


@dataclass(frozen=True, kw_only=True)
class ZoneOptions:
    """The zones of a table of areas."""

    zones: str | None = option(
        "Vector file of polygons: the areas of each too.",
        TILES,
        FILE,
        default=None,
        row=True,
        path=True,
    )
    zone_field: str | None = option(
        "Column of the zones' names. Default: they are numbered.",
        TILES,
        NAME,
        default=None,
        row=True,
    )


@dataclass(frozen=True, kw_only=True)
class ReportOptions(ZoneOptions):
    """What helps people to judge a map."""

    areas: str | None = option(
        "Also a table of areas, as `areas` makes it.",
        OUTPUT,
        Kind("CSV", str),
        default=None,
        row=True,
        path=True,
    )
    report: str | None = option(
        "Also a page: map, areas, examples, doubtful cells, provenance.",
        OUTPUT,
        Kind("HTML", str),
        default=None,
        row=True,
        path=True,
    )
    stac_item: str | None = option(
        "Also a STAC item of the map: place, date, classes, model, files.",
        OUTPUT,
        Kind("JSON", str),
        default=None,
        row=True,
        path=True,
    )
    review: int | None = option(
        "Also a layer of the N cells most worth labeling.", OUTPUT, COUNT, default=None, row=True
    )


@dataclass(frozen=True, kw_only=True)
class SceneOptions(TilingOptions, OutputOptions, ReportOptions):
    """How a scene is read and mapped, whatever looks at its tiles."""


@dataclass(frozen=True, kw_only=True)
class OtherClassOptions:
    """What there is beside classes that are named by words."""

    other: bool = option(
        "Also a class for what is none of these.",
        MODEL,
        FLAG,
        default=True,
        negative="--no-other",
        row=True,
    )


@dataclass(frozen=True, kw_only=True)
class BatchSceneOptions(SceneOptions, OtherClassOptions):
    """What may differ from scene to scene of a batch."""

    classes: str | None = option(
        "Classes by words instead of the model's own, as for zero-shot: names, or a file.",
        MODEL,
        Kind("A,B,…|FILE", str),
        default=None,
        row=True,
    )


@dataclass(frozen=True, kw_only=True)
class DescribingOptions(ModelOptions, ComputeOptions, CaptionerOptions):
    """What is loaded once and describes tiles."""


@dataclass(frozen=True, kw_only=True)
class PredictorOptions(DescribingOptions, ClassChoiceOptions):
    """What is loaded once and looks at tiles."""


@dataclass(frozen=True, kw_only=True)
class MapOptions(SceneOptions, OverwriteOptions):
    """How one scene becomes a map."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(MapOptions, PredictorOptions):
    """Options of ``classify``."""


@dataclass(frozen=True, kw_only=True)
class ZeroShotOptions(MapOptions, ModelOptions, ComputeOptions, OtherClassOptions):
    """Options of ``zero-shot``."""

    refine: bool = option(
        "Move the classes towards the clusters of this raster's tiles (looks twice).",
        MODEL,
        FLAG,
        default=False,
    )


@dataclass(frozen=True, kw_only=True)
class CaptionOptions(TilingOptions, DescribingOptions, OverwriteOptions):
    """Options of ``caption``."""

    crs: str | None = option(
        "CRS of the GeoPackage. Default: the raster's.", OUTPUT, CRS, default=None
    )


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(
    TilingOptions, ModelOptions, ClassChoiceOptions, DeviceOptions, OverwriteOptions
):
    """Options of ``explain``."""

    captioner: str | None = option("As for classify.", CAPTIONS, NAME, default=None)
    at: tuple[tuple[float, float], ...] = option(
        "Explain the cell under a point; may be repeated.",
        CHOICE,
        numbers(float, "X,Y"),
        default=(),
        multiple=True,
    )
    at_crs: str | None = option(
        "CRS of the points (EPSG:4326: longitude,latitude). Default: the raster's.",
        CHOICE,
        CRS,
        default=None,
    )
    result: str | None = option(
        "A map that classify wrote of RASTER: explain some of its cells, or those at the points.",
        CHOICE,
        FILE,
        default=None,
        path=True,
    )
    cells: int | None = option(
        "So many cells of it, the least certain ones. Default: 20.", CHOICE, COUNT, default=None
    )
    where: str | None = option(
        "Only cells that fit, such as \"confidence < 0.5 AND class = 'Port'\".",
        CHOICE,
        Kind("FILTER", str),
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class TileOptions(TilingOptions, ModelOptions, OverwriteOptions):
    """Options of ``tile``."""

    size: int | None = option(
        "Side of a chip. Default: the tile's own pixels.",
        OUTPUT,
        COUNT,
        default=None,
        unit="pixels",
    )
    format: str = option(
        "tif, or png with a world file.", OUTPUT, choice("tif", "png"), default="tif"
    )


@dataclass(frozen=True, kw_only=True)
class InfoOptions(TilingOptions, ModelOptions):
    """Options of ``info``."""


@dataclass(frozen=True, kw_only=True)
class ManyScenesOptions:
    """How many scenes are found and worked on."""

    asset: str | None = option(
        "Key or role of the STAC asset, or three keys: red,green,blue.", BATCH, NAME, default=None
    )
    scheduler: str | None = option(
        "Dask cluster: tcp://host:8786 or a scheduler file. Default: this machine.",
        BATCH,
        Kind("ADDRESS", str),
        default=None,
    )
    threads: int | None = option(
        "Processor threads. Default: as there are processors.", COMPUTING, COUNT, default=None
    )
    attempts: int = option("Times that a block is tried.", BATCH, COUNT, default=3)
    retry_failed: bool = option(
        "Also do scenes again that failed in an earlier run.", BATCH, FLAG, default=False
    )


@dataclass(frozen=True, kw_only=True)
class BatchOptions(BatchSceneOptions, ManyScenesOptions, PredictorOptions, OverwriteOptions):
    """Options of ``batch run``.

    ``crs`` defaults to EPSG:4326 with ``merge``; ``class_raster``, ``preview``, ``report`` and
    ``areas`` are templates as the output is; ``overwrite`` also replaces files that no batch has
    made; ``device`` may be a list ("cuda:0,cuda:1").
    """

    merge: str | None = option(
        "One file of all scenes; where they overlap, which one counts.",
        BATCH,
        choice("first", "last", "most-confident"),
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class BatchAreasOptions(OverwriteOptions):
    """Options of ``batch areas``."""


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(TilingOptions, PredictorOptions, OverwriteOptions):
    """Options of ``embed``."""

    date: str | None = option(
        "When the scenes were taken: 2024-06-01, or with a time. Default: by their tags.",
        RASTER,
        Kind("DATE", str),
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class IndexOptions(TilingOptions, ManyScenesOptions, PredictorOptions):
    """Options of ``index``."""

    prune: bool = option(
        "Then remove the scenes that are not among these, with their maps.",
        BATCH,
        FLAG,
        default=False,
        commandline_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class SearchOptions(ModelOptions, DeviceOptions, OverwriteOptions):
    """Options of ``search``."""

    like: str | None = option(
        "A raster that shows what is looked for, at --at, in --like-area, or as a whole.",
        SEARCH,
        FILE,
        default=None,
        path=True,
    )
    at: tuple[tuple[float, float], ...] = option(
        "What is looked for is at this point of --like; may be repeated.",
        SEARCH,
        numbers(float, "X,Y"),
        default=(),
        multiple=True,
    )
    like_area: str | None = option(
        "Vector file of polygons: what is looked for is there in --like.",
        SEARCH,
        FILE,
        default=None,
        path=True,
    )
    unlike: str | None = option(
        "A raster that shows what is not looked for, at --unlike-at, or as a whole.",
        SEARCH,
        FILE,
        default=None,
        path=True,
    )
    unlike_at: tuple[tuple[float, float], ...] = option(
        "What is not looked for is at this point of --unlike; may be repeated.",
        SEARCH,
        numbers(float, "X,Y"),
        default=(),
        multiple=True,
    )
    at_crs: str | None = option(
        "CRS of the points (EPSG:4326: longitude,latitude). Default: the raster's.",
        SEARCH,
        CRS,
        default=None,
    )
    hits: int = option("So many cells, the best first.", SEARCH, COUNT, default=50, short="n")
    per_scene: int | None = option("At most so many of one scene.", SEARCH, COUNT, default=None)
    only_classes: tuple[str, ...] = option(
        "Only cells of these classes or groups.", SEARCH, NAMES, default=()
    )
    exclude_classes: tuple[str, ...] = option(
        "No cells of these classes or groups.", SEARCH, NAMES, default=()
    )
    since: str | None = option(
        "Only scenes of this date or later; those without a date are left out.",
        SEARCH,
        Kind("DATE", str),
        default=None,
    )
    until: str | None = option(
        "Only scenes before this date; those without one are left out.",
        SEARCH,
        Kind("DATE", str),
        default=None,
    )
    bounds: tuple[float, ...] | None = option(
        "Only cells that touch this box, in longitude and latitude.",
        SEARCH,
        numbers(float, "MINX,MINY,MAXX,MAXY"),
        default=None,
    )
    sheet: str | None = option(
        "Also a page: pictures of the cells found, with captions and scores, and where they are.",
        OUTPUT,
        Kind("HTML", str),
        default=None,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class SearchTargetOptions:
    """Where the cells that a search found go."""

    output: str | None = option(
        "Write the cells found as a layer: .gpkg, .fgb, .geojson, .parquet, .shp.",
        OUTPUT,
        Kind("PATH", str),
        default=None,
        short="o",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How a data set is cut into parts for training, validation and test."""

    seed: int | None = option(
        "Of every random choice. Default: 0; that of MODEL.", SPLIT, INTEGER, default=None
    )
    val: float | None = option(
        "Share of the validation part. Default: 0.1; that of MODEL's training.",
        SPLIT,
        SHARE,
        default=None,
    )
    test: float | None = option(
        "Share of the test part, looked at once. Default: 0.1; that of MODEL's training.",
        SPLIT,
        SHARE,
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class ClassFieldOptions:
    """Where labels tell the class."""

    field: str = option("Column of the class names.", POLYGONS, NAME, default="class")


@dataclass(frozen=True, kw_only=True)
class PatchOptions(ClassFieldOptions):
    """How labels on a raster become pictures."""

    purity: float = option(
        "Share of a patch that its class covers, at least 0.5.", POLYGONS, SHARE, default=0.6
    )

    def __post_init__(self) -> None:
        if not 0.5 <= self.purity <= 1:
            raise UsageError(f"--purity {self.purity:g} is no share from 0.5 to 1")


@dataclass(frozen=True, kw_only=True)
class TaxonomyOptions:
    """What the labels of data sets mean."""

    taxonomy: str | None = option(
        "JSON: classes, groups, and which classes each label of each DATASET allows.",
        INPUT,
        FILE,
        default=None,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(
    TilingOptions,
    SplitOptions,
    TaxonomyOptions,
    PatchOptions,
    ClassChoiceOptions,
    CaptionerOptions,
    DeviceOptions,
):
    """Options of ``evaluate``."""

    revision: str | None = option("Revision of a hub id.", MODEL, NAME, default=None)
    captions: str | None = option(
        "What people wrote of the pictures, JSON Lines. Default: the data set's captions.jsonl.",
        CAPTIONS,
        FILE,
        default=None,
        path=True,
    )
    caption_source: Literal["own", "none", "human"] = option(
        "Captions that the classifier may read: own are those of --captioner.",
        CAPTIONS,
        choice("own", "none", "human"),
        default="own",
    )
    part: Literal["all", "train", "val", "test"] = option(
        "Which part of the data set.", SPLIT, choice("all", "train", "val", "test"), default="all"
    )
    class_map: str | None = option(
        'JSON: {"class of the data set": "class of the model"}.',
        INPUT,
        FILE,
        default=None,
        path=True,
    )
    robustness: bool = option(
        "Also the accuracy under corruptions and other footprints.", OUTPUT, FLAG, default=False
    )

    def __post_init__(self) -> None:
        TilingOptions.__post_init__(self)
        PatchOptions.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class BaselineOptions(SplitOptions, DeviceOptions):
    """Options of ``evaluate --baselines``."""

    revision: str | None = option("Revision of a hub id.", MODEL, NAME, default=None)
    baselines: int | None = option(
        "Train the paper's baselines beside it, so many times.", LEARNING, COUNT, default=None
    )
    work: str | None = option(
        "The work folder of the training.", LEARNING, FOLDER, default=None, path=True
    )
    fusion_epochs: int | None = option(
        "Epochs of the fusion. Default: as in the training.", LEARNING, COUNT, default=None
    )


@dataclass(frozen=True, kw_only=True)
class CardOptions:
    """What the card of a new bundle says."""

    model: str = option("Bundle to start from.", MODEL, NAME, default="compact")
    name: str = option("Of the bundle.", CARD, NAME, default="trained")
    bundle_version: str = option("Of the bundle.", CARD, NAME, default="1")
    description: str = option("One line for the card.", CARD, default="")
    license: str = option("Of the weights.", CARD, NAME, default="unspecified")
    data: str = option("What the data set is, and its license.", CARD, default="")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CardOptions, SplitOptions, TaxonomyOptions, DeviceOptions):
    """Options of ``train`` on pictures."""

    work: str | None = option(
        "Where the stages keep what they made. Default: OUTPUT.work.",
        LEARNING,
        FOLDER,
        default=None,
        path=True,
    )
    image_encoder: str | None = option(
        "Another timm model, with --weights; end to end: a folder or hub id.",
        LEARNING,
        NAME,
        default=None,
    )
    weights: str | None = option(
        "Its weights, safetensors.", LEARNING, FILE, default=None, path=True
    )
    pad_type: str = option(
        "Padding of timm models that come from TensorFlow.",
        LEARNING,
        choice("", "same"),
        default="",
    )
    ground_look: tuple[int, ...] | None = option(
        "Early stage of the image encoder (from 0) that tells what each cell's own ground is, and"
        " the numbers that it gives. Default: as of --model.",
        LEARNING,
        numbers(int, "STAGE,WIDTH"),
        default=None,
    )
    sentence_encoder: str | None = option(
        "Sentence encoder to distill the text encoder from.",
        LEARNING,
        FOLDER,
        default=None,
        path=True,
    )
    whole_sentence_encoder: bool = option(
        "Keep it whole as the text encoder, instead of distilling it.",
        LEARNING,
        FLAG,
        default=False,
    )
    schedule: tuple[tuple[int, int], ...] | None = option(
        "Parts of the image encoder's training. Default: 6x128,8x160,6x192.",
        LEARNING,
        SCHEDULE,
        default=None,
    )
    learning_rate: float | None = option(
        "Of the image encoder's heads; end to end: of all.", LEARNING, POSITIVE, default=None
    )
    swa_epochs: int | None = option(
        "Last epochs of the image encoder, over which its weights are averaged (SWA).",
        LEARNING,
        COUNT,
        default=None,
    )
    caption_epochs: int | None = option("Epochs of each captioner.", LEARNING, COUNT, default=None)
    fusion_epochs: int | None = option("Epochs of the fusion.", LEARNING, COUNT, default=None)
    folds: int = option("Of the captioners, at least 2.", LEARNING, COUNT, default=2)
    views: int = option("Copies of each picture, the first as it is.", LEARNING, COUNT, default=4)
    footprint: tuple[float, ...] | None = option(
        "Ground that a picture covers.",
        CARD,
        numbers(float, "MIN,PREFERRED,MAX"),
        default=None,
        unit="m",
    )
    gsd_range: tuple[float, ...] | None = option(
        "Ground sampling of the rasters it is for.",
        CARD,
        numbers(float, "MIN,MAX"),
        default=None,
        unit="m a pixel",
    )
    recipe: str | None = option(
        "stages: encoder, captioner, fusion (default); full: the whole network end to end (default"
        " with --text-encoder); published: the same with the paper's settings.",
        FULL_SIZE,
        choice("stages", "full", "published"),
        default=None,
    )
    text_encoder: str | None = option(
        "Folder or hub id of a transformers text encoder or CLIP.", FULL_SIZE, NAME, default=None
    )
    captions: str | None = option(
        "JSON Lines of captions.", FULL_SIZE, FILE, default=None, path=True
    )
    train_image_layers: int | None = option(
        "Which layers of the image encoder learn.", FULL_SIZE, LAYERS, default=None
    )
    train_text_layers: int | None = option(
        "Which layers of the text encoder learn.", FULL_SIZE, LAYERS, default=None
    )
    epochs: int | None = option("At most so many.", FULL_SIZE, COUNT, default=None)
    batch_size: int | None = option(
        "Pictures a step, over all GPUs.", FULL_SIZE, COUNT, default=None
    )
    accumulate: int | None = option(
        "Parts that each GPU's share of a batch is computed in.", FULL_SIZE, COUNT, default=None
    )
    clip: float | None = option("Largest norm of the gradient.", FULL_SIZE, POSITIVE, default=None)
    patience: int | None = option(
        "Epochs without a better validation accuracy before the end.",
        FULL_SIZE,
        COUNT,
        default=None,
    )
    silent: float | None = option(
        "Share of pictures shown without their caption.", FULL_SIZE, SHARE, default=None
    )
    levels: int | None = option("Of the dual attention.", FULL_SIZE, COUNT, default=None)
    width: int | None = option("Of the dual attention.", FULL_SIZE, COUNT, default=None)
    checkpointing: bool = option(
        "Compute activations twice to save memory.", FULL_SIZE, FLAG, default=False
    )
    compile: bool = option("Compile the network.", FULL_SIZE, FLAG, default=False)
    workers: int | None = option(
        "Processes that prepare batches.", FULL_SIZE, INTEGER, default=None
    )

    def __post_init__(self) -> None:
        if self.folds < 2 or self.views < 1:
            raise UsageError(
                f"{self.folds} folds and {self.views} views: at least 2 and 1 are needed"
            )
        if self.whole_sentence_encoder and self.sentence_encoder is None:
            raise UsageError("--whole-sentence-encoder needs a --sentence-encoder to keep")


@dataclass(frozen=True, kw_only=True)
class TrainOnPolygonsOptions(TilingOptions, CardOptions, PatchOptions, DeviceOptions):
    """Options of ``train --raster``."""

    group_field: str | None = option(
        "Column of what labels belong together in (a field, a site): the cross-validation never"
        " learns from one and tests on another of a group.",
        POLYGONS,
        NAME,
        default=None,
    )
    test_labels: tuple[str, ...] = option(
        "Labels to test on alone, instead of the cross-validation; one file for all rasters, or one"
        " each.",
        POLYGONS,
        FILE,
        default=(),
        multiple=True,
        path=True,
    )
    fine_tune: bool = option(
        "The image encoder learns too: minutes instead of seconds.", POLYGONS, FLAG, default=False
    )
    report: str | None = option(
        "Also a page: accuracy of each class, which are taken for which, what is weak.",
        OUTPUT,
        Kind("HTML", str),
        default=None,
        path=True,
    )
    class_words: Mapping[str, Sequence[str]] | str | None = option(
        "JSON {class: [words, …]}: what to go by where a class has few patches.",
        POLYGONS,
        FILE,
        default=None,
        path=True,
    )

    def __post_init__(self) -> None:
        TilingOptions.__post_init__(self)
        PatchOptions.__post_init__(self)


@dataclass(frozen=True, kw_only=True)
class ModelInfoOptions(OverwriteOptions):
    """Options of ``models info``."""

    revision: str | None = option("Revision of a hub id.", MODEL, NAME, default=None)
    stac_item: str | None = option(
        "Write the card as a STAC item instead, by the Machine Learning Model extension.",
        OUTPUT,
        Kind("JSON", str),
        default=None,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of ``models import``."""

    levels: int = option(
        "Levels it was trained with; the published command has 2.",
        MODEL,
        COUNT,
        default=2,
        required=True,
    )
    heads: int = option("Heads of the dual attention.", MODEL, COUNT, default=4)
    variant: str = option(
        "Their network with its defects, or ours with their weights, to train on.",
        MODEL,
        choice("as-published", "corrected"),
        default="as-published",
    )
    tokenizer: str = option(
        "Folder or hub id of CLIP's tokenizer.", MODEL, NAME, default="openai/clip-vit-base-patch32"
    )
    bundle_name: str | None = option(
        "Of the bundle. Default: the checkpoint's.", CARD, NAME, default=None, flag="--name"
    )


@dataclass(frozen=True, kw_only=True)
class LegendOptions:
    """In which legend a finished map is told."""

    legend: str | None = option(
        "Another legend: groups, anderson-1, anderson-2, corine-1, corine-2, osm-landuse, or the"
        " JSON file of a crosswalk. Default: the map's own classes.",
        INPUT,
        Kind("NAME|FILE", str),
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class RefineOptions(LegendOptions, ClassChoiceOptions, OverwriteOptions):
    """Options of ``refine``."""

    min_area: float = option(
        "Smaller regions join a neighbor.",
        OUTPUT,
        AREA,
        default=0.0,
        unit="m²",
    )
    majority: int | None = option(
        "Majority filter: so many times, each cell takes the class that most of it and its eight"
        " neighbors have.",
        OUTPUT,
        COUNT,
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class SampleOptions(LegendOptions, OverwriteOptions):
    """Options of ``assess sample``."""

    design: str = option(
        "stratified: at random within each class of the map; systematic: on a square grid with a"
        " random start; simple: at random over the whole map.",
        SAMPLE,
        choice("stratified", "systematic", "simple"),
        default="stratified",
    )
    unit: str = option(
        "What is labeled: the whole cell, or a point at random in it.",
        SAMPLE,
        choice("cell", "point"),
        default="cell",
    )
    sample_size: int | None = option(
        "So many units. Default: by --standard-error.", SAMPLE, COUNT, default=None
    )
    standard_error: float = option(
        "Standard error of the overall accuracy to aim at, above 0.", SAMPLE, SHARE, default=0.02
    )
    expected_accuracy: float | None = option(
        "Accuracy that is expected of each class. Default: its mean confidence, from 0.5 to 0.95.",
        SAMPLE,
        SHARE,
        default=None,
    )
    min_per_class: int = option(
        "Units of each class at least, with stratified.", SAMPLE, COUNT, default=50
    )
    seed: int = option("Of every random choice.", SAMPLE, INTEGER, default=0)

    def __post_init__(self) -> None:
        if not self.standard_error:
            raise UsageError("--standard-error 0 needs a label for every cell; give more, as 0.02")


@dataclass(frozen=True, kw_only=True)
class AccuracyOptions(LegendOptions, ClassFieldOptions):
    """Options of ``assess accuracy``."""


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions:
    """What a map is assessed with."""

    reference: str = option(
        "Reference labels: a vector file of points or polygons.",
        INPUT,
        FILE,
        default="",
        path=True,
        required=True,
    )


@dataclass(frozen=True, kw_only=True)
class AssessmentTargetOptions:
    """Where the figures of an assessment go."""

    output: str | None = option(
        "Also write a page (HTML), JSON and CSV tables into this folder.",
        OUTPUT,
        Kind("PATH", str),
        default=None,
        short="o",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class AreasOptions(LegendOptions, ZoneOptions, ClassFieldOptions, OverwriteOptions):
    """Options of ``areas``."""

    reference: str | None = option(
        "Reference labels: areas adjusted for the map's errors, with intervals, too.",
        INPUT,
        FILE,
        default=None,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class ChangeOptions(
    TilingOptions,
    ModelOptions,
    ComputeOptions,
    ClassChoiceOptions,
    LegendOptions,
    ClassFieldOptions,
    OverwriteOptions,
):
    """Options of ``change``."""

    dates: tuple[str, ...] = option(
        "Labels of the dates, the earliest first. Default: years in the names, or the names.",
        INPUT,
        NAMES,
        default=(),
    )
    reference: str | None = option(
        "Reference labels: areas adjusted for the map's errors, with intervals, too.",
        INPUT,
        FILE,
        default=None,
        path=True,
    )
    least_probability: float | None = option(
        "Probability from which on a cell counts as changed. Default: what let 1.5 % of unchanged"
        " cells pass where it was fitted.",
        OUTPUT,
        SHARE,
        default=None,
    )
    crs: str | None = option(
        "CRS of the result. Default: that of the first date; GeoJSON: WGS84.",
        OUTPUT,
        CRS,
        default=None,
    )
    areas: str | None = option(
        "Also the transition matrix with areas, as a table.",
        OUTPUT,
        Kind("CSV", str),
        default=None,
        path=True,
    )
    report: str | None = option(
        "Also a page: pictures before and after, transitions, the largest changes.",
        OUTPUT,
        Kind("HTML", str),
        default=None,
        path=True,
    )
    full_provenance: bool = option(
        "The result names files with their folders.", OUTPUT, FLAG, default=False
    )


COMMANDS: Mapping[str, type] = types.MappingProxyType(
    {
        "classify": ClassifyOptions,
        "zero-shot": ZeroShotOptions,
        "caption": CaptionOptions,
        "explain": ExplainOptions,
        "batch run": BatchOptions,
        "batch areas": BatchAreasOptions,
        "embed": EmbedOptions,
        "index": IndexOptions,
        "search": SearchOptions,
        "info": InfoOptions,
        "tile": TileOptions,
        "evaluate": EvaluateOptions,
        "evaluate --baselines": BaselineOptions,
        "train": TrainOptions,
        "train --raster": TrainOnPolygonsOptions,
        "models info": ModelInfoOptions,
        "models import": ImportOptions,
        "refine": RefineOptions,
        "areas": AreasOptions,
        "assess sample": SampleOptions,
        "assess accuracy": AccuracyOptions,
        "change": ChangeOptions,
    }
)
"""The options of each command; two commands do two things, each with its own."""


def all_options() -> Iterator[Option]:
    """Every option once, by the order of the commands."""
    seen: set[str] = set()
    for group in COMMANDS.values():
        for found in options_of(group):
            if found.flag not in seen:
                seen.add(found.flag)
                yield found


def describe_options() -> dict[str, list[dict[str, Any]]]:
    """The options of each command as plain data, for JSON."""
    return {
        command: [found.as_dict() for found in options_of(group)]
        for command, group in COMMANDS.items()
    }
