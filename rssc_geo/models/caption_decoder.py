"""The caption decoder of a bundle: a small transformer that reads the classifier's image tokens."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")
CaptionSource = Literal["generated", "written"]
"""Whose words: of the bundle's own captioner, or of people and large models."""
_Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, each ``(B, heads, T, E / heads)``."""


class _Block(nn.Module):
    """Pre-norm decoder block.

    ``past`` holds the keys and values of the words so far, ``seen`` the image's.
    """

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
        """(B, T, parts·E) → ``parts`` tensors (B, heads, T, E / heads)."""
        pieces = x.chunk(parts, dim=-1)
        return tuple(
            piece.reshape(*piece.shape[:2], self.heads, -1).transpose(1, 2) for piece in pieces
        )

    def see(self, memory: torch.Tensor) -> _Pair:
        """Keys and values of the image, once a picture."""
        key, value = self._split(self.key_value(memory), 2)
        return key, value

    def forward(
        self, x: torch.Tensor, seen: _Pair, past: _Pair | None
    ) -> tuple[torch.Tensor, _Pair]:
        rate = self.dropout if self.training else 0.0
        query, key, value = self._split(self.qkv(self.norm_self(x)), 3)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        mixed = F.scaled_dot_product_attention(
            query, key, value, dropout_p=rate, is_causal=past is None
        )
        x = x + self.out_self(mixed.transpose(1, 2).flatten(2))  # (B, T, E)
        (query,) = self._split(self.query(self.norm_cross(x)), 1)
        mixed = F.scaled_dot_product_attention(query, seen[0], seen[1], dropout_p=rate)
        x = x + self.out_cross(mixed.transpose(1, 2).flatten(2))  # (B, T, E)
        return x + self.mlp(self.norm_mlp(x)), (key, value)


class CaptionDecoder(nn.Module):
    """Image tokens ``(B, N, image_width)`` → words, one at a time.

    ``vocabulary`` tokens, of which 0–3 are padding, unknown, begin and end; ``length``: words at
    most. Output weights are the embedding's (Press and Wolf, 2017).
    """

    def __init__(
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
        """Logits of the next word ``(B, T, vocabulary)`` after each of ``token_ids`` ``(B, T)``."""
        memory = self.memory(image_tokens)
        x = self.words(token_ids) + self.places.weight[: token_ids.shape[1]]
        for block in self._levels():
            x, _ = block(x, block.see(memory), None)
        return self._logits(x)

    def _levels(self) -> list[_Block]:
        return [block for block in self.blocks if isinstance(block, _Block)]

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.norm(x) @ self.words.weight.T
        return logits

    @torch.inference_mode()
    def greedy(self, image_tokens: torch.Tensor) -> torch.Tensor:
        """The likeliest word each time: ids ``(B, at most length)``, padding after the end."""
        seen, past = self._look(self.memory(image_tokens))
        word = torch.full(
            (len(image_tokens), 1), BEGIN, dtype=torch.long, device=image_tokens.device
        )
        ended = torch.zeros_like(word, dtype=torch.bool)
        written = []
        for place in range(self.length):
            logits, past = self._next(word, place, seen, past)
            word = logits.argmax(-1, keepdim=True).masked_fill(ended, PAD)
            ended = ended | (word == END)
            written.append(word)
            if bool(ended.all()):
                break
        return torch.cat(written, 1)

    @torch.inference_mode()
    def beam(self, image_tokens: torch.Tensor, *, width: int) -> torch.Tensor:
        """The likeliest sentence that a beam search meets: ids ``(B, at most length)``, padding
        after the end.

        ``width`` sentences of each picture are followed at a time, those of the highest log P(words
        | picture) / n, n being their words so far, the end among them: without the division short
        sentences would win (Wu et al., 2016, "Google's Neural Machine Translation System", section
        7, in its simplest form). An ended sentence keeps its place until ``width`` others are
        better. Width 1 is :meth:`greedy`. Raises ``ValueError`` for a width under 1.
        """
        if width < 1:
            raise ValueError(f"a beam of width {width}: at least one sentence has to be followed")
        count, device = len(image_tokens), image_tokens.device
        seen, past = self._look(
            self.memory(image_tokens).repeat_interleave(width, 0)
        )  # W sentences a picture, in a row
        first = (
            width * torch.arange(count, device=device)[:, None]
        )  # (B, 1), the row of each picture's first sentence
        words = torch.full((count, width, 1), BEGIN, dtype=torch.long, device=device)
        likelihood = torch.full((count, width), -torch.inf, device=device)
        likelihood[:, 0] = 0.0  # there is one empty sentence a picture, not W
        length = torch.zeros_like(likelihood)
        ended = torch.zeros_like(likelihood, dtype=torch.bool)
        for place in range(self.length):
            logits, past = self._next(words[:, :, -1].reshape(-1, 1), place, seen, past)
            gain = logits.log_softmax(-1).view(count, width, -1)  # (B, W, V)
            gain[ended] = -torch.inf
            gain[..., PAD].masked_fill_(ended, 0.0)  # an ended sentence goes on as itself
            length = length + ~ended
            total = likelihood[..., None] + gain
            chosen = (
                (total / length[..., None]).flatten(1).topk(width).indices
            )  # (B, W), the best first
            parent, word = chosen // total.shape[-1], chosen % total.shape[-1]
            likelihood = total.flatten(1).gather(1, chosen)
            length = length.gather(1, parent)
            ended = ended.gather(1, parent) | (word == END)
            words = torch.cat(
                [words.gather(1, parent[..., None].expand_as(words)), word[..., None]], 2
            )
            rows = (first + parent).flatten()
            past = [(key[rows], value[rows]) for key, value in past]
            if bool(ended.all()):
                break
        return words[:, 0, 1:]

    def _look(self, memory: torch.Tensor) -> tuple[list[_Pair], list[_Pair]]:
        """Of each level: keys and values of the image, and those of no words yet."""
        seen = [block.see(memory) for block in self._levels()]
        return seen, [(key[:, :, :0], value[:, :, :0]) for key, value in seen]

    def _next(
        self, word: torch.Tensor, place: int, seen: list[_Pair], past: list[_Pair]
    ) -> tuple[torch.Tensor, list[_Pair]]:
        """Logits ``(B, vocabulary)`` of the word after ``word`` ``(B, 1)``, which stands at ``place``; what is past then."""
        x = self.words(word) + self.places.weight[place]
        known = []
        for block, image, before in zip(self._levels(), seen, past, strict=True):
            x, pair = block(x, image, before)
            known.append(pair)
        logits = self._logits(x[:, -1]).float()
        logits[..., [PAD, UNKNOWN, BEGIN]] = -torch.inf
        return logits, known
