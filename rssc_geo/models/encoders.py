"""Image and text encoders behind one small interface: tokens out, ``width`` numbers each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn
from transformers import AutoConfig, AutoModel


class ImageEncoder(nn.Module):
    """Any timm model as a producer of image tokens.

    ``architecture`` and ``kwargs`` are those of ``timm.create_model``; weights are never fetched here.
    """

    def __init__(self, architecture: str, kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self.backbone = timm.create_model(architecture, pretrained=False, num_classes=0, **kwargs)
        self.width: int = self.backbone.num_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images ``(B, 3, H, W)`` → tokens ``(B, N, width)``."""
        features: torch.Tensor = self.backbone.forward_features(images)
        if features.ndim == 4:  # a convolutional network's map (B, C, h, w); transformers give (B, N, C)
            features = features.flatten(2).transpose(1, 2)
        return features


class TextEncoder(nn.Module):
    """Any transformers text encoder, built from its configuration (``model_type`` and its fields)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        fields = dict(config)
        settings = AutoConfig.for_model(fields.pop("model_type"), **fields)
        self.backbone = AutoModel.from_config(settings)
        self.width: int = settings.hidden_size
        self.vocabulary: int = settings.vocab_size

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Token ids ``(B, T)`` and their mask (True = a token) → states ``(B, T, width)``.

        A row without any token is legal; its states mean nothing and the caller masks them.
        """
        mask = token_mask.clone()
        mask[:, 0] |= ~mask.any(1)  # softmax over nothing is NaN: let an empty row look at its first padding
        states: torch.Tensor = self.backbone(input_ids=token_ids, attention_mask=mask.long()).last_hidden_state
        return states
