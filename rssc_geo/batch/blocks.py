"""The unit of work: a run of tiles of one scene, sent to whoever classifies it, and what comes
back. No torch here.

Both are plain arrays, so that they are small on their way to another machine and back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rssc_geo.geometry import TileGrid
from rssc_geo.inference import Maker, SceneJob, TileResult
from rssc_geo.raster import Radiometry, Scene

BATCHES = 8
"""Model batches a block.

Enough that handing it over costs little, few enough that little is lost with a worker.
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Tiles to classify, by index (int64, ascending).

    ``maker_key`` says who is expected to do it.
    """

    scene: Scene
    grid: TileGrid
    radiometry: Radiometry
    tiles: np.ndarray
    min_valid: float
    maker_key: str


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What is known of a block's tiles.

    ``tiles`` int64 (n,); ``looked`` bool (n,), which the network saw; of those ``valid_fractions``
    float64 (m,), ``cell_fractions`` float32 (cells of all of them, in order), ``probabilities``
    float32 (m, C) and m captions. The other tiles have no valid cell of their own and add nothing.
    Seconds of waiting for the reader and of the model.
    """

    tiles: np.ndarray
    looked: np.ndarray
    valid_fractions: np.ndarray
    cell_fractions: np.ndarray
    probabilities: np.ndarray
    captions: list[str]
    reading_s: float
    model_s: float
    worker: str


def maker_key(maker: Maker) -> str:
    """A short hash of all that decides about a tile's result."""
    return hashlib.sha256(json.dumps(maker.describe(), sort_keys=True).encode()).hexdigest()[:16]


def blocks_of(job: SceneJob, *, min_valid: float, maker: str, tiles: int) -> list[Block]:
    """What a scene has left, in blocks of so many tiles."""
    plan = job.plan
    return [
        Block(
            plan.scene, plan.grid, job.radiometry, job.todo[start : start + tiles], min_valid, maker
        )
        for start in range(0, len(job.todo), tiles)
    ]


def pack(
    results: Sequence[TileResult], *, classes: int, reading_s: float, model_s: float, worker: str
) -> BlockResult:
    """Results of tiles as arrays."""
    seen = [result for result in results if result.probabilities is not None]
    probabilities = [result.probabilities for result in results if result.probabilities is not None]
    return BlockResult(
        np.array([result.tile.index for result in results], np.int64),
        np.array([result.probabilities is not None for result in results], bool),
        np.array([result.valid_fraction for result in seen], np.float64),
        np.concatenate(
            [np.empty(0, np.float32), *(result.cell_fractions.ravel() for result in seen)]
        ),
        np.stack(probabilities) if probabilities else np.empty((0, classes), np.float32),
        [result.caption for result in seen],
        reading_s,
        model_s,
        worker,
    )


def unpack(block: BlockResult, grid: TileGrid) -> list[TileResult]:
    """The results that were packed; a tile that was not looked at is as one without data."""
    results = []
    seen = at = 0
    for index, looked in zip(block.tiles.tolist(), block.looked.tolist(), strict=True):
        tile = grid.tile(index)
        rows, cols = grid.cells_of_tile(tile)
        shape = (len(rows), len(cols))
        if not looked:
            results.append(TileResult(tile, 0.0, np.zeros(shape, np.float32), None, ""))
            continue
        fractions = block.cell_fractions[at : at + shape[0] * shape[1]].reshape(shape)
        valid = float(block.valid_fractions[seen])
        results.append(
            TileResult(tile, valid, fractions, block.probabilities[seen], block.captions[seen])
        )
        at += fractions.size
        seen += 1
    return results
