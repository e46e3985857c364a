"""Zero-shot accuracy on classes that the image encoder has never seen.

    python benchmarks/zero_shot.py AID_FOLDER --weights IMAGENET.safetensors --sentence-encoder MINILM_FOLDER --work DIR

Three draws of 6 of the 30 classes: image encoder (shorter schedule than the embedded model's) and alignment are trained
on the training pictures and captions of the other 24; then every picture of the 6 is given one of their 6 names,
written as words ("Dense residential"): no templates, no synonyms. Chance is one in six. The same again after
``refine_texts`` has seen all pictures without their labels, also for two draws of four of the six. What a draw has
trained is kept in --work.
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
import torch
from common import verdict

from rssc_geo.models.bundle import Model
from rssc_geo.training.align import train_alignment
from rssc_geo.training.data import SceneImages, load_image_folder, stratified_split
from rssc_geo.training.encoder import train_encoder
from rssc_geo.training.features import Features, cache_features
from rssc_geo.training.recipe import TrainOptions, initial_weights, new_model
from rssc_geo.training.sentences import caption_embeddings
from rssc_geo.zeroshot import class_vector, refine_texts

UNSEEN, DRAWS, SUBSETS = 6, 3, 2
CPU = torch.device("cpu")


def train_without(
    unseen: np.ndarray, data: SceneImages, options: TrainOptions, *, seed: int, work: Path
) -> tuple[Model, SceneImages, Features]:
    """A model with an alignment, of the other classes only; their pictures, and what its encoder sees of them."""
    work.mkdir(parents=True, exist_ok=True)
    seen = np.setdiff1d(np.arange(len(data.classes)), unseen)
    rows = np.flatnonzero(np.isin(data.labels, seen))
    others = data.take(rows)
    others = dataclasses.replace(
        others, classes=tuple(data.classes[k] for k in seen), labels=np.searchsorted(seen, others.labels)
    )
    split = stratified_split(others, seed=seed)
    weights = train_encoder(
        others,
        split,
        options.encoder,
        work=work,
        initial=initial_weights(options),
        embeddings=caption_embeddings(others.captions, str(options.sentence_encoder)),
        seed=seed,
        device=CPU,
    )
    model = new_model(options, others)
    model.network.image_encoder.backbone.load_state_dict(weights)
    model.network.eval()
    features = cache_features(model.network, model.card, others, split["train"], views=2, seed=seed, work=work, device=CPU)
    alignment = train_alignment(model, features, others.captions, split["train"], seed=seed)
    return dataclasses.replace(model, alignment=alignment), others, features


def draw_accuracy(data: SceneImages, options: TrainOptions, draw: int, work: Path) -> tuple[float, list[float]]:
    """Accuracy on the six classes by their names, and what refining adds: with all six, and with four of them."""
    unseen = np.sort(np.random.default_rng(draw).choice(len(data.classes), UNSEEN, replace=False))
    model, _, _ = train_without(unseen, data, options, seed=draw, work=work)
    assert model.alignment is not None
    held = np.flatnonzero(np.isin(data.labels, unseen))
    tokens = []
    with torch.inference_mode():
        for part in np.array_split(held, -(-len(held) // 64)):
            images = model.preprocess(data.pixels[part], np.ones(data.pixels[part].shape[:3], bool))
            tokens.append(model.network.encode_image(images).mean(1))
    pooled = torch.cat(tokens)
    gains, plain = [], 0.0
    for number in range(1 + SUBSETS):
        chosen = unseen if not number else np.sort(np.random.default_rng(number).choice(unseen, 4, replace=False))
        mine = np.isin(data.labels[held], chosen)
        labels = np.searchsorted(chosen, data.labels[held][mine])
        texts = torch.stack([class_vector(model, data.classes[k], [data.classes[k]]) for k in chosen])
        refined = refine_texts(model.alignment, texts, pooled[mine])
        with torch.inference_mode():
            before, after = (
                float((model.alignment(pooled[mine], t).argmax(1).numpy() == labels).mean()) for t in (texts, refined)
            )
        plain = plain if number else before
        gains.append(after - before)
        names = ", ".join(data.classes[k] for k in chosen)
        print(f"| {draw} | {names} | {mine.sum()} | {before:.4f} | {after:.4f} |", flush=True)
    return plain, gains


def options_of(arguments: argparse.Namespace) -> TrainOptions:
    """The embedded model's recipe with a shorter schedule of the encoder."""
    recipe = dataclasses.replace(TrainOptions().encoder, schedule=((4, 128), (3, 160)), text_weight=1.0)
    return TrainOptions(weights=arguments.weights, sentence_encoder=arguments.sentence_encoder, encoder=recipe)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--sentence-encoder", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    data = load_image_folder(options.data, size=160)
    print("| draw | classes | pictures | by their names | refined |\n|---|---|---|---|---|")
    draws = [draw_accuracy(data, options_of(options), draw, options.work / f"draw{draw}") for draw in range(DRAWS)]
    found, gains = [plain for plain, _ in draws], [gain for _, more in draws for gain in more]
    print(f"mean {np.mean(found):.4f}, deviation {np.std(found, ddof=1):.4f}")
    met = verdict("zero-shot accuracy on 6 unseen classes", float(np.mean(found)), at_least=0.60)
    gained = verdict(f"mean gain by refining, {len(gains)} draws", float(np.mean(gains)), at_least=0.0)
    return 0 if met and gained else 1


if __name__ == "__main__":
    sys.exit(main())
