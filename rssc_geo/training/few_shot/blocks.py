"""Cross-validation in space: neighbors never lie on both sides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

_BLOCK = 4
"""Side of a block in patches."""


def blocked_folds(
    places: np.ndarray, labels: np.ndarray, *, side_m: float, folds: int = 5
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and test places of each fold: whole blocks are tested, and what lies near them is
    not trained on.

    Blocks are cubes with sides of four patches; they are dealt out, the largest first, each to the
    fold that has least of the block's classes. A patch trains only if it overlaps no tested one and
    does not touch it (buffered leave-block-out validation: Roberts et al., 2017, Ecography 40).
    Classes that the rest of a fold lacks are not tested in it.

    Parameters
    ----------
    places : float64 (N, 3), metres
    labels : integers (N,)
    side_m : side of a patch, metres

    Yields pairs of index arrays; fewer than ``folds`` where there are fewer blocks, none for a
    single block.
    """
    cubes = np.floor(places / (_BLOCK * side_m)).astype(np.int64)
    _, block = np.unique(cubes, axis=0, return_inverse=True)
    block = block.reshape(-1)
    counts = np.zeros((block.max() + 1, labels.max() + 1))
    np.add.at(counts, (block, labels), 1)
    share = counts / counts.sum(0).clip(min=1)
    folds = min(folds, len(counts))
    held = np.zeros((folds, counts.shape[1]))
    fold_of = np.zeros(len(counts), np.int64)
    for number in np.argsort(-share.sum(1), kind="stable").tolist():
        fold_of[number] = (held @ (counts[number] > 0) + 1e-6 * held.sum(1)).argmin()
        held[fold_of[number]] += share[number]
    if folds < 2:
        return
    for fold in range(folds):
        tested = np.flatnonzero(fold_of[block] == fold)
        others = np.flatnonzero(fold_of[block] != fold)
        if not len(tested):
            continue
        distance, _ = cKDTree(places[tested]).query(places[others])
        training = others[distance > np.sqrt(2) * side_m]
        known = np.isin(labels[tested], labels[training])
        if known.any() and len(np.unique(labels[training])) > 1:
            yield training, tested[known]
