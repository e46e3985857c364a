"""Estimates from a probability sample of reference labels: accuracy and areas with intervals.

One estimator serves all designs: the stratified ratio estimator with known stratum areas. Where the
strata are the map's classes it is that of Olofsson et al., Remote Sensing of Environment 129
(2013), 122–131, and 148 (2014), 42–57, equations 1 to 12; where they are not, that of Stehman,
International Journal of Remote Sensing 35 (2014), 4923–4939. Its variance is Cochran's (Sampling
Techniques, 3rd edition, 1977, section 6.11): that of the ratio's linear residuals, stratum by
stratum. Units of different areas weigh by their area within a stratum, which changes nothing where
all are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""The 0.975 quantile of the normal distribution: half the width of a 95 % interval, in errors."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate and its standard error; NaN where the sample is too small.

    ``low`` and ``high`` bound the 95 % interval of the normal distribution, not cut at 0 or 1.
    """

    value: float
    standard_error: float

    @property
    def low(self) -> float:
        """The lower end of the 95 % interval."""
        return self.value - Z_95 * self.standard_error

    @property
    def high(self) -> float:
        """The upper end of the 95 % interval."""
        return self.value + Z_95 * self.standard_error

    def times(self, factor: float) -> Estimate:
        """The same in another unit: an area of a share."""
        return Estimate(self.value * factor, self.standard_error * factor)


