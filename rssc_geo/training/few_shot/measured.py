"""Accuracy of a model on labeled patches that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rssc_geo.training.few_shot.patches import Patches
from rssc_geo.training.metrics import Measured, accuracy_interval, score


def measure(
    probabilities: NDArray[np.floating], patches: Patches, tested: NDArray[np.int64]
) -> Measured:
    """Out-of-fold probabilities (K, C) of those patches that could be tested (K,)."""
    labels = patches.labels
    right = probabilities.argmax(1) == labels[tested]
    counts = {
        name: (int((labels[tested] == code).sum()), int((labels == code).sum()))
        for code, name in enumerate(patches.classes)
    }
    return Measured(
        score(probabilities, labels[tested], class_names=patches.classes),
        accuracy_interval(right, patches.blocks[tested]),
        counts,
        by_labels_apart=False,
    )


def measure_apart(
    probabilities: NDArray[np.floating], patches: Patches, classes: Sequence[str]
) -> Measured:
    """Probabilities (N, C) of patches that are only for the test, all of ``classes``."""
    labels = np.array([classes.index(name) for name in patches.names.tolist()], np.int64)
    right = probabilities.argmax(1) == labels
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    return Measured(
        score(probabilities, labels, class_names=classes),
        accuracy_interval(right, patches.blocks),
        {name: (count, count) for name, count in zip(classes, counts, strict=True)},
        by_labels_apart=True,
    )
