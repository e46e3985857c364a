"""The plan for a raster before it is classified: scene, tiles, cells. No torch here."""

from __future__ import annotations

import functools
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rssc_geo.errors import UsageError
from rssc_geo.files import local_file, paths_of
from rssc_geo.geometry import (
    LEAST_SHOWN_FINE,
    BlockGrid,
    TileChoice,
    TileGrid,
    Window,
    choose_sizes,
    choose_tile_size,
    parse_cell_size,
)
from rssc_geo.inference.aggregate import CellMap
from rssc_geo.inference.layout import block_grid, tokens_a_side
from rssc_geo.models import ModelCard
from rssc_geo.options import TilingOptions, given_of
from rssc_geo.raster import (
    LAYER,
    PictureCheck,
    Radiometry,
    Scene,
    TileReader,
    align_scene,
    bounds_polygon,
    cells_inside,
    check_picture,
    fit_radiometry,
    harmonize,
    open_scene,
    read_aoi,
)

log = logging.getLogger(__name__)

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A raster (path, URL or /vsi path), or single-band ones as red, green, blue."""
_FAR = 4
"""Factor between pixels or tiles and those of the training beyond which a raster is refused."""


@dataclass(frozen=True)
class Plan:
    """A scene, its grid, and the cells that are asked for.

    Attributes
    ----------
    options : those that it was made with, completed by those of the model's training
    tiling : the sizes of tile and cell, and the reason
    blocks : units that are processed instead of single tiles, where windows share features
    selected : bool (cell rows, cell columns), the cells that are asked for
    area : the area of interest in the raster's CRS, None for the whole raster
    warnings : what the user should know
    out_of_range : whether pixels are so much coarser, or tiles so much larger or smaller, than in
        the training that results mean nothing
    like : the plan of an earlier date of the same area, to which the scene's colors are matched
    sample : valid pixels (n, 3) of the scene, as ``sample_pixels`` gives them, where the check of
        the picture has read them
    """

    scene: Scene
    options: TilingOptions
    tiling: TileChoice
    grid: TileGrid
    blocks: BlockGrid | None
    selected: NDArray[np.bool_]
    area: BaseGeometry | None
    warnings: tuple[str, ...]
    out_of_range: bool = False
    like: Plan | None = None
    sample: NDArray[Any] | None = None

    @functools.cached_property
    def cells(self) -> CellMap:
        """Relations of the tiles and the selected cells."""
        return CellMap(self.grid, self.selected, min_valid=self.options.min_valid)

    @functools.cached_property
    def unit_cells(self) -> CellMap:
        """The same for the ``units``."""
        if self.blocks is None:
            return self.cells
        return CellMap(self.blocks, self.selected, min_valid=self.options.min_valid)

    @property
    def units(self) -> TileGrid | BlockGrid:
        """The units of processing: blocks of a fine map, else tiles."""
        return self.grid if self.blocks is None else self.blocks

    @property
    def units_called(self) -> str:
        """The word for them in messages."""
        return "tiles" if self.blocks is None else "blocks"

    @functools.cached_property
    def radiometry(self) -> Radiometry:
        """The scene-wide scaling to 8 bit; reads a bounded sample when it is first asked for.

        Raises ``InputError`` when the raster cannot be read, ``UsageError`` for an odd --stretch.
        """
        own = fit_radiometry(self.scene, stretch=self.options.stretch, sample=self.sample)
        if self.like is None:
            return own
        return harmonize(self.scene, own, self.like.scene, self.like.radiometry)

    def reader(self, tiles: Iterable[int], *, out_size: tuple[int, int]) -> TileReader:
        """Tiles by index, resampled to ``out_size`` (rows, columns): a context manager."""
        return TileReader(self.scene, self.grid, self.radiometry, out_size=out_size, tiles=tiles)

    def unit_reader(self, units: Iterable[int], *, input_size: tuple[int, int]) -> TileReader:
        """The same for ``units``; ``input_size``: of the tiles that the network wants."""
        return TileReader(self.scene, self.units, self.radiometry, out_size=input_size, tiles=units)

    def picture(
        self, window: Window, shape: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A window of the scene, scaled to 8 bit as the network sees it.

        ``shape``: rows and columns (H, W) to which it is reduced or enlarged. Returns pixels
        (H, W, 3), 0 where they are invalid, and their mask (H, W). Raises ``InputError`` where the
        raster cannot be read.
        """
        with self.scene.pixel_reader() as reader:
            colors, valid = reader.read(window, shape)
        mask = np.ones(shape, bool) if valid is None else valid
        return self.radiometry.apply(colors, mask, window), mask

    def inputs(self) -> tuple[str, ...]:
        """The files that are read and must not be replaced."""
        aoi = self.options.aoi
        return (*self.scene.files, *(() if aoi is None else (str(aoi).partition(LAYER)[0],)))


