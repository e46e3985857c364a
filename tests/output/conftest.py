"""A small map to write, with classes whose names are as awkward as people make them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import CRS

from rssc_geo.geometry import TileGrid
from rssc_geo.models import SceneClass
from rssc_geo.output import (
    NAME_ALL,
    CellBatch,
    GeoGrid,
    LandUseSummary,
    LandUseWriter,
    OutputTarget,
    UnknownRule,
)

NORTH_UP = Affine(10, 0, 500000, 0, -10, 5200000)
NAMES = (
    "Dense residential",
    "Water, \"deep\" & 'blue'",
    "<html><b>x</b>",
    "Robert'); DROP TABLE scenes;--",
    "🌲 forest",
    "農地",
    "p",
    "P",
    "two\nlines\x07",
)
# By the name's first sign: one group that the legend lacks, and classes without any.
GROUPS = {"D": "Residential", "W": "Water", "<": 'Odd & <"group">', "🌲": "Forest", "t": "Water"}


@dataclass(frozen=True)
class Case:
    """A raster's grid and the probabilities and captions of its valid cells, in row-major order."""

    grid: TileGrid
    transform: Affine
    crs: CRS
    classes: tuple[SceneClass, ...]
    rows: np.ndarray
    cols: np.ndarray
    probabilities: np.ndarray
    captions: list[str]
    familiarity: np.ndarray
    unknown: UnknownRule = NAME_ALL
    color: tuple[float, float, float] = (0, 0, 0)

    def writer(
        self, path: Path, run_key: dict[str, object] | None = None, **options: object
    ) -> LandUseWriter:
        return LandUseWriter(
            OutputTarget(path, **options),  # type: ignore[arg-type]
            GeoGrid(self.grid, self.transform, self.crs),
            classes=self.classes,
            run_key=run_key or {"input": "abc"},
            provenance={"input": "scene <1>.tif", "options": {"cell_size": [8, 8]}},
            unknown=self.unknown,
        )

    def batch(self, start: int, stop: int) -> CellBatch:
        part = slice(start, stop)
        return CellBatch(
            self.rows[part],
            self.cols[part],
            self.probabilities[part],
            self.familiarity[part],
            self.captions[part],
            np.full((len(self.rows[part]), 3), self.color, np.float32),
        )

    def take(self, places: np.ndarray) -> Case:
        """The case of some cells alone, in this order."""
        return dataclasses.replace(
            self,
            rows=self.rows[places],
            cols=self.cols[places],
            probabilities=self.probabilities[places],
            captions=[self.captions[place] for place in places],
            familiarity=self.familiarity[places],
        )

    def fill(self, writer: LandUseWriter, order: np.ndarray, size: int) -> None:
        """Append cells in this order, ``size`` a batch."""
        for start in range(0, len(order), size):
            part = self.take(order[start : start + size])
            writer.append(part.batch(0, len(part.rows)), writer.watermark + 1)

    def write(self, path: Path, **options: object) -> LandUseSummary:
        with self.writer(path, **options) as writer:
            for start in range(0, len(self.rows), 7):
                writer.append(self.batch(start, start + 7), start + 7)
            summary = writer.make({"captions": len(self.rows)})
            writer.discard()
            return summary

    @property
    def class_grid(self) -> np.ndarray:
        grid = np.full(self.grid.cells_shape, -1)
        grid[self.rows, self.cols] = self.probabilities.argmax(axis=1)
        return grid

    def cell_box(self, row: int, col: int) -> shapely.Polygon:
        w = self.grid.cell(row, col).window
        corners = ((0, 0), (0, w.height), (w.width, w.height), (w.width, 0))
        return shapely.Polygon([self.transform @ (w.col + dx, w.row + dy) for dx, dy in corners])


@pytest.fixture
def make_case() -> Callable[..., Case]:
    def make(
        crs: object = "EPSG:32632",
        transform: Affine = NORTH_UP,
        cells: tuple[int, int] = (9, 7),
        names: tuple[str, ...] = NAMES,
        void: float = 0.1,
    ) -> Case:
        rng = np.random.default_rng(5)
        grid = TileGrid((cells[0] * 8 - 3, cells[1] * 8 - 2), (8, 8))
        kept = rng.random(cells) >= void
        rows, cols = (axis.astype(np.int32) for axis in np.nonzero(kept))
        # Patches of one class: neighbors share their draw.
        draws = rng.dirichlet(
            np.full(len(names), 0.3), (cells[0] // 2 + 1, cells[1] // 2 + 1)
        ).astype(np.float32)
        captions = [
            f'cell {row} {col}: "quoted" <i>é</i> \'; 🌲 ' + "long " * 80
            for row, col in zip(rows, cols, strict=True)
        ]
        classes = tuple(
            SceneClass(
                i,
                name,
                f"#{40 * i % 256:02x}{90 * i % 256:02x}80",
                title=f"Title of {name}",
                group=GROUPS.get(name[0], ""),
            )
            for i, name in enumerate(names)
        )
        return Case(
            grid,
            transform,
            CRS.from_user_input(crs),
            classes,
            rows,
            cols,
            draws[rows // 2, cols // 2],
            captions,
            np.full(len(rows), np.nan, np.float32),
        )

    return make


@pytest.fixture
def case(make_case: Callable[..., Case]) -> Case:
    return make_case()
