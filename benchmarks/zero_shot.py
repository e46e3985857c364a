"""Zero-shot accuracy on classes that the image encoder has never seen.

    python benchmarks/zero_shot.py AID_FOLDER --weights IMAGENET.safetensors --sentence-encoder
    MINILM_FOLDER --work DIR

Three draws of 6 of the 30 classes: image encoder (shorter schedule than the embedded model's) and
alignment are trained on the training pictures and captions of the other 24; then every picture of
the 6 is given one of their 6 names, written as words ("Dense residential"); and again with the
phrases of aid_phrases.json, what a user who knows the classes would give to ``zero-shot --classes
FILE``: the name and three descriptions each, written once, before any was tried. Chance is one in
six. Each again after ``refine_texts`` has seen all pictures without their labels, also for two
draws of four of the six. What a draw has trained is kept in --work.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from common import verdict

from rssc_geo.models import Model, class_embeddings, refine_texts
from rssc_geo.training import (
    Features,
    Legend,
    SceneImages,
    StageRun,
    TrainingRecipe,
    cache_features,
    caption_embeddings,
    initial_weights,
    load_image_folder,
    new_model,
    stratified_split,
    train_alignment,
    train_encoder,
    with_encoder,
)

UNSEEN, DRAWS, SUBSETS = 6, 3, 2
PHRASES: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("aid_phrases.json").read_text(encoding="utf-8")
)
CPU = torch.device("cpu")


def train_without(
    unseen: np.ndarray, data: SceneImages, options: TrainingRecipe, *, seed: int, work: Path
) -> tuple[Model, SceneImages, Features]:
    """A model with an alignment, of the other classes only.

    Their pictures, and what its encoder sees of them.
    """
    work.mkdir(parents=True, exist_ok=True)
    seen = np.setdiff1d(np.arange(len(data.classes)), unseen)
    rows = np.flatnonzero(np.isin(data.labels, seen))
    others = data.take(rows)
    others = dataclasses.replace(
        others,
        legend=Legend.of_classes([data.classes[k] for k in seen]),
        labels=np.searchsorted(seen, others.labels),
    )
    split = stratified_split(others, seed=seed)
    trained = train_encoder(
        others,
        split,
        options.encoder,
        initial=initial_weights(options),
        embeddings=caption_embeddings(others.captions, str(options.sentence_encoder)),
        run=StageRun(work, CPU, seed=seed),
    )
    model = new_model(options, others)
    model = with_encoder(model, trained)
    model.network.eval()
    features = cache_features(model, others, split["train"], views=2, seed=seed, work=work)
    alignment = train_alignment(model, features, others.captions, split["train"], seed=seed)
    return dataclasses.replace(model, alignment=alignment), others, features


def draw_accuracy(data: SceneImages, options: TrainingRecipe, draw: int, work: Path) -> np.ndarray:
    """Accuracies by names, names refined, phrases, phrases refined, ``(1 + SUBSETS, 4)``.

    Of all six, and of four of them.
    """
    unseen = np.sort(np.random.default_rng(draw).choice(len(data.classes), UNSEEN, replace=False))
    model, _, _ = train_without(unseen, data, options, seed=draw, work=work)
    held = np.flatnonzero(np.isin(data.labels, unseen))
    pooled = mean_tokens(model, data.pixels[held])
    found = np.zeros((1 + SUBSETS, 4))
    for number in range(1 + SUBSETS):
        chosen = (
            unseen
            if not number
            else np.sort(np.random.default_rng(number).choice(unseen, 4, replace=False))
        )
        mine = np.isin(data.labels[held], chosen)
        labels = np.searchsorted(chosen, data.labels[held][mine])
        names = [data.classes[k] for k in chosen]
        found[number] = by_words(
            model, {name: [name] for name in names}, pooled[mine], labels
        ) + by_words(model, {name: PHRASES[name] for name in names}, pooled[mine], labels)
        cells = " | ".join(f"{value:.4f}" for value in found[number])
        print(f"| {draw} | {', '.join(names)} | {mine.sum()} | {cells} |", flush=True)
    return found


def by_words(
    model: Model, words: dict[str, list[str]], pooled: torch.Tensor, labels: np.ndarray
) -> tuple[float, float]:
    """Accuracy on mean tokens ``(N, I)``, and after refining on them without their labels."""
    assert model.alignment is not None
    texts = class_embeddings(model, words)
    refined = refine_texts(model.alignment, texts, pooled)
    with torch.inference_mode():
        before, after = (
            float((model.alignment(pooled, t).argmax(1).numpy() == labels).mean())
            for t in (texts, refined)
        )
    return before, after


def mean_tokens(model: Model, pixels: np.ndarray) -> torch.Tensor:
    """What the image encoder sees of uint8 pictures ``(N, H, W, 3)``: float32 ``(N, I)``."""
    with torch.inference_mode():
        parts = (
            model.preprocess(part, np.ones(part.shape[:3], bool))
            for part in np.array_split(pixels, -(-len(pixels) // 64))
        )
        return torch.cat([model.network.encode_image(images).mean(1) for images in parts])


def options_of(arguments: argparse.Namespace) -> TrainingRecipe:
    """The embedded model's recipe with a shorter schedule of the encoder."""
    recipe = dataclasses.replace(
        TrainingRecipe().encoder, schedule=((4, 128), (3, 160)), text_weight=1.0
    )
    return TrainingRecipe(
        weights=arguments.weights, sentence_encoder=arguments.sentence_encoder, encoder=recipe
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--sentence-encoder", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data = load_image_folder(options.data, size=160)
    print(
        "| draw | classes | pictures | by their names | refined | by phrases | refined"
        " |\n|---|---|---|---|---|---|---|"
    )
    draws = np.stack(
        [
            draw_accuracy(data, options_of(options), draw, options.work / f"draw{draw}")
            for draw in range(DRAWS)
        ]
    )
    for place, name in ((0, "by their names"), (2, "by phrases")):
        six = draws[:, 0, place]
        print(
            f"{name}: mean {six.mean():.4f}, deviation {six.std(ddof=1):.4f}; refined"
            f" {draws[:, 0, place + 1].mean():.4f}"
        )
    met = verdict(
        "zero-shot accuracy on 6 unseen classes, by phrases",
        float(draws[:, 0, 2].mean()),
        at_least=0.60,
    )
    gains = np.concatenate(
        [draws[..., 1] - draws[..., 0], draws[..., 3] - draws[..., 2]], axis=None
    )
    gained = verdict(
        f"mean gain by refining, {len(gains)} draws", float(gains.mean()), at_least=0.0
    )
    return 0 if met and gained else 1


if __name__ == "__main__":
    sys.exit(main())
