"""Training end to end.

The whole network learns, goes on where it stopped, and makes a bundle that classifies.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rssc_geo.errors import InputError, UsageError
from rssc_geo.models import ModelCard, load_bundle
from rssc_geo.progress import Progress
from rssc_geo.training import (
    PUBLISHED,
    EndToEndRecipe,
    TrainingRecipe,
    WorkFolder,
    load_image_folder,
    train_recipe,
)
from tests.pretrained_folders import save_clip, save_vit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> EndToEndRecipe:
    vit, clip = tmp_path_factory.mktemp("vit"), tmp_path_factory.mktemp("clip")
    save_vit(vit)
    save_clip(clip)
    return EndToEndRecipe(
        image_encoder=str(vit),
        text_encoder=str(clip),
        width=16,
        epochs=3,
        batch_size=16,
        learning_rate=1e-3,
        augment=False,
    )


@pytest.fixture(scope="module")
def captions(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a large model writes them, one of every picture."""
    data = load_image_folder(folder, size=8)
    words = [
        data.classes[label].split(maxsplit=1)[0].strip(",").lower()
        for label in data.labels.tolist()
    ]
    lines = [
        json.dumps({"image": name, "captions": [f"b c d. Overall this is a {word}."]})
        for name, word in zip(data.names, words, strict=True)
    ]
    file = tmp_path_factory.mktemp("captions") / "generated.jsonl"
    file.write_text("\n".join(lines))
    return file


def _train(
    folder: Path,
    output: Path,
    recipe: EndToEndRecipe,
    *,
    model: str = "compact",
    work: Path | None = None,
    progress: Progress | None = None,
) -> ModelCard:
    place = WorkFolder(work or output.with_name(output.name + ".work"), progress=progress)
    whole = TrainingRecipe(model=model, end_to_end=recipe)
    return train_recipe(folder, output, whole, work=place, device=CPU, command="test")


