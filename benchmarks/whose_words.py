"""Whether the classifier reads the words that it is given, or does as well with any.

    python benchmarks/whose_words.py ../shared/data [--model compact] [--part test]

The pictures of a part, as in training, are classified with no words, with the captions that the
model writes itself, with one of these for all of them (the most frequent), with those of the other
pictures in disorder, with those of other pictures of the class that the picture alone is taken for,
and with what people wrote, where they did. What other pictures' captions bring is no words' merit.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from common import DATA_SETS

from rssc_geo.models import CaptionSource, load_bundle
from rssc_geo.training import (
    SceneImages,
    load_data_sets,
    logits_of,
    mcnemar,
    stratified_split,
    write_captions,
)

BATCH = 64


def of_others(captions: list[str], groups: np.ndarray, random: np.random.Generator) -> list[str]:
    """Each picture's caption is that of another one of its group, where there is one."""
    found = list(captions)
    for group in np.unique(groups):
        rows = random.permutation(np.flatnonzero(groups == group))
        for row, other in zip(rows.tolist(), np.roll(rows, 1).tolist(), strict=True):
            found[row] = captions[other]
    return found


def row_of(name: str, right: np.ndarray, without: np.ndarray, data: SceneImages) -> str:
    """A line of the table: accuracy of all and by data set, and McNemar's test against no words."""
    sets = np.array(data.legend.sets)[data.labels]
    shares = [right.mean(), *(right[sets == one].mean() for one in DATA_SETS)]
    test = mcnemar(right, without)
    cells = " | ".join(f"{share:.4f}" for share in shares)
    return f"| {name} | {cells} | {test.only_first} : {test.only_second}, {test.p_value:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the four data sets and taxonomy.json")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--part", choices=["train", "val", "test"], default="test")
    options = parser.parse_args()
    model = load_bundle(options.model)
    if model.decoder is None or model.vocabulary is None:
        parser.error(f"{options.model} writes no captions")
    data = load_data_sets(
        [options.data / name for name in DATA_SETS],
        size=model.card.input_size[0],
        taxonomy=options.data / "taxonomy.json",
    )
    data = data.take(stratified_split(data, seed=0)[options.part])
    found = []
    with torch.inference_mode():
        for part in np.array_split(data.pixels, -(-len(data.pixels) // BATCH)):
            images = model.preprocess(part, np.ones(part.shape[:3], bool))
            found.append(model.network.encode_image(images).numpy())
    tokens = np.concatenate(found)
    device = torch.device("cpu")
    own = write_captions(model.decoder, model.vocabulary, tokens, device=device)
    silent = logits_of(model, tokens, [""] * len(own), source="generated")
    random = np.random.default_rng(0)
    readings: dict[str, tuple[list[str], CaptionSource]] = {
        "nothing": ([""] * len(own), "generated"),
        "its own captions": (own, "generated"),
        "one caption for all": ([Counter(own).most_common(1)[0][0]] * len(own), "generated"),
        "captions of any others": (of_others(own, np.zeros(len(own)), random), "generated"),
        "captions of others of the class": (of_others(own, silent.argmax(1), random), "generated"),
        "what people wrote": ([" ".join(texts) for texts in data.captions], "written"),
    }
    print(f"{len(own)} pictures, {model.card.name} {model.card.version}, {options.part}")
    print(f"| read | all | {' | '.join(DATA_SETS)} | right alone : nothing alone, p |")
    print("|---" * (len(DATA_SETS) + 3) + "|")
    without = silent.argmax(1) == data.truth(silent)
    for name, (texts, source) in readings.items():
        logits = logits_of(model, tokens, texts, source=source)
        print(row_of(name, logits.argmax(1) == data.truth(logits), without, data), flush=True)


if __name__ == "__main__":
    main()
