"""Accuracy of an image encoder on a data set that it was not trained on.

    python benchmarks/left_out.py ../shared/data --start AID_BUNDLE --weights IMAGENET.safetensors

One data set after the other is left out: the encoder learns from the three others by one short
schedule from two seeds, whose mean is tested, and beside it from AID alone with as many passes over
AID. All pictures of the set that is left out are tested, argmax over all names of the taxonomy.
Counted are labels that the training sets can teach: a training label names one of their classes
alone, or all classes of a partial training label are among theirs; and, for the comparison, those
that AID alone can teach. A picture is right when its label allows the class.

The recipe is that of the embedded model (embedded_model.py) with fewer passes, all at 160 pixels a
side: half of EuroSAT's training pictures are learned without their haze, and the set that is left
out is read as the default scaling reads a scene, its haze subtracted by its darkest pixels. As the
embedded model does, an encoder reads pictures at the size at which its training ended.

Each training starts from the encoder of a bundle that learned from AID alone (--start), but where
AID is left out: there it starts from ImageNet's weights (--weights). Logits and embeddings are kept
in the work folder, so that calibration and `Unknown` can be chosen without training again; a run
that is there is not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from common import DATA_SETS
from scipy.special import softmax

from rssc_geo.models import load_bundle
from rssc_geo.raster import without_haze
from rssc_geo.training import (
    EncoderRecipe,
    Legend,
    LookClassifier,
    SceneImages,
    StageRun,
    TrainedEncoder,
    TrainingRecipe,
    expected_calibration_error,
    fit_temperature,
    initial_weights,
    load_data_sets,
    normalize,
    stratified_split,
    to_input,
    train_encoder,
)

LEFT_OUT = ("ucm256", "nwpu160", "eurosat64", "aid150")
SIZE, BATCH = 160, 64
CPU = torch.device("cpu")
AWAY = 1.5
"""Factor of the fitted temperature, as for the embedded model (docs/benchmarks.md)."""


@dataclass(frozen=True)
class Result:
    """Results of a trained encoder on the set that was left out.

    ``accuracy``, ``error`` (of calibration, at 1.5 times the temperature of the own validation
    part), ``confidence``: over the ``pictures`` that count; ``shared``: accuracy on those whose
    labels AID alone can teach; ``own``: accuracy of the validation part.
    """

    pictures: int
    accuracy: float
    shared: float
    error: float
    confidence: float
    own: float


def taught(legend: Legend, training: Sequence[int]) -> np.ndarray:
    """Whether the training labels can teach each label, bool (L,)."""
    allowed = legend.allowed
    alone = np.zeros(len(legend.classes), bool)
    for label in training:
        if allowed[label].sum() == 1:
            alone |= allowed[label]
    within = np.array(
        [any(not (allowed[t] & ~row).any() for t in training) for row in allowed], bool
    )
    return np.asarray((allowed & alone).any(1) | within)


def counted(legend: Legend, test: SceneImages, sets: Sequence[str]) -> np.ndarray:
    """Rows of the pictures whose labels these data sets can teach, int64 (n,)."""
    training = [label for label, own in enumerate(legend.sets) if own in sets]
    return np.flatnonzero(taught(legend, training)[test.labels])


def rows_of(data: SceneImages, sets: Sequence[str]) -> np.ndarray:
    """Pictures of these data sets."""
    return np.flatnonzero(np.isin(np.array(data.legend.sets)[data.labels], sets))


def half_clear(part: SceneImages, training: np.ndarray) -> SceneImages:
    """The pictures with the haze of half of EuroSAT's training rows subtracted."""
    hazy = rows_of(part, ["eurosat64"])
    if not len(hazy):
        return part
    rows = np.intersect1d(hazy, training)
    clear = np.random.default_rng(0).permutation(rows)[: len(rows) // 2]
    pixels = part.pixels.copy()
    pixels[clear] = without_haze(_sampled(part.pixels[hazy])).apply(pixels[clear])
    return dataclasses.replace(part, pixels=pixels)


def _sampled(pixels: np.ndarray) -> np.ndarray:
    """One in 64 pixels of pictures, uint8 (n, 3)."""
    return pixels[:, ::8, ::8].reshape(-1, 3)


def schedule(pictures: int, count: int) -> tuple[tuple[int, int], ...]:
    """Whole passes over ``count`` pictures that come nearest to ``pictures``."""
    return ((max(1, round(pictures / (count // BATCH * BATCH))), SIZE),)


def trained(
    part: SceneImages,
    split: dict[str, np.ndarray],
    options: argparse.Namespace,
    pictures: int,
    start: TrainingRecipe,
    work: Path,
) -> LookClassifier:
    """The encoder and its classifier, the mean of some trainings on these pictures."""
    recipe = dataclasses.replace(
        EncoderRecipe(ground={"stage": 2, "width": 256}, learning_rate=1e-3),
        schedule=schedule(pictures, len(split["train"])),
    )
    initial = initial_weights(dataclasses.replace(start, encoder=recipe))
    runs = [StageRun(work / f"seed_{seed}", CPU, seed=seed) for seed in range(options.trainings)]
    for run in runs:
        run.work.mkdir(parents=True, exist_ok=True)
    made = TrainedEncoder.mean(
        train_encoder(part, split, recipe, initial=initial, run=run) for run in runs
    )
    network = LookClassifier(recipe, len(part.classes))
    network.encoder.load_state_dict(made.encoder)
    network.classify.load_state_dict(made.classify)
    return network.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def looked(network: LookClassifier, data: SceneImages) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and mean tokens (N, I) of pictures, at the size of the training's end."""
    recipe, logits, tokens = EncoderRecipe(), [], []
    for part in np.array_split(data.pixels, -(-len(data.pixels) // BATCH)):
        images = F.interpolate(to_input(part), (SIZE, SIZE), mode="bilinear", antialias=True)
        found = network.encoder(normalize(images, recipe.mean, recipe.std)).mean(1)
        tokens.append(found)
        logits.append(network.classify(found))
    return torch.cat(logits).numpy(), torch.cat(tokens).numpy()


def measured(
    logits: np.ndarray, data: SceneImages, temperature: float
) -> tuple[float, float, float]:
    """Accuracy, calibration error and mean confidence."""
    p = softmax(logits / temperature, 1)
    truth = data.truth(logits)
    right = float((logits.argmax(1) == truth).mean())
    return right, expected_calibration_error(p, truth), float(p.max(1).mean())


def run(
    data: SceneImages,
    left_out: str,
    sets: Sequence[str],
    pictures: int,
    options: argparse.Namespace,
) -> Result:
    """Train on ``sets`` (or read what an earlier run kept), test on ``left_out``."""
    name = f"{left_out}-without-{'-'.join(sets)}-{pictures}-{options.trainings}"
    kept = options.work / f"{name}.npz"
    part = data.take(rows_of(data, sets))
    split = stratified_split(part, seed=0)
    held = part.take(split["val"])
    test = data.take(rows_of(data, [left_out]))
    scaling = without_haze(_sampled(test.pixels))
    test = dataclasses.replace(test, pixels=scaling.apply(test.pixels))
    if not kept.is_file():
        start = TrainingRecipe(
            model=str(options.start), weights=None if "aid150" in sets else options.weights
        )
        learned = half_clear(part, split["train"])
        network = trained(learned, split, options, pictures, start, options.work / name)
        (own, own_tokens), (found, tokens) = looked(network, held), looked(network, test)
        np.savez(kept, own=own, own_tokens=own_tokens, found=found, tokens=tokens)
    with np.load(kept) as made:
        own, found = made["own"], made["found"]
    counts = counted(data.legend, test, sets)
    shared = counted(data.legend, test, [name for name in sets if name == "aid150"] or sets)
    temperature = AWAY * fit_temperature(own, data.legend.allowed[held.labels])
    own_right, *_ = measured(own, held, temperature)
    right, error, confidence = measured(found[counts], test.take(counts), temperature)
    on_shared, *_ = measured(found[shared], test.take(shared), temperature)
    return Result(len(counts), right, on_shared, error, confidence, own_right)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the four data sets and taxonomy.json")
    parser.add_argument("--start", type=Path, required=True, help="a bundle that learned AID alone")
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet's, safetensors")
    parser.add_argument("--pictures", type=int, default=24_000, help="of each training")
    parser.add_argument("--trainings", type=int, default=2, help="whose mean is tested")
    parser.add_argument("--work", type=Path, default=Path("work/left_out"))
    parser.add_argument("--only", choices=LEFT_OUT, nargs="+", default=LEFT_OUT)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    size = load_bundle("compact").card.input_size[0]
    data = load_data_sets(
        [options.data / name for name in DATA_SETS],
        size=size,
        taxonomy=options.data / "taxonomy.json",
    )
    columns = (
        *("left out", "pictures", "learned from", "accuracy", "on what AID teaches"),
        *("calibration error", "confidence", "own validation"),
    )
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for left_out in options.only:
        others = [name for name in DATA_SETS if name != left_out]
        share = np.mean([own == "aid150" for own in data.legend.sets if own in others])
        runs = [(others, options.pictures)]
        if left_out != "aid150":
            runs.append((["aid150"], round(options.pictures * float(share))))
        for sets, pictures in runs:
            found = run(data, left_out, sets, pictures, options)
            figures = dataclasses.astuple(found)[1:]
            cells = (left_out, str(found.pictures), ", ".join(sets))
            print(f"| {' | '.join((*cells, *(f'{x:.3f}' for x in figures)))} |", flush=True)


if __name__ == "__main__":
    main()
