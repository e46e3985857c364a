"""Zero-shot accuracy on classes that the image encoder has never seen.

    python benchmarks/zero_shot.py AID_FOLDER --weights IMAGENET.safetensors --sentence-encoder MINILM_FOLDER --work DIR

Three draws of 6 of the 30 classes: image encoder (shorter schedule than the embedded model's) and alignment are trained
on the training pictures and captions of the other 24; then every picture of the 6 is given one of their 6 names,
written as words ("Dense residential"). Chance is one in six. What a draw has trained is kept in --work.
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

from rssc_geo.training.align import train_alignment
from rssc_geo.training.data import SceneImages, load_image_folder, stratified_split
from rssc_geo.training.encoder import train_encoder
from rssc_geo.training.features import cache_features
from rssc_geo.training.recipe import TrainOptions, initial_weights, new_model
from rssc_geo.training.sentences import caption_embeddings
from rssc_geo.zeroshot import name_classes

UNSEEN, DRAWS = 6, 3
CPU = torch.device("cpu")


def draw_accuracy(data: SceneImages, options: TrainOptions, draw: int, work: Path) -> float:
    work.mkdir(parents=True, exist_ok=True)
    unseen = np.sort(np.random.default_rng(draw).choice(len(data.classes), UNSEEN, replace=False))
    seen = np.setdiff1d(np.arange(len(data.classes)), unseen)
    rows = np.flatnonzero(np.isin(data.labels, seen))
    others = data.take(rows)
    others = dataclasses.replace(
        others, classes=tuple(data.classes[k] for k in seen), labels=np.searchsorted(seen, others.labels)
    )
    split = stratified_split(others, seed=draw)
    weights = train_encoder(
        others,
        split,
        options.encoder,
        work=work,
        initial=initial_weights(options),
        embeddings=caption_embeddings(others.captions, str(options.sentence_encoder)),
        seed=draw,
        device=CPU,
    )
    model = new_model(options, others)
    model.network.image_encoder.backbone.load_state_dict(weights)
    model.network.eval()
    features = cache_features(model.network, model.card, others, split["train"], views=2, seed=draw, work=work, device=CPU)
    alignment = train_alignment(model, features, others.captions, split["train"], seed=draw)
    names = [data.classes[k] for k in unseen]
    named = name_classes(dataclasses.replace(model, alignment=alignment), names)
    held = np.flatnonzero(np.isin(data.labels, unseen))
    found = []
    with torch.inference_mode():
        for part in np.array_split(held, -(-len(held) // 64)):
            images = model.preprocess(data.pixels[part], np.ones(data.pixels[part].shape[:3], bool))
            found.append(named.network.classify(model.network.encode_image(images)).argmax(1).numpy())
    right = np.concatenate(found) == np.searchsorted(unseen, data.labels[held])
    print(f"draw {draw}: {', '.join(names)}: {right.mean():.4f} of {len(held)}", flush=True)
    return float(right.mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--sentence-encoder", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    recipe = dataclasses.replace(TrainOptions().encoder, schedule=((4, 128), (3, 160)), text_weight=1.0)
    chosen = TrainOptions(weights=options.weights, sentence_encoder=options.sentence_encoder, encoder=recipe)
    data = load_image_folder(options.data, size=160)
    found = [draw_accuracy(data, chosen, draw, options.work / f"draw{draw}") for draw in range(DRAWS)]
    print(f"mean {np.mean(found):.4f}, deviation {np.std(found, ddof=1):.4f}")
    return 0 if verdict("zero-shot accuracy on 6 unseen classes", float(np.mean(found)), at_least=0.60) else 1


if __name__ == "__main__":
    sys.exit(main())
