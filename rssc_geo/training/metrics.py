"""Figures of merit of a classifier.

Most are computed by scikit-learn; calibration and McNemar's test are ours. It and SciPy are loaded
where they are first needed, so that no command waits for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Accuracy of one class; ``support`` is its number of samples.

    A share of nothing (0/0) is 0.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Scores:
    """The figures of one classifier on one labeled set.

    Attributes
    ----------
    average_accuracy : mean recall of the classes that have samples
    kappa : agreement beyond chance (Cohen, 1960)
    expected_calibration_error : see :func:`expected_calibration_error`
    per_class : by class name, in class order
    confusion : int64 (C, C), counts with the truth in rows
    """

    overall_accuracy: float
    average_accuracy: float
    kappa: float
    expected_calibration_error: float
    per_class: dict[str, ClassScore]
    confusion: NDArray[np.int64]

    def figures(self) -> dict[str, float]:
        """The single numbers, rounded to 4 places."""
        whole = ("overall_accuracy", "average_accuracy", "kappa", "expected_calibration_error")
        return {name: round(float(getattr(self, name)), 4) for name in whole}

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain Python values for JSON, shares rounded to 4 places."""
        per_class = {
            name: {key: round(value, 4) for key, value in asdict(found).items()}
            for name, found in self.per_class.items()
        }
        return {**self.figures(), "per_class": per_class, "confusion": self.confusion.tolist()}


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of a model on patches that it was not trained on.

    Attributes
    ----------
    scores : of the patches that were tested
    interval : of the overall accuracy, with 95 %, by blocks of patches that lie together
    tested : by class, how many patches were tested, and of how many
    by_labels_apart : on separate test labels, not by cross-validation
    """

    scores: Scores
    interval: tuple[float, float]
    tested: Mapping[str, tuple[int, int]]
    by_labels_apart: bool

    @property
    def counts(self) -> tuple[int, int]:
        """How many patches were tested, and of how many."""
        return sum(n for n, _ in self.tested.values()), sum(of for _, of in self.tested.values())

    def figures(self) -> dict[str, float]:
        """The single numbers, rounded to 4 places."""
        low, high = self.interval
        return {
            **self.scores.figures(),
            "overall_accuracy_low": round(low, 4),
            "overall_accuracy_high": round(high, 4),
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        tested, of = self.counts
        classes = {name: {"tested": n, "of": total} for name, (n, total) in self.tested.items()}
        return {
            "scores": self.scores.as_dict(),
            "interval": [round(bound, 4) for bound in self.interval],
            "tested": {"patches": tested, "of": of, "classes": classes},
            "by_labels_apart": self.by_labels_apart,
        }


NOT_MEASURED: Mapping[str, None] = {"scores": None, "interval": None, "tested": None}


@dataclass(frozen=True, slots=True)
class McNemar:
    """Samples that only one of two classifiers gets right, and the p-value of their difference."""

    only_first: int
    only_second: int
    p_value: float


def score(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], *, class_names: Sequence[str]
) -> Scores:
    """All figures of a classifier.

    Parameters
    ----------
    probabilities : floats (N, C), each row summing to 1
    labels : integers (N,), the true classes, 0 to C − 1
    class_names : the C names, all different

    Raises ``ValueError`` when the shapes or names do not fit together, there are no samples, a
    label is no class, or a row is no distribution (to 1 in 1,000): logits, say.
    """
    from sklearn.metrics import cohen_kappa_score

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
    per_class = class_scores(predicted, labels, classes=classes)
    single = len(np.union1d(predicted, labels)) == 1  # no chance to agree by: 0/0 in the formula
    return Scores(
        overall_accuracy=overall_accuracy(predicted, labels),
        average_accuracy=float(np.mean([found.recall for found in per_class if found.support])),
        kappa=1.0 if single else float(cohen_kappa_score(labels, predicted)),
        expected_calibration_error=expected_calibration_error(probabilities, labels),
        per_class=dict(zip(class_names, per_class, strict=True)),
        confusion=confusion,
    )


def overall_accuracy(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Share of samples whose class is right; ``predicted``, ``labels``: (N,)."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predicted))


def accuracy_interval(right: NDArray[np.bool_], blocks: NDArray[np.integer]) -> tuple[float, float]:
    """Bounds of a 95 % interval of the overall accuracy, of samples that lie together in blocks.

    Wilson's interval (1927) with the effective number of samples of Korn and Graubard (Confidence
    intervals for proportions with small expected number of positive counts estimated from survey
    data, Survey Methodology 24, 1998): as many independent samples as would give the variance
    between blocks (Cochran, Sampling Techniques, 1977, eq. 6.13), at most as many as there are;
    where all are right, or all wrong, one a block. Each sample a block of its own gives Wilson's
    interval itself.

    Parameters
    ----------
    right : bool (N,), at least one
    blocks : integers (N,), the block of each
    """
    from scipy.stats import t as student

    _, block = np.unique(blocks, return_inverse=True)
    sizes = np.bincount(block).astype(np.float64)
    hits = np.bincount(block, right).astype(np.float64)
    count, share = float(sizes.sum()), float(hits.sum() / sizes.sum())
    groups = len(sizes)
    effective = count if groups == count else float(groups)
    if groups > 1 and 0 < share < 1 and groups < count:
        between = ((hits - share * sizes) ** 2).sum() * groups / (groups - 1) / count**2
        effective = min(count, share * (1 - share) / between) if between > 0 else count
    z = float(student.ppf(0.975, groups - 1)) if 1 < groups < count else 1.959964
    middle = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = (
        z
        / (1 + z**2 / effective)
        * float(np.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2)))
    )
    return max(0.0, middle - half), min(1.0, middle + half)


def confusion_matrix(
    predicted: NDArray[np.integer], labels: NDArray[np.integer], *, classes: int
) -> NDArray[np.int64]:
    """Counts int64 (C, C) of samples (N,): rows are the truth, columns the prediction.

    Raises ``ValueError`` when the two differ in length or hold a value outside 0 to ``classes`` −
    1, which scikit-learn would leave out silently.
    """
    from sklearn import metrics

    if predicted.shape != labels.shape or labels.ndim != 1:
        raise ValueError(
            f"predictions {predicted.shape} and labels {labels.shape} are not both (N,)"
        )
    for name, values in (("predictions", predicted), ("labels", labels)):
        if len(values) and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"{name} are {values.min()} to {values.max()}, not within 0 to {classes - 1}"
            )
    found = metrics.confusion_matrix(labels, predicted, labels=np.arange(classes))
    return np.asarray(found, np.int64)


def class_scores(
    predicted: NDArray[np.integer], labels: NDArray[np.integer], *, classes: int
) -> tuple[ClassScore, ...]:
    """Precision, recall, F1 and support of every class; ``predicted``, ``labels``: (N,).

    A share of nothing (0/0) is 0: the precision of a class never predicted, the recall of one
    without samples.
    """
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(classes), zero_division=0.0
    )
    return tuple(ClassScore(*row) for row in zip(*(c.tolist() for c in columns), strict=True))


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """Exact two-sided test that two classifiers are right equally often.

    McNemar, 1947; Dietterich, 1998. ``first_right`` and ``second_right`` are bool (N,) over the
    same samples. Where they never differ the p-value is 1. Raises ``ValueError`` when they are not
    bool or differ in shape.
    """
    from scipy.stats import binomtest

    first, second = first_right, second_right
    if first.dtype != bool or second.dtype != bool or first.shape != second.shape:
        met = f"{first.dtype} {first.shape} and {second.dtype} {second.shape}"
        raise ValueError(f"needs two bool arrays of one shape, met {met}")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    differing = only_first + only_second
    p_value = float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p_value)


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], *, bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of the top confidence.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3. ``probabilities``:
    floats (N, C); ``labels``: integers (N,).
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean()
        for b in np.unique(place)
    ]
    return float(np.sum(gaps))


def fit_temperature(logits: NDArray[np.floating], allowed: NDArray[np.bool_]) -> float:
    """The t that minimizes the negative log-likelihood of ``softmax(logits / t)``.

    Guo et al., 2017, section 4.2; t lies within e⁻³ and e³. ``logits``: floats (N, C); ``allowed``:
    bool (N, C), the classes that each sample may have, of which at least one is right.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    def loss(log_t: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_t)
        right = logsumexp(np.where(allowed, scaled, -np.inf), axis=1)
        return float((logsumexp(scaled, axis=1) - right).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
