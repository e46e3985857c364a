"""The page of an assessment: accuracies, adjusted areas as a plot, the error matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rssc_geo.output import AreaUnit, area_unit
from rssc_geo.reports.matrix import matrix_picture, shortened, width_of
from rssc_geo.reports.page import area_text, render

_PLOT_WIDTH, _PLOT_RIGHT, _PLOT_ROW, _PLOT_FOOT = 760, 50, 26, 26
_PLOT_LETTER = 11  # as large as the style sheet makes it on a phone
_TICKS = 5

Row = Mapping[str, Any]


def write_assessment_page(path: Path, values: Mapping[str, Any]) -> None:
    """Write the page of the data of ``AccuracyAssessment.as_dict``, maps and reference by name.

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
    classes, unit = found["classes"], area_unit(found["area_m2"])
    return {
        "name": found["map"],
        "unit": unit,
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
                "area": _area(row["area_m2"], unit),
            }
            for row in classes
        ],
        "plot": _plot(classes, unit),
        "matrix": matrix_picture(
            found["matrix"]["units"],
            [row["name"] for row in classes],
            rows="map",
            cols="reference",
            shares=found["matrix"]["shares"],
        ),
        "strata": found["strata"],
    }


def _plot(classes: Sequence[Row], unit: AreaUnit) -> dict[str, Any]:
    """Positions of the marks of the area plot."""
    names = [shortened(row["name"]) for row in classes]
    left = width_of(names, _PLOT_LETTER)
    tops = [max(row["area_m2"]["high"] or 0, row["map_area_m2"]) for row in classes]
    most = (max(tops) or 1.0) / unit.size_m2
    step = _round_step(most / _TICKS)
    scale = (_PLOT_WIDTH - left - _PLOT_RIGHT) / most

    def place(area_m2: float | None) -> float | None:
        if area_m2 is None:
            return None
        return round(left + max(area_m2, 0) / unit.size_m2 * scale, 1)

    base = _PLOT_ROW * len(classes)
    return {
        "width": _PLOT_WIDTH,
        "height": base + _PLOT_FOOT,
        "left": left,
        "base": base,
        "ticks": [
            {"x": round(left + number * step * scale, 1), "text": f"{number * step:,.10g}"}
            for number in range(int(most / step) + 1)
        ],
        "rows": [
            {
                "y": _PLOT_ROW * number + _PLOT_ROW // 2,
                "name": names[number],
                "color": row["color"],
                "middle": place(row["area_m2"]["value"]),
                "low": place(row["area_m2"]["low"]),
                "high": place(row["area_m2"]["high"]),
                "mapped": place(row["map_area_m2"]),
                "title": f"{row['name']}: {_area(row['area_m2'], unit)} {unit.sign}",
            }
            for number, row in enumerate(classes)
        ],
    }


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, no less than ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)


def _percent(estimate: Row) -> str:
    """``88.0 ± 7.4 %``; a dash where the sample is too small."""
    value = estimate["value"]
    if value is None:
        return "\N{EN DASH}"
    if estimate["standard_error"] is None:
        return f"{100 * value:.1f} ± ? %"
    return f"{100 * value:.1f} ± {100 * (estimate['high'] - value):.1f} %"


def _area(estimate: Row, unit: AreaUnit) -> str:
    """``211.6 ± 61.58``, in a unit; a dash where the sample is too small."""
    value = estimate["value"]
    if value is None:
        return "\N{EN DASH}"
    if estimate["standard_error"] is None:
        return f"{area_text(value, unit)} ± ?"
    return f"{area_text(value, unit)} ± {area_text(estimate['high'] - value, unit)}"
