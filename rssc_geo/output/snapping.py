"""Outlines that follow the picture instead of the sides of cells.

The picture is cut into superpixels, some sixteen a cell, which end where its colors change: by SLIC
(Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods", PAMI 2012) in
CIELAB; where cells have fewer than eight pixels a side, pixels take their place. The cells around
each vote for its class with their probabilities, those near by and of its color the most: with the
probabilities p_i, mean colors c_i and centers z_i of the cells at most two rows and columns away
from the one in which its center z lies,

    v = Σ w_i p_i / Σ w_i,    w_i = exp(-|z - z_i|² / 2ρ²) (exp(-|c - c_i|² / 2σ²) + ε)

which is the joint bilateral upsampling of Kopf et al. (SIGGRAPH 2007) with superpixels for pixels,
and with ε, so that a color that no cell has, as a roof among trees, gets the class of the cell that
is there. Without the color the votes would only round the cells' corners (benchmarks/snapping.py).
Then neighbors agree, the more the longer their common border and the more alike they are: from
p = v on, in rounds,

    p_s = (v_s + λ Σ_t a_st p_t) / (1 + λ Σ_t a_st),    a_st = l_st exp(-|c_s - c_t|² / 2τ²)

with l the length of the border in sides of a superpixel. These are Jacobi's rounds for the random
walker with priors (Grady, "Multilabel Random Walker Image Segmentation Using Prior Models", CVPR
2005), and end long before they converge: a class spreads over a cell or two.

A raster's pixels are its own where a cell has fewer than 32 a side, else averaged to about 16 a
cell. They are read in fixed blocks with a halo: no superpixel depends on memory, order, or the area
of interest.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from rssc_geo.geometry import (
    BlockGrid,
    JoinedPieces,
    PieceJoiner,
    PixelEdges,
    Regions,
    TileGrid,
    join_outlines,
    piece_outlines,
)
from rssc_geo.output.partfile import PartFile, table_of
from rssc_geo.output.placement import Placement

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from rssc_geo.raster import TileData, TileReader

SUPERPIXELS = 4
"""A side of a cell."""
NEARNESS = 1.0
"""ρ, in cells."""
CONTRAST = 20.0
"""σ, of 255 a band."""
OUTLIERS = 0.2
"""ε, the weight of any other color."""
STRENGTH = 30.0
"""λ, of the agreement of superpixels."""
LIKENESS = 16.0
"""τ, of 255 a band."""
ROUNDS = 50
"""Of the agreement."""
TOLERANCE = 1.0
"""Tolerance of outlines: root of the area, in pixels, of the corners that are removed."""
LEAST_CELLS = 0.25
"""Of a region: less is no more than a spot of another color."""
_REACH = 2
_HALO = 2
_LEAST_PIXELS = 16
"""Of a cell's side, where the raster has them."""
_BLOCK_CELLS = 32
_COMPACTNESS = 10.0
"""Of SLIC: the difference in CIELAB that weighs as much as the distance to the next superpixel."""
_SLIC_ROUNDS = 5
_NOTHING = -1

Pixels = Callable[[BlockGrid, list[int]], "TileReader"]
"""Opens the reader of some blocks of a scene."""


