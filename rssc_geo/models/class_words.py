"""Classes named by words, as the user gave them; no network is needed here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from rssc_geo.errors import UsageError
from rssc_geo.models.card import SceneClass
from rssc_geo.models.palette import scene_classes

OTHER = "other"


def phrases_of(words: str | Iterable[str]) -> tuple[str, ...]:
    """The words of a class; a phrase alone is one, not the list of its letters."""
    return (words,) if isinstance(words, str) else tuple(words)


@dataclass(frozen=True, slots=True)
class ClassWords:
    """Named classes, each with the words that stand for it; made by ``of``.

    ``other``: whether there is a last class for everything else; ``vectors``: float32 (C, X) as
    bytes, which replace the embeddings of the words (see ``refine_texts``); empty: none do.
    """

    words: tuple[tuple[str, tuple[str, ...]], ...]
    other: bool
    vectors: bytes = b""

    @classmethod
    def of(cls, classes: Sequence[str] | Mapping[str, str | Sequence[str]], *, other: bool) -> Self:
        """Classes by their names alone, or by the words and sentences of each.

        ``other`` adds no class where one of that name is there already. Raises ``UsageError`` for
        fewer than two classes (one will do with ``other``), or names twice, also with other case.
        """
        words = tuple(
            (name, phrases_of(classes[name]) if isinstance(classes, Mapping) else (name,))
            for name in classes
        )
        names = [name for name, _ in words]
        other = other and OTHER not in names
        folded = [name.casefold() for name in names]
        if twice := [name for name in names if folded.count(name.casefold()) > 1]:
            raise UsageError(f"the class {twice[0]!r} is named twice: name each class once")
        if len(names) + other < 2 or not names:
            raise UsageError(
                "at least two different classes are needed, got"
                f" {', '.join(map(repr, classes)) or 'none'}"
            )
        return cls(words, other)

    @property
    def classes(self) -> tuple[SceneClass, ...]:
        """The classes with ids and colors, "other" last; ``UsageError`` for an unusable name."""
        described = [
            dataclasses.replace(known, description="words: " + ", ".join(phrases))
            for known, (_, phrases) in zip(
                scene_classes([name for name, _ in self.words]), self.words, strict=True
            )
        ]
        if self.other:
            last = SceneClass(len(described), OTHER, "#bdbdbd", "none of the named classes")
            described.append(last)
        return tuple(described)
