"""Options of the results of one scene, and of the files beside them."""

from __future__ import annotations

from dataclasses import dataclass

from rssc_geo.options.declaration import (
    CAPTIONS,
    CHOICE,
    INPUT,
    OUTPUT,
    RASTER,
    TILES,
    Options,
    option,
)
from rssc_geo.options.kinds import (
    AREA,
    COUNT,
    CRS,
    CSV,
    FILE,
    FLAG,
    HTML,
    JSON,
    NAME,
    PARQUET,
    PNG,
    TIFF,
    Kind,
    numbers,
)
from rssc_geo.options.models import (
    ClassChoiceOptions,
    ComputeOptions,
    DescribingOptions,
    DeviceOptions,
    ModelOptions,
    NamedClassOptions,
    PredictorOptions,
)
from rssc_geo.options.rasters import SourceOptions, TilingOptions
from rssc_geo.options.runs import OverwriteOptions


@dataclass(frozen=True, kw_only=True)
class CaptionSourceOptions(SourceOptions):
    """The input of ``caption``."""

    pictures: bool = option(
        "RASTER is a folder of pictures, one folder a class; writes a line a picture.",
        INPUT,
        FLAG,
        default=False,
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Options):
    """Contents of a map and the files beside it."""

    crs: str | None = option(
        "CRS of the result. Default: the raster's; GeoJSON: WGS84.",
        OUTPUT,
        CRS,
        default=None,
        row=True,
    )
    aoi_clip: bool = option(
        "Also clip the polygons to the area of interest.", OUTPUT, FLAG, default=False, row=True
    )
    min_area: float = option(
        "Regions smaller than this join a neighbor.",
        OUTPUT,
        AREA,
        default=0.0,
        unit="m²",
        row=True,
    )
    probabilities: bool = option(
        "A column p_<class> for each class in the cells layer.",
        OUTPUT,
        FLAG,
        default=False,
        row=True,
    )
    adapt_shares: bool = option(
        "Estimate each class's share of the scene from all cells and weigh their probabilities by"
        " it.",
        OUTPUT,
        FLAG,
        default=False,
        row=True,
    )
    smooth: bool = option(
        "Where cells are smaller than tiles: smooth each cell's probabilities with those of its"
        " neighbors, less where the picture changes between them.",
        OUTPUT,
        FLAG,
        default=True,
        negative="--no-smooth",
        row=True,
    )
    snap: bool = option(
        "Outlines of landuse and class raster follow edges in the picture, not the sides of cells"
        " (reads the raster a second time).",
        OUTPUT,
        FLAG,
        default=False,
        row=True,
    )
    class_raster: str | None = option(
        "Also a COG of classes, one pixel a cell; with --snap finer.",
        OUTPUT,
        TIFF,
        default=None,
        row=True,
        path=True,
    )
    embeddings: str | None = option(
        "Also a table of the cells with their embeddings, as GeoParquet.",
        OUTPUT,
        PARQUET,
        default=None,
        row=True,
        path=True,
    )
    preview: str | None = option(
        "Also a picture: scene, classes, legend, scale bar.",
        OUTPUT,
        PNG,
        default=None,
        row=True,
        path=True,
    )
    date: str | None = option(
        "When the scene was taken: 2024-06-01, or with a time. Default: by its tags.",
        RASTER,
        Kind("DATE", str),
        default=None,
        row=True,
    )
    no_unknown: bool = option(
        "Give every cell one of the classes, also those unlike all of the training data.",
        OUTPUT,
        FLAG,
        default=False,
    )
    full_provenance: bool = option(
        "Map and report name files with their folders.", OUTPUT, FLAG, default=False
    )


@dataclass(frozen=True, kw_only=True)
class ZoneOptions(Options):
    """The zones of a table of areas."""

    zones: str | None = option(
        "Vector file of polygons: the table has the areas in each of them, too.",
        TILES,
        FILE,
        default=None,
        row=True,
        path=True,
    )
    zone_field: str | None = option(
        "Column of the zones' names. Default: they are numbered.",
        TILES,
        NAME,
        default=None,
        row=True,
    )


@dataclass(frozen=True, kw_only=True)
class ReportOptions(ZoneOptions):
    """Results for the review of a map."""

    areas: str | None = option(
        "Also a table of areas, as `areas` makes it.",
        OUTPUT,
        CSV,
        default=None,
        row=True,
        path=True,
    )
    report: str | None = option(
        "Also a page: map, areas, examples, doubtful cells, provenance.",
        OUTPUT,
        HTML,
        default=None,
        row=True,
        path=True,
    )
    stac_item: str | None = option(
        "Also a STAC item of the map: place, date, classes, model, files.",
        OUTPUT,
        JSON,
        default=None,
        row=True,
        path=True,
    )
    review: int | None = option(
        "Also a layer of the N cells most worth labeling.", OUTPUT, COUNT, default=None, row=True
    )


@dataclass(frozen=True, kw_only=True)
class SceneOptions(TilingOptions, OutputOptions, ReportOptions):
    """How a scene is read and mapped, for every kind of model."""


@dataclass(frozen=True, kw_only=True)
class MapOptions(SceneOptions, OverwriteOptions):
    """How one scene becomes a map."""


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(MapOptions, PredictorOptions):
    """Options of ``classify``."""


@dataclass(frozen=True, kw_only=True)
class ZeroShotOptions(MapOptions, ModelOptions, ComputeOptions, NamedClassOptions):
    """Options of ``zero-shot``."""


@dataclass(frozen=True, kw_only=True)
class CaptionOptions(TilingOptions, DescribingOptions, OverwriteOptions):
    """Options of ``caption``."""

    crs: str | None = option(
        "CRS of the GeoPackage. Default: the raster's.", OUTPUT, CRS, default=None
    )


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(
    TilingOptions, ModelOptions, ClassChoiceOptions, DeviceOptions, OverwriteOptions
):
    """Options of ``explain``."""

    captioner: str | None = option("As for classify.", CAPTIONS, NAME, default=None)
    at: tuple[tuple[float, float], ...] = option(
        "Explain the cell under a point; may be repeated.",
        CHOICE,
        numbers(float, "X,Y"),
        default=(),
        multiple=True,
    )
    at_crs: str | None = option(
        "CRS of the points (EPSG:4326: longitude,latitude). Default: the raster's.",
        CHOICE,
        CRS,
        default=None,
    )
    result: str | None = option(
        "A map that classify wrote of RASTER: explain some of its cells, or those at the points.",
        CHOICE,
        FILE,
        default=None,
        path=True,
    )
    cells: int | None = option(
        "Number of cells of --result, the least certain first. Default: 20.",
        CHOICE,
        COUNT,
        default=None,
    )
    where: str | None = option(
        "Only cells of --result that match, such as \"confidence < 0.5 AND class = 'Port'\".",
        CHOICE,
        Kind("FILTER", str),
        default=None,
    )
