"""Windows and coarse tiles of a block's cells among its feature tokens. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rssc_geo.geometry import BlockGrid, CellRanges, Tile, WindowWeights, window_weights
from rssc_geo.models import ModelCard

_BLOCK_TOKENS = 48
"""Side of a block without its halo: large enough that the halo costs less than the block."""


def tokens_a_side(card: ModelCard) -> int:
    """Finest tokens a side of a tile, where windows share features; else 1."""
    return 1 if card.local_features is None else card.input_size[0] // card.token_strides[1]


def block_grid(
    card: ModelCard, shape: tuple[int, int], cell_size: tuple[int, int], fraction: int
) -> BlockGrid:
    """The blocks that fine cells are read from, of a card with ``local_features``.

    Parameters
    ----------
    shape, cell_size : of the raster and of a cell, in pixels
    fraction : cells a side of a tile; its finest tokens are a multiple of it
    """
    (stride, _), field = card.token_strides, (card.local_features or {})["receptive_field"]
    window = card.input_size[0]
    cell = window // fraction
    # Half of a cell's window lies outside of the cell, and around that its tokens' receptive field.
    around = -(-(field - stride) // 2 // stride)
    outside = -(-(window - cell) // 2 // stride) + around
    # Blocks and halos are whole tokens.
    step = math.lcm(cell, stride)
    return BlockGrid(
        shape,
        cell_size,
        cell_pixels=cell,
        side=max(1, _BLOCK_TOKENS * stride // step) * (step // cell),
        halo=-(-outside * stride // step) * (step // cell),
        margin=-(-around * stride // step) * (step // cell),
        window=fraction,
    )


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """The tokens of a block that belong to each of the cells that are wanted of it.

    Attributes
    ----------
    seen : the block's pixels, along rows and columns, on which these tokens depend; the tokens are
        counted from their first
    stride : pixels of the network's input a token of the scene features
    scene : weights of its tokens in the window around each cell, as large as a tile
    ground : weights of each cell's own tokens of the ground features
    tiles : int64 ``(T, 3)``, top, left and side in tokens of the scene features of the coarse
        tiles that are captioned
    caption_of : int64 ``(cell rows, cell cols)``, the coarse tile of each cell
    """

    seen: tuple[slice, slice]
    stride: int
    scene: WindowWeights
    ground: WindowWeights
    tiles: NDArray[np.int64]
    caption_of: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        card: ModelCard,
        grid: BlockGrid,
        block: Tile,
        cells: CellRanges | None = None,
        *,
        captions: bool = True,
    ) -> Self:
        """The layout of a block.

        ``cells``: those of the block that are wanted, all by default; ``captions``: whether their
        coarse tiles have to be seen whole.
        """
        (stride, finest), window = card.token_strides, card.input_size[0]
        cell = grid.cell_pixels
        step = _step(card, grid)
        reach = grid.reach(block)
        if cells is None:
            cells, seen = grid.cells_of_tile(block), reach
        else:
            seen = _seen_around(card, grid, cells, reach, captions=captions)
        axes = list(zip(cells, seen, grid.cells_shape, strict=True))

        def weights(length: int) -> WindowWeights:
            """Of the finest tokens in windows of so many pixels."""
            rows, cols = (
                window_weights(
                    cells, seen, count=count, tokens=cell // finest, window=length // finest
                )
                for cells, seen, count in axes
            )
            return rows, cols

        rows, cols = (_coarser(each, stride // finest) for each in weights(window))
        starts, groups = zip(
            *(
                _coarse(cells, seen, count, window // cell, step=step)
                for cells, seen, count in axes
            ),
            strict=True,
        )
        places = [[start * cell // stride for start in axis] for axis in starts]
        tiles = [(top, left, window // stride) for top in places[0] for left in places[1]]
        caption_of = groups[0][:, None] * len(starts[1]) + groups[1]
        down, across = (
            slice((some.start - every.start) * cell, (some.stop - every.start) * cell)
            for some, every in zip(seen, reach, strict=True)
        )
        own_rows, own_cols = (_whole(each, stride // finest) for each in weights(cell))
        return cls(
            (down, across), stride, (rows, cols), (own_rows, own_cols), np.array(tiles), caption_of
        )


def _step(card: ModelCard, grid: BlockGrid) -> int:
    """The least number of cells along an axis that are whole tokens of the scene features."""
    return math.lcm(grid.cell_pixels, card.token_strides[0]) // grid.cell_pixels


def _seen_around(
    card: ModelCard, grid: BlockGrid, cells: CellRanges, reach: CellRanges, *, captions: bool
) -> CellRanges:
    """The cells within ``reach`` of a block that the image encoder has to see for some of them."""
    stride, step = card.token_strides[0], _step(card, grid)
    field = (card.local_features or {})["receptive_field"]
    around = -(-(field - stride) // 2 // stride) * stride
    fraction = card.input_size[0] // grid.cell_pixels
    rows, cols = (
        _seen(
            _needed(some, count, fraction, step=step, captions=captions),
            every,
            margin=-(-around // grid.cell_pixels),
            step=step,
        )
        for some, every, count in zip(cells, reach, grid.cells_shape, strict=True)
    )
    return rows, cols


def _needed(cells: range, count: int, fraction: int, *, step: int, captions: bool) -> range:
    """Along one axis: the cells that windows, and with ``captions`` coarse tiles, reach over.

    ``fraction``, ``step``: as of ``_coarse``.
    """
    start = min(max(0, cells.start - fraction // 2), max(0, count - fraction))
    stop = max(cells.stop + fraction // 2, start + fraction)
    if not captions:
        return range(start, stop)
    starts, _ = _coarse(cells, range(0), count, fraction, step=step)
    return range(min(start, starts[0]), max(stop, starts[-1] + fraction))


def _seen(needed: range, reach: range, *, margin: int, step: int) -> range:
    """Cells with a margin around, within ``reach`` and in whole steps from its start."""
    first = (needed.start - margin - reach.start) // step * step
    last = -(-(needed.stop + margin - reach.start) // step) * step
    return range(reach.start + max(first, 0), min(reach.start + last, reach.stop))


def _whole(weights: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Weights (n, tokens) filled up to a multiple of ``factor`` tokens, as the image is."""
    return np.pad(weights, ((0, 0), (0, -weights.shape[1] % factor)))


def _coarser(weights: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Weights (n, tokens) for tokens that are ``factor`` as wide, the last one filled up."""
    return np.asarray(_whole(weights, factor).reshape(len(weights), -1, factor).sum(2))


def _coarse(
    cells: range, seen: range, count: int, fraction: int, *, step: int
) -> tuple[list[int], NDArray[np.int64]]:
    """Along one axis: first cells of the coarse tiles, counted from ``seen``, and each cell's tile.

    Coarse tiles of ``fraction`` cells lie side by side from the raster's origin; where the last one
    would end beyond the raster, it is moved back, by a multiple of ``step`` cells.
    """
    place = np.arange(cells.start, cells.stop) // fraction
    first = int(place[0])
    starts = [
        max(min(k * fraction, (count - fraction) // step * step), 0) - seen.start
        for k in range(first, int(place[-1]) + 1)
    ]
    return starts, place - first
