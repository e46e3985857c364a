"""Where the network runs: device, precision, batch size, and what to do when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from rssc_geo.batching import ShrinkingBatches
from rssc_geo.captioning import AdaptiveCaptioner, CaptionBatch, Captioner
from rssc_geo.errors import UsageError, one_line
from rssc_geo.inference.aggregate import CellMap, TileResult
from rssc_geo.models import Model
from rssc_geo.raster import TileData

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BATCH_SIZE = {"cpu": 16, "mps": 64, "cuda": 256}


@dataclass(frozen=True, slots=True)
class Compute:
    """The chosen device, dtype of weights and activations, and tiles a batch."""

    device: torch.device
    dtype: torch.dtype
    batch_size: int


def choose_compute(
    device: str | None = None, *, dtype: str | None = None, batch_size: int | None = None
) -> Compute:
    """Pick what is there: CUDA in bfloat16, else Apple's MPS, else the CPU, both in float32.

    ``device``: any torch device name; ``dtype``: float32, bfloat16 or float16; ``batch_size``:
    tiles. Raises ``UsageError`` for an unknown name, a device that is not there, or a batch size
    under 1.
    """
    if device in (None, "auto"):
        device = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        chosen = torch.device(str(device))
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"--device {device} cannot be used: {one_line(error)}") from error
    if dtype in (None, "auto"):
        dtype = "bfloat16" if chosen.type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype} is unknown; use one of {', '.join(DTYPES)}")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size {batch_size} is not a number of tiles; give 1 or more")
    return Compute(chosen, DTYPES[str(dtype)], batch_size or _BATCH_SIZE.get(chosen.type, 16))


@dataclass(frozen=True, slots=True)
class Prediction:
    """``probabilities`` float32 ``(B, C)``, calibrated by the card's temperature, and ``B`` ``captions``."""

    probabilities: np.ndarray
    captions: list[str]


class TileClassifier:
    """Tiles in, probabilities and captions out; each tile's result is a function of that tile
    alone.

    When memory runs out the batch is halved, for this and all later batches, and the work goes on.
    """

    def __init__(self, model: Model, captioner: Captioner, compute: Compute) -> None:
        self._model = model
        self._captioner = captioner
        self._compute = compute
        self._batches = ShrinkingBatches(compute.batch_size, device=compute.device)
        model.network.to(device=compute.device, dtype=compute.dtype)
        if compute.device.type == "cpu":
            model.network.to(memory_format=torch.channels_last)
        if model.decoder is not None:
            model.decoder.to(device=compute.device, dtype=compute.dtype)

    @property
    def batch_size(self) -> int:
        """Tiles a batch, as memory has allowed so far."""
        return self._batches.size

    def __call__(self, pixels: np.ndarray, mask: np.ndarray) -> Prediction:
        """``pixels`` uint8 ``(B, H, W, 3)``, ``mask`` bool ``(B, H, W)``, True = valid; any B.

        Raises ``RsscGeoError`` when a single tile does not fit into memory.
        """
        parts = list(self._batches(lambda part: self._run(pixels[part], mask[part]), len(pixels)))
        if len(parts) == 1:
            return parts[0]
        classes = len(self._model.card.classes)
        probabilities = np.concatenate(
            [np.empty((0, classes), np.float32), *(part.probabilities for part in parts)]
        )
        return Prediction(probabilities, [text for part in parts for text in part.captions])

    @torch.inference_mode()
    def _run(self, pixels: np.ndarray, mask: np.ndarray) -> Prediction:
        compute, model, captioner = self._compute, self._model, self._captioner
        images = model.preprocess(pixels, mask).to(
            device=compute.device, dtype=compute.dtype, non_blocking=True
        )
        tokens = model.network.encode_image(images)
        if not isinstance(captioner, AdaptiveCaptioner):
            return self._read(captioner, CaptionBatch(pixels, mask, tokens))
        found = self._read(captioner.first, CaptionBatch(pixels, mask, tokens))
        unsure = np.flatnonzero(found.probabilities.max(1) < captioner.threshold).tolist()
        if unsure:
            better = self._read(
                captioner.second, CaptionBatch(pixels[unsure], mask[unsure], tokens[unsure])
            )
            found.probabilities[unsure] = better.probabilities
            for place, caption in zip(unsure, better.captions, strict=True):
                found.captions[place] = caption
        return found

    def _read(self, captioner: Captioner, batch: CaptionBatch) -> Prediction:
        """Caption and classify tiles whose image tokens are known."""
        model = self._model
        captions = captioner.caption(batch)
        read = captions if model.reads(captioner.source) else [""] * len(captions)
        ids, present = (
            values.to(self._compute.device)
            for values in model.tokenize(read, source=captioner.source)
        )
        logits = model.network.classify(batch.image_tokens, ids, present).float()
        return Prediction((logits / model.card.temperature).softmax(1).cpu().numpy(), captions)


class Classifies(Protocol):
    """What looks at batches of tiles, as ``TileClassifier`` does.

    ``batch_size`` may shrink while it works.
    """

    @property
    def batch_size(self) -> int:
        """Tiles a batch."""

    def __call__(self, pixels: np.ndarray, mask: np.ndarray) -> Prediction:
        """``pixels`` uint8 ``(B, H, W, 3)``, ``mask`` bool ``(B, H, W)``."""


_PENDING = 16384  # tiles without data (some 300 bytes each) that may wait for a batch to fill before it is run as it is


def classify_tiles(
    tiles: Iterable[TileData], cells: CellMap, classifier: Classifies
) -> Iterator[list[TileResult]]:
    """Runs of consecutive tiles with their results, a model batch in each.

    Tiles without data are not looked at.
    """
    pending: list[TileData | TileResult] = []
    wanted = 0
    for data in tiles:
        if cells.wanted(data.tile, data.valid_fraction, data.cell_fractions):
            pending.append(data)
            wanted += 1
        else:  # its pixels are not kept
            pending.append(
                TileResult(data.tile, data.valid_fraction, data.cell_fractions, None, "")
            )
        if wanted >= classifier.batch_size or len(pending) >= _PENDING + wanted:
            yield _classify_batch(pending, classifier)
            pending, wanted = [], 0
    if pending:
        yield _classify_batch(pending, classifier)


def _classify_batch(
    pending: list[TileData | TileResult], classifier: Classifies
) -> list[TileResult]:
    looked = [data for data in pending if isinstance(data, TileData)]
    if not looked:
        return [result for result in pending if isinstance(result, TileResult)]
    found = classifier(
        np.stack([data.pixels for data in looked]), np.stack([data.mask for data in looked])
    )
    rows = iter(zip(found.probabilities, found.captions, strict=True))
    return [
        (
            item
            if isinstance(item, TileResult)
            else TileResult(item.tile, item.valid_fraction, item.cell_fractions, *next(rows))
        )
        for item in pending
    ]
