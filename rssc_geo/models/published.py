"""The authors' network as they published it, for their checkpoints (github.com/CJR7/MultiAtt-RSSC).

It is here to reproduce, not to map with: what is wrong with it is kept. Against
``DualAttentionClassifier``

* the text is filled up to its full length (77 tokens) and nothing is masked: padding is attended to
  and pooled;
* the image is projected once, before the levels, so all levels read and ask with the encoder's
  image;
* the text attends to itself across the samples of a batch, since their module takes the batch for
  the sequence. In a batch of one each token therefore sees itself alone, and attention over one key
  is that key's projected value. That is what is computed here for every sample, whatever its batch:
  the result equals theirs for a batch of one. In their larger batches a sample's logits depend on
  the other samples, and no function of one tile can equal that.

There are no learned queries: every picture needs a caption.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rssc_geo.models.network import DualAttentionClassifier, refuse_silence


class PublishedClassifier(DualAttentionClassifier):
    """The network of the authors' code, each sample computed as a batch of one.

    Letters as in ``dual_attention``. ``text_length``: tokens that every text is filled up to, with
    ``padding_token``; the other arguments are those of ``DualAttentionClassifier``. The text
    encoder's width has to be ``width``.
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
        text_length: int = 77,
        padding_token: int = 49407,
    ) -> None:
        super().__init__(
            classes=classes,
            image_encoder=image_encoder,
            text_encoder=text_encoder,
            width=width,
            heads=heads,
            levels=levels,
            learned_queries=0,
            gate=False,
        )
        if self.text_encoder.width != width:
            raise ValueError(
                f"the text encoder is {self.text_encoder.width} wide, the attention {width}: they"
                " have to be equal"
            )
        self.text_proj = nn.Identity()  # type: ignore[assignment]
        self._text_length, self._padding_token = text_length, padding_token

    def fuse(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The joint embedding ``(B, E + I)``.

        Raises ``UsageError`` for a picture without a caption.
        """
        level, image = self.level, image_tokens  # (B, N, I)
        text = self._read(token_ids, token_mask)  # (B, S, E)
        seen = level.image_proj(image)  # (B, N, E), for all levels
        for _ in range(self.levels):
            text = _attend_to_itself(level.text_self_attention, text)  # (B, S, E)
            asked, _ = level.text_cross_attention(text, seen, seen, need_weights=False)  # (B, S, E)
            text = level.text_norm(text + asked)  # (B, S, E)
            words = level.mlp(text)  # (B, S, E)
            read, _ = level.image_cross_attention(
                seen, words, words, need_weights=False
            )  # (B, N, E)
            image = level.image_norm(image + level.back_proj(read))  # (B, N, I)
        return torch.cat([text.mean(1), image.mean(1)], dim=1)  # (B, E + I)

    def _read(
        self, token_ids: torch.Tensor | None, token_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The words and the padding behind them, unmasked: states (B, S, E)."""
        ids = refuse_silence(token_ids, token_mask)
        filled = ids.new_full((len(ids), self._text_length), self._padding_token)  # (B, S)
        given = ids.shape[1]
        filled[:, :given] = ids if token_mask is None else ids.where(token_mask, filled[:, :given])
        states: torch.Tensor = self.text_encoder(filled, torch.ones_like(filled, dtype=torch.bool))
        return states


def _attend_to_itself(attention: nn.MultiheadAttention, text: torch.Tensor) -> torch.Tensor:
    """Attention of each token over itself alone: the softmax over one key is 1."""
    value = attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
    seen: torch.Tensor = attention.out_proj(nn.functional.linear(text, *value))
    return seen
