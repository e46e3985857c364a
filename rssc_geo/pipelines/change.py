"""Change between two dates or more, of rasters or of finished maps."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from rssc_geo.assessment import read_reference
from rssc_geo.errors import NothingToClassifyError, UsageError
from rssc_geo.files import check_not_input, check_writable, paths_of
from rssc_geo.geometry import LEAST_SHOWN, as_one_type, geodesic_area_m2
from rssc_geo.inference import (
    BY_CLASSES,
    BY_EMBEDDINGS,
    ComparedCells,
    MapSeries,
    SceneSeries,
    compare_series,
    describe_run,
    make_plan,
    plan_later_date,
    without_folders,
)
from rssc_geo.models import (
    SceneClass,
    check_class_choice,
    check_embeddings,
    legend_of,
    load_card,
)
from rssc_geo.options import (
    AccuracyOptions,
    ChangeOptions,
    ClassChoiceOptions,
    ComputeOptions,
    ModelOptions,
    OutputOptions,
    PredictorOptions,
    check_suffixes,
    files_read,
    values_of,
)
from rssc_geo.output import (
    FORMATS,
    AreaUnit,
    ChangedCells,
    ChangeRegion,
    GeoGrid,
    Legend,
    OutputTarget,
    Placement,
    TransitionRow,
    area_in_words,
    area_unit,
    make_target,
    map_files,
    provenance_document,
    read_legend,
    transition_table,
    translate_classes,
    write_change,
    write_transition_table,
)
from rssc_geo.pipelines.accuracy import MapAccuracy, adjusted_area
from rssc_geo.pipelines.assess_accuracy import assess_accuracy
from rssc_geo.progress import Progress, reporting
from rssc_geo.reports import ChangePage, area_text, write_change_page

if TYPE_CHECKING:
    from rssc_geo.inference import Predictor

log = logging.getLogger(__name__)

_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d")
_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class ClassChange:
    """What became another class: the change of land use, without ground that kept its class.

    Attributes
    ----------
    cells, regions : number
    area_m2 : their area
    within_group_m2 : the part of it where the new class has the group of the old one
    """

    cells: int
    regions: int
    area_m2: float
    within_group_m2: float


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """The result of a comparison.

    Attributes
    ----------
    paths : the files, the main one first
    dates : labels, the earliest first
    regions : of the layer ``change``, the largest first
    transitions : the entries of the transition matrix, changes first
    cells, changed_cells : number of cells compared, and of those whose ground changed, also to
        other ground of the same class
    compared_m2, changed_m2, uncompared_m2 : areas; the last: where a later date has no data
    class_change : the part of the change that is one of the class
    seconds : time of the run
    warnings : for the user
    accuracy : of the transitions, where a reference was given, with the adjusted areas
    """

    paths: tuple[Path, ...]
    dates: tuple[str, ...]
    regions: tuple[ChangeRegion, ...]
    transitions: tuple[TransitionRow, ...]
    cells: int
    changed_cells: int
    compared_m2: float
    changed_m2: float
    uncompared_m2: float
    class_change: ClassChange
    seconds: float
    warnings: tuple[str, ...]
    accuracy: MapAccuracy | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "outputs": [str(path) for path in self.paths],
            "dates": list(self.dates),
            "cells": self.cells,
            "changed_cells": self.changed_cells,
            "regions": len(self.regions),
            "compared_m2": self.compared_m2,
            "changed_m2": self.changed_m2,
            "uncompared_m2": self.uncompared_m2,
            "class_change": asdict(self.class_change),
            "transitions": [{"name": row.name, **asdict(row)} for row in self.transitions],
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
            "accuracy": None if self.accuracy is None else self.accuracy.as_dict(),
        }


def change(
    dates: Sequence[str | Path],
    output: str | Path,
    options: ChangeOptions | None = None,
    *,
    model: Predictor | None = None,
    progress: Progress | bool | None = None,
) -> ChangeResult:
    """Map changes between dates: from which class to which, with probability and date.

    Rasters are resampled to the grid and matched to the colors of the first one, each is
    classified, and a cell's change is estimated from its embeddings and classes relative to those
    typical of the scene, so that effects on all of it, such as light and haze, do not count. Maps
    are compared by their classes alone. Of more than two dates each cell is split where it changed
    most.

    Parameters
    ----------
    dates : rasters, or maps by :func:`rssc_geo.classify`, the earliest first; cells are the first
        one's
    output : .gpkg, .fgb, .geojson, .parquet or .shp
    options : all that the command line has; its defaults
    model : a loaded one, for rasters; the options of model and computing then have no effect
    progress : True for a bar on stderr, or a function, see ``Progress``

    Raises
    ------
    RsscGeoError
        One clear line; classified tiles of rasters stay in part files beside the output, and the
        same call continues there.

    Examples
    --------
    >>> from rssc_geo import change
    >>> result = change(["scene.tif", "scene.tif"], "change.gpkg")
    >>> result.cells > 0, result.changed_cells
    (True, 0)
    """
    started = time.monotonic()
    options = options or ChangeOptions()
    paths = paths_of(dates)
    labels, of_maps = _labels(paths, options), _are_maps(paths)
    read: list[str | Path] = [*paths, *files_read(options)]
    if of_maps:
        read += [file for path in paths for file in map_files(path)]
    target = make_target(
        output, OutputOptions(crs=options.crs), overwrite=options.overwrite, inputs=read
    )
    _check_extras(options, read, of_maps=of_maps)
    if options.reference is not None:
        read_reference(options.reference, options.field)
    legend = None if options.legend is None else read_legend(options.legend)
    with reporting(progress) as report, ExitStack() as stack:
        if of_maps:
            found = _of_maps(paths, labels, options, legend)
        else:
            series = _classified(paths, target, options, model, report)
            stack.enter_context(series)
            found = _of_scenes(series, labels, target, options, legend)
        for note in found.warnings:
            log.warning("%s", note)
        report("write", 0, 1)
        regions = write_change(target, found.cells, found.provenance)
        result = _result(found, target, regions, started)
        if options.reference is not None:
            result = replace(result, accuracy=_assessed(target.path, options))
        extras = _write_extras(result, found, options)
        if found.series is not None:
            found.series.discard()
        report("write", 1, 1)
    return replace(result, paths=(*result.paths, *extras))


@dataclass(frozen=True, slots=True)
class _Found:
    """The input of a comparison; ``series``: of scenes, with their part files."""

    cells: ChangedCells
    uncompared_m2: float
    warnings: tuple[str, ...]
    provenance: Mapping[str, Any]
    series: SceneSeries | None = None


def _classified(
    paths: Sequence[str | Path],
    target: OutputTarget,
    options: ChangeOptions,
    model: Predictor | None,
    progress: Progress,
) -> SceneSeries:
    """The scenes, classified."""
    card = model.card if model else load_card(options.model, revision=options.revision)
    check_embeddings(card)
    choice = check_class_choice(card, options)
    # The windows of a default map would be so small that resampling alone changes them.
    first = make_plan(paths[0], card, options, least_shown=LEAST_SHOWN)
    plans = [first, *(plan_later_date(path, first) for path in paths[1:])]
    check_not_input(target.files, [name for plan in plans for name in plan.inputs()])
    target.crs_of(first.scene.crs)  # refused before the work
    from rssc_geo.inference import load_predictor

    predictor = model.choosing(choice) if model else load_predictor(_predictor_options(options))
    series = SceneSeries(plans, target, predictor.spec)
    try:
        series.classify(predictor, progress)
    except BaseException:
        series.close()
        raise
    return series


def _predictor_options(options: ChangeOptions) -> PredictorOptions:
    values: dict[str, Any] = {}
    for group in (ModelOptions, ComputeOptions, ClassChoiceOptions):
        values |= values_of(options, group)
    return PredictorOptions(captioner="none", **values)


def _of_scenes(
    series: SceneSeries,
    labels: tuple[str, ...],
    target: OutputTarget,
    options: ChangeOptions,
    legend: Legend | None,
) -> _Found:
    plan, card = series.plans[0], series.spec.card
    if next(series.cells(), None) is None:
        series.discard()
        raise NothingToClassifyError(
            f"no cell of {plan.scene.source} has valid pixels at all dates: nothing can be compared"
        )
    compared = compare_series(series.cells, BY_EMBEDDINGS, least=options.least_probability)
    geo = GeoGrid(plan.grid, plan.scene.transform, plan.scene.crs)
    crs = target.crs_of(geo.crs)
    placement = Placement(geo, crs, wrap=target.format.wgs84)

    def polygons(indices: NDArray[np.int64]) -> NDArray[np.object_]:
        return placement.place(geo.polygons(compared.rows[indices], compared.cols[indices]))

    rows, cols = series.places()
    sizes = np.zeros(plan.grid.cells_shape)
    for start in range(0, len(rows), _CHUNK):
        here = slice(start, start + _CHUNK)
        sizes[rows[here], cols[here]] = placement.areas_m2(geo.polygons(rows[here], cols[here]))
    areas = sizes[compared.rows, compared.cols]
    cells = _changed_cells(
        compared, areas, _named(legend_of(card), compared, legend), labels,
        _Outlines(crs, polygons, placement.geometry_type),
    )  # fmt: skip
    sizes[compared.rows, compared.cols] = 0  # the rest: a difference of sums is never quite 0
    uncompared = float(sizes.sum())
    provenance = _provenance(series, labels, compared, options)
    notes = [note for each in series.plans for note in each.warnings]
    return _Found(cells, uncompared, _notes(notes, uncompared), provenance, series)


def _of_maps(
    paths: Sequence[str | Path],
    labels: tuple[str, ...],
    options: ChangeOptions,
    legend: Legend | None,
) -> _Found:
    maps = MapSeries(paths)
    compared = compare_series(maps.cells, BY_CLASSES, least=options.least_probability)
    sizes = geodesic_area_m2(maps.polygons, maps.crs)
    polygons, kind = as_one_type(maps.polygons)
    shared = maps.shared
    cells = _changed_cells(
        compared, sizes[shared], _named(maps.classes, compared, legend), labels,
        _Outlines(maps.crs, lambda indices: polygons[shared[indices]], kind),
    )  # fmt: skip
    uncompared = float(np.delete(sizes, shared).sum())
    provenance = provenance_document(
        {
            "change_of": [Path(path).name for path in paths],
            **_told(labels, compared, options),
        }
    )
    return _Found(cells, uncompared, _notes([], uncompared), provenance)


@dataclass(frozen=True, slots=True)
class _Outlines:
    """The places of cells in the result, see ``ChangedCells``."""

    crs: CRS
    polygons: Callable[[NDArray[np.int64]], NDArray[np.object_]]
    geometry_type: str


@dataclass(frozen=True, slots=True)
class _Named:
    """The classes before and after, in the legend that was asked for."""

    classes: tuple[SceneClass, ...]
    before: NDArray[np.int16]
    after: NDArray[np.int16]


def _named(classes: Sequence[SceneClass], compared: ComparedCells, legend: Legend | None) -> _Named:
    before, after = compared.classes.before, compared.classes.after
    if legend is None:
        return _Named(tuple(classes), before, after)
    present = np.union1d(before, after)
    groups = [(classes[code].name, classes[code].group) for code in present.tolist()]
    names, places = translate_classes(groups, legend)
    target = np.zeros(len(classes), np.int16)
    target[present] = places
    return _Named(legend.classes(names), target[before], target[after])


def _changed_cells(
    compared: ComparedCells,
    areas_m2: NDArray[np.float64],
    named: _Named,
    labels: tuple[str, ...],
    outlines: _Outlines,
) -> ChangedCells:
    found = compared.classes
    return ChangedCells(
        rows=compared.rows,
        cols=compared.cols,
        before=named.before,
        after=named.after,
        before_confidence=found.before_confidence,
        after_confidence=found.after_confidence,
        probability=compared.probability,
        changed=compared.changed,
        split=compared.split,
        areas_m2=areas_m2,
        classes=named.classes,
        dates=labels,
        crs=outlines.crs,
        polygons=outlines.polygons,
        geometry_type=outlines.geometry_type,
    )


def _notes(notes: Sequence[str], uncompared_m2: float) -> tuple[str, ...]:
    told = list(dict.fromkeys(notes))
    if uncompared_m2 > 0:
        area, unit = area_in_words(uncompared_m2)
        told.append(
            f"{area:,.1f} {unit} of the first date have no data at a later one: they are in no"
            " layer and no table"
        )
    return tuple(told)


def _told(
    labels: tuple[str, ...], compared: ComparedCells, options: ChangeOptions
) -> dict[str, Any]:
    """The provenance of the comparison."""
    legend = options.legend
    return {
        "dates": list(labels),
        "least_probability": compared.least,
        "typical_signals": compared.typical.round(6).tolist(),
        "legend": legend and Path(legend).name,
        "rssc_geo": version("rssc-geo"),
    }


def _provenance(
    series: SceneSeries,
    labels: tuple[str, ...],
    compared: ComparedCells,
    options: ChangeOptions,
) -> dict[str, object]:
    runs = []
    for plan in series.plans:
        told = describe_run(plan, series.spec.card).as_dict()
        runs.append(told if options.full_provenance else without_folders(told, plan))
    made_by = series.spec.as_dict()
    return provenance_document(made_by, {"scenes": runs}, _told(labels, compared, options))


def _result(
    found: _Found, target: OutputTarget, regions: Sequence[ChangeRegion], started: float
) -> ChangeResult:
    cells, transitions = found.cells, transition_table(found.cells)
    moved = [row for row in transitions if row.is_change]
    return ChangeResult(
        paths=tuple(reversed(target.results)),
        dates=cells.dates,
        regions=tuple(regions),
        transitions=tuple(transitions),
        cells=len(cells),
        changed_cells=int(cells.changed.sum()),
        compared_m2=float(cells.areas_m2.sum()),
        changed_m2=float(cells.areas_m2[cells.changed].sum()),
        uncompared_m2=found.uncompared_m2,
        class_change=ClassChange(
            cells=sum(row.cells for row in moved),
            regions=sum(region.before != region.after for region in regions),
            area_m2=sum(row.area_m2 for row in moved),
            within_group_m2=sum(row.area_m2 for row in moved if row.is_within_group),
        ),
        seconds=time.monotonic() - started,
        warnings=found.warnings,
    )


def _check_extras(options: ChangeOptions, inputs: Sequence[str | Path], *, of_maps: bool) -> None:
    """Refuse results that could not be written at the end, and invalid options."""
    if of_maps:
        _check_of_maps(options)
    check_suffixes(options)
    extras = [Path(path) for path in (options.areas, options.report) if path is not None]
    for path in extras:
        check_writable(path, overwrite=options.overwrite)
    check_not_input(extras, inputs)


def _check_of_maps(options: ChangeOptions) -> None:
    """Refuse, of maps, options that would choose their CRS, cells or classes."""
    if options.crs is not None:
        raise UsageError("--crs is for rasters: what is made of maps has the CRS of the first")
    choices = {
        "--aoi": options.aoi,
        "--bounds": options.bounds,
        "--only-classes": options.only_classes,
        "--exclude-classes": options.exclude_classes,
    }
    for flag, given in choices.items():
        if given:
            raise UsageError(f"{flag} is for rasters: of maps all cells are compared as they are")


def _write_extras(result: ChangeResult, found: _Found, options: ChangeOptions) -> list[Path]:
    """The table and the page, where they are asked for."""
    files = []
    if options.areas is not None:
        write_transition_table(
            Path(options.areas), result.transitions, _adjusted(result), overwrite=options.overwrite
        )
        files.append(Path(options.areas))
    if options.report is not None:
        plans = () if found.series is None else found.series.plans
        unit = area_unit(result.compared_m2)
        page = ChangePage(
            cells=found.cells,
            regions=result.regions,
            transitions=result.transitions,
            plans=plans,
            uncompared_m2=result.uncompared_m2,
            adjusted={
                name: _in_words(row["adjusted_m2"], row["adjusted_high_m2"], unit)
                for name, row in _adjusted(result).items()
            },
            facts=_facts(found, options),
            warnings=found.warnings,
        )
        path = write_change_page(Path(options.report), page, overwrite=options.overwrite)
        files.append(path)
    return files


def _assessed(path: Path, options: ChangeOptions) -> MapAccuracy:
    """Accuracy of the transitions, by the reference."""
    settings = AccuracyOptions(field=options.field)
    (accuracy,) = assess_accuracy(path, str(options.reference), settings).maps
    return accuracy


def _adjusted(result: ChangeResult) -> dict[str, dict[str, float | None]]:
    """The adjusted area of each transition with its interval; empty without a reference."""
    if result.accuracy is None:
        return {}
    return {entry["name"]: adjusted_area(entry) for entry in result.accuracy.as_dict()["classes"]}


def _in_words(area_m2: float | None, high_m2: float | None, unit: AreaUnit) -> str:
    """``21.20 ± 6.20``, in a unit; a dash where the sample is too small."""
    if area_m2 is None:
        return "\N{EN DASH}"
    half = "?" if high_m2 is None else area_text(high_m2 - area_m2, unit)
    return f"{area_text(area_m2, unit)} ± {half}"


def _facts(found: _Found, options: ChangeOptions) -> dict[str, str]:
    """The provenance for the page."""
    told = found.provenance
    facts = {"Least probability": f"{told['least_probability']:g}"}
    if options.legend is not None:
        facts["Legend"] = str(told["legend"])
    if found.series is None:
        return {"Maps": ", ".join(told["change_of"]), **facts}
    for label, scene in zip(found.cells.dates, told["scenes"], strict=True):
        scaling = scene["scaling"]["method"]
        facts[label] = f"{scene['input']}, scaling: {scaling}"
    card = found.series.spec.card
    return {**facts, "Model": f"{card.name} {card.version}, {card.license}"}


def _are_maps(paths: Sequence[str | Path]) -> bool:
    """Whether all are finished maps; ``UsageError`` where some are."""
    maps = [Path(path).suffix.lower() in FORMATS for path in paths]
    if any(maps) and not all(maps):
        raise UsageError(
            f"{paths[maps.index(True)]} is a map, {paths[maps.index(False)]} a raster: give"
            " rasters, or maps that classify made of them"
        )
    return all(maps)


def _labels(paths: Sequence[str | Path], options: ChangeOptions) -> tuple[str, ...]:
    """The labels of the dates."""
    if len(paths) < 2:
        raise UsageError("a change is between two dates: give OLD and NEW")
    if options.dates:
        if len(options.dates) != len(paths):
            raise UsageError(f"--dates names {len(options.dates)} dates, {len(paths)} were given")
        return options.dates
    names = [Path(path).stem for path in paths]
    years = [found[0] if (found := _YEAR.search(name)) else "" for name in names]
    if all(years) and all(a < b for a, b in pairwise(years)):
        return tuple(years)
    if len(set(names)) == len(names):
        return tuple(names)
    return tuple(f"date {number}" for number in range(1, len(paths) + 1))
