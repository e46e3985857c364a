"""Captions as token ids that fit.

What is too long loses words of its middle, not its conclusion.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ENDS = (".", "!", "?", "。")


def caption_ids(
    tokenizer: Tokenizer,
    text: str,
    *,
    room: int,
    special_tokens: bool = False,
    keep_conclusion: bool = True,
) -> list[int]:
    """Token ids of a caption, ``room`` at most; none for an empty text.

    ``special_tokens``: between the tokenizer's marks of begin and end, as an encoder such as CLIP's
    was trained. ``keep_conclusion``: a text that is too long loses whole words, the ones before its
    last sentence first, since large models end with what they conclude ("Overall, this scene can be
    classified as …"), and then that sentence's first. Without it the text is cut at its end, as the
    published code does; the mark of the end stays.
    """
    words = text.split()
    if not words:
        return []

    def encode(chosen: str) -> list[int]:
        ids: list[int] = tokenizer.encode(chosen, add_special_tokens=special_tokens).ids
        return ids

    def without(dropped: int) -> str:
        return " ".join(words[: max(0, sentence - dropped)] + words[max(sentence, dropped) :])

    ids = encode(text)
    if len(ids) > room and keep_conclusion:
        sentence = max(
            (place + 1 for place, word in enumerate(words[:-1]) if word.endswith(_ENDS)), default=0
        )
        enough = bisect_left(
            range(len(words) - 1), -room, key=lambda dropped: -len(encode(without(dropped)))
        )
        ids = encode(without(enough))
    last = ids[-1:] if special_tokens else []
    return ids if len(ids) <= room else ids[: room - len(last)] + last
