"""The writer of a run's result: cells in, a land-use map out, resumable and all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from affine import Affine
from pyproj import CRS

from rssc_geo.errors import UsageError
from rssc_geo.geometry import Regions, TileGrid, cell_polygons, dissolve, merge_small
from rssc_geo.output.class_raster import write_class_raster
from rssc_geo.output.formats import WGS84, format_of
from rssc_geo.output.geopackage import furnish
from rssc_geo.output.layers import Layer, RegionValues, cells_layer, landuse_layer
from rssc_geo.output.partfile import PartFile, Row
from rssc_geo.output.placement import Placement
from rssc_geo.output.provenance import document
from rssc_geo.output.target import OutputOptions, Workshop, check_output

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

__all__ = [
    "NOTHING",
    "CellBatch",
    "ClassTotal",
    "LandUseSummary",
    "LandUseWriter",
    "OutputOptions",
    "check_output",
]

NOTHING = -1  # in class grids: a cell without a class
_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class CellBatch:
    """Classified cells.

    ``rows`` and ``cols`` int32 (n,), ``probabilities`` float32 (n, classes), n captions.
    """

    rows: np.ndarray
    cols: np.ndarray
    probabilities: np.ndarray
    captions: list[str]

    def __post_init__(self) -> None:
        counts = {len(self.rows), len(self.cols), len(self.probabilities), len(self.captions)}
        if len(counts) != 1 or self.probabilities.ndim != 2:
            raise ValueError(
                f"not a batch of cells: {len(self.rows)} rows, {len(self.cols)} cols, "
                f"probabilities {self.probabilities.shape}, {len(self.captions)} captions"
            )


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """What the landuse layer holds of one class."""

    id: int
    name: str
    cells: int
    regions: int
    area_m2: float


@dataclass(frozen=True, slots=True)
class LandUseSummary:
    """What was written: ``paths`` with the main file first, totals of every class of the model in
    its order.

    ``class_grid`` is int32 (cell rows, cell columns), the landuse layer's classes, -1 where there
    is none.
    """

    paths: tuple[Path, ...]
    cells: int
    regions: int
    classes: tuple[ClassTotal, ...]
    class_grid: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class _Map:
    """The landuse map before it is written.

    ``classes`` are those of its cells, before any merging.
    """

    class_grid: np.ndarray
    regions: Regions
    values: RegionValues
    classes: tuple[SceneClass, ...]


class LandUseWriter:
    """Collects classified cells in a part file beside the target and makes the map of them.

    Parameters
    ----------
    grid, transform, crs : of the raster
    classes : of the model, in the order of its outputs
    run_key : everything that defines the cells (input, model, options), as JSON values; a part file
        of a run with the same key is resumed
    provenance : what the result says of its making, as JSON values

    Raises what ``check_output`` does, and ``OutputError`` when another process writes the same
    target.
    """

    def __init__(
        self,
        options: OutputOptions,
        *,
        grid: TileGrid,
        transform: Affine,
        crs: CRS,
        classes: Sequence[SceneClass],
        run_key: Mapping[str, object],
        provenance: Mapping[str, object],
    ) -> None:
        if [scene_class.id for scene_class in classes] != list(range(len(classes))):
            raise ValueError(
                f"class ids {[scene_class.id for scene_class in classes]} do not count from 0"
            )
        names = [scene_class.name for scene_class in classes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"two classes are named {twice[0]!r}: give each its own name")
        check_output(options, class_count=len(classes))
        self._options, self._grid, self._transform, self._crs = options, grid, transform, crs
        self._classes, self._provenance = tuple(classes), provenance
        self._format = format_of(options.path)
        self._placement = Placement(
            crs,
            options.crs or (WGS84 if self._format.wgs84 else crs),
            grid=grid,
            transform=transform,
            clip=options.aoi_clip,
            wrap=self._format.wgs84,
        )
        key = {
            "run": run_key,
            "grid": [grid.shape, grid.size, grid.cell_size],
            "classes": names,
            "probabilities": options.probabilities,
        }
        self._part = PartFile(options.part_path, key)

    @property
    def watermark(self) -> int:
        """What the last ``append`` gave, also in an earlier, interrupted run; 0 for a fresh one."""
        return self._part.watermark

    def __len__(self) -> int:
        """Number of cells so far, those of an interrupted run included."""
        return len(self._part)

    def append(self, batch: CellBatch, watermark: int) -> None:
        """Keep a batch of cells, each given once in a run, and the watermark, in one transaction."""
        self._part.append(_rows(batch, probabilities=self._options.probabilities), watermark)

    def finish(self, extra_provenance: Mapping[str, object] | None = None) -> LandUseSummary:
        """Make the result of the cells appended, put it in place and remove the part file.

        Raises ``OutputError`` when it cannot be written; the part file is then kept.
        """
        options, classes = self._options, self._classes
        made_of = document(self._provenance, extra_provenance or {})
        result = self._map()
        layers = self._layers(result)
        with Workshop(options) as workshop:
            for layer in layers:
                path = self._format.layer_path(options.path, layer.name)
                self._format.write(layer, workshop.temporary(path), made_of)
            if self._format.multilayer:
                furnish(
                    workshop.temporary(options.path),
                    layers,
                    classes=result.classes,
                    provenance=made_of,
                )
            if options.class_raster is not None:
                write_class_raster(
                    workshop.temporary(options.class_raster),
                    result.class_grid,
                    grid=self._grid,
                    transform=self._transform,
                    crs=self._crs,
                    classes=classes,
                )
            workshop.publish()
        self._part.remove()
        return _summary(options, result, classes)

    def close(self) -> None:
        """Stop, keeping the part file so that the next identical run goes on from it."""
        self._part.close()

    def discard(self) -> None:
        """Stop and delete the part file: there is nothing to go on from."""
        self._part.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _layers(self, result: _Map) -> tuple[Layer, Layer]:
        return (
            landuse_layer(
                result.regions, result.values, classes=self._classes, placement=self._placement
            ),
            cells_layer(
                self._part,
                self._grid,
                transform=self._transform,
                classes=self._classes,
                placement=self._placement,
                probabilities=self._options.probabilities,
            ),
        )

    def _map(self) -> _Map:
        """The map of the cells in the part file. Held whole: three numbers a cell."""
        class_grid = np.full(self._grid.cells_shape, NOTHING, np.int32)
        confidence = np.zeros(self._grid.cells_shape, np.float32)
        areas = np.zeros(self._grid.cells_shape, np.float64)
        for chunk in self._part.read("row, col, class_id, confidence"):
            rows, cols, class_ids, confidences = (
                np.array(column) for column in zip(*chunk, strict=True)
            )
            class_grid[rows, cols] = class_ids
            confidence[rows, cols] = confidences
            areas[rows, cols] = self._placement.areas_m2(
                cell_polygons(self._grid, self._transform, rows, cols)
            )
        present = tuple(self._classes[index] for index in np.unique(class_grid) if index != NOTHING)
        if self._options.min_area_m2 > 0:
            class_grid = merge_small(
                class_grid, areas, min_area=self._options.min_area_m2, nothing=NOTHING
            )
        regions = dissolve(
            self._grid,
            self._transform,
            classes=class_grid,
            nothing=NOTHING,
            keep_corners=self._placement.reprojects,
        )
        inside = regions.labels >= 0
        labels, count = regions.labels[inside], len(regions)
        area: np.ndarray = np.bincount(labels, weights=areas[inside], minlength=count)
        weighted = np.bincount(labels, weights=areas[inside] * confidence[inside], minlength=count)
        cells = np.bincount(labels, minlength=count)
        confidence_of_region = weighted / area
        if self._options.aoi_clip is not None:
            clipped_area = np.zeros(count)
            for start in range(0, count, _CHUNK):
                polygons = self._placement.clip(regions.polygons(start, start + _CHUNK))
                clipped_area[start : start + _CHUNK] = self._placement.areas_m2(polygons)
            area = clipped_area
        return _Map(class_grid, regions, RegionValues(confidence_of_region, area, cells), present)


def _rows(batch: CellBatch, *, probabilities: bool) -> list[Row]:
    """The batch as rows of the part file. Of equal probabilities the lower class comes first."""
    table = np.ascontiguousarray(batch.probabilities, np.float32)
    order = np.argsort(-table, axis=1, kind="stable")[:, :2]
    top = np.take_along_axis(table, order, axis=1).astype(np.float64)
    alone = table.shape[1] == 1
    runner_up: list[int | None] = [None] * len(table) if alone else order[:, 1].tolist()
    margin = top[:, 0] if alone else top[:, 0] - top[:, 1]
    blobs = [row.tobytes() for row in table] if probabilities else [None] * len(table)
    return list(
        zip(
            np.asarray(batch.rows).tolist(),
            np.asarray(batch.cols).tolist(),
            order[:, 0].tolist(),
            top[:, 0].tolist(),
            runner_up,
            margin.tolist(),
            batch.captions,
            blobs,
            strict=True,
        )
    )


def _summary(options: OutputOptions, result: _Map, classes: Sequence[SceneClass]) -> LandUseSummary:
    regions, values, count = result.regions, result.values, len(classes)
    cells = np.bincount(regions.class_ids, weights=values.cells, minlength=count).astype(int)
    area = np.bincount(regions.class_ids, weights=values.area_m2, minlength=count)
    regions_of_class = np.bincount(regions.class_ids, minlength=count)
    totals = tuple(
        ClassTotal(
            scene_class.id,
            scene_class.name,
            int(cells[i]),
            int(regions_of_class[i]),
            float(area[i]),
        )
        for i, scene_class in enumerate(classes)
    )
    return LandUseSummary(
        tuple(reversed(options.results)), int(cells.sum()), len(regions), totals, result.class_grid
    )
