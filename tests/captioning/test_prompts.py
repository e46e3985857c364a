"""Prompts, and captions from answers."""

from __future__ import annotations

import pytest

from rssc_geo.captioning import PRESETS, Prompt, make_prompt, tidy_answer
from rssc_geo.errors import UsageError


def test_presets() -> None:
    assert PRESETS == ("published", "closed", "free")
    published, closed, free = (
        make_prompt(name, ["DenseResidential", "River, wide"]) for name in PRESETS
    )
    assert [prompt.name for prompt in (published, closed, free)] == list(PRESETS)
    for prompt in (published, closed):
        assert "land cover" in prompt.text
        assert "Overall, this scene can be classified as" in prompt.text
    assert closed.text.endswith("classes: Dense Residential; River, wide.")
    assert "Residential" not in published.text + free.text
    assert "classified" not in free.text


def test_own_words() -> None:
    assert make_prompt(" Which {crops} grow here? ") == Prompt("own", "Which {crops} grow here?")
    assert "{odd}" in make_prompt("closed", ["a {odd} name"]).text


def test_what_cannot_be_asked() -> None:
    with pytest.raises(
        UsageError, match="'publishd' is unknown; use one of published, closed, free"
    ):
        make_prompt("publishd")
    with pytest.raises(UsageError, match="lists the classes of a model"):
        make_prompt("closed")
    with pytest.raises(ValueError, match="empty"):
        Prompt("own", " ")


@pytest.mark.parametrize(
    ("answer", "whole", "cut"),
    [
        ("A pond.", "A pond.", "A pond."),
        ("A pond. Overall, this sce", "A pond. Overall, this sce", "A pond."),
        ("Only half a sen", "Only half a sen", "Only half a sen"),
        ("About 3.5 m wide. The ri", "About 3.5 m wide. The ri", "About 3.5 m wide."),
        ("Seen are: 1. Fields 2. Roa", "Seen are: 1. Fields 2. Roa", "Seen are: 1. Fields 2. Roa"),
        ("Roofs, approx. square, a", "Roofs, approx. square, a", "Roofs, approx. square, a"),
        ('It says "Overall." And th', 'It says "Overall." And th', 'It says "Overall."'),
        ("\n A  pond\u2028and\ttrees.\x00 ", "A pond and trees.", "A pond and trees."),
        (" … ", "", ""),
    ],
)
def test_answers_become_captions(answer: str, whole: str, cut: str) -> None:
    assert tidy_answer(answer) == whole
    assert tidy_answer(answer, cut=True) == cut
