"""Classes named by words: learned from captions, refused in one line where words mean nothing."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rssc_geo.errors import UsageError
from rssc_geo.models import (
    Alignment,
    DualAttentionClassifier,
    Model,
    SceneClass,
    load_bundle,
    name_classes,
    refine_texts,
    save_bundle,
)
from rssc_geo.training import (
    AlignmentRecipe,
    Features,
    calibrate_alignment,
    distill_text_encoder,
    train_alignment,
)


@pytest.fixture(scope="module")
def spoken(small_model: Model, sentence_encoder: Path) -> tuple[Model, np.ndarray, np.ndarray]:
    """A model aligned on captions of three kinds of pictures, the pictures and their kinds."""
    tokenizer, encoder = distill_text_encoder(sentence_encoder, width=16)
    config = {"model_type": "static", "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 16}
    settings = {**small_model.card.network, "text_encoder": config}
    network = DualAttentionClassifier(classes=3, **settings).eval()
    network.text_encoder.load_state_dict(encoder.state_dict())
    alignment = {"image_width": 1024, "text_width": 16}
    card = dataclasses.replace(small_model.card, network=settings, alignment=alignment)
    model = dataclasses.replace(small_model, card=card, network=network, tokenizer=tokenizer)
    random = np.random.default_rng(0)
    kinds = np.arange(90) % 3
    middles = random.normal(size=(3, 1, 1024))
    tokens = (middles[kinds] + random.normal(size=(90, 2, 1024)))[None].astype(np.float16)
    words = ["this is a green field", "a wide river", "this is a town"]
    captions = [(words[kind],) for kind in kinds.tolist()]
    features = Features(tokens, np.ones((1, 90), np.float32))
    learned = train_alignment(
        model, features, captions, np.arange(60), AlignmentRecipe(learning_rate=1e-2)
    )
    return dataclasses.replace(model, alignment=learned), tokens[0], kinds


def test_named_classes_are_found(spoken: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, tokens, kinds = spoken
    named = name_classes(
        model,
        {"water": ["river", "wide river"], "grass": ["green field"], "houses": ["town"]},
        other=False,
    )
    assert [c.name for c in named.card.classes] == ["water", "grass", "houses"]
    assert named.card.classes[0].description == "words: river, wide river"
    one_phrase = name_classes(model, {"water": "wide river", "grass": "green field"}, other=True)
    assert one_phrase.card.classes[0].description == "words: wide river"
    spoken_of = name_classes(model, {"Pond": ["river"], "grass": ["green field"]}).card.classes
    assert [(c.title, c.group) for c in spoken_of] == [
        ("Pond", "Water"),
        ("grass", ""),
        ("other", ""),
    ]
    with torch.inference_mode():
        logits = named.network.classify(torch.from_numpy(tokens[60:]).float())
        alone = named.network.classify(torch.from_numpy(tokens[60:61]).float())
    torch.testing.assert_close(logits[:1], alone, atol=1e-5, rtol=0)
    found = np.array([1, 0, 2])[kinds[60:]]
    assert (logits.argmax(1).numpy() == found).mean() > 0.9


def test_a_head_in_half_precision_leaves_the_alignment(
    spoken: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    model = dataclasses.replace(spoken[0], network=copy.deepcopy(spoken[0].network))
    name_classes(model, ["green field", "town"], other=False).network.bfloat16()
    assert model.alignment is not None
    assert {value.dtype for value in model.alignment.state_dict().values()} == {torch.float32}


def test_names_in_camel_case_are_words(spoken: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, tokens, _ = spoken
    image = torch.from_numpy(tokens).float()
    with torch.inference_mode():
        first = name_classes(model, ["GreenField", "town"], other=False).network.classify(image)
        second = name_classes(model, ["green field", "town"], other=False).network.classify(image)
    assert torch.equal(first, second)


def test_other_is_what_is_likest_to_what_was_not_named(
    spoken: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    model, tokens, kinds = spoken
    classes = tuple(
        SceneClass(k, name, "#336699")
        for k, name in enumerate(["green field", "wide river", "town"])
    )
    model = dataclasses.replace(model, card=dataclasses.replace(model.card, classes=classes))
    named = name_classes(model, ["town"])
    assert [c.name for c in named.card.classes] == ["town", "other"]
    with torch.inference_mode():
        found = named.network.classify(torch.from_numpy(tokens[60:]).float()).argmax(1).numpy()
    assert (found == (kinds[60:] != 2)).mean() > 0.9
    assert [
        c.name for c in name_classes(model, {"other": ["river"], "town": ["town"]}).card.classes
    ] == ["other", "town"]
    alone = dataclasses.replace(
        model, card=dataclasses.replace(model.card, classes=(SceneClass(0, "town", "#336699"),))
    )
    with pytest.raises(UsageError, match=r"nothing is left to define 'other' \(--no-other\)"):
        name_classes(alone, ["town"])


def test_own_classes_that_words_do_not_name_define_no_other(
    spoken: tuple[Model, np.ndarray, np.ndarray],
) -> None:
    model, tokens, _ = spoken

    def among(*names: str) -> Model:
        classes = tuple(SceneClass(k, name, "#336699") for k, name in enumerate(names))
        return dataclasses.replace(model, card=dataclasses.replace(model.card, classes=classes))

    pictures = torch.from_numpy(tokens).float()
    with torch.inference_mode():
        told, without = (
            name_classes(among(*names), ["town"]).network.classify(pictures)
            for names in (("green field", "§", "wide river"), ("green field", "wide river"))
        )
    torch.testing.assert_close(told, without)
    with pytest.raises(UsageError, match=r"nothing is left to define 'other' \(--no-other\)"):
        name_classes(among("§"), ["town"])


def test_refining_follows_the_pictures() -> None:
    """Two clusters around 20° and 60°, texts whose border lies at 50°.

    It moves to between the clusters.
    """
    random = np.random.default_rng(0)
    kinds = np.arange(400) % 2
    angles = np.deg2rad(np.where(kinds, 60, 20) + random.normal(0, 9, 400))
    pooled = torch.from_numpy(np.column_stack([np.cos(angles), np.sin(angles)])).float()
    alignment = Alignment(image_width=2, text_width=2)
    texts = torch.tensor([[np.cos(a), np.sin(a)] for a in np.deg2rad([10, 90])]).float()
    with torch.no_grad():
        alignment.project.weight.copy_(torch.eye(2))
        alignment.project.bias.zero_()
        refined = refine_texts(alignment, texts, pooled)
        before, after = (
            (alignment(pooled, t).argmax(1).numpy() == kinds).mean() for t in (texts, refined)
        )
    assert before < 0.95
    assert after > 0.97
    assert torch.equal(refined, refine_texts(alignment, texts, pooled))
    torch.testing.assert_close(refined.norm(dim=1), torch.ones(2))


def test_scale_and_other_are_fitted(spoken: tuple[Model, np.ndarray, np.ndarray]) -> None:
    model, tokens, kinds = spoken
    names = ["green field", "wide river", "town", "field", "river", "a town"]
    classes = tuple(SceneClass(k, name, "#336699") for k, name in enumerate(names))
    model = dataclasses.replace(model, card=dataclasses.replace(model.card, classes=classes))
    alignment = copy.deepcopy(model.alignment)
    assert alignment is not None
    features = Features(tokens[None], np.ones((1, 90), np.float32))
    calibrate_alignment(model, alignment, features, kinds.astype(np.int64), np.arange(60, 90))
    assert alignment.log_scale != model.alignment.log_scale  # type: ignore[union-attr]
    assert alignment.other != 0


def test_the_alignment_is_kept_in_the_bundle(
    spoken: tuple[Model, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    model, tokens, _ = spoken
    save_bundle(tmp_path / "bundle", model, readme="")
    again = load_bundle(tmp_path / "bundle")
    with torch.inference_mode():
        logits = [
            name_classes(m, ["green field", "river"], other=False).network.classify(
                torch.from_numpy(tokens).float()
            )
            for m in (model, again)
        ]
    torch.testing.assert_close(logits[0], logits[1], atol=0.02, rtol=0)  # stored in half precision


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["river"], "at least two different classes"),
        (["river", "river"], "the class 'river' is named twice"),
        (["River", "wood", "river"], "the class 'River' is named twice"),
        ([], "at least two different classes are needed, got none"),
        (["river", "\u65e5\u672c"], "holds no word the text encoder knows"),
        ({"river": ["river"], "town": []}, "'town': no words holds no word"),
    ],
)
def test_names_that_mean_nothing_are_refused(
    spoken: tuple[Model, np.ndarray, np.ndarray], classes: object, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        name_classes(spoken[0], classes, other=False)  # type: ignore[arg-type]


def test_models_without_captions_cannot_name_classes(small_model: Model) -> None:
    with pytest.raises(UsageError, match="'small' was trained without captions"):
        name_classes(small_model, ["river", "town"])


def test_the_temperature_of_windows_is_not_that_of_words() -> None:
    model = load_bundle("compact")
    assert model.card.window_temperature is not None
    assert name_classes(model, ["river", "town"]).card.window_temperature is None
