"""Where a sparse GeoTIFF stores nothing: windows that are invalid without reading them."""

from __future__ import annotations

import rasterio

from rssc_geo.geometry import Window
from rssc_geo.raster.scene import Scene

_UNKNOWN, _HOLE, _STORED = range(3)


class HoleMap:
    """Tells windows that lie wholly in blocks the file does not store, and that are invalid
    therefore.

    A sparse raster of 100,000 × 100,000 pixels has some 150,000 tiles of 256 pixels; asking the
    file's own index costs microseconds where reading a window costs half a millisecond.
    """

    def __init__(self, scene: Scene, handle: rasterio.DatasetReader) -> None:
        self._handle = handle
        self._bands = scene.hole_bands
        self._block_rows, self._block_cols = scene.block_shape
        self._blocks_across = -(-scene.width // self._block_cols)
        # One byte a block: not asked yet, a hole, stored.
        self._known = bytearray(
            -(-scene.height // self._block_rows) * self._blocks_across if self._bands else 0
        )

    def is_hole(self, window: Window) -> bool:
        """Whether every pixel of the window is invalid because no block of it is stored.

        False when unknown.
        """
        if not self._bands:
            return False
        rows = range(
            window.row // self._block_rows, (window.row + window.height - 1) // self._block_rows + 1
        )
        cols = range(
            window.col // self._block_cols, (window.col + window.width - 1) // self._block_cols + 1
        )
        return all(self._block_is_hole(row, col) for row in rows for col in cols)

    def _block_is_hole(self, row: int, col: int) -> bool:
        place = row * self._blocks_across + col
        if self._known[place] == _UNKNOWN:
            name = f"BLOCK_OFFSET_{col}_{row}"
            stored = any(
                self._handle.get_tag_item(name, "TIFF", bidx=band) is not None
                for band in self._bands
            )
            self._known[place] = _STORED if stored else _HOLE
        return self._known[place] == _HOLE
