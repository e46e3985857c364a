"""Train a bundle from labeled scene images: ``rssc-geo train`` and ``rssc_geo.train``.

torch is loaded by the stages alone, after all checks that do not need it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rssc_geo.models import check_bundle_folder
from rssc_geo.options import TrainOptions
from rssc_geo.progress import Progress, reporting
from rssc_geo.training.data import (
    DataSets,
    check_captioners,
    data_sets,
    load_data_sets,
    stratified_split,
)
from rssc_geo.training.options import (
    TrainingRecipe,
    check_training,
    training_recipe,
    training_record,
)
from rssc_geo.training.readme import bundle_readme
from rssc_geo.training.work import WorkFolder

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from rssc_geo.models import ModelCard
    from rssc_geo.training.data import SceneImages, Split
    from rssc_geo.training.stages.encoder import TrainedEncoder

_DEFAULTS = TrainOptions()


def train(
    dataset: DataSets,
    output: str | Path,
    options: TrainOptions = _DEFAULTS,
    *,
    command: str = "",
    progress: Progress | bool | None = None,
) -> ModelCard:
    """Train a model on one or several folders of pictures and write its bundle.

    The stages' results are kept in the work folder: the same call continues where it stopped. The
    folder may be removed afterwards.

    Parameters
    ----------
    dataset : one folder a class, and ``captions.jsonl`` where there are captions; see
        ``load_image_folder``. Or several of them, whose labels ``options.taxonomy`` brings into one
        legend; see ``load_data_sets``
    output : the bundle's folder
    options : by stages, or the whole network end to end
    command : noted in the card as the way to reproduce the bundle
    progress : called as ``progress(stage, done, total)``, in epochs

    Returns the card as written.

    Raises
    ------
    UsageError
        for options that contradict each other
    InputError
        for a data set that cannot be trained on, a bundle or another run's work folder in the way,
        or a loss that is not finite
    BundleError
        for a start bundle or encoder that cannot be read

    Examples
    --------
    >>> from rssc_geo import TrainOptions, train
    >>> quick = TrainOptions(schedule=((1, 32),), caption_epochs=1, fusion_epochs=1, views=1)
    >>> card = train("pictures", "my-model", quick)
    >>> card.accuracy["test"]["overall_accuracy"] >= 0
    True
    """
    check_training(dataset, output, options)

    from rssc_geo.inference import choose_compute

    recipe = training_recipe(options)
    device = choose_compute(options.device).device
    with reporting(progress) as report:
        work = WorkFolder(Path(options.work or f"{output}.work"), progress=report)
        return train_recipe(dataset, output, recipe, work=work, device=device, command=command)


def train_recipe(
    dataset: DataSets,
    output: str | Path,
    recipe: TrainingRecipe,
    *,
    work: WorkFolder,
    device: torch.device,
    command: str = "",
) -> ModelCard:
    """Train by a recipe; arguments, result and errors as those of ``train``."""
    check_bundle_folder(output)
    with contextlib.closing(work):
        if recipe.end_to_end is not None:
            from rssc_geo.training.end_to_end import train_end_to_end

            return train_end_to_end(
                data_sets(dataset), Path(output), recipe, work=work, device=device, command=command
            )
        return _train_by_stages(
            data_sets(dataset), Path(output), recipe, work=work, device=device, command=command
        )


def _train_by_stages(
    folders: Sequence[str | Path],
    output: Path,
    recipe: TrainingRecipe,
    *,
    work: WorkFolder,
    device: torch.device,
    command: str,
) -> ModelCard:
    """All stages in their order; the test part is evaluated once, by the last."""
    import torch

    from rssc_geo.models import save_bundle
    from rssc_geo.training.stages.alignment import add_alignment
    from rssc_geo.training.stages.calibration import calibrate, mean_accuracy, readings_of
    from rssc_geo.training.stages.captioner import (
        OutOfFoldCaptioners,
        add_captioner,
        build_vocabulary,
    )
    from rssc_geo.training.stages.familiarity import add_familiarity
    from rssc_geo.training.stages.features import cache_features
    from rssc_geo.training.stages.fusion import FusionData, train_fusion
    from rssc_geo.training.start import new_model, with_encoder

    data = load_data_sets(folders, size=recipe.encoder.size, taxonomy=recipe.taxonomy)
    split = stratified_split(data, seed=recipe.seed, val=recipe.val, test=recipe.test)
    rows = split["train"]
    sentences = _sentences(data, rows)
    if sentences:
        check_captioners(data, rows, folds=recipe.folds, seed=recipe.seed)
    work.open(data, recipe)
    torch.manual_seed(recipe.seed)
    model = new_model(recipe, data)
    trained = _trained_encoder(data, split, recipe, work=work, device=device)
    model = with_encoder(model, trained)
    model.network.to(device).eval()

    features = cache_features(
        model, data, rows, views=recipe.views, seed=recipe.seed, work=work.path
    )

    generated = [[""] * len(data.names)] * recipe.views
    if sentences:
        captioners = OutOfFoldCaptioners(
            features=features,
            data=data,
            vocabulary=build_vocabulary(sentences),
            recipe=recipe.captioner,
            folds=recipe.folds,
            seed=recipe.seed,
            work=work.path,
            device=device,
            reporter=work.reporter,
        )
        model, generated = add_captioner(model, captioners, rows)
        model = add_alignment(model, features, data, split, seed=recipe.seed)

    held = split["val"]
    readings = readings_of(model, features, data, held)
    train_fusion(
        model,
        FusionData(features, data, generated, rows),
        recipe.fusion,
        validate=lambda: mean_accuracy(model, features.tokens[0, held], data.take(held), readings),
        seed=recipe.seed,
        report=work.reporter("fusion", recipe.fusion.epochs),
    )

    model = calibrate(model, features, data, split)
    model = add_familiarity(model, features, data, split, recipe.encoder, seed=recipe.seed)
    record = training_record(
        recipe, split, seconds=work.keep_time(), device=str(device), command=command
    )
    card = dataclasses.replace(model.card, training=record)
    model = dataclasses.replace(model, card=card, network=model.network.cpu())
    return save_bundle(output, model, readme=bundle_readme(card), overwrite=False)


def _trained_encoder(
    data: SceneImages,
    split: Split,
    recipe: TrainingRecipe,
    *,
    work: WorkFolder,
    device: torch.device,
) -> TrainedEncoder:
    """The image encoder: the mean of the recipe's trainings, mixed with the start bundle's."""
    from rssc_geo.training.loop import StageRun
    from rssc_geo.training.stages.encoder import TrainedEncoder, train_encoder
    from rssc_geo.training.stages.text_encoder import cache_caption_embeddings
    from rssc_geo.training.start import initial_weights, start_encoder

    start = start_encoder(recipe, data.legend) if recipe.start_share else None
    initial = initial_weights(recipe)
    rows, embeddings = split["train"], None
    if recipe.sentence_encoder is not None and _sentences(data, rows):
        embeddings = cache_caption_embeddings(data, rows, recipe.sentence_encoder, work=work.path)

    def train_once(number: int) -> TrainedEncoder:
        several = f" {number + 1} of {recipe.trainings}" if recipe.trainings > 1 else ""
        run = StageRun(
            work.part(number),
            device,
            seed=recipe.seed + number,
            report=work.reporter(f"encoder{several}", recipe.encoder.epochs),
        )
        return train_encoder(
            data, split, recipe.encoder, initial=initial, embeddings=embeddings, run=run
        )

    trained = TrainedEncoder.mean(train_once(number) for number in range(recipe.trainings))
    return trained if start is None else trained.mixed(start, recipe.start_share)


def _sentences(data: SceneImages, rows: NDArray[np.int64]) -> list[str]:
    """The sentences of some pictures."""
    return [text for row in rows.tolist() for text in data.captions[row]]
