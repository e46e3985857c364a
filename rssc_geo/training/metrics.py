"""Figures of merit of a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How well one class is found; ``support`` is its number of samples.

    A share of nothing (0/0) is 0.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of one classifier on one labeled set.

    ``per_class`` is keyed by class name in class order; ``confusion`` is int64 ``(C, C)`` with the
    truth in rows.
    """

    overall_accuracy: float
    average_accuracy: float
    kappa: float
    expected_calibration_error: float
    per_class: dict[str, ClassScore]
    confusion: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain Python values for JSON, shares rounded to 4 places."""
        whole = ("overall_accuracy", "average_accuracy", "kappa", "expected_calibration_error")
        figures = {name: round(float(getattr(self, name)), 4) for name in whole}
        per_class = {
            name: {key: round(value, 4) for key, value in asdict(found).items()}
            for name, found in self.per_class.items()
        }
        return {**figures, "per_class": per_class, "confusion": self.confusion.tolist()}


@dataclass(frozen=True, slots=True)
class McNemar:
    """The samples that only one of two classifiers gets right, and the chance of a split as uneven or more."""

    only_first: int
    only_second: int
    p_value: float


def score(probabilities: np.ndarray, labels: np.ndarray, *, class_names: Sequence[str]) -> Scores:
    """Every figure of a classifier.

    Parameters
    ----------
    probabilities : floats (N, C), each row summing to 1
    labels : integers (N,), the true classes, 0 to C − 1
    class_names : the C names, all different

    Raises ``ValueError`` when the shapes or names do not fit together, there are no samples, a
    label is no class, or a row is no distribution (to 1 in 1,000): logits, say.
    """
    classes = len(class_names)
    if len(set(class_names)) != classes:
        raise ValueError(f"class names repeat: {', '.join(class_names)}")
    if not len(labels) or probabilities.shape != (len(labels), classes):
        raise ValueError(
            f"probabilities {probabilities.shape} are not (N, C) for {len(labels)} labels and"
            f" {classes} names"
        )
    sums = probabilities.sum(1, dtype=np.float64)
    if not ((probabilities >= 0).all() and np.allclose(sums, 1, rtol=0, atol=1e-3)):
        raise ValueError(
            f"rows are no probabilities: they sum to {sums.min():.4g} to {sums.max():.4g}"
        )
    predicted = probabilities.argmax(1)
    confusion = confusion_matrix(predicted, labels, classes=classes)
    return Scores(
        overall_accuracy=overall_accuracy(predicted, labels),
        average_accuracy=average_accuracy(predicted, labels),
        kappa=cohen_kappa(predicted, labels),
        expected_calibration_error=expected_calibration_error(probabilities, labels),
        per_class=dict(zip(class_names, class_scores(confusion), strict=True)),
        confusion=confusion,
    )


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, *, classes: int) -> np.ndarray:
    """Counts int64 ``(classes, classes)``: rows are the truth, columns the prediction.

    Raises ``ValueError`` when the two differ in length or hold a value outside 0 to ``classes`` −
    1.
    """
    if predicted.shape != labels.shape or labels.ndim != 1:
        raise ValueError(
            f"predictions {predicted.shape} and labels {labels.shape} are not both (N,)"
        )
    for name, values in (("predictions", predicted), ("labels", labels)):
        if len(values) and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"{name} are {values.min()} to {values.max()}, not within 0 to {classes - 1}"
            )
    cells = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def class_scores(confusion: np.ndarray) -> tuple[ClassScore, ...]:
    """Precision, recall, F1 and support of every class of a confusion matrix ``(C, C)``, rows the
    truth.

    A share of nothing (0/0) is 0: the precision of a class never predicted, the recall of one
    without samples.
    """
    right, support, claimed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    precision = right / np.maximum(claimed, 1)
    recall = right / np.maximum(support, 1)
    f1 = (
        2 * right / np.maximum(support + claimed, 1)
    )  # the harmonic mean of the two, without their 0/0
    columns = precision.tolist(), recall.tolist(), f1.tolist(), support.tolist()
    return tuple(ClassScore(*row) for row in zip(*columns, strict=True))


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> McNemar:
    """Exact two-sided McNemar test that two classifiers are right equally often (McNemar, 1947;
    Dietterich, 1998).

    ``first_right`` and ``second_right`` are bool ``(N,)`` over the same samples. Where they never
    differ the p-value is 1. Raises ``ValueError`` when they are not bool or differ in shape.
    """
    if (
        first_right.dtype != bool
        or second_right.dtype != bool
        or first_right.shape != second_right.shape
    ):
        met = (
            f"{first_right.dtype} {first_right.shape} and {second_right.dtype} {second_right.shape}"
        )
        raise ValueError(f"needs two bool arrays of one shape, met {met}")
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p_value)


def overall_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples whose class is right."""
    return float((predicted == labels).mean())


def average_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes present of the share that is right."""
    return float(
        np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)])
    )


def cohen_kappa(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Agreement beyond chance, (p_o − p_e) / (1 − p_e) (Cohen, 1960)."""
    classes = np.arange(max(predicted.max(), labels.max()) + 1)
    shares = [
        np.bincount(values, minlength=len(classes)) / len(values) for values in (predicted, labels)
    ]
    expected = float(shares[0] @ shares[1])
    return (
        (overall_accuracy(predicted, labels) - expected) / (1 - expected) if expected < 1 else 1.0
    )


def expected_calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15
) -> float:
    """ECE of the top label over equal-width confidence bins (Guo et al., 2017)."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean()
        for b in np.unique(place)
    ]
    return float(np.sum(gaps))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that minimises the negative log-likelihood of ``softmax(logits / t)`` (Guo et al., 2017)."""

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        scaled = scaled - scaled.max(1, keepdims=True)
        return float(
            (np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(labels)), labels]).mean()
        )

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
