"""Deletion and insertion curves of the maps that `rssc-geo explain` draws, against random maps.

    python benchmarks/deletion.py AID_FOLDER [--pictures 300] [--model compact]

Pictures of the test split, equally many of every class. Deletion fills the highest share of a map's
pixels like invalid pixels and computes the remaining probability of the class (lower is better);
insertion shows the network these pixels alone (higher is better), after Petsiuk, Das and Saenko,
"RISE" (BMVC 2018). Random maps are as smooth as the others.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rssc_geo.models import ReadCaption

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from common import verdict

from rssc_geo.models import Model, attribute, load_bundle
from rssc_geo.training import SceneImages, load_image_folder, stratified_split

SHARES = (0.05, 0.1, 0.2, 0.4)
RANDOM_TOKENS = 6  # of a random map, a side
BATCH = 30


def balanced(data: SceneImages, rows: np.ndarray, count: int) -> np.ndarray:
    """As many rows of each class, ``count`` at most."""
    each = count // len(data.classes)
    generator = np.random.default_rng(0)
    return np.concatenate(
        [
            generator.permutation(rows[data.labels[rows] == k])[:each]
            for k in range(len(data.classes))
        ]
    )


def curves(model: Model, pixels: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """The class's probability, (pictures, deletion or insertion, shares), for each kind of map."""
    whole = np.ones(pixels.shape[:3], bool)
    class_ids = probabilities(model, pixels, whole).argmax(1)
    nothing = ReadCaption("", "generated", read=False)
    reasons = [
        attribute(model, picture, mask, class_id=int(k), caption=nothing)
        for picture, mask, k in zip(pixels, whole, class_ids, strict=True)
    ]
    tokens = torch.from_numpy(random.random((len(pixels), 1, RANDOM_TOKENS, RANDOM_TOKENS)))
    maps = {
        "random": F.interpolate(tokens, size=pixels.shape[1:3], mode="bilinear")[:, 0].numpy(),
        "evidence": np.stack([found.evidence for found in reasons]),
        "attention": np.stack([found.attention for found in reasons]),
    }
    found = {}
    for name, heat in maps.items():
        ranks = heat.reshape(len(heat), -1).argsort(1).argsort(1).reshape(heat.shape)
        columns = []
        for share in SHARES:
            high = ranks >= (1 - share) * ranks[0].size
            columns.append(
                [
                    probabilities(model, pixels, mask)[np.arange(len(pixels)), class_ids]
                    for mask in (~high, high)
                ]
            )
        found[name] = np.array(columns).transpose(2, 1, 0)
    return found


@torch.inference_mode()
def probabilities(model: Model, pixels: np.ndarray, masks: np.ndarray) -> np.ndarray:
    return (
        (model.network(model.preprocess(pixels, masks)) / model.card.temperature).softmax(1).numpy()
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--model", default="compact")
    options = parser.parse_args()
    model = load_bundle(options.model)
    data = load_image_folder(options.data, size=model.card.input_size[0])
    rows = balanced(data, stratified_split(data, seed=0)["test"], options.pictures)
    random = np.random.default_rng(0)
    parts = [
        curves(model, data.pixels[part], random)
        for part in np.array_split(rows, -(-len(rows) // BATCH))
    ]
    found = {name: np.concatenate([part[name] for part in parts]).mean(0) for name in parts[0]}
    print(
        f"{len(rows)} pictures, model {model.card.name} {model.card.version}: probability of the"
        " class"
    )
    for test, word in enumerate(("deleted", "shown")):
        print(f"  {f'share {word}':<14}" + "".join(f"{share:>8.0%}" for share in SHARES))
        for name, values in found.items():
            print(f"  {name:<14}" + "".join(f"{value:>8.3f}" for value in values[test]))
    deleted, shown = (found["evidence"][test] - found["random"][test] for test in range(2))
    kept = [
        verdict(
            "evidence less random, a fifth deleted", float(deleted[SHARES.index(0.2)]), at_most=-0.1
        ),
        verdict(
            "evidence less random, a fifth shown", float(shown[SHARES.index(0.2)]), at_least=0.05
        ),
    ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
