"""Stage 2: the vocabulary and the embedded captioner, trained on sentences that people wrote."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from rssc_geo.captioning.compact import BEGIN, END, PAD, SPECIAL_TOKENS, CaptionDecoder

log = logging.getLogger(__name__)


def build_tokenizer(sentences: Iterable[str], *, minimum_count: int = 2) -> Tokenizer:
    """A lower-case word vocabulary of all words seen ``minimum_count`` times, the most frequent first."""
    splitter = Whitespace()
    counts = Counter(word for text in sentences for word, _ in splitter.pre_tokenize_str(text.lower()))
    ranked = sorted((word for word, count in counts.items() if count >= minimum_count), key=lambda w: (-counts[w], w))
    vocabulary = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *ranked))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = splitter
    return tokenizer


def train_captioner(
    tokens: np.ndarray,
    captions: Sequence[Sequence[str]],
    tokenizer: Tokenizer,
    rows: np.ndarray,
    *,
    settings: dict[str, int | float],
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> CaptionDecoder:
    """Teach a ``CaptionDecoder(**settings)`` to write the captions of the images ``rows``.

    ``tokens``: float16 ``(V, images, N, I)``, V augmented views of each image; a view and a sentence are drawn
    at random each time. AdamW with cosine decay, label smoothing 0.1; an epoch sees every image once.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    decoder = CaptionDecoder(**settings)  # type: ignore[arg-type]
    decoder.train()
    rows = np.array([row for row in rows if captions[row]])
    steps = math.ceil(len(rows) / batch_size)
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * steps, pct_start=0.1)
    started, losses = time.monotonic(), [0.0]
    for _ in range(epochs):
        losses = []
        for part in np.array_split(generator.permutation(rows), steps):
            chosen = [captions[row][int(generator.integers(len(captions[row])))] for row in part.tolist()]
            words = _padded(chosen, tokenizer, decoder.length)
            view = generator.integers(len(tokens), size=len(part))
            image = torch.from_numpy(tokens[view, part]).float()
            logits = decoder(image, words[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), words[:, 1:].flatten(), ignore_index=PAD, label_smoothing=0.1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
    log.info("captioner: %d images, last epoch's loss %.3f (%.0f s)", len(rows), np.mean(losses), time.monotonic() - started)
    return decoder.eval()


def _padded(sentences: Sequence[str], tokenizer: Tokenizer, length: int) -> torch.Tensor:
    """``[BEGIN, words…, END, PAD…]`` as int64 ``(B, T)``, at most ``length`` words before the end."""
    rows = [[BEGIN, *tokenizer.encode(text).ids[: length - 1], END] for text in sentences]
    width = max(len(row) for row in rows)
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
