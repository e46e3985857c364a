"""The run of one scene, from the plan to the map, for ``classify`` and for batches. No torch here.

The results may come from a loop in this process, from several devices or from other machines.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from rssc_geo.closing import Closing
from rssc_geo.errors import InputError, NothingToClassifyError
from rssc_geo.files import local_file
from rssc_geo.geometry import BlockGrid
from rssc_geo.inference.aggregate import CellAggregator, TileResult
from rssc_geo.inference.plan import Plan, PredictorSpec, describe_run, without_folders
from rssc_geo.inference.tiles import predict_tiles
from rssc_geo.models import check_embeddings, legend_of
from rssc_geo.options import TilingOptions, options_of
from rssc_geo.output import (
    NAME_ALL,
    CellBatch,
    EmbeddingLayer,
    EmbeddingSource,
    GeoGrid,
    LandUseSummary,
    LandUseWriter,
    OutputTarget,
    PartFile,
    UnknownRule,
    date_text,
)
from rssc_geo.progress import Progress
from rssc_geo.raster import TileReader, acquired

if TYPE_CHECKING:
    from rssc_geo.inference.predictor import Predictor

log = logging.getLogger(__name__)

_WAITING = 4
"""Batches that may wait to be written: enough to hide a slow disk, too few to fill memory."""


class SceneRun(Closing):
    """The run of a scene; holds its part file until it is closed; a context manager.

    Attributes
    ----------
    plan, target, spec : the scene and its cells, the output, the model
    files : fingerprint of the scene's files; given where an earlier run of this process looked at
        them, they must still be the same
    tiles, remaining : int64, ascending: indices of all tiles (of a fine map: blocks) with selected
        cells, and of those that an earlier run has left
    watermark : the one before which the earlier run was done; 0 for a fresh one

    Raises ``OutputError`` when another process writes the same target.
    """

    def __init__(
        self, plan: Plan, target: OutputTarget, spec: PredictorSpec, *, files: str | None = None
    ) -> None:
        self.plan, self.target, self.spec = plan, target, spec
        self.tiles: NDArray[np.int64] = plan.unit_cells.tiles()
        self.files = files or plan.scene.fingerprint(network=False)
        on_disk = all(local_file(name) is not None for name in plan.scene.files)
        self._fingerprint = self.files if on_disk else plan.scene.fingerprint()
        card = spec.card
        self._date = target.date or acquired(plan.scene)
        self._embedded = self._source() if target.embeds else None
        self._writer = LandUseWriter(
            target,
            GeoGrid(plan.grid, plan.scene.transform, plan.scene.crs),
            classes=legend_of(card) if target.unknown else card.classes,
            run_key=self._key(),
            provenance=self._provenance(),
            unknown=(
                UnknownRule.of_card(card, windows=plan.blocks is not None)
                if target.unknown and card.tells_unknown
                else NAME_ALL
            ),
        )
        called = plan.units_called
        log.info("%d %s to classify; part file %s", len(self.tiles), called, target.part_path)
        self.watermark = self._writer.watermark
        self.remaining = self.tiles
        if self.watermark:
            self.remaining = self.tiles[self.tiles >= plan.unit_cells.restart(self.watermark)]
            done = int((self.tiles < self.watermark).sum())
            log.info("continuing after %d of %d %s", done, len(self.tiles), called)
        self._aggregator = CellAggregator(
            plan.unit_cells, classes=len(card.classes), done=self.watermark
        )

    def classify(self, predictor: Predictor, progress: Progress) -> int:
        """Classify the remaining tiles in this process; the number that the network processed.

        Reading, the network and writing run in parallel. Raises ``InputError`` where the raster
        cannot be read, ``OutputError`` where the part file cannot be written.
        """
        started = time.monotonic()
        done = len(self.tiles) - len(self.remaining)
        looked = 0
        progress("classify", done, len(self.tiles))
        size = self.spec.card.input_size
        with (
            self.plan.unit_reader(self.remaining.tolist(), input_size=size) as reader,
            _WriterThread(self.take) as writer,
        ):
            for results in predict_tiles(
                reader, self.plan.unit_cells, predictor, embed=self.target.embeds
            ):
                writer.put(results)
                done += len(results)
                looked += sum(result.probabilities is not None for result in results)
                progress("classify", done, len(self.tiles))
        seconds = time.monotonic() - started
        log.info("%d %s classified in %.1f s", looked, self.plan.units_called, seconds)
        return looked

    def take(self, results: Sequence[TileResult]) -> None:
        """Keep the results of the next tiles, in their order; from one thread at a time."""
        cells: CellBatch = self._aggregator.add(results)
        if self.plan.out_of_range:
            cells = replace(cells, familiarity=cells.familiarity * 0)
        self._writer.append(cells, results[-1].tile.index + 1)

    def finish(self, extra_provenance: Mapping[str, object]) -> LandUseSummary:
        """Make the map once all tiles were taken; ``discard`` then ends the run.

        Raises ``InputError`` for a raster that changed in the meantime and
        ``NothingToClassifyError`` for one without a valid cell (nothing is kept then),
        ``OutputError`` when the map cannot be written (the part file is kept).
        """
        started = time.monotonic()
        self._check_complete()
        summary = self._writer.make(extra_provenance, self._pixels, self._embedded)
        log.info("%s written in %.1f s", self.target.path, time.monotonic() - started)
        return summary

    def settle(self) -> PartFile:
        """The cells once all tiles were taken, for results without a map; raises as ``finish``."""
        self._check_complete()
        return self._writer.settle()

    def embeddings(self, cells: int) -> EmbeddingLayer:
        """The rows of the ``cells`` with their embeddings once all tiles were taken.

        The part file is kept. Raises ``InputError`` and ``OutputError`` as ``finish``, the former
        also where there are more or fewer cells, as of a scene that changed on its server.
        """
        self._check_unchanged()
        if len(self) != cells:
            raise self._changed()
        if self._embedded is None:
            raise ValueError("the cells have no embeddings")
        return self._writer.embeddings(self._embedded)

    def announce(self) -> None:
        """Record that something was added to the map, which is still of this run."""
        self._writer.announce()

    def discard(self) -> None:
        """Delete the part file; until then a run that was killed can be continued."""
        self._writer.discard()

    def __len__(self) -> int:
        """Number of cells so far."""
        return len(self._writer)

    def _check_complete(self) -> None:
        self._check_unchanged()
        if not len(self._writer):
            self._writer.discard()
            raise nothing_to_classify(self.plan)

    def _check_unchanged(self) -> None:
        if self.plan.scene.fingerprint(network=False) != self.files:
            raise self._changed()

    def _changed(self) -> InputError:
        """The error for a scene of which cells were read before and after a change."""
        self._writer.discard()
        return InputError(
            f"{self.plan.scene.source} changed while it was being read: the results are dropped,"
            " run it again"
        )

    def _pixels(self, blocks: BlockGrid, wanted: Sequence[int]) -> TileReader:
        """Some blocks of the scene, in the network's colors, read by one thread."""
        plan = self.plan
        return TileReader(
            plan.scene, blocks, plan.radiometry, out_size=(1, 1), tiles=wanted, threads=1
        )

    def _source(self) -> EmbeddingSource:
        card = self.spec.card
        return EmbeddingSource(
            self.plan.scene.name, self._date, card.name, card.version, check_embeddings(card)
        )

    def close(self) -> None:
        """Close the part file; the next identical run continues from it."""
        self._writer.close()

    def _key(self) -> dict[str, Any]:
        """Everything on which the cells depend, by names that users know.

        A part file of another key is not continued.
        """
        options = {o.flag: getattr(self.plan.options, o.name) for o in options_of(TilingOptions)}
        names = {"class_choice": "choice of classes", "rssc_geo": "version"}
        return {
            "input": self._fingerprint,
            **options,
            "--aoi": hashlib.sha256(self.plan.selected.tobytes()).hexdigest(),
            "scaling": asdict(self.plan.radiometry),
            **{names.get(name, name): value for name, value in self.spec.as_dict().items()},
            "embeddings": self.target.embeds,
        }

    def _provenance(self) -> dict[str, Any]:
        """The provenance of the map."""
        card, made_by = self.spec.card, self.spec.as_dict()
        libraries = ("torch", "rasterio", "pyogrio", "shapely")
        document = {
            **describe_run(self.plan, card).as_dict(),
            **made_by,
            "model": {**made_by["model"], "license": card.license, "accuracy": dict(card.accuracy)},
            "input_fingerprint": self._fingerprint,
            "input_marks": self.plan.scene.content_marks(),
            "date": None if self._date is None else date_text(self._date),
            "versions": {name: version(name) for name in libraries},
        }
        if self.target.full_provenance:
            return document
        return without_folders(document, self.plan, *self.spec.captioner_places)


