"""Stage 3: the vocabulary and the embedded captioner, trained on sentences that people wrote."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from rssc_geo.captioning import CaptionBatch, CompactCaptioner
from rssc_geo.models import BEGIN, END, PAD, SPECIAL_TOKENS, CaptionDecoder
from rssc_geo.training.schedule import one_cycle
from rssc_geo.training.stages.encoder import mixed_precision
from rssc_geo.training.stages.features import Features

log = logging.getLogger(__name__)

_BATCH = 256


def build_vocabulary(sentences: Iterable[str], *, minimum_count: int = 2) -> Tokenizer:
    """A lower-case word vocabulary of all words seen ``minimum_count`` times, the most frequent first."""
    splitter = Whitespace()
    counts = Counter(
        word for text in sentences for word, _ in splitter.pre_tokenize_str(text.lower())
    )
    ranked = sorted(
        (word for word, count in counts.items() if count >= minimum_count),
        key=lambda w: (-counts[w], w),
    )
    vocabulary = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *ranked))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = splitter
    return tokenizer


@dataclass(frozen=True, slots=True)
class CaptionerRecipe:
    """How the captioner is built and trained; ``length`` in words."""

    width: int = 256
    heads: int = 4
    layers: int = 2
    length: int = 28
    epochs: int = 14
    batch_size: int = 64
    learning_rate: float = 1e-3


def train_captioner(
    features: Features,
    captions: Sequence[Sequence[str]],
    vocabulary: Tokenizer,
    rows: np.ndarray,
    recipe: CaptionerRecipe,
    *,
    seed: int = 0,
    device: torch.device,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> CaptionDecoder:
    """Teach a decoder to write the captions of those of the pictures ``rows`` that have some.

    A view and a sentence are drawn at random each time. AdamW with cosine decay, label smoothing
    0.1; an epoch sees every picture once.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    decoder = CaptionDecoder(**decoder_settings(recipe, features, vocabulary)).to(device).train()
    rows = np.array([row for row in rows.tolist() if captions[row]])
    steps = math.ceil(len(rows) / recipe.batch_size)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=recipe.learning_rate, weight_decay=0.02)
    schedule = one_cycle(optimizer, recipe.learning_rate, steps=recipe.epochs * steps)
    for epoch in range(recipe.epochs):
        started, losses = time.monotonic(), []
        for part in np.array_split(generator.permutation(rows), steps):
            chosen = [
                captions[row][int(generator.integers(len(captions[row])))] for row in part.tolist()
            ]
            words = _padded(chosen, vocabulary, decoder.length).to(device)
            view = generator.integers(len(features.tokens), size=len(part))
            image = torch.from_numpy(features.tokens[view, part]).float().to(device)
            with mixed_precision(device):
                logits = decoder(image, words[:, :-1])
            loss = F.cross_entropy(
                logits.float().flatten(0, 1),
                words[:, 1:].flatten(),
                ignore_index=PAD,
                label_smoothing=0.1,
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        log.info(
            "captioner: epoch %d/%d, %d pictures, loss %.3f (%.0f s)",
            epoch + 1, recipe.epochs, len(rows), np.mean(losses), time.monotonic() - started,
        )  # fmt: skip
        if report is not None:
            report(epoch + 1, {"loss": float(np.mean(losses))})
    return decoder.eval()


def decoder_settings(
    recipe: CaptionerRecipe, features: Features, vocabulary: Tokenizer
) -> dict[str, int]:
    """The arguments of ``CaptionDecoder``."""
    return {
        "image_width": features.tokens.shape[-1], "vocabulary": vocabulary.get_vocab_size(),
        "width": recipe.width, "heads": recipe.heads, "layers": recipe.layers, "length": recipe.length,
    }  # fmt: skip


def write_captions(
    decoder: CaptionDecoder, vocabulary: Tokenizer, tokens: np.ndarray, *, device: torch.device
) -> list[str]:
    """Captions of image tokens float16 ``(B, N, I)``."""
    captioner = CompactCaptioner(decoder, vocabulary)
    pixels, mask = np.empty((0,), np.uint8), np.empty((0,), np.bool_)  # the decoder reads tokens
    written: list[str] = []
    for start in range(0, len(tokens), _BATCH):
        image = torch.from_numpy(np.asarray(tokens[start : start + _BATCH])).float().to(device)
        written += captioner.caption(CaptionBatch(pixels, mask, image))
    return written


def _padded(sentences: Sequence[str], tokenizer: Tokenizer, length: int) -> torch.Tensor:
    """``[BEGIN, words…, END, PAD…]`` as int64 ``(B, T)``, at most ``length`` words before the end."""
    rows = [[BEGIN, *tokenizer.encode(text).ids[: length - 1], END] for text in sentences]
    width = max(len(row) for row in rows)
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
