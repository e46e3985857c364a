"""A probability sample of a finished map's cells, to be labeled for its assessment."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rssc_geo.assessment import (
    Drawn,
    allocate,
    draw_stratified,
    draw_systematic,
    sample_size,
    write_sample,
)
from rssc_geo.errors import UsageError
from rssc_geo.files import check_not_input
from rssc_geo.geometry import geodesic_area_m2
from rssc_geo.models import UNKNOWN_CLASS, known_names
from rssc_geo.options import SampleOptions, values_of
from rssc_geo.output import (
    UNMAPPED,
    FinishedMap,
    Legend,
    MapCells,
    OutputTarget,
    check_closed,
    map_files,
    open_map,
    read_legend,
    translate_classes,
)

if TYPE_CHECKING:
    import geopandas as gpd

log = logging.getLogger(__name__)

WHOLE_MAP = "map"
"""The one stratum of a design without strata."""

_EXPECTED = 0.5, 0.95
_TRIES = 50


@dataclass(frozen=True, slots=True)
class Stratum:
    """A stratum of a sample, and how many units of it were drawn.

    ``expected_accuracy``: of the map in it, as assumed for the allocation.
    """

    name: str
    cells: int
    area_m2: float
    expected_accuracy: float
    drawn: int


@dataclass(frozen=True, slots=True)
class SampleDesign:
    """A sample that was drawn.

    ``standard_error``: that of the overall accuracy, if the strata are as accurate as expected.
    """

    output: Path
    design: str
    unit: str
    units: int
    standard_error: float
    strata: tuple[Stratum, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "outputs": [str(self.output)],
            "design": self.design,
            "unit": self.unit,
            "units": self.units,
            "expected_standard_error": round(self.standard_error, 6),
            "strata": [asdict(stratum) for stratum in self.strata],
        }

    def to_geopandas(self) -> gpd.GeoDataFrame:
        """The units, read back."""
        import geopandas as gpd

        return gpd.read_file(self.output, layer="sample")


def assess_sample(
    map_path: str | Path, output: str | Path, options: SampleOptions | None = None
) -> SampleDesign:
    """Draw units of a finished map to be labeled, by a design that gives each a known chance.

    Cells are drawn without replacement, all cells of a stratum with the same chance. Size and
    allocation follow Cochran (1977) and Olofsson et al. (2014); see ``rssc_geo.assessment``.

    Parameters
    ----------
    map_path : a map by :func:`rssc_geo.classify`, in any format, or what :func:`rssc_geo.change`
        wrote: its classes are the transitions
    output : a .gpkg with the layer ``sample``, whose field ``class`` is to be filled in
    options : all that the command line has; its defaults

    Raises ``InputError`` where the map cannot be read, ``UsageError`` for options that cannot be
    meant, ``OutputError`` where the sample cannot be written.

    Examples
    --------
    >>> from rssc_geo import SampleOptions, assess_sample, classify
    >>> _ = classify("scene.tif", "map.gpkg")
    >>> options = SampleOptions(sample_size=60, legend="groups")
    >>> assess_sample("map.gpkg", "points.gpkg", options).units
    60
    """
    options = options or SampleOptions()
    legend = None if options.legend is None else read_legend(options.legend)
    finished = open_map(map_path, translated=legend is not None)
    target = _target(Path(output), finished.path, overwrite=options.overwrite)
    cells = finished.cells()
    names, places = translate_classes(finished.named_groups, legend)
    frame = _frame(finished, cells, names, places, options)
    chosen, inclusion = _draw(frame, cells, options)
    stratum = frame.codes[chosen].astype(np.int64)
    polygons = finished.outlines_of(chosen)
    drawn = Drawn(
        frame.strata,
        frame.cells,
        frame.areas_m2,
        options.unit,
        stratum,
        _points_in(polygons, options.seed) if options.unit == "point" else polygons,
        finished.crs,
        inclusion[stratum],
        geodesic_area_m2(polygons, finished.crs),
        cells.rows[chosen],
        cells.cols[chosen],
    )
    told = {**values_of(options, SampleOptions), "overwrite": False}
    if options.legend is not None:
        told["legend"] = Path(options.legend).name
    provenance = {
        "sample_of": finished.path.name,
        "options": told,
        "rssc_geo": version("rssc-geo"),
    }
    write_sample(target, drawn, answers=_answers(names, legend), provenance=provenance)
    counts = np.bincount(stratum, minlength=len(frame.strata))
    return SampleDesign(
        target.path,
        options.design,
        options.unit,
        len(chosen),
        _expected_error(frame, counts),
        tuple(
            Stratum(name, int(n), float(area), round(float(share), 4), int(count))
            for name, n, area, share, count in zip(
                frame.strata, frame.cells, frame.areas_m2, frame.expected, counts, strict=True
            )
        ),
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    """A sampling frame: the n cells of a map in H strata.

    Attributes
    ----------
    strata : names (H,)
    codes : (n,), the stratum of each cell
    cells, areas_m2 : (H,), what the map has of each
    expected : (H,), the accuracy of the map in each, as assumed for the allocation
    """

    strata: tuple[str, ...]
    codes: NDArray[np.int16]
    cells: NDArray[np.int64]
    areas_m2: NDArray[np.float64]
    expected: NDArray[np.float64]


def _frame(
    finished: FinishedMap,
    cells: MapCells,
    names: tuple[str, ...],
    places: NDArray[np.int16],
    options: SampleOptions,
) -> _Frame:
    """The sampling frame of a design; ``names``: the classes, ``places``: of the map's, into them.

    Strata without a cell are left out, with a warning: such is a class of a snapped map whose
    regions hold no cell's middle.
    """
    if options.design == "stratified":
        strata, codes = names, places[cells.codes]
        map_areas = np.array([known.area_m2 for known in finished.classes])
        areas = np.bincount(places, map_areas, minlength=len(names)).astype(np.float64)
    else:
        strata, codes = (WHOLE_MAP,), np.zeros(len(cells), np.int16)
        areas = np.array([finished.area_m2])
    there = np.bincount(codes, minlength=len(strata)) > 0
    if not there.all():
        log.warning(
            "no cell has its middle in a region of %s (%.4g %% of the map's area): nothing of it"
            " can be drawn, so that figures will be about the rest",
            ", ".join(name for name, known in zip(strata, there, strict=True) if not known),
            100 * float(areas[~there].sum() / areas.sum()),
        )
        strata = tuple(name for name, known in zip(strata, there, strict=True) if known)
        areas, codes = areas[there], (np.cumsum(there) - 1)[codes].astype(np.int16)
    count = np.bincount(codes, minlength=len(strata))
    sums = np.bincount(codes, weights=cells.confidence, minlength=len(strata))
    expected = np.clip(sums / count, *_EXPECTED)
    if options.expected_accuracy is not None:
        expected = np.full(len(strata), options.expected_accuracy)
    return _Frame(strata, codes, count, areas, expected)


def _draw(
    frame: _Frame, cells: MapCells, options: SampleOptions
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cells drawn (k,), in the order of labeling, and the chance of those of each stratum (H,).

    Raises ``UsageError`` where a systematic grid meets no cell.
    """
    size = options.sample_size or sample_size(
        frame.cells, frame.expected.tolist(), options.standard_error
    )
    if options.design == "systematic":
        chosen = draw_systematic(cells.rows, cells.cols, size, seed=options.seed)
        inclusion = np.array([min(size, len(cells)) / len(cells)])
    else:
        share = allocate(size, frame.cells, _minimum(options, size, len(frame.strata)))
        chosen = draw_stratified(frame.codes, share, seed=options.seed)
        inclusion = share / frame.cells
    if not len(chosen):
        raise UsageError(f"a grid of {size} units meets no cell of the map: ask for more units")
    return chosen, inclusion


