"""Rules for ``Unknown`` cells: the cell, or the whole raster, is unlike the training pictures."""

from __future__ import annotations

from dataclasses import dataclass

PLAIN = "OpenWater"
"""The class of plain water, as the embedded model calls it."""
PLAIN_CONFIDENCE = 0.7
"""Water without texture is like few pictures; with at least this confidence it is told all the
same. Of hazy sea up to 0.25 are unfamiliar, nearly all of it with more."""
_MOST, _MOST_WITH_WATER = 0.1, 1 / 6


@dataclass(frozen=True, slots=True)
class UnknownRule:
    """The least familiarity, in [0, 1], of named cells; 0: everything is named.

    Attributes
    ----------
    cell : a cell that is less familiar is ``Unknown``
    raster : all cells are, where more than ``most`` of them are less familiar than that, or where
        none has a color
    plain : number of the class of plain water, whose cells count for the raster only where their
        confidence is less than ``PLAIN_CONFIDENCE``; None: the model has no such class
    """

    cell: float = 0.0
    raster: float = 0.0
    plain: int | None = None

    @property
    def most(self) -> float:
        """The largest share of unfamiliar cells of a raster that is judged cell by cell.

        Of real scenes, also brighter or hazier ones, at most 0.05 were unfamiliar, with plain water
        at most 0.13; of rasters that are no photographs, of those that are recognized, at least
        0.19.
        """
        return _MOST_WITH_WATER if self.plain is None else _MOST


NAME_ALL = UnknownRule()
