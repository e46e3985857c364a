"""Rules for ``Unknown`` cells: the cell, or the whole raster, is unlike the training pictures."""

from __future__ import annotations

from dataclasses import dataclass

MOST = 1 / 6
"""Share of a raster's cells; of real scenes at most 0.13 were unfamiliar (hazy sea)."""


@dataclass(frozen=True, slots=True)
class UnknownRule:
    """The least familiarity, in [0, 1], of named cells; 0: everything is named.

    Attributes
    ----------
    cell : a cell that is less familiar is ``Unknown``
    raster : all cells are, where more than ``MOST`` of them are less familiar than that, or where
        none has a color
    """

    cell: float = 0.0
    raster: float = 0.0


NAME_ALL = UnknownRule()
