"""What learns from patches: the linear probe, words as its prior, fine-tuning of the encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from rssc_geo.errors import InputError, UsageError
from rssc_geo.models import Model, class_embeddings, load_bundle
from rssc_geo.options import TrainOnPolygonsOptions
from rssc_geo.training import (
    embed_views,
    fine_tune,
    fit_probe,
    without_attention,
    word_prior,
)
from rssc_geo.training.few_shot.train_on_polygons import train_on_polygons

from .test_train_on_polygons import area, texture, write_labels, write_scene

CPU = torch.device("cpu")


def patches(side: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` patches of each of two textures, uint8 (N, H, W, 3), and their classes."""
    pixels = [
        texture(kind, side, side, seed).transpose(1, 2, 0)
        for kind in ("stripes", "dark")
        for seed in range(count)
    ]
    return np.stack(pixels), np.repeat([0, 1], count)


@pytest.mark.slow
def test_tuning_changes_the_encoder_of_a_copy_the_same_way_each_time(
    small_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rssc_geo.training.few_shot.learner._STEPS", 12)
    stripes = np.stack([texture("stripes", 64, 64, seed).transpose(1, 2, 0) for seed in range(24)])
    pixels = np.concatenate([stripes, stripes // 2 + 60])  # of less contrast
    labels = np.repeat([0, 1], 24)
    known, new = np.r_[0:12, 24:36], np.r_[12:24, 36:48]
    reader = without_attention(small_model)
    before = {
        name: value.clone() for name, value in reader.network.image_encoder.state_dict().items()
    }
    plain = embed_views([reader], pixels, CPU, views=1)[0][0]
    probe = fit_probe(plain[known], labels[known], classes=2)
    tuned, again = (
        fine_tune(reader, probe, pixels[known], labels[known], device=CPU) for _ in range(2)
    )
    seen, same = (embed_views([model], pixels, CPU, views=1)[0][0] for model in (tuned, again))
    np.testing.assert_array_equal(seen, same)

    assert abs(seen - plain).max() > 1e-4
    refit = fit_probe(seen[known], labels[known], classes=2)
    assert (refit.logits(seen[new]).argmax(1) == labels[new]).all()
    for name, value in reader.network.image_encoder.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert tuned.network.text_encoder is reader.network.text_encoder


def test_words_as_a_layer_are_the_named_classes(tmp_path: Path) -> None:
    """For one picture the mean length is its own, so that the layer is exact."""
    model = load_bundle()
    reader = without_attention(model)
    texts = class_embeddings(model, {"water": ["lake", "river"], "wood": ["forest"]})
    embedding = embed_views([reader], patches(192, 1)[0][:1], CPU, views=1)[0][0]
    layer = word_prior(reader, texts, embedding, np.zeros(2, int))
    assert model.alignment is not None
    with torch.inference_mode():
        wanted = model.alignment(torch.from_numpy(embedding[:, -1280:]), texts).numpy()
    np.testing.assert_allclose(layer.logits(embedding), wanted, atol=1e-3)
    less = word_prior(reader, texts, embedding, np.array([1, 3]))
    np.testing.assert_allclose(less.logits(embedding), wanted / [2, 4], atol=1e-3)


def test_a_probe_departs_from_what_was_known_as_far_as_examples_tell() -> None:
    random = np.random.default_rng(0)
    embedding = random.normal(size=(200, 6)).astype(np.float32)
    truth = random.normal(size=(3, 6)).astype(np.float32)
    labels = (embedding @ truth.T).argmax(1)
    prior = fit_probe(embedding, labels, classes=3)
    few = np.arange(6)
    alone, helped = (
        fit_probe(embedding[few], labels[few], classes=3, prior=given) for given in (None, prior)
    )
    right = [probe.logits(embedding).argmax(1) == labels for probe in (alone, helped)]
    assert right[1].mean() > right[0].mean()
    wrong = (labels + 1) % 3
    corrected = fit_probe(embedding, wrong, classes=3, prior=prior)
    assert (corrected.logits(embedding).argmax(1) == wrong).mean() > 0.95


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_is_scikit_learn_s_logistic_regression(classes: int) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), np.arange(classes) * 5 + 8)
    embedding = random.normal(size=(len(labels), 20)) + random.normal(size=(classes, 20))[labels]
    scaled = embedding - embedding.mean(0)
    scaled *= 10 / np.sqrt((scaled**2).sum(1).mean())
    # With two classes it learns the difference of two weights, whose penalty is half of theirs.
    strength = 2.0 if classes == 2 else 1.0
    theirs = LogisticRegression(C=strength, class_weight="balanced", tol=1e-10, max_iter=5000)
    wanted = theirs.fit(scaled, labels).predict_proba(scaled)
    ours = softmax(fit_probe(embedding, labels, classes=classes).logits(embedding), axis=1)
    np.testing.assert_allclose(ours, wanted, atol=1e-4)


@pytest.mark.slow
def test_a_model_from_polygons_with_words_and_a_tuned_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rssc_geo.training.few_shot.learner._STEPS", 3
    )  # the real number is measured in benchmarks/few_shot.py
    transform = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    pixels = np.concatenate(
        [texture("stripes", 1600, 800, 0), texture("dark", 1600, 800, 1)], axis=2
    )
    write_scene(tmp_path / "scene.tif", pixels, transform)
    rows = [
        (("field", "wood")[side], area(side * 800 + 100, y, side * 800 + 400, y + 300, transform))
        for side in (0, 1) for y in (60, 1200)
    ]  # fmt: skip
    labels = write_labels(tmp_path / "labels.gpkg", rows)
    words = {"field": "rows of crops", "wood": ["dark forest"], "more": ["than there is"]}
    options = TrainOnPolygonsOptions(
        class_words=words, fine_tune=True, tile_size="400m", device="cpu"
    )
    result = train_on_polygons([(tmp_path / "scene.tif", labels)], tmp_path / "mine", options)
    assert result.scores is not None
    assert result.scores.overall_accuracy > 0.95
    made, start = load_bundle(tmp_path / "mine"), load_bundle()
    assert not made.card.reads_own_captions
    changed = [
        not torch.equal(new.half(), old.half())
        for new, old in zip(
            made.network.image_encoder.parameters(),
            start.network.image_encoder.parameters(),
            strict=True,
        )
    ]
    assert np.mean(changed) > 0.5  # after so few steps half precision hides some
    assert made.decoder is not None
    (tmp_path / "words.json").write_text('{"wood": ["forest"]}')
    lacking = dataclasses.replace(options, class_words=str(tmp_path / "words.json"))
    with pytest.raises(
        UsageError, match="words are given, but none for 'field'; the labels have these classes"
    ):
        train_on_polygons([(tmp_path / "scene.tif", labels)], tmp_path / "other", lacking)
    for content, message in (('{"wood": "forest"}', "expected {"), ("{", "read as JSON")):
        (tmp_path / "words.json").write_text(content)
        with pytest.raises(InputError, match=f"words.json.* {message}"):
            train_on_polygons([(tmp_path / "scene.tif", labels)], tmp_path / "other", lacking)
