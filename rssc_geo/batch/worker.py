"""Workers that classify blocks: each a predictor on a device, loaded once."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rssc_geo.batch.block import Block, BlockResult, spec_hash
from rssc_geo.errors import RsscGeoError
from rssc_geo.geometry import BlockGrid, CellRanges, TileGrid
from rssc_geo.inference import CellMap, PredictorSpec, predict_tiles
from rssc_geo.models import ClassWords
from rssc_geo.options import PredictorOptions
from rssc_geo.raster import TileData, TileReader

if TYPE_CHECKING:
    from rssc_geo.inference import Prediction, TilePredictor

_NAMED = 32
"""Sets of named classes that a worker holds; refined ones are of one scene each."""


class Worker:
    """Reads and classifies blocks.

    Several threads may run blocks at once: one reads while the model works for another.

    Parameters
    ----------
    spec : model, captioner and precision, on which its results depend
    predictor : classifies batches of tiles, see ``rssc_geo.inference.TilePredictor``
    input_size : (rows, columns) of its tiles
    reading_threads : how many read tiles, for each block
    name : in the journal: the device, or an address
    lock : held while a batch is processed; that of another worker on the same device, None: its own
    """

    def __init__(
        self,
        spec: PredictorSpec,
        predictor: TilePredictor,
        *,
        input_size: tuple[int, int],
        reading_threads: int,
        name: str,
        lock: threading.Lock | None = None,
    ) -> None:
        self.spec = spec
        self.name = name
        self._spec_hash = spec_hash(spec)
        self._predictor = predictor
        self._named: OrderedDict[ClassWords, Worker] = OrderedDict()
        self._input_size = input_size
        self._reading_threads = reading_threads
        self._lock, self._naming = lock or threading.Lock(), threading.Lock()

    @property
    def batch_size(self) -> int:
        """Tiles a batch."""
        return self._predictor.batch_size

    def named(self, words: ClassWords) -> Worker:
        """A worker for classes that are named by words; both process one batch at a time.

        Raises ``UsageError`` for words that mean nothing to the model.
        """
        import torch

        from rssc_geo.inference import Predictor
        from rssc_geo.models import name_classes, vectors_of, with_vectors

        with self._naming:
            if words not in self._named:
                own = self._predictor
                if not isinstance(own, Predictor):
                    raise TypeError(f"{type(own).__name__} has no model whose classes can be named")
                model = name_classes(own.model, dict(words.words), other=words.other)
                if words.vectors:
                    before = vectors_of(model)
                    vectors = torch.frombuffer(bytearray(words.vectors), dtype=torch.float32)
                    model = with_vectors(model, vectors.reshape(before.shape).to(before))
                predictor = Predictor(model, own.captioner, own.compute)
                self._named[words] = Worker(
                    predictor.spec,
                    predictor,
                    input_size=self._input_size,
                    reading_threads=self._reading_threads,
                    name=self.name,
                    lock=self._lock,
                )
                while len(self._named) > _NAMED:
                    self._named.popitem(last=False)
            self._named.move_to_end(words)
            return self._named[words]

    def refined(self, block: Block) -> ClassWords:
        """The words of a block, with vectors moved towards the clusters that its tiles form.

        Raises ``NothingToClassifyError`` where no tile has data, ``InputError`` where the raster
        cannot be read, ``UsageError`` for words that mean nothing to the model.
        """
        if block.words is None:
            raise ValueError("the classes of this block have no words")
        return replace(block.words, vectors=self.named(block.words).moved_vectors(block))

    def moved_vectors(self, block: Block) -> bytes:
        """The vectors of this worker's named classes, moved; float32 (C, X). See ``refined``."""
        from rssc_geo.inference import Predictor
        from rssc_geo.pipelines import refined_vectors

        own = self._predictor
        if not isinstance(own, Predictor):
            raise TypeError(f"{type(own).__name__} has no model whose classes can be refined")
        with self._reader(block) as reader, self._lock:
            vectors = refined_vectors(
                own.model,
                reader,
                source=block.scene.source,
                cells=_all_cells(block.grid, block.min_valid),
                compute=own.compute,
            )
        return vectors.numpy().tobytes()

    def _reader(self, block: Block) -> TileReader:
        return TileReader(
            block.scene,
            block.grid,
            block.radiometry,
            out_size=self._input_size,
            tiles=block.tiles.tolist(),
            threads=self._reading_threads,
        )

    def run(self, block: Block) -> BlockResult:
        """Classify a block's tiles.

        Raises ``InputError`` where the raster cannot be read, ``RsscGeoError`` when the block is
        made for another model or version.
        """
        if block.words is not None:
            own = self.named(block.words)
            return own.run(replace(block, words=None))
        if block.spec_hash != self._spec_hash:
            raise RsscGeoError(
                f"{self.name} has another model or version of rssc-geo than this run: restart it"
                " with the same"
            )
        cells = _all_cells(block.grid, block.min_valid)
        with self._reader(block) as reader:
            tiles = _TimedTiles(iter(reader))
            predictor = _SharedPredictor(self._predictor, self._lock)
            batches = predict_tiles(tiles, cells, predictor, embed=block.embed)
            results = [tile for batch in batches for tile in batch]
        return BlockResult.pack(
            results,
            classes=len(self.spec.card.classes),
            reading_s=tiles.seconds,
            model_s=predictor.seconds,
            worker=self.name,
        )


