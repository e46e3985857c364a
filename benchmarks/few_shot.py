"""Accuracy against the number of labeled pictures of classes that the model has never seen.

    python benchmarks/few_shot.py ../shared/data --start AID_BUNDLE --encoder
    work/left_out/ucm256-without-aid150-PICTURES-2/seed_*/encoder.safetensors
    --weights IMAGENET.safetensors --work DIR

Classes, pictures and encoder are those of zero_shot.py: the encoder knows AID alone, the pictures
are of classes that only UC Merced, NWPU and EuroSAT have. 1 to 16 pictures of each class are drawn
five times from one half of them; the layer of ``rssc-geo train --labels`` learns from these,
upright, turned and mirrored, and the other half is classified, upright (the mean of the classes).
It reads the encoder's mean token, the same with the phrases of unseen_phrases.json (--class-words),
the ImageNet features of the same backbone before any training, and plain color statistics. What the
encoders see is kept in --work (unseen.npz), where review.py reads it. ``--tuned DRAWS``: the mean
token after --fine-tune, on so many of the draws at 8 a class.
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
from zero_shot import CPU, PHRASES, aid_model, parser_of, unseen

from rssc_geo.models import class_embeddings
from rssc_geo.training import (
    LinearProbe,
    SceneImages,
    TrainingRecipe,
    embed_views,
    fine_tune,
    fit_probe,
    initial_weights,
    new_model,
    without_attention,
    word_prior,
)

DRAWS, SHOTS, TUNED_AT = 5, (1, 2, 4, 8, 16), 8
ENCODER, WORDS, BEFORE = "encoder", "encoder and words", "imagenet"


def imagenet(pictures: SceneImages, options: argparse.Namespace) -> np.ndarray:
    """Mean tokens (V, N, D) of the backbone as it came from ImageNet."""
    recipe = TrainingRecipe(model=options.start, weights=options.weights)
    model = new_model(recipe, pictures)
    model.network.image_encoder.load_state_dict(
        {
            name: value
            for name, value in initial_weights(recipe).items()
            if not name.startswith("backbone.classifier.")
        }
    )
    return embed_views([without_attention(model)], pictures.pixels, CPU)[0]


def colors(pixels: np.ndarray) -> np.ndarray:
    """Mean, deviation and a 16-bin histogram of each channel, (N, D)."""
    flat = pixels.reshape(len(pixels), -1, 3)
    bins = [
        [np.bincount(channel // 16, minlength=16) / len(channel) for channel in picture.T]
        for picture in flat
    ]
    return np.concatenate(
        [flat.mean(1) / 255, flat.std(1) / 255, np.array(bins).reshape(len(pixels), -1)], 1
    )


def learned(
    views: np.ndarray, labels: np.ndarray, classes: int, prior: LinearProbe | None = None
) -> LinearProbe:
    """The probe of all views ``(V, N, D)``, as ``rssc-geo train --labels`` learns it."""
    flat = views.reshape(-1, views.shape[-1])
    return fit_probe(flat, np.tile(labels, len(views)), classes=classes, prior=prior)


def accuracy_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean of the classes' accuracies."""
    right = logits.argmax(1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet's, safetensors")
    parser.add_argument("--tuned", type=int, default=0, metavar="DRAWS")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    reader = without_attention(aid_model(options))
    pictures = unseen(options.data, reader.card.input_size[0])
    labels, classes = pictures.labels, len(pictures.classes)
    print(f"{len(labels)} pictures of {', '.join(pictures.classes)}")
    embeddings = {
        ENCODER: embed_views([reader], pictures.pixels, CPU)[0],
        BEFORE: imagenet(pictures, options),
        "colors": colors(pictures.pixels)[None],
    }
    np.savez(options.work / "unseen.npz", labels=labels, **embeddings)
    texts = class_embeddings(reader, {name: PHRASES[name] for name in pictures.classes})
    accuracy: dict[tuple[str, int], list[float]] = {}
    tuned: list[tuple[float, float, float]] = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(labels))
        pool, test = order[: len(order) // 2], order[len(order) // 2 :]
        for shots in SHOTS:
            chosen = np.concatenate([pool[labels[pool] == k][:shots] for k in range(classes)])
            seen = embeddings[ENCODER][0, chosen]
            words = word_prior(reader, texts, seen, np.full(classes, shots))
            found = {}
            for name, views, prior in (
                *((name, views, None) for name, views in embeddings.items()),
                (WORDS, embeddings[ENCODER], words),
            ):
                probe = learned(views[:, chosen], labels[chosen], classes, prior)
                found[name] = accuracy_of(probe.logits(views[0, test]), labels[test])
                accuracy.setdefault((name, shots), []).append(found[name])
            if shots == TUNED_AT and draw < options.tuned:
                probe = learned(views[:, chosen], labels[chosen], classes)
                model = fine_tune(
                    reader, probe, pictures.pixels[chosen], labels[chosen], device=CPU
                )
                after = embed_views([model], pictures.pixels[chosen], CPU)[0]
                probe = learned(after, labels[chosen], classes)
                held = embed_views([model], pictures.pixels[test], CPU, views=1)[0][0]
                value = accuracy_of(probe.logits(held), labels[test])
                tuned.append((value, found[ENCODER], found[BEFORE]))
                print(
                    "draw {}, {} a class: tuned {:.4f}, as it was {:.4f}, ImageNet {:.4f}".format(
                        draw, TUNED_AT, *tuned[-1]
                    ),
                    flush=True,
                )
    names = (ENCODER, WORDS, BEFORE, "colors")
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
    errors = {name: 1 - float(np.mean(accuracy[name, TUNED_AT])) for name in names}
    ratio = errors[ENCODER] / errors[BEFORE]
    met = verdict(
        f"error of the trained encoder / of ImageNet features, {TUNED_AT} a class",
        ratio,
        at_most=0.5,
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
