"""Figures of a classifier: cases computed by hand, and relations between the figures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssc_geo.training import (
    ClassScore,
    class_scores,
    confusion_matrix,
    fit_temperature,
    mcnemar,
    overall_accuracy,
    score,
)

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0, 1])
CONFUSION = [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


def test_confusion_has_the_truth_in_rows() -> None:
    confusion = confusion_matrix(PREDICTED.astype(np.uint8), LABELS, classes=3)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == CONFUSION


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        ([0, 3], [0, 1], r"predictions are 0 to 3, not within 0 to 2"),
        ([0, 1], [-1, 1], r"labels are -1 to 1, not within 0 to 2"),
        ([0, 1], [0, 1, 2], r"\(2,\) and labels \(3,\)"),
    ],
)
def test_confusion_refuses_what_does_not_fit(
    predicted: list[int], labels: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(predicted), np.array(labels), classes=3)


def test_class_scores_by_hand() -> None:
    first, second, never_predicted = class_scores(PREDICTED, LABELS, classes=3)
    assert first == ClassScore(precision=2 / 3, recall=2 / 3, f1=2 / 3, support=3)
    assert second == ClassScore(precision=1 / 3, recall=1 / 2, f1=pytest.approx(0.4), support=2)
    assert never_predicted == ClassScore(precision=0.0, recall=0.0, f1=0.0, support=1)


def test_a_class_neither_there_nor_predicted_scores_zero() -> None:
    zeros = np.zeros(4, int)
    assert class_scores(zeros, zeros, classes=2) == (
        ClassScore(1.0, 1.0, 1.0, 4),
        ClassScore(0.0, 0.0, 0.0, 0),
    )


@given(PAIRS)
def test_confusion_agrees_with_the_other_figures(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(pairs).T
    scores = score(np.eye(5)[predicted], labels, class_names="abcde")
    confusion = scores.confusion / scores.confusion.sum()
    right = confusion.trace()
    assert right == pytest.approx(overall_accuracy(predicted, labels))
    assert right == pytest.approx(scores.overall_accuracy)
    recalls = [(predicted[labels == label] == label).mean() for label in np.unique(labels)]
    assert scores.average_accuracy == pytest.approx(np.mean(recalls))
    chance = confusion.sum(0) @ confusion.sum(1)
    kappa = (right - chance) / (1 - chance) if chance < 1 - 1e-9 else 1.0
    assert scores.kappa == pytest.approx(kappa)
    for c in scores.per_class.values():
        harmonic = (
            2 * c.precision * c.recall / (c.precision + c.recall) if c.precision + c.recall else 0.0
        )
        assert c.f1 == pytest.approx(harmonic)


@given(PAIRS)
def test_confusion_is_transposed_when_the_two_change_places(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(pairs).T
    one, other = (
        confusion_matrix(predicted, labels, classes=5),
        confusion_matrix(labels, predicted, classes=5),
    )
    assert (one == other.T).all()
    precisions = [c.precision for c in class_scores(predicted, labels, classes=5)]
    assert precisions == [c.recall for c in class_scores(labels, predicted, classes=5)]


def test_mcnemar_by_hand() -> None:
    first = np.array([True] * 5 + [False] + [True] * 3 + [False] * 2)
    second = np.array([False] * 5 + [True] + [True] * 3 + [False] * 2)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (5, 1)
    assert found.p_value == pytest.approx(
        2 * (1 + 6) / 2**6
    )  # no heads or one in six throws, or no tails or one


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_does_not_care_which_comes_first(pairs: list[tuple[bool, bool]]) -> None:
    first, second = np.array(pairs).T
    one, other = mcnemar(first, second), mcnemar(second, first)
    assert (one.only_first, one.only_second) == (other.only_second, other.only_first)
    assert one.p_value == pytest.approx(other.p_value)
    assert 0 < one.p_value <= 1


def test_mcnemar_of_a_classifier_with_itself() -> None:
    right = np.array([True, False, True])
    assert mcnemar(right, right).p_value == 1.0


@pytest.mark.parametrize("second", [np.array([1, 0, 1]), np.array([True, False])])
def test_mcnemar_refuses_labels_and_other_lengths(second: np.ndarray) -> None:
    with pytest.raises(ValueError, match="two bool arrays of one shape"):
        mcnemar(np.array([True, False, True]), second)


def test_score_by_hand_is_ready_for_json() -> None:
    probabilities = np.array(
        [[0.9, 0.1, 0], [0.9, 0.1, 0], [0.3, 0.7, 0], [0.3, 0.7, 0], [0.9, 0.1, 0], [0.3, 0.7, 0]],
        np.float32,
    )
    scores = score(probabilities, LABELS, class_names=("Field", "Town", "River"))
    expected = {
        "overall_accuracy": 0.5,  # 3 of 6
        "average_accuracy": 0.3889,  # (2/3 + 1/2 + 0) / 3
        "kappa": 0.1429,  # (1/2 − 5/12) / (1 − 5/12): chance is (3·3 + 3·2 + 0·1) / 36
        "expected_calibration_error": 0.3,  # (0.9 − 2/3) / 2 + (0.7 − 1/3) / 2
        "per_class": {
            "Field": {"precision": 0.6667, "recall": 0.6667, "f1": 0.6667, "support": 3},
            "Town": {"precision": 0.3333, "recall": 0.5, "f1": 0.4, "support": 2},
            "River": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        },
        "confusion": CONFUSION,
    }
    assert json.loads(json.dumps(scores.as_dict())) == expected
    assert list(scores.per_class) == ["Field", "Town", "River"]


@pytest.mark.parametrize(
    ("probabilities", "labels", "names", "message"),
    [
        ([[2.0, -1.0]], [0], ("a", "b"), "no probabilities"),
        ([[3.0, 1.0]], [0], ("a", "b"), "no probabilities: they sum to 4"),
        ([[np.nan, 1.0]], [0], ("a", "b"), "no probabilities"),
        ([[0.5, 0.5]], [0], ("a", "b", "c"), "3 names"),
        ([[0.5, 0.5]], [0, 1], ("a", "b"), "2 labels"),
        ([[0.5, 0.5]], [2], ("a", "b"), "labels are 2 to 2"),
        ([[0.5, 0.5]], [0], ("a", "a"), "names repeat"),
        (np.zeros((0, 2)), [], ("a", "b"), "0 labels"),
    ],
)
def test_score_refuses_what_does_not_fit(
    probabilities: object, labels: list[int], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score(np.array(probabilities), np.array(labels, int), class_names=names)


def test_temperature_recovers_an_overconfident_model() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 5)) * 2
    exact = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([random.choice(5, p=p) for p in exact])
    assert fit_temperature(logits * 3, np.eye(5, dtype=bool)[labels]) == pytest.approx(3, rel=0.1)
    # Labels that say only "one of the first two" fit the same temperature.
    either = np.eye(5, dtype=bool)
    either[:2, :2] = True
    assert fit_temperature(logits * 3, either[labels]) == pytest.approx(3, rel=0.1)
