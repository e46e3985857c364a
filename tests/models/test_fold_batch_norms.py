"""Batch normalization folded into convolutions for inference."""

import pytest
import timm
import torch
from torch import nn

from rssc_geo.captioning import NoCaptioner
from rssc_geo.inference import Predictor, choose_compute
from rssc_geo.models import fold_batch_norms, load_bundle

SIZE = 64, 64


def _norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def _with_statistics(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def test_the_embedded_encoder_gives_the_same_features_without_its_norms() -> None:
    model = load_bundle("compact")
    folded = Predictor(model, NoCaptioner(), choose_compute("cpu")).model.network.image_encoder
    plain = model.network.image_encoder
    assert _norms(plain) == 28  # the model can still be saved
    assert _norms(folded) == 0
    images = torch.randn(1, 3, 320, 256, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, found = plain(images), folded(images)
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "left"), [("resnetv2_50", 17), ("efficientnet_b0", 0), ("repvgg_a0", 17)]
)
def test_norms_without_a_convolution_before_them_stay(name: str, left: int) -> None:
    network = _with_statistics(timm.create_model(name, num_classes=0, pretrained=False))
    folded = fold_batch_norms(network, SIZE)
    assert _norms(folded) == left < _norms(network)
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-3, atol=1e-3)


class _NormFirst(nn.Module):
    """Layers that run in another order than they are listed in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(self.norm(images))


def test_an_encoder_that_would_differ_is_left_as_it_was() -> None:
    network = _with_statistics(_NormFirst())
    assert fold_batch_norms(network, SIZE) is network
    assert _norms(network) == 1
