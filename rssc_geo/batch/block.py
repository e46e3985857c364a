"""Blocks of tiles and their results: plain arrays, so that little is sent to another machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rssc_geo.geometry import BlockGrid, TileGrid
from rssc_geo.inference import PredictorSpec, SceneRun, TileResult
from rssc_geo.models import ClassWords
from rssc_geo.raster import Radiometry, Scene

BATCHES = 8
"""Model batches a block.

Enough that sending it costs little, few enough that little is lost with a worker.
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Tiles of a scene to classify.

    ``tiles`` int64 (n,), ascending: their indices in the grid, which of a fine map is one of
    blocks; ``spec_hash`` says by which predictor, see :func:`spec_hash`; ``words`` name the
    classes, None: they are the model's own; ``embed``: with embeddings.
    """

    scene: Scene
    grid: TileGrid | BlockGrid
    radiometry: Radiometry
    tiles: NDArray[np.int64]
    min_valid: float
    spec_hash: str
    words: ClassWords | None = None
    embed: bool = False


@dataclass(frozen=True, slots=True)
class BlockResult:
    """The results of a block's tiles.

    ``tiles`` int64 (n,); ``looked`` bool (n,), which the network processed; of those
    ``valid_fractions`` float64 (m,), ``cell_fractions`` float32 (cells of all of them, in order),
    ``colors`` float32 (the same cells, 3), ``probabilities`` float32 (m, C), m captions,
    ``familiarity`` float32 (m,) and ``embeddings`` float32 (m, D) or None; of fine maps one of each
    for each cell. The other tiles have no valid cell of their own and add nothing. Seconds of
    waiting for the reader and of the model; ``worker``: its name.
    """

    tiles: NDArray[np.int64]
    looked: NDArray[np.bool_]
    valid_fractions: NDArray[np.float64]
    cell_fractions: NDArray[np.float32]
    colors: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    captions: list[str]
    familiarity: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    reading_s: float
    model_s: float
    worker: str

    @classmethod
    def pack(
        cls,
        results: Sequence[TileResult],
        *,
        classes: int,
        reading_s: float,
        model_s: float,
        worker: str,
    ) -> Self:
        """Results of tiles as arrays; ``classes``: how many the model has."""
        seen = [result for result in results if result.probabilities is not None]
        fractions = [result.cell_fractions.ravel() for result in seen]
        colors = [
            np.broadcast_to(np.float32(result.colors), (*result.cell_fractions.shape, 3))
            for result in seen
        ]
        probabilities = [
            result.probabilities for result in seen if result.probabilities is not None
        ]
        vectors = [
            result.embeddings.reshape(-1, result.embeddings.shape[-1])
            for result in seen
            if result.embeddings is not None
        ]
        return cls(
            np.array([result.tile.index for result in results], np.int64),
            np.array([result.probabilities is not None for result in results], bool),
            np.array([result.valid_fraction for result in seen], np.float64),
            np.concatenate([np.empty(0, np.float32), *fractions]),
            np.concatenate([np.empty((0, 3), np.float32), *(c.reshape(-1, 3) for c in colors)]),
            np.concatenate(
                [
                    np.empty((0, classes), np.float32),
                    *(p.reshape(-1, classes) for p in probabilities),
                ]
            ),
            [text for result in seen for text in result.captions],
            np.concatenate(
                [
                    np.empty(0, np.float32),
                    *(np.ravel(np.float32(result.familiarity)) for result in seen),
                ]
            ),
            np.concatenate(vectors) if vectors else None,
            reading_s,
            model_s,
            worker,
        )

    def unpack(self, grid: TileGrid | BlockGrid) -> list[TileResult]:
        """The results that were packed; a tile that was not processed is like one without data."""
        results = []
        seen = at = told = 0
        for index, looked in zip(self.tiles.tolist(), self.looked.tolist(), strict=True):
            tile = grid.tile(index)
            rows, cols = grid.cells_of_tile(tile)
            shape = (len(rows), len(cols))
            if not looked:
                results.append(TileResult(tile, 0.0, np.zeros(shape, np.float32), None, ("",)))
                continue
            here = slice(at, at + shape[0] * shape[1])
            fractions = self.cell_fractions[here].reshape(shape)
            valid = float(self.valid_fractions[seen])
            each = isinstance(grid, BlockGrid)
            mine = slice(told, told + (fractions.size if each else 1))
            probabilities = self.probabilities[mine]
            probabilities = probabilities.reshape(*shape, -1) if each else probabilities[0]
            familiarity = self.familiarity[mine]
            vectors = None if self.embeddings is None else self.embeddings[mine]
            if vectors is not None:
                vectors = vectors.reshape(*shape, -1) if each else vectors[0]
            results.append(
                TileResult(
                    tile,
                    valid,
                    fractions,
                    probabilities,
                    self.captions[mine],
                    familiarity.reshape(shape) if each else float(familiarity[0]),
                    self.colors[here].reshape(*shape, 3),
                    vectors,
                )
            )
            at += fractions.size
            seen += 1
            told = mine.stop
        return results


def spec_hash(spec: PredictorSpec) -> str:
    """A short hash of everything on which a tile's result depends."""
    return hashlib.sha256(json.dumps(spec.as_dict(), sort_keys=True).encode()).hexdigest()[:16]


def cut_blocks(run: SceneRun, *, tiles: int, words: ClassWords | None = None) -> list[Block]:
    """The remaining tiles of a scene in blocks of ``tiles``; those of a fine map one by one.

    ``words``: as of ``Block``.
    """
    tiles = tiles if run.plan.blocks is None else 1
    plan, expected = run.plan, spec_hash(run.spec)
    return [
        Block(
            plan.scene,
            plan.units,
            plan.radiometry,
            run.remaining[start : start + tiles],
            plan.options.min_valid,
            expected,
            words,
            run.target.embeds,
        )
        for start in range(0, len(run.remaining), tiles)
    ]
