"""The embedded captioner.

Cached decoding equals plain decoding, and a caption depends on its tile alone.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from rssc_geo.captioning import detokenize
from rssc_geo.models import BEGIN, END, PAD, UNKNOWN, CaptionDecoder


@pytest.fixture(scope="module")
def decoder() -> CaptionDecoder:
    torch.manual_seed(3)
    return CaptionDecoder(
        image_width=20, vocabulary=40, width=32, heads=4, layers=2, length=12
    ).eval()


@torch.inference_mode()
def test_cached_decoding_equals_decoding_from_the_start(decoder: CaptionDecoder) -> None:
    tokens = torch.randn(6, 9, 20)
    written = decoder.greedy(tokens)
    for row, image in zip(written, tokens, strict=True):
        words = [BEGIN]
        for word in row.tolist():
            logits = decoder(image[None], torch.tensor([words]))[0, -1]
            logits[[PAD, UNKNOWN, BEGIN]] = -torch.inf
            assert word == int(logits.argmax())
            words.append(word)
            if word == END:
                break


def test_a_caption_does_not_see_its_batch(decoder: CaptionDecoder) -> None:
    tokens = torch.randn(7, 9, 20)
    together = decoder.greedy(tokens)
    for index in range(7):
        alone = decoder.greedy(tokens[index : index + 1])[0]
        assert together[index, : len(alone)].tolist() == alone.tolist()
        assert not together[index, len(alone) :].any()


@torch.inference_mode()
def _score(decoder: CaptionDecoder, image: torch.Tensor, words: list[int]) -> float:
    """Log probability over words, computed from the start, word after word."""
    total = 0.0
    for place, word in enumerate(words):
        logits = decoder(image[None], torch.tensor([[BEGIN, *words[:place]]]))[0, -1]
        logits[[PAD, UNKNOWN, BEGIN]] = -torch.inf
        total += float(logits.log_softmax(0)[word])
    return total / len(words)


def _cut(row: torch.Tensor) -> list[int]:
    return [word for word in row.tolist() if word != PAD]


def test_a_beam_of_one_is_greedy(decoder: CaptionDecoder) -> None:
    tokens = torch.randn(16, 9, 20)
    assert torch.equal(decoder.beam(tokens, width=1), decoder.greedy(tokens))
    with pytest.raises(ValueError, match="width 0"):
        decoder.beam(tokens, width=0)


@pytest.mark.slow
def test_a_wide_beam_finds_the_likeliest_sentence_of_all() -> None:
    """The oracle: all sentences of up to three of five words (one is the end), scored singly."""
    everything = [
        list(words[:length])
        for length in (1, 2, 3)
        for words in itertools.product(range(END, 8), repeat=length)
        if END not in words[:-1] and (words[-1] == END or length == 3)
    ]
    found = []
    for seed in range(5):
        torch.manual_seed(seed)
        decoder = CaptionDecoder(
            image_width=6, vocabulary=8, width=16, heads=2, layers=2, length=3
        ).eval()
        torch.nn.init.normal_(
            decoder.words.weight, std=1.0
        )  # opinions strong enough that sentences differ
        tokens = torch.randn(4, 5, 6)
        for row, image in zip(decoder.beam(tokens, width=len(everything)), tokens, strict=True):
            best = max(everything, key=lambda words: _score(decoder, image, words))
            assert _cut(row) == best
            found.append(len(best))
    assert len(set(found)) > 1  # not all of one length: the division by the length decides too


def test_a_wider_beam_is_likelier_and_does_not_see_its_batch(decoder: CaptionDecoder) -> None:
    tokens = torch.randn(7, 9, 20)
    together = decoder.beam(tokens, width=4)
    assert {len(_cut(row)) for row in together} != {len(_cut(together[0]))}
    gains = []
    for index, image in enumerate(tokens):
        alone = decoder.beam(image[None], width=4)[0]
        assert _cut(together[index]) == _cut(alone)
        assert END not in _cut(alone)[:-1]
        gains.append(
            _score(decoder, image, _cut(alone))
            - _score(decoder, image, _cut(decoder.greedy(image[None])[0]))
        )
    assert min(gains) >= -1e-5
    assert max(gains) > 0.01


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["many", "planes", ",", "parked", "."], "Many planes, parked."),
        (["the", "bird", "'", "s", "nest"], "The bird's nest."),
        ([], ""),
        (["."], ""),
    ],
)
def test_detokenize(words: list[str], text: str) -> None:
    assert detokenize(words) == text
