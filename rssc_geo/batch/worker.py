"""Who classifies blocks: a model on a device, loaded once, shared by the threads that feed it."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from rssc_geo.batch.blocks import Block, BlockResult, maker_key, pack
from rssc_geo.errors import RsscGeoError
from rssc_geo.geometry import TileGrid
from rssc_geo.inference import CellMap, Maker
from rssc_geo.options import CaptionerOptions
from rssc_geo.raster import TileData, TileReader

if TYPE_CHECKING:
    from rssc_geo.inference import Classifies, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What to load, here or on a worker; the fields are those of ``rssc_geo.classify``.

    ``threads``: of the processor.
    """

    model: str = "compact"
    revision: str | None = None
    captioner: str | None = None
    caption_options: CaptionerOptions = field(default_factory=CaptionerOptions)
    device: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    threads: int | None = None

    def per_device(self) -> list[EngineSpec]:
        """One for each device: those of a list such as "cuda:0,cuda:1".

        By default every CUDA device there is.
        """
        import torch

        if self.device in (None, "auto") and torch.cuda.is_available():
            names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        else:
            names = (self.device or "auto").split(",")
        return [replace(self, device=name.strip()) for name in names]


class Engine:
    """Reads and classifies blocks. Several threads may run blocks at once: one reads while the
    model works for another.

    ``classifier`` looks at batches; ``input_size`` are the (rows, columns) it wants; ``name`` goes
    to the journal.
    """

    def __init__(
        self,
        maker: Maker,
        classifier: Classifies,
        *,
        input_size: tuple[int, int],
        reading_threads: int,
        name: str,
    ) -> None:
        self.maker = maker
        self.name = name
        self._key = maker_key(maker)
        self._classifier = classifier
        self._input_size = input_size
        self._reading_threads = reading_threads
        self._lock = threading.Lock()

    @property
    def batch_size(self) -> int:
        """Tiles a batch."""
        return self._classifier.batch_size

    def run(self, block: Block) -> BlockResult:
        """Classify a block's tiles.

        Raises ``InputError`` where the raster cannot be read, ``RsscGeoError`` when the block is
        for another model or version.
        """
        from rssc_geo.inference import classify_tiles

        if block.maker_key != self._key:
            raise RsscGeoError(
                f"{self.name} has another model or version of rssc-geo than this run: restart it"
                " with the same"
            )
        cells = _cells(block.grid, block.min_valid)
        reader = TileReader(
            block.scene,
            block.grid,
            block.radiometry,
            out_size=self._input_size,
            tiles=block.tiles.tolist(),
            threads=self._reading_threads,
        )
        with reader:
            waiting, turn = _Waiting(iter(reader)), _Turn(self._classifier, self._lock)
            results = [result for batch in classify_tiles(waiting, cells, turn) for result in batch]
        classes = len(self.maker.card.classes)
        return pack(
            results,
            classes=classes,
            reading_s=waiting.seconds,
            model_s=turn.seconds,
            worker=self.name,
        )


def load_engine(spec: EngineSpec, *, reading_threads: int = 1, name: str = "") -> Engine:
    """Load a model to its device.

    Raises ``BundleError`` for a model that cannot be loaded, ``UsageError`` for a device or
    captioner that is not there.
    """
    import torch

    from rssc_geo.captioning import describe_captioner, make_captioner
    from rssc_geo.inference import TileClassifier, choose_compute
    from rssc_geo.models import load_bundle

    torch.set_num_threads(min(torch.get_num_threads(), spec.threads or processors()))
    compute = choose_compute(spec.device, dtype=spec.dtype, batch_size=spec.batch_size)
    model = load_bundle(spec.model, revision=spec.revision)
    captioner = make_captioner(
        model,
        replace(spec.caption_options, captioner=spec.captioner),
        device=compute.device,
        dtype=compute.dtype,
    )
    maker = Maker(
        model.card, describe_captioner(captioner), str(compute.dtype).removeprefix("torch.")
    )
    classifier = TileClassifier(model, captioner, compute)
    return Engine(
        maker,
        classifier,
        input_size=model.card.input_size,
        reading_threads=reading_threads,
        name=name or str(compute.device),
    )


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.lru_cache(maxsize=16)
def _cells(grid: TileGrid, min_valid: float) -> CellMap:
    """What makes a tile worth looking at does not depend on which cells are asked for."""
    return CellMap(grid, np.ones(grid.cells_shape, bool), min_valid=min_valid)


class _Waiting:
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


class _Turn:
    """The classifier, one batch at a time, counting the seconds that it works."""

    def __init__(self, classifier: Classifies, lock: threading.Lock) -> None:
        self._classifier = classifier
        self._lock = lock
        self.seconds = 0.0

    @property
    def batch_size(self) -> int:
        return self._classifier.batch_size

    def __call__(self, pixels: np.ndarray, mask: np.ndarray) -> Prediction:
        with self._lock:
            started = time.monotonic()
            try:
                return self._classifier(pixels, mask)
            finally:
                self.seconds += time.monotonic() - started
