"""Accuracy against the number of labeled pictures of classes that the model has never seen.

    python benchmarks/few_shot.py AID_FOLDER --weights IMAGENET.safetensors --sentence-encoder
    MINILM_FOLDER --work DIR

Ten of the 30 classes are kept from the training of encoder and fusion (shorter schedule than the
embedded model's). Then 1 to 32 pictures of each of the ten are drawn twenty times from one half of
them; the layer of ``rssc-geo train --labels`` learns from these, upright, turned and mirrored, and
the other half is classified, upright. It reads the trained encoder's mean token, that with the
phrases of aid_phrases.json (--class-words), the joint embedding behind the attention (``train``
takes it where cross-validation prefers it) and, on the same draws but upright alone, the ImageNet
features of the same backbone before training, and plain color statistics. ``--tuned DRAWS``: the
same mean token after --fine-tune, on so many of the draws at 8 a class.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from common import verdict
from zero_shot import CPU, PHRASES, mean_tokens, options_of, train_without

from rssc_geo.models import Model, class_embeddings
from rssc_geo.training import (
    Features,
    FusionData,
    LinearProbe,
    SceneImages,
    TrainingRecipe,
    embed_views,
    fine_tune,
    fit_probe,
    initial_weights,
    load_image_folder,
    logits_of,
    new_model,
    overall_accuracy,
    stratified_split,
    train_fusion,
    without_attention,
    without_captions,
    word_prior,
)

UNSEEN, DRAWS, SHOTS = 10, 20, (1, 2, 4, 8, 16, 32)


def fuse(model: Model, others: SceneImages, features: Features, options: TrainingRecipe) -> None:
    """Train the fusion on the other classes."""
    split = stratified_split(others, seed=0)
    tokens, labels = features.tokens[0, split["val"]], others.labels[split["val"]]

    def validate() -> float:
        return overall_accuracy(
            logits_of(model, tokens, [""] * len(labels), source="generated").argmax(1), labels
        )

    recipe = dataclasses.replace(options.fusion, epochs=6, generated=0.0, written=0.3)
    none = [[""] * len(others.names)] * len(features.tokens)
    learned = FusionData(features, others, none, split["train"])
    train_fusion(model, learned, recipe, validate=validate)


def imagenet(pixels: np.ndarray, data: SceneImages, options: TrainingRecipe) -> np.ndarray:
    """Mean tokens of the backbone as it came from ImageNet."""
    model = new_model(options, data)
    model.network.image_encoder.load_state_dict(
        {
            key: value
            for key, value in initial_weights(options).items()
            if not key.startswith("backbone.classifier.")
        }
    )
    model.network.eval()
    return mean_tokens(model, pixels).numpy()


def colors(pixels: np.ndarray) -> np.ndarray:
    """Mean, deviation and a 16-bin histogram of each channel."""
    flat = pixels.reshape(len(pixels), -1, 3)
    bins = [
        [np.bincount(channel // 16, minlength=16) / len(channel) for channel in picture.T]
        for picture in flat
    ]
    return np.concatenate(
        [flat.mean(1) / 255, flat.std(1) / 255, np.array(bins).reshape(len(pixels), -1)], 1
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--sentence-encoder", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tuned", type=int, default=0, metavar="DRAWS")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = options_of(arguments)
    data = load_image_folder(arguments.data, size=160)
    unseen = np.sort(np.random.default_rng(100).choice(len(data.classes), UNSEEN, replace=False))
    print("classes:", ", ".join(data.classes[k] for k in unseen))
    saved = arguments.work / "embeddings10.npz"
    held = data.take(np.flatnonzero(np.isin(data.labels, unseen)))
    labels = np.searchsorted(unseen, held.labels)
    model, others, features = train_without(unseen, data, options, seed=0, work=arguments.work)
    reader = without_attention(model)
    if not saved.is_file():
        fuse(model, others, features, options)
        joint, encoder = embed_views([without_captions(model), reader], held.pixels, CPU)
        before = imagenet(held.pixels, data, options)
        np.savez(
            saved,
            encoder=encoder,
            joint=joint,
            imagenet=before[None],
            colors=colors(held.pixels)[None],
        )
    embeddings = dict(np.load(saved))
    texts = class_embeddings(model, {data.classes[k]: PHRASES[data.classes[k]] for k in unseen})
    accuracy: dict[tuple[str, int], list[float]] = {}
    tuned: list[tuple[float, float, float]] = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(labels))
        pool, test = order[: len(order) // 2], order[len(order) // 2 :]
        for shots in SHOTS:
            chosen = np.concatenate([pool[labels[pool] == k][:shots] for k in range(UNSEEN)])
            for name, views in embeddings.items():
                right = (
                    learned(views[:, chosen], labels[chosen]).logits(views[0, test]).argmax(1)
                    == labels[test]
                )
                accuracy.setdefault((name, shots), []).append(float(right.mean()))
            views = embeddings["encoder"]
            prior = word_prior(reader, texts, views[0, chosen], np.full(UNSEEN, shots))
            right = (
                learned(views[:, chosen], labels[chosen], prior).logits(views[0, test]).argmax(1)
                == labels[test]
            )
            accuracy.setdefault(("encoder and words", shots), []).append(float(right.mean()))
            if shots == 8 and draw < arguments.tuned:
                probe = learned(views[:, chosen], labels[chosen])
                model = fine_tune(reader, probe, held.pixels[chosen], labels[chosen], device=CPU)
                probe = learned(embed_views([model], held.pixels[chosen], CPU)[0], labels[chosen])
                logits = probe.logits(embed_views([model], held.pixels[test], CPU, views=1)[0][0])
                found = float((logits.argmax(1) == labels[test]).mean())
                tuned.append((found, *(accuracy[name, 8][-1] for name in ("encoder", "imagenet"))))
                print(
                    "draw {}, 8 a class: tuned {:.4f}, as it was {:.4f}, ImageNet {:.4f}".format(
                        draw, *tuned[-1]
                    ),
                    flush=True,
                )
    names = list(dict.fromkeys(name for name, _ in accuracy))
    print("| labeled a class | " + " | ".join(names) + " |")
    for shots in SHOTS:
        cells = [
            f"{np.mean(accuracy[name, shots]):.4f} ± {np.std(accuracy[name, shots]):.4f}"
            for name in names
        ]
        print(f"| {shots} | " + " | ".join(cells) + " |")
    if tuned:
        means = np.mean(tuned, axis=0)
        print(
            "mean of {} draws: tuned {:.4f}, as it was {:.4f}, ImageNet {:.4f}".format(
                len(tuned), *means
            )
        )
        verdict(
            "error of the tuned encoder / of ImageNet features on these draws",
            (1 - means[0]) / (1 - means[2]),
            at_most=0.5,
        )
    errors = {name: 1 - float(np.mean(accuracy[name, 8])) for name in names}
    ratio = errors["encoder"] / errors["imagenet"]
    return (
        0
        if verdict(
            "error of the trained encoder / of ImageNet features, 8 a class", ratio, at_most=0.5
        )
        else 1
    )


def learned(views: np.ndarray, labels: np.ndarray, prior: LinearProbe | None = None) -> LinearProbe:
    """The probe of all views ``(V, N, D)``, as ``rssc-geo train --labels`` learns it."""
    return fit_probe(
        views.reshape(-1, views.shape[-1]), np.tile(labels, len(views)), classes=UNSEEN, prior=prior
    )


if __name__ == "__main__":
    sys.exit(main())
