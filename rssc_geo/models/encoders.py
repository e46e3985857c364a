"""Image and text encoders behind one small interface: tokens out, ``width`` numbers each.

All are built from their configuration alone; nothing is fetched here, so that a bundle loads
without a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding


class TimmImageEncoder(nn.Module):
    """Any timm model as an encoder of images.

    ``architecture`` and ``kwargs`` are those of ``timm.create_model``; weights are never fetched
    here.
    """

    def __init__(self, architecture: str, kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self.backbone = timm.create_model(architecture, pretrained=False, num_classes=0, **kwargs)
        self.width: int = self.backbone.num_features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images (B, 3, H, W) → tokens (B, N, width)."""
        features: torch.Tensor = self.backbone.forward_features(images)
        if str(getattr(self.backbone, "output_fmt", "")) == "NHWC":  # Swin and its kin
            return features.flatten(1, 2)  # (B, h, w, width) → (B, N, width)
        return _as_tokens(features)


class TransformersImageEncoder(nn.Module):
    """Any transformers vision model, built from its configuration with its ``model_type``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        settings = _as_config(config)
        self.backbone = AutoModel.from_config(settings)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # its output would not be used
        # hidden_sizes: of convolutional stages.
        width = getattr(settings, "hidden_size", None) or settings.hidden_sizes[-1]
        self.width: int = width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images (B, 3, H, W) → tokens (B, N, width)."""
        return _as_tokens(self.backbone(pixel_values=images).last_hidden_state)


def _as_tokens(features: torch.Tensor) -> torch.Tensor:
    """A feature map (B, width, h, w) as tokens (B, N, width); tokens as they are."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


class StaticTextEncoder(nn.Module):
    """One fixed vector a word piece, distilled from a sentence encoder.

    It gives open words for a few megabytes. The table is int8 with a scale a row and is not trained
    further; what the words mean together is left to the attention that reads them. The mean over a
    text's pieces is the embedding of the text (:meth:`embed`).
    """

    def __init__(self, *, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.width = hidden_size
        self.table: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("table", torch.zeros(vocab_size, hidden_size, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(vocab_size, 1))

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Token ids (B, T) → states (B, T, width) of zero mean and unit variance.

        Each depends on its token alone. A vector's length says how much its word counts in a mean
        (:meth:`embed`); for attention all words are equally long.
        """
        del token_mask
        return F.layer_norm(self._lookup(token_ids), (self.width,), eps=1e-12)

    def _lookup(self, token_ids: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.table[token_ids].to(self.scale.dtype) * self.scale[token_ids]
        return vectors

    def embed(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Texts (B, T) → unit vectors (B, width); zeros where a text has no token."""
        states = self._lookup(token_ids) * token_mask.unsqueeze(2)
        return F.normalize(states.sum(1), dim=1)


class TransformersTextEncoder(nn.Module):
    """Any transformers text encoder, built from its configuration with its ``model_type``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        settings = _as_config(config)
        self.backbone = text_class(settings).from_config(settings)
        self.width: int = settings.hidden_size

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Token ids (B, T) and their mask (True = a token) → states (B, T, width).

        A row without any token is legal; its states mean nothing and the caller masks them.
        """
        mask = token_mask.clone()
        # The softmax over nothing is NaN: an empty row attends to its first padding.
        mask[:, 0] |= ~mask.any(1)
        output = self.backbone(input_ids=token_ids, attention_mask=mask.long())
        states: torch.Tensor = output.last_hidden_state
        return states

    def embed(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Texts (B, T) → unit vectors (B, width); zeros where a text has no token.

        The mean of the last hidden states, as in sentence-transformers.
        """
        states = self(token_ids, token_mask) * token_mask.unsqueeze(2)
        return F.normalize(states.sum(1), dim=1)


def _as_config(config: Mapping[str, Any]) -> Any:
    fields = dict(config)
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


def text_class(config: Any) -> Any:
    """The transformers factory for a text encoder's configuration.

    Of an encoder–decoder such as T5 the encoder alone is built.
    """
    return AutoModelForTextEncoding if getattr(config, "is_encoder_decoder", False) else AutoModel


def make_image_encoder(
    config: Mapping[str, Any],
) -> TimmImageEncoder | TransformersImageEncoder:
    """An image encoder with random weights.

    ``architecture`` (and ``kwargs``) make a timm model, ``model_type`` one of transformers.
    """
    if "architecture" in config:
        return TimmImageEncoder(config["architecture"], config.get("kwargs", {}))
    return TransformersImageEncoder(config)


def make_text_encoder(config: Mapping[str, Any]) -> StaticTextEncoder | TransformersTextEncoder:
    """A text encoder with random weights.

    ``model_type`` "static" is ours (``vocab_size``, ``hidden_size``), every other is transformers'.
    """
    if config["model_type"] == "static":
        return StaticTextEncoder(vocab_size=config["vocab_size"], hidden_size=config["hidden_size"])
    return TransformersTextEncoder(config)


# Names of weights that transformers changed between its versions 4 and 5.
_RENAMED = (
    (r"\b(text|vision)_model\.", ""),
    (r"\bencoder\.layer\.", "layers."),
    (
        r"\.attention\.attention\.(query|key|value)\.",
        lambda found: f".attention.{found[1][0]}_proj.",
    ),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)


def fit_keys(weights: Mapping[str, torch.Tensor], wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    """The weights under the names that the installed transformers gives them.

    ``wanted``: the names in the module that is to be filled. Both sides are brought to one
    spelling, so that weights written with version 4 or 5 are read by either; names that match none
    stay as they are.
    """
    names = {_spelling(name): name for name in wanted}
    return {names.get(_spelling(name), name): value for name, value in weights.items()}


def _spelling(name: str) -> str:
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return name
