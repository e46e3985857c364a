"""Tiles and blocks of a scene, classified by a predictor in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rssc_geo.geometry import BlockGrid, CellRanges, TileGrid
from rssc_geo.inference.aggregate import CellMap, TileResult, cell_colors
from rssc_geo.raster import TileData

if TYPE_CHECKING:
    from rssc_geo.inference.predictor import Prediction

_PENDING = 16384
"""Tiles without data (some 300 bytes each) that may wait for a batch to fill."""


class TilePredictor(Protocol):
    """The interface of predictors; ``batch_size`` may shrink."""

    @property
    def batch_size(self) -> int:
        """Tiles a batch."""

    def __call__(
        self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_], *, embed: bool = False
    ) -> Prediction:
        """``pixels`` uint8 (B, H, W, 3), ``mask`` bool (B, H, W)."""

    def classify_block(
        self,
        block: TileData,
        grid: BlockGrid,
        *,
        cells: CellRanges | None = None,
        embed: bool = False,
    ) -> Prediction:
        """As of ``Predictor``."""


def predict_tiles(
    tiles: Iterable[TileData], cells: CellMap, predictor: TilePredictor, *, embed: bool = False
) -> Iterator[list[TileResult]]:
    """Runs of consecutive tiles with their results, a model batch in each; of blocks, one by one.

    Tiles without data are not classified.

    Parameters
    ----------
    tiles : pixels and mask of each, in the order in which they are classified
    cells : the cells that are asked for; a fine map's grid is a ``BlockGrid``, its tiles blocks
    predictor : classifies them
    embed : the results have embeddings
    """
    if isinstance(cells.grid, BlockGrid):
        for block in tiles:
            yield [_look_at_block(block, cells, cells.grid, predictor, embed=embed)]
        return
    pending: list[TileData | TileResult] = []
    wanted = 0
    for data in tiles:
        if cells.wanted(data.tile, data.valid_fraction, data.cell_fractions):
            pending.append(data)
            wanted += 1
        else:  # its pixels are not kept
            pending.append(
                TileResult(data.tile, data.valid_fraction, data.cell_fractions, None, ("",))
            )
        if wanted >= predictor.batch_size or len(pending) >= _PENDING + wanted:
            yield _predict_batch(pending, cells.grid, predictor, embed=embed)
            pending, wanted = [], 0
    if pending:
        yield _predict_batch(pending, cells.grid, predictor, embed=embed)


def _predict_batch(
    pending: list[TileData | TileResult],
    grid: TileGrid,
    predictor: TilePredictor,
    *,
    embed: bool,
) -> list[TileResult]:
    looked = [data for data in pending if isinstance(data, TileData)]
    if not looked:
        return [result for result in pending if isinstance(result, TileResult)]
    found = predictor(
        np.stack([data.pixels for data in looked]),
        np.stack([data.mask for data in looked]),
        embed=embed,
    )
    results: list[TileResult] = []
    row = 0
    for item in pending:
        if isinstance(item, TileResult):
            results.append(item)
            continue
        result = TileResult(
            item.tile,
            item.valid_fraction,
            item.cell_fractions,
            found.probabilities[row],
            (found.captions[row],),
            float(found.familiarity[row]),
            cell_colors(item, grid),
            None if found.embeddings is None else found.embeddings[row],
        )
        results.append(result)
        row += 1
    return results


def _look_at_block(
    block: TileData, cells: CellMap, grid: BlockGrid, predictor: TilePredictor, *, embed: bool
) -> TileResult:
    """A block's result, cell by cell: of those that are selected and valid, others have none."""
    tile, fractions = block.tile, block.cell_fractions
    wanted = cells.own(tile) & cells.valid(fractions)
    if not wanted.any():
        return TileResult(tile, block.valid_fraction, fractions, None, ("",))
    places = _span(wanted.any(1)), _span(wanted.any(0))
    rows, cols = (
        known[place] for known, place in zip(grid.cells_of_tile(tile), places, strict=True)
    )
    part = None if (len(rows), len(cols)) == fractions.shape else (rows, cols)
    found = predictor.classify_block(block, grid, cells=part, embed=embed)

    def spread(values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Results of the cells in the rectangle as results of all; NaN outside."""
        if part is None:
            return values.reshape(*fractions.shape, *values.shape[1:])
        whole = np.full((*fractions.shape, *values.shape[1:]), np.nan, np.float32)
        whole[places] = values.reshape(len(rows), len(cols), *values.shape[1:])
        return whole

    captions = found.captions
    if part is not None:
        texts = np.full(fractions.shape, "", object)
        texts[places] = np.array(captions, object).reshape(len(rows), len(cols))
        captions = texts.ravel().tolist()
    return TileResult(
        tile,
        block.valid_fraction,
        fractions,
        spread(found.probabilities),
        captions,
        spread(found.familiarity),
        spread(cell_colors(block, grid, part).reshape(-1, 3)),
        None if found.embeddings is None else spread(found.embeddings),
    )


def _span(wanted: Any) -> slice:
    """From the first to the last that is true, of one axis."""
    places = np.flatnonzero(wanted)
    return slice(int(places[0]), int(places[-1]) + 1)
