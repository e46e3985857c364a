"""The options of ``rssc-geo``, read from the program's own description.

``options.json`` is written by ``build_zip.py`` from the program's declarations, so that the
plugin declares none of them again. Another version of the program says the same of itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

_EXACT = 2.0**53
"""Below it a float holds every whole number."""
_ACRONYMS = ("aoi", "crs", "stac")
FILE = os.path.join(os.path.dirname(__file__), "options.json")


@dataclass(frozen=True)
class Option:
    """One option of one command, as ``rssc_geo.options.Option.as_dict`` describes it.

    Attributes
    ----------
    name : its name in the program
    flag, negative : the long option of the command line, and the one that switches off what is on
        by default
    group : its heading in the help
    help : one sentence
    type : as JSON Schema names it: string, integer, number, boolean, array
    form : how its text looks (SIZE, CRS, FILE, "R,G,B")
    choices : all that is allowed, if that is a list
    minimum, maximum, unit : of a number
    default : None where the program decides
    multiple : may be given several times
    required : must be given
    commandline_only : destroys, overrides a refusal or runs code: never a parameter
    path : names a file or folder
    """

    name: str
    flag: str
    negative: str | None
    group: str
    help: str
    type: str
    form: str
    choices: list[str] | None
    minimum: float | None
    maximum: float | None
    unit: str | None
    default: Any
    multiple: bool
    required: bool
    commandline_only: bool
    path: bool

    @property
    def switch(self) -> str:
        """What stands on the command line: of a flag that is on by default, its negative."""
        return (self.type == "boolean" and self.default and self.negative) or self.flag

    @property
    def parameter(self) -> str:
        """The name of its parameter: ``--tile-size`` is TILE_SIZE."""
        return self.switch.lstrip("-").replace("-", "_").upper()

    @property
    def title(self) -> str:
        """What its parameter is called: the option's words, and its unit."""
        words = self.switch.lstrip("-").split("-")
        text = " ".join(word.upper() if word in _ACRONYMS else word for word in words)
        unit = f" ({self.unit})" if self.unit else ""
        return text[0].upper() + text[1:] + unit

    @property
    def default_text(self) -> str:
        """The default as the command line would have it; empty where the program decides."""
        if self.default is None:
            return ""
        values = self.default if isinstance(self.default, list) else [self.default]
        return ",".join(_text(value) for value in values)

    def arguments(self, value: Any) -> list[str]:
        """The option on the command line.

        Nothing for None, '' and what the program takes by itself. A list is for an option that
        may be given several times.
        """
        if self.type == "boolean":
            return [self.switch] if value else []
        values = value if isinstance(value, list) else [value]
        texts = [_text(single) for single in values if single is not None]
        return [f"{self.flag}={text}" for text in texts if text not in ("", self.default_text)]


@dataclass(frozen=True)
class Described:
    """What a program says of itself: its version, and the options of each command, in its order."""

    version: str
    options: Mapping[str, tuple[Option, ...]]


def read(text: str) -> Described:
    """What ``rssc-geo info --json`` printed; raises ``ValueError`` where it cannot be read."""
    names = [field.name for field in fields(Option)]
    try:
        told = json.loads(text)
        options = {
            command: tuple(Option(**{name: entry[name] for name in names}) for entry in entries)
            for command, entries in told["options"].items()
        }
        return Described(told["version"], options)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(repr(error)) from error


def shipped() -> Described:
    """The program that this plugin was made for."""
    return _read(FILE)


def options_of(command: str, program: Described | None = None) -> tuple[Option, ...]:
    """The options of a command of a program; of the plugin's own where the other has none such."""
    own = shipped().options
    return own[command] if program is None else program.options.get(command, own[command])


@lru_cache(maxsize=4)
def _read(path: str) -> Described:
    with open(path, encoding="utf-8") as file:
        return read(file.read())


def _text(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    return str(int(value) if whole else value)
