"""Sample size of reference labels, its allocation to strata, and drawing of the sample.

Cochran, Sampling Techniques, 3rd edition, 1977, chapters 5 and 8; Olofsson et al., Remote Sensing
of Environment 148 (2014), 42–57, section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def sample_size(
    units: NDArray[np.int64], accuracies: Sequence[float], standard_error: float
) -> int:
    """Units of a stratified sample for a standard error of the overall accuracy.

    Cochran's equation 5.25 with proportional weights: n = (Σ W S)² / (V + Σ W S² / N), in which V
    is the square of the standard error and S = √(u (1 − u)) of a stratum's expected accuracy u.

    Parameters
    ----------
    units : (H,), units of each stratum
    accuracies : (H,), the share that is expected to be right in each
    standard_error : the one aimed at, above 0

    Examples
    --------
    The example of Olofsson et al. (2014), section 5.1.1: 641 units.

    >>> import numpy as np
    >>> from rssc_geo.assessment import sample_size
    >>> pixels = np.array([200_000, 150_000, 3_200_000, 6_450_000])
    >>> sample_size(pixels, (0.7, 0.6, 0.9, 0.95), 0.01)
    641
    """
    weights = units / units.sum()
    expected = np.asarray(accuracies, np.float64)
    deviations = np.sqrt(expected * (1 - expected))
    spread = float((weights * deviations**2).sum()) / int(units.sum())
    needed = float(weights @ deviations) ** 2 / (standard_error**2 + spread)
    return min(max(1, math.ceil(round(needed, 6))), int(units.sum()))


def allocate(size: int, units: NDArray[np.int64], minimum: int) -> NDArray[np.int64]:
    """Units to draw of each stratum, (H,): in proportion, but no fewer than a minimum.

    What the small strata get beyond their proportion is taken from the others (Olofsson et al.
    2014, section 5.1.2); no stratum gets more than it has.

    Parameters
    ----------
    size : how many in all; more are drawn where the minima alone ask for more
    units : (H,), units of each stratum, above 0
    minimum : of each stratum

    Examples
    --------
    >>> import numpy as np
    >>> from rssc_geo.assessment import allocate
    >>> allocate(100, np.array([10, 100, 900]), 20).tolist()
    [10, 20, 70]
    """
    least = np.minimum(minimum, units)
    size = max(min(size, int(units.sum())), int(least.sum()))
    fixed = np.zeros(len(units), bool)
    exact = np.zeros(len(units))
    while True:
        left = size - int(least[fixed].sum())
        exact = np.where(fixed, least, left * units / max(1, int(units[~fixed].sum())))
        below = ~fixed & (exact < least)
        if not below.any():
            break
        fixed |= below
    drawn = np.minimum(np.floor(exact + 1e-9).astype(np.int64), units)
    # Units left over by rounding go to the largest remainders, as long as strata have units.
    for stratum in np.argsort(-(exact - drawn), kind="stable").tolist() * 2:
        if drawn.sum() < size and drawn[stratum] < units[stratum]:
            drawn[stratum] += 1
    return drawn


def draw_stratified(
    strata: NDArray[np.integer], drawn: NDArray[np.int64], *, seed: int
) -> NDArray[np.int64]:
    """A simple random sample without replacement of each stratum.

    Parameters
    ----------
    strata : integers (N,), the stratum of each unit of the population; below 0: in none
    drawn : (H,), units to draw of each
    seed : decides which; the same gives the same sample

    Returns indices of the units drawn, in random order, so that any first part of them is a sample
    too.
    """
    random = np.random.default_rng(seed)
    order = np.argsort(strata, kind="stable")
    ends = np.searchsorted(strata[order], np.arange(len(drawn) + 1))
    found = [
        order[start + random.choice(end - start, count, replace=False)]
        for start, end, count in zip(ends[:-1], ends[1:], drawn.tolist(), strict=True)
    ]
    return random.permutation(np.concatenate(found)).astype(np.int64)


def draw_systematic(
    rows: NDArray[np.integer], cols: NDArray[np.integer], size: int, *, seed: int
) -> NDArray[np.int64]:
    """The units on a square grid with a random start.

    Parameters
    ----------
    rows, cols : integers (N,), the place of each unit
    size : how many are expected; how many there are depends on the start
    seed : decides the start; the same gives the same sample

    Every unit has the same chance of size / N. Returns their indices in random order.
    """
    random = np.random.default_rng(seed)
    step = math.sqrt(len(rows) / min(size, len(rows)))
    kept = np.ones(len(rows), bool)
    for places in (rows, cols):
        start = random.uniform(0, step)
        nearest = start + np.ceil((places - start) / step) * step  # line at or behind each place
        kept &= np.floor(nearest) == places
    return random.permutation(np.flatnonzero(kept))
