"""The shares of the classes in a scene, estimated from the model's probabilities of its cells.

A model that was trained on equally many pictures of each class expects equally many cells of each.
By the EM algorithm of Saerens, Latinne and Decaestecker ("Adjusting the Outputs of a Classifier to
New a Priori Probabilities: A Simple Procedure", Neural Computation 14, 2002) the shares of a scene
are found without a label: with the shares s(c) of the scene and t(c) of the training,

    p'(c|x) = p(c|x) s(c)/t(c) / Σ p(k|x) s(k)/t(k)        for each cell x
    s(c)    = mean of p'(c|x) over the cells               until s stays as it is

starting from s = t. All classes have the same weight in training here, t(c) = 1/C, and t cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_CELLS = 50
"""With fewer cells the shares are too uncertain."""
TOLERANCE = 1e-5
"""The iteration ends when no share changes by more."""
_ROUNDS = 100
_LEAST_SHARE = 1e-4
"""Least share of an allowed class, so that it can always occur."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Estimated shares, float64 (C,), of sum 1, and the rounds of the algorithm that it took."""

    values: NDArray[np.float64]
    rounds: int

    def adapt(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (N, C) of the model as those of the scene, float32 (N, C)."""
        return _adapted(probabilities, self.values).astype(np.float32)


def estimate_shares(chunks: Callable[[], Iterator[NDArray[np.float32]]], *, classes: int) -> Shares:
    """The shares of ``classes`` C classes among one or more cells.

    ``chunks``: starts a pass over the cells' probabilities, float32 (n, C) at a time, always in the
    same order; as many passes are made as there are rounds, 100 at most. A class of probability 0
    everywhere gets the share 0, any other one of 0.0001 at least.
    """
    shares = np.full(classes, 1 / classes)
    rounds, change = 0, np.inf
    while change > TOLERANCE and rounds < _ROUNDS:
        total = sum((_adapted(chunk, shares).sum(0) for chunk in chunks()), np.zeros(classes))
        found = np.where(total > 0, np.maximum(total / total.sum(), _LEAST_SHARE), 0)
        found /= found.sum()
        rounds, change, shares = rounds + 1, np.abs(found - shares).max(), found
    return Shares(shares, rounds)


def _adapted(
    probabilities: NDArray[np.float32], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    weighted = probabilities * shares
    return np.asarray(weighted / weighted.sum(1, keepdims=True))
