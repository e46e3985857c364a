"""Captions become ids that fit, and what they conclude stays."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from rssc_geo.models import caption_ids

WORDS = ["<s>", "</s>", "?", *"abcdefgh", "overall", "a_port", "."]
LONG = "a b c. d e f. Overall a_port."


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    built = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="?"))
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(".", "isolated")]
    )
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return built


def _read(tokenizer: Tokenizer, text: str, room: int, **options: bool) -> str:
    ids = caption_ids(tokenizer, text.lower(), room=room, **options)
    assert len(ids) <= room
    return " ".join(WORDS[k] for k in ids)


@pytest.mark.parametrize(
    ("room", "kept"),
    [
        (11, "a b c . d e f . overall a_port ."),
        (10, "a b c . d e overall a_port ."),
        (8, "a b c . d overall a_port ."),
        (5, "a b overall a_port ."),
        (3, "overall a_port ."),
        (2, "a_port ."),
        (1, "a_port"),
    ],
)
def test_the_conclusion_of_a_long_text_stays(tokenizer: Tokenizer, room: int, kept: str) -> None:
    assert _read(tokenizer, LONG, room) == kept


def test_marks_of_begin_and_end_stay(tokenizer: Tokenizer) -> None:
    assert _read(tokenizer, LONG, 7, special_tokens=True) == "<s> a b overall a_port . </s>"
    assert _read(tokenizer, LONG, 5, special_tokens=True, keep_conclusion=False) == "<s> a b c </s>"
    assert _read(tokenizer, "a", 5, special_tokens=True) == "<s> a </s>"
    assert caption_ids(tokenizer, "  ", room=5, special_tokens=True) == []


def test_one_long_sentence_keeps_its_end(tokenizer: Tokenizer) -> None:
    assert _read(tokenizer, "a b c d e f", 3) == "d e f"
