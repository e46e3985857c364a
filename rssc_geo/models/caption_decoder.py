"""The caption decoder of a bundle: a small transformer that reads the classifier's image tokens.

Letters in the comments: B images, N image tokens of width I, T words, V words of the vocabulary,
E width of the decoder, H heads, W hypotheses of a beam search.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
CaptionSource = Literal["generated", "written"]
"""Source of a caption: the bundle's own captioner, or people and large models."""
_KeyValue = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one attention, each (B, H, T, E / H)."""


class _Block(nn.Module):
    """Pre-norm decoder block: self-attention, cross-attention to the image, MLP."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm_self, self.norm_cross, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.qkv = nn.Linear(width, 3 * width)
        self.out_self = nn.Linear(width, width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out_cross = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )

    def _split(self, x: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """(B, T, parts · E) → ``parts`` tensors (B, H, T, E / H)."""
        pieces = x.chunk(parts, dim=-1)
        return tuple(
            piece.reshape(*piece.shape[:2], self.heads, -1).transpose(1, 2) for piece in pieces
        )

    def image_key_value(self, memory: torch.Tensor) -> _KeyValue:
        """Keys and values of the image (B, N, E), computed once for all words."""
        key, value = self._split(self.key_value(memory), 2)  # (B, H, N, E / H)
        return key, value

    def forward(
        self, x: torch.Tensor, image: _KeyValue, past: _KeyValue | None
    ) -> tuple[torch.Tensor, _KeyValue]:
        """States (B, T, E) → states (B, T, E), and the keys and values of all words so far.

        ``past``: keys and values of the words before; None: ``x`` holds all words, causally masked.
        """
        rate = self.dropout if self.training else 0.0
        query, key, value = self._split(self.qkv(self.norm_self(x)), 3)  # (B, H, T, E / H)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        mixed = F.scaled_dot_product_attention(
            query, key, value, dropout_p=rate, is_causal=past is None
        )  # (B, H, T, E / H)
        x = x + self.out_self(mixed.transpose(1, 2).flatten(2))  # (B, T, E)
        (query,) = self._split(self.query(self.norm_cross(x)), 1)  # (B, H, T, E / H)
        mixed = F.scaled_dot_product_attention(query, image[0], image[1], dropout_p=rate)
        x = x + self.out_cross(mixed.transpose(1, 2).flatten(2))  # (B, T, E)
        return x + self.mlp(self.norm_mlp(x)), (key, value)  # (B, T, E)


