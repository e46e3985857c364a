"""The errors of the program, each with a message that states what was found and what to do.

The command line prints the message as one line and exits with the class's ``exit_code``: 1 when the
job failed, 2 for wrong usage, 3 when there was nothing to classify.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable

_LENGTH = 200
_PERMISSION = "change its permissions, or choose another file or folder"
_LIMITS = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: _PERMISSION,
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close other programs: the system has no more open files",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOMEM: "close other programs or use smaller batches (--batch-size)",
    errno.ENOSPC: "free disk space and run the same command again",
}
"""Limits and permissions of the operating system, and what to do about each."""
_NO_MEMORY = re.compile(
    r"(can't|cannot|not) (allocate|enough) memory|failed to map segment|out of memory|bad_alloc"
    r"|can't start new thread|error return without exception set"
    r"|array is too big|maximum allowed dimension exceeded",
    re.IGNORECASE,
)
"""Messages of libraries about memory that is used up, where they raise no ``MemoryError``."""
_NO_HANDLES = re.compile(os.strerror(errno.EMFILE), re.IGNORECASE)
_NO_VALUE = re.compile(
    r"(?:invalid literal for int\(\) with base \d+|could not convert string to float"
    r"|invalid truth value): (.+)"
)
"""Messages of a value that is no number or switch, with the value as Python writes it."""


def one_line(error: BaseException | str) -> str:
    """A foreign message as one line of printable characters, shortened.

    The class of an error without a message.
    """
    words = "".join(sign if sign.isprintable() else " " for sign in str(error)).split()
    return shortened(" ".join(words) or type(error).__name__)


def shortened(text: str) -> str:
    """``text`` with at most 200 characters, an ellipsis for the rest."""
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


def check_utf8(name: str) -> None:
    """Refuse with ``UsageError`` a name that is not UTF-8: neither results nor GDAL can hold it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{escaped(name)} is not UTF-8; rename the file") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name most similar to an unknown one: "; did you mean 'b'?", or "".

    Examples
    --------
    >>> nearest("reviw", ["cells", "review"])
    "; did you mean 'review'?"
    """
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def outer_cause(error: BaseException) -> str:
    """The message where the cause lies outside of the program, in any library; else "".

    A limit of the system, no access, or an environment variable that a library cannot read.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or _NO_MEMORY.search(str(cause)):
            return f"out of memory: {_LIMITS[errno.ENOMEM]}"
        if isinstance(cause, OSError) and cause.errno in _LIMITS:
            return f"{one_line(cause)}: {_LIMITS[cause.errno]}"
        if _NO_HANDLES.search(str(cause)):
            return f"{one_line(cause)}: {_LIMITS[errno.EMFILE]}"
        if isinstance(cause, ValueError) and (unread := _NO_VALUE.fullmatch(str(cause))):
            for name, value in os.environ.items():
                if repr(value) == unread[1]:
                    return f"the environment variable {name} is {unread[1]}: correct or unset it"
        cause = cause.__cause__ or cause.__context__
    return ""


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
