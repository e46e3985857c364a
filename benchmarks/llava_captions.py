"""Effect of a large model's captions on the classifier, beside no captions and human ones.

    python benchmarks/llava_captions.py AID_FOLDER AID600_FOLDER [--model compact]

AID600_FOLDER holds `images/<class>/*` and `llava_captions.jsonl` (`{"image", "llava_caption"}`):
LLaVA's captions of some pictures of AID, made by the authors of arXiv 2412.02531. The pictures are
resized to the model's input; people's captions are those of AID_FOLDER. Most of these pictures were
in the model's training part, so the others are reported apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from rssc_geo.evaluation import Evaluation
from rssc_geo.evaluation.evaluate import evaluate
from rssc_geo.models import Model, load_bundle
from rssc_geo.options import EvaluateOptions
from rssc_geo.training import SceneImages, load_image_folder, stratified_split


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("large", type=Path)
    parser.add_argument("--model", default="compact")
    options = parser.parse_args()

    model = load_bundle(options.model)
    size = model.card.input_size[0]
    whole = load_image_folder(options.dataset, size=size)
    part = {
        whole.names[row]: name
        for name, rows in stratified_split(whole, seed=0).items()
        for row in rows.tolist()
    }
    people = dict(zip(whole.names, whole.captions, strict=True))
    lines = [
        json.loads(line)
        for line in (
            (options.large / "llava_captions.jsonl").read_text(encoding="utf-8").splitlines()
        )
    ]
    llava = {line["image"]: (line["llava_caption"],) for line in lines}
    data = load_image_folder(options.large, size=size)
    data = data.take(np.array([row for row, name in enumerate(data.names) if name in llava]))
    by_words = {
        "nothing": evaluate(model, data, EvaluateOptions(caption_source="none")),
        "LLaVA's captions": _reading(model, data, llava),
        "people's captions": _reading(model, data, people),
    }
    parts = np.array([part.get(name, "not in AID_FOLDER") for name in data.names])
    groups = {"all": np.ones(len(parts), bool), "val and test": np.isin(parts, ["val", "test"])}
    print(
        {str(name): int((parts == name).sum()) for name in np.unique(parts)},
        ", ".join(data.classes),
    )
    said = [
        data.classes[label].lower() in "".join(llava[name][0].lower().split())
        for label, name in zip(data.labels.tolist(), data.names, strict=True)
    ]
    print(f"LLaVA names the class in {sum(said)} of {len(said)}")
    print(
        "| read by the classifier | "
        + " | ".join(f"{name} ({chosen.sum()})" for name, chosen in groups.items())
        + " |"
    )
    print("|---" * (len(groups) + 1) + "|")
    for name, found in by_words.items():
        right = found.predictions.classes == found.truth
        cells = [
            f"{right[chosen].mean():.4f} ({(~right[chosen]).sum()} wrong)"
            for chosen in groups.values()
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def _reading(
    model: Model, data: SceneImages, captions: Mapping[str, tuple[str, ...]]
) -> Evaluation:
    return evaluate(
        model,
        dataclasses.replace(data, captions=tuple(captions.get(n, ()) for n in data.names)),
        EvaluateOptions(caption_source="human"),
    )


if __name__ == "__main__":
    main()
