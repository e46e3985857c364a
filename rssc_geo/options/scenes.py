"""Options of many scenes: batches and archives."""

from __future__ import annotations

from dataclasses import dataclass

from rssc_geo.options.declaration import (
    BATCH,
    COMPUTING,
    MODEL,
    OUTPUT,
    RASTER,
    SEARCH,
    Options,
    option,
)
from rssc_geo.options.kinds import COUNT, CRS, FILE, FLAG, HTML, NAME, NAMES, Kind, choice, numbers
from rssc_geo.options.maps import SceneOptions
from rssc_geo.options.models import DeviceOptions, ModelOptions, NamedClassOptions, PredictorOptions
from rssc_geo.options.rasters import TilingOptions
from rssc_geo.options.runs import OverwriteOptions


@dataclass(frozen=True, kw_only=True)
class BatchSceneOptions(SceneOptions, NamedClassOptions):
    """Options that may differ from scene to scene of a batch."""

    classes: str | None = option(
        "Classes by words instead of the model's own, as for zero-shot: names, or a file.",
        MODEL,
        Kind("A,B,…|FILE", str),
        default=None,
        row=True,
    )


@dataclass(frozen=True, kw_only=True)
class ManyScenesOptions(Options):
    """How many scenes are found and worked on."""

    asset: str | None = option(
        "Key or role of the STAC asset, or three keys: red,green,blue.", BATCH, NAME, default=None
    )
    scheduler: str | None = option(
        "Dask cluster: tcp://host:8786 or a scheduler file. Default: this machine.",
        BATCH,
        Kind("ADDRESS", str),
        default=None,
    )
    threads: int | None = option(
        "Processor threads. Default: as there are processors.", COMPUTING, COUNT, default=None
    )
    attempts: int = option("Times that a block is tried.", BATCH, COUNT, default=3)
    retry_failed: bool = option(
        "Also do scenes again that failed in an earlier run.", BATCH, FLAG, default=False
    )


@dataclass(frozen=True, kw_only=True)
class BatchOptions(BatchSceneOptions, ManyScenesOptions, PredictorOptions, OverwriteOptions):
    """Options of ``batch run``.

    ``crs`` defaults to EPSG:4326 with ``merge``; ``class_raster``, ``preview``, ``report`` and
    ``areas`` are templates as the output is; ``overwrite`` also replaces files that no batch has
    made; ``device`` may be a list ("cuda:0,cuda:1").
    """

    merge: str | None = option(
        "One file of all scenes; where they overlap, which one counts.",
        BATCH,
        choice("first", "last", "most-confident"),
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class BatchAreasOptions(OverwriteOptions):
    """Options of ``batch areas``."""


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(TilingOptions, PredictorOptions, OverwriteOptions):
    """Options of ``embed``."""

    date: str | None = option(
        "When the scenes were taken: 2024-06-01, or with a time. Default: by their tags.",
        RASTER,
        Kind("DATE", str),
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class IndexOptions(TilingOptions, ManyScenesOptions, PredictorOptions):
    """Options of ``index``."""

    prune: bool = option(
        "Then remove the scenes that are not among these, with their maps.",
        BATCH,
        FLAG,
        default=False,
        commandline_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class SearchOptions(ModelOptions, DeviceOptions, OverwriteOptions):
    """Options of ``search``."""

    like: str | None = option(
        "A raster with an example of what to find: at --at, in --like-area, or all of it.",
        SEARCH,
        FILE,
        default=None,
        path=True,
    )
    at: tuple[tuple[float, float], ...] = option(
        "Point in --like where the example is; may be repeated.",
        SEARCH,
        numbers(float, "X,Y"),
        default=(),
        multiple=True,
    )
    like_area: str | None = option(
        "Vector file of polygons in --like that hold the example.",
        SEARCH,
        FILE,
        default=None,
        path=True,
    )
    unlike: str | None = option(
        "A raster with an example of what not to find: at --unlike-at, or all of it.",
        SEARCH,
        FILE,
        default=None,
        path=True,
    )
    unlike_at: tuple[tuple[float, float], ...] = option(
        "Point in --unlike where that example is; may be repeated.",
        SEARCH,
        numbers(float, "X,Y"),
        default=(),
        multiple=True,
    )
    at_crs: str | None = option(
        "CRS of the points (EPSG:4326: longitude,latitude). Default: the raster's.",
        SEARCH,
        CRS,
        default=None,
    )
    hits: int = option("Number of cells, the best first.", SEARCH, COUNT, default=50, short="n")
    per_scene: int | None = option(
        "Number of cells of one scene at most.", SEARCH, COUNT, default=None
    )
    only_classes: tuple[str, ...] = option(
        "Only cells of these classes or groups.", SEARCH, NAMES, default=()
    )
    exclude_classes: tuple[str, ...] = option(
        "No cells of these classes or groups.", SEARCH, NAMES, default=()
    )
    since: str | None = option(
        "Only scenes of this date or later; those without a date are left out.",
        SEARCH,
        Kind("DATE", str),
        default=None,
    )
    until: str | None = option(
        "Only scenes before this date; those without a date are left out.",
        SEARCH,
        Kind("DATE", str),
        default=None,
    )
    bounds: tuple[float, ...] | None = option(
        "Only cells that touch this box, in longitude and latitude.",
        SEARCH,
        numbers(float, "MINX,MINY,MAXX,MAXY"),
        default=None,
    )
    sheet: str | None = option(
        "Also a page: pictures of the cells found, with captions and scores, and where they are.",
        OUTPUT,
        HTML,
        default=None,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class SearchTargetOptions(Options):
    """Where the cells that a search found go."""

    output: str | None = option(
        "Write the cells found as a layer: .gpkg, .fgb, .geojson, .parquet, .shp.",
        OUTPUT,
        Kind("PATH", str),
        default=None,
        short="o",
        path=True,
    )
