"""MobileNetV1 is timm's, bit for bit; what it is for is in tests/cli/test_other_commands.py."""

from __future__ import annotations

import pytest
import timm
import torch

from rssc_geo.models.encoders import TimmImageEncoder
from rssc_geo.models.mobilenet import MobileNetV1
from rssc_geo.models.trial import Unfilled

PADDINGS = ({}, {"pad_type": ""}, {"pad_type": "same"})


def both(kwargs: dict[str, str]) -> tuple[MobileNetV1, torch.nn.Module]:
    """Ours and timm's, with the same weights."""
    ours = MobileNetV1(**kwargs)
    theirs = timm.create_model("mobilenetv1_100", pretrained=False, num_classes=0, **kwargs)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_weights_are_named_and_initialized_as_timm_s() -> None:
    torch.manual_seed(0)
    ours = MobileNetV1()
    theirs = timm.create_model("mobilenetv1_100", pretrained=False, num_classes=0)
    found, expected = ours.state_dict(), theirs.state_dict()
    assert list(found) == list(expected)
    for name, values in found.items():
        assert values.shape == expected[name].shape
        if values.ndim == 4:
            assert values.std() == pytest.approx(float(expected[name].std()), rel=0.2), name
        else:
            assert torch.equal(values, expected[name]), name
    assert ours.num_features == theirs.num_features
    for stage, known in zip(ours.feature_info, theirs.feature_info, strict=True):
        assert stage.items() <= known.items()


@pytest.mark.parametrize("kwargs", PADDINGS)
@pytest.mark.parametrize("side", [(64, 96), (63, 97)])
def test_results_are_timm_s(kwargs: dict[str, str], side: tuple[int, int]) -> None:
    ours, theirs = both(kwargs)
    images = torch.randn(2, 3, *side).contiguous(memory_format=torch.channels_last)
    for network in (ours, theirs):
        network.train()
        network.forward_features(images)  # statistics of the batch norms
        network.eval()
    assert same(ours.state_dict(), theirs.state_dict())
    with torch.inference_mode():
        assert torch.equal(ours.forward_features(images), theirs.forward_features(images))
        last, (early, late) = ours.forward_intermediates(images, indices=[1, 3])
        expected = theirs.forward_intermediates(images, indices=[1, 3])
    assert torch.equal(last, expected[0])
    assert torch.equal(early, expected[1][0])
    assert torch.equal(late, expected[1][1])


@pytest.mark.parametrize("recomputes", [False, True])
def test_gradients_are_timm_s(recomputes: bool) -> None:
    networks = both({"pad_type": "same"})
    images = torch.randn(2, 3, 64, 64)
    found = []
    for network in networks:
        network.train()
        if recomputes:
            network.set_grad_checkpointing()
        pixels = images.clone().requires_grad_()
        network.forward_features(pixels).square().sum().backward()
        found.append({name: value.grad for name, value in network.named_parameters()})
        found[-1]["pixels"] = pixels.grad
    assert same(*found)


def test_other_arguments_are_left_to_timm() -> None:
    plain = TimmImageEncoder("mobilenetv1_100", {"pad_type": "same"}).backbone
    deep = TimmImageEncoder("mobilenetv1_100", {"drop_path_rate": 0.1}).backbone
    other = TimmImageEncoder("mobilenetv3_small_050", {}).backbone
    assert isinstance(plain, MobileNetV1)
    assert type(deep).__module__.startswith("timm.")
    assert type(other).__module__.startswith("timm.")


def test_tensors_without_values_are_left_unfilled() -> None:
    with torch.device("meta"), Unfilled():
        words = torch.nn.Embedding(7, 3)
        torch.nn.init.normal_(words.weight, std=2)
    assert words.weight.shape == (7, 3)
    kept = torch.zeros(3)
    with Unfilled():
        assert kept.normal_() is kept
    assert not kept.any()