@dataclass(frozen=True)
class Sample:
    """n labeled units of a sample from H strata, among C classes.

    Attributes
    ----------
    strata : integers (n,), the stratum of each unit, from 0
    mapped : float64 (n, C), the share of each unit's area that the map gives to each class
    reference : integers (n,), the class that each unit has in truth
    unit_areas : float64 (n,), above 0, in any unit
    stratum_areas : float64 (H,), in m²; strata without units take no part
    stratum_units : int64 (H,), units of each stratum in the population; None where they are points
        without number. A stratum that is all in the sample adds no error
    corrected : whether the variances have the finite population correction for the others too
    """

    strata: NDArray[np.int64]
    mapped: NDArray[np.float64]
    reference: NDArray[np.int64]
    unit_areas: NDArray[np.float64]
    stratum_areas: NDArray[np.float64]
    stratum_units: NDArray[np.int64] | None = None
    corrected: bool = True

    def __post_init__(self) -> None:
        n, strata = len(self.strata), len(self.stratum_areas)
        shapes = (self.mapped.shape[:1], self.reference.shape, self.unit_areas.shape)
        if not n or any(shape != (n,) for shape in shapes):
            raise ValueError(f"not the same number of units, at least one: {n}, {shapes}")
        if self.strata.max() >= strata or (
            self.stratum_units is not None and self.stratum_units.shape != (strata,)
        ):
            raise ValueError(f"not {strata} strata")

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Units of each stratum, (H,)."""
        return np.bincount(self.strata, minlength=len(self.stratum_areas))

    @cached_property
    def area_m2(self) -> float:
        """Area of the strata that have units."""
        return float(self.stratum_areas[self.counts > 0].sum())

    @cached_property
    def truth(self) -> NDArray[np.float64]:
        """The classes of the reference as ``mapped``, (n, C)."""
        return np.eye(self.mapped.shape[1])[self.reference]

    @cached_property
    def right(self) -> NDArray[np.float64]:
        """The share of each unit's area that the map has right, (n,)."""
        return self.mapped[np.arange(len(self.reference)), self.reference]

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """Share of the area that each unit stands for, (n,): its stratum's, divided by area."""
        within = np.bincount(self.strata, self.unit_areas, minlength=len(self.stratum_areas))
        weights = self.stratum_areas[self.strata] / self.area_m2
        return np.asarray(weights * self.unit_areas / within[self.strata])

    @cached_property
    def _error_factors(self) -> NDArray[np.float64]:
        """What a sum of squared residuals is multiplied by, (H,): (1 − f) n / (n − 1).

        Infinite for a single unit, 0 where all of a stratum is in the sample.
        """
        n = self.counts
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = np.where(n > 1, n / (n - 1.0), np.inf)
            if self.stratum_units is not None:
                factors = factors * (1 - n / self.stratum_units if self.corrected else 1)
                factors = np.where(n >= self.stratum_units, 0.0, factors)
        return np.asarray(factors)

    def ratio(
        self, numerator: NDArray[np.float64], denominator: NDArray[np.float64] | None = None
    ) -> Estimate:
        """The ratio of two means, or a mean, with its standard error.

        ``numerator``, ``denominator``: (n,), what units have; by default 1 each. NaN for a ratio to
        nothing, and for the error where it rests on a stratum with a single unit.
        """
        below = np.ones(len(numerator)) if denominator is None else denominator
        whole = float(self.weights @ below)
        if not whole > 0:
            return Estimate(math.nan, math.nan)
        value = float(self.weights @ numerator) / whole
        linear = (numerator - value * below) / whole
        strata, count = self.strata, len(self.stratum_areas)
        within = np.bincount(strata, self.weights, minlength=count)
        with np.errstate(invalid="ignore"):
            means = np.bincount(strata, self.weights * linear, minlength=count) / within
        alone = np.isinf(self._error_factors) & (self.counts == 1)
        if (alone[strata] & ((numerator != 0) | (below != 0))).any():
            return Estimate(value, math.nan)
        squares = np.bincount(
            strata, (self.weights * (linear - means[strata])) ** 2, minlength=count
        )
        known = (self.counts > 0) & ~alone
        return Estimate(value, math.sqrt(float(squares[known] @ self._error_factors[known])))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The accuracy of a map, and the areas of its classes adjusted for its errors.

    Attributes
    ----------
    counts : float64 (C, C), units by map class (rows) and reference class (columns); a unit that
        lies in several classes of the map counts in parts
    shares : float64 (C, C), the same as estimated shares of the area
    overall : share of the area that the map has right
    users : by class, share of what the map gives to it that is right; NaN where no unit is
    producers : by class, share of what is of it that the map shows
    area_shares : by class, share of the area that is of it
    area_m2 : of what the figures are about
    """

    counts: NDArray[np.float64]
    shares: NDArray[np.float64]
    overall: Estimate
    users: tuple[Estimate, ...]
    producers: tuple[Estimate, ...]
    area_shares: tuple[Estimate, ...]
    area_m2: float

    @property
    def areas_m2(self) -> tuple[Estimate, ...]:
        """By class, the adjusted area in m²."""
        return tuple(share.times(self.area_m2) for share in self.area_shares)


def estimate_accuracy(sample: Sample) -> Accuracy:
    """Error matrix, accuracies and adjusted areas.

    Examples
    --------
    Forty of a hundred cells of one stratum, thirty of them right, all of class 0:

    >>> import numpy as np
    >>> from rssc_geo.assessment import Sample, estimate_accuracy
    >>> zeros, ones = np.zeros(40, np.int64), np.ones(40)
    >>> mapped = np.eye(2)[[0] * 30 + [1] * 10]
    >>> sample = Sample(zeros, mapped, zeros, ones, np.array([100.0]), np.array([100]))
    >>> estimate_accuracy(sample).overall
    Estimate(value=0.75, standard_error=0.053709...)
    """
    mapped, truth, right = sample.mapped, sample.truth, sample.right
    classes = range(mapped.shape[1])
    correct = mapped * truth
    return Accuracy(
        counts=mapped.T @ truth,
        shares=(mapped * sample.weights[:, None]).T @ truth,
        overall=sample.ratio(right),
        users=tuple(sample.ratio(correct[:, i], mapped[:, i]) for i in classes),
        producers=tuple(sample.ratio(correct[:, i], truth[:, i]) for i in classes),
        area_shares=tuple(sample.ratio(truth[:, i]) for i in classes),
        area_m2=sample.area_m2,
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more one map has right than another, on the same units.

    ``p_value``: two-sided, of a normal test that both are equally accurate; NaN where the sample is
    too small.
    """

    difference: Estimate
    p_value: float


def compare_maps(sample: Sample, other: NDArray[np.float64]) -> Difference:
    """Compare the overall accuracies of two maps on one sample.

    The test is paired, since each unit is compared with both maps: a mean of differences by the
    sample's design, for a simple random sample McNemar's with its variance estimated (Foody,
    Photogrammetric Engineering & Remote Sensing 70 (2004), 627–633).

    ``other``: float64 (n, C), what the other map gives to the units. The difference is the sample's
    map less the other.
    """
    rows = np.arange(len(sample.reference))
    difference = sample.ratio(sample.right - other[rows, sample.reference])
    if not difference.standard_error > 0:
        certain = difference.standard_error == 0
        p_value = (1.0 if difference.value == 0 else 0.0) if certain else math.nan
    else:
        p_value = math.erfc(abs(difference.value / difference.standard_error) / math.sqrt(2))
    return Difference(difference, p_value)
