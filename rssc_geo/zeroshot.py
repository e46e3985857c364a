"""Classes named by words instead of examples."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from rssc_geo.errors import UsageError
from rssc_geo.models.bundle import Model
from rssc_geo.models.card import SceneClass
from rssc_geo.models.encoders import StaticTextEncoder
from rssc_geo.models.palette import scene_classes


class NamedClasses(nn.Module):
    """Stands in for the classifying half of a network: a picture's logits are its likeness to the classes' texts."""

    def __init__(self, model: Model, texts: torch.Tensor) -> None:
        super().__init__()
        self.network = model.network
        self.alignment = model.alignment
        self.register_buffer("texts", texts)
        self.texts: torch.Tensor

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Image tokens ``(B, N, I)``."""
        return self.network.encode_image(images)

    def classify(
        self, image_tokens: torch.Tensor, token_ids: torch.Tensor | None = None, token_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits ``(B, C)``; captions are not read."""
        del token_ids, token_mask
        logits: torch.Tensor = self.alignment(image_tokens.mean(1), self.texts)  # type: ignore[misc]
        return logits


def name_classes(model: Model, classes: Sequence[str] | Mapping[str, Sequence[str]]) -> Model:
    """The same model with other classes, to be used as any model is: ``classify(…, model=name_classes(…))``.

    ``classes``: names ("solar park"; "SolarPark" is read as two words), or names with the words that stand for them,
    whose vectors are averaged: ``{"water": ["lake", "river", "sea"]}``. Raises ``UsageError`` for fewer than two
    classes, names twice, words that the text encoder does not know, or a model that was trained without captions.
    """
    words = (
        {name: list(classes[name]) for name in classes} if isinstance(classes, Mapping) else {name: [name] for name in classes}
    )
    if len(words) < 2 or len(words) != len(classes):
        raise UsageError(f"at least two different classes are needed, got {', '.join(map(repr, classes)) or 'none'}")
    encoder = model.network.text_encoder
    if model.alignment is None or not isinstance(encoder, StaticTextEncoder):
        raise UsageError(f"the model {model.card.name!r} was trained without captions and cannot name classes by words")
    texts = torch.stack([_vector(model, encoder, name, phrases) for name, phrases in words.items()])
    described = [
        SceneClass(known.id, known.name, known.colour, "words: " + ", ".join(words[known.name]))
        for known in scene_classes(list(words))
    ]
    card = dataclasses.replace(
        model.card, name=f"{model.card.name} by words", classes=tuple(described), temperature=1.0, accuracy={}
    )
    return dataclasses.replace(model, card=card, network=NamedClasses(model, texts))  # type: ignore[arg-type]


def _vector(model: Model, encoder: StaticTextEncoder, name: str, phrases: Sequence[str]) -> torch.Tensor:
    """The unit vector of a class: the mean of its phrases'."""
    plain = [" ".join(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", phrase).split()) for phrase in phrases]
    vectors = encoder.embed(*model.tokenize(plain, source=None)) if plain else torch.zeros(1, encoder.width)
    if not bool(vectors.any(1).all()):
        raise UsageError(f"class {name!r}: {', '.join(map(repr, phrases)) or 'no words'} holds no word the text encoder knows")
    return nn.functional.normalize(vectors.mean(0), dim=0)