def pixel_grid(grid: TileGrid) -> BlockGrid:
    """The blocks of pixels in which outlines are looked for."""
    finest = max(grid.cell_size)
    factor = max(1, finest // _LEAST_PIXELS)
    return BlockGrid(
        grid.shape,
        grid.cell_size,
        cell_pixels=round(finest / factor),
        side=_BLOCK_CELLS,
        halo=_HALO,
        margin=_HALO,
    )


def snap_record(grid: TileGrid, cells: int) -> Mapping[str, object]:
    """The record of snapping in the provenance of a map of so many cells."""
    return {
        "cells": cells,
        "done": True,
        "pixels_a_cell": pixel_grid(grid).cell_pixels,
        "superpixels_a_cell": SUPERPIXELS,
        "nearness": NEARNESS,
        "contrast": CONTRAST,
        "outliers": OUTLIERS,
        "strength": STRENGTH,
        "likeness": LIKENESS,
        "rounds": ROUNDS,
        "tolerance": TOLERANCE,
        "least_cells": LEAST_CELLS,
    }


@dataclass(frozen=True, slots=True)
class SnappedCells:
    """Cells whose ground was dealt out pixel by pixel, as ``snap_cells`` does.

    Attributes
    ----------
    regions : their labels say in which region the middle of each cell lies
    confidence : (regions,), probability of the superpixels' own class, mean weighted by area
    shape, transform : of the classes as a raster: pixels, and from (column, row) to the CRS
    """

    regions: Regions
    confidence: NDArray[np.float64]
    shape: tuple[int, int]
    transform: Affine
    _blocks: _Blocks
    _joined: JoinedPieces

    def classes(self) -> Iterator[tuple[tuple[int, int], NDArray[np.int64]]]:
        """Classes (h, w) pixel by pixel, -1 for none, and row and column of the first one."""
        for place, pieces in self._blocks:
            found = _lookup(self._joined.class_ids, _lookup(self._joined.region_of, pieces))
            yield place, found[: self.shape[0] - place[0], : self.shape[1] - place[1]]


def snap_cells(
    part: PartFile,
    placement: Placement,
    pixels: Pixels,
    *,
    classes: int,
    min_area: float,
    scratch: IO[bytes],
) -> SnappedCells:
    """Give each valid pixel of the cells a class, and draw the regions.

    Parameters
    ----------
    part : the cells, with their probabilities of the named classes and their colors
    placement : of the map: the grid of cells, and whether its outlines are reprojected
    pixels : opens the scene
    classes : how many there are, ``Unknown`` included
    min_area : m²; smaller regions join a neighbor, as those of less than a quarter of a cell do
    scratch : an empty file, open as long as the result is used

    Raises ``InputError`` where the raster cannot be read.
    """
    geo = placement.geo
    grid = pixel_grid(geo.grid)
    written = _written_cells(part, grid)
    middles = np.full(grid.cells_shape, _NOTHING, np.int64)
    joiner = PieceJoiner(grid.cells_shape[1] * grid.cell_pixels)
    kept, sums, voters = _Blocks(scratch), _Sums(), None
    with pixels(grid, _blocks_with(written, grid)) as reader:
        for data in reader:
            rows, cols = grid.cells_of_tile(data.tile)
            if voters is None or voters.own != rows:
                voters = _Voters.of_rows(part, rows, grid, classes)
            here = written[rows.start : rows.stop, cols.start : cols.stop]
            superpixels = _Superpixels.of_data(data, grid)
            found, confidence = _classified(superpixels, voters, here, cols)
            place = rows.start * grid.cell_pixels, cols.start * grid.cell_pixels
            pieces = joiner.add(found, place)
            kept.append(place, pieces)
            row, col = (axis.ravel() for axis in np.meshgrid(rows, cols, indexing="ij"))
            cell_areas = placement.areas_m2(geo.polygons(row, col)).reshape(here.shape)
            sums.add(pieces, confidence, superpixels.pixel_areas(cell_areas))
            middle = _nearest_to_middles(pieces, grid.cell_pixels)
            middles[rows.start : rows.stop, cols.start : cols.stop] = np.where(
                here, middle, _NOTHING
            )
    areas, weighted = sums.totals()
    least = LEAST_CELLS * areas.sum() / written.sum()
    joined = joiner.join(areas, min_area=max(min_area, least))
    regions = _drawn(
        kept, joined, middles, _edges(grid, geo.transform), keep_corners=placement.reprojects
    )
    count = len(joined.class_ids)
    area = np.bincount(joined.region_of, areas, minlength=count)
    mean = np.bincount(joined.region_of, weighted, minlength=count) / np.where(area > 0, area, 1)
    sides = [size / grid.cell_pixels for size in grid.cell_size]
    height, width = (
        math.ceil(length / side - 1e-9) for length, side in zip(grid.shape, sides, strict=True)
    )
    return SnappedCells(
        regions,
        mean,
        (height, width),
        geo.transform @ Affine.scale(sides[1], sides[0]),
        kept,
        joined,
    )


def _written_cells(part: PartFile, grid: BlockGrid) -> NDArray[np.bool_]:
    """Which cells there are, bool (cell rows, cell columns)."""
    written = np.zeros(grid.cells_shape, bool)
    for chunk in part.read("row, col"):
        written[tuple(np.array(chunk, np.intp).T)] = True
    return written


def _drawn(
    blocks: _Blocks,
    joined: JoinedPieces,
    middles: NDArray[np.int64],
    edges: PixelEdges,
    *,
    keep_corners: bool,
) -> Regions:
    """The regions with their outlines.

    ``middles``: the piece at the middle of each cell, (cell rows, cell columns), -1 for none.
    """
    drawn = [
        piece_outlines(_lookup(joined.region_of, pieces), place, tolerance=TOLERANCE)
        for place, pieces in blocks
    ]
    return join_outlines(
        (
            np.concatenate([ids for ids, _ in drawn]),
            np.concatenate([shapes for _, shapes in drawn]),
        ),
        edges,
        labels=_lookup(joined.region_of, middles).astype(np.int32),
        class_ids=joined.class_ids,
        keep_corners=keep_corners,
    )


def _lookup(table: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The entries at the places, -1 where these are."""
    return np.append(table, _NOTHING)[places]


def _blocks_with(written: NDArray[np.bool_], grid: BlockGrid) -> list[int]:
    """The blocks that have written cells."""
    rows, cols = grid.tiles_shape
    found = np.logical_or.reduceat(written, np.arange(rows) * grid.side, 0)
    found = np.logical_or.reduceat(found, np.arange(cols) * grid.side, 1)
    return np.flatnonzero(found).tolist()


def _edges(grid: BlockGrid, transform: Affine) -> PixelEdges:
    """Where pixels end; the last ones at the raster's edge."""
    rows, cols = (
        np.minimum(np.arange(count * grid.cell_pixels + 1) * (size / grid.cell_pixels), length)
        for count, size, length in zip(grid.cells_shape, grid.cell_size, grid.shape, strict=True)
    )
    return PixelEdges(rows, cols, transform)


def _of_pixels(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Values of cells (rows, columns) at each of their pixels."""
    return values.repeat(side, 0).repeat(side, 1)


def _of_cells(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Pixels (h, w) by their cells, (cell rows, cell columns, side²)."""
    rows, cols = (length // side for length in values.shape)
    return values.reshape(rows, side, cols, side).swapaxes(1, 2).reshape(rows, cols, -1)


def _nearest_to_middles(pieces: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """The piece of the pixel with a class that is nearest to each cell's middle, -1 for none."""
    off = np.arange(side) - (side - 1) / 2
    distance = (off[:, None] ** 2 + off**2).ravel()
    by_cell = _of_cells(pieces, side)
    nearest = np.where(by_cell >= 0, distance, np.inf).argmin(-1)
    return np.asarray(np.take_along_axis(by_cell, nearest[..., None], -1)[..., 0])


class _Blocks:
    """Piece numbers (h, w) of blocks, compressed in a file."""

    def __init__(self, scratch: IO[bytes]) -> None:
        self._file = scratch
        self._index: list[tuple[tuple[int, int], tuple[int, int], int]] = []

    def append(self, place: tuple[int, int], pieces: NDArray[np.int64]) -> None:
        self._file.seek(0, 2)
        size = self._file.write(zlib.compress(pieces.tobytes(), 1))
        self._index.append((place, (pieces.shape[0], pieces.shape[1]), size))

    def __iter__(self) -> Iterator[tuple[tuple[int, int], NDArray[np.int64]]]:
        start = 0
        for place, shape, size in self._index:
            self._file.seek(start)
            start += size
            pieces = np.frombuffer(zlib.decompress(self._file.read(size)), np.int64)
            yield place, pieces.reshape(shape)


class _Sums:
    """Areas of pieces in m², and their confidence weighted by it."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float64]] = []
        self._count = 0

    def add(
        self,
        pieces: NDArray[np.int64],
        confidence: NDArray[np.float32],
        pixel_areas: NDArray[np.float64],
    ) -> None:
        """Count a block's pixels (h, w), whose pieces are numbered behind those of the last one."""
        inside = pieces >= 0
        own = pieces[inside] - self._count
        each = pixel_areas[inside]
        found = np.stack([np.bincount(own, each), np.bincount(own, each * confidence[inside])])
        self._parts.append(found.astype(np.float64))
        self._count += found.shape[1]

    def totals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of all pieces (n,), and how confident they are, times that."""
        area, weighted = np.concatenate(self._parts, 1)
        return area, weighted


@dataclass(frozen=True, slots=True)
class _Voters:
    """The cells that vote on a row of blocks.

    Attributes
    ----------
    own : rows of cells of the blocks
    start : the first of the R rows of cells that vote, of M cells each
    probabilities : float32 (R, M, C), of all classes
    colors : float32 (R, M, 3)
    written : bool (R, M), the cells that exist
    """

    own: range
    start: int
    probabilities: NDArray[np.float32]
    colors: NDArray[np.float32]
    written: NDArray[np.bool_]

    @classmethod
    def of_rows(cls, part: PartFile, own: range, grid: BlockGrid, classes: int) -> _Voters:
        reach = _REACH + _HALO
        start, stop = max(own.start - reach, 0), min(own.stop + reach, grid.cells_shape[0])
        shape = stop - start, grid.cells_shape[1]
        voters = cls(
            own,
            start,
            np.zeros((*shape, classes), np.float32),
            np.zeros((*shape, 3), np.float32),
            np.zeros(shape, bool),
        )
        for chunk in part.read("row, col, class_id, probabilities, color", rows=range(start, stop)):
            row, col, class_ids, probabilities, colors = zip(*chunk, strict=True)
            place = np.array(row) - start, np.array(col)
            table = table_of(probabilities)
            voters.probabilities[..., : table.shape[1]][place] = table
            unknown = np.array(class_ids) >= table.shape[1]
            lost = tuple(axis[unknown] for axis in place)
            voters.probabilities[lost] = np.eye(classes, dtype=np.float32)[-1]
            voters.colors[place] = table_of(colors)
            voters.written[place] = True
        return voters

    def votes(
        self, centers: NDArray[np.float64], colors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Probabilities (n, C) at centers (n, 2), in cells; 0 where no cell is near."""
        known = ~np.isnan(centers[:, 0])
        row, col = np.floor(np.where(known[:, None], centers, 0)).astype(np.int64).T
        around = range(-_REACH, _REACH + 1)
        places = [(row + down - self.start, col + across) for down in around for across in around]
        weights = np.full((len(places), len(centers)), -np.inf)
        for weight, (rows, cols) in zip(weights, places, strict=True):
            there = known & (rows >= 0) & (rows < len(self.written))
            there &= (cols >= 0) & (cols < self.written.shape[1])
            there[there] = self.written[rows[there], cols[there]]
            cell = rows[there], cols[there]
            middle = np.stack([cell[0] + self.start, cell[1]], 1) + 0.5
            off = ((middle - centers[there]) ** 2).sum(1) / (2 * NEARNESS**2)
            # An unknown color does not reduce the weight of a cell.
            contrast = np.nan_to_num(colors[there] - self.colors[cell])
            alike = -(contrast**2).sum(1) / (2 * CONTRAST**2)
            weight[there] = np.logaddexp(alike, math.log(OUTLIERS)) - off
        most = weights.max(0)
        weights = np.exp(weights - np.where(np.isfinite(most), most, 0))
        total = np.zeros((len(centers), self.probabilities.shape[2]))
        for weight, (rows, cols) in zip(weights, places, strict=True):
            some = weight > 0
            total[some] += weight[some, None] * self.probabilities[rows[some], cols[some]]
        return np.asarray(total / np.maximum(weights.sum(0), 1)[:, None])


@dataclass(frozen=True, slots=True)
class _Superpixels:
    """Those of a block and its halo.

    Attributes
    ----------
    labels : int64 (h, w), the superpixel of each pixel of the block without its halo
    valid, on_raster : bool (h, w), of the same pixels
    side : pixels of a cell
    centers, colors : (n, 2) and (n, 3), of their valid pixels; centers in cells
    alike : (n, n), the a_st above
    """

    labels: NDArray[np.int64]
    valid: NDArray[np.bool_]
    on_raster: NDArray[np.bool_]
    side: int
    centers: NDArray[np.float64]
    colors: NDArray[np.float64]
    alike: csr_array

    @classmethod
    def of_data(cls, data: TileData, grid: BlockGrid) -> _Superpixels:
        side = grid.cell_pixels
        reach, own = grid.reach(data.tile), grid.cells_of_tile(data.tile)
        inner = tuple(
            slice((cells.start - seen.start) * side, (cells.stop - seen.start) * side)
            for seen, cells in zip(reach, own, strict=True)
        )
        labels = _slic(data.pixels, side / SUPERPIXELS)
        seen = data.mask.ravel()
        of_pixel = labels.ravel()[seen]
        count = np.bincount(of_pixel, minlength=int(labels.max()) + 1)
        place = np.indices(labels.shape).reshape(2, -1)[:, seen]
        values = [*((place.T + 0.5) / side + [cells.start for cells in reach]).T]
        values += [*data.pixels.reshape(-1, 3)[seen].T]
        means = [np.bincount(of_pixel, value, minlength=len(count)) for value in values]
        # A superpixel without a valid pixel has no place.
        table = np.stack(means, 1) / np.where(count > 0, count, np.nan)[:, None]
        shown = tuple(_rows_shown(grid, axis, cells, side=side) for axis, cells in enumerate(own))
        on_raster = np.asarray(np.logical_and.outer(*(places >= 0 for places in shown)))
        return cls(
            labels[inner][np.ix_(*shown)],
            data.mask[inner][np.ix_(*shown)] & on_raster,
            on_raster,
            side,
            table[:, :2],
            table[:, 2:],
            _alike(labels, table[:, 2:], side / SUPERPIXELS),
        )

    def pixel_areas(self, cell_areas: NDArray[np.float64]) -> NDArray[np.float64]:
        """Areas of pixels (h, w) in cells of such areas (cell rows, cell columns).

        A cell that the raster's edge clips has fewer pixels to share its area.
        """
        count = _of_cells(self.on_raster, self.side).sum(-1)
        return _of_pixels(cell_areas / count, self.side)

    def agreed(self, votes: NDArray[np.float64]) -> NDArray[np.float32]:
        """Probabilities (n, C) after the rounds, from votes (n, C); who has none is passed over."""
        votes = votes.astype(np.float32)
        voted = votes.max(1) > 0
        weights = STRENGTH * self.alike.multiply(voted.astype(np.float32)).tocsr()
        total = (1 + weights.sum(1))[:, None]
        own, weights = votes / total, weights.multiply(1 / total).tocsr()
        found = votes
        for _ in range(ROUNDS):
            found = own + weights @ found
        return np.where(voted[:, None], found, 0)


def _rows_shown(grid: BlockGrid, axis: int, cells: range, *, side: int) -> NDArray[np.int64]:
    """For each row (column) of a block's pixels which of those that were read shows it, or -1.

    Of the raster's last one the reader sees nothing where its middle lies beyond the edge.
    """
    places = np.arange(len(cells) * side)
    first = cells.start * side
    there = (first + places) * (grid.cell_size[axis] / side) < grid.shape[axis]
    return np.where(there, np.minimum(places, grid.pixels_shape[axis] - 1 - first), _NOTHING)


def _classified(
    superpixels: _Superpixels, voters: _Voters, written: NDArray[np.bool_], cols: range
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Class, -1 for none, and confidence of a block's pixels (h, w).

    ``written``: (cell rows, cell columns) of the block's cells, whose columns are ``cols``; others
    have no class. Where no cell votes, at the end of an odd superpixel, its own cell decides.
    """
    side, labels = superpixels.side, superpixels.labels
    # All counts of a cell of which no pixel is valid at the resolution that was read.
    some = np.asarray(_of_cells(superpixels.valid, side).any(-1))
    valid = superpixels.valid | (superpixels.on_raster & ~_of_pixels(some, side))
    valid &= _of_pixels(written, side)
    votes = superpixels.agreed(voters.votes(superpixels.centers, superpixels.colors))
    alone = voters.probabilities[
        voters.own.start - voters.start : voters.own.stop - voters.start, cols.start : cols.stop
    ]
    voted = (votes.max(1) > 0)[labels]
    found = np.where(voted, votes.argmax(1)[labels], _of_pixels(alone.argmax(-1), side))
    sure = np.where(voted, votes.max(1)[labels], _of_pixels(alone.max(-1), side))
    return np.where(valid, found, _NOTHING), sure.astype(np.float32)


def _alike(labels: NDArray[np.int64], colors: NDArray[np.float64], side: float) -> csr_array:
    """How much superpixels (H, W) that touch agree, (n, n); one of unknown color with none."""
    from scipy.sparse import coo_array

    across = labels[:, :-1].ravel(), labels[:, 1:].ravel()
    down = labels[:-1].ravel(), labels[1:].ravel()
    one, other = np.concatenate([across, down], 1)
    touch = one != other
    one, other = one[touch], other[touch]
    apart = ((colors[one] - colors[other]) ** 2).sum(1)
    alike = np.nan_to_num(np.exp(-apart / (2 * LIKENESS**2))) / side
    half = coo_array((alike.astype(np.float32), (one, other)), (len(colors),) * 2).tocsr()
    return half + half.T


def _slic(pixels: NDArray[np.uint8], side: float) -> NDArray[np.int64]:
    """The superpixel, some ``side`` pixels wide, of each pixel (H, W, 3): from 0.

    Below two pixels each is one.
    """
    from skimage.color import rgb2lab
    from skimage.segmentation import slic

    if side < 2:
        return np.arange(pixels.shape[0] * pixels.shape[1]).reshape(pixels.shape[:2])
    lab = rgb2lab(pixels).astype(np.float32)
    labels = slic(
        lab,
        n_segments=max(1, round(lab.shape[0] * lab.shape[1] / side**2)),
        # It stretches its input to values from 0 to 1, whatever the block shows.
        compactness=_COMPACTNESS / max(float(np.ptp(lab)), 1.0),
        max_num_iter=_SLIC_ROUNDS,
        convert2lab=False,
        start_label=0,
        channel_axis=-1,
    )
    return np.asarray(labels, np.int64)