def nothing_to_classify(plan: Plan) -> NothingToClassifyError:
    """The error for a raster of which no cell has enough valid pixels."""
    return NothingToClassifyError(
        f"{plan.scene.source}: no cell has {plan.options.min_valid:.0%} valid pixels, so there is"
        " nothing to classify (--min-valid lowers the share, --nodata names another value)"
    )


class _WriterThread:
    """A thread that stores results while the model works; leaving it waits until all is stored.

    An error in the thread is raised by the next ``put`` or on leaving.
    """

    def __init__(self, take: Callable[[Sequence[TileResult]], None]) -> None:
        self._take = take
        self._queue: queue.Queue[Sequence[TileResult] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="rssc-geo writer", daemon=True)

    def put(self, results: Sequence[TileResult]) -> None:
        """Hand over tiles in ascending order; waits while too many are unwritten."""
        self._raise()
        if results:
            self._queue.put(results)

    def _work(self) -> None:
        while (results := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep emptying the queue, so that no thread waits for a place in it
            try:
                self._take(results)
            except BaseException as error:  # noqa: BLE001 -- raised in the main thread
                self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._finish()
        except BaseException:  # a stop: the thread would write into what is closed next
            self._finish()
            raise
        if kind is None:
            self._raise()

    def _finish(self) -> None:
        self._queue.put(None)
        self._thread.join()
