"""Another map from a finished one: another legend, fewer classes, smoother or larger regions."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from rssc_geo.errors import InputError, UsageError
from rssc_geo.models import (
    GROUPS,
    UNKNOWN_CLASS,
    SceneClass,
    known_groups,
    simplified_name,
)
from rssc_geo.options import OutputOptions, RefineOptions, files_read, given_of
from rssc_geo.output import (
    CELL_FIELDS,
    GEOMETRY,
    ClassTotal,
    FinishedMap,
    Legend,
    RefinedCells,
    RegionValues,
    make_target,
    map_files,
    provenance_document,
    read_cells,
    read_legend,
    read_provenance,
    shown_classes,
    translate_classes,
    write_refined,
)

log = logging.getLogger(__name__)

_KEPT = [field.name for field in CELL_FIELDS if field.name not in ("class", "class_id", "group")]


@dataclass(frozen=True, slots=True)
class RefineResult:
    """The result: files, number of cells and regions, totals of the classes shown."""

    paths: tuple[Path, ...]
    cells: int
    regions: int
    classes: tuple[ClassTotal, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "outputs": [str(path) for path in self.paths],
            "cells": self.cells,
            "regions": self.regions,
            "classes": [asdict(total) for total in self.classes],
        }


def refine(
    map_path: str | Path, output: str | Path, options: RefineOptions | None = None
) -> RefineResult:
    """Make another map of the cells of a finished one, without raster or model.

    First the choice of classes: a cell whose class is not among them gets its runner-up. Then the
    legend: where class and runner-up become one, their probabilities add up. Then ``majority`` and
    ``min_area``, which change the ``landuse`` layer alone. Probabilities of all classes are not
    kept, nor are outlines that were snapped (``--snap``), since the picture is not read here.

    Parameters
    ----------
    map_path : a map by :func:`rssc_geo.classify`, in any format
    output : .gpkg, .fgb, .geojson, .parquet or .shp
    options : all that the command line has; its defaults

    Raises ``InputError`` where the map cannot be read, or lacks what a choice of classes needs,
    ``UsageError`` for invalid options, ``OutputError`` where the new map cannot be
    written.

    Examples
    --------
    >>> from rssc_geo import RefineOptions, classify, refine
    >>> cells = classify("scene.tif", "map.gpkg").summary.cells
    >>> refine("map.gpkg", "groups.gpkg", RefineOptions(legend="groups")).cells == cells
    True
    """
    options = options or RefineOptions()
    target = make_target(
        output,
        OutputOptions(min_area=options.min_area),
        overwrite=options.overwrite,
        inputs=[*map_files(map_path), *files_read(options)],
    )
    legend = None if options.legend is None else read_legend(options.legend)
    finished = FinishedMap(map_path)
    made = read_provenance(finished.path)
    steps = dict(made.get("steps", {}))
    if steps.pop("snap", None) is not None:
        log.warning(
            "%s was snapped to its picture (--snap), which is not read again here: the new map"
            " has the outlines of cells",
            finished.path.name,
        )
    table = _read(finished)
    table = _choose(table, options, finished)
    numbers = dict(zip(table["class"].to_pylist(), table["class_id"].to_pylist(), strict=True))
    table, classes = _translate(table, legend, finished)
    if legend is not None:
        numbers = {known.name: known.id for known in classes}
    places = {known.name: place for place, known in enumerate(classes)}
    cells = RefinedCells(
        table.select(_KEPT),
        np.array([places[name] for name in table["class"].to_pylist()], np.int64),
        classes,
        tuple(numbers.get(known.name) for known in classes),
        np.asarray(shapely.from_wkb(table[GEOMETRY].to_numpy())),
        finished.crs,
    )
    provenance = provenance_document(
        {**made, **({"steps": steps} if "steps" in made else {})},
        {
            "refined_from": finished.path.name,
            "refined_by": {"options": _told(options), "rssc_geo": version("rssc-geo")},
            "legend": None if legend is None else {"title": legend.title, "source": legend.source},
        },
    )
    shown, regions = write_refined(
        target, cells, majority=options.majority or 0, provenance=provenance
    )
    return RefineResult(
        tuple(reversed(target.results)),
        len(table),
        len(shown),
        _totals(cells, shown, regions),
    )


def _told(options: RefineOptions) -> dict[str, Any]:
    """The options that were given; a legend's file by its name."""
    told = given_of(options, RefineOptions)
    told.pop("overwrite", None)
    if "legend" in told:
        told["legend"] = Path(told["legend"]).name
    return told


def _read(finished: FinishedMap) -> pa.Table:
    """All cells with all fields, by row and column."""
    layer = read_cells(finished.path)
    table = pa.Table.from_batches(layer.batches(), schema=layer.schema)
    if not len(table):
        raise InputError(f"{finished.path} has no cells")
    places = np.stack([table[name].to_numpy() for name in ("row", "col")])
    if len(np.unique(places, axis=1).T) != len(table):
        raise InputError(
            f"{finished.path} is the merged map of several scenes, whose grids differ: refine the"
            " maps of the scenes"
        )
    return table.sort_by([("row", "ascending"), ("col", "ascending")]).combine_chunks()


