"""Whether files are still the same.

Their size and time of change, under names that hold wherever they and the run are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rssc_geo.raster import is_remote

Stamps = list[list[Any]]
"""Name from a folder on, bytes, nanoseconds of each file; None for what is not there.

A URL is only named.
"""


def stamp(files: Iterable[str | Path], folder: str | Path) -> Stamps:
    """Stamps of files, named from a folder on.

    Neither moving both nor another working folder changes them.
    """
    return sorted(_stamp(str(file), folder) for file in files)


def unchanged(stamps: Stamps, folder: str | Path) -> bool:
    """Whether the files, the folder being where it is now, are as they were."""
    return stamp((_place(name, folder) for name, _, _ in stamps), folder) == stamps


def still_there(stamps: Stamps, folder: str | Path) -> Stamps:
    """The stamps of those files that exist, changed or not."""
    return [entry for entry in stamps if os.path.exists(_place(entry[0], folder))]


def named_from(file: str, folder: str | Path) -> str:
    """The name of a file from a folder on, with ``/``; URLs and /vsi paths as they are."""
    if is_remote(file):
        return file
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return os.path.abspath(file)


def home_of(source: Sequence[str]) -> Path:
    """The folder from which a scene's files are named: that of its first one."""
    return Path() if is_remote(source[0]) else Path(source[0]).parent


def _place(name: str, folder: str | Path) -> str:
    return name if is_remote(name) else os.path.join(folder, name)


def _stamp(file: str, folder: str | Path) -> list[Any]:
    try:
        found = os.stat(file)
    except OSError:
        return [named_from(file, folder), None, None]
    return [named_from(file, folder), found.st_size, found.st_mtime_ns]
