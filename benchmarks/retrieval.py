"""Retrieval of pictures by words, of words by pictures, and of pictures by pictures of their class.

    python benchmarks/retrieval.py ../shared/data [--model compact]

On the validation parts of the four data sets that the embedded model learned from (the same split:
seed and shares of the card), pictures that it did not learn from.

Captions: AID's pictures with RSICD's sentences. From sentence to picture the share of sentences
whose picture is among the first 1, 5, 10 of all; from picture to sentence the share of pictures of
which a sentence of theirs is; mR is the mean of the six.

Classes: those that some label names alone. Of each the average precision of the ranking of all
pictures by its words (the class's title), and by a picture of it (the mean over its pictures, which
do not find themselves); then the mean over the classes. Pictures whose label allows the class among
others are left out of its ranking, since their class is not known.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import DATA_SETS, verdict

from rssc_geo import PredictorOptions, load_predictor
from rssc_geo.inference import Predictor
from rssc_geo.models import class_embedding, in_words
from rssc_geo.training import load_data_sets, stratified_split

FIRST = (1, 5, 10)
BATCH = 64


@dataclass(frozen=True)
class Pictures:
    """Validation pictures of all data sets.

    ``embeddings`` (N, D); ``allowed`` bool (N, C), the classes that their labels allow;
    ``captions`` of those that people wrote about themselves, of the others none.
    """

    embeddings: np.ndarray
    allowed: np.ndarray
    captions: tuple[tuple[str, ...], ...]


def read_pictures(data: Path, predictor: Predictor) -> Pictures:
    """One data set after another, so that only one is held."""
    card = predictor.card
    options = card.training["options"]
    embeddings, allowed, captions = [], [], []
    for name in DATA_SETS:
        images = load_data_sets(
            [data / name], size=card.input_size[0], taxonomy=data / "taxonomy.json"
        )
        split = stratified_split(
            images, seed=card.training["seed"], val=options["val"], test=options["test"]
        )
        rows = split["val"]
        for part in np.array_split(rows, -(-len(rows) // BATCH)):
            pixels = images.pixels[part]
            found = predictor(pixels, np.ones(pixels.shape[:3], bool), embed=True).embeddings
            assert found is not None
            embeddings.append(found)
        allowed.append(images.legend.allowed[images.labels[rows]])
        captions += [tuple(images.captions[row]) for row in rows.tolist()]
    return Pictures(np.concatenate(embeddings), np.concatenate(allowed), tuple(captions))


def by_captions(vectors: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """Recalls in percent, of sentences (S, D) whose pictures are ``owner`` (S,) among (N, D)."""
    scores = texts @ vectors.T
    own = scores[np.arange(len(owner)), owner]
    found = {}
    ranks = (scores > own[:, None]).sum(1)
    for first in FIRST:
        found[f"sentence → picture, R@{first}"] = 100 * float(np.mean(ranks < first))
    best = np.full(len(vectors), len(texts))
    for picture in range(len(vectors)):
        mine = np.flatnonzero(owner == picture)
        best[picture] = (scores[:, picture] > scores[mine, picture].max()).sum()
    for first in FIRST:
        found[f"picture → sentence, R@{first}"] = 100 * float(np.mean(best < first))
    found["mR"] = float(np.mean(list(found.values())))
    return found


def average_precision(scores: np.ndarray, right: np.ndarray) -> float:
    """Of a ranking by ``scores`` (n,), of which ``right`` (n,) is wanted."""
    hits = right[np.argsort(-scores, kind="stable")]
    places = np.flatnonzero(hits) + 1
    return float(np.mean(np.arange(1, len(places) + 1) / places))


def by_class(
    pictures: Pictures, vectors: np.ndarray, texts: Mapping[int, np.ndarray]
) -> tuple[dict[int, float], dict[int, float]]:
    """Average precisions of each class that a label names alone: by its text, by its pictures."""
    alone = pictures.allowed.sum(1) == 1
    by_text, by_picture = {}, {}
    for number in range(pictures.allowed.shape[1]):
        right = alone & pictures.allowed[:, number]
        ranked = right | ~pictures.allowed[:, number]
        if right.sum() < 2:
            continue
        kept, wanted = vectors[ranked], right[ranked]
        by_text[number] = average_precision(kept @ texts[number], wanted)
        each = []
        for place in np.flatnonzero(wanted):
            others = np.arange(len(kept)) != place
            each.append(average_precision(kept[others] @ kept[place], wanted[others]))
        by_picture[number] = float(np.mean(each))
    return by_text, by_picture


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the four data sets and taxonomy.json")
    parser.add_argument("--model", default="compact")
    asked = parser.parse_args()
    predictor = load_predictor(PredictorOptions(model=asked.model, captioner="none", device="cpu"))
    pictures = read_pictures(asked.data, predictor)

    def embedded(words: Sequence[str]) -> np.ndarray:
        return class_embedding(predictor.model, words[0], words).numpy()

    captioned = np.flatnonzero([bool(texts) for texts in pictures.captions])
    sentences = [text for row in captioned for text in pictures.captions[row]]
    owner = np.repeat(np.arange(len(captioned)), [len(pictures.captions[row]) for row in captioned])
    with torch.inference_mode():
        texts = np.stack([embedded([text]) for text in sentences])
        titles = [known.title or in_words(known.name) for known in predictor.card.classes]
        named = {number: embedded([title]) for number, title in enumerate(titles)}
    print(f"{len(captioned)} pictures with {len(sentences)} sentences\n")
    recalls = by_captions(pictures.embeddings[captioned], texts, owner)
    print("| " + " | ".join(recalls) + " |\n" + "|---" * len(recalls) + "|")
    print("| " + " | ".join(f"{value:.1f}" for value in recalls.values()) + " |\n")
    by_text, by_picture = by_class(pictures, pictures.embeddings, named)
    print("| class | pictures | by words | by a picture |\n|---|---|---|---|")
    alone = pictures.allowed.sum(1) == 1
    for number in by_text:
        count = int((alone & pictures.allowed[:, number]).sum())
        print(f"| {titles[number]} | {count} | {by_text[number]:.3f} | {by_picture[number]:.3f} |")
    print()
    words, likeness = (float(np.mean(list(each.values()))) for each in (by_text, by_picture))
    met = [
        verdict(f"text → class, mAP of {len(by_text)} classes", words, at_least=0.6),
        verdict(f"picture → class, mAP of {len(by_picture)} classes", likeness, at_least=0.8),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
