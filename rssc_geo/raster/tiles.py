"""One tile: pixels at the network's size, scaled and padded, with exact valid fractions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from rssc_geo.errors import InputError, one_line
from rssc_geo.geometry import Tile, TileGrid
from rssc_geo.raster.holes import HoleMap
from rssc_geo.raster.radiometry import Radiometry
from rssc_geo.raster.scene import Scene


@dataclass(frozen=True, slots=True)
class TileData:
    """A tile as the network sees it.

    Attributes
    ----------
    tile : where it lies
    pixels : uint8 (H, W, 3) of the reader's out_size, 0 where invalid; may be shared and read-only.
        In memory it lies band by band: numpy stacks such tiles without interleaving them, and a
        network's (N, 3, H, W) is a view of the stack
    mask : bool (H, W), True = valid; may be shared and read-only
    valid_fraction : of the tile's real pixels, padding not counted
    cell_fractions : float32 (cell rows, cell columns), valid fraction of the cells wholly contained
        in the tile, in the order of ``grid.cells_of_tile``; may be shared and read-only
    """

    tile: Tile
    pixels: np.ndarray
    mask: np.ndarray
    valid_fraction: float
    cell_fractions: np.ndarray


class TileMaker:
    """Makes tiles from one handle, for one thread."""

    def __init__(
        self,
        scene: Scene,
        handle: rasterio.DatasetReader,
        grid: TileGrid,
        radiometry: Radiometry,
        *,
        out_size: tuple[int, int],
    ) -> None:
        self._source = scene.source
        self._reader = scene.pixel_reader(handle)
        self._holes = HoleMap(scene, handle)
        self._grid, self._radiometry, self._out_size = grid, radiometry, out_size
        # What all wholly valid or invalid tiles have in common is made once.
        self._nothing = _read_only(np.zeros((3, *out_size), dtype=np.uint8).transpose(1, 2, 0))
        self._masks = {value: _read_only(np.full(out_size, value)) for value in (False, True)}
        self._fractions: dict[tuple[int, int, float], np.ndarray] = {}

    def tile(self, index: int) -> TileData:
        """The tile ``index`` of the grid.

        ``InputError`` naming file and window when it cannot be read.
        """
        tile = self._grid.tile(index)
        window = tile.window
        if self._holes.is_hole(window):
            return self._invalid(tile)
        content = self._content_shape((window.height, window.width))
        try:
            colors, valid = self._reader.read(window, content)
            if valid is None:
                pixels = self._padded(self._radiometry.apply(colors))
                return TileData(
                    tile, pixels, self._masks[True], 1.0, self._uniform_fractions(tile, 1.0)
                )
            if not valid.any():
                return self._invalid(tile)
            at_full = content == (window.height, window.width)
            full = valid if at_full else self._reader.valid_at_full_resolution(window)
        except RasterioError as error:
            raise InputError(
                f"{self._source} cannot be read at rows {window.row} to"
                f" {window.row + window.height - 1}, columns {window.col} to"
                f" {window.col + window.width - 1}: {one_line(error.__cause__ or error)}"
            ) from error
        pixels = self._padded(self._radiometry.apply(colors, valid))
        return TileData(
            tile, pixels, self._padded(valid), float(full.mean()), self._cell_fractions(tile, full)
        )

    def _invalid(self, tile: Tile) -> TileData:
        return TileData(
            tile, self._nothing, self._masks[False], 0.0, self._uniform_fractions(tile, 0.0)
        )

    def _content_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Output pixels that show the raster.

        All of them, but for an axis shorter than the tile.
        """
        rows, cols = (
            max(1, round(length / size * out))
            for length, size, out in zip(shape, self._grid.size, self._out_size, strict=True)
        )
        return rows, cols

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        """Extended to out_size by reflection at the last row and column."""
        missing = [out - length for out, length in zip(self._out_size, pixels.shape, strict=False)]
        if not any(missing):
            return pixels
        # numpy repeats the reflection as often as needed, and repeats the edge of an axis of a
        # single pixel.
        added = [(0, missing[0]), (0, missing[1])]
        if pixels.ndim == 2:
            return np.pad(pixels, added, mode="reflect")
        return np.pad(pixels.transpose(2, 0, 1), [(0, 0), *added], mode="reflect").transpose(
            1, 2, 0
        )

    def _uniform_fractions(self, tile: Tile, value: float) -> np.ndarray:
        rows, cols = self._grid.cells_of_tile(tile)
        key = (len(rows), len(cols), value)
        if key not in self._fractions:
            self._fractions[key] = _read_only(np.full(key[:2], value, dtype=np.float32))
        return self._fractions[key]

    def _cell_fractions(self, tile: Tile, valid: np.ndarray) -> np.ndarray:
        rows, cols = self._grid.cells_of_tile(tile)
        fractions = np.empty((len(rows), len(cols)), dtype=np.float32)
        for i, row in enumerate(rows):
            for j, col in enumerate(cols):
                cell = self._grid.cell(row, col).window
                top, left = cell.row - tile.window.row, cell.col - tile.window.col
                fractions[i, j] = valid[top : top + cell.height, left : left + cell.width].mean()
        return fractions


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array
