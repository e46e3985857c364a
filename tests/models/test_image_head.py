"""Networks with an image head: what words add, what encoders see, and other classes."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from rssc_geo.errors import BundleError
from rssc_geo.models import (
    Model,
    ModelCard,
    attribute,
    load_bundle,
    make_image_encoder,
    receptive_field,
    save_bundle,
)


@pytest.fixture
def model(fine_model: Model) -> Model:
    network = copy.deepcopy(fine_model.network)
    return dataclasses.replace(fine_model, network=network)


def test_words_are_added_to_the_image_alone(model: Model) -> None:
    tokens = torch.randn(3, 36, 1032)
    ids, mask = model.tokenize(["a green field", "", "a wide river near trees"])
    with torch.inference_mode():
        silent = model.network.classify(tokens)
        told = model.network.classify(tokens, ids, mask)
        torch.testing.assert_close(silent, model.network.classify_pooled(tokens.mean(1)))
        torch.testing.assert_close(told[1], silent[1])
        assert ((told - silent)[[0, 2]].abs().amax(1) > 1e-4).all()
        # A picture depends on itself alone.
        for row in range(3):
            one = slice(row, row + 1)
            alone = model.network.classify(tokens[one], ids[one], mask[one])
            torch.testing.assert_close(alone, told[one], atol=1e-5, rtol=1e-5)


def test_other_classes_are_read_from_the_image_alone(model: Model) -> None:
    tokens = torch.randn(2, 36, 1032)
    classifier = nn.Linear(1032, 5)
    model.network.replace_classes(classifier)
    ids, mask = model.tokenize(["a green field", "a wide river"])
    with torch.inference_mode():
        found = model.network.classify(tokens, ids, mask)
        torch.testing.assert_close(found, classifier(model.network.embed(tokens)))


def test_the_receptive_field_is_measured() -> None:
    torch.manual_seed(0)
    local = make_image_encoder(
        {
            "architecture": "mobilenetv1_100",
            "kwargs": {"pad_type": "same"},
            "ground": {"stage": 2, "width": 8},
        }
    )
    found = receptive_field(local, largest=384)  # type: ignore[arg-type]
    assert found is not None
    stride, field = found
    assert stride == 32
    assert 315 <= field <= 352  # 315, and up to a stride more where padding is uneven
    assert receptive_field(local, largest=256) is None  # type: ignore[arg-type]
    squeezing = make_image_encoder({"architecture": "efficientnet_b0"})
    assert receptive_field(squeezing, largest=384) is None  # type: ignore[arg-type]


def test_a_fine_model_survives_saving(model: Model, tmp_path: object) -> None:
    folder = tmp_path / "fine"  # type: ignore[operator]
    save_bundle(folder, model, readme="# fine\n", half=False)
    loaded = load_bundle(folder)
    assert loaded.card.local_features == model.card.local_features
    images = torch.randn(2, 3, 192, 192)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.network(images), model.network(images))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local_features": {"stride": 32}}, "local_features has stride, receptive_field"),
        ({"local_features": {"stride": 0, "receptive_field": 9}}, "local_features.stride is 0"),
        ({"local_features": {"stride": 7, "receptive_field": 9}}, "no square of tokens of 7"),
        (
            {"local_features": {"stride": 32, "receptive_field": 9, "ground_stride": 12}},
            "no multiple of the ground features' of 12",
        ),
        ({"input_size": [192, 160]}, "no square of tokens"),
        ({"window_temperature": 0}, "window_temperature is 0"),
        ({"network": None}, "read by an image head, and there is none"),
    ],
)
def test_cards_that_do_not_fit_are_refused(
    model: Model, changes: dict[str, object], message: str
) -> None:
    import json

    card = json.loads(model.card.to_json())
    if changes.get("network", card) is None:
        del card["network"]["image_head"]
        changes = {}
    with pytest.raises(BundleError, match=message):
        ModelCard.from_json(json.dumps({**card, **changes}), where="card")


@pytest.mark.parametrize(("stride", "ground_stride"), [(16, 8), (32, 4)])
def test_a_stride_that_is_not_the_encoders_is_refused(
    stride: int, ground_stride: int, model: Model, tmp_path: object
) -> None:
    features = {"stride": stride, "receptive_field": 315, "ground_stride": ground_stride}
    card = dataclasses.replace(model.card, local_features=features)
    folder = tmp_path / "odd"  # type: ignore[operator]
    with pytest.raises(BundleError, match="other tokens than local_features says"):
        save_bundle(folder, dataclasses.replace(model, card=card), readme="# odd\n")
        load_bundle(folder)


def test_ground_features_are_read_as_finely_as_the_card_says(model: Model) -> None:
    features = {"stride": 32, "receptive_field": 315}
    coarse = dataclasses.replace(
        model, card=dataclasses.replace(model.card, local_features=features)
    )
    images = torch.randn(1, 3, 192, 240)
    with torch.inference_mode():
        scene, fine = model.encode_block(images)
        _, same = coarse.encode_block(images)
    assert scene.shape[2:] == same.shape[2:] == (6, 8)  # 240 pixels are filled up to 8 tokens
    assert fine.shape[2:] == (24, 32)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(fine, 4), same)


@pytest.mark.parametrize("height", [32, 256, 288, 768, 800])
def test_strips_of_an_image_give_the_features_of_the_whole(model: Model, height: int) -> None:
    images = torch.randn(1, 3, height, 96)
    encoder = model.network.image_encoder
    with torch.inference_mode():
        whole = encoder.feature_maps(images)
        by_strips = encoder.feature_maps(images, in_strips=True)
    for expected, found in zip(whole, by_strips, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_a_class_is_explained_by_image_and_words(model: Model) -> None:
    import numpy as np

    from rssc_geo.models import ReadCaption

    pixels = np.random.default_rng(0).integers(0, 255, (192, 192, 3), dtype=np.uint8)
    mask = np.ones((192, 192), bool)
    for read in (ReadCaption("", "generated", read=False),
                 ReadCaption("a green field", "generated", read=True)):  # fmt: skip
        found = attribute(model, pixels, mask, class_id=1, caption=read)
        assert np.isfinite(found.evidence).all()
