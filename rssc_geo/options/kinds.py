"""Conversion of an option's text to its value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from rssc_geo.errors import UsageError

_LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of an option's text: ``parse`` raises ``ValueError`` for an invalid one.

    ``name`` is shown in the help (``SIZE``); ``json_type`` is the type in JSON, as in JSON Schema;
    ``choices``: the allowed values, if there is a list; ``expected``: the valid form, for the
    message about an invalid text; ``minimum`` and ``maximum``: the limits of a number, inclusive;
    ``suffixes``: those a file of this format may have, the usual one first.
    """

    name: str
    parse: Callable[[str], Any]
    json_type: str = "string"
    choices: tuple[str, ...] = ()
    expected: str = "a text"
    minimum: float | None = None
    maximum: float | None = None
    suffixes: tuple[str, ...] = ()

    def check_suffix(self, flag: str, path: str | Path) -> None:
        """Raise ``UsageError`` where a file of the option ``flag`` is named as another format."""
        if Path(path).suffix.lower() not in self.suffixes:
            raise UsageError(
                f"{flag} {path}: it is written as {self.name}: name it {self.suffixes[0]}"
            )


def _parse_flag(text: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _parse_number(text: str) -> float:
    """A float; the whole number itself where it is of 64 bits and a float would round it."""
    value = float(text)
    if 2**53 <= abs(value) <= 2**64:
        exact = Decimal(text)
        if exact != value and exact == int(exact):
            return int(exact)
    return value


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


def _parse_natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _parse_seed(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _LARGEST_SEED:
        raise ValueError(text)
    return value


def _parse_schedule(text: str) -> tuple[tuple[int, int], ...]:
    parts = tuple((int(a), int(b)) for a, b in (part.split("x") for part in text.split(",")))
    if any(epochs < 1 or size < 32 for epochs, size in parts):
        raise ValueError(text)
    return parts


def _parse_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(text)
    return text


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
TIFF = Kind("TIF", str, suffixes=(".tif", ".tiff"))
PNG = Kind("PNG", str, suffixes=(".png",))
HTML = Kind("HTML", str, suffixes=(".html", ".htm"))
CSV = Kind("CSV", str, suffixes=(".csv",))
JSON = Kind("JSON", str, suffixes=(".json", ".geojson"))
PARQUET = Kind("PARQUET", str, suffixes=(".parquet",))
NAME = Kind("NAME", str)
LINE = Kind("NAME", _parse_line, expected="a name of one line that can be printed")
CRS = Kind("CRS", str)
SIZE = Kind("SIZE", str)
RANGE = Kind("LOW,HIGH", str)
DEVICE = Kind("DEVICE", str)
FLAG = Kind("true|false", _parse_flag, "boolean", expected="true or false")
INTEGER = Kind("N", int, "integer", expected="a whole number")
COUNT = Kind("N", _parse_count, "integer", expected="a whole number; give 1 or more", minimum=1)
NATURAL = Kind("N", _parse_natural, "integer", expected="a whole number; give 0 or more", minimum=0)
SEED = Kind(
    "N",
    _parse_seed,
    "integer",
    expected=f"a whole number from 0 to {_LARGEST_SEED}",
    minimum=0,
    maximum=_LARGEST_SEED,
)
NUMBER = Kind("NUMBER", _parse_number, "number", expected="a number")
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
