"""A training that was stopped and goes on: as if undisturbed, or one line, whatever has changed."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rssc_geo.errors import BundleError, RsscGeoError
from rssc_geo.models import Model, load_bundle, save_bundle
from rssc_geo.training import (
    CaptionerRecipe,
    EncoderRecipe,
    FusionRecipe,
    TrainingRecipe,
    WorkFolder,
    train_recipe,
)

ENCODER = EncoderRecipe(schedule=((1, 32), (1, 48)), batch_size=12)


class StopError(Exception):
    """In place of a kill."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Copies of all that a training reads, which a test may change."""

    home: Path
    pictures: Path
    start: Path
    sentences: Path

    def recipe(self, **changes: object) -> TrainingRecipe:
        recipe = TrainingRecipe(
            model=str(self.start),
            sentence_encoder=self.sentences,
            text_width=16,
            views=2,
            width=32,
            encoder=ENCODER,
            captioner=CaptionerRecipe(width=32, heads=2, layers=1, length=8, epochs=2),
            fusion=FusionRecipe(2),
        )
        return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]

    def train(self, work: Path, recipe: TrainingRecipe, stop: object = None) -> dict[str, str]:
        """Checksums and figures of the bundle that comes of it."""

        def progress(stage: str, done: int, _total: int) -> None:
            if (stage, done) == stop:
                raise StopError

        output = self.home / "bundle"
        shutil.rmtree(output, ignore_errors=True)
        place = WorkFolder(work, progress=progress)
        card = train_recipe(self.pictures, output, recipe, work=place, device=torch.device("cpu"))
        assert load_bundle(output).card == card, "what was written can be read"
        return {**card.sha256, "accuracy": json.dumps(card.accuracy)}

    def try_to_train(self, work: Path) -> tuple[str, dict[str, str]]:
        """The words of a refusal, or what ``train`` gives."""
        try:
            return "", self.train(work, self.recipe())
        except RsscGeoError as error:
            return str(error), {}


@pytest.fixture
def inputs(tmp_path: Path, folder: Path, small_model: Model, sentence_encoder: Path) -> Inputs:
    save_bundle(tmp_path / "start", small_model, readme="")
    shutil.copytree(folder, tmp_path / "data")
    shutil.copytree(sentence_encoder, tmp_path / "sentences")
    return Inputs(tmp_path, tmp_path / "data", tmp_path / "start", tmp_path / "sentences")


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 3))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda content, _: content[: len(content) // 2],
    lambda _content, _: b"",
    lambda content, _: bytes(len(content)),
    flipped,
    flipped,
    lambda _content, _: b"[" * 100_000,
    lambda _content, _: b"nan",
)


@pytest.mark.slow
def test_damage_to_any_file_of_the_work_folder(inputs: Inputs) -> None:
    """Each file in turn: damaged in some way, gone, or that of another run, with its mark."""
    recipe, chance = inputs.recipe(), random.Random(17)
    undisturbed = inputs.train(inputs.home / "whole", recipe)
    inputs.train(inputs.home / "another", inputs.recipe(seed=7))
    stopped, work = inputs.home / "stopped", inputs.home / "work"
    with pytest.raises(StopError):
        inputs.train(stopped, recipe, ("fusion", 1))
    for name in sorted(path.name for path in stopped.iterdir() if path.is_file()):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(stopped, work)
        kind = chance.randrange(len(DAMAGE) + 2)
        if kind < len(DAMAGE):
            (work / name).write_bytes(DAMAGE[kind]((work / name).read_bytes(), chance))
        elif kind == len(DAMAGE):
            (work / name).unlink()
        else:
            for file in (inputs.home / "another").glob(f"{name}*"):
                shutil.copy(file, work / file.name)
        refusal, made = inputs.try_to_train(work)
        assert made == ({} if refusal else undisturbed), (name, kind)
        assert refusal.isprintable(), (name, kind)
        assert not refusal or name == "options.json", (name, kind)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["nan", "inf", "-5", "1e300", "[" * 100_000])
def test_a_time_that_is_none(inputs: Inputs, content: str) -> None:
    work = inputs.home / "work"
    with pytest.raises(StopError):
        inputs.train(work, inputs.recipe(), ("encoder", 1))
    (work / "seconds.txt").write_text(content)
    (work / "metrics.jsonl").write_text('{"time": 1')  # the line at which a run was killed
    inputs.train(work, inputs.recipe())
    assert 0 <= load_bundle(inputs.home / "bundle").card.training["minutes"] < 10
    cut, *lines = (work / "metrics.jsonl").read_text().splitlines()
    assert cut == '{"time": 1'
    assert len([json.loads(line) for line in lines]) > 4


def of_other_words(inputs: Inputs) -> None:
    """The encoder's tokenizer takes some words for others."""
    file = inputs.sentences / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    words["field"], words["river"] = words["river"], words["field"]
    file.write_text(json.dumps(tokenizer))


def of_other_vectors(inputs: Inputs) -> None:
    file = inputs.sentences / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "word_embeddings" in name)
    save_file(weights | {name: weights[name].flip(0).contiguous()}, file, {"format": "pt"})


def with_other_weights(factor: float) -> Callable[[Inputs], None]:
    def change(inputs: Inputs) -> None:
        model = load_bundle(inputs.start)
        with torch.no_grad():
            for value in model.network.image_encoder.parameters():
                value.mul_(factor)
        save_bundle(inputs.start, model, readme="", half=False)

    return change


def with_another_mean(inputs: Inputs) -> None:
    model = load_bundle(inputs.start)
    card = dataclasses.replace(model.card, mean=(0.1, 0.2, 0.3))
    save_bundle(inputs.start, dataclasses.replace(model, card=card), readme="")


CHANGES: dict[str, Callable[[Inputs], None]] = {
    "words": of_other_words,
    "vectors": of_other_vectors,
    "weights": with_other_weights(1.5),
    "weights by less than half precision shows": with_other_weights(1 + 1e-5),
    "mean": with_another_mean,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_what_is_read_by_the_same_name_has_changed(inputs: Inputs, name: str) -> None:
    work = inputs.home / "work"
    with pytest.raises(StopError):
        inputs.train(work, inputs.recipe(), ("captioner 2 of 3", 1))
    CHANGES[name](inputs)
    refusal, made = inputs.try_to_train(work)
    assert refusal.isprintable()
    assert refusal or made == inputs.train(inputs.home / "new", inputs.recipe())


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"{}"])
def test_a_damaged_sentence_encoder_is_one_line(inputs: Inputs, file: str, content: bytes) -> None:
    (inputs.sentences / file).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        inputs.train(inputs.home / "work", inputs.recipe())
    assert str(caught.value).isprintable()


def test_weights_that_cannot_be_read_or_do_not_fit_are_one_line(inputs: Inputs) -> None:
    file = inputs.home / "weights.safetensors"
    for content, message in (
        (b"", "not a readable safetensors file"),
        (None, "does not fit the image encoder mobilenetv1_100"),
    ):
        if content is None:
            save_file({"conv_stem.weight": torch.zeros(3)}, file)
        else:
            file.write_bytes(content)
        with pytest.raises(BundleError, match=message) as caught:
            inputs.train(inputs.home / "work", inputs.recipe(weights=file))
        assert str(caught.value).isprintable()