def make_plan(
    source: Source,
    card: ModelCard,
    options: TilingOptions,
    *,
    fine: bool = True,
    looks: bool = True,
    least_shown: int = LEAST_SHOWN_FINE,
) -> Plan:
    """Open the raster and decide on tiles and cells.

    Parameters
    ----------
    source : path or URL of the raster, or three single-band ones
    card : the model's, which gives the sizes of tiles that are not in the options
    options : bands, scaling, sizes of tiles and cells, area of interest
    fine : whether cells are smaller than tiles where the model supports it; else tiles lie side by
        side, exactly as large as asked for, unless ``options.cell_size`` lets them overlap
    looks : whether pixels are read, for the warnings about them
    least_shown : pixels of the raster a side that the tile of a fine map has at least by default

    Raises
    ------
    UsageError
        for options that do not fit the raster, and for pixels or tiles far outside the model's
        range, unless ``options.force`` is set
    InputError
        for a raster that cannot be read
    GeoreferenceError
        for a raster without a place on Earth

    Examples
    --------
    >>> from rssc_geo import TilingOptions, load_card, make_plan
    >>> plan = make_plan("scene.tif", load_card("compact"), TilingOptions(tile_size="900m"))
    >>> plan.grid.size, plan.grid.cells_shape
    ((60, 60), (30, 30))
    """
    started = time.monotonic()
    paths = paths_of(source)
    source = paths[0] if isinstance(source, str | os.PathLike) else paths
    log.info("opening %s", ", ".join(paths))
    options = _as_trained(options, card, single=len(paths) == 1)
    scene = open_scene(
        source, bands=options.bands, nodata=options.nodata, assume_crs=options.assume_crs
    )
    tokens = tokens_a_side(card) if fine else 1
    tiling = _choose_sizes(scene, card, options, tokens=tokens, least_shown=least_shown)
    grid = TileGrid(scene.shape, tiling.size, tiling.cell_size)
    blocks = None
    if tokens > 1 and tiling.fraction > 1:
        blocks = block_grid(card, scene.shape, tiling.cell_size, tiling.fraction)
    area = _area(scene, options)
    selected = _selected_cells(scene, grid, area)
    picture = check_picture(scene) if looks else PictureCheck()
    warnings = (
        *scene.warnings,
        *picture.warnings,
        *tiling.warnings,
        *_resolution_warnings(scene, tiling, card),
    )
    problem = _out_of_range(scene, tiling, card)
    if problem and not options.force:
        raise UsageError(f"{problem}. --force continues nevertheless")
    log.info(
        "%s: %d x %d pixels of %.4g m, bands %s (%s); tiles of %d x %d pixels, cells of %d x %d,"
        " %d of them; %.1f s",
        scene.source,
        *scene.shape,
        scene.gsd_m[0],
        ",".join(map(str, scene.bands)),
        scene.bands_reason,
        *grid.size,
        *grid.cell_size,
        selected.sum(),
        time.monotonic() - started,
    )
    return Plan(
        scene,
        options,
        tiling,
        grid,
        blocks,
        selected,
        area,
        warnings,
        out_of_range=bool(problem),
        sample=picture.sample,
    )


def plan_later_date(source: Source, plan: Plan) -> Plan:
    """The plan of another date of the same area, on the first one's grid, matched to its colors.

    ``source`` may have another CRS, other pixels and another extent. Raises the ``RsscGeoError`` of
    a raster that cannot be read, or does not overlap that area.
    """
    options = plan.options
    scene = open_scene(
        source, bands=options.bands, nodata=options.nodata, assume_crs=options.assume_crs
    )
    picture = check_picture(scene)
    aligned = align_scene(scene, plan.scene)
    return replace(
        plan,
        scene=aligned,
        warnings=(*scene.warnings, *picture.warnings),
        like=plan,
        # On another grid it shows another extent.
        sample=picture.sample if aligned is scene else None,
    )