class LoadWorker(Protocol):
    """Makes a worker, as ``load_worker`` does."""

    def __call__(
        self, options: PredictorOptions, *, threads: int, reading_threads: int, name: str = ""
    ) -> Worker:
        """See ``load_worker``."""


def load_worker(
    options: PredictorOptions, *, threads: int, reading_threads: int, name: str = ""
) -> Worker:
    """Load a predictor to its device.

    Parameters
    ----------
    options : which; its device is one
    threads : of the processor that the model may use, at most
    reading_threads, name : see ``Worker``; by default the device's name

    Raises ``BundleError`` for a model that cannot be loaded, ``UsageError`` for a device or
    captioner that is not there.
    """
    import torch

    from rssc_geo.inference import load_predictor

    torch.set_num_threads(min(torch.get_num_threads(), threads))
    predictor = load_predictor(options)
    return Worker(
        predictor.spec,
        predictor,
        input_size=predictor.spec.card.input_size,
        reading_threads=reading_threads,
        name=name or str(predictor.compute.device),
    )


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.lru_cache(maxsize=16)
def _all_cells(grid: TileGrid | BlockGrid, min_valid: float) -> CellMap:
    """Which tiles are processed does not depend on which cells are asked for."""
    return CellMap(grid, np.ones(grid.cells_shape, bool), min_valid=min_valid)


class _TimedTiles:
    """An iterator of tiles that counts the seconds spent waiting for them."""

    def __init__(self, tiles: Iterator[TileData]) -> None:
        self._tiles = tiles
        self.seconds = 0.0

    def __iter__(self) -> Iterator[TileData]:
        return self

    def __next__(self) -> TileData:
        started = time.monotonic()
        try:
            return next(self._tiles)
        finally:
            self.seconds += time.monotonic() - started


class _SharedPredictor:
    """The predictor, one batch at a time, counting the seconds that it works."""

    def __init__(self, predictor: TilePredictor, lock: threading.Lock) -> None:
        self._predictor = predictor
        self._lock = lock
        self.seconds = 0.0

    @property
    def batch_size(self) -> int:
        return self._predictor.batch_size

    def __call__(
        self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_], *, embed: bool = False
    ) -> Prediction:
        with self._working():
            return self._predictor(pixels, mask, embed=embed)

    def classify_block(
        self,
        block: TileData,
        grid: BlockGrid,
        *,
        cells: CellRanges | None = None,
        embed: bool = False,
    ) -> Prediction:
        """As of ``Predictor``."""
        with self._working():
            return self._predictor.classify_block(block, grid, cells=cells, embed=embed)

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            started = time.monotonic()
            try:
                yield
            finally:
                self.seconds += time.monotonic() - started
