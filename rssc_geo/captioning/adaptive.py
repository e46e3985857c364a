"""``--caption-when uncertain``: a large captioner for the tiles that the model is not sure of."""

from __future__ import annotations

from dataclasses import dataclass

from rssc_geo.captioning.base import CaptionBatch, Captioner
from rssc_geo.models import CaptionSource


@dataclass(frozen=True, slots=True)
class AdaptiveCaptioner:
    """``first`` for every tile, ``second`` for those whose class is then less likely than
    ``threshold``.

    ``TileClassifier`` asks the two in turn: it alone knows how sure the model is. Asked directly,
    it is ``second``.
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
        """What ``second`` says."""
        return self.second.caption(batch)
