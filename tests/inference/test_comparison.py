"""Signals of change, what is typical of a scene, and the classes that follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from rssc_geo.inference import (
    BY_CLASSES,
    BY_EMBEDDINGS,
    DateCells,
    SeriesCells,
    change_signals,
    compare_series,
    decide_classes,
    mean_date,
)

COUNT, CLASSES, WIDTH = 400, 4, 16


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def date(kinds: np.ndarray, *, noise: float, seed: int) -> DateCells:
    """Cells of kinds, each a direction and a class, seen with some noise."""
    random = np.random.default_rng(seed)
    directions = unit(np.random.default_rng(0).standard_normal((CLASSES, WIDTH)))
    vectors = unit(directions[kinds] + noise * random.standard_normal((len(kinds), WIDTH)))
    probabilities = 0.1 + 0.6 * np.eye(CLASSES, dtype=np.float32)[kinds]
    return DateCells(probabilities, vectors, np.zeros(len(kinds), bool))


def series(dates: Sequence[DateCells], step: int = 150) -> Iterator[SeriesCells]:
    """The cells in chunks, in a grid twenty wide."""
    rows, cols = (axis.astype(np.int32) for axis in np.divmod(np.arange(COUNT), 20))
    for start in range(0, COUNT, step):
        here = slice(start, start + step)
        cut = [
            DateCells(each.probabilities[here], each.embeddings[here], each.unknown[here])
            for each in dates
            if each.embeddings is not None
        ]
        yield SeriesCells(rows[here], cols[here], cut)


@pytest.fixture
def kinds() -> np.ndarray:
    return np.random.default_rng(1).integers(0, CLASSES, COUNT)


def changed_kinds(kinds: np.ndarray) -> np.ndarray:
    """The same, but for the first forty."""
    return np.where(np.arange(COUNT) < 40, (kinds + 1) % CLASSES, kinds)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.06])
def test_what_stands_out_changed_and_what_moves_all_did_not(
    kinds: np.ndarray, noise: float
) -> None:
    dates = [date(kinds, noise=noise, seed=2), date(changed_kinds(kinds), noise=noise, seed=3)]
    found = compare_series(lambda: series(dates), BY_EMBEDDINGS, least=None)
    assert found.changed[:40].all()
    assert not found.changed[40:].any()
    assert (found.split == 1).all()
    assert np.array_equal(found.classes.before[:40], kinds[:40])
    assert np.array_equal(found.classes.after, changed_kinds(kinds))


def test_chunks_do_not_matter(kinds: np.ndarray) -> None:
    dates = [date(kinds, noise=0.05, seed=2), date(changed_kinds(kinds), noise=0.05, seed=3)]
    one, other = (
        compare_series(lambda step=step: series(dates, step), BY_EMBEDDINGS, least=None)
        for step in (7, COUNT)
    )
    for name in ("rows", "cols", "probability", "split", "changed"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_a_series_is_split_where_it_changed(kinds: np.ndarray) -> None:
    seen = [kinds, kinds, changed_kinds(kinds), changed_kinds(kinds)]
    dates = [date(each, noise=0.03, seed=number) for number, each in enumerate(seen)]
    found = compare_series(lambda: series(dates), BY_EMBEDDINGS, least=None)
    assert found.changed[:40].all()
    assert not found.changed[40:].any()
    assert (found.split[:40] == 2).all()


def test_a_cloud_at_one_date_is_less_of_a_change_than_what_stays(kinds: np.ndarray) -> None:
    def chance(*seen: np.ndarray) -> float:
        dates = [date(each, noise=0.03, seed=number) for number, each in enumerate(seen)]
        found = compare_series(lambda: series(dates), BY_EMBEDDINGS, least=None)
        return float(found.probability[:40].mean())

    other = changed_kinds(kinds)
    assert chance(kinds, kinds, other, kinds, kinds) < chance(kinds, kinds, other, other, other)


def test_classes_alone_tell_of_sure_changes(kinds: np.ndarray) -> None:
    def told(kinds: np.ndarray) -> DateCells:
        sure = 0.01 + 0.96 * np.eye(CLASSES, dtype=np.float32)[kinds]
        return DateCells(sure, None, np.zeros(len(kinds), bool))

    signals = change_signals(told(kinds), told(changed_kinds(kinds)))
    assert signals.shape == (COUNT, 1)
    chance = BY_CLASSES.probability(signals, np.zeros(1))
    assert (chance[:40] >= BY_CLASSES.least).all()
    assert (chance[40:] < 0.05).all()


def test_two_probabilities_of_a_map_count_as_if_they_were_all() -> None:
    kept = np.array([[0.4, 0.2, 0.0]], np.float32)
    one = DateCells(kept, None, np.zeros(1, bool))
    assert change_signals(one, one)[0, 0] == pytest.approx(0, abs=1e-6)


def test_one_class_for_what_did_not_change_each_its_own_for_what_did() -> None:
    before = DateCells(
        np.array([[0.5, 0.4, 0.1]] * 4, np.float32), None, np.array([0, 0, 1, 1], bool)
    )
    after = DateCells(
        np.array([[0.1, 0.6, 0.3]] * 4, np.float32), None, np.array([0, 0, 0, 1], bool)
    )
    found = decide_classes(before, after, np.array([False, True, False, False]))
    # Unchanged: 0.4 · 0.6 is the largest product; where one date is unknown the other tells.
    assert found.before.tolist() == [1, 0, 1, 3]
    assert found.after.tolist() == [1, 1, 1, 3]
    assert found.before_confidence.tolist() == pytest.approx([0.4, 0.5, 0.4, 0.0])
    assert found.after_confidence.tolist() == pytest.approx([0.6, 0.6, 0.6, 0.0])


def test_dates_that_do_not_know_a_cell_have_no_say() -> None:
    known = DateCells(np.array([[1.0, 0.0]], np.float32), None, np.zeros(1, bool))
    unknown = DateCells(np.array([[0.0, 1.0]], np.float32), None, np.ones(1, bool))
    assert mean_date([known, unknown]).probabilities.tolist() == [[1.0, 0.0]]
    assert not mean_date([known, unknown]).unknown[0]
    assert mean_date([unknown, unknown]).unknown[0]


def test_dates_that_name_nothing_are_unknown_at_both() -> None:
    """As two maps that are Unknown as a whole, whose classes are none."""
    nothing = DateCells(np.zeros((3, 0), np.float32), None, np.ones(3, bool))
    found = decide_classes(nothing, nothing, np.array([False, True, False]))
    assert found.before.tolist() == found.after.tolist() == [0, 0, 0]
    assert not found.before_confidence.any()
    assert not found.after_confidence.any()
