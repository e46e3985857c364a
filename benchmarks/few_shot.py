"""Accuracy against the number of labelled pictures a class, on classes that the model has never seen.

    python benchmarks/few_shot.py AID_FOLDER --weights IMAGENET.safetensors --sentence-encoder MINILM_FOLDER --work DIR

Ten of the 30 classes are kept from the training of encoder and fusion (shorter schedule than the embedded model's).
Then 1 to 32 pictures of each of the ten are drawn twenty times from one half of them, ``fit_head`` (what ``rssc-geo
train --labels`` uses) learns from these, and the other half is classified. It reads the trained encoder's mean token and
the joint embedding behind the attention (``rssc-geo train --labels`` takes the better of the two by cross-validation)
and, on the same draws, the ImageNet features of the same backbone before training, and plain colour statistics.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from common import verdict
from zero_shot import CPU, mean_tokens, options_of, train_without

from rssc_geo.models.bundle import Model
from rssc_geo.training.custom import without_attention
from rssc_geo.training.data import SceneImages, load_image_folder, stratified_split
from rssc_geo.training.evaluate import answer
from rssc_geo.training.fusion import logits_of, train_fusion
from rssc_geo.training.head import fit_head
from rssc_geo.training.metrics import overall_accuracy
from rssc_geo.training.recipe import TrainOptions, initial_weights, new_model

UNSEEN, DRAWS, SHOTS = 10, 20, (1, 2, 4, 8, 16, 32)


def trained(unseen: np.ndarray, data: SceneImages, options: TrainOptions, work: Path) -> Model:
    """Encoder and fusion of the other classes."""
    model, others, features = train_without(unseen, data, options, seed=0, work=work)
    split = stratified_split(others, seed=0)
    tokens, labels = features.tokens[0, split["val"]], others.labels[split["val"]]

    def validate() -> float:
        return overall_accuracy(logits_of(model, tokens, [""] * len(labels), source="generated").argmax(1), labels)

    recipe = options.fusion.shortened(6).reading(written=0.3)
    none = [[""] * len(others.names)] * len(features.tokens)
    train_fusion(model, features, others, none, split["train"], recipe, validate=validate)
    return model


def imagenet(pixels: np.ndarray, data: SceneImages, options: TrainOptions) -> np.ndarray:
    """Mean tokens of the backbone as it came from ImageNet."""
    model = new_model(options, data)
    model.network.image_encoder.backbone.load_state_dict(
        {key: value for key, value in initial_weights(options).items() if not key.startswith("classifier.")}
    )
    model.network.eval()
    return mean_tokens(model, pixels).numpy()


def colours(pixels: np.ndarray) -> np.ndarray:
    """Mean, deviation and a 16-bin histogram of each channel."""
    flat = pixels.reshape(len(pixels), -1, 3)
    bins = [[np.bincount(channel // 16, minlength=16) / len(channel) for channel in picture.T] for picture in flat]
    return np.concatenate([flat.mean(1) / 255, flat.std(1) / 255, np.array(bins).reshape(len(pixels), -1)], 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--sentence-encoder", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = options_of(arguments)
    data = load_image_folder(arguments.data, size=160)
    unseen = np.sort(np.random.default_rng(100).choice(len(data.classes), UNSEEN, replace=False))
    print("classes:", ", ".join(data.classes[k] for k in unseen))
    saved = arguments.work / "embeddings10.npz"
    held = data.take(np.flatnonzero(np.isin(data.labels, unseen)))
    labels = np.searchsorted(unseen, held.labels)
    if not saved.is_file():
        model = trained(unseen, data, options, arguments.work)
        joint, encoder = (
            answer(reader, held.pixels, words="none", written=held.captions, device=CPU).embedding
            for reader in (model, without_attention(model))
        )
        before = imagenet(held.pixels, data, options)
        np.savez(saved, encoder=encoder, joint=joint, imagenet=before, colours=colours(held.pixels))
    embeddings = dict(np.load(saved))
    accuracy: dict[tuple[str, int], list[float]] = {}
    for draw in range(DRAWS):
        generator = np.random.default_rng(draw)
        order = generator.permutation(len(labels))
        pool, test = order[: len(order) // 2], order[len(order) // 2 :]
        for shots in SHOTS:
            chosen = np.concatenate([pool[labels[pool] == k][:shots] for k in range(UNSEEN)])
            for name, embedding in embeddings.items():
                head = fit_head(embedding[chosen], labels[chosen], classes=UNSEEN)
                right = head.logits(embedding[test]).argmax(1) == labels[test]
                accuracy.setdefault((name, shots), []).append(float(right.mean()))
    print("| labelled a class | " + " | ".join(embeddings) + " |")
    for shots in SHOTS:
        cells = [f"{np.mean(accuracy[name, shots]):.4f} ± {np.std(accuracy[name, shots]):.4f}" for name in embeddings]
        print(f"| {shots} | " + " | ".join(cells) + " |")
    errors = {name: 1 - float(np.mean(accuracy[name, 8])) for name in embeddings}
    ratio = errors["encoder"] / errors["imagenet"]
    return 0 if verdict("error of the trained encoder / of ImageNet features, 8 a class", ratio, at_most=0.5) else 1


if __name__ == "__main__":
    sys.exit(main())
