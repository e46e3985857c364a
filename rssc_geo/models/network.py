"""The multimodal dual-attention network: image and text attend to each other, then are classified.

After Cai, Meng, Yang and Shao, "Multimodal Remote Sensing Scene Classification Using VLMs and
Dual-Cross Attention Networks" (arXiv 2412.02531, 2024), section 3. From top to bottom: one level of
dual attention, the classifier, the authors' own version of it, and the alignment with texts that
zero-shot classes need. What differs from the authors' code, and why:

* attention is batch-first everywhere: a sample attends to its own tokens, never to those of its
  batch;
* padding is masked in the text encoder, in both attentions that read text, and in the mean over
  text;
* the image is projected inside the level loop, so each level's queries come from the image of the
  last level;
* ``learned_queries`` precede the words. They are the same for every image and always present, so
  that an image without a caption can be classified too (with 0 of them the text must not be empty);
* a ``gate`` scales the words of each image by their reliability, estimated from the words and the
  image.

Letters in the comments: B samples, N image tokens, T words, Q learned queries, S = Q + T,
I, X widths of the image and text encoders, E width of the attention, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rssc_geo.errors import UsageError
from rssc_geo.geometry import WindowWeights
from rssc_geo.models.encoders import make_image_encoder, make_text_encoder


class DualAttentionLevel(nn.Module):
    """One level: text attends to itself, then text attends to the image, then image to the text."""

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
        """Image (B, N, I) and text (B, S, E) → both, updated.

        ``padding``: bool (B, S), True where the text has no token.
        """
        patches = self.image_proj(image)  # (B, N, I) → (B, N, E)
        text, _ = self.text_self_attention(
            text, text, text, key_padding_mask=padding, need_weights=False
        )  # (B, S, E)
        from_image, _ = self.text_cross_attention(
            text, patches, patches, need_weights=False
        )  # queries (B, S, E), keys and values (B, N, E) → (B, S, E)
        text = self.text_norm(text + from_image)  # (B, S, E)
        words = self.mlp(text)  # (B, S, E)
        from_text, _ = self.image_cross_attention(
            patches, words, words, key_padding_mask=padding, need_weights=False
        )  # queries (B, N, E), keys and values (B, S, E) → (B, N, E)
        image = self.image_norm(image + self.back_proj(from_text))  # (B, N, I)
        return image, text


class DualAttentionClassifier(nn.Module):
    """Image encoder, text encoder, ``levels`` passes through one level, and a linear classifier.

    Parameters
    ----------
    classes : number of classes C
    image_encoder : ``{"architecture": <timm name>, "kwargs": {...}}``, or a transformers
        configuration with its ``model_type``
    text_encoder : a transformers configuration with its ``model_type``, or "static" with its sizes
    width, heads : width E and heads of the attention (512 and 4 in the paper)
    levels : passes through the level; its weights are shared, as published (2 in the paper)
    learned_queries : Q (0 in the paper)
    gate : whether words are gated (not in the paper)
    image_head : whether a linear layer of the mean image token gives logits, to which the attention
        adds those of the words; an image without words is then classified by it alone (not in the
        paper)
    dropout : in attention, in the MLP and before the classifier
    """

    def __init__(  # noqa: PLR0913 -- the keys of a card
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
        image_head: bool = False,
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
        self.image_head = nn.Linear(self.image_encoder.width, classes) if image_head else None
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width + self.image_encoder.width, classes)
        )

    def forward(
        self,
        images: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (B, C).

        ``images``: normalized, float (B, 3, H, W). ``token_ids``: int64 (B, T); None = no captions.
        ``token_mask``: bool (B, T), True = a token, False = padding; None = all are tokens.
        """
        return self.classify(self.encode_image(images), token_ids, token_mask)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images (B, 3, H, W) → image tokens (B, N, I).

        Computed once, for the captioner and for ``classify``.
        """
        tokens: torch.Tensor = self.image_encoder(images)
        return tokens

    def classify(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Image tokens (B, N, I) and words as in ``forward`` → logits (B, C)."""
        if self.image_head is not None:
            return self._add_words(image_tokens, token_ids, token_mask)
        joint = self.fuse(image_tokens, token_ids, token_mask)  # (B, E + I)
        logits: torch.Tensor = self.classifier(joint)  # (B, C)
        return logits

    def _add_words(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None,
        token_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """``classify`` of a network with an image head."""
        logits = self.classify_pooled(image_tokens.mean(1))  # (B, C)
        if token_ids is None:
            return logits
        if token_mask is None:
            token_mask = torch.ones_like(token_ids, dtype=torch.bool)  # (B, T)
        spoken = token_mask.any(1).nonzero().flatten()  # (S,), images with words
        if not len(spoken):
            return logits
        joint = self.fuse(image_tokens[spoken], token_ids[spoken], token_mask[spoken])
        return logits.index_add(0, spoken, self.classifier(joint).to(logits.dtype))

    def embed(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Image tokens (B, N, I) and words → the input of the linear classifier, (B, D).

        The mean image token where there is an image head, else the joint embedding.
        """
        if self.image_head is not None:
            return image_tokens.mean(1)
        return self.fuse(image_tokens, token_ids, token_mask)

    def replace_classes(self, classifier: nn.Linear) -> None:
        """Classify by another linear layer of ``embed`` from now on; words are then ignored."""
        if self.image_head is None:
            self.classifier[1] = classifier
            return
        self.image_head = classifier
        width = self.level.text_norm.normalized_shape[0] + self.image_encoder.width
        silent = nn.Linear(width, classifier.out_features)
        nn.init.zeros_(silent.weight)
        nn.init.zeros_(silent.bias)
        self.classifier = nn.Sequential(self.classifier[0], silent)

    def classify_pooled(self, pooled: torch.Tensor) -> torch.Tensor:
        """Mean image tokens (B, I) → logits (B, C), without words."""
        if self.image_head is None:
            raise UsageError("this model has no image head that reads mean tokens")
        logits: torch.Tensor = self.image_head(pooled)
        return logits

    def fuse(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Image tokens (B, N, I) and words → the joint embedding (B, E + I).

        The mean over the text beside the mean over the image tokens.
        """
        image = image_tokens  # (B, N, I)
        text, present = self.embed_text(image, token_ids, token_mask)  # (B, S, E), (B, S)
        for _ in range(self.levels):
            image, text = self.level(image, text, ~present)  # (B, N, I), (B, S, E)
        words = masked_mean(text, present)  # (B, S, E) → (B, E)
        return torch.cat([words, image.mean(1)], dim=1)  # (B, E), (B, I) → (B, E + I)

    def embed_text(
        self, image: torch.Tensor, token_ids: torch.Tensor | None, token_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Learned queries, then the words: states (B, S, E), and where there is a token (B, S)."""
        count = len(image)
        queries = self.queries.expand(count, -1, -1).to(image.dtype)  # (B, Q, E)
        present = torch.ones(queries.shape[:2], dtype=torch.bool, device=image.device)  # (B, Q)
        if not len(self.queries):
            require_captions(token_ids, token_mask)
        if token_ids is None:
            return queries, present
        if token_mask is None:
            token_mask = torch.ones_like(token_ids, dtype=torch.bool)  # (B, T)
        states = self.text_encoder(token_ids, token_mask)  # (B, T) → (B, T, X)
        words = self.text_proj(states)  # (B, T, E)
        if self.gate is not None:
            mean = masked_mean(words, token_mask)  # (B, E)
            trust = self.gate(torch.cat([mean, image.mean(1)], dim=1)).sigmoid()  # (B, 1)
            words = words * trust.unsqueeze(2)  # (B, T, E)
        return torch.cat([queries, words], dim=1), torch.cat([present, token_mask], dim=1)


def pool_windows(
    features: tuple[torch.Tensor, torch.Tensor], *, scene: WindowWeights, ground: WindowWeights
) -> torch.Tensor:
    """Mean tokens (R, M, I) of R × M windows on feature maps that they share.

    ``features``: scene features (S, h, w) and ground features (G, h', w'), I = S + G; ``scene`` and
    ``ground``: the windows on each.
    """
    parts = []
    for look, windows in zip(features, (scene, ground), strict=True):
        rows, cols = (torch.from_numpy(weights).to(look) for weights in windows)
        # A feature map whose channels lie together in memory is not copied.
        tokens = look.permute(1, 2, 0)  # (·, h, w) → (h, w, ·)
        found = (rows @ tokens.flatten(1)).view(-1, *tokens.shape[1:])  # (R, w, ·)
        parts.append(cols @ found)  # (R, M, ·)
    return torch.cat(parts, dim=2)  # (R, M, I)


def masked_mean(text: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean over the present tokens: (B, S, E) and bool (B, S) → (B, E); 0 over none."""
    weight = present.unsqueeze(2).to(text.dtype)  # (B, S, 1)
    return (text * weight).sum(1) / weight.sum(1).clamp(min=1)


def require_captions(
    token_ids: torch.Tensor | None, token_mask: torch.Tensor | None
) -> torch.Tensor:
    """The token ids (B, T) of a network without learned queries.

    Raises ``UsageError`` for an image without any token.
    """
    if token_ids is None or (token_mask is not None and not token_mask.any(1).all()):
        raise UsageError(
            "this model has no learned queries and reads no image without a caption: choose a"
            " --captioner"
        )
    return token_ids


class PublishedClassifier(DualAttentionClassifier):
    """The network of the authors' code (github.com/CJR7/MultiAtt-RSSC), as for batches of one.

    It reproduces their checkpoints and is not meant for maps: its defects are kept. Differences
    from ``DualAttentionClassifier``

    * the text is filled up to ``text_length`` tokens with ``padding_token`` and nothing is masked:
      padding is attended to and pooled;
    * the image is projected once, before the levels, so all levels use the encoder's image;
    * the text attends to itself across the samples of a batch, since their module takes the batch
      for the sequence. In a batch of one each token therefore attends to itself alone, and
      attention over one key is that key's projected value. That is computed here for every sample,
      whatever its batch: the result equals theirs for a batch of one. In their larger batches a
      sample's logits depend on the other samples, and no function of one tile can equal that.

    There are no learned queries: every image needs a caption. The text encoder's width has to be
    ``width``; the other arguments are those of ``DualAttentionClassifier``.
    """

    def __init__(  # noqa: PLR0913 -- the keys of a card
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
        """Image tokens (B, N, I) and words → the joint embedding (B, E + I).

        Raises ``UsageError`` for an image without a caption.
        """
        level, image = self.level, image_tokens  # (B, N, I)
        text = self._embed_padded(token_ids, token_mask)  # (B, S, E), S = text_length
        patches = level.image_proj(image)  # (B, N, E), for all levels
        for _ in range(self.levels):
            text = _attend_to_itself(level.text_self_attention, text)  # (B, S, E)
            from_image, _ = level.text_cross_attention(
                text, patches, patches, need_weights=False
            )  # (B, S, E)
            text = level.text_norm(text + from_image)  # (B, S, E)
            words = level.mlp(text)  # (B, S, E)
            from_text, _ = level.image_cross_attention(
                patches, words, words, need_weights=False
            )  # (B, N, E)
            image = level.image_norm(image + level.back_proj(from_text))  # (B, N, I)
        return torch.cat([text.mean(1), image.mean(1)], dim=1)  # (B, E + I)

    def _embed_padded(
        self, token_ids: torch.Tensor | None, token_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The words and the padding behind them, unmasked: states (B, S, E)."""
        ids = require_captions(token_ids, token_mask)  # (B, T)
        filled = ids.new_full((len(ids), self._text_length), self._padding_token)  # (B, S)
        given = ids.shape[1]
        filled[:, :given] = ids if token_mask is None else ids.where(token_mask, filled[:, :given])
        states: torch.Tensor = self.text_encoder(filled, torch.ones_like(filled, dtype=torch.bool))
        return states


def _attend_to_itself(attention: nn.MultiheadAttention, text: torch.Tensor) -> torch.Tensor:
    """Attention of each token of (B, S, E) over itself alone: the softmax over one key is 1."""
    weight, bias = attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
    values = F.linear(text, weight, bias)  # (B, S, E)
    output: torch.Tensor = attention.out_proj(values)  # (B, S, E)
    return output


class Alignment(nn.Module):
    """Maps the mean image token into the space of text embeddings, for classes named by words.

    ``center`` is the mean embedding of the training images, which does not separate classes.
    ``log_scale`` and ``other`` are fitted on validation images: the logarithm of what similarities
    are multiplied by, as in CLIP (Radford et al., 2021), and the bias of the class "other"
    (:func:`rssc_geo.models.named_classes.name_classes`).
    """

    def __init__(self, *, image_width: int, text_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(image_width, text_width)
        self.center: torch.Tensor
        self.register_buffer("center", torch.zeros(text_width))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.other = nn.Parameter(torch.tensor(0.0))

    def embed(self, pooled: torch.Tensor) -> torch.Tensor:
        """Mean image tokens (B, I) → unit vectors (B, X)."""
        return F.normalize(self.project(pooled), dim=1)

    def embed_centered(self, pooled: torch.Tensor) -> torch.Tensor:
        """Mean image tokens (B, I) → unit vectors (B, X) by what sets images apart.

        Their inner products with unit text embeddings, and with each other, rank images.
        """
        return F.normalize(self.embed(pooled) - self.center, dim=1)

    def forward(self, pooled: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Mean image tokens (B, I) and unit text embeddings (C, X) → logits (B, C)."""
        return self.log_scale.exp() * (self.embed(pooled) - self.center) @ texts.T  # (B, C)


class Familiarity(nn.Module):
    """Similarity of an image to the training pictures, in [0, 1], by its mean token.

    A perceptron with one hidden layer, on the square roots of the token's numbers, separates
    pictures from above from everything else (noise, maps, elevation, radar …); familiarity is the
    share of crops of the validation pictures that score less. ``scores`` are the score's ``levels``
    quantiles among them, lowest first.
    """

    def __init__(self, *, image_width: int, hidden: int, levels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(image_width, hidden)
        self.weigh = nn.Linear(hidden, 1)
        self.scores: torch.Tensor
        self.register_buffer("scores", torch.linspace(-1, 1, levels))

    @staticmethod
    def roots(pooled: torch.Tensor) -> torch.Tensor:
        """Mean image tokens (B, I) → roots (B, I), so that few large numbers do not dominate."""
        return pooled.sign() * pooled.abs().sqrt()

    def score(self, pooled: torch.Tensor) -> torch.Tensor:
        """Mean image tokens (B, I) → scores (B,), higher for more familiar images."""
        hidden = torch.relu(self.hidden(self.roots(pooled)))  # (B, H)
        scores: torch.Tensor = self.weigh(hidden).squeeze(1)  # (B, 1) → (B,)
        return scores

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Mean image tokens (B, I) → familiarity (B,)."""
        scores, known = self.score(pooled).float(), self.scores.float()  # (B,), (L,)
        above = torch.searchsorted(known, scores).clamp(1, len(known) - 1)
        low, high = known[above - 1], known[above]
        between = ((scores - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
        return (above - 1 + between) / (len(known) - 1)
