"""MobileNetV1, the image encoder of the embedded models: timm's ``mobilenetv1_100``.

Names of weights and results are timm's, bit for bit; weights are initialized by the same rule. timm
itself loads torchvision, and that torch's compiler, which takes two seconds; it is left to other
architectures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

_STEM = 32  # channels
_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
"""Channels, blocks and stride of each stage."""


class MobileNetV1(nn.Module):
    """The layers of MobileNetV1 (arXiv 1704.04861) before the classifier, at width 1.

    ``pad_type``: "same" pads as TensorFlow does, "" symmetrically. Attributes have timm's names:
    ``num_features``, the channels of the last stage, and ``feature_info``, channels (``num_chs``)
    and stride (``reduction``) of each stage.
    """

    def __init__(self, *, pad_type: str = "") -> None:
        super().__init__()
        same = pad_type == "same"
        self.conv_stem = _convolution(3, _STEM, stride=2, same=same)
        self.bn1 = nn.BatchNorm2d(_STEM)
        stages, channels, reduction = [], _STEM, 2
        self.feature_info: list[dict[str, int]] = []
        for width, count, stride in _STAGES:
            blocks = [_Block(channels, width, stride=stride, same=same)]
            blocks += [_Block(width, width, stride=1, same=same) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            channels, reduction = width, reduction * stride
            self.feature_info.append({"num_chs": channels, "reduction": reduction})
        self.blocks = nn.Sequential(*stages)
        self.num_features = channels
        self._recomputes = False
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                rows, cols = module.kernel_size
                fan_out = rows * cols * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))

    def set_grad_checkpointing(self) -> None:
        """Compute the activations of each stage twice in training, instead of keeping them."""
        self._recomputes = True

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images (B, 3, H, W) → features of the last stage, (B, 1024, H/32, W/32)."""
        return self.forward_intermediates(images, indices=())[0]

    def forward_intermediates(
        self, images: torch.Tensor, *, indices: Sequence[int]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The same, and the features of the stages with these indices, the first being 0."""
        features = F.relu6(self.bn1(self.conv_stem(images)), inplace=True)
        found = []
        for index, stage in enumerate(self.blocks):
            if self._recomputes:
                features = checkpoint(stage, features, use_reentrant=False)
            else:
                features = stage(features)
            if index in indices:
                found.append(features)
        return features, found


class _Block(nn.Module):
    """A depthwise 3 × 3 and a pointwise convolution, each with its batch norm and ReLU6."""

    def __init__(self, channels: int, width: int, *, stride: int, same: bool) -> None:
        super().__init__()
        self.conv_dw = _convolution(channels, channels, stride=stride, same=same, groups=channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv_pw = nn.Conv2d(channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = F.relu6(self.bn1(self.conv_dw(features)), inplace=True)
        return F.relu6(self.bn2(self.conv_pw(features)), inplace=True)


class _SameConv2d(nn.Conv2d):
    """A 3 × 3 convolution of stride 2 that pads as TensorFlow does.

    Of an even number of rows or columns none is added before the first and one behind the last.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows, cols = (side % 2 for side in images.shape[-2:])
        return super().forward(F.pad(images, (cols, 1, rows, 1)))


def _convolution(
    channels: int, width: int, *, stride: int, same: bool, groups: int = 1
) -> nn.Conv2d:
    """A 3 × 3 convolution without bias."""
    if same and stride == 2:
        return _SameConv2d(channels, width, 3, stride, groups=groups, bias=False)
    return nn.Conv2d(channels, width, 3, stride, padding=1, groups=groups, bias=False)


def is_mobilenet(architecture: object, kwargs: Mapping[str, object]) -> bool:
    """Whether a model by timm's name and arguments is the one that is built here."""
    return (
        architecture == "mobilenetv1_100"
        and not kwargs.keys() - {"pad_type"}
        and kwargs.get("pad_type", "") in ("", "same")
    )