def _choose(table: pa.Table, options: RefineOptions, finished: FinishedMap) -> pa.Table:
    """The cells with classes among those chosen: their own, else their runner-up's."""
    if not options.only_classes and not options.exclude_classes:
        return table
    names = table["class"].to_pylist()
    runners = table["runner_up"].to_pylist()
    may = _allowed({*names, *(runner for runner in runners if runner)}, options, finished)
    moved = np.array([not may[name] for name in names], bool)
    lost = [
        name
        for name, runner, moves in zip(names, runners, moved, strict=True)
        if moves and not may.get(runner, False)
    ]
    if lost:
        raise InputError(
            f"{len(lost)} cells of {finished.path.name} are of classes that are not chosen"
            f" ({', '.join(sorted(set(lost))[:3])}), and so are their runners-up; a map holds no"
            " more than these: classify the raster again with this choice"
        )
    numbers = dict(zip(names, table["class_id"].to_pylist(), strict=True))
    chosen = [runner if m else name for name, runner, m in zip(names, runners, moved, strict=True)]
    log.info("%d cells get their runner-up", int(moved.sum()))
    confidence, margin = (table[name].to_numpy() for name in ("confidence", "margin"))
    return _with(
        table,
        {
            "class": chosen,
            "class_id": [numbers.get(name) for name in chosen],
            "confidence": np.where(moved, confidence - margin, confidence),
            "runner_up": [
                None if m or not may.get(runner, False) else runner
                for runner, m in zip(runners, moved, strict=True)
            ],
            "margin": pa.array(np.where(moved, np.nan, margin), from_pandas=True),
        },
    )


def _allowed(met: set[str], options: RefineOptions, finished: FinishedMap) -> dict[str, bool]:
    """Whether each class that the map has is among those chosen.

    A name is that of a class, else that of a group, for all its classes, as for ``classify``.
    Raises ``UsageError`` for names that are neither, and where Unknown is to be excluded.
    """
    own = known_groups()
    groups = own | dict(finished.named_groups)
    known = {*met, *own, *(groups.get(name, "") for name in met), *GROUPS} - {""}
    spelled = {simplified_name(name): name for name in sorted(known)}
    spelled |= {name: name for name in known}  # exactly comes first
    asked = [*options.only_classes, *options.exclude_classes]
    meant = {name: spelled.get(name) or spelled.get(simplified_name(name)) for name in asked}
    for name, found in meant.items():
        if found is None:
            raise UsageError(
                f"{name!r} is no class of {finished.path.name}, nor a group of its classes: it has"
                f" {', '.join(sorted(met))}"
            )
    only = {meant[name] for name in options.only_classes}
    exclude = {meant[name] for name in options.exclude_classes}
    if UNKNOWN_CLASS in exclude:
        raise UsageError(
            f"a map holds no confidence of other classes for its cells that are {UNKNOWN_CLASS}:"
            " to exclude it, classify the raster again with --no-unknown"
        )

    def allowed(name: str) -> bool:
        group = groups.get(name, "")
        is_class = group in met or (name in own and group in own)
        both = {name} if is_class else {name, group}
        wanted = not only or bool(both & only)
        return name == UNKNOWN_CLASS or (wanted and not both & exclude)

    return {name: allowed(name) for name in met}


def _translate(
    table: pa.Table, legend: Legend | None, finished: FinishedMap
) -> tuple[pa.Table, tuple[SceneClass, ...]]:
    """The cells in the legend, and its classes that occur, or those of the map."""
    names = table["class"].to_pylist()
    if legend is None:
        return table, shown_classes([finished], names)
    groups = known_groups() | dict(finished.named_groups)
    met = sorted(set(names))
    present, places = translate_classes([(name, groups.get(name, "")) for name in met], legend)
    target = {name: present[place] for name, place in zip(met, places.tolist(), strict=True)}
    runners = table["runner_up"].to_pylist()
    seconds = [
        None if runner is None else legend.translate(runner, groups.get(runner, ""))
        for runner in runners
    ]
    own = [target[name] for name in names]
    one = np.array([a == b for a, b in zip(own, seconds, strict=True)], bool)
    confidence = table["confidence"].to_numpy()
    margin = table["margin"].to_numpy()
    both = np.where(one, 2 * confidence - margin, confidence)
    changed = {
        "class": own,
        "confidence": np.round(np.minimum(both, 1.0), 6),
        "runner_up": [None if same else second for second, same in zip(seconds, one, strict=True)],
        "margin": pa.array(np.where(one, np.nan, margin), from_pandas=True),
    }
    return _with(table, changed), legend.classes(present)


def _with(table: pa.Table, columns: dict[str, Any]) -> pa.Table:
    """The table with other columns in their places."""
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    return table


def _totals(
    cells: RefinedCells, shown: NDArray[np.int64], regions: RegionValues
) -> tuple[ClassTotal, ...]:
    """The totals of the classes that the map shows, by the class and the values of each region."""
    totals = []
    for code in np.unique(shown).tolist():
        known, here = cells.classes[code], shown == code
        number = cells.numbers[code]
        totals.append(
            ClassTotal(
                -1 if number is None else number,
                known.name,
                known.title,
                known.group or None,
                known.color,
                int(regions.cells[here].sum()),
                int(here.sum()),
                float(regions.area_m2[here].sum()),
            )
        )
    return tuple(totals)
