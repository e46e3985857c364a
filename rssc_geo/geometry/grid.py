"""Cells, tiles, their relations and their sizes: pure arithmetic, no I/O.

*Cells* are the rectangles that tessellate a raster exactly once from its origin, the last row and
column clipped to its edge. *Tiles* are the windows that the network classifies. Along each axis
tile ``k`` starts at ``min(k · cell_size, length − size)``, duplicates removed; an axis shorter than
the tile has one tile, clipped to the axis (the reader pads it). Every cell is wholly contained in
at least one tile.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import UsageError, shortened

_FRACTIONS = (1, 2, 3, 6, 12)
"""Cells along a side of a tile that a model reads which shares features between windows."""

DEFAULT_FRACTION = 6
"""The finest of them that is not asked for by a cell's size."""

LEAST_SHOWN = 60
"""Least pixels of the raster a side that a tile has by default: fewer show no scene."""

LEAST_SHOWN_FINE = 36
"""The same where windows share features.

Chosen on real scenes of 5 and 10 m (docs/benchmarks.md, *Real scenes*).
"""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)(?:\s*[x×]\s*(\d+(?:\.\d+)?))?\s*(px|m|km)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open pixel window: rows ``[row, row + height)``, columns ``[col, col + width)``."""

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.row < 0 or self.col < 0 or self.height < 1 or self.width < 1:
            raise ValueError(f"not a pixel window: {self}")

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as array slices (rows, columns)."""
        return slice(self.row, self.row + self.height), slice(self.col, self.col + self.width)


@dataclass(frozen=True, slots=True)
class Tile:
    """A window to be classified; ``row`` and ``col`` count tiles, ``index`` is row-major."""

    index: int
    row: int
    col: int
    window: Window


