"""Zero-shot accuracy on classes of several data sets that the model has never seen.

    python benchmarks/zero_shot.py ../shared/data --start AID_BUNDLE --encoder
    work/left_out/ucm256-without-aid150-PICTURES-2/seed_*/encoder.safetensors --work DIR

The image encoder is the mean of those that left_out.py has trained on AID alone, as the embedded
model's is the mean of two trainings, and reads pictures at the size of these trainings; its
alignment with words is trained here, on AID's training pictures and captions, with the word vectors
of the bundle that it started from, which knows AID alone too. Unseen are the classes that labels of
UC Merced, NWPU and EuroSAT name alone and no label of AID allows; nothing of these data sets was
ever learned. At most 60 pictures a label are given one of the names, written as words ("Golf
course"), and again with the phrases of unseen_phrases.json, what a user who knows the classes would
give to ``zero-shot --classes FILE``: the name and three descriptions each, written once, before any
was tried. Of all unseen classes, and of ten draws of six, where chance is one in six. Each again
after ``refine_texts`` has seen all pictures without their labels.
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
from common import DATA_SETS, verdict
from left_out import SIZE

from rssc_geo.models import Model, class_embeddings, refine_texts
from rssc_geo.training import (
    EncoderRecipe,
    Legend,
    SceneImages,
    TrainedEncoder,
    TrainingRecipe,
    cache_features,
    load_data_sets,
    new_model,
    read_picture,
    read_taxonomy,
    stratified_split,
    train_alignment,
    with_encoder,
)

CHOSEN, DRAWS, A_LABEL = 6, 10, 60
LEARNED, *OTHERS = DATA_SETS
PHRASES: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("unseen_phrases.json").read_text(encoding="utf-8")
)
CPU = torch.device("cpu")


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """What zero_shot.py and few_shot.py are told."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the four data sets and taxonomy.json")
    parser.add_argument("--start", required=True, help="a bundle that learned AID alone")
    parser.add_argument(
        "--encoder",
        type=Path,
        nargs="+",
        required=True,
        help="files encoder.safetensors of left_out.py, AID alone: their mean",
    )
    parser.add_argument("--work", type=Path, required=True)
    return parser


def unseen(folder: Path, size: int) -> SceneImages:
    """At most ``A_LABEL`` pictures of each label that names an unseen class alone.

    Their labels are the unseen classes.
    """
    taxonomy = read_taxonomy(folder / "taxonomy.json")
    places = {name: folder / name / "images" for name in DATA_SETS}
    legends = {
        name: taxonomy.legend(name, sorted(path.name for path in place.iterdir()))
        for name, place in places.items()
    }
    known = legends[LEARNED].allowed.any(0)
    pixels: list[np.ndarray] = []
    names: list[str] = []
    truth: list[str] = []
    for seed, data_set in enumerate(OTHERS):
        legend, random = legends[data_set], np.random.default_rng(seed)
        alone = (legend.allowed.sum(1) == 1) & ~(legend.allowed & known).any(1)
        for label in np.flatnonzero(alone).tolist():
            files = sorted((places[data_set] / legend.labels[label].split("/")[-1]).iterdir())
            for number in random.permutation(len(files))[:A_LABEL].tolist():
                pixels.append(read_picture(files[number], size))
                names.append(files[number].name)
                truth.append(legend.classes[int(legend.allowed[label].argmax())])
    classes, labels = np.unique(truth, return_inverse=True)
    legend = Legend.of_classes(classes.tolist())
    return SceneImages(np.stack(pixels), labels, tuple(names), legend, ((),) * len(names))


