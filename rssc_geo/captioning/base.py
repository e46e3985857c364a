"""What a captioner is: pictures in, one sentence or more a picture out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

    from rssc_geo.models import CaptionSource


@dataclass(frozen=True, slots=True)
class CaptionBatch:
    """Tiles to describe.

    ``pixels``: uint8 ``(B, H, W, 3)`` RGB; ``mask``: bool ``(B, H, W)``, True = valid;
    ``image_tokens``: ``(B, N, I)`` of the classifier's image encoder, for a captioner that reads
    them.
    """

    pixels: np.ndarray
    mask: np.ndarray
    image_tokens: torch.Tensor


class Captioner(Protocol):
    """Writes one caption a tile. A caption is a function of its tile alone, whatever the batch."""

    @property
    def name(self) -> str:
        """What ``--captioner`` calls it; part of the provenance."""

    @property
    def source(self) -> CaptionSource:
        """Whose words they are to the network."""

    def caption(self, batch: CaptionBatch) -> list[str]:
        """``B`` captions; an empty string where there is nothing to say."""


class NoCaptioner:
    """``--captioner none``: the network falls back to its learned queries."""

    name = "none"
    source: CaptionSource = "generated"

    def caption(self, batch: CaptionBatch) -> list[str]:
        """Empty strings."""
        return [""] * len(batch.pixels)
