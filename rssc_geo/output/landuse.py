"""The writer of a land-use map: takes cells, makes a finished map; resumable, all or nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from rssc_geo.closing import Closing
from rssc_geo.errors import OutputError, UsageError
from rssc_geo.files import write_error
from rssc_geo.geometry import Regions, dissolve, merge_small
from rssc_geo.output.class_raster import ClassPixels, ShownClasses, write_class_raster
from rssc_geo.output.embeddings import EmbeddingLayer, EmbeddingSource, embedding_layer
from rssc_geo.output.formats import WGS84, write_geoparquet
from rssc_geo.output.geopackage import provenance_document
from rssc_geo.output.layers import Layer, RegionValues, cells_layer, landuse_layer
from rssc_geo.output.partfile import CellBatch, PartFile, make_rows
from rssc_geo.output.placement import GeoGrid, Placement
from rssc_geo.output.snapping import Pixels, snap_cells, snap_record
from rssc_geo.output.steps import step_warnings, take_steps
from rssc_geo.output.target import OutputTarget
from rssc_geo.output.unknown import NAME_ALL, UnknownRule

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_NOTHING = -1  # in class grids: a cell without a class
_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """Totals of one class in the landuse layer.

    Attributes
    ----------
    id, name, title, group, color : as in the model's card; ``group`` is None where it has none
    cells, regions : how many
    area_m2 : geodesic
    """

    id: int
    name: str
    title: str
    group: str | None
    color: str
    cells: int
    regions: int
    area_m2: float


@dataclass(frozen=True, slots=True)
class LandUseSummary:
    """The result of writing.

    Attributes
    ----------
    paths : the files, the main one first
    cells, regions : how many features the layers hold
    classes : totals of every class of the model, in its order
    shown : the landuse layer's classes, cell by cell, of a map that is snapped finer
    warnings : of the steps over the set of cells
    """

    paths: tuple[Path, ...]
    cells: int
    regions: int
    classes: tuple[ClassTotal, ...]
    warnings: tuple[str, ...]
    shown: ShownClasses = field(repr=False, compare=False)

    @property
    def present(self) -> tuple[ClassTotal, ...]:
        """The classes that the map shows: those that have a region.

        A snapped region may hold no cell's middle, and then has no cell.
        """
        return tuple(total for total in self.classes if total.regions)


@dataclass(frozen=True, slots=True)
class _Map:
    """A map before it is written.

    ``shown``: its classes to look at; ``classes``: those of its cells before any merging, and those
    of its regions.
    """

    shown: ShownClasses
    pixels: ClassPixels
    regions: Regions
    values: RegionValues
    classes: tuple[SceneClass, ...]


class LandUseWriter(Closing):
    """Collects classified cells in a part file beside the target and makes the map of them.

    Parameters
    ----------
    target : where the map goes, checked by ``make_target``
    geo : the raster's grid
    classes : of the model, in the order of its outputs; behind them ``Unknown``, where there is one
    run_key : everything that defines the cells (input, model, options), as JSON values by names
        that users know; a part file of a run with the same key is resumed
    provenance : of the result, as JSON values
    unknown : which cells are of the last class

    Raises ``UsageError`` for classes that the formats cannot hold, and ``OutputError`` when another
    process writes the same target, or a map is there that is not to be replaced.
    """

    def __init__(
        self,
        target: OutputTarget,
        geo: GeoGrid,
        *,
        classes: Sequence[SceneClass],
        run_key: Mapping[str, object],
        provenance: Mapping[str, object],
        unknown: UnknownRule = NAME_ALL,
    ) -> None:
        ids = [scene_class.id for scene_class in classes]
        if ids != list(range(len(classes))):
            raise ValueError(f"class ids {ids} do not count from 0")
        names = [scene_class.name for scene_class in classes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"two classes are named {twice[0]!r}: give each its own name")
        target.check_classes(len(classes))
        grid = geo.grid
        # Cells that are tiles share no context with their neighbors.
        target = replace(target, smooth=target.smooth and grid.cell_size != grid.size)
        self._target, self._geo = target, geo
        self._classes, self._provenance = tuple(classes), provenance
        self._unknown = unknown
        self._named = self._classes[:-1] if unknown.cell else self._classes
        self._placement = Placement(
            geo,
            target.crs_of(geo.crs),
            clip=target.clip,
            wrap=target.format.wgs84,
        )
        key = {
            **run_key,
            "grid": [grid.shape, grid.size, grid.cell_size],
            "classes": names,
            "--probabilities": target.probabilities,
            "--adapt-shares": target.adapt_shares,
            "--smooth": target.smooth,
            "--snap": target.snap,
        }
        self._replaces = target.overwrite or target.is_announced
        self._part = PartFile(target.part_path, key)
        if not len(self._part):  # a map that is there was not made by this very run
            try:
                target.check_free()
            except OutputError:
                self._part.remove()
                raise

    @property
    def watermark(self) -> int:
        """What the last ``append`` gave, also in an earlier, interrupted run; 0 for a fresh one."""
        return self._part.watermark

    def __len__(self) -> int:
        """Number of cells so far, those of an interrupted run included."""
        return len(self._part)

    def append(self, batch: CellBatch, watermark: int) -> None:
        """Keep cells, each given once in a run, and the watermark, in one transaction."""
        target = self._target
        keep = target.probabilities or target.adapt_shares or target.smooth or target.snap
        rows = make_rows(batch, keep=keep, unknown_below=self._unknown.cell)
        self._part.append(rows, watermark)

    def make(
        self,
        extra_provenance: Mapping[str, object] | None = None,
        pixels: Pixels | None = None,
        embedded: EmbeddingSource | None = None,
    ) -> LandUseSummary:
        """Make the result of the cells appended and put it in place; the part file is kept.

        Before, the steps over the set of cells are taken that the target asks for. ``pixels`` opens
        the scene once more, for a target that snaps; ``embedded``: the common values of the table
        of embeddings, None: there is none. Until the part file is removed, an identical run may
        replace the result.

        Raises ``InputError`` where the scene cannot be read then, ``OutputError`` when the result
        cannot be written; the part file is then kept. One that was damaged meanwhile is deleted.
        """
        target = self._target
        steps = self.settle().steps
        if not target.snap:
            return self._write(self._map(), steps, extra_provenance, embedded)
        if pixels is None:
            raise ValueError("a map that snaps needs the scene's pixels")
        steps = {**steps, "snap": snap_record(self._geo.grid, len(self._part))}
        try:
            with tempfile.TemporaryFile(dir=target.path.parent) as scratch:
                return self._write(
                    self._snapped(pixels, scratch), steps, extra_provenance, embedded
                )
        except OSError as error:
            raise write_error(target.path, error) from error

    def _write(
        self,
        result: _Map,
        steps: Mapping[str, object],
        extra_provenance: Mapping[str, object] | None,
        embedded: EmbeddingSource | None,
    ) -> LandUseSummary:
        """Put a map in place."""
        target = self._target
        told = {"steps": steps} if steps else {}
        provenance = provenance_document(self._provenance, extra_provenance or {}, told)
        layers = self._layers(result)
        with target.staged(overwrite=self._replaces) as staging:
            target.write_layers(staging, layers, classes=result.classes, provenance=provenance)
            if target.class_raster is not None:
                path = staging.place(target.class_raster)
                write_class_raster(path, result.pixels, self._geo.crs, self._classes)
            if target.embeddings is not None and embedded is not None:
                table = self._embedding_layer(embedded)
                write_geoparquet(table, staging.place(target.embeddings), provenance)
            self._part.announce({path: staging.place(path) for path in target.results})
        return _summary(target, result, self._classes, tuple(step_warnings(steps)))

    def embeddings(self, embedded: EmbeddingSource) -> EmbeddingLayer:
        """The rows of the cells with their embeddings, once all cells were appended.

        The steps over the set of cells are taken before; the part file is kept. Raises
        ``OutputError`` for one that was damaged meanwhile, which is deleted.
        """
        self.settle()
        return self._embedding_layer(embedded)

    def settle(self) -> PartFile:
        """The part file once all cells were appended and the steps over them are taken.

        Raises ``OutputError`` for one that was damaged meanwhile, which is deleted.
        """
        if not self._part.is_whole():
            self._part.remove()
            raise OutputError(
                f"{self._part.path} was damaged while it was in use: what was classified is"
                " dropped, run the same command again"
            )
        take_steps(self._part, self._target, self._named, unknown=self._unknown)
        return self._part

    def _embedding_layer(self, embedded: EmbeddingSource) -> EmbeddingLayer:
        """In longitude and latitude, whatever the map's CRS, so that tables fit together."""
        placement = Placement(self._geo, WGS84, clip=self._target.clip, wrap=True)
        return embedding_layer(self._part, embedded, classes=self._classes, placement=placement)

    def close(self) -> None:
        """Stop, keeping the part file so that the next identical run continues from it."""
        self._part.close()

    def announce(self) -> None:
        """Record the current state of the results: something was added to them."""
        self._part.announce({path: path for path in self._target.results})

    def discard(self) -> None:
        """Stop and delete the part file: there is nothing to continue from."""
        self._part.remove()

    def _layers(self, result: _Map) -> tuple[Layer, Layer]:
        classes, placement = self._classes, self._placement
        return (
            landuse_layer(result.regions, result.values, classes=classes, placement=placement),
            cells_layer(
                self._part,
                classes=classes,
                placement=placement,
                probabilities=self._named if self._target.probabilities else (),
            ),
        )

    def _map(self) -> _Map:
        """The map of the cells in the part file. In memory: three numbers a cell."""
        shape = self._geo.grid.cells_shape
        class_grid = np.full(shape, _NOTHING, np.int32)
        confidence = np.zeros(shape, np.float32)
        areas = np.zeros(shape, np.float64)
        for chunk in self._part.read("row, col, class_id, confidence"):
            rows, cols, class_ids, confidences = (
                np.array(column) for column in zip(*chunk, strict=True)
            )
            class_grid[rows, cols] = class_ids
            confidence[rows, cols] = confidences
            areas[rows, cols] = self._placement.areas_m2(self._geo.polygons(rows, cols))
        present = np.unique(class_grid[class_grid != _NOTHING])
        if self._target.min_area > 0:
            class_grid = merge_small(
                class_grid, areas, min_area=self._target.min_area, nothing=_NOTHING
            )
        regions = dissolve(
            self._geo.grid,
            self._geo.transform,
            classes=class_grid,
            nothing=_NOTHING,
            keep_corners=self._placement.reprojects,
        )
        inside = regions.labels >= 0
        values = RegionValues.of_cells(
            regions.labels[inside], areas[inside], confidence[inside], count=len(regions)
        )
        if self._target.clip is not None:
            values = replace(values, area_m2=self._clipped_areas(regions))
        classes = tuple(self._classes[i] for i in present)
        pixels = ClassPixels.of_cells(class_grid, self._geo)
        return _Map(ShownClasses(class_grid, self._geo), pixels, regions, values, classes)

    def _snapped(self, pixels: Pixels, scratch: IO[bytes]) -> _Map:
        """The map of the pixels of the cells in the part file."""
        found = snap_cells(
            self._part,
            self._placement,
            pixels,
            classes=len(self._classes),
            min_area=self._target.min_area,
            scratch=scratch,
        )
        regions = found.regions
        inside = regions.labels >= 0
        cells = np.bincount(regions.labels[inside], minlength=len(regions))
        present = set(regions.class_ids.tolist())
        for chunk in self._part.read("class_id"):
            present.update(class_id for (class_id,) in chunk)
        values = RegionValues(found.confidence, self._clipped_areas(regions), cells)
        classes = tuple(self._classes[i] for i in sorted(present))
        raster = ClassPixels(found.shape, found.transform, found.classes)
        shown = ShownClasses.of_pixels(raster, self._geo.crs)
        return _Map(shown, raster, regions, values, classes)

    def _clipped_areas(self, regions: Regions) -> NDArray[np.float64]:
        """The area in m² of each region, or what a clip leaves of it, NaN for nothing."""
        areas = np.full(len(regions), np.nan)
        for start in range(0, len(regions), _CHUNK):
            polygons = self._placement.clip(regions.polygons(start, start + _CHUNK))
            left = np.flatnonzero(~shapely.is_missing(polygons))
            areas[start + left] = self._placement.areas_m2(polygons[left])
        return areas


def _summary(
    target: OutputTarget, result: _Map, classes: Sequence[SceneClass], warnings: tuple[str, ...]
) -> LandUseSummary:
    values, count = result.values, len(classes)
    there = ~np.isnan(values.area_m2)
    class_ids = result.regions.class_ids[there]
    cells = np.bincount(class_ids, weights=values.cells[there], minlength=count).astype(int)
    area = np.bincount(class_ids, weights=values.area_m2[there], minlength=count)
    regions_of_class = np.bincount(class_ids, minlength=count)
    totals = tuple(
        ClassTotal(
            c.id,
            c.name,
            c.title,
            c.group or None,
            c.color,
            int(cells[i]),
            int(regions_of_class[i]),
            float(area[i]),
        )
        for i, c in enumerate(classes)
    )
    return LandUseSummary(
        tuple(reversed(target.results)),
        int(cells.sum()),
        len(class_ids),
        totals,
        warnings,
        result.shown,
    )
