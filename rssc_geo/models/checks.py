"""Checks of what a foreign file says: JSON that is no trap, and values of the right kind and size.

All raise ``ValueError`` or ``TypeError`` with a message that names the value; who reads the file
says which it was.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_DEPTH = 32
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def read_json(text: str) -> Any:
    """The value of a JSON text; refused: a key given twice, numbers that are none, deep nesting."""
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_plain(found)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _check_plain(value: Any) -> None:
    """Refuse what could not be written again: infinities, halves of signs, deep nesting."""
    level = [value]
    for _ in range(_DEPTH):
        inner: list[Any] = []
        for found in level:
            if isinstance(found, dict):
                inner += found
                inner += found.values()
            elif isinstance(found, list):
                inner += found
            elif isinstance(found, float) and not math.isfinite(found):
                raise ValueError("a number in it is too large")
            elif isinstance(found, str) and any("\ud800" <= sign <= "\udfff" for sign in found):
                raise ValueError(f"{found!r} is no text")
        if not inner:
            return
        level = inner
    raise ValueError("it is nested too deeply")


def check_integer(value: object, name: str, low: int, high: int) -> None:
    """Refuse what is no integer from ``low`` to ``high``."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, not an integer from {low} to {high}")


def check_number(value: object, name: str, low: float, high: float) -> None:
    """Refuse what is no number from ``low`` to ``high``; NaN is none."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r}, not a number from {low:g} to {high:g}")


def check_flag(value: object, name: str) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, neither true nor false")


def check_text(value: object, name: str) -> None:
    """Refuse what is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, not a text")


def check_name(value: object, name: str) -> None:
    """Refuse what is no text of one line."""
    check_text(value, name)
    if any(unicodedata.category(sign) in _UNPRINTABLE for sign in str(value)):
        raise ValueError(f"{name} {value!r} holds signs that cannot be printed")


def check_mapping(value: object, name: str) -> None:
    """Refuse what gives no values by name."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} is {value!r}, not an object")


def check_list(value: object, name: str) -> None:
    """Refuse what is no list."""
    if not isinstance(value, list):
        raise TypeError(f"{name} is {value!r}, not a list")


def check_tuple(value: object, name: str, length: int) -> None:
    """Refuse what is no list of ``length`` values."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != length:
        raise ValueError(f"{name} is {value!r}, not a list of {length}")


def check_arguments(
    given: Mapping[str, Any],
    name: str,
    allowed: Mapping[str, tuple[int, int]],
    *,
    flags: Sequence[str] = (),
) -> None:
    """Refuse arguments that are no object of known names, integers within their limits and flags.

    ``dropout``, a share, is known to all.
    """
    check_mapping(given, name)
    for key, value in given.items():
        if key in allowed:
            check_integer(value, f"{name}.{key}", *allowed[key])
        elif key == "dropout":
            check_number(value, f"{name}.{key}", 0, 1)
        elif key in flags:
            check_flag(value, f"{name}.{key}")
        else:
            raise ValueError(f"{name}.{key} is not known")
    width, heads = given.get("width"), given.get("heads")
    if width is not None and heads is not None and width % heads:
        raise ValueError(f"{name}: {heads} heads do not share a width of {width} equally")
