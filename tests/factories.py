"""Helpers of tests: rasters of noise, and their expected pixels. No test itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import rasterio
from affine import Affine
from pyproj import CRS

from rssc_geo.geometry import TileGrid, Window
from rssc_geo.models import UNKNOWN_CLASS, scene_classes, unknown_class
from rssc_geo.output import CellBatch, GeoGrid, LandUseWriter, OutputTarget
from rssc_geo.raster import Scene

NORTH_UP = Affine(2.0, 0, 500_000, 0, -2.0, 5_000_000)
CELLS = Affine(100.0, 0, 500_000, 0, -100.0, 5_000_000)


def write_raster(path: Path, pixels: np.ndarray, **profile: object) -> Path:
    """A GeoTIFF of ``pixels`` (bands, rows, cols); UTM 32N at 2 m unless said otherwise."""
    count, height, width = pixels.shape
    settings = {"crs": "EPSG:32632", "transform": NORTH_UP, **profile}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=pixels.dtype,
        **settings,
    ) as dataset:
        dataset.write(pixels)
    return path


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colored noise, uint8 (3, height, width), never 0."""
    random = np.random.default_rng(seed)
    coarse = random.integers(20, 235, (3, -(-height // 16), -(-width // 16)))
    fine = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width] + random.integers(
        -15, 15, (3, height, width)
    )
    return fine.clip(1, 255).astype(np.uint8)


def colors(scene: Scene) -> np.ndarray:
    """The bands taken as red, green, blue (bands, rows, cols), as they are stored."""
    with scene.open() as handle:
        return handle.read(scene.opening.indexes)


def mask(scene: Scene) -> np.ndarray:
    """Bool (rows, cols), the valid pixels at full resolution."""
    with scene.pixel_reader() as reader:
        return reader.valid_at_full_resolution(Window(0, 0, *scene.shape))


def write_map(
    path: Path,
    class_grid: np.ndarray,
    names: Sequence[str],
    *,
    crs: str = "EPSG:32632",
    transform: Affine = CELLS,
    target_crs: CRS | None = None,
    min_area: float = 0.0,
) -> Path:
    """A finished map of one cell a pixel.

    ``class_grid``: integers (rows, columns) into ``names``, below 0 for no cell.
    """
    rows, cols = (axis.astype(np.int32) for axis in np.nonzero(class_grid >= 0))
    chosen = class_grid[rows, cols]
    following = (chosen + 1) % len(names)
    probabilities = np.zeros((len(rows), len(names)), np.float32)
    probabilities[np.arange(len(rows)), following] = 0.25
    probabilities[np.arange(len(rows)), chosen] = 0.75
    geo = GeoGrid(TileGrid(class_grid.shape, (1, 1)), transform, CRS.from_user_input(crs))
    with LandUseWriter(
        OutputTarget(path, crs=target_crs, min_area=min_area),
        geo,
        classes=[
            unknown_class(each.id) if each.name == UNKNOWN_CLASS else each
            for each in scene_classes(names)
        ],
        run_key={"input": "made"},
        provenance={"input": "made"},
    ) as writer:
        unfamiliar = np.full(len(rows), np.nan, np.float32)
        captions = [""] * len(rows)
        colors = np.zeros((len(rows), 3), np.float32)
        writer.append(CellBatch(rows, cols, probabilities, unfamiliar, captions, colors), 1)
        writer.make()
        writer.discard()
    return path


def read_cells(path: Path) -> gpd.GeoDataFrame:
    """The cells of a map by row and column."""
    return gpd.read_file(path, layer="cells").set_index(["row", "col"]).sort_index()


def with_changed_bits(path: Path, columns: Collection[str]) -> Iterator[str]:
    """Change a bit at the end of the pages of one column after the other; its name each time."""
    content = path.read_bytes()
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        found = [group.column(number) for number in range(group.num_columns)]
    for column in found:
        name = column.path_in_schema.split(".")[0]
        if name not in columns:
            continue
        starts = [column.data_page_offset, column.dictionary_page_offset or column.data_page_offset]
        bad = bytearray(content)
        bad[min(starts) + column.total_compressed_size - 1] ^= 1
        path.write_bytes(bad)
        yield name
