"""The contact sheet of a search: pictures of the cells found, and where they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssc_geo.files import atomic_write
from rssc_geo.geometry import Window
from rssc_geo.inference import Plan
from rssc_geo.models import SceneClass
from rssc_geo.output import GEOMETRY, middle_of, timestamp
from rssc_geo.reports.page import render
from rssc_geo.reports.report import jpeg

_SIDE = 240  # pixels of a picture's longer side
_AROUND = 1.0
"""Multiple of a whole cell's sides that is shown on each side of it, within the raster."""
_MAP_WIDTH = 1000.0
_MARGIN = 0.08
"""Share of the map's longer side around the cells."""
_LEAST_DEGREES = 0.01
"""Least extent of the map, in degrees, for cells that are close to each other."""
_FLATTEST, _STEEPEST = 0.25, 0.7  # height of the map, by its width
_MARKER = 10.0  # radius of a marker and its rim, in units of the map
_REACH = 12  # markers that would overlap move so many of their widths at most


@dataclass(frozen=True, slots=True)
class HitPicture:
    """A cell in its surroundings.

    ``picture``: a URI; ``box``: left, top, width, height of the cell, in percent of the picture.
    """

    picture: str
    box: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HitSheet:
    """Contents of the sheet.

    Attributes
    ----------
    asked : the query, by label
    hits : the rows of the layer ``hits``, the best first
    pictures : by rank; none of a cell whose raster no longer exists
    searched : how many cells might have been found
    classes : names, titles, colors
    """

    asked: Mapping[str, str]
    hits: Sequence[Mapping[str, Any]]
    pictures: Mapping[int, HitPicture]
    searched: int
    classes: Sequence[SceneClass]


def write_hit_sheet(path: Path, sheet: HitSheet, *, overwrite: bool) -> None:
    """Write the sheet; raises ``OutputError`` where it cannot be written."""
    colors = {known.name: known.color for known in sheet.classes}
    titles = {known.name: known.title for known in sheet.classes}
    hits = [
        {
            **hit,
            "title": titles.get(hit["class"], hit["class"]),
            "color": colors.get(hit["class"], "#9e9e9e"),
            "shown": sheet.pictures.get(hit["rank"]),
        }
        for hit in sheet.hits
    ]
    values = {
        "asked": sheet.asked,
        "hits": hits,
        "searched": sheet.searched,
        "scenes": len({hit["scene"] for hit in hits}),
        "map": _map(hits),
        "made": timestamp(),
    }
    text = render("hits.html", values)
    with atomic_write(path, overwrite=overwrite) as made:
        made.write_text(text, encoding="utf-8")


def hit_picture(plan: Plan, row: int, col: int) -> HitPicture:
    """A cell of a scene in its surroundings; ``InputError`` where the raster cannot be read."""
    rows, cols = plan.grid.row_edges(), plan.grid.col_edges()
    top, bottom, left, right = (
        int(edge) for edge in (rows[row], rows[row + 1], cols[col], cols[col + 1])
    )
    # As large for a cell that the raster's edge cuts as for any other.
    height, width = (
        min(round(side * (1 + 2 * _AROUND)), length)
        for side, length in zip(plan.grid.cell_size, plan.scene.shape, strict=True)
    )
    first = (
        min(max((top + bottom - height) // 2, 0), plan.scene.height - height),
        min(max((left + right - width) // 2, 0), plan.scene.width - width),
    )
    longest = max(height, width)
    shape = max(1, round(_SIDE * height / longest)), max(1, round(_SIDE * width / longest))
    picture = jpeg(*plan.picture(Window(*first, height, width), shape))
    shares = (
        (left - first[1]) / width,
        (top - first[0]) / height,
        (right - left) / width,
        (bottom - top) / height,
    )
    box = tuple(round(100 * share, 2) for share in shares)
    return HitPicture(picture, box)


def _within_circle(longitude: float) -> float:
    return (longitude + 180) % 360 - 180


def _map(hits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The map of the cells, with degrees of longitude scaled as in the middle of the map."""
    lon, lat = np.array([middle_of(hit[GEOMETRY]) for hit in hits]).T
    if np.ptp(lon) > 180:  # on both sides of the antimeridian
        lon = lon % 360
    center = (lon.min() + lon.max()) / 2, (lat.min() + lat.max()) / 2
    shrink = max(0.01, math.cos(math.radians(center[1])))
    width = max(float(np.ptp(lon)) * shrink, _LEAST_DEGREES)
    height = max(float(np.ptp(lat)), _LEAST_DEGREES)
    width, height = (side + 2 * _MARGIN * max(width, height) for side in (width, height))
    width, height = max(width, height / _STEEPEST), max(height, width * _FLATTEST)
    scale = _MAP_WIDTH / width
    places = np.stack(
        [
            ((lon - center[0]) * shrink + width / 2) * scale,
            (center[1] + height / 2 - lat) * scale,
        ],
        axis=1,
    )
    places = _apart(places, (_MAP_WIDTH, height * scale))
    return {
        "width": f"{_MAP_WIDTH:.0f}",
        "height": f"{height * scale:.0f}",
        "west": f"{_within_circle(center[0] - width / shrink / 2):.3f}°",
        "east": f"{_within_circle(center[0] + width / shrink / 2):.3f}°",
        "north": f"{center[1] + height / 2:.3f}°",
        "south": f"{center[1] - height / 2:.3f}°",
        "points": [
            {
                "x": f"{x:.1f}",
                "y": f"{y:.1f}",
                "rank": hit["rank"],
                "color": hit["color"],
                "title": f"{hit['rank']}: {hit['title']}, {hit['scene']}",
            }
            for (x, y), hit in reversed(list(zip(places.tolist(), hits, strict=True)))
        ],
    }


def _apart(places: NDArray[np.float64], size: tuple[float, float]) -> NDArray[np.float64]:
    """Places (N, 2) of markers on a sheet, moved so that they do not cover an earlier one.

    Each goes to the nearest free place of a lattice around its own. Where none is free within
    reach, it stays.
    """
    steps = np.arange(-_REACH, _REACH + 1) * 2 * _MARKER
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    offsets = offsets[np.argsort(np.hypot(*offsets.T), kind="stable")]
    found = np.empty_like(places)
    for number, place in enumerate(places):
        tried = place + offsets
        inside = ((tried >= _MARKER) & (tried <= np.array(size) - _MARKER)).all(1)
        tried = tried[inside | (offsets == 0).all(1)]
        gaps = np.abs(tried[:, None] - found[None, :number]).max(2)
        free = (gaps >= 2 * _MARKER - 1e-6).all(1)
        found[number] = tried[free.argmax()] if free.any() else place
    return found