class CaptionDecoder(nn.Module):
    """Image tokens (B, N, I) → words, one at a time.

    Parameters
    ----------
    image_width : width I of the image tokens
    vocabulary : number of tokens V, of which 0 to 3 are padding, unknown, begin and end
    width, heads, layers : of the transformer
    length : words at most, the end included
    dropout : in attention and MLP

    The output weights are those of the embedding (Press and Wolf, "Using the Output Embedding to
    Improve Language Models", EACL 2017).
    """

    def __init__(  # noqa: PLR0913 -- the keys of a card
        self,
        *,
        image_width: int,
        vocabulary: int,
        width: int = 256,
        heads: int = 4,
        layers: int = 2,
        length: int = 32,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.length = length
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length + 1, width)
        self.memory = nn.Sequential(nn.Linear(image_width, width), nn.LayerNorm(width))
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.words.weight, std=width**-0.5)

    def forward(self, image_tokens: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) of the next word after each of ``token_ids`` (B, T)."""
        memory = self.memory(image_tokens)  # (B, N, I) → (B, N, E)
        x = self.words(token_ids) + self.places.weight[: token_ids.shape[1]]  # (B, T, E)
        for block in self._layers():
            x, _ = block(x, block.image_key_value(memory), None)  # (B, T, E)
        return self._logits(x)

    def _layers(self) -> list[_Block]:
        return cast("list[_Block]", list(self.blocks))

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        """States (…, E) → logits (…, V)."""
        logits: torch.Tensor = self.norm(x) @ self.words.weight.T
        return logits

    @torch.inference_mode()
    def greedy(self, image_tokens: torch.Tensor) -> torch.Tensor:
        """Greedy decoding: token ids (B, at most ``length``), padding after the end."""
        image, past = self._begin(self.memory(image_tokens))
        word = torch.full(
            (len(image_tokens), 1), BEGIN, dtype=torch.long, device=image_tokens.device
        )
        ended = torch.zeros_like(word, dtype=torch.bool)  # (B, 1)
        written = []
        for place in range(self.length):
            logits, past = self._next(word, place, image, past)  # (B, V)
            word = logits.argmax(-1, keepdim=True).masked_fill(ended, PAD)  # (B, 1)
            ended = ended | (word == END)
            written.append(word)
            if bool(ended.all()):
                break
        return torch.cat(written, 1)

    @torch.inference_mode()
    def beam(self, image_tokens: torch.Tensor, *, width: int) -> torch.Tensor:
        """Beam search: token ids (B, at most ``length``), padding after the end.

        ``width`` hypotheses of each image are kept at a time, those of the highest
        log P(words | image) / n, n being the number of words so far, the end among them: without
        the division short sentences would win (Wu et al., "Google's Neural Machine Translation
        System", 2016, section 7, in its simplest form). An ended hypothesis keeps its place until
        ``width`` others are better. Width 1 is ``greedy``. Raises ``ValueError`` for a width under
        1.
        """
        if width < 1:
            raise ValueError(f"a beam of width {width}: at least one sentence has to be followed")
        count, device = len(image_tokens), image_tokens.device
        # The W hypotheses of an image are rows one after another.
        image, past = self._begin(self.memory(image_tokens).repeat_interleave(width, 0))
        first = width * torch.arange(count, device=device)[:, None]  # (B, 1), row of the first
        words = torch.full((count, width, 1), BEGIN, dtype=torch.long, device=device)
        likelihood = torch.full((count, width), -torch.inf, device=device)
        likelihood[:, 0] = 0.0  # there is one empty sentence an image, not W
        length = torch.zeros_like(likelihood)  # (B, W)
        ended = torch.zeros_like(likelihood, dtype=torch.bool)  # (B, W)
        for place in range(self.length):
            logits, past = self._next(words[:, :, -1].reshape(-1, 1), place, image, past)
            gain = logits.log_softmax(-1).view(count, width, -1)  # (B, W, V)
            gain[ended] = -torch.inf
            gain[..., PAD].masked_fill_(ended, 0.0)  # a finished sentence stays as it is
            length = length + ~ended
            total = likelihood[..., None] + gain  # (B, W, V)
            scores = (total / length[..., None]).flatten(1)  # (B, W · V)
            chosen = scores.topk(width).indices  # (B, W), the best first
            parent, word = chosen // total.shape[-1], chosen % total.shape[-1]  # (B, W)
            likelihood = total.flatten(1).gather(1, chosen)
            length = length.gather(1, parent)
            ended = ended.gather(1, parent) | (word == END)
            words = torch.cat(
                [words.gather(1, parent[..., None].expand_as(words)), word[..., None]], 2
            )  # (B, W, place + 2)
            rows = (first + parent).flatten()  # (B · W,)
            past = [(key[rows], value[rows]) for key, value in past]
            if bool(ended.all()):
                break
        return words[:, 0, 1:]

    def _begin(self, memory: torch.Tensor) -> tuple[list[_KeyValue], list[_KeyValue]]:
        """Of each layer: keys and values of the image, and those of no words yet."""
        image = [block.image_key_value(memory) for block in self._layers()]
        return image, [(key[:, :, :0], value[:, :, :0]) for key, value in image]

    def _next(
        self, word: torch.Tensor, place: int, image: list[_KeyValue], past: list[_KeyValue]
    ) -> tuple[torch.Tensor, list[_KeyValue]]:
        """Logits (B, V) of the word after ``word`` (B, 1), which stands at ``place``.

        And the keys and values of all words then, layer by layer.
        """
        x = self.words(word) + self.places.weight[place]  # (B, 1, E)
        cache = []
        for block, of_image, before in zip(self._layers(), image, past, strict=True):
            x, pair = block(x, of_image, before)  # (B, 1, E)
            cache.append(pair)
        logits = self._logits(x[:, -1]).float()  # (B, V)
        logits[..., [PAD, UNKNOWN, BEGIN]] = -torch.inf
        return logits, cache