def _target(path: Path, map_path: Path, *, overwrite: bool) -> OutputTarget:
    if path.suffix.lower() != ".gpkg":
        raise UsageError(
            f"{path}: a sample is a GeoPackage, which keeps the form for its labels; name it .gpkg"
        )
    check_not_input([path], map_files(map_path))
    target = OutputTarget(path, overwrite=overwrite)
    target.check_free()
    check_closed(path)
    return target


def _minimum(options: SampleOptions, size: int, strata: int) -> int:
    """Units of each stratum at least: what is asked for, as far as an explicit size allows."""
    if options.sample_size is None or options.min_per_class * strata <= size:
        return options.min_per_class
    most = max(2, size // strata)
    log.warning(
        "--min-per-class %d in each of %d classes are more than --sample-size %d: %d are drawn of"
        " each (--legend groups has fewer classes)",
        options.min_per_class,
        strata,
        size,
        most,
    )
    return most


def _expected_error(frame: _Frame, drawn: NDArray[np.int64]) -> float:
    """The standard error of the overall accuracy that units (H,) drawn of each stratum give."""
    units, expected = frame.cells, frame.expected
    weights = units / units.sum()
    variance = expected * (1 - expected) * (1 - drawn / units) / np.maximum(drawn, 1)
    return float(np.sqrt((weights**2 * variance).sum()))


def _points_in(polygons: NDArray[np.object_], seed: int) -> NDArray[np.object_]:
    """A point at random in each polygon, by rejection from its bounds."""
    random = np.random.default_rng((seed, 1))
    bounds = shapely.bounds(polygons)
    found = shapely.points(shapely.get_coordinates(shapely.point_on_surface(polygons)))
    left = np.arange(len(polygons))
    for _ in range(_TRIES):
        low, high = bounds[left, :2], bounds[left, 2:]
        xy = low + random.random((len(left), 2)) * (high - low)
        hit = shapely.contains_xy(polygons[left], xy[:, 0], xy[:, 1])
        found[left[hit]] = shapely.points(xy[hit])
        left = left[~hit]
        if not len(left):
            break
    return np.asarray(found)


def _answers(names: tuple[str, ...], legend: Legend | None) -> list[str]:
    """The labels that a unit may have.

    The whole legend, or the map's classes and, where all of these are in the program's own legend,
    its other classes: the true class may be missing from the map.
    """
    if legend is not None:
        own = [name for name in names if name not in {UNMAPPED, UNKNOWN_CLASS}]
        return list(dict.fromkeys([*legend.names, *own]))
    named = [name for name in names if name != UNKNOWN_CLASS]
    known = known_names()
    return known if set(named) <= set(known) else named
