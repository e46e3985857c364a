"""The errors of the program, each with a message that states what was found and what to do.

The command line prints the message as one line and exits with the class's ``exit_code``: 1 when the
job failed, 2 for wrong usage, 3 when there was nothing to classify.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LENGTH = 200


def one_line(error: BaseException | str) -> str:
    """A foreign message as one line of printable characters, shortened.

    The class of an error without a message.
    """
    words = "".join(sign if sign.isprintable() else " " for sign in str(error)).split()
    text = " ".join(words) or type(error).__name__
    return text if len(text) <= _LENGTH else text[: _LENGTH - 1] + "…"


def escaped(text: str) -> str:
    r"""``text`` with its control characters written out, so that no name in it can forge a line.

    Examples
    --------
    >>> escaped("a\nerror: b")
    'a\\nerror: b'
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name most similar to an unknown one: "; did you mean 'b'?", or "".

    Examples
    --------
    >>> nearest("reviw", ["cells", "review"])
    "; did you mean 'review'?"
    """
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


class RsscGeoError(Exception):
    """Base of every error that rssc-geo raises on purpose."""

    exit_code = 1


class UsageError(RsscGeoError):
    """An invalid option or argument."""

    exit_code = 2


class InputError(RsscGeoError):
    """A raster, AOI or data set that cannot be read or used."""


class GeoreferenceError(InputError):
    """A raster whose place on Earth is unknown or unusable."""


class NothingToClassifyError(InputError):
    """A raster of which no cell has enough valid pixels."""

    exit_code = 3


class OutputError(RsscGeoError):
    """A result that cannot be written."""


class BundleError(RsscGeoError):
    """A model bundle that is missing, incomplete, altered or unsafe."""
