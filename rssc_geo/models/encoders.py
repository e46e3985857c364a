"""Image and text encoders behind one small interface: tokens out, ``width`` numbers each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
import torch.nn.functional as F
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


class StaticTextEncoder(nn.Module):
    """One fixed vector a word piece, distilled from a sentence encoder: open words for a few megabytes.

    The table is int8 with a scale a row and is not trained further; what the words mean together is left to the
    attention that reads them. The mean over a text's pieces stands for the text (:meth:`embed`).
    """

    def __init__(self, *, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.width = hidden_size
        self.table: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("table", torch.zeros(vocab_size, hidden_size, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(vocab_size, 1))

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 -- as TextEncoder
        """Token ids ``(B, T)`` → states ``(B, T, width)``; a state depends on its token alone."""
        states: torch.Tensor = self.table[token_ids].to(self.scale.dtype) * self.scale[token_ids]
        return states

    def embed(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Texts ``(B, T)`` → unit vectors ``(B, width)``; zeros where a text has no token."""
        states = self(token_ids, token_mask) * token_mask.unsqueeze(2)
        return F.normalize(states.sum(1), dim=1)


class TextEncoder(nn.Module):
    """Any transformers text encoder, built from its configuration (``model_type`` and its fields)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        fields = dict(config)
        settings = AutoConfig.for_model(fields.pop("model_type"), **fields)
        self.backbone = AutoModel.from_config(settings)
        self.width: int = settings.hidden_size

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Token ids ``(B, T)`` and their mask (True = a token) → states ``(B, T, width)``.

        A row without any token is legal; its states mean nothing and the caller masks them.
        """
        mask = token_mask.clone()
        mask[:, 0] |= ~mask.any(1)  # softmax over nothing is NaN: let an empty row look at its first padding
        states: torch.Tensor = self.backbone(input_ids=token_ids, attention_mask=mask.long()).last_hidden_state
        return states


def make_text_encoder(config: Mapping[str, Any]) -> StaticTextEncoder | TextEncoder:
    """``model_type`` "static" is ours (``vocab_size``, ``hidden_size``); every other is transformers'."""
    if config["model_type"] == "static":
        return StaticTextEncoder(vocab_size=config["vocab_size"], hidden_size=config["hidden_size"])
    return TextEncoder(config)
