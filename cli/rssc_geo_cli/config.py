"""The configuration file of a command: read once, since it may be a pipe."""

from __future__ import annotations

import tomllib
from typing import Any

from rssc_geo.errors import UsageError, one_line
from rssc_geo.texts import read_text

_read: dict[str, dict[str, Any] | UsageError] = {}
"""What the files hold that this command has read, or why they cannot be read."""


def forget() -> None:
    """Read files anew from now on: another command begins."""
    _read.clear()


def configuration(file: str) -> dict[str, Any]:
    """The content of a configuration file; ``UsageError`` where it is none."""
    if file not in _read:
        try:
            _read[file] = _load(file)
        except UsageError as error:
            _read[file] = error
    found = _read[file]
    if isinstance(found, UsageError):
        raise found
    return found


def _load(file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(file))
    except OSError as error:
        raise UsageError(f"--config {file} cannot be read ({error.strerror})") from error
    except RecursionError:
        raise UsageError(f"--config {file} is no TOML: it is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"--config {file} is no TOML: {one_line(error)}") from error
