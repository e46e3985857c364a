"""Accuracy against the number of labels: cells chosen as ``--review`` chooses them, and at random.

    python benchmarks/review.py DIR/unseen.npz --figure docs/images/review-curve.png

The file is what few_shot.py keeps in its --work: pictures of classes of UC Merced, NWPU and EuroSAT
as seen by an encoder that knows AID alone. One half of them is the pool, the other is tested. Two
labels a class to start with; then, round after round, ``fit_probe`` (what ``rssc-geo train
--labels`` uses) learns from the labels there are, and 20 pictures of the pool are added, by the
rule of ``--review`` (pictures have no place, so by doubt and classes alone), by smallest margin
alone, or at random. The same starts for all, five draws.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from common import verdict
from matplotlib.figure import Figure

from rssc_geo.reports import Candidates, choose_cells
from rssc_geo.training import fit_probe

START, ADDED, ROUNDS, DRAWS = 2, 20, 6, 5
Rule = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def candidates(probabilities: np.ndarray) -> Candidates:
    """The two most probable classes of pictures (N, C), which have no place."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :2]
    top = np.take_along_axis(probabilities, order, axis=1)
    places = np.zeros((len(probabilities), 2))
    return Candidates(
        first=order[:, 0],
        second=order[:, 1],
        confidence=top[:, 0],
        margin=top[:, 0] - top[:, 1],
        places=places,
    )


RULES: dict[str, Rule] = {
    "review": lambda probabilities, count, _: choose_cells(candidates(probabilities), count),
    "margin": lambda probabilities, count, _: np.argsort(
        candidates(probabilities).margin, kind="stable"
    )[:count],
    "random": lambda probabilities, count, random: random.choice(
        len(probabilities), count, replace=False
    ),
}


def learn(embedding: np.ndarray, labels: np.ndarray, rule: Rule, *, draw: int) -> list[float]:
    """Accuracy after each round, the mean of the classes."""
    random = np.random.default_rng(draw)
    order = random.permutation(len(labels))
    pool, test = order[: len(order) // 2], order[len(order) // 2 :]
    classes = int(labels.max()) + 1
    known = np.concatenate([pool[labels[pool] == k][:START] for k in range(classes)])
    accuracy = []
    for _ in range(ROUNDS + 1):
        head = fit_probe(embedding[known], labels[known], classes=classes)
        right = head.logits(embedding[test]).argmax(1) == labels[test]
        accuracy.append(float(np.mean([right[labels[test] == k].mean() for k in range(classes)])))
        rest = np.setdiff1d(pool, known)
        probabilities = (
            torch.from_numpy(head.logits(embedding[rest])).softmax(1).numpy().astype(np.float64)
        )
        known = np.concatenate([known, rest[rule(probabilities, min(ADDED, len(rest)), random)]])
    return accuracy


def draw_curves(accuracy: dict[str, np.ndarray], counts: list[int], path: Path) -> None:
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for (name, values), color in zip(
        accuracy.items(), ("#c2185b", "#3b528b", "#7a828a"), strict=True
    ):
        mean, spread = 100 * values.mean(0), 100 * values.std(0, ddof=1)
        axes.plot(counts, mean, color=color, marker="o", markersize=4, label=name)
        axes.fill_between(
            counts, mean - spread, mean + spread, color=color, alpha=0.12, linewidth=0
        )
    axes.set(xlabel="labeled pictures", ylabel="accuracy (%)", xticks=counts)
    axes.grid(color="#d5d9de", linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        frameon=False,
        loc="lower right",
        title=f"{ADDED} a round, mean and deviation of {len(values)} draws",
    )
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("embeddings", type=Path, help="unseen.npz of few_shot.py")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--figure", type=Path, required=True)
    options = parser.parse_args()
    with np.load(options.embeddings) as kept:
        embedding, labels = kept["encoder"][0], kept["labels"]
    accuracy = {
        name: np.array([learn(embedding, labels, rule, draw=draw) for draw in range(options.draws)])
        for name, rule in RULES.items()
    }
    first = START * (int(labels.max()) + 1)
    counts = [first + ADDED * step for step in range(ROUNDS + 1)]
    print("| labels | " + " | ".join(accuracy) + " |")
    for step, count in enumerate(counts):
        cells = [
            f"{values[:, step].mean():.4f} ± {values[:, step].std(ddof=1):.4f}"
            for values in accuracy.values()
        ]
        print(f"| {count} | " + " | ".join(cells) + " |")
    draw_curves(accuracy, counts, options.figure)
    errors = {name: 1 - values[:, 1:].mean() for name, values in accuracy.items()}
    ratio = float(errors["review"] / errors["random"])
    return (
        0
        if verdict("error by review / at random, mean over the rounds", ratio, at_most=0.95)
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())