@dataclass(frozen=True, slots=True)
class Cell:
    """A rectangle that is written; ``row`` and ``col`` count cells."""

    row: int
    col: int
    window: Window


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of the grid: tiles and cells along a line of ``length`` pixels."""

    length: int
    size: int
    cell_size: int

    @property
    def tile_length(self) -> int:
        return min(self.size, self.length)

    @property
    def tile_count(self) -> int:
        return 1 + -(-max(0, self.length - self.size) // self.cell_size)

    @property
    def cell_count(self) -> int:
        return -(-self.length // self.cell_size)

    def tile_start(self, index: int) -> int:
        return min(index * self.cell_size, self.length - self.tile_length)

    def cell_start(self, index: int) -> int:
        return index * self.cell_size

    def cell_length(self, index: int) -> int:
        return min(self.cell_size, self.length - index * self.cell_size)

    def tiles_of_cell(self, cell: int) -> range:
        """Tiles that wholly contain the cell: from the first whose end reaches the cell's end."""
        start = self.cell_start(cell)
        end = start + self.cell_length(cell)
        last_tile = self.tile_count - 1
        # Tile k < last ends at k · cell_size + size; the last one ends at length and always reaches
        # the cell's end.
        first = min(max(0, -(-(end - self.size) // self.cell_size)), last_tile)
        # Tiles up to the cell's start; the shifted last tile may start after the cell or before
        # k · cell_size.
        last = min(cell, last_tile)
        if last == last_tile and self.tile_start(last) > start:
            last -= 1
        return range(first, last + 1)

    def nearest_tile(self, cell: int) -> int:
        """The containing tile whose center is nearest to the cell's."""
        # Doubled coordinates keep it exact.
        center = 2 * self.cell_start(cell) + self.cell_length(cell)
        return min(
            self.tiles_of_cell(cell),
            key=lambda k: abs(2 * self.tile_start(k) + self.tile_length - center),
        )

    def cells_of_tile(self, tile: int) -> range:
        """Cells wholly contained in the tile."""
        start = self.tile_start(tile)
        end = start + self.tile_length
        first = -(-start // self.cell_size)
        last = self.cell_count if end >= self.length else end // self.cell_size
        return range(first, last)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles and cells of a raster.

    Parameters
    ----------
    shape : (rows, cols) of the raster, in pixels
    size : (rows, cols) of a tile, in pixels
    cell_size : (rows, cols) of a cell, in pixels; at most ``size`` on each axis. Default: ``size``.

    Raises ``ValueError`` naming the values when one is below 1 or the cell is larger than the tile.
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    cell_size: tuple[int, int] = (0, 0)
    _axes: tuple[_Axis, _Axis] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.cell_size == (0, 0):
            object.__setattr__(self, "cell_size", self.size)
        for name in ("shape", "size", "cell_size"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name} {getattr(self, name)} has a side under 1 pixel")
        if any(cell > tile for cell, tile in zip(self.cell_size, self.size, strict=True)):
            raise ValueError(
                f"a cell of {self.cell_size} is larger than the tile of {self.size}: parts would be"
                " skipped"
            )
        rows, cols = (
            _Axis(*values) for values in zip(self.shape, self.size, self.cell_size, strict=True)
        )
        object.__setattr__(self, "_axes", (rows, cols))

    @property
    def tiles_shape(self) -> tuple[int, int]:
        """Number of tiles (rows, cols)."""
        return self._axes[0].tile_count, self._axes[1].tile_count

    @property
    def cells_shape(self) -> tuple[int, int]:
        """Number of cells (rows, cols)."""
        return self._axes[0].cell_count, self._axes[1].cell_count

    def tile(self, index: int) -> Tile:
        """Tile ``index`` in row-major order; ``IndexError`` when there is none."""
        count = self.tiles_shape[0] * self.tiles_shape[1]
        if not 0 <= index < count:
            raise IndexError(f"tile {index} of {count}")
        row, col = divmod(index, self.tiles_shape[1])
        rows, cols = self._axes
        window = Window(
            rows.tile_start(row), cols.tile_start(col), rows.tile_length, cols.tile_length
        )
        return Tile(index, row, col, window)

    def tiles(self) -> Iterator[Tile]:
        """All tiles, row-major."""
        return (self.tile(index) for index in range(self.tiles_shape[0] * self.tiles_shape[1]))

    def cell(self, row: int, col: int) -> Cell:
        """The cell in the given row and column; ``IndexError`` when there is none."""
        if not (0 <= row < self.cells_shape[0] and 0 <= col < self.cells_shape[1]):
            raise IndexError(f"cell ({row}, {col}) of {self.cells_shape}")
        rows, cols = self._axes
        window = Window(
            rows.cell_start(row), cols.cell_start(col), rows.cell_length(row), cols.cell_length(col)
        )
        return Cell(row, col, window)

    def cells(self) -> Iterator[Cell]:
        """All cells, row-major."""
        return (
            self.cell(row, col)
            for row in range(self.cells_shape[0])
            for col in range(self.cells_shape[1])
        )

    def nearest_tiles(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each cell row (column) the row (column) of the nearest tile that contains it.

        Nearest by the distance of the centers; the lower index wins a tie. Two int64 arrays,
        ``(cell rows,)`` and ``(cell columns,)``: the axes are independent, since the tiles that
        contain a cell form a rectangle.
        """
        rows, cols = (
            np.array([axis.nearest_tile(k) for k in range(axis.cell_count)], np.int64)
            for axis in self._axes
        )
        return rows, cols

    def tile_spans(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each cell row (column) the first and last row (column) of the tiles that contain it.

        Two int64 arrays, ``(cell rows, 2)`` and ``(cell columns, 2)``.
        """
        spans = ([axis.tiles_of_cell(k) for k in range(axis.cell_count)] for axis in self._axes)
        rows, cols = (np.array([(span[0], span[-1]) for span in axis], np.int64) for axis in spans)
        return rows, cols

    def tiles_of_cell(self, row: int, col: int) -> tuple[range, range]:
        """Rows and columns of the tiles that wholly contain a cell; never empty."""
        return self._axes[0].tiles_of_cell(row), self._axes[1].tiles_of_cell(col)

    def cells_of_tile(self, tile: Tile) -> tuple[range, range]:
        """Rows and columns of the cells wholly contained in a tile; never empty."""
        return self._axes[0].cells_of_tile(tile.row), self._axes[1].cells_of_tile(tile.col)

    def row_edges(self) -> NDArray[np.int64]:
        """Pixel rows of the cell borders, int64 ``(cell rows + 1,)``."""
        return _edges(self._axes[0])

    def col_edges(self) -> NDArray[np.int64]:
        """Pixel columns of the cell borders, int64 ``(cell columns + 1,)``."""
        return _edges(self._axes[1])


def _edges(axis: _Axis) -> NDArray[np.int64]:
    return np.minimum(np.arange(axis.cell_count + 1, dtype=np.int64) * axis.cell_size, axis.length)


@dataclass(frozen=True, slots=True)
class TileChoice:
    """The sizes of a tile and of a cell, and the reason.

    Attributes
    ----------
    size : (rows, columns) of a tile in pixels
    cell_size : (rows, columns) of a cell in pixels
    footprint_m : meters on the ground that they cover
    reason : in words
    warnings : what the user should know
    """

    size: tuple[int, int]
    cell_size: tuple[int, int]
    footprint_m: tuple[float, float]
    reason: str
    warnings: tuple[str, ...] = ()

    @property
    def fraction(self) -> int:
        """Cells along a side of a tile, as far as they divide it."""
        return self.size[0] // self.cell_size[0]


def choose_sizes(
    shape: tuple[int, int],
    gsd_m: tuple[float, float],
    *,
    footprint_m: tuple[float, float, float],
    tokens: int,
    requested: tuple[str | None, str | None] = (None, None),
    least_shown: int = LEAST_SHOWN_FINE,
) -> TileChoice:
    """Choose the sizes of a tile and of a cell for a model whose windows share features.

    A tile is 1, 2, 3, 6 or 12 cells a side, as its tokens allow. A cell size that is asked for is
    kept to the pixel, and the tile adapts; where both are asked for and do not fit, the tile size
    is changed. By default the tile is chosen as by :func:`choose_tile_size`, with at least
    ``least_shown`` pixels of the raster, in six cells or as many as it can have.

    Parameters
    ----------
    shape, gsd_m, footprint_m : as for :func:`choose_tile_size`
    tokens : the finest ones, a side of a tile; cells are whole tokens
    requested : sizes of tile and cell that are asked for, as ``choose_tile_size`` takes them
    least_shown : pixels of the raster a side that a tile has at least by default

    Raises ``UsageError`` for an invalid size, or a cell larger than the tile.
    """
    least, preferred, most = footprint_m
    tile, cell = requested
    fractions = [count for count in _FRACTIONS if tokens % count == 0]
    notes: list[str] = []
    if cell is not None:
        size = _parse_size(cell, gsd_m, option="--cell-size")
        asked = None if tile is None else _parse_size(tile, gsd_m, option="--tile-size")
        if asked is not None and (size[0] > asked[0] or size[1] > asked[1]):
            parse_cell_size(cell, asked, gsd_m)  # raises
        wanted = max(preferred, least_shown * max(gsd_m)) if asked is None else asked[0] * gsd_m[0]
        side = size[0] * gsd_m[0]
        allowed = [n for n in fractions if side * n <= most * 1.01] or [1]
        enough = [n for n in allowed if side * n >= least * 0.99] or allowed[-1:]
        fraction = min(enough if asked is None else fractions,
                       key=lambda n: abs(math.log(side * n / wanted)))  # fmt: skip
        reason = f"{fraction} cells of {cell} (--cell-size)"
        if asked is not None and asked != (size[0] * fraction, size[1] * fraction):
            reason += f", the nearest to --tile-size {tile}"
    else:
        fraction = max(count for count in fractions if count <= DEFAULT_FRACTION)
        if tile is not None:
            sides = _parse_size(tile, gsd_m, option="--tile-size")
            reason = f"as asked for (--tile-size {tile}), in whole cells"
        else:
            side, reason, notes = _default_side(shape, gsd_m, footprint_m, least_shown)
            sides = _to_pixels((side, side), gsd_m)
        size = max(1, round(sides[0] / fraction)), max(1, round(sides[1] / fraction))
    whole = size[0] * fraction, size[1] * fraction
    covered = whole[0] * gsd_m[0], whole[1] * gsd_m[1]
    notes = [*(notes or _range_warnings(covered, least, most)), *_padding_warnings(whole, shape)]
    return TileChoice(whole, size, covered, reason, tuple(notes))


def choose_tile_size(
    shape: tuple[int, int],
    gsd_m: tuple[float, float],
    *,
    footprint_m: tuple[float, float, float],
    requested: str | None = None,
) -> TileChoice:
    """Choose the size of a tile.

    By default the tile covers the ground that the model prefers, but at least 60 pixels of the
    raster; less where the raster is narrower than that, down to the least footprint that the model
    was trained on. A raster smaller than that is one tile of its longer side, with a warning.

    Parameters
    ----------
    shape, gsd_m : (rows, columns) of the raster in pixels, and meters a pixel along each
    footprint_m : smallest, preferred and largest side of a tile on the ground that suits the model,
        meters
    requested : ``"256px"``, ``"256x128px"`` (rows × columns), ``"400m"``, ``"0.5km"``

    Raises ``UsageError`` for an invalid size.
    """
    least, _, most = footprint_m
    notes: list[str] = []
    if requested is not None:
        size = _parse_size(requested, gsd_m, option="--tile-size")
        reason = f"as asked for (--tile-size {requested})"
    else:
        side, reason, notes = _default_side(shape, gsd_m, footprint_m, LEAST_SHOWN)
        size = _to_pixels((side, side), gsd_m)
    ground_m = size[0] * gsd_m[0], size[1] * gsd_m[1]
    own = notes or _range_warnings(ground_m, least, most)
    return TileChoice(size, size, ground_m, reason, (*own, *_padding_warnings(size, shape)))


def parse_cell_size(
    text: str, size: tuple[int, int], gsd_m: tuple[float, float]
) -> tuple[int, int]:
    """(rows, columns) of a cell in pixels, from the text of ``--cell-size``.

    Parameters
    ----------
    text : in the units of ``choose_tile_size``'s ``requested``
    size, gsd_m : (rows, columns) of a tile in pixels, and meters a pixel along each

    Raises ``UsageError`` for an invalid size, or a cell larger than the tile.
    """
    cell_size = _parse_size(text, gsd_m, option="--cell-size")
    if cell_size[0] > size[0] or cell_size[1] > size[1]:
        raise UsageError(
            f"--cell-size {text} is {_pixels(cell_size)}, larger than the tile of {_pixels(size)}:"
            " parts would be skipped; make --cell-size at most the tile's side"
        )
    return cell_size


def _default_side(
    shape: tuple[int, int],
    gsd_m: tuple[float, float],
    footprint_m: tuple[float, float, float],
    least_shown: int,
) -> tuple[float, str, list[str]]:
    """The side of a tile in meters, the reason, and a warning for a raster that is too small.

    A tile stays within the model's footprints as long as the raster is that large.
    """
    least, preferred, most = footprint_m
    notes: list[str] = []
    extent = tuple(length * gsd for length, gsd in zip(shape, gsd_m, strict=True))
    if max(extent) < least:
        side = max(extent)
        notes.append(
            f"the raster covers {_meters(extent[0])} × {_meters(extent[1])}, less than the"
            f" {_range(least, most)} a tile that the model learned: expect less certain classes"
        )
        return side, f"{_meters(side)}, the raster's longer side", notes
    shown = least_shown * max(gsd_m)
    wanted = max(preferred, shown)
    side = min(wanted, max(min(extent), least))
    if side < wanted:
        return side, f"{_meters(side)}, to suit the size of the raster", notes
    if side == preferred:
        return side, f"{_meters(side)}, the side that the model prefers", notes
    return side, f"{_meters(side)}, {least_shown} px of this raster", notes


def _to_pixels(side_m: tuple[float, float], gsd_m: tuple[float, float]) -> tuple[int, int]:
    rows, cols = (max(1, round(side / gsd)) for side, gsd in zip(side_m, gsd_m, strict=True))
    return rows, cols


def check_size(text: str, *, option: str) -> None:
    """Refuse with ``UsageError`` a text that is a size on no raster."""
    _read_size(text, option=option)


def _read_size(text: str, *, option: str) -> tuple[float, float, str]:
    """Two sides of a text and their unit, "px" or "m"."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or math.isinf(1000 * max(float(side or 0) for side in match.group(1, 2))):
        raise UsageError(
            f"{option} {shortened(repr(text))} is no size: give pixels (256px, 256x128px as rows x"
            " columns) or ground units (400m, 0.5km)"
        )
    rows, cols = float(match[1]), float(match[2] or match[1])
    if match[3] is None:
        raise UsageError(f"{option} {text}: pixels or meters? Give {text}px or {text}m")
    unit = match[3].lower()
    if unit == "px":
        if min(rows, cols) < 1 or any(side != int(side) for side in (rows, cols)):
            raise UsageError(f"{option} {text}: pixels are whole numbers from 1 up")
        return rows, cols, unit
    factor = 1000 if unit == "km" else 1
    return rows * factor, cols * factor, "m"


def _parse_size(text: str, gsd_m: tuple[float, float], *, option: str) -> tuple[int, int]:
    rows, cols, unit = _read_size(text, option=option)
    if unit == "px":
        return int(rows), int(cols)
    # A pixel of 10 m of a projection covers a little more or less on the ground.
    if rows < gsd_m[0] * 0.99 or cols < gsd_m[1] * 0.99:
        raise UsageError(
            f"{option} {text} is less than one pixel of the raster ({_meters(max(gsd_m))})"
        )
    return _to_pixels((rows, cols), gsd_m)


def _range_warnings(footprint_m: tuple[float, float], least: float, most: float) -> Iterator[str]:
    # A difference by rounding to a pixel is within the range.
    if min(footprint_m) < least * 0.99 or max(footprint_m) > most * 1.01:
        covered = " × ".join(_meters(side) for side in footprint_m)
        yield (
            f"a tile covers {covered}, outside the {_range(least, most)} the model was trained on:"
            " expect less certain classes"
        )


def _padding_warnings(size: tuple[int, int], shape: tuple[int, int]) -> Iterator[str]:
    if size[0] > shape[0] or size[1] > shape[1]:
        yield (
            f"a tile of {_pixels(size)} is larger than the raster of {_pixels(shape)}: the rest is"
            " filled by reflection"
        )


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]} px"


def _range(least: float, most: float) -> str:
    return f"{least:g}–{most:g} m"


def _meters(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:.3g} km"
    return f"{value:.3g} m" if value < 1000 else f"{value:.0f} m"
