"""The multimodal dual-attention network: picture and words read each other, then vote together.

After Cai, Meng, Yang and Shao, "Multimodal Remote Sensing Scene Classification Using VLMs and
Dual-Cross Attention Networks" (arXiv 2412.02531, 2024), section 3. What differs from the authors'
code, and why:

* attention is batch-first everywhere: a sample attends to its own tokens, never to those of its
  batch;
* padding is masked in the text encoder, in both attentions that read words, and in the mean over
  words;
* the image is projected inside the level loop, so each level asks with the image as the last one
  left it;
* ``learned_queries`` stand before the words. They are the same for every image and always present,
  so that a picture without a caption is read too (with 0 of them the text must not be empty);
* a ``gate`` scales the words of each picture by how far they can be trusted, seen from the words
  and the picture.

Letters in the comments: B samples, N image tokens, T words, Q learned queries, S = Q + T,
I, X widths of the image and text encoders, E width of the attention, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rssc_geo.errors import UsageError
from rssc_geo.models.encoders import make_image_encoder, make_text_encoder


def refuse_silence(token_ids: torch.Tensor | None, token_mask: torch.Tensor | None) -> torch.Tensor:
    """The token ids.

    ``UsageError`` for a picture without any, which a network without learned queries cannot read.
    """
    if token_ids is None or (token_mask is not None and not token_mask.any(1).all()):
        raise UsageError(
            "this model has no learned queries and reads no picture without a caption: choose a"
            " --captioner"
        )
    return token_ids


class DualAttentionLevel(nn.Module):
    """One level: the text attends to itself, then to the image.

    The image then attends to the text.
    """

    def __init__(self, *, image_width: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.image_proj = nn.Linear(image_width, width)
        self.back_proj = nn.Linear(width, image_width)
        self.text_self_attention = nn.MultiheadAttention(
            width, heads, dropout=dropout, batch_first=True
        )
        self.text_cross_attention = nn.MultiheadAttention(
            width, heads, dropout=dropout, batch_first=True
        )
        self.image_cross_attention = nn.MultiheadAttention(
            width, heads, dropout=dropout, batch_first=True
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.text_norm = nn.LayerNorm(width)
        self.image_norm = nn.LayerNorm(image_width)

    def forward(
        self, image: torch.Tensor, text: torch.Tensor, padding: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``image`` (B, N, I), ``text`` (B, S, E), ``padding`` (B, S) True = nothing there → both, new."""
        seen = self.image_proj(image)  # (B, N, E)
        text, _ = self.text_self_attention(
            text, text, text, key_padding_mask=padding, need_weights=False
        )  # (B, S, E)
        asked, _ = self.text_cross_attention(text, seen, seen, need_weights=False)  # (B, S, E)
        text = self.text_norm(text + asked)  # (B, S, E)
        words = self.mlp(text)  # (B, S, E)
        read, _ = self.image_cross_attention(
            seen, words, words, key_padding_mask=padding, need_weights=False
        )  # (B, N, E)
        image = self.image_norm(image + self.back_proj(read))  # (B, N, I)
        return image, text


class DualAttentionClassifier(nn.Module):
    """Image encoder + text encoder + ``levels`` passes through one dual-attention level + linear
    classifier.

    Parameters
    ----------
    classes : number of classes C
    image_encoder : ``{"architecture": <timm name>, "kwargs": {...}}``, or a transformers
        configuration with its ``model_type``
    text_encoder : a transformers configuration with its ``model_type``, or "static" with its sizes
    width, heads : width E and heads of the attention (512 and 4 in the paper)
    levels : passes L through the level; its weights are shared, as published (2 in the paper)
    learned_queries : Q (0 in the paper)
    gate : whether words are gated (not in the paper)
    dropout : in attention, in the MLP and before the classifier
    """

    def __init__(
        self,
        *,
        classes: int,
        image_encoder: Mapping[str, Any],
        text_encoder: Mapping[str, Any],
        width: int = 512,
        heads: int = 4,
        levels: int = 2,
        learned_queries: int = 8,
        gate: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.image_encoder = make_image_encoder(image_encoder)
        self.text_encoder = make_text_encoder(text_encoder)
        self.text_proj = nn.Linear(self.text_encoder.width, width)
        self.queries = nn.Parameter(torch.randn(learned_queries, width) * width**-0.5)
        self.gate = nn.Linear(width + self.image_encoder.width, 1) if gate else None
        self.level = DualAttentionLevel(
            image_width=self.image_encoder.width, width=width, heads=heads, dropout=dropout
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width + self.image_encoder.width, classes)
        )

    def forward(
        self,
        images: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits ``(B, C)``.

        ``images``: normalized, float ``(B, 3, H, W)``. ``token_ids``: int64 ``(B, T)``; None = no
        captions. ``token_mask``: bool ``(B, T)``, True = a token, False = padding; None = all are
        tokens.
        """
        return self.classify(self.encode_image(images), token_ids, token_mask)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Image tokens ``(B, N, I)``, for the captioner and for ``classify``.

        Computed once for both.
        """
        tokens: torch.Tensor = self.image_encoder(images)
        return tokens

    def classify(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits ``(B, C)`` from image tokens ``(B, N, I)`` and words as in ``forward``."""
        logits: torch.Tensor = self.classifier(self.fuse(image_tokens, token_ids, token_mask))
        return logits

    def fuse(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The joint embedding ``(B, E + I)``.

        Mean over the words beside the mean over the image tokens.
        """
        image = image_tokens  # (B, N, I)
        text, present = self._text(image, token_ids, token_mask)  # (B, S, E), (B, S)
        for _ in range(self.levels):
            image, text = self.level(image, text, ~present)
        weight = present.unsqueeze(2).to(text.dtype)  # (B, S, 1)
        words = (text * weight).sum(1) / weight.sum(1)  # (B, E)
        return torch.cat([words, image.mean(1)], dim=1)  # (B, E + I)

    def _text(
        self, image: torch.Tensor, token_ids: torch.Tensor | None, token_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Learned queries, then the words: states (B, S, E) and where there is something (B, S)."""
        count = len(image)
        queries = self.queries.expand(count, -1, -1).to(image.dtype)  # (B, Q, E)
        present = torch.ones(queries.shape[:2], dtype=torch.bool, device=image.device)  # (B, Q)
        if not len(self.queries):
            refuse_silence(token_ids, token_mask)
        if token_ids is None:
            return queries, present
        if token_mask is None:
            token_mask = torch.ones_like(token_ids, dtype=torch.bool)
        words = self.text_proj(self.text_encoder(token_ids, token_mask))  # (B, T, X) → (B, T, E)
        if self.gate is not None:
            given = token_mask.unsqueeze(2).to(words.dtype)  # (B, T, 1)
            said = (words * given).sum(1) / given.sum(1).clamp(min=1)  # (B, E)
            trust = self.gate(torch.cat([said, image.mean(1)], dim=1)).sigmoid()  # (B, 1)
            words = words * trust.unsqueeze(2)  # (B, T, E)
        return torch.cat([queries, words], dim=1), torch.cat([present, token_mask], dim=1)
