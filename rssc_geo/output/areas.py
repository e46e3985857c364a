"""Areas of the classes of a finished map, as a whole and in zones."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from rssc_geo.files import check_writable
from rssc_geo.geometry import geodesic_area_m2
from rssc_geo.options import CSV
from rssc_geo.output.finished import FinishedMap
from rssc_geo.output.legends import Legend, translate_classes
from rssc_geo.texts import write_csv

log = logging.getLogger(__name__)

ALL = "(all)"
"""The zone of the rows about the whole map."""


class AreaUnit(NamedTuple):
    """A unit of areas: its square meters, and its sign."""

    size_m2: float
    sign: str


_UNITS = ((1e8, AreaUnit(1e6, "km²")), (1e4, AreaUnit(1e4, "ha")), (0.0, AreaUnit(1.0, "m²")))
"""From how many square meters a unit is used, and the unit."""

_LEFT_OUT = 1e-6


@dataclass(frozen=True, slots=True)
class Zones:
    """Zones by name, in the order of their first feature.

    ``polygons``: (F,), valid, in the map's CRS; ``zone``: (F,), into ``names``. Features of one
    name are one zone and should not overlap.
    """

    names: tuple[str, ...]
    polygons: NDArray[np.object_]
    zone: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AreaRow:
    """The area of a class in a zone.

    Attributes
    ----------
    zone : its name, ``ALL`` for the whole map
    name, group : of the class; ``group`` "" where it has none, and in another legend
    cells : how many; a cell that the zone cuts counts in part
    area_m2 : geodesic
    share : of the part of the zone that the map covers, or of the map
    """

    zone: str
    name: str
    group: str
    cells: float
    area_m2: float
    share: float


def area_unit(area_m2: float) -> AreaUnit:
    """The unit that fits an area: m² below 1 ha, ha below 100 km², else km²."""
    return next(unit for least, unit in _UNITS if abs(area_m2) >= least)


def area_in_words(area_m2: float) -> tuple[float, str]:
    """The area in the unit that fits it, see ``area_unit``.

    Examples
    --------
    >>> from rssc_geo.output import area_in_words
    >>> area_in_words(250_000)
    (25.0, 'ha')
    """
    unit = area_unit(area_m2)
    return area_m2 / unit.size_m2, unit.sign


def area_table(
    finished: FinishedMap, *, legend: Legend | None = None, zones: Zones | None = None
) -> list[AreaRow]:
    """Rows of the whole map, the largest class first, then of each zone.

    A cell that a zone cuts counts by the share of its area in the map's CRS that lies inside, so
    that zones which tile the map sum to its totals. Cells in no zone are reported in a warning.

    Parameters
    ----------
    finished : the map
    legend : to which its classes are translated
    zones : polygons in the map's CRS
    """
    names, places = translate_classes(finished.named_groups, legend)
    groups = dict(finished.named_groups) if legend is None else {}
    counts = np.array([known.cells for known in finished.classes], np.float64)
    areas = np.array([known.area_m2 for known in finished.classes], np.float64)
    rows = _rows(ALL, names, groups, _gathered(counts, places), _gathered(areas, places))
    if zones is None:
        return rows
    cell_shares, area_shares = _in_zones(finished, zones)
    for zone, name in enumerate(zones.names):
        here = (cell_shares[zone] * counts, area_shares[zone] * areas)
        rows += _rows(name, names, groups, *(_gathered(values, places) for values in here))
    inside = float((area_shares.sum(0) * areas).sum()) / (areas.sum() or 1.0)
    if abs(inside - 1) > _LEFT_OUT:
        log.warning("the zones cover %.4g %% of the map's area", 100 * inside)
    return rows


def areas_of(zone: str, totals: Iterable[Mapping[str, Any]]) -> list[AreaRow]:
    """Rows of totals of classes, the largest first.

    ``totals``: ``name``, ``group`` (None for none), ``cells`` and ``area_m2`` each, as a batch's
    journal has them; those of one name are added up.
    """
    sums: dict[str, tuple[float, float]] = {}
    groups: dict[str, str] = {}
    for entry in totals:
        cells, area_m2 = sums.get(entry["name"], (0.0, 0.0))
        sums[entry["name"]] = cells + entry["cells"], area_m2 + entry["area_m2"]
        groups[entry["name"]] = entry["group"] or ""
    both = np.array(list(sums.values()), np.float64).reshape(-1, 2)
    return _rows(zone, list(sums), groups, both[:, 0], both[:, 1])


def check_table(path: Path, *, overwrite: bool) -> None:
    """Refuse before the work starts a table (CSV) that could not be written at its end.

    Raises ``UsageError`` for another suffix, ``OutputError`` for a file that is in the way.
    """
    CSV.check_suffix("--output", path)
    check_writable(path, overwrite=overwrite)


def write_area_table(
    path: Path,
    rows: Sequence[AreaRow],
    adjusted: Mapping[str, Mapping[str, float | None]],
    *,
    overwrite: bool,
    of: str = "zone",
) -> None:
    """Write rows as CSV (UTF-8).

    ``adjusted``: by class, more columns for the rows of the whole map; empty for none; ``of``: what
    the zones of the rows are. Raises ``OutputError`` where it cannot be written.
    """
    more = list(next(iter(adjusted.values()), {}))
    zoned = any(row.zone != ALL for row in rows)
    names = [*([of] if zoned else []), "class", "group", "cells", "area_m2", "area", "unit"]
    entries = []
    for row in rows:
        area, unit = area_in_words(row.area_m2)
        values = {
            of: row.zone,
            "class": row.name,
            "group": row.group,
            "cells": f"{row.cells:.10g}",
            "area_m2": f"{row.area_m2:.12g}",
            "area": f"{area:.6g}",
            "unit": unit,
            "share": f"{row.share:.8g}",
        }
        own = adjusted.get(row.name, {}) if row.zone == ALL else {}
        entries.append({**values, **own})
    write_csv(path, [*names, "share", *more], entries, overwrite=overwrite)


def _gathered(values: NDArray[np.float64], places: NDArray[np.int16]) -> NDArray[np.float64]:
    """Sums of the map's classes for those of the legend."""
    return np.bincount(places, values).astype(np.float64)