def _out_of_range(scene: Scene, tiling: TileChoice, card: ModelCard) -> str:
    """The problem with pixels or tiles more than ``_FAR`` times outside the card's range, or ""."""
    name, (finest, coarsest) = card.name, card.gsd_range_m
    pixel, sides = max(scene.gsd_m), tiling.footprint_m
    if pixel > _FAR * coarsest:
        return (
            f"a pixel covers {pixel:.3g} m, more than {_FAR} times what {name} was trained on"
            f" ({finest:g}–{coarsest:g} m): it cannot tell what such pixels show"
        )
    least, most = card.footprint.minimum_m, card.footprint.maximum_m
    if min(sides) * _FAR < least or max(sides) > _FAR * most:
        extent = min(n * gsd for n, gsd in zip(scene.shape, scene.gsd_m, strict=True))
        remedy = (
            "give another --tile-size" if extent * _FAR >= least else "the raster shows no more"
        )
        return (
            f"a tile covers {sides[0]:.3g} × {sides[1]:.3g} m, more than {_FAR} times off what"
            f" {name} was trained on ({least:g}–{most:g} m): {remedy}"
        )
    return ""


def _as_trained(options: TilingOptions, card: ModelCard, *, single: bool) -> TilingOptions:
    """Bands and scaling as the model was trained with, where the options give none.

    Bands given as files of their own are not numbered.
    """
    bands, stretch = options.bands, options.stretch
    if bands is None and single:
        bands = card.raster_bands
    if stretch is None:
        stretch = card.stretch
    return replace(options, bands=bands, stretch=stretch)


def _choose_sizes(
    scene: Scene, card: ModelCard, options: TilingOptions, *, tokens: int, least_shown: int
) -> TileChoice:
    """Tile and cell: of a fine map, whose cells are whole tokens of a tile's side, or of tiles."""
    footprint = (card.footprint.minimum_m, card.footprint.preferred_m, card.footprint.maximum_m)
    if tokens > 1:
        return choose_sizes(
            scene.shape,
            scene.gsd_m,
            footprint_m=footprint,
            tokens=tokens,
            requested=(options.tile_size, options.cell_size),
            least_shown=least_shown,
        )
    tiling = choose_tile_size(
        scene.shape, scene.gsd_m, footprint_m=footprint, requested=options.tile_size
    )
    if options.cell_size is None:
        return tiling
    cell_size = parse_cell_size(options.cell_size, tiling.size, scene.gsd_m)
    return replace(tiling, cell_size=cell_size)


def _selected_cells(scene: Scene, grid: TileGrid, area: BaseGeometry | None) -> NDArray[np.bool_]:
    """The cells of an area of interest, None: all; ``UsageError`` where it has none."""
    if area is None:
        return np.ones(grid.cells_shape, bool)
    selected = cells_inside(grid, scene.transform, area)
    if not selected.any():
        raise UsageError(
            "the area of interest contains no cell's center; make it larger or the tiles"
            " smaller (--tile-size)"
        )
    return selected


def _area(scene: Scene, options: TilingOptions) -> BaseGeometry | None:
    parts = []
    if options.aoi is not None:
        parts.append(read_aoi(options.aoi, scene))
    if options.bounds is not None:
        min_x, min_y, max_x, max_y = options.bounds
        parts.append(bounds_polygon((min_x, min_y, max_x, max_y), scene))
    if len(parts) == 2:
        both = parts[0].intersection(parts[1])
        if both.is_empty:
            raise UsageError("--aoi and --bounds do not overlap")
        return both
    return parts[0] if parts else None


def _resolution_warnings(scene: Scene, tiling: TileChoice, card: ModelCard) -> Iterator[str]:
    """A warning when the network's input is coarser or finer than in the training.

    A raster finer than the card's range is fine by itself: its tiles are read reduced.
    """
    low, high = card.gsd_range_m
    coarse = max(scene.gsd_m)
    trained = f"{card.name} was trained on {low:g}–{high:g} m a pixel"
    if coarse > high * 1.01:  # a difference by rounding to a pixel is within the range
        yield f"the raster has {coarse:.3g} m a pixel, {trained}: expect less certain classes"
        return
    read = min(
        gsd * max(1.0, size / wanted)
        for gsd, size, wanted in zip(scene.gsd_m, tiling.size, card.input_size, strict=True)
    )
    if read < low and not tiling.warnings:  # else the tile's own warning has the reason
        hint = "expect less certain classes (larger tiles: --tile-size)"
        yield f"tiles are read at {read:.3g} m a pixel, {trained}: {hint}"


