"""Text files: read as others wrote them, tables written so that spreadsheets run nothing."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rssc_geo.files import atomic_write

_LARGEST_TEXT = 1 << 28  # bytes: a list of some million rasters
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def read_text(path: str | Path) -> str:
    """The content of a text file of others: UTF-8, without the byte order mark of some editors.

    Line ends stay as they are. Raises ``OSError`` where it cannot be read, and beyond 256 MiB, as
    of a device that never ends; ``UnicodeDecodeError`` where it is not UTF-8.
    """
    with open(path, "rb") as file:
        content = file.read(_LARGEST_TEXT + 1)
    if len(content) > _LARGEST_TEXT:
        raise OSError(errno.EFBIG, "it is larger than 256 MiB", os.fspath(path))
    return content.decode("utf-8-sig")


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file of others, without their ends; errors are those of ``read_text``.

    Only line feeds and carriage returns end a line: other separators may be part of a name or text.
    """
    return io.StringIO(read_text(path), newline=None).read().split("\n")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text of others.

    Raises ``ValueError`` also for deep nesting, and for halves of characters, which no file can
    hold.
    """
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a character") from None
    return found


def write_csv(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, object]],
    *,
    overwrite: bool = True,
) -> None:
    """Write a table as CSV (UTF-8), whole or not at all.

    ``columns``: of each row those are written; ``overwrite``: as of ``atomic_write``. A text that a
    spreadsheet would take for a formula has an apostrophe put before it, which is how spreadsheets
    mark texts. Raises ``OutputError`` where it cannot be written.
    """
    with (
        atomic_write(path, overwrite=overwrite) as made,
        made.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(map(_no_formula, columns))
        for row in rows:
            table.writerow([_no_formula(row.get(name, "")) for name in columns])


def _no_formula(value: object) -> object:
    """See https://owasp.org/www-community/attacks/CSV_Injection; numbers stay as they are."""
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    with suppress(ValueError):
        float(value)
        return value
    return f"'{value}"