def _rows(
    zone: str,
    names: Sequence[str],
    groups: Mapping[str, str],
    cells: NDArray[np.float64],
    areas: NDArray[np.float64],
) -> list[AreaRow]:
    whole = float(areas.sum()) or 1.0
    return [
        AreaRow(
            zone,
            names[i],
            groups.get(names[i], ""),
            float(cells[i]),
            float(areas[i]),
            float(areas[i]) / whole,
        )
        for i in np.argsort(-areas, kind="stable").tolist()
        if cells[i] > 0 or areas[i] > 0
    ]


def _in_zones(
    finished: FinishedMap, zones: Zones
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The shares of each class's cells and area that lie in each zone, (Z, C) both.

    Where regions are not made of whole cells, areas are those of the regions as drawn.
    """
    codes = finished.cells().codes
    shape = (len(zones.names), len(finished.classes))
    cells, areas, whole = np.zeros(shape), np.zeros(shape), np.zeros(shape[1])
    tree = shapely.STRtree(zones.polygons)
    shapely.prepare(zones.polygons)
    for start, polygons in finished.outlines():
        here = codes[start : start + len(polygons)]
        sizes = geodesic_area_m2(polygons, finished.crs)
        whole += np.bincount(here, sizes, minlength=shape[1])
        cell, feature = tree.query(polygons, predicate="intersects")
        covered = shapely.covers(zones.polygons[feature], polygons[cell])
        share = np.ones(len(cell))
        cut = ~covered
        parts = shapely.intersection(polygons[cell[cut]], zones.polygons[feature[cut]])
        share[cut] = shapely.area(parts) / shapely.area(polygons[cell[cut]])
        place = (zones.zone[feature], here[cell])
        np.add.at(cells, place, share)
        np.add.at(areas, place, share * sizes[cell])
    drawn = [known.area_m2 for known in finished.classes]
    if not np.allclose(whole, drawn, rtol=_LEFT_OUT, atol=0):
        areas, whole = _regions_in_zones(finished, zones, tree)
    counts = np.bincount(codes, minlength=shape[1])
    return cells / np.maximum(counts, 1), areas / np.where(whole > 0, whole, 1)


def _regions_in_zones(
    finished: FinishedMap, zones: Zones, tree: shapely.STRtree
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The area in m² of each class's regions in each zone (Z, C), and in all (C,)."""
    polygons, codes = finished.regions()
    count = len(finished.classes)
    whole = np.bincount(codes, geodesic_area_m2(polygons, finished.crs), count).astype(float)
    region, feature = tree.query(polygons, predicate="intersects")
    parts = shapely.intersection(polygons[region], zones.polygons[feature])
    # Where a region and a zone meet along a line or in a point, that is a part too.
    pieces, of_part = shapely.get_parts(parts, return_index=True)
    flat = shapely.get_dimensions(pieces) == 2
    pieces, of_part = pieces[flat], of_part[flat]
    areas = np.zeros((len(zones.names), count))
    place = zones.zone[feature[of_part]], codes[region[of_part]]
    np.add.at(areas, place, geodesic_area_m2(pieces, finished.crs))
    return areas, whole
