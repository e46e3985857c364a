"""Image and text encoders behind one small interface: tokens out, ``width`` numbers each.

All are built from their configuration alone; nothing is fetched here, so that a bundle loads
without a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding


class ImageEncoder(nn.Module):
    """Any timm model as a producer of image tokens.

    ``architecture`` and ``kwargs`` are those of ``timm.create_model``; weights are never fetched
    here.
    """

    def __init__(self, architecture: str, kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self.backbone = timm.create_model(architecture, pretrained=False, num_classes=0, **kwargs)
        self.width: int = self.backbone.num_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images ``(B, 3, H, W)`` → tokens ``(B, N, width)``."""
        features: torch.Tensor = self.backbone.forward_features(images)
        if (
            str(getattr(self.backbone, "output_fmt", "")) == "NHWC"
        ):  # Swin and its kin: (B, h, w, C)
            return features.flatten(1, 2)
        return _flat(features)


class VisionEncoder(nn.Module):
    """Any transformers vision model, built from its configuration (``model_type`` and its fields)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        settings = _settings(config)
        self.backbone = AutoModel.from_config(settings)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # its output would not be used
        width = (
            getattr(settings, "hidden_size", None) or settings.hidden_sizes[-1]
        )  # the latter: of convolutional stages
        self.width: int = width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images ``(B, 3, H, W)`` → tokens ``(B, N, width)``."""
        return _flat(self.backbone(pixel_values=images).last_hidden_state)


def _flat(features: torch.Tensor) -> torch.Tensor:
    """A convolutional network's map ``(B, C, h, w)`` as tokens.

    Tokens ``(B, N, C)`` as they are.
    """
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


class StaticTextEncoder(nn.Module):
    """One fixed vector a word piece, distilled from a sentence encoder: open words for a few
    megabytes.

    The table is int8 with a scale a row and is not trained further; what the words mean together is
    left to the attention that reads them. The mean over a text's pieces stands for the text
    (:meth:`embed`).
    """

    def __init__(self, *, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.width = hidden_size
        self.table: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("table", torch.zeros(vocab_size, hidden_size, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(vocab_size, 1))

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Token ids ``(B, T)`` → states ``(B, T, width)`` of zero mean and unit variance; each
        depends on its token alone.

        A vector's length says how much its word counts in a sum (:meth:`embed`); to attention all
        words come equally loud.
        """
        return F.layer_norm(self._vectors(token_ids), (self.width,), eps=1e-12)

    def _vectors(self, token_ids: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.table[token_ids].to(self.scale.dtype) * self.scale[token_ids]
        return vectors

    def embed(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Texts ``(B, T)`` → unit vectors ``(B, width)``; zeros where a text has no token."""
        states = self._vectors(token_ids) * token_mask.unsqueeze(2)
        return F.normalize(states.sum(1), dim=1)


class TextEncoder(nn.Module):
    """Any transformers text encoder, built from its configuration (``model_type`` and its fields)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        settings = _settings(config)
        self.backbone = text_class(settings).from_config(settings)
        self.width: int = settings.hidden_size

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Token ids ``(B, T)`` and their mask (True = a token) → states ``(B, T, width)``.

        A row without any token is legal; its states mean nothing and the caller masks them.
        """
        mask = token_mask.clone()
        mask[:, 0] |= ~mask.any(
            1
        )  # softmax over nothing is NaN: let an empty row look at its first padding
        states: torch.Tensor = self.backbone(
            input_ids=token_ids, attention_mask=mask.long()
        ).last_hidden_state
        return states

    def embed(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Texts ``(B, T)`` → unit vectors ``(B, width)``: the mean of the last hidden states, as
        sentence-transformers has it.

        Zeros where a text has no token.
        """
        states = self(token_ids, token_mask) * token_mask.unsqueeze(2)
        return F.normalize(states.sum(1), dim=1)


def _settings(config: Mapping[str, Any]) -> Any:
    fields = dict(config)
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


def text_class(settings: Any) -> Any:
    """The transformers factory of a text encoder.

    Of an encoder–decoder such as T5 the encoder alone.
    """
    return AutoModelForTextEncoding if getattr(settings, "is_encoder_decoder", False) else AutoModel


def make_image_encoder(config: Mapping[str, Any]) -> ImageEncoder | VisionEncoder:
    """With ``architecture`` (and ``kwargs``) a timm model, with ``model_type`` one of transformers."""
    if "architecture" in config:
        return ImageEncoder(config["architecture"], config.get("kwargs", {}))
    return VisionEncoder(config)


def make_text_encoder(config: Mapping[str, Any]) -> StaticTextEncoder | TextEncoder:
    """``model_type`` "static" is ours (``vocab_size``, ``hidden_size``).

    Every other is transformers'.
    """
    if config["model_type"] == "static":
        return StaticTextEncoder(vocab_size=config["vocab_size"], hidden_size=config["hidden_size"])
    return TextEncoder(config)
