"""Designs and estimators against published examples, textbooks and simulation."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssc_geo.assessment import (
    Z_95,
    Sample,
    allocate,
    compare_maps,
    draw_stratified,
    draw_systematic,
    estimate_accuracy,
    sample_size,
)

DEFORESTATION = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
STRATA = "AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDDDDDDDDD"
MAPPED = "AAAAAAABBBABBBBBBBBBBBCCCCCCBBDDDDDDDDDD"
TRUTH = "AAAAACBABCABBBBBAABBCCCCCDDBBADDDDDDDCCB"


def codes(letters: str) -> np.ndarray:
    return np.array(["ABCD".index(letter) for letter in letters])


def stehman() -> Sample:
    units = np.array([40_000, 30_000, 20_000, 10_000])
    return Sample(
        codes(STRATA), np.eye(4)[codes(MAPPED)], codes(TRUTH), np.ones(40), units * 1.0, units
    )


def of_matrix(matrix: np.ndarray, areas: np.ndarray) -> Sample:
    """The units of an error matrix whose rows are the strata."""
    rows, cols = (np.repeat(axis.ravel(), matrix.ravel()) for axis in np.indices(matrix.shape))
    return Sample(rows, np.eye(len(matrix))[rows], cols, np.ones(len(rows)), areas)


def test_strata_that_are_the_classes() -> None:
    """Olofsson et al. (2014), section 5."""
    found = estimate_accuracy(of_matrix(DEFORESTATION, PIXELS * 900.0))
    users = [(each.value, Z_95 * each.standard_error) for each in found.users]
    producers = [(each.value, Z_95 * each.standard_error) for each in found.producers]
    hectares = [(a.value / 1e4, Z_95 * a.standard_error / 1e4) for a in found.areas_m2]
    assert np.round(users, 4).tolist() == [
        [0.88, 0.074], [0.7333, 0.1008], [0.9273, 0.0397], [0.9631, 0.0205],
    ]  # fmt: skip
    assert np.round(producers, 4).tolist() == [
        [0.7487, 0.2133], [0.8472, 0.2544], [0.9345, 0.0343], [0.9616, 0.0184],
    ]  # fmt: skip
    # The paper's half widths are 1.96 standard errors.
    expected = [(21157.8, 6157.6), (11686.2, 3755.8), (285769.9, 15509.8), (581386.2, 16281.7)]
    scaled = [(value, half * 1.96 / Z_95) for value, half in hectares]
    assert np.round(scaled, 1).tolist() == [list(pair) for pair in expected]
    assert round(found.overall.value, 4) == 0.9465
    assert round(Z_95 * found.overall.standard_error, 4) == 0.0185


def test_strata_that_are_not_the_classes() -> None:
    """Stehman (2014), table 2."""
    found = estimate_accuracy(stehman())
    for estimates, expected in (
        (found.area_shares, [(0.35, 0.0822), (0.34, 0.0759), (0.2, 0.0643), (0.11, 0.0307)]),
        (found.users, [(0.7419, 0.1645), (0.5745, 0.1248), (0.5, 0.2151), (0.7, 0.1527)]),
        (found.producers, [(0.6571, 0.1477), (0.7941, 0.1165), (0.3, 0.1504), (0.6364, 0.1623)]),
        ([found.overall], [(0.63, 0.0846)]),
    ):
        pairs = [(each.value, each.standard_error) for each in estimates]
        assert np.round(pairs, 4).tolist() == [list(pair) for pair in expected]
    assert found.shares[1, 2] == pytest.approx(0.08)
    assert found.shares.sum() == pytest.approx(1)


def test_a_stratum_with_one_unit_cannot_tell() -> None:
    """Estimates that depend on it have no standard error; others have one."""
    matrix = np.array([[5, 1, 0], [1, 4, 0], [0, 0, 1]])
    found = estimate_accuracy(of_matrix(matrix, np.array([6.0, 3.0, 1.0])))
    assert found.overall.value == pytest.approx(0.6 * 5 / 6 + 0.3 * 4 / 5 + 0.1)
    assert math.isnan(found.overall.standard_error)
    assert math.isnan(found.users[2].standard_error)
    assert found.users[0].standard_error > 0
    assert found.producers[0].standard_error > 0


def test_a_stratum_that_is_all_in_the_sample_adds_no_error() -> None:
    units = np.array([3, 1])
    sample = Sample(
        np.array([0, 0, 0, 1]), np.eye(2)[[0, 0, 0, 1]], np.array([0, 1, 0, 0]),
        np.ones(4), units * 1.0, units,
    )  # fmt: skip
    overall = estimate_accuracy(sample).overall
    assert overall.value == pytest.approx(0.5)
    assert overall.standard_error == 0
    partly = dataclasses.replace(sample, stratum_units=np.array([6, 1]), corrected=False)
    uncorrected = estimate_accuracy(partly).overall.standard_error
    assert uncorrected == pytest.approx(0.75 * math.sqrt(2 / 3 * 1 / 3 / 2))
    half = estimate_accuracy(dataclasses.replace(partly, corrected=True)).overall.standard_error
    assert half == pytest.approx(uncorrected * math.sqrt(0.5))


@given(st.integers(2, 40), st.integers(0, 2**31))
def test_areas_of_units_that_are_alike_change_nothing(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    mapped, truth, strata = random.integers(0, 3, (3, n))
    strata[: 3 * 2 % n] = np.arange(3 * 2 % n) % 3
    areas = np.array([5.0, 1, 2])
    one = Sample(strata, np.eye(3)[mapped], truth, np.ones(n), areas)
    other = Sample(strata, np.eye(3)[mapped], truth, np.full(n, 7.5), areas)
    first, second = estimate_accuracy(one), estimate_accuracy(other)
    assert first.overall.value == pytest.approx(second.overall.value)
    assert first.overall.standard_error == pytest.approx(second.overall.standard_error, nan_ok=True)
    assert sum(share.value for share in first.area_shares) == pytest.approx(1)
    assert first.shares.sum(0) == pytest.approx([share.value for share in first.area_shares])


def test_units_in_parts_of_several_classes() -> None:
    sample = Sample(
        np.zeros(2, np.int64), np.array([[0.25, 0.75], [1, 0]]), np.array([0, 0]),
        np.array([3.0, 1.0]), np.array([100.0]),
    )  # fmt: skip
    found = estimate_accuracy(sample)
    assert found.overall.value == pytest.approx((3 * 0.25 + 1) / 4)
    assert found.counts.tolist() == [[1.25, 0], [0.75, 0]]


def test_maps_compared_on_one_sample() -> None:
    """Of 100 units the maps differ in 10: McNemar's z is (8 − 2) / √10 ≈ 1.90, p ≈ 0.058.

    Estimated, the variance is a little smaller under the difference itself.
    """
    right = np.array([1] * 88 + [0] * 2 + [0] * 10)
    other = np.array([1] * 80 + [0] * 8 + [1] * 2 + [0] * 10)
    sample = Sample(
        np.zeros(100, np.int64), np.eye(2)[1 - right], np.zeros(100, np.int64), np.ones(100),
        np.array([1.0]),
    )  # fmt: skip
    found = compare_maps(sample, np.eye(2)[1 - other])
    assert found.difference.value == pytest.approx(0.06)
    assert found.difference.standard_error == pytest.approx(math.sqrt((0.1 - 0.06**2) / 99))
    assert found.p_value == pytest.approx(0.0552, abs=2e-3)
    assert compare_maps(sample, np.eye(2)[1 - right]).p_value == 1


def test_cochran_s_size() -> None:
    """Without the correction for the finite population it is 641 too, as the paper says."""
    assert sample_size(PIXELS, (0.7, 0.6, 0.9, 0.95), 0.01) == 641
    assert sample_size(np.array([100]), (0.5,), 0.05) == 50  # 100 without the correction
    assert sample_size(np.array([4]), (0.5,), 0.001) == 4


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=12),
    st.integers(1, 3000),
    st.integers(0, 60),
)
def test_allocation(units: list[int], size: int, minimum: int) -> None:
    population = np.array(units)
    drawn = allocate(size, population, minimum)
    least = np.minimum(minimum, population)
    assert (drawn >= least).all()
    assert (drawn <= population).all()
    assert drawn.sum() == max(min(size, population.sum()), least.sum())


def test_drawing() -> None:
    strata = np.repeat([0, 1, -1], [50, 30, 20])
    drawn = draw_stratified(strata, np.array([5, 30]), seed=1)
    assert np.bincount(strata[drawn]).tolist() == [5, 30]
    assert len(set(drawn.tolist())) == 35
    assert drawn.tolist() == draw_stratified(strata, np.array([5, 30]), seed=1).tolist()
    assert drawn.tolist() != draw_stratified(strata, np.array([5, 30]), seed=2).tolist()


def test_a_systematic_grid_takes_every_unit_as_often() -> None:
    rows, cols = (axis.ravel() for axis in np.indices((12, 15)))
    met = np.zeros(180)
    sizes = []
    for seed in range(3000):
        drawn = draw_systematic(rows, cols, 20, seed=seed)
        met[drawn] += 1
        sizes.append(len(drawn))
    assert np.mean(sizes) == pytest.approx(20, rel=0.02)
    assert np.abs(met / 3000 - 20 / 180).max() < 5 * math.sqrt(20 / 180 / 3000)
