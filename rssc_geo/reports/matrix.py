"""The picture of an error matrix in a page: places and colors of its cells and names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_SIDE, _SIDE_WITH_SHARES = 40, 56  # of a cell
_LETTER, _TURNED = 7, 50  # width of a letter; degrees of the columns' names
_LONGEST = 28  # letters of a name that are shown
_RIGHT, _WRONG, _PAPER = (34, 139, 74), (203, 60, 48), 245
_DARK = 0.55
"""Share of a row from which a cell's text is white."""


def matrix_picture(
    counts: Sequence[Sequence[float]],
    names: Sequence[str],
    *,
    rows: str,
    cols: str,
    shares: Sequence[Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Data of the template ``matrix.svg``.

    ``counts`` (C, C) with the diagonal right, colored by their share of the row; ``shares`` (C, C)
    of the area, written below the counts; ``rows`` and ``cols``: what these are, in a word or two.
    """
    side = _SIDE if shares is None else _SIDE_WITH_SHARES
    short = [shortened(name) for name in names]
    left, turned = width_of(short, _LETTER), math.radians(_TURNED)
    top, right = (round(left * part) + 10 for part in (math.sin(turned), math.cos(turned)))
    cells = []
    for i, row in enumerate(counts):
        whole = sum(row) or 1
        for j, count in enumerate(row):
            part = count / whole
            color = _RIGHT if i == j else _WRONG
            channels = (round(_PAPER + (channel - _PAPER) * part) for channel in color)
            cells.append(
                {
                    "x": left + side * j,
                    "y": top + side * i,
                    "fill": "#{:02x}{:02x}{:02x}".format(*channels),
                    "ink": "#fff" if part > _DARK else "#1c2024",
                    "count": f"{count:g}" if count else "",
                    "share": None if shares is None else shares[i][j],
                    "title": f"{rows} {names[i]}, {cols} {names[j]}: {count:g}",
                }
            )
    return {
        "left": left,
        "top": top,
        "side": side,
        "turned": _TURNED,
        "width": left + side * len(names) + right,
        "height": top + side * len(names) + 10,
        "cells": cells,
        "names": [
            {
                "text": name,
                "row": top + side * number + side // 2 + 4,
                "col": left + side * number + side // 2,
            }
            for number, name in enumerate(short)
        ],
    }


def shortened(name: str) -> str:
    """A name as a picture shows it."""
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def width_of(names: Sequence[str], letter: int) -> int:
    """Width of the longest of the names, and a gap behind it."""
    return letter * max(map(len, names)) + 12
