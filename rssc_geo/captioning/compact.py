"""The embedded captioner: a small transformer decoder that reads the classifier's own image tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

from rssc_geo.captioning.base import CaptionBatch, Source

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")


class _Block(nn.Module):
    """Pre-norm decoder block. ``past`` holds the keys and values of the words so far, ``seen`` the image's."""

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
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width))

    def _split(self, x: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """(B, T, parts·E) → ``parts`` tensors (B, heads, T, E / heads)."""
        pieces = x.chunk(parts, dim=-1)
        return tuple(piece.reshape(*piece.shape[:2], self.heads, -1).transpose(1, 2) for piece in pieces)

    def see(self, memory: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Keys and values of the image, once a picture."""
        return self._split(self.key_value(memory), 2)

    def forward(
        self, x: torch.Tensor, seen: tuple[torch.Tensor, ...], past: tuple[torch.Tensor, ...] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        rate = self.dropout if self.training else 0.0
        query, key, value = self._split(self.qkv(self.norm_self(x)), 3)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=past is None)
        x = x + self.out_self(mixed.transpose(1, 2).flatten(2))  # (B, T, E)
        (query,) = self._split(self.query(self.norm_cross(x)), 1)
        mixed = F.scaled_dot_product_attention(query, seen[0], seen[1], dropout_p=rate)
        x = x + self.out_cross(mixed.transpose(1, 2).flatten(2))  # (B, T, E)
        return x + self.mlp(self.norm_mlp(x)), (key, value)


class CaptionDecoder(nn.Module):
    """Image tokens ``(B, N, image_width)`` → words, one at a time.

    ``vocabulary`` tokens, of which 0–3 are padding, unknown, begin and end; ``length``: words at most.
    Output weights are the embedding's (Press and Wolf, 2017).
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
        memory = self.memory(image_tokens)
        levels = self._levels()
        seen = [block.see(memory) for block in levels]
        past: list[tuple[torch.Tensor, ...] | None] = [None] * len(levels)
        word = torch.full((len(memory), 1), BEGIN, dtype=torch.long, device=memory.device)
        ended = torch.zeros_like(word, dtype=torch.bool)
        written = []
        for place in range(self.length):
            x = self.words(word) + self.places.weight[place]
            for level, block in enumerate(levels):
                x, past[level] = block(x, seen[level], past[level])
            logits = self._logits(x[:, -1:]).float()
            logits[..., [PAD, UNKNOWN, BEGIN]] = -torch.inf
            word = logits.argmax(-1).masked_fill(ended, PAD)
            ended = ended | (word == END)
            written.append(word)
            if bool(ended.all()):
                break
        return torch.cat(written, 1)


class CompactCaptioner:
    """``--captioner compact``: the bundle's own decoder and vocabulary."""

    name = "compact"
    source: Source = "generated"

    def __init__(self, decoder: CaptionDecoder, vocabulary: Tokenizer) -> None:
        self._decoder = decoder
        self._vocabulary = vocabulary

    def caption(self, batch: CaptionBatch) -> list[str]:
        """One sentence a tile, at most ``decoder.length`` words."""
        return [tidy(self._words(row)) for row in self._decoder.greedy(batch.image_tokens).tolist()]

    def _words(self, row: list[int]) -> list[str]:
        return [str(self._vocabulary.id_to_token(index)) for index in row if index not in {PAD, END}]


def tidy(words: list[str]) -> str:
    """Words of the vocabulary as a sentence: capital, no space before punctuation, full stop.

    >>> tidy(["many", "planes", ",", "parked", "."])
    'Many planes, parked.'
    """
    text = ""
    for word in words:
        text += word if not text or word in {".", ",", "'", "-", ";", "!"} or text[-1] in "'-" else f" {word}"
    text = text.strip().rstrip(".").rstrip()
    return f"{text[0].upper()}{text[1:]}." if text else ""
