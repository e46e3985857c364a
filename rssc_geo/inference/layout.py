"""Windows and coarse tiles of a block's cells among its feature tokens. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rssc_geo.geometry import BlockGrid, Tile, WindowWeights, window_weights
from rssc_geo.models import ModelCard

_BLOCK_TOKENS = 48
"""Side of a block without its halo: large enough that the halo costs less than the block."""


def tokens_a_side(card: ModelCard) -> int:
    """Tokens a side of a tile, where windows share features; else 1."""
    if card.local_features is None:
        return 1
    return card.input_size[0] // card.local_features["stride"]


def block_grid(
    card: ModelCard, shape: tuple[int, int], cell_size: tuple[int, int], fraction: int
) -> BlockGrid:
    """The blocks that fine cells are read from, of a card with ``local_features``.

    Parameters
    ----------
    shape, cell_size : of the raster and of a cell, in pixels
    fraction : cells a side of a tile; the tokens of a tile's side are a multiple of it
    """
    stride, field = (_features(card)[name] for name in ("stride", "receptive_field"))
    window = tokens_a_side(card)
    tokens = window // fraction
    # Half of a cell's window lies outside of the cell, and around that its tokens' receptive field.
    outside = -(-(window - tokens) // 2) + -(-(field - stride) // 2 // stride)
    return BlockGrid(
        shape,
        cell_size,
        cell_pixels=tokens * stride,
        side=_BLOCK_TOKENS // tokens,
        halo=-(-outside // tokens),
    )


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """The tokens of a block that belong to each of its cells.

    Attributes
    ----------
    stride : pixels of the network's input a token
    scene : weights of the tokens in the window around each cell, as large as a tile
    ground : weights of each cell's own tokens
    tiles : int64 ``(T, 3)``, top, left and side in tokens of the coarse tiles that are captioned
    caption_of : int64 ``(cell rows, cell cols)``, the coarse tile of each cell
    """

    stride: int
    scene: WindowWeights
    ground: WindowWeights
    tiles: NDArray[np.int64]
    caption_of: NDArray[np.int64]

    @classmethod
    def of(cls, card: ModelCard, grid: BlockGrid, block: Tile) -> Self:
        """The layout of a block."""
        stride = _features(card)["stride"]
        tokens, window = grid.cell_pixels // stride, tokens_a_side(card)
        axes = list(
            zip(grid.cells_of_tile(block), grid.reach(block), grid.cells_shape, strict=True)
        )

        def weights(length: int) -> WindowWeights:
            rows, cols = (
                window_weights(cells, seen, count=count, tokens=tokens, window=length)
                for cells, seen, count in axes
            )
            return rows, cols

        fraction = window // tokens
        starts, groups = zip(
            *(_coarse(cells, seen, count, fraction) for cells, seen, count in axes), strict=True
        )
        tiles = [(top * tokens, left * tokens, window) for top in starts[0] for left in starts[1]]
        caption_of = groups[0][:, None] * len(starts[1]) + groups[1]
        return cls(stride, weights(window), weights(tokens), np.array(tiles), caption_of)


def _features(card: ModelCard) -> Mapping[str, int]:
    if card.local_features is None:
        raise ValueError(f"windows of {card.name} share no features")
    return card.local_features


def _coarse(
    cells: range, seen: range, count: int, fraction: int
) -> tuple[list[int], NDArray[np.int64]]:
    """Along one axis: first cells of the coarse tiles, counted from ``seen``, and each cell's tile.

    Coarse tiles of ``fraction`` cells lie side by side from the raster's origin; where the last one
    would end beyond the raster, it is moved back.
    """
    place = np.arange(cells.start, cells.stop) // fraction
    first = int(place[0])
    starts = [
        max(min(k * fraction, count - fraction), 0) - seen.start
        for k in range(first, int(place[-1]) + 1)
    ]
    return starts, place - first
