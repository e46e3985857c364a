"""Prompts for large vision-language models, and captions from their answers.

No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rssc_geo.errors import UsageError
from rssc_geo.models import in_words

_DESCRIBE = (
    "This is an aerial or satellite image seen from above. Describe in one or two sentences which"
    " land cover is present. "
)
_PRESETS = {
    "published": (
        _DESCRIBE
        + 'Then end with one sentence that begins "Overall, this scene can be classified as".'
    ),
    "closed": (
        _DESCRIBE
        + 'Then end with the sentence "Overall, this scene can be classified as X.", where X is'
        " exactly one of these classes: {classes}."
    ),
    "free": (
        "This is an aerial or satellite image seen from above. Describe what it shows in one or two"
        " sentences."
    ),
}
PRESETS = tuple(_PRESETS)
"""Names for ``--prompt``.

``published`` asks for a class in the model's own words at the end, as the paper's captions have it
(arXiv 2412.02531), ``closed`` for one of the classifier's classes, ``free`` only for a description.
"""

# Marks that reasoning models put around text that is not their answer; a slash tells an end.
_THOUGHT_MARK = re.compile(
    r"<(/?)(?:think|thinking|thought|reasoning)>|\[(/?)think\]|◁(/?)think▷", re.IGNORECASE
)

# The end of a sentence: a stop that is not a list's "1.", at the end or before a blank and no small
# letter.
_SENTENCE_END = re.compile(r"(?<!\b\d)[.!?][\"'”’)\]]*(?=$|\s+[^\sa-z])")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The question to a model, the same for every tile.

    ``name``: a preset's, or "own".
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("the prompt is empty")


def make_prompt(choice: str, class_names: Sequence[str] = ()) -> Prompt:
    """The preset called ``choice``, or ``choice`` itself as the text.

    ``class_names``: those of the model card, for ``closed``; "DenseResidential" is asked for as two
    words. Raises ``UsageError`` for a single word that is no preset, and for ``closed`` without
    classes.

    Examples
    --------
    >>> make_prompt("closed", ["BareLand", "Pond"]).text.endswith(
    ...     "exactly one of these classes: Bare Land; Pond."
    ... )
    True
    """
    if choice not in _PRESETS:
        if len(choice.split()) < 2:
            raise UsageError(
                f"--prompt {choice!r} is unknown; use one of {', '.join(PRESETS)}, or write out"
                " the question"
            )
        return Prompt("own", choice.strip())
    if choice == "closed" and not class_names:
        raise UsageError("the prompt 'closed' lists the classes of a model, and none were given")
    return Prompt(
        choice, _PRESETS[choice].replace("{classes}", "; ".join(map(in_words, class_names)))
    )


def tidy_answer(answer: str, *, cut: bool = False) -> str:
    r"""A model's answer as one line of text; one without a letter or digit as the empty caption.

    Text between the ``<think>`` marks of a reasoning model is left out.

    ``cut``: the model was stopped by the limit on its tokens. An unfinished last sentence is then
    dropped, if a finished one stands before it.

    Examples
    --------
    >>> tidy_answer(" Rows of houses\nand trees. Overall, this sc", cut=True)
    'Rows of houses and trees.'
    """
    said = _without_thoughts(answer)
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in said).split())
    if cut:
        ends = [match.end() for match in _SENTENCE_END.finditer(text)]
        text = text[: ends[-1]] if ends else text
    return text if any(sign.isalnum() for sign in text) else ""


def _without_thoughts(answer: str) -> str:
    """The answer outside the marks; the first mark may stand in the prompt, the last be cut off.

    In one pass: a server may answer with marks alone.
    """
    said: list[str] = []
    thinking, at = False, 0
    for mark in _THOUGHT_MARK.finditer(answer):
        if any(mark.groups()):
            if thinking:
                said.append(" ")
            else:
                said.clear()
            thinking, at = False, mark.end()
        elif not thinking:
            said.append(answer[at : mark.start()])
            thinking = True
    if not thinking:
        said.append(answer[at:])
    return "".join(said)
