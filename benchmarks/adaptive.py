"""Accuracy against the share of pictures that a large captioner is asked about.

    python benchmarks/adaptive.py ../shared/data [-o CURVE.png] [--model compact] [--seed 0]
        [--pictures N]

This is about `--caption-when uncertain`. On the test part of AID, as in training: of the four data
sets it is the one whose pictures have sentences of their own. No large model runs here: what people
wrote stands in for its captions (an upper bound: most of these captions name the class), and the
model's own captioner for those of a weak one. Pictures are captioned in the order of the image-only
confidence, the least sure first. "At random": the same share of pictures drawn at random, which
lies on the straight line between none and all.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import matplotlib.pyplot as plt
import numpy as np
from common import DATA_SETS

from rssc_geo.evaluation.evaluate import evaluate
from rssc_geo.models import Model, load_bundle
from rssc_geo.options import EvaluateOptions
from rssc_geo.training import SceneImages, load_data_sets, stratified_split

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.01)


def right_answers(model: Model, data: SceneImages) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Confidence of the image alone (N,), and by kind of captions which are right, bool (N,)."""
    reads_own = dataclasses.replace(
        model, card=dataclasses.replace(model.card, reads_own_captions=True)
    )
    runs = {
        "none": evaluate(model, data, EvaluateOptions(caption_source="none")),
        "written by people": evaluate(model, data, EvaluateOptions(caption_source="human")),
        "the model's own": evaluate(reads_own, data),
    }
    labels = runs["none"].truth
    right = {name: run.predictions.classes == labels for name, run in runs.items()}
    return runs["none"].predictions.probabilities.max(1), right


def curve(confidence: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Accuracy (N + 1,) when the 0, 1, … N least sure pictures are captioned."""
    gain = (after.astype(int) - before)[np.argsort(confidence, kind="stable")]
    return (before.sum() + np.concatenate([[0], np.cumsum(gain)])) / len(before)


def draw(path: Path, curves: dict[str, np.ndarray]) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, values in curves.items():
        share = np.linspace(0, 100, len(values))
        (line,) = axes.plot(share, 100 * values, label=name)
        axes.plot(
            [0, 100],
            100 * values[[0, -1]],
            "--",
            linewidth=1,
            color=line.get_color(),
            label=f"{name}, at random",
        )
    axes.set(
        xlabel="share of pictures captioned, least sure first (%)",
        ylabel="accuracy (%)",
        xlim=(0, 100),
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, title="captions")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the four data sets and taxonomy.json")
    parser.add_argument("-o", "--output", type=Path, default=Path("adaptive.png"))
    parser.add_argument("--model", default="compact")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the split into parts, as in training"
    )
    parser.add_argument("--pictures", type=int, help="of the test part; default all")
    options = parser.parse_args()

    model = load_bundle(options.model)
    size, aid = model.card.input_size[0], options.data / DATA_SETS[0]
    data = load_data_sets([aid], size=size, taxonomy=options.data / "taxonomy.json")
    test = stratified_split(data, seed=options.seed)["test"]
    if options.pictures is not None:
        test = np.random.default_rng(0).permutation(test)[: options.pictures]
    confidence, right = right_answers(model, data.take(test))
    curves = {
        name: curve(confidence, right["none"], after)
        for name, after in right.items()
        if name != "none"
    }
    print(f"{len(test)} pictures, {model.card.name} {model.card.version}")
    print(f"{'under':>6} {'captioned':>9} " + " ".join(f"{name:>18}" for name in curves))
    for threshold in THRESHOLDS:
        asked = int((confidence < threshold).sum())
        label = "all" if threshold > 1 else f"{threshold:g}"
        print(
            f"{label:>6} {asked / len(test):>9.1%} "
            + " ".join(f"{values[asked]:>18.4f}" for values in curves.values())
        )
    draw(options.output, curves)
    print(options.output)


if __name__ == "__main__":
    main()
