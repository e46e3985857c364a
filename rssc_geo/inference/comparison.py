"""Change of cells between dates: signals of two observations, and their calibration.

Two signals indicate a change: the distance between the embeddings of a cell, and that between its
class probabilities. Light, haze, season and another grid change all cells of a scene a little, a
real change changes some of them much, so each signal is compared with the one that is typical of
the scene: its lower quartile over all cells that the dates share. The probability is a logistic
regression on their logarithms; its coefficients, and the threshold, were fitted on pairs with known
changes, ``benchmarks/change.py fit``. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-2
"""Added to a signal before its logarithm is taken: smaller values are noise."""


@dataclass(frozen=True, slots=True)
class DateCells:
    """The results of n cells at one date.

    Attributes
    ----------
    probabilities : float32 (n, C)
    embeddings : float32 (n, D), unit vectors; None where only the classes are known
    unknown : bool (n,), unlike what the model has learned
    """

    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    unknown: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ChangeCalibration:
    """Coefficients that turn signals into a probability of change.

    Attributes
    ----------
    intercept : of the logit
    weights : of the logarithm of each signal
    typical : weights of the logarithm of its typical value in the scene, see ``typical_signals``
    largest : the largest typical signals of unchanged pairs; larger ones are clipped to that
    least : the probability from which on a cell counts as changed
    """

    intercept: float
    weights: tuple[float, ...]
    typical: tuple[float, ...]
    largest: tuple[float, ...]
    least: float

    def probability(
        self, signals: NDArray[np.float32], typical: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """The probability (n,) of a change, of signals (n, S) where ``typical`` ones are (S,)."""
        logs = np.log(signals.astype(np.float64) + FLOOR)
        logit = self.intercept + logs @ np.array(self.weights)
        logit += np.log(np.minimum(typical, self.largest) + FLOOR) @ np.array(self.typical)
        return np.asarray(1 / (1 + np.exp(-logit)), np.float32)


BY_EMBEDDINGS = ChangeCalibration(
    intercept=-2.822,
    weights=(2.735, 0.603),
    typical=(-1.286, -0.622),
    largest=(0.094, 0.013),
    least=0.35,
)
"""For embeddings and classes; fitted on scenes by the embedded model 1.5.1, a tenth changed."""

BY_CLASSES = ChangeCalibration(
    intercept=-13.944, weights=(1.348,), typical=(-3.289,), largest=(0.007,), least=0.59
)
"""For the two likeliest classes alone, which finished maps keep; same model and share."""


def typical_signals(signals: NDArray[np.float32]) -> NDArray[np.float64]:
    """The typical signals of a scene, (S,): the lower quartile of signals (n, S).

    It measures how much the dates differ without a change, as long as a quarter of the cells is
    unchanged.
    """
    return np.asarray(np.quantile(signals, 0.25, axis=0), np.float64)


def change_signals(before: DateCells, after: DateCells) -> NDArray[np.float32]:
    """Distances of the cells between two dates, float32 (n, S).

    Where both have embeddings first theirs, one less the cosine. Then that of the classes, one less
    the Bhattacharyya coefficient Σ √(p q) (Bhattacharyya, Bulletin of the Calcutta Mathematical
    Society 35 (1943), 99–109): 0 where both dates are equal, 1 where they share no class.
    Probabilities that do not sum to 1, as of a map that keeps two of them, are normalized.

    ``before`` and ``after`` are the same n cells at both dates.

    Examples
    --------
    >>> import numpy as np
    >>> from rssc_geo.inference import DateCells, change_signals
    >>> sure = np.eye(2, dtype=np.float32)
    >>> known = np.zeros(2, bool)
    >>> change_signals(DateCells(sure, None, known), DateCells(sure[:1].repeat(2, 0), None, known))
    array([[0.],
           [1.]], dtype=float32)
    """
    p, q = (each.probabilities.astype(np.float64) for each in (before, after))
    sums = p.sum(1) * q.sum(1)
    found = [1 - np.sqrt(p * q).sum(1) / np.sqrt(np.where(sums > 0, sums, 1))]
    if before.embeddings is not None and after.embeddings is not None:
        a, b = (each.astype(np.float64) for each in (before.embeddings, after.embeddings))
        found.insert(0, ((a - b) ** 2).sum(1) / 2)
    return np.asarray(np.stack(found, 1).clip(0, 1), np.float32)


def mean_date(dates: Sequence[DateCells]) -> DateCells:
    """Several dates of the same cells as their mean: over the known ones where there are any."""
    if len(dates) == 1:
        return dates[0]
    known = np.stack([~date.unknown for date in dates])
    told = (known | ~known.any(0))[:, :, None].astype(np.float32)
    probabilities = (told * [date.probabilities for date in dates]).sum(0) / told.sum(0)
    embeddings = None
    if all(date.embeddings is not None for date in dates):
        sums = np.sum([date.embeddings for date in dates if date.embeddings is not None], 0)
        embeddings = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return DateCells(probabilities.astype(np.float32), embeddings, np.asarray(~known.any(0)))


def split_signals(dates: Sequence[DateCells]) -> NDArray[np.float32]:
    """The signals of each way to split a series, float32 (n, dates − 1, S).

    The k-th compares the mean of the first k + 1 dates with that of the others, so that something
    visible at one date only, such as a cloud, weighs less than a lasting change.
    """
    splits = [
        change_signals(mean_date(dates[:place]), mean_date(dates[place:]))
        for place in range(1, len(dates))
    ]
    return np.stack(splits, 1)


@dataclass(frozen=True, slots=True)
class CellClasses:
    """Classes of n cells before and after.

    ``before``, ``after``: int16 (n,), class ids, that of ``Unknown`` behind the named ones;
    ``before_confidence``, ``after_confidence``: float32 (n,), their probabilities at these dates, 0
    of ``Unknown``.
    """

    before: NDArray[np.int16]
    after: NDArray[np.int16]
    before_confidence: NDArray[np.float32]
    after_confidence: NDArray[np.float32]


def decide_classes(before: DateCells, after: DateCells, changed: NDArray[np.bool_]) -> CellClasses:
    """The classes of cells before and after; ``changed``: which of them changed, (n,).

    A changed cell has the class of each date. An unchanged cell has one class, that of the largest
    product of the two probabilities; where it is unknown at one date, that of the other.
    """
    p, q = before.probabilities, after.probabilities
    unknown = p.shape[1]
    if not unknown:  # two maps that name nothing
        ids, confidence = np.zeros(len(p), np.int16), np.zeros(len(p), np.float32)
        return CellClasses(ids, ids, confidence, confidence)
    own = (
        np.where(before.unknown, unknown, p.argmax(1)),
        np.where(after.unknown, unknown, q.argmax(1)),
    )
    both = np.where(after.unknown[:, None], p, np.where(before.unknown[:, None], q, p * q))
    # Where they share no class, that of the date with the higher probability.
    none = both.max(1) <= 0
    both = np.where(none[:, None], np.maximum(p, q), both)
    stable = np.where(before.unknown & after.unknown, unknown, both.argmax(1))
    first, last = (np.where(changed, each, stable).astype(np.int16) for each in own)
    rows = np.arange(len(p))
    padded = [np.concatenate([t, np.zeros((len(t), 1), t.dtype)], 1) for t in (p, q)]
    return CellClasses(
        first,
        last,
        padded[0][rows, first].astype(np.float32),
        padded[1][rows, last].astype(np.float32),
    )
