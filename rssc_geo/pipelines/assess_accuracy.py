"""Accuracy of finished maps and areas of their classes, estimated from a sample of labels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from rssc_geo.assessment import (
    Estimate,
    Reference,
    Sample,
    compare_maps,
    estimate_accuracy,
    locate_units,
    read_reference,
)
from rssc_geo.errors import InputError
from rssc_geo.files import path_of, paths_of
from rssc_geo.geometry import geodesic_area_m2
from rssc_geo.models import UNKNOWN_CLASS, in_words, known_groups, known_names
from rssc_geo.options import AccuracyOptions
from rssc_geo.output import (
    ARROW,
    UNMAPPED,
    FinishedMap,
    Legend,
    open_map,
    read_legend,
    translate_classes,
)
from rssc_geo.pipelines.accuracy import (
    AccuracyAssessment,
    Comparison,
    MapAccuracy,
    ReferenceStratum,
)
from rssc_geo.raster import reprojected

log = logging.getLogger(__name__)

_FEW = 30
"""Number of labels of a stratum below which the normal interval is rough."""

_WHOLE = 1 - 1e-3
"""Share of a unit that counts as all of it, because of rounded coordinates."""

_OLOFSSON = (
    "Strata are the map's classes: the stratified estimator of Olofsson et al. (2013, 2014),"
    " without finite population correction."
)
_STEHMAN = (
    "Strata are not the map's classes: the ratio estimators of Stehman (2014), {} finite population"
    " correction."
)


def assess_accuracy(
    maps: str | Path | Sequence[str | Path],
    reference: str | Path,
    options: AccuracyOptions | None = None,
) -> AccuracyAssessment:
    """Estimate the accuracy of maps and the areas of their classes from reference labels.

    The estimator is that of the sample's design, which the file states: see
    ``rssc_geo.assessment``. Points take the class of the cell in which they lie; polygons that of
    all cells that they cover, in parts by area.

    Parameters
    ----------
    maps : one, or several on the same reference: the first is then compared with the others; also
        what :func:`rssc_geo.change` wrote, whose classes are the transitions
    reference : labels by :func:`rssc_geo.assess_sample`, or points or polygons with a column of
        class names; ``file.gpkg|layername=name`` for one of several layers
    options : all that the command line has; its defaults

    Raises ``InputError`` where a map or the reference cannot be read or used, ``UsageError`` for
    invalid options.

    Examples
    --------
    >>> from rssc_geo import assess_accuracy, assess_sample, classify
    >>> _ = classify("scene.tif", "map.gpkg")
    >>> points = assess_sample("map.gpkg", "points.gpkg").to_geopandas()
    >>> points["class"] = points["stratum"]  # by eye, in truth
    >>> points.to_file("labeled.gpkg", layer="sample")
    >>> assess_accuracy("map.gpkg", "labeled.gpkg").maps[0].accuracy.overall.value
    1.0
    """
    options = options or AccuracyOptions()
    paths = paths_of(maps)
    legend = None if options.legend is None else read_legend(options.legend)
    labels = read_reference(path_of(reference), options.field)
    if not (labels.labels != "").any():
        raise InputError(
            f"{reference}: column {options.field!r} holds no label yet in any of its"
            f" {len(labels.labels)} features"
        )
    translated = legend is not None
    done = [_assess(open_map(path, translated=translated), labels, legend) for path in paths]
    for each in done:
        for note in each.result.notes:
            log.warning("%s: %s", each.result.path, note)
    return AccuracyAssessment(
        str(reference),
        tuple(each.result for each in done),
        tuple(_compare(done[0], other) for other in done[1:]),
    )


@dataclass(frozen=True, slots=True)
class _Assessed:
    """A result and its sample: which features of the reference are its units."""

    result: MapAccuracy
    sample: Sample
    units: NDArray[np.int64]


def _assess(finished: FinishedMap, reference: Reference, legend: Legend | None) -> _Assessed:
    own, places = translate_classes(finished.named_groups, legend)
    truth, unmapped = _truth(reference, finished, legend)
    names = (*own, *sorted(set(truth[truth != ""].tolist()) - set(own)))
    codes = {name: code for code, name in enumerate(names)}
    geometry = reprojected(
        reference.geometry, reference.crs, finished.crs, reference.path, near=finished.bounds()
    )
    mapped, inside = locate_units(
        finished, places[finished.cells().codes], geometry, classes=len(names)
    )
    strata = _Strata.of(reference, finished, own, places)
    used = np.flatnonzero((truth != "") & (inside > 0))
    if not len(used):
        raise InputError(f"{reference.path}: no labeled unit lies on the map {finished.path}")
    are_classes = strata.are_classes(codes, mapped, used)
    corrected = not are_classes and reference.of_cells and strata.cells is not None
    sample = Sample(
        strata.of_unit[used],
        mapped[used],
        np.array([codes[name] for name in truth[used].tolist()], np.int64),
        _unit_areas(reference, geometry, finished)[used],
        strata.areas_m2,
        strata.cells if reference.of_cells else None,
        corrected,
    )
    rows = strata.rows(used)
    map_areas = np.array([known.area_m2 for known in finished.classes], np.float64)
    areas = np.bincount(places, map_areas, minlength=len(names)).astype(np.float64)
    notes = (
        *unmapped,
        *_place_warnings(inside, truth, finished),
        *_copy_warnings(geometry[used]),
        *strata.notes,
        *_stratum_warnings(rows, reference, truth, strata.of_unit),
        *_class_warnings(names, areas, sample),
    )
    result = MapAccuracy(
        finished.path,
        names,
        _colors(names, legend),
        tuple(areas.tolist()),
        estimate_accuracy(sample),
        _named_part(sample, own),
        _OLOFSSON if are_classes else _STEHMAN.format("with" if corrected else "without"),
        rows,
        notes,
    )
    return _Assessed(result, sample, used)


def _named_part(sample: Sample, own: Sequence[str]) -> Estimate | None:
    """The accuracy of the part of a map that has a named class; None where all of it has one.

    ``own``: the map's classes, which come first in the sample.
    """
    unnamed = [code for code, name in enumerate(own) if name in (UNKNOWN_CLASS, UNMAPPED)]
    named = 1 - sample.mapped[:, unnamed].sum(1)
    return sample.ratio(sample.right * (named > 0), named) if unnamed and named.any() else None


def _colors(names: Sequence[str], legend: Legend | None) -> tuple[str, ...]:
    known = (legend or Legend("", "", "", {})).classes(names)
    colors = {scene_class.name: scene_class.color for scene_class in known}
    return tuple(colors[name] for name in names)


def _truth(
    reference: Reference, finished: FinishedMap, legend: Legend | None
) -> tuple[NDArray[np.object_], list[str]]:
    """The reference class of each unit, in the legend, and a note on those that it lacks.

    "" where a unit has no label.
    """
    groups = known_groups() | dict(finished.named_groups)
    known = {_key(name): name for name in [*known_names(), *(legend.names if legend else ())]}
    known |= {_key(name): name for name in finished.names}
    found = np.array([known.get(_key(label), label) for label in reference.labels], object)
    notes: list[str] = []
    if legend is None:
        return found, notes
    unmapped = []
    for name in sorted(set(found.tolist()) - {""}):
        target = legend.translate(name, groups.get(name, ""))
        if target == UNMAPPED:
            count = int((found == name).sum())
            unmapped.append(f"{name} ({count})")
        found[found == name] = target
    if unmapped:
        notes.append(
            f"labels without a class in the legend {Path(legend.name).name}, counted as"
            f" {UNMAPPED}: {', '.join(unmapped)}"
        )
    return found, notes


def _key(name: str) -> str:
    """The common form of ``DenseResidential``, ``Dense residential`` and ``dense_residential``."""
    words = in_words(name.replace(ARROW, "->")).casefold()
    return "".join(words.replace("_", " ").replace("-", " ").split())


def _unit_areas(
    reference: Reference, geometry: NDArray[np.object_], finished: FinishedMap
) -> NDArray[np.float64]:
    """The weight of each unit within its stratum: its area, 1 for points of unknown support."""
    if reference.unit_areas_m2 is not None:
        return reference.unit_areas_m2
    if (shapely.get_type_id(geometry) == shapely.GeometryType.POINT).any():
        return np.ones(len(geometry))
    return geodesic_area_m2(geometry, finished.crs)


@dataclass(frozen=True, slots=True)
class _Strata:
    """The H strata of a reference with n features.

    Attributes
    ----------
    names : (H,)
    of_unit : (n,), into ``names``
    areas_m2 : (H,)
    cells : (H,), of the map; None where they are not known
    notes : limits of the figures that follow from them
    """

    names: tuple[str, ...]
    of_unit: NDArray[np.int64]
    areas_m2: NDArray[np.float64]
    cells: NDArray[np.int64] | None
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        reference: Reference,
        finished: FinishedMap,
        own: Sequence[str],
        places: NDArray[np.int16],
    ) -> _Strata:
        """Those of a reference; their areas as it states them, else by the map.

        ``own``: the classes to which the map's are translated; ``places``: of the map's, into them.
        Raises ``InputError`` where neither states their sizes.
        """
        notes: list[str] = []
        if reference.strata is None:
            notes.append(
                "the reference has no column 'stratum': its features are assumed to be a simple"
                " random sample of the whole map; if they are not, no figure is valid"
            )
            of_unit = np.zeros(len(reference.labels), np.int64)
            return cls(("map",), of_unit, np.array([finished.area_m2]), None, tuple(notes))
        names = tuple(dict.fromkeys(reference.strata.tolist()))
        index = {name: i for i, name in enumerate(names)}
        of_unit = np.array([index[name] for name in reference.strata.tolist()], np.int64)
        cells = np.array([reference.cells[name] for name in names]) if reference.cells else None
        if reference.areas_m2:
            areas = np.array([reference.areas_m2[name] for name in names], np.float64)
        elif cells is not None:
            areas = cells * (finished.area_m2 / sum(known.cells for known in finished.classes))
        elif set(names) <= set(own):
            sums = np.bincount(places, [known.area_m2 for known in finished.classes])
            areas = sums[[list(own).index(name) for name in names]].astype(np.float64)
        else:
            raise InputError(
                f"{reference.path}: the sizes of the strata are unknown: add a column 'stratum_m2'"
                " or 'stratum_cells'"
            )
        total = float(areas.sum())
        if abs(finished.area_m2 - total) > 1e-3 * finished.area_m2:
            notes.append(
                f"the strata of the sample have {total / 1e4:,.1f} ha, the map has"
                f" {finished.area_m2 / 1e4:,.1f} ha: figures are about the strata"
            )
        return cls(names, of_unit, areas, cells, tuple(notes))

    def are_classes(
        self, codes: Mapping[str, int], mapped: NDArray[np.float64], used: NDArray[np.int64]
    ) -> bool:
        """Whether the map has each unit that is used in the class of the unit's stratum.

        ``codes``: of the classes (C,) by name; ``mapped``: the parts (n, C) of the units.
        """
        of_class = np.array([codes.get(name, -1) for name in self.names], np.int64)
        own = of_class[self.of_unit[used]]
        return bool((own >= 0).all()) and bool((mapped[used, own] > _WHOLE).all())

    def rows(self, used: NDArray[np.int64]) -> tuple[ReferenceStratum, ...]:
        """The strata, of whose units those ``used`` are labeled."""
        units, labeled = (
            np.bincount(of, minlength=len(self.names)).tolist()
            for of in (self.of_unit, self.of_unit[used])
        )
        return tuple(
            ReferenceStratum(
                name,
                float(self.areas_m2[i]),
                None if self.cells is None else int(self.cells[i]),
                units[i],
                labeled[i],
            )
            for i, name in enumerate(self.names)
        )


def _place_warnings(
    inside: NDArray[np.float64], truth: NDArray[np.object_], finished: FinishedMap
) -> Iterator[str]:
    """On units that lie outside the map, by the share of each that lies on it."""
    labeled = truth != ""
    if count := int((labeled & (inside == 0)).sum()):
        yield f"{count} labeled units lie outside the map {finished.path.name}: left out"
    if count := int((labeled & (inside > 0) & (inside < _WHOLE)).sum()):
        yield f"{count} units reach beyond the map: the part on it counts"


def _copy_warnings(labeled: NDArray[np.object_]) -> Iterator[str]:
    """On units that are there several times, as where the files of two people were joined."""
    copies = len(labeled) - len(set(shapely.to_wkb(shapely.normalize(labeled)).tolist()))
    if copies:
        yield f"{copies} labeled units lie exactly upon others, and count too: delete any copies"


def _stratum_warnings(
    rows: Iterable[ReferenceStratum],
    reference: Reference,
    truth: NDArray[np.object_],
    strata: NDArray[np.int64],
) -> list[str]:
    """On strata with few labels, and on units without one."""
    found: dict[str, list[str]] = {
        "units left out, which assumes that they are like the others of their stratum": [],
        "strata without a label, which no figure covers": [],
        "strata with one label, so that figures that use it have no standard error": [],
        f"intervals are rough with fewer than {_FEW} labels in a stratum": [],
    }
    left_out, none, one, few = found.values()
    for number, row in enumerate(rows):
        here = strata == number
        unlabeled = int((here & (truth == "") & ~reference.cannot_tell).sum())
        cannot = int((here & reference.cannot_tell).sum())
        for count, what in ((unlabeled, "without a label"), (cannot, "'cannot tell'")):
            if count:
                left_out.append(f"{count} {what} in {row.name}")
        if row.labeled == 0:
            none.append(f"{row.name} ({row.area_m2 / 1e4:,.1f} ha)")
        elif row.labeled == 1 and not (reference.of_cells and row.cells == 1):
            one.append(row.name)
        elif row.labeled < _FEW and row.labeled != row.cells:
            few.append(f"{row.name} {row.labeled}")
    return [f"{text}: {', '.join(names)}" for text, names in found.items() if names]


def _class_warnings(
    names: Sequence[str], areas: NDArray[np.float64], sample: Sample
) -> Iterator[str]:
    """On classes that only the map or only the reference has, and on what has no class."""
    untested, absent = [], []
    for code, name in enumerate(names):
        if areas[code] > 0 and not sample.mapped[:, code].any():
            untested.append(f"{name} ({areas[code] / 1e4:,.1f} ha)")
        if areas[code] == 0:
            absent.append(f"{name} ({int((sample.reference == code).sum())})")
        if name in (UNKNOWN_CLASS, UNMAPPED) and areas[code] > 0:
            yield (
                f"the map has {areas[code] / 1e4:,.1f} ha of {name}, which count as wrong in the"
                " overall accuracy"
            )
    if untested:
        yield (
            "classes of the map without a labeled unit, so that their user's accuracy is not"
            f" known: {', '.join(untested)}"
        )
    if absent:
        yield f"labels of classes that the map does not have: {', '.join(absent)}"


def _compare(first: _Assessed, second: _Assessed) -> Comparison:
    """Both maps on the units that both cover, by the classes of both."""
    _, rows, other_rows = np.intersect1d(first.units, second.units, return_indices=True)
    one, two = first.sample, second.sample
    classes = list(dict.fromkeys([*first.result.classes, *second.result.classes]))
    mapped = np.zeros((len(rows), len(classes)))
    other = np.zeros_like(mapped)
    places = [classes.index(name) for name in first.result.classes]
    mapped[:, places] = one.mapped[rows]
    other[:, [classes.index(name) for name in second.result.classes]] = two.mapped[other_rows]
    sample = Sample(
        one.strata[rows],
        mapped,
        np.array(places)[one.reference[rows]],
        one.unit_areas[rows],
        one.stratum_areas,
        one.stratum_units,
        one.corrected,
    )
    return Comparison(first.result.path, second.result.path, len(rows), compare_maps(sample, other))
