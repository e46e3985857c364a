"""Manifests: a text file of one raster a line, or a CSV file with columns for what differs."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field

from rssc_geo.batch.options import ROW_OPTIONS
from rssc_geo.errors import InputError

_OWN = ("input", "id", "output")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a manifest.

    ``source``: one raster, or three single-band ones; ``options``: texts by long option name.
    """

    source: tuple[str, ...]
    id: str = ""
    output: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


def read_list(path: str) -> list[Row]:
    """One raster a line; empty lines and those that start with ``#`` do not count.

    ``InputError`` where there is none.
    """
    lines = [line.strip() for line in _read(path).splitlines()]
    rows = [Row(_source(line)) for line in lines if line and not line.startswith("#")]
    if not rows:
        raise InputError(f"{path}: no line names a raster")
    return rows


def read_csv(path: str) -> list[Row]:
    """A table with a column ``input``, and optionally ``id``, ``output`` and options such as
    ``tile-size``.

    Three single-band rasters (red, green, blue) are separated by ``;``. Raises ``InputError`` that
    names the columns that are missing, unknown or there twice, or the line that is not right.
    """
    table = csv.reader(_read(path).splitlines())
    header = [name.strip().removeprefix("--") for name in next(table, [])]
    if "input" not in header:
        raise InputError(f"{path}: no column 'input' (there is: {', '.join(header) or 'nothing'})")
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(f"{path}: the column {twice[0]!r} is there twice")
    if unknown := [name for name in header if name not in (*_OWN, *ROW_OPTIONS)]:
        known = ", ".join((*_OWN, *ROW_OPTIONS))
        raise InputError(
            f"{path}: unknown column(s) {', '.join(map(repr, unknown))}; known: {known}"
        )
    rows = []
    for values in table:
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            raise InputError(
                f"{path}, line {table.line_num}: {len(values)} values for {len(header)} columns"
            )
        row = {name: value.strip() for name, value in zip(header, values, strict=True)}
        if not row["input"]:
            raise InputError(f"{path}, line {table.line_num}: no input")
        options = {name: row[name] for name in header if name in ROW_OPTIONS}
        rows.append(Row(_source(row["input"]), row.get("id", ""), row.get("output", ""), options))
    if not rows:
        raise InputError(f"{path}: no line names a raster")
    return rows


def _source(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(";"))
    return parts if len(parts) == 3 and all(parts) else (text,)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path} cannot be read as a manifest: {reason}") from error
