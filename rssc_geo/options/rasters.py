"""Options of reading a raster and cutting it into tiles and cells."""

from __future__ import annotations

from dataclasses import dataclass

from rssc_geo.errors import UsageError
from rssc_geo.options.declaration import INPUT, OUTPUT, RASTER, TILES, Options, option
from rssc_geo.options.kinds import (
    COUNT,
    CRS,
    FILE,
    FLAG,
    NUMBER,
    RANGE,
    SHARE,
    SIZE,
    choice,
    numbers,
)
from rssc_geo.options.models import ModelOptions
from rssc_geo.options.runs import OverwriteOptions


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """A raster in several files."""

    bands_from: tuple[str, ...] | None = option(
        "Three single-band rasters as one scene.",
        INPUT,
        FILE,
        default=None,
        words="RED GREEN BLUE",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(Options):
    """How a raster is read: bands, nodata, CRS, scaling to 8 bit."""

    bands: tuple[int, ...] | None = option(
        "Bands to use as red, green, blue, counted from 1.",
        RASTER,
        numbers(int, "R,G,B"),
        default=None,
        row=True,
    )
    nodata: float | None = option(
        "A value that counts as nodata, with or without a tag.",
        RASTER,
        NUMBER,
        default=None,
        row=True,
    )
    assume_crs: str | None = option(
        "CRS of a raster that has none, or a wrong one.", RASTER, CRS, default=None, row=True
    )
    stretch: str | None = option(
        "Scaling to 8 bit: '2%,98%' (default beyond 8 bit), '0,3000', 'minmax', 'none', 'dos'"
        " (without haze; the embedded model's default for 8 bit).",
        RASTER,
        RANGE,
        default=None,
        row=True,
    )


@dataclass(frozen=True, kw_only=True)
class TilingOptions(ReadingOptions):
    """How a raster is read and cut into tiles and cells, and which cells are asked for."""

    tile_size: str | None = option(
        "Side of a tile: 256px, 400m. Default: by the model card.",
        TILES,
        SIZE,
        default=None,
        row=True,
    )
    cell_size: str | None = option(
        "Side of a cell, at most the tile's. Default: a sixth of the tile where the model maps fine"
        " cells, else the tile.",
        TILES,
        SIZE,
        default=None,
        row=True,
    )
    min_valid: float = option(
        "Share of valid pixels that a cell needs, above 0.", TILES, SHARE, default=0.5, row=True
    )
    aoi: str | None = option(
        "Vector file of polygons: only cells with their center inside.",
        TILES,
        FILE,
        default=None,
        row=True,
        path=True,
    )
    bounds: tuple[float, ...] | None = option(
        "Box in the raster's CRS: only cells with their center inside.",
        TILES,
        numbers(float, "MINX,MINY,MAXX,MAXY"),
        default=None,
        row=True,
    )
    force: bool = option(
        "Continue although pixels or tiles are far outside what the model was trained on.",
        TILES,
        FLAG,
        default=False,
        commandline_only=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_valid <= 1:
            raise UsageError(
                f"--min-valid {self.min_valid:g} is not a share; give a number above 0 and up to 1"
            )


@dataclass(frozen=True, kw_only=True)
class TileOptions(TilingOptions, ModelOptions, OverwriteOptions):
    """Options of ``tile``."""

    size: int | None = option(
        "Side of a chip. Default: the tile's own pixels.",
        OUTPUT,
        COUNT,
        default=None,
        unit="pixels",
    )
    format: str = option(
        "tif, or png with a world file.", OUTPUT, choice("tif", "png"), default="tif"
    )


@dataclass(frozen=True, kw_only=True)
class InfoOptions(TilingOptions, ModelOptions):
    """Options of ``info``."""
