"""Smoothing of cells with their neighbors, weaker where the picture changes between them.

Neighboring cells mostly are of one class. With l_i the log-probabilities that the model gives cell
i, those of the map, x_i, are near to l_i and to the x_j of the four cells beside it:

    x = argmin Σ |x_i - l_i|² + λ Σ w_ij |x_i - x_j|²,    w_ij = exp(-|c_i - c_j|² / 2σ²)

where c is a cell's mean color. The weights are those of Boykov and Jolly ("Interactive Graph Cuts",
ICCV 2001), the energy is that of Grady's random walker with priors ("Multilabel Random Walker Image
Segmentation Using Prior Models", CVPR 2005) on log-probabilities. A fixed number of Jacobi's rounds
is taken towards it,

    x_i ← (l_i + λ Σ_j w_ij x_j) / (1 + λ Σ_j w_ij)

the last of them half the way, since plain rounds turn a chessboard into its negative and hardly
weaken it. A cell depends only on cells within as many cells as there are rounds. Neighbors share
much of their context: their log-probabilities are averaged, not summed as in a Potts model, which
would drive the confidence to 1. λ, σ and the rounds were chosen on maps of fine cells by
benchmarks/fine.py and real_scenes.py; where cells are whole tiles, which share nothing, maps would
get worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

STRENGTH = 12.0
"""λ: the weight of a neighbor of the same color; the cell itself has weight 1."""
CONTRAST = 12.0
"""σ: color distance, of 255 a band, at which a neighbor's weight is 39 % smaller."""
ROUNDS = 8
_LAST = 0.5
"""Step size of the last round."""
_Places = slice | NDArray[np.intp]
"""Cells of a row."""
_Column = NDArray[np.float32]
"""A number a cell, (n, 1)."""
_LEAST = 1e-6
"""Least probability of a class, so that one confident cell does not exclude all others."""


@dataclass(frozen=True, slots=True)
class GridRow:
    """The cells of one row of the grid.

    Attributes
    ----------
    number : of the row
    cols : int32 (n,), ascending
    probabilities : float32 (n, C)
    colors : float32 (n, 3), mean red, green and blue, 0 to 255; NaN where not known
    told : bool (n,), the cells that take part in smoothing
    """

    number: int
    cols: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    colors: NDArray[np.float32]
    told: NDArray[np.bool_]


def smoothed(rows: Iterable[GridRow]) -> Iterator[NDArray[np.float32]]:
    """The smoothed probabilities (n, C) of each row of a map.

    ``rows``: all that have cells, ascending; some ten of them are held at a time. A class of
    probability 0 in a cell keeps it; cells that do not take part stay unchanged.
    """
    states: Iterator[_State] = ((row, row.log_p) for row in _linked(rows))
    for step in range(ROUNDS):
        states = _round(states, way=1.0 if step < ROUNDS - 1 else _LAST)
    for row, log_p in states:
        before = row.own.probabilities
        likely = np.where(before > 0, np.exp(log_p - log_p.max(1, keepdims=True)), 0)
        after = likely / likely.sum(1, keepdims=True)
        yield np.where(row.own.told[:, None], after, before)


@dataclass(frozen=True, slots=True)
class _Link:
    """Cells of a row and those of the next that lie beside them, with λ w (k, 1)."""

    upper: NDArray[np.intp]
    lower: NDArray[np.intp]
    weight: _Column


@dataclass(frozen=True, slots=True)
class _LinkedRow:
    """A row with λ w (n - 1, 1) of cells side by side and its links to the rows above and below."""

    own: GridRow
    log_p: NDArray[np.float32]
    along: _Column
    above: _Link | None
    below: _Link | None

    def updated(
        self,
        own: NDArray[np.float32],
        above: NDArray[np.float32],
        below: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The next x (n, C), from this row's and those of the rows above and below."""
        total, weight = self.log_p.copy(), np.ones((len(own), 1), np.float32)

        def add(here: _Places, values: NDArray[np.float32], there: _Places, link: _Column) -> None:
            total[here] += link * values[there]
            weight[here] += link

        add(slice(1, None), own, slice(None, -1), self.along)
        add(slice(None, -1), own, slice(1, None), self.along)
        if self.above is not None:
            add(self.above.lower, above, self.above.upper, self.above.weight)
        if self.below is not None:
            add(self.below.upper, below, self.below.lower, self.below.weight)
        return total / weight


_State = tuple[_LinkedRow, NDArray[np.float32]]
"""A row and its x (n, C) after some rounds."""


def _linked(rows: Iterable[GridRow]) -> Iterator[_LinkedRow]:
    here, above = None, None
    for following in chain(rows, [None]):
        if here is not None:
            below = _link(here, following)
            log_p = np.log(np.maximum(here.probabilities, np.float32(_LEAST)))
            ends = slice(None, -1), slice(1, None)
            beside = here.cols[1:] == here.cols[:-1] + 1
            along = np.where(beside[:, None], _weight(here, ends[0], here, ends[1]), np.float32(0))
            yield _LinkedRow(here, log_p, along, above, below)
            above = below
        here = following


def _link(upper: GridRow, lower: GridRow | None) -> _Link | None:
    if lower is None or lower.number != upper.number + 1:
        return None
    _, one, other = np.intersect1d(upper.cols, lower.cols, assume_unique=True, return_indices=True)
    return _Link(one, other, _weight(upper, one, lower, other))


def _weight(one: GridRow, here: _Places, other: GridRow, there: _Places) -> _Column:
    """λ w (k, 1) of pairs of cells; an unknown color does not reduce the weight."""
    difference = np.nan_to_num(one.colors[here] - other.colors[there])
    contrast = (difference**2).sum(1, keepdims=True) / np.float32(2 * CONTRAST**2)
    both = one.told[here] & other.told[there]
    return np.where(both[:, None], np.float32(STRENGTH) * np.exp(-contrast), np.float32(0))


def _round(states: Iterable[_State], *, way: float) -> Iterator[_State]:
    """One of Jacobi's rounds, or a part ``way`` of it, one row behind its input."""
    nothing = np.zeros((0, 0), np.float32)
    above, here = nothing, None
    for following in chain(states, [None]):
        if here is not None:
            row, x = here
            below = nothing if following is None else following[1]
            yield row, x + np.float32(way) * (row.updated(x, above, below) - x)
            above = x
        here = following
