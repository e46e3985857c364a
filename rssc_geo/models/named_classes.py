"""A classifier whose classes are named by words: a picture's likeness to their texts."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from rssc_geo.errors import UsageError
from rssc_geo.models.alignment import Alignment
from rssc_geo.models.bundle import Model
from rssc_geo.models.card import SceneClass, in_words
from rssc_geo.models.palette import scene_classes

log = logging.getLogger(__name__)

OTHER = "other"
_ALIKE = 0.4
"""Own classes of the bundle whose words are this like a named class's (cosine) do not speak for "other"."""
_SAMPLE = 4096
_ROUNDS, _PULL, _SHARP = 10, 2.0, 50.0
_BATCH = 32


class NamedClasses(nn.Module):
    """Stands in for the classifying half of a network: a picture's logits are its likeness to the
    classes' texts.

    ``texts``: unit vectors ``(C, X)``; ``background``: those of what else there may be ``(K, X)``,
    which together are the last class; None: there is no such class.
    """

    def __init__(self, model: Model, texts: torch.Tensor, background: torch.Tensor | None) -> None:
        super().__init__()
        self.network = model.network
        self.alignment = model.alignment
        self.register_buffer("texts", texts)
        self.register_buffer("background", background)
        self.texts: torch.Tensor
        self.background: torch.Tensor | None

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Image tokens ``(B, N, I)``."""
        return self.network.encode_image(images)

    def classify(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits ``(B, C)``, or ``(B, C + 1)`` with "other"; captions are not read."""
        del token_ids, token_mask
        pooled = image_tokens.mean(1)  # (B, I)
        logits: torch.Tensor = self.alignment(pooled, self.texts)  # type: ignore[misc]
        if self.background is None:
            return logits
        rest = self.alignment(pooled, self.background).logsumexp(1, keepdim=True)  # type: ignore[misc]
        many = math.log(len(self.texts) / len(self.background))  # not to gain by being many
        return torch.cat([logits, rest + many + self.alignment.other], dim=1)  # type: ignore[union-attr]


def name_classes(
    model: Model, classes: Sequence[str] | Mapping[str, Sequence[str]], *, other: bool = True
) -> Model:
    """The same model with other classes, to be used as any model is: ``classify(…,
    model=name_classes(…))``.

    Parameters
    ----------
    classes : names ("solar park"; "SolarPark" is read as two words), or names with the words and
        sentences that stand for them, whose vectors are averaged: ``{"water": ["lake", "river",
        "sea"]}``
    other : also a last class "other" for what is more like one of the bundle's own classes; not
        added where a class of that name is there already

    Raises ``UsageError`` for fewer than two classes (one will do with ``other``), names twice,
    words that the text encoder does not know, or a model that was trained without captions.
    """
    words = (
        {name: list(classes[name]) for name in classes}
        if isinstance(classes, Mapping)
        else {name: [name] for name in classes}
    )
    other = other and OTHER not in words
    if len(words) + other < 2 or not words or len(words) != len(classes):
        raise UsageError(
            "at least two different classes are needed, got"
            f" {', '.join(map(repr, classes)) or 'none'}"
        )
    texts = class_vectors(model, words)
    background = None
    if other:
        own = class_vectors(model, {c.name: [c.name] for c in model.card.classes})
        background = own[(own @ texts.T).max(1).values < _ALIKE]
        if not len(background):
            raise UsageError(
                "the named classes are all that the model knows: nothing is left to tell 'other' by"
                " (--no-other)"
            )
    described = [
        SceneClass(known.id, known.name, known.color, "words: " + ", ".join(words[known.name]))
        for known in scene_classes(list(words))
    ]
    if other:
        described.append(SceneClass(len(described), OTHER, "#bdbdbd", "none of the named classes"))
    card = dataclasses.replace(
        model.card,
        name=f"{model.card.name} by words",
        classes=tuple(described),
        temperature=1.0,
        accuracy={},
    )
    return dataclasses.replace(model, card=card, network=NamedClasses(model, texts, background))  # type: ignore[arg-type]


def refine_texts(alignment: Alignment, texts: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """Vectors ``(C, X)`` of the classes, moved towards the pictures that are likest to them.

    ``pooled``: mean image tokens ``(N, I)`` of unlabeled pictures. Soft k-means that starts from
    the texts and never leaves them: each round assigns the pictures by text and mean together, then
    takes the means anew (in the manner of TransCLIP: Zanella et al., 2024, NeurIPS). Deterministic.
    """
    with torch.inference_mode():
        seen = alignment.embed(pooled) - alignment.center  # (N, X)
        unit = nn.functional.normalize(seen, dim=1)
        share = (_SHARP * seen @ texts.T).softmax(1)  # (N, C)
        for _ in range(_ROUNDS):
            means = nn.functional.normalize(share.T @ unit, dim=1)  # (C, X)
            share = (_SHARP * (seen @ texts.T + _PULL * unit @ means.T)).softmax(1)
    return nn.functional.normalize(texts + _PULL * means, dim=1).clone()


def _wordless(model: Model) -> UsageError:
    return UsageError(
        f"the model {model.card.name!r} was trained without captions and cannot name classes by"
        " words"
    )


def class_vectors(model: Model, words: Mapping[str, Sequence[str]]) -> torch.Tensor:
    """Unit vectors ``(C, X)`` of classes, see :func:`class_vector`.

    ``UsageError`` also for a model trained without captions.
    """
    if model.alignment is None:
        raise _wordless(model)
    return torch.stack([class_vector(model, name, phrases) for name, phrases in words.items()])


def class_vector(model: Model, name: str, phrases: Sequence[str]) -> torch.Tensor:
    """The unit vector ``(X,)`` of a class: the mean of its phrases'; "SolarPark" is read as two
    words.

    Raises ``UsageError`` for words that the text encoder does not know.
    """
    vectors = _vectors(model, phrases)
    if not len(vectors) or not bool(vectors.any(1).all()):
        raise UsageError(
            f"class {name!r}: {', '.join(map(repr, phrases)) or 'no words'} holds no word the text"
            " encoder knows"
        )
    return nn.functional.normalize(vectors.mean(0), dim=0)


def knows_words(model: Model, name: str) -> bool:
    """Whether the text encoder knows a word of a class's name."""
    return bool(_vectors(model, [name]).any())


def _vectors(model: Model, phrases: Sequence[str]) -> torch.Tensor:
    """Unit vectors ``(N, X)`` of phrases; zeros where the vocabulary knows no part of one."""
    encoder = model.network.text_encoder
    plain = [" ".join(in_words(phrase).split()) for phrase in phrases]
    if not plain:
        return torch.zeros(0, encoder.width)
    with torch.no_grad():
        ids, mask = (
            value.to(model.network.queries.device) for value in model.tokenize(plain, source=None)
        )
        vectors = encoder.embed(ids, mask).cpu()
    unknown = model.tokenizer.token_to_id("[UNK]")
    pieces = [model.tokenizer.encode(text, add_special_tokens=False).ids for text in plain]
    return (
        vectors
        * torch.tensor([any(piece != unknown for piece in found) for found in pieces])[:, None]
    )
