"""The page of an assessment: accuracies, adjusted areas as a plot, the error matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rssc_geo.reports.page import render

_SIDE, _MATRIX_LEFT, _MATRIX_TOP = 56, 190, 130  # a cell; width of names
_PLOT_WIDTH, _PLOT_LEFT, _PLOT_ROW, _PLOT_FOOT = 760, 190, 26, 26
_TICKS = 5
_RIGHT, _WRONG = (34, 139, 74), (203, 60, 48)
_DARK = 0.55
"""Share of a row from which the picture's text is white."""

Row = Mapping[str, Any]


def write_assessment_page(path: Path, values: Mapping[str, Any]) -> None:
    """Write the page of the data of ``AccuracyAssessment.as_dict``.

    Raises ``OSError`` where it cannot be written.
    """
    page = {
        "reference": values["reference"],
        "maps": [_map(found) for found in values["maps"]],
        "comparisons": [
            {
                "name": f"{row['map']} less {row['other']}",
                "difference": _percent(row["difference"]),
                "p_value": "" if row["p_value"] is None else f"{row['p_value']:.3g}",
            }
            for row in values["comparisons"]
        ],
    }
    path.write_text(render("assessment.html", page), encoding="utf-8")


def _map(found: Row) -> dict[str, Any]:
    classes = found["classes"]
    return {
        "name": found["map"],
        "notes": found["notes"],
        "overall": _percent(found["overall_accuracy"]),
        "named": found["named_accuracy"] and _percent(found["named_accuracy"]),
        "area_m2": found["area_m2"],
        "labeled": found["labeled"],
        "estimator": found["estimator"],
        "classes": [
            {
                "name": row["name"],
                "color": row["color"],
                "users": _percent(row["users_accuracy"]),
                "producers": _percent(row["producers_accuracy"]),
                "map_area_m2": row["map_area_m2"],
                "area": _area(row["area_m2"]),
            }
            for row in classes
        ],
        "plot": _plot(classes),
        "matrix": _matrix(found["matrix"], [row["name"] for row in classes]),
        "strata": found["strata"],
    }


def _plot(classes: Sequence[Row]) -> dict[str, Any]:
    """Positions of the marks of the area plot."""
    tops = [max(row["area_m2"]["high"] or 0, row["map_area_m2"]) for row in classes]
    step = _round_step(max([*tops, 1.0]) / 1e4 / _TICKS)
    width = _PLOT_WIDTH - _PLOT_LEFT - 20
    scale = width / (max([*tops, 1.0]) / 1e4)

    def place(area_m2: float | None) -> float | None:
        return None if area_m2 is None else round(_PLOT_LEFT + max(area_m2, 0) / 1e4 * scale, 1)

    base = _PLOT_ROW * len(classes)
    return {
        "width": _PLOT_WIDTH,
        "height": base + _PLOT_FOOT,
        "left": _PLOT_LEFT,
        "base": base,
        "ticks": [
            {"x": round(_PLOT_LEFT + number * step * scale, 1), "text": f"{number * step:,g} ha"}
            for number in range(int(width / scale / step) + 1)
        ],
        "rows": [
            {
                "y": _PLOT_ROW * number + _PLOT_ROW // 2,
                "name": row["name"],
                "color": row["color"],
                "middle": place(row["area_m2"]["value"]),
                "low": place(row["area_m2"]["low"]),
                "high": place(row["area_m2"]["high"]),
                "mapped": place(row["map_area_m2"]),
                "title": _area(row["area_m2"]),
            }
            for number, row in enumerate(classes)
        ],
    }


def _matrix(matrix: Row, names: Sequence[str]) -> dict[str, Any]:
    """Positions and colors of the cells of the error matrix."""
    cells = []
    for i, (counts, shares) in enumerate(zip(matrix["units"], matrix["shares"], strict=True)):
        whole = sum(counts) or 1
        for j, (count, share) in enumerate(zip(counts, shares, strict=True)):
            part = count / whole
            color = _RIGHT if i == j else _WRONG
            cells.append(
                {
                    "x": _MATRIX_LEFT + _SIDE * j,
                    "y": _MATRIX_TOP + _SIDE * i,
                    "fill": "#{:02x}{:02x}{:02x}".format(
                        *(round(245 + (channel - 245) * part) for channel in color)
                    ),
                    "ink": "#fff" if part > _DARK else "#1c2024",
                    "count": f"{count:g}" if count else "",
                    "share": share,
                    "title": f"map {names[i]}, reference {names[j]}: {count:g} units",
                }
            )
    return {
        "left": _MATRIX_LEFT,
        "top": _MATRIX_TOP,
        "side": _SIDE,
        "width": _MATRIX_LEFT + _SIDE * len(names) + 110,
        "height": _MATRIX_TOP + _SIDE * len(names) + 10,
        "cells": cells,
        "names": [
            {
                "text": name,
                "row": _MATRIX_TOP + _SIDE * number + _SIDE // 2 + 4,
                "col": _MATRIX_LEFT + _SIDE * number + _SIDE // 2,
            }
            for number, name in enumerate(names)
        ],
    }


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, no less than ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _percent(estimate: Row) -> str:
    """``88.0 ± 7.4 %``; a dash where the sample is too small."""
    return _with_half(estimate, 100, "%", 1)


def _area(estimate: Row) -> str:
    """``21,157.8 ± 6,157.5 ha``."""
    value = estimate["value"]
    decimals = 1 if value is None or value >= 1e5 else 3
    return _with_half(estimate, 1e-4, "ha", decimals)


def _with_half(estimate: Row, factor: float, unit: str, decimals: int) -> str:
    if estimate["value"] is None:
        return "–"
    value = f"{estimate['value'] * factor:,.{decimals}f}"
    if estimate["standard_error"] is None:
        return f"{value} {unit}, error unknown"
    half = (estimate["high"] - estimate["value"]) * factor
    return f"{value} ± {half:,.{decimals}f} {unit}"
