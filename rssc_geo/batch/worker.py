"""Blocks of tiles, and the workers that classify them: predictors on devices, each loaded once.

A block and its result are plain arrays, so that little is sent to another machine and back. torch
is loaded only with a predictor.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import RsscGeoError
from rssc_geo.geometry import BlockGrid, CellRanges, TileGrid
from rssc_geo.inference import CellMap, PredictorSpec, SceneRun, TileResult
from rssc_geo.models import ClassWords
from rssc_geo.options import PredictorOptions
from rssc_geo.raster import Radiometry, Scene, TileData, TileReader

if TYPE_CHECKING:
    from rssc_geo.inference import Prediction, TilePredictor

_BLOCKS_A_DEVICE = 2
"""Blocks at once a device: one is read while the model works on the other."""

_NAMED = 32
"""Sets of named classes that a worker holds; refined ones are of one scene each."""

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
        from rssc_geo.inference import predict_tiles

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


Done = Callable[[BlockResult | BaseException], None]


class PoolLostError(RsscGeoError):
    """No worker is left: the batch stops, and continues when it is run again."""


class Pool(Protocol):
    """Runs blocks on some workers."""

    @property
    def spec(self) -> PredictorSpec:
        """What classifies."""

    @property
    def batch_size(self) -> int:
        """Tiles a batch of the model."""

    @property
    def capacity(self) -> int:
        """How many blocks are processed at once; may change while it runs."""

    def named_spec(self, words: ClassWords) -> PredictorSpec:
        """What classifies into classes that are named by words.

        Raises ``UsageError`` for words that mean nothing to the model.
        """

    def refined(self, block: Block) -> ClassWords:
        """The words of a block, with vectors moved towards the clusters that its tiles form.

        Raises ``NothingToClassifyError`` where no tile has data.
        """

    def submit(self, block: Block, done: Done) -> Callable[[], None]:
        """Start a block; ``done`` is called with its result or its error, in any thread.

        Returns a function that cancels it.
        """

    def close(self) -> None:
        """Stop; blocks not yet begun are dropped."""


class LocalPool:
    """The devices of this machine, each with the model loaded once and fed by two threads.

    ``threads``: of the processor, by default all; ``load``: makes the worker of a device. Raises
    what ``load_worker`` does.
    """

    def __init__(
        self,
        options: PredictorOptions,
        *,
        threads: int | None = None,
        load: LoadWorker = load_worker,
    ) -> None:
        devices = devices_of(options)
        threads = threads or processors()
        reading = max(1, min(4, threads // (_BLOCKS_A_DEVICE * len(devices))))
        workers = [
            load(replace(options, device=device), threads=threads, reading_threads=reading)
            for device in devices
        ]
        self._first = workers[0]
        self.spec = workers[0].spec
        self.batch_size = workers[0].batch_size
        self.capacity = _BLOCKS_A_DEVICE * len(workers)
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in workers * _BLOCKS_A_DEVICE:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(self.capacity, thread_name_prefix="rssc-geo block")

    def named_spec(self, words: ClassWords) -> PredictorSpec:
        """See ``Pool``."""
        return self._first.named(words).spec

    def refined(self, block: Block) -> ClassWords:
        """See ``Pool``."""
        return self._first.refined(block)

    def submit(self, block: Block, done: Done) -> Callable[[], None]:
        """See ``Pool``."""
        future = self._threads.submit(self._work, block, done)

        def cancel() -> None:
            future.cancel()

        return cancel

    def _work(self, block: Block, done: Done) -> None:
        worker = self._idle.get()
        try:
            done(worker.run(block))
        except BaseException as error:  # noqa: BLE001 -- passed to the waiting thread
            done(error)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """See ``Pool``."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def devices_of(options: PredictorOptions) -> list[str]:
    """The devices of a list such as "cuda:0,cuda:1".

    By default every CUDA device, else the fastest device.
    """
    if options.device not in (None, "auto"):
        return [name.strip() for name in str(options.device).split(",")]
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["auto"]