def _losses(work: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (work / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_it_learns_and_its_bundle_classifies(
    folder: Path, recipe: EndToEndRecipe, captions: Path, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    longer = dataclasses.replace(
        recipe, captions=captions, epochs=6, accumulate=2, checkpointing=True, augment=True
    )
    card = _train(folder, tmp_path / "bundle", longer, progress=lambda *step: seen.append(step))
    assert [step for step in seen if step[0] != "end to end" or not 0 <= step[1] <= step[2]] == []
    assert seen[-1] == ("end to end", 6, 6)
    losses = _losses(tmp_path / "bundle.work")
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 0.05
    assert set(card.accuracy) == {"validation", "test", "test_no_captions"}
    assert card.training["captions"] == 60
    assert card.variant == "corrected"
    model = load_bundle(tmp_path / "bundle")
    assert model.card == card
    data = load_image_folder(folder, size=32, captions=captions)
    images = model.preprocess(data.pixels, np.ones(data.pixels.shape[:3], bool))
    with torch.inference_mode():
        found = (
            model.network(images, *model.tokenize([texts[0] for texts in data.captions]))
            .argmax(1)
            .numpy()
        )
    assert (found == data.labels).mean() > 0.6
    assert "reads the captions of a --captioner" in (tmp_path / "bundle" / "README.md").read_text()


def test_it_goes_on_where_it_stopped(folder: Path, recipe: EndToEndRecipe, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done == 1:
            raise StopError

    whole = _train(folder, tmp_path / "whole", recipe)
    with pytest.raises(StopError):
        _train(folder, tmp_path / "halves", recipe, progress=stop)
    assert len(_losses(tmp_path / "halves.work")) == 1
    halves = _train(folder, tmp_path / "halves", recipe)
    assert len(_losses(tmp_path / "halves.work")) == 3
    assert halves.sha256 == whole.sha256
    with pytest.raises(InputError, match="holds a run of other options"):
        other = dataclasses.replace(recipe, epochs=9)
        _train(folder, tmp_path / "third", other, work=tmp_path / "whole.work")


def test_frozen_encoders_stay_and_accumulation_changes_little(
    folder: Path, recipe: EndToEndRecipe, tmp_path: Path
) -> None:
    frozen = dataclasses.replace(recipe, image_layers=0, text_layers=1, epochs=1, silent=0.0)
    names = {}
    for parts in (1, 2):
        _train(folder, tmp_path / str(parts), dataclasses.replace(frozen, accumulate=parts))
        names[parts] = load_bundle(tmp_path / str(parts)).network.state_dict()
    before = load_bundle(tmp_path / "1").network.image_encoder.state_dict()
    from rssc_geo.models import load_image_encoder, load_text_encoder

    for name, value in load_image_encoder(str(recipe.image_encoder)).weights.items():
        assert torch.equal(before[name], value.half().float()), name
    texts = load_text_encoder(str(recipe.text_encoder)).weights
    changed = {
        name
        for name, value in texts.items()
        if not torch.equal(names[1][f"text_encoder.{name}"], value.half().float())
    }
    assert changed
    assert all("layers.2." in name or "final_layer_norm" in name for name in changed)


def test_the_published_recipe_needs_every_caption(
    folder: Path, recipe: EndToEndRecipe, captions: Path, tmp_path: Path
) -> None:
    published = dataclasses.replace(
        PUBLISHED,
        image_encoder=recipe.image_encoder,
        text_encoder=recipe.text_encoder,
        width=16,
        epochs=1,
    )
    with pytest.raises(InputError, match="1 of 60 pictures have no caption, first Town"):
        _train(folder, tmp_path / "bundle", published)
    card = _train(folder, tmp_path / "bundle", dataclasses.replace(published, captions=captions))
    assert card.needs_captions
    assert set(card.accuracy) == {"validation", "test"}
    with pytest.raises(InputError, match=r"none.jsonl: no such file"):
        none = dataclasses.replace(published, captions=tmp_path / "none.jsonl")
        _train(folder, tmp_path / "b", none)

    # The bundle goes on learning, as does any whose network is the corrected one.
    more = dataclasses.replace(
        recipe, image_encoder=None, text_encoder=None, captions=captions, epochs=1
    )
    again = _train(folder, tmp_path / "more", more, model=str(tmp_path / "bundle"))
    assert again.network == card.network


def test_a_loss_that_is_no_number_stops(
    folder: Path, recipe: EndToEndRecipe, tmp_path: Path
) -> None:
    wild = dataclasses.replace(recipe, learning_rate=1e30)
    with pytest.raises(InputError, match="the loss is (nan|inf).*lower --learning-rate"):
        _train(folder, tmp_path / "bundle", wild)


def test_the_schedules() -> None:
    from rssc_geo.training.end_to_end import _schedule

    def rates(recipe: EndToEndRecipe, steps: list[int]) -> list[float]:
        """Shares of the learning rate in these steps, of 10 steps an epoch."""
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], recipe.learning_rate)
        schedule, found = _schedule(optimizer, recipe, steps=10), []
        for _ in range(10 * recipe.epochs):
            found.append(schedule.get_last_lr()[0] / recipe.learning_rate)
            optimizer.step()
            schedule.step()
        return [found[step] for step in steps]

    assert rates(PUBLISHED, [0, 199, 200, 399]) == pytest.approx([1, 1, 0.1, 0.1])
    cosine = rates(EndToEndRecipe(epochs=11), [0, 9, 60, 109])
    assert cosine == pytest.approx([0.1, 1, 0.5, 0], abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_encoder": None}, "go together"),
        ({"epochs": 0}, "at least 1"),
        ({"silent": 1.0}, "from 0 to below 1"),
        ({"learning_rate": 0.0}, "above 0"),
    ],
)
def test_recipes_that_cannot_be_meant(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EndToEndRecipe(**changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_processes_train_one_model(
    folder: Path, recipe: EndToEndRecipe, captions: Path, tmp_path: Path
) -> None:
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "rssc_geo_cli.main",
        "train",
        str(folder),
        "-o",
        str(tmp_path / "bundle"),
        "--image-encoder",
        str(recipe.image_encoder),
        "--text-encoder",
        str(recipe.text_encoder),
        "--captions",
        str(captions),
        "--width",
        "16",
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--device",
        "cpu",
        "--json",
    ]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(told) == 1  # the first process alone tells
    assert len(_losses(tmp_path / "bundle.work")) == 2
    card = load_bundle(tmp_path / "bundle").card
    assert card.training["processes"] == 2
    assert card.accuracy == told[0]["accuracy"]


def test_progress_is_logged(
    folder: Path, recipe: EndToEndRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rssc_geo"):
        _train(folder, tmp_path / "bundle", dataclasses.replace(recipe, epochs=1))
    assert "epoch 1/1, loss" in caplog.text
