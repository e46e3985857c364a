"""The stages learn something on a small data set, split without leaks, and measure right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rssc_geo.errors import InputError
from rssc_geo.models.bundle import Model
from rssc_geo.training.augment import augment
from rssc_geo.training.captioner import build_tokenizer, train_captioner
from rssc_geo.training.data import SceneImages, load_image_folder, stratified_split
from rssc_geo.training.encoder import train_encoder
from rssc_geo.training.fusion import train_fusion
from rssc_geo.training.metrics import (
    average_accuracy,
    cohen_kappa,
    expected_calibration_error,
    fit_temperature,
    overall_accuracy,
)

COLOURS = {"Field": (60, 160, 60), "River, wide": (40, 80, 180), "Town <b>": (170, 90, 80)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 noisy pictures of one colour each, one of them there twice, with captions."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    lines = []
    for name, colour in COLOURS.items():
        (root / "images" / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.clip(np.array(colour) + random.integers(-40, 40, (40, 40, 3)), 0, 255).astype(np.uint8)
            file = f"{name}/{index:02d}.png"
            Image.fromarray(pixels).save(root / "images" / file)
            lines.append(
                json.dumps({"image": file, "label": name, "captions": [f"this is a {name.split(',', maxsplit=1)[0].lower()} ."]})
            )
    (root / "images" / "Field" / "19.png").write_bytes((root / "images" / "Field" / "00.png").read_bytes())
    (root / "captions.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    return root


@pytest.fixture(scope="module")
def data(folder: Path) -> SceneImages:
    return load_image_folder(folder, size=32)


def test_image_folder(data: SceneImages) -> None:
    assert data.pixels.shape == (60, 32, 32, 3)
    assert data.classes == tuple(sorted(COLOURS))
    assert np.bincount(data.labels).tolist() == [20, 20, 20]
    assert data.captions[0] == ("this is a field .",)
    assert data.captions[-1] == ()


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_image_folder(tmp_path / "none", size=8)
    (tmp_path / "Empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        load_image_folder(tmp_path, size=8)


def test_split_is_stratified_disjoint_and_keeps_twins_together(data: SceneImages) -> None:
    split = stratified_split(data, seed=0)
    together = np.concatenate(list(split.values()))
    assert sorted(together.tolist()) == list(range(60))
    for name, share in {"train": 16, "val": 2, "test": 2}.items():
        assert np.bincount(data.labels[split[name]]).tolist() == [share] * 3
    twins = [data.names.index("Field/00.png"), data.names.index("Field/19.png")]
    assert set(twins) <= set(split["train"].tolist())
    again = stratified_split(data, seed=0)
    assert all((split[k] == again[k]).all() for k in split)
    assert any((split[k] != stratified_split(data, seed=1)[k]).any() for k in split)


def test_augmentation_changes_pictures_but_not_their_kind(data: SceneImages) -> None:
    images = torch.from_numpy(data.pixels[:30].transpose(0, 3, 1, 2).copy()).float() / 255
    first = augment(images.clone(), torch.Generator().manual_seed(1))
    assert first.shape == images.shape
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert not torch.allclose(first, images)
    assert torch.equal(first, augment(images.clone(), torch.Generator().manual_seed(1)))
    greener = first[:20].mean((2, 3))
    assert (greener[:, 1] > greener[:, 0]).float().mean() > 0.9


def test_encoder_learns_and_repeats(data: SceneImages, tmp_path: Path) -> None:
    settings = {"architecture": "mobilenetv1_100", "kwargs": {"pad_type": "same"}, "initial": None, "epochs": 1, "batch_size": 12}
    split = stratified_split(data, seed=0)
    runs = [
        train_encoder(data, split, mean=(0.5,) * 3, std=(0.5,) * 3, seed=3, checkpoint=tmp_path / f"{i}.safetensors", **settings)  # type: ignore[arg-type]
        for i in range(2)
    ]
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])
    assert all(torch.isfinite(value).all() for value in runs[0].values())


@pytest.fixture(scope="module")
def tokens(data: SceneImages) -> np.ndarray:
    """Stand-in features (1 view, 60 images, 4 tokens, 1024): the mean colours, spread over the width."""
    colours = data.pixels.reshape(60, 4, -1, 3).mean(2) / 255 - 0.4
    spread = np.random.default_rng(0).normal(size=(3, 1024))
    return (colours @ spread)[None].astype(np.float16)


def test_captioner_learns_to_name_what_it_sees(data: SceneImages, tokens: np.ndarray) -> None:
    tokenizer = build_tokenizer(text for captions in data.captions for text in captions)
    settings = {"image_width": 1024, "vocabulary": tokenizer.get_vocab_size(), "width": 32, "heads": 2, "layers": 1, "length": 10}
    rows = np.arange(60)
    decoder = train_captioner(
        tokens, data.captions, tokenizer, rows, settings=settings, epochs=40, batch_size=20, learning_rate=5e-3
    )
    written = decoder.greedy(torch.from_numpy(tokens[0]).float())
    texts = [" ".join(tokenizer.id_to_token(i) for i in row if i > 3) for row in written.tolist()]
    right = [
        text.startswith("this is a") and data.classes[label].split(",")[0].lower()[:4] in text
        for text, label in zip(texts, data.labels, strict=True)
    ]
    assert np.mean(right) > 0.9


def test_fusion_learns_and_keeps_its_best(data: SceneImages, tokens: np.ndarray, small_model: Model) -> None:
    import copy

    model = dataclasses.replace(small_model, network=copy.deepcopy(small_model.network))
    captions = [[""] * 60]

    def accuracy() -> float:
        with torch.inference_mode():
            logits = model.network.classify(torch.from_numpy(tokens[0]).float(), *model.tokenize([""] * 60))
        return overall_accuracy(logits.argmax(1).numpy(), data.labels)

    before = accuracy()
    best = train_fusion(
        model, tokens, data.labels, captions, np.arange(60), validate=accuracy, epochs=15, batch_size=20, learning_rate=3e-3
    )
    assert best > max(before, 0.9)
    model.network.eval()
    assert accuracy() == best


def test_metrics_on_cases_worked_by_hand() -> None:
    labels = np.array([0, 0, 0, 1])
    predicted = np.array([0, 0, 1, 1])
    assert overall_accuracy(predicted, labels) == 0.75
    assert average_accuracy(predicted, labels) == pytest.approx((2 / 3 + 1) / 2)
    assert cohen_kappa(predicted, labels) == pytest.approx((0.75 - 0.5) / 0.5)
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.35, 0.65]])
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.5 * 0.05 + 0.5 * 0.15)


def test_temperature_recovers_an_overconfident_model() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 5)) * 2
    exact = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([random.choice(5, p=p) for p in exact])
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.1)
