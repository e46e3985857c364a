"""Caption figures: cases worked by hand, and the figures of coco-caption itself."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssc_geo.evaluation import caption_scores, tokenize

WORDS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=9).map(" ".join)
CORPUS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Many planes, parked .", ["many", "planes", "parked"]),
        ("1,000 cars (2 lots)", ["1,000", "cars", "2", "lots"]),
        ("a high-rise - it's gray", ["a", "high-rise", "it", "'s", "gray"]),
        ("'quoted' . . .", ["quoted"]),
        (" ;!", []),
    ],
)
def test_words_are_kept_and_punctuation_dropped(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


def test_as_coco_caption_has_it() -> None:
    """Printed by pycocoevalcap 1.2: its ``Bleu(4)``, ``Rouge()`` and ``Cider()``.

    With its own PTBTokenizer under Java 17.

    "CIDEr" is the same ``CiderScorer`` with the clipping and the length penalty taken out of
    ``sim``, which leaves the ``cider`` variant of github.com/vrama91/cider.
    """
    written = [
        "Many planes are parked near a large building .",
        "a river runs past the green green trees",
        "two tennis courts next to a high-rise road",
    ]
    references = [
        [
            "many planes are parked next to a long building in an airport .",
            "some planes are near the building",
        ],
        ["a green river is near many green trees ."],
        [
            "Two tennis courts are next to a road, with 1,000 cars!",
            "tennis courts by the road's side",
            "a high-rise beside two courts",
        ],
    ]
    assert caption_scores(written, references) == pytest.approx(
        {
            "BLEU-1": 0.8333333333,
            "BLEU-2": 0.5976143046,
            "BLEU-3": 0.4297439964,
            "BLEU-4": 0.2697022372,
            "ROUGE-L": 0.6383054118,
            "CIDEr-D": 2.2218633146,
            "CIDEr": 2.4221109651,
        },
        abs=1e-8,
    )


def test_bleu_clips_repeated_words() -> None:
    """The example of Papineni et al., 2002, section 2.1."""
    scores = caption_scores(
        ["the the the the the the the"], [["the cat is on the mat", "there is a cat on the mat"]]
    )
    assert scores["BLEU-1"] == pytest.approx(2 / 7)
    assert scores["BLEU-2"] == 0


def test_bleu_penalises_brevity_and_takes_the_closest_length() -> None:
    scores = caption_scores(["a river"], [["a river runs east", "a river runs east of the town"]])
    assert scores["BLEU-1"] == scores["BLEU-2"] == pytest.approx(math.exp(1 - 4 / 2))
    assert scores["BLEU-3"] == 0
    assert (
        caption_scores(["a b c"], [["a b c d", "a b"]])["BLEU-1"] == 1
    )  # of 4 and 2, as close, the shorter counts


def test_rouge_joins_the_best_precision_with_the_best_recall() -> None:
    assert caption_scores(["police kill the gunman"], [["police killed the gunman"]])[
        "ROUGE-L"
    ] == pytest.approx(3 / 4)
    precision, recall = 3 / 4, 1.0  # from the second and the first reference
    scores = caption_scores(["a b c d"], [["a b", "a b c x y z"]])
    assert scores["ROUGE-L"] == pytest.approx(
        (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    )


def test_cider_by_hand() -> None:
    scores = caption_scores(["a b c d a b c d", ""], [["a b c d"], ["x"]])
    cosines = 1 + 6 / math.sqrt(13 * 3) + 4 / math.sqrt(10 * 2) + 2 / math.sqrt(7)
    assert scores["CIDEr"] == pytest.approx(10 * cosines / 4 / 2)
    assert scores["CIDEr-D"] == pytest.approx(
        10 * cosines / 2 * math.exp(-(4**2) / (2 * 6**2)) / 4 / 2
    )


def test_cider_ignores_what_every_image_has() -> None:
    scores = caption_scores(["a", "a"], [["a river"], ["a town"]])
    assert scores["CIDEr"] == scores["CIDEr-D"] == 0
    assert scores["BLEU-1"] > 0


def test_a_caption_as_people_wrote_it_is_best() -> None:
    texts = ["many planes are parked", "a wide river bends here"]
    best = {f"BLEU-{n}": 1 for n in (1, 2, 3, 4)} | {"ROUGE-L": 1, "CIDEr-D": 10, "CIDEr": 10}
    assert caption_scores(texts, [[text.upper() + " !"] for text in texts]) == pytest.approx(best)


def test_empty_captions_score_nothing() -> None:
    assert set(caption_scores(["", "."], [["a river"], ["a town"]]).values()) == {0}


@given(CORPUS)
def test_scores_lie_in_their_ranges_and_ignore_the_order(
    corpus: list[tuple[str, list[str]]],
) -> None:
    written, references = zip(*corpus, strict=True)
    scores = caption_scores(written, references)
    assert all(
        0 <= value <= (10 if "CIDEr" in name else 1) + 1e-9 for name, value in scores.items()
    )
    assert scores["CIDEr-D"] <= scores["CIDEr"] + 1e-9
    turned = caption_scores(written[::-1], [texts[::-1] for texts in references[::-1]])
    assert turned == pytest.approx(scores)


def test_wordless_references_are_left_out() -> None:
    assert caption_scores(["a river", "x"], [["a river", " . "], ["y"]]) == caption_scores(
        ["a river", "x"], [["a river"], ["y"]]
    )


@pytest.mark.parametrize(
    ("written", "references", "message"),
    [
        (
            ["a", "b", "c"],
            [["a"], [], [" . "]],
            "2 of 3 images have no references, the first is number 1",
        ),
        (["a"], [["a"], ["b"]], "1 captions for 2 images"),
        ([], [], "0 captions for 0 images"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    written: list[str], references: list[list[str]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        caption_scores(written, references)
