"""The result of an accuracy assessment: estimates for each map, and the files that show them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rssc_geo.assessment import Accuracy, Difference, Estimate
from rssc_geo.files import atomic_folder, check_not_input
from rssc_geo.output import map_files
from rssc_geo.reports import write_assessment_page
from rssc_geo.texts import write_csv

_INDEX = "accuracy.json"
_FILES = ("accuracy.html", "classes.csv", "matrix.csv")


@dataclass(frozen=True, slots=True)
class ReferenceStratum:
    """A stratum of the reference: area in m², cells (None if not known), units, labeled units."""

    name: str
    area_m2: float
    cells: int | None
    units: int
    labeled: int


@dataclass(frozen=True, slots=True)
class MapAccuracy:
    """The estimates for one map.

    Attributes
    ----------
    path : the map
    classes, colors : names and colors of the C classes, of the map and of the reference
    map_areas_m2 : (C,), of each class in the map
    accuracy : error matrix, accuracies, adjusted areas
    named : accuracy of the named part of a map, where some of it is ``Unknown``; else None
    estimator : its description
    strata : of the sample
    notes : limits of the figures, as text
    """

    path: Path
    classes: tuple[str, ...]
    colors: tuple[str, ...]
    map_areas_m2: tuple[float, ...]
    accuracy: Accuracy
    named: Estimate | None
    estimator: str
    strata: tuple[ReferenceStratum, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data; values that cannot be estimated are None."""
        found = self.accuracy
        rows = zip(
            self.classes, self.colors, self.map_areas_m2, found.users, found.producers,
            found.area_shares, found.areas_m2, strict=True,
        )  # fmt: skip
        return {
            "map": str(self.path),
            "labeled": sum(stratum.labeled for stratum in self.strata),
            "area_m2": found.area_m2,
            "overall_accuracy": _plain(found.overall),
            "named_accuracy": None if self.named is None else _plain(self.named),
            "classes": [
                {
                    "name": name,
                    "color": color,
                    "map_area_m2": map_area,
                    "users_accuracy": _plain(users),
                    "producers_accuracy": _plain(producers),
                    "area_share": _plain(share),
                    "area_m2": _plain(area),
                }
                for name, color, map_area, users, producers, share, area in rows
            ],
            "matrix": {
                "units": found.counts.round(6).tolist(),
                "shares": found.shares.tolist(),
            },
            "estimator": self.estimator,
            "strata": [
                {
                    "name": stratum.name,
                    "area_m2": stratum.area_m2,
                    "cells": stratum.cells,
                    "units": stratum.units,
                    "labeled": stratum.labeled,
                }
                for stratum in self.strata
            ],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """The overall accuracy of one map less that of another, on the units that both cover."""

    path: Path
    other: Path
    units: int
    found: Difference


@dataclass(frozen=True, slots=True)
class AccuracyAssessment:
    """The estimates for the maps: each by itself, and the first against each of the others."""

    reference: str
    maps: tuple[MapAccuracy, ...]
    comparisons: tuple[Comparison, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "reference": self.reference,
            "maps": [found.as_dict() for found in self.maps],
            "comparisons": [
                {
                    "map": str(each.path),
                    "other": str(each.other),
                    "units": each.units,
                    "difference": _plain(each.found.difference),
                    "p_value": _number(each.found.p_value),
                }
                for each in self.comparisons
            ],
        }

    def _without_folders(self) -> dict[str, Any]:
        """The plain data with maps and reference by their names, for files that are passed on."""
        values = self.as_dict()
        file, bar, layer = self.reference.partition("|")
        values["reference"] = f"{Path(file).name}{bar}{layer}"
        for found in values["maps"]:
            found["map"] = Path(found["map"]).name
        for row in values["comparisons"]:
            row |= {"map": Path(row["map"]).name, "other": Path(row["other"]).name}
        return values

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``accuracy.json``, ``accuracy.html``, ``classes.csv`` and ``matrix.csv``.

        Maps and reference are named without their folders. The folder is new, empty, or an earlier
        result, which is replaced. Raises ``OutputError`` where it cannot be written.
        """
        target, values = Path(folder), self._without_folders()
        maps = [file for found in self.maps for file in map_files(found.path)]
        check_not_input([target], [self.reference, *maps])
        with atomic_folder(target, index=_INDEX, overwrite=True, others=lambda _: _FILES) as made:
            text = json.dumps(values, ensure_ascii=False, indent=1, allow_nan=False)
            (made / _INDEX).write_text(text + "\n", encoding="utf-8")
            write_assessment_page(made / "accuracy.html", values)
            for name, rows in (("classes", _class_rows(values)), ("matrix", _matrix_rows(values))):
                write_csv(made / f"{name}.csv", list(rows[0]), rows)
        return [target / name for name in (_INDEX, *_FILES)]


def adjusted_area(entry: Mapping[str, Any]) -> dict[str, float | None]:
    """Columns of a table for the adjusted area of a class, from ``MapAccuracy.as_dict``."""
    area = entry["area_m2"]
    return {
        "adjusted_m2": area["value"],
        "adjusted_standard_error_m2": area["standard_error"],
        "adjusted_low_m2": area["low"],
        "adjusted_high_m2": area["high"],
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return {
        "value": _number(estimate.value),
        "standard_error": _number(estimate.standard_error),
        "low": _number(estimate.low),
        "high": _number(estimate.high),
    }


def _class_rows(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a class of each map, every estimate with its error and interval."""
    rows = []
    for found in values["maps"]:
        overall = {"name": "(all)", "map_area_m2": found["area_m2"]}
        overall["users_accuracy"] = overall["producers_accuracy"] = found["overall_accuracy"]
        for entry in [*found["classes"], overall]:
            row = {"map": found["map"], "class": entry["name"], "map_area_m2": entry["map_area_m2"]}
            for name in ("users_accuracy", "producers_accuracy", "area_share", "area_m2"):
                for part in ("value", "standard_error", "low", "high"):
                    key = name if part == "value" else f"{name}_{part}"
                    row[key] = entry.get(name, {}).get(part)
            rows.append(row)
    return rows


def _matrix_rows(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a cell of the error matrix that is not zero."""
    rows = []
    for found in values["maps"]:
        names = [entry["name"] for entry in found["classes"]]
        matrix = found["matrix"]
        rows += [
            {"map": found["map"], "map_class": a, "reference_class": b, "units": n, "share": share}
            for a, counts, shares in zip(names, matrix["units"], matrix["shares"], strict=True)
            for b, n, share in zip(names, counts, shares, strict=True)
            if n
        ]
    return rows
