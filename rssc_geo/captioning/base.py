"""The interface of captioners: tiles in, one caption each out. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import UsageError
from rssc_geo.options import CaptionerOptions

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from tokenizers import Tokenizer

    from rssc_geo.models import CaptionDecoder, CaptionSource

_DEFAULT_THRESHOLD = 0.9


@dataclass(frozen=True, slots=True)
class CaptionBatch:
    """Tiles to describe.

    Attributes
    ----------
    pixels : RGB (B, H, W, 3)
    mask : (B, H, W), True = valid
    image_tokens : (B, N, I) of the classifier's image encoder, for a captioner that reads them
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    image_tokens: torch.Tensor


class Captioner(Protocol):
    """Writes one caption a tile. A caption is a function of its tile alone, whatever the batch."""

    @property
    def name(self) -> str:
        """Its name for ``--captioner``; part of the provenance."""

    @property
    def source(self) -> CaptionSource:
        """The source of the captions, for the network that reads them."""

    def caption(self, batch: CaptionBatch) -> list[str]:
        """``B`` captions; an empty string where there is none."""


class NoCaptioner:
    """``--captioner none``: the network falls back to its learned queries."""

    name = "none"
    source: CaptionSource = "generated"

    def caption(self, batch: CaptionBatch) -> list[str]:
        """Empty strings."""
        return [""] * len(batch.pixels)


@dataclass(frozen=True, slots=True)
class AdaptiveCaptioner:
    """``--caption-when uncertain``: a large captioner for tiles of low confidence.

    ``first`` describes every tile, ``second`` those whose class is then less likely than
    ``threshold``. The predictor calls the two in turn, since only it knows the confidence. Called
    directly, it is ``second``.
    """

    first: Captioner
    second: Captioner
    threshold: float

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold {self.threshold} is not a probability above 0")

    @property
    def name(self) -> str:
        """That of ``second``."""
        return self.second.name

    @property
    def source(self) -> CaptionSource:
        """That of ``second``."""
        return self.second.source

    def caption(self, batch: CaptionBatch) -> list[str]:
        """The captions of ``second``."""
        return self.second.caption(batch)


def caption_threshold(options: CaptionerOptions) -> float | None:
    """Confidence under which tiles are captioned (``caption_when``); None: all are.

    Raises ``UsageError`` where it is neither "always" nor "uncertain[:THRESHOLD]".
    """
    when = options.caption_when
    if when == "always":
        return None
    word, _, number = when.partition(":")
    try:
        threshold = float(number) if number else _DEFAULT_THRESHOLD
    except ValueError:
        threshold = -1.0
    if word != "uncertain" or not 0 < threshold <= 1:
        raise UsageError(
            f"--caption-when {when!r} is not always, uncertain or uncertain:0.8 (above 0, up to 1)"
        )
    return threshold


def tile_image(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Image.Image:
    """A tile (H, W, 3) and its mask (H, W), True = valid, as an RGB image for a large model.

    Invalid pixels get the mean color of the valid ones: black ones would be described.
    """
    from PIL import Image

    if mask.any() and not mask.all():
        pixels = np.where(mask[..., None], pixels, pixels[mask].mean(0).round().astype(np.uint8))
    return Image.fromarray(np.ascontiguousarray(pixels))


class CompactCaptioner:
    """The bundle's own decoder and vocabulary.

    ``beam``: width of the beam search; 1 decodes greedily.
    """

    name = "compact"
    source: CaptionSource = "generated"

    def __init__(self, decoder: CaptionDecoder, vocabulary: Tokenizer, *, beam: int = 1) -> None:
        self._decoder = decoder
        self._vocabulary = vocabulary
        self.beam = beam

    def caption(self, batch: CaptionBatch) -> list[str]:
        """One sentence a tile, at most ``decoder.length`` words."""
        image = batch.image_tokens
        ids = (
            self._decoder.greedy(image)
            if self.beam == 1
            else self._decoder.beam(image, width=self.beam)
        )
        return [detokenize(self._words(row)) for row in ids.tolist()]

    def _words(self, row: list[int]) -> list[str]:
        from rssc_geo.models import END, PAD  # where torch is loaded already

        return [
            str(self._vocabulary.id_to_token(index)) for index in row if index not in {PAD, END}
        ]


def detokenize(words: Sequence[str]) -> str:
    """Words of the vocabulary as a sentence: capital, no space before punctuation, full stop.

    Examples
    --------
    >>> detokenize(["many", "planes", ",", "parked", "."])
    'Many planes, parked.'
    """
    text = ""
    for word in words:
        text += (
            word
            if not text or word in {".", ",", "'", "-", ";", "!"} or text[-1] in "'-"
            else f" {word}"
        )
    text = text.strip().rstrip(".").rstrip()
    return f"{text[0].upper()}{text[1:]}." if text else ""
