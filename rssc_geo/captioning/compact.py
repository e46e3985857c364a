"""``--captioner compact``: the bundle's own captioner."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from rssc_geo.captioning.base import CaptionBatch
from rssc_geo.models import END, PAD, CaptionDecoder, CaptionSource


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
        return [
            str(self._vocabulary.id_to_token(index)) for index in row if index not in {PAD, END}
        ]


def detokenize(words: Sequence[str]) -> str:
    """Words of the vocabulary as a sentence: capital, no space before punctuation, full stop.

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
