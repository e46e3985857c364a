"""Rules for ``Unknown`` cells: the cell, or the whole raster, is unlike the training pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rssc_geo.models import ModelCard

PLAIN = "OpenWater"
"""The class of plain water, as the embedded model calls it."""
PLAIN_CONFIDENCE, PLAIN_WINDOW_CONFIDENCE = 0.6, 0.9
"""Water without texture is like few pictures; with at least this confidence it is told all the
same: of hazy sea two thirds were unfamiliar, a seventh without such cells. The second is for the
lower temperature of windows, at which the same cells have it."""
MOST = 1 / 5
"""Share of a raster's cells.

Of real scenes at most 0.14 were unfamiliar; of what is no photograph and recognized by this, at
least 0.42.
"""


@dataclass(frozen=True, slots=True)
class UnknownRule:
    """The least familiarity, in [0, 1], of named cells; 0: everything is named.

    Attributes
    ----------
    cell : a cell that is less familiar is ``Unknown``
    raster : all cells are, where more than ``MOST`` of them are less familiar than that, or where
        none has a color
    plain : number of the class of plain water, whose cells count for the raster only where their
        confidence is less than ``plain_confidence``; None: the model has no such class
    """

    cell: float = 0.0
    raster: float = 0.0
    plain: int | None = None
    plain_confidence: float = PLAIN_CONFIDENCE

    @classmethod
    def of_card(cls, card: ModelCard, *, windows: bool) -> UnknownRule:
        """What a model's card says, of a map of ``windows`` or of whole tiles."""
        plain = next((known.id for known in card.classes if known.name == PLAIN), None)
        surer = windows and card.window_temperature is not None
        confidence = PLAIN_WINDOW_CONFIDENCE if surer else PLAIN_CONFIDENCE
        return cls(card.unknown_below, card.unknown_raster_below, plain, confidence)


NAME_ALL = UnknownRule()
