"""The embedded captioner: cached decoding equals plain decoding, and a caption depends on its tile alone."""

from __future__ import annotations

import pytest
import torch

from rssc_geo.captioning.compact import BEGIN, END, PAD, UNKNOWN, CaptionDecoder, tidy


@pytest.fixture(scope="module")
def decoder() -> CaptionDecoder:
    torch.manual_seed(3)
    return CaptionDecoder(image_width=20, vocabulary=40, width=32, heads=4, layers=2, length=12).eval()


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


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["many", "planes", ",", "parked", "."], "Many planes, parked."),
        (["the", "bird", "'", "s", "nest"], "The bird's nest."),
        ([], ""),
        (["."], ""),
    ],
)
def test_tidy(words: list[str], text: str) -> None:
    assert tidy(words) == text