@dataclass(frozen=True, slots=True)
class PredictorSpec:
    """Everything on which a result depends beside the scene: model, captioner, precision.

    ``captioner``: name and parameters in one line; ``dtype``: "float32", "bfloat16", "float16";
    ``choice``: ids of the allowed classes, None: all.
    """

    card: ModelCard
    captioner: str
    dtype: str
    choice: tuple[int, ...] | None = None

    @property
    def captioner_places(self) -> list[str]:
        """The folders, or hub ids, of large captioners."""
        return re.findall(r"hf:(.+?)(?= \{|$)", self.captioner)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, the program's version included: equal only for equal results."""
        return {
            "model": {
                "name": self.card.name,
                "version": self.card.version,
                "identity": self.card.identity,
                "sha256": dict(self.card.sha256),
                "classes": {c.name: c.description for c in self.card.classes},
            },
            "class_choice": None if self.choice is None else self.card.names(self.choice),
            "captioner": self.captioner,
            "dtype": self.dtype,
            "rssc_geo": version("rssc-geo"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDescription:
    """Description of a run: `info` prints it, provenance keeps it, the report shows it.

    ``options``: those given, defaults left out; ``tiles`` or, of a fine map, ``blocks``, and
    ``cells``: how many are asked for.
    """

    input: str
    size_px: tuple[int, int]
    dtype: str
    bands: tuple[int, ...]
    bands_by: str
    mask: str
    crs: str
    gsd_m: tuple[float, float]
    bounds_lonlat: tuple[float, float, float, float]
    overviews: tuple[int, ...]
    scaling: Mapping[str, Any]
    tile_size_px: tuple[int, int]
    tile_size_m: tuple[float, float]
    tile_size_by: str
    cell_size_px: tuple[int, int]
    tiles: int | None
    blocks: int | None
    cells: int
    model: str
    license: str
    options: Mapping[str, Any]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, the most important first; ``tiles`` or ``blocks``, not both."""
        values = asdict(self)
        del values["tiles" if self.tiles is None else "blocks"]
        return values


def without_folders(values: Mapping[str, Any], plan: Plan, *more: str) -> dict[str, Any]:
    """The values, with local files named without their folders.

    ``more``: other texts that may be, or end in, the path of a file or folder.
    """
    named = [*plan.inputs(), *plan.scene.source.split(", "), *more]
    places = {place for name in named if (place := local_file(name)) is not None}
    places |= {os.path.abspath(place) for place in places}
    # The longest first: one may be the beginning of another.
    paths = sorted((p for p in places if os.path.basename(p) not in {"", p}), key=len, reverse=True)

    def shortened(value: Any) -> Any:
        if isinstance(value, str):
            for path in paths:
                value = value.replace(path, os.path.basename(path))
            return value
        if isinstance(value, Mapping):
            return {key: shortened(entry) for key, entry in value.items()}
        return [shortened(entry) for entry in value] if isinstance(value, list | tuple) else value

    return {key: shortened(value) for key, value in values.items()}


def describe_run(plan: Plan, card: ModelCard) -> RunDescription:
    """The description of a run before the first tile is classified.

    Examples
    --------
    >>> from rssc_geo import TilingOptions, describe_run, load_card, make_plan
    >>> card = load_card("compact")
    >>> describe_run(make_plan("scene.tif", card, TilingOptions()), card).crs
    'EPSG:32632'
    """
    scene, grid = plan.scene, plan.grid
    authority = scene.crs.to_authority()
    west, south, east, north = (round(value, 6) for value in scene.bounds_lonlat())
    rows_m, cols_m = (size * gsd for size, gsd in zip(grid.size, scene.gsd_m, strict=True))
    units = len(plan.unit_cells.tiles())
    return RunDescription(
        input=scene.source,
        size_px=scene.shape,
        dtype=scene.dtype,
        bands=scene.bands,
        bands_by=scene.bands_reason,
        mask=scene.mask,
        crs=":".join(authority) if authority else scene.crs.name,
        gsd_m=(round(scene.gsd_m[0], 6), round(scene.gsd_m[1], 6)),
        bounds_lonlat=(west, south, east, north),
        overviews=scene.overviews,
        scaling=asdict(plan.radiometry),
        tile_size_px=grid.size,
        tile_size_m=(round(rows_m, 3), round(cols_m, 3)),
        tile_size_by=plan.tiling.reason,
        cell_size_px=grid.cell_size,
        tiles=units if plan.blocks is None else None,
        blocks=None if plan.blocks is None else units,
        cells=int(plan.selected.sum()),
        model=f"{card.name} {card.version}",
        license=card.license,
        options=given_of(plan.options, TilingOptions),
        warnings=plan.warnings,
    )


def estimated_seconds(plan: Plan, card: ModelCard) -> float | None:
    """A rough time on this machine's processor, from the card's rate on one core, if it has one.

    A fine map takes about as long as its tiles would, laid side by side.
    """
    if card.cpu_tiles_per_s is None:
        return None
    each = 1 if plan.blocks is None else plan.tiling.fraction**2
    return float(plan.selected.sum()) / each / (card.cpu_tiles_per_s * (os.cpu_count() or 1))
