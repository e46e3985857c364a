"""How an option is declared, and how the interfaces (command line, files, QGIS) read it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from typing import Any, TypedDict, TypeVar, Unpack

from rssc_geo.errors import UsageError, shortened
from rssc_geo.options.kinds import CRS, FILE, NAMES, TEXT, Kind

T = TypeVar("T")


ENVIRONMENT_PREFIX = "RSSC_GEO_"


@dataclass(frozen=True, slots=True)
class Declaration:
    """Properties of an option beside the field's name, type and default.

    Attributes
    ----------
    help : one sentence
    group : heading in the help and in QGIS
    kind : how its text is converted
    unit : of a number ("m²")
    flag : the long option on the command line; default: the field's name with dashes
    short : a letter for the command line, if any
    negative : the long option that switches off what is on by default
    multiple : may be given several times; the value is a tuple
    count : may be given several times; the value is how often
    words : values on the command line, with the words for them in the help; 1 value by default
    commandline_only : it deletes files, overrides a refusal or runs code, so that neither the
        environment nor a file may set it
    row : a row of a batch manifest may set it for its scene
    path : it names a file or folder: a relative one in a manifest starts from the manifest's folder
    required : it must be given
    structured : in Python it may be more than its text, and is then taken as it is
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
    structured: bool = False


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
    structured: bool


def option(
    help: str,  # noqa: A002 -- the name in click
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
    """An option as the interfaces see it: a declaration with its name and default."""

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
            raise UsageError(
                f"{self.flag} {shortened(repr(text))} is not {kind.expected}"
            ) from None

    def from_plain(self, value: Any) -> Any:
        """The value of plain data: of a configuration file, or of a request in JSON.

        A list holds the values of an option that may be given several times, else the parts of one.
        ``UsageError`` for an invalid value.
        """
        if self.declaration.multiple or self.declaration.words:
            items = value if isinstance(value, list) else [value]
            return tuple(self.parse(self._plain_text(item)) for item in items)
        if self.declaration.count and isinstance(value, int):
            return value
        return self.parse(self._plain_text(value))

    def from_python(self, value: Any) -> Any:
        """The value of a Python caller's own types: paths, dates, a CRS, numpy's, any sequence.

        ``UsageError`` for an invalid value.
        """
        declaration, kind = self.declaration, self.declaration.kind
        if value is None and self.default is None:
            return None
        if declaration.structured and not isinstance(value, str | os.PathLike):
            return value
        plain = self._plain(value)
        if plain == "" == self.default:
            return plain
        if isinstance(plain, list) and kind is NAMES:
            return tuple(map(self._plain_text, plain))  # a name may have a comma in it
        found = self.from_plain(plain)
        # A float is itself, where its digits would be read as a whole number of 64 bits.
        return plain if isinstance(found, int) and isinstance(plain, float) else found

    def _plain(self, value: Any) -> Any:
        """A value of Python as plain data."""
        if hasattr(value, "tolist"):  # of numpy, pandas and torch
            value = value.tolist()
        kind = self.declaration.kind
        if isinstance(value, str | int | float):
            return value
        if isinstance(value, os.PathLike):
            return os.fsdecode(value)
        if type(value).__module__ == "torch":
            return str(value).removeprefix("torch.")  # a device, or a type of numbers
        if isinstance(value, date) or (kind is CRS and hasattr(value, "to_wkt")):
            return str(value)
        if isinstance(value, Sequence | AbstractSet) and not isinstance(value, bytes):
            return [self._plain(item) for item in value]
        expected = "the path of a file" if self.declaration.path else kind.expected
        raise UsageError(
            f"{self.flag} cannot be of Python's type {type(value).__name__}: give {expected}"
        )

    def _plain_text(self, value: Any) -> str:
        """Plain data as it is written on the command line.

        A list is one of numbers or texts, however deep others nest theirs.
        """
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
            return ",".join(self._plain_text(item) for item in value)
        if isinstance(value, list | dict):
            raise UsageError(f"{self.flag} holds a list in a list, or a table, which no option has")
        try:
            return str(value)
        except ValueError:  # Python writes no number of more than 4,300 digits
            raise UsageError(f"{self.flag} is a number of too many digits") from None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, for the QGIS plugin and the options page."""
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


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all groups of options: their values are those that the command line would give."""

    def __post_init__(self) -> None:
        group: type = type(self)
        for known in options_of(group):
            value = getattr(self, known.name)
            object.__setattr__(self, known.name, known.from_python(value))


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


def files_read(options: object) -> list[str]:
    """The files that the options of a dataclass name, but for those that the run makes.

    Also of those that need not be one, such as a legend that has a name: what is no file is left
    out. Of a layer (``file.gpkg|layername=name``) its file. A file that is kept between runs, such
    as the cache of captions, counts before it is there.
    """
    group: type = type(options)
    found: list[str] = []
    for option in options_of(group):
        value = getattr(options, option.name)
        if not option.is_written:
            texts = value if isinstance(value, tuple) else (value,)
            named = [text.split("|")[0] for text in texts if isinstance(text, str)]
            is_file = option.declaration.kind is FILE
            found += [name for name in named if is_file or os.path.isfile(name)]
    return found


def check_suffixes(options: object) -> None:
    """Refuse with ``UsageError`` a file to write whose name says another format than it has."""
    group: type = type(options)
    for option in options_of(group):
        value, kind = getattr(options, option.name), option.declaration.kind
        if value and kind.suffixes:
            kind.check_suffix(option.flag, value)


def given_of(options: object, group: type) -> dict[str, Any]:
    """Those of a group's options that are not at their defaults, by name."""
    defaults = values_of(group(), group)
    values = values_of(options, group)
    return {name: value for name, value in values.items() if value != defaults[name]}


def narrowed(options: object, group: type[T]) -> T:
    """The options of a group alone, out of a command's."""
    return group(**values_of(options, group))
