"""Accuracy against the number of labels: cells chosen as ``--review`` chooses them, and at random.

    python benchmarks/review.py AID_FOLDER --figure docs/images/review.png
    python benchmarks/review.py AID_FOLDER --embeddings DIR/embeddings10.npz --figure
    docs/images/review.png

Ten classes (those of few_shot.py), one half of their pictures as the pool and the other to test on.
Two labels a class to start with; then, round after round, ``fit_probe`` (what ``rssc-geo train
--labels`` uses) learns from the labels there are, and 20 pictures of the pool are added, by the
rule of ``--review`` (pictures have no place, so by doubt and classes alone), by smallest margin
alone, or at random. The same starts for all, ten draws. Without --embeddings the pictures are read
by --model; the embedded one was trained on these very classes, so that there is little left to
learn. The file is what few_shot.py keeps in its --work: embeddings by a network that has never seen
the ten classes.
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

from rssc_geo.models import load_bundle
from rssc_geo.reports import Candidates, choose_cells
from rssc_geo.training import fit_probe, load_image_folder

CLASSES, START, ADDED, ROUNDS, DRAWS = 10, 2, 20, 6, 10
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


@torch.inference_mode()
def embed(pixels: np.ndarray, name: str) -> np.ndarray:
    """The joint embeddings (N, D) without words."""
    model = load_bundle(name)
    found = []
    for part in np.array_split(pixels, -(-len(pixels) // 64)):
        tokens = model.network.encode_image(model.preprocess(part, np.ones(part.shape[:3], bool)))
        found.append(model.network.embed(tokens).numpy())
    return np.concatenate(found)


def learn(embedding: np.ndarray, labels: np.ndarray, rule: Rule, *, draw: int) -> list[float]:
    """Accuracy after each round."""
    random = np.random.default_rng(draw)
    order = random.permutation(len(labels))
    pool, test = order[: len(order) // 2], order[len(order) // 2 :]
    known = np.concatenate([pool[labels[pool] == k][:START] for k in range(CLASSES)])
    accuracy = []
    for _ in range(ROUNDS + 1):
        head = fit_probe(embedding[known], labels[known], classes=CLASSES)
        accuracy.append(float((head.logits(embedding[test]).argmax(1) == labels[test]).mean()))
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
    parser.add_argument("data", type=Path)
    parser.add_argument("--embeddings", type=Path, help="embeddings10.npz of few_shot.py")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--figure", type=Path, required=True)
    options = parser.parse_args()
    data = load_image_folder(options.data, size=160)
    chosen = np.sort(np.random.default_rng(100).choice(len(data.classes), CLASSES, replace=False))
    data = data.take(np.flatnonzero(np.isin(data.labels, chosen)))
    labels = np.searchsorted(chosen, data.labels)
    print("classes:", ", ".join(data.classes[k] for k in chosen), flush=True)
    embedding = (
        np.load(options.embeddings)["encoder"][0]
        if options.embeddings
        else embed(data.pixels, options.model)
    )
    accuracy = {
        name: np.array([learn(embedding, labels, rule, draw=draw) for draw in range(options.draws)])
        for name, rule in RULES.items()
    }
    counts = [CLASSES * START + ADDED * step for step in range(ROUNDS + 1)]
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
