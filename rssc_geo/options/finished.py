"""Options for existing maps and rasters: legends, accuracy, areas, change."""

from __future__ import annotations

from dataclasses import dataclass

from rssc_geo.errors import UsageError
from rssc_geo.options.declaration import INPUT, OUTPUT, SAMPLE, Options, option
from rssc_geo.options.kinds import (
    AREA,
    COUNT,
    CRS,
    CSV,
    FILE,
    FLAG,
    HTML,
    NAMES,
    SEED,
    SHARE,
    Kind,
    choice,
)
from rssc_geo.options.maps import ZoneOptions
from rssc_geo.options.models import ClassChoiceOptions, ComputeOptions, ModelOptions
from rssc_geo.options.rasters import TilingOptions
from rssc_geo.options.runs import OverwriteOptions
from rssc_geo.options.training import ClassFieldOptions


@dataclass(frozen=True, kw_only=True)
class LegendOptions(Options):
    """The legend of the result."""

    legend: str | None = option(
        "Another legend: groups, anderson-1, anderson-2, corine-1, corine-2, osm-landuse, or the"
        " JSON file of a crosswalk. Default: the map's own classes.",
        INPUT,
        Kind("NAME|FILE", str),
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class RefineOptions(LegendOptions, ClassChoiceOptions, OverwriteOptions):
    """Options of ``refine``."""

    min_area: float = option(
        "Regions smaller than this join a neighbor.",
        OUTPUT,
        AREA,
        default=0.0,
        unit="m²",
    )
    majority: int | None = option(
        "Passes of a majority filter: each cell takes the most frequent class of itself and its"
        " eight neighbors.",
        OUTPUT,
        COUNT,
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class SampleOptions(LegendOptions, OverwriteOptions):
    """Options of ``assess sample``."""

    design: str = option(
        "stratified: at random within each class of the map; systematic: on a square grid with a"
        " random start; simple: at random over the whole map.",
        SAMPLE,
        choice("stratified", "systematic", "simple"),
        default="stratified",
    )
    unit: str = option(
        "What is labeled: the whole cell, or a point at random in it.",
        SAMPLE,
        choice("cell", "point"),
        default="cell",
    )
    sample_size: int | None = option(
        "Number of units. Default: by --standard-error.", SAMPLE, COUNT, default=None
    )
    standard_error: float = option(
        "Standard error of the overall accuracy to aim at, above 0.", SAMPLE, SHARE, default=0.02
    )
    expected_accuracy: float | None = option(
        "Accuracy that is expected of each class. Default: its mean confidence, from 0.5 to 0.95.",
        SAMPLE,
        SHARE,
        default=None,
    )
    min_per_class: int = option(
        "Units of each class at least, with stratified.", SAMPLE, COUNT, default=50
    )
    seed: int = option("Seed of all random choices.", SAMPLE, SEED, default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.standard_error:
            raise UsageError("--standard-error 0 needs a label for every cell; give more, as 0.02")


@dataclass(frozen=True, kw_only=True)
class AccuracyOptions(LegendOptions, ClassFieldOptions):
    """Options of ``assess accuracy``."""


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions(Options):
    """The reference of an assessment."""

    reference: str = option(
        "Reference labels: a vector file of points or polygons.",
        INPUT,
        FILE,
        default="",
        path=True,
        required=True,
    )


@dataclass(frozen=True, kw_only=True)
class AssessmentTargetOptions(Options):
    """Where the figures of an assessment go."""

    output: str | None = option(
        "Also write a page (HTML), JSON and CSV tables into this folder.",
        OUTPUT,
        Kind("PATH", str),
        default=None,
        short="o",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class AreasOptions(LegendOptions, ZoneOptions, ClassFieldOptions, OverwriteOptions):
    """Options of ``areas``."""

    reference: str | None = option(
        "Reference labels: areas adjusted for the map's errors, with intervals, too.",
        INPUT,
        FILE,
        default=None,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class ChangeOptions(
    TilingOptions,
    ModelOptions,
    ComputeOptions,
    ClassChoiceOptions,
    LegendOptions,
    ClassFieldOptions,
    OverwriteOptions,
):
    """Options of ``change``."""

    dates: tuple[str, ...] = option(
        "Labels of the dates, the earliest first. Default: years in the names, or the names.",
        INPUT,
        NAMES,
        default=(),
    )
    reference: str | None = option(
        "Reference labels: areas adjusted for the map's errors, with intervals, too.",
        INPUT,
        FILE,
        default=None,
        path=True,
    )
    least_probability: float | None = option(
        "Probability from which on a cell counts as changed. Default: by the calibration, one value"
        " for rasters and one for maps.",
        OUTPUT,
        SHARE,
        default=None,
    )
    crs: str | None = option(
        "CRS of the result. Default: that of the first date; GeoJSON: WGS84.",
        OUTPUT,
        CRS,
        default=None,
    )
    areas: str | None = option(
        "Also the transition matrix with areas, as a table.",
        OUTPUT,
        CSV,
        default=None,
        path=True,
    )
    report: str | None = option(
        "Also a page: pictures before and after, transitions, the largest changes.",
        OUTPUT,
        HTML,
        default=None,
        path=True,
    )
    full_provenance: bool = option(
        "The result names files with their folders.", OUTPUT, FLAG, default=False
    )