def aid_model(options: argparse.Namespace) -> Model:
    """A model of AID's classes with the encoder of left_out.py and an alignment with words."""
    recipe = TrainingRecipe(
        model=options.start,
        encoder=EncoderRecipe(ground={"stage": 2, "width": 256}, schedule=((1, SIZE),)),
    )
    data = load_data_sets(
        [options.data / LEARNED],
        size=recipe.encoder.size,
        taxonomy=options.data / "taxonomy.json",
    )
    data = data.take(stratified_split(data, seed=0)["train"])
    encoder = TrainedEncoder.mean(map(TrainedEncoder.load, options.encoder))
    model = with_encoder(new_model(recipe, data), encoder)
    model.network.eval()
    options.work.mkdir(parents=True, exist_ok=True)
    rows = np.arange(len(data.names))
    features = cache_features(model, data, rows, views=1, seed=0, work=options.work)
    alignment = train_alignment(model, features, data.captions, rows, seed=0)
    return dataclasses.replace(model, alignment=alignment)


def mean_tokens(model: Model, pixels: np.ndarray) -> torch.Tensor:
    """What the image encoder sees of uint8 pictures ``(N, H, W, 3)``: float32 ``(N, I)``."""
    with torch.inference_mode():
        parts = (
            model.preprocess(part, np.ones(part.shape[:3], bool))
            for part in np.array_split(pixels, -(-len(pixels) // 64))
        )
        return torch.cat([model.network.encode_image(images).mean(1) for images in parts])


def by_words(
    model: Model, words: dict[str, list[str]], pooled: torch.Tensor, labels: np.ndarray
) -> tuple[float, float]:
    """Accuracy on mean tokens ``(N, I)``, and after refining on them without their labels.

    The mean of the classes, which have from 60 to 180 pictures.
    """
    assert model.alignment is not None
    texts = class_embeddings(model, words)
    refined = refine_texts(model.alignment, texts, pooled)
    found = []
    with torch.inference_mode():
        for named in (texts, refined):
            right = model.alignment(pooled, named).argmax(1).numpy() == labels
            found.append(float(np.mean([right[labels == k].mean() for k in range(len(words))])))
    return found[0], found[1]


def accuracies(
    model: Model, pooled: torch.Tensor, pictures: SceneImages, chosen: np.ndarray
) -> list[float]:
    """Of these classes by names, names refined, phrases, phrases refined; prints a line."""
    mine = np.isin(pictures.labels, chosen)
    labels = np.searchsorted(chosen, pictures.labels[mine])
    names = [pictures.classes[k] for k in chosen]
    found = [
        *by_words(model, {name: [name] for name in names}, pooled[mine], labels),
        *by_words(model, {name: PHRASES[name] for name in names}, pooled[mine], labels),
    ]
    cells = " | ".join(f"{value:.4f}" for value in found)
    print(f"| {', '.join(names)} | {mine.sum()} | {cells} |", flush=True)
    return found


def main() -> int:
    options = parser_of(__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    model = aid_model(options)
    pictures = unseen(options.data, model.card.input_size[0])
    pooled = mean_tokens(model, pictures.pixels)
    print(
        "| classes | pictures | by their names | refined | by phrases | refined"
        " |\n|---|---|---|---|---|---|"
    )
    accuracies(model, pooled, pictures, np.arange(len(pictures.classes)))
    draws = np.array(
        [
            accuracies(model, pooled, pictures, np.sort(chosen))
            for chosen in (
                np.random.default_rng(draw).choice(len(pictures.classes), CHOSEN, replace=False)
                for draw in range(DRAWS)
            )
        ]
    )
    for place, name in ((0, "by their names"), (2, "by phrases")):
        print(
            f"{name}: mean {draws[:, place].mean():.4f}, deviation"
            f" {draws[:, place].std(ddof=1):.4f}; refined {draws[:, place + 1].mean():.4f}"
        )
    met = verdict(
        f"zero-shot accuracy on {CHOSEN} unseen classes, by phrases",
        float(draws[:, 2].mean()),
        at_least=0.60,
    )
    gains = draws[:, 1::2] - draws[:, ::2]
    gained = verdict(f"mean gain by refining, {gains.size} draws", float(gains.mean()), at_least=0)
    return 0 if met and gained else 1


if __name__ == "__main__":
    sys.exit(main())
