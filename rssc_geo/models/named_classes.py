"""Zero-shot classes: an image's logits are its similarities to the texts that name the classes."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from rssc_geo.errors import UsageError, shortened
from rssc_geo.models.card import in_words
from rssc_geo.models.class_words import ClassWords
from rssc_geo.models.model import Model, encode_text
from rssc_geo.models.network import Alignment

# Own classes of the bundle whose text is this similar to a named class's (cosine) are left out of
# the background of "other".
_SAME_CLASS = 0.4
# Parameters of the soft k-means that moves texts towards images: rounds, weight of the means, and
# inverse temperature.
_ROUNDS, _MEAN_WEIGHT, _SHARPNESS = 10, 2.0, 50.0


class ZeroShotHead(nn.Module):
    """Takes the place of a network: its image encoder, and a head of text embeddings.

    ``texts``: unit vectors (C, X) of the classes; ``background``: unit vectors (K, X) of other
    classes, which together are the last class, "other"; None: there is no such class.
    """

    def __init__(self, model: Model, texts: torch.Tensor, background: torch.Tensor | None) -> None:
        super().__init__()
        self.network = model.network
        # A copy: it takes on the network's device and precision, the model's own stays.
        self.alignment = copy.deepcopy(model.alignment)
        self.register_buffer("texts", texts)
        self.register_buffer("background", background)
        self.texts: torch.Tensor
        self.background: torch.Tensor | None

    @property
    def image_encoder(self) -> nn.Module:
        """That of the network it stands for."""
        return self.network.image_encoder

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images (B, 3, H, W) → image tokens (B, N, I)."""
        return self.network.encode_image(images)

    def classify(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Image tokens (B, N, I) → logits (B, C), or (B, C + 1) with "other".

        Captions are not read.
        """
        del token_ids, token_mask
        return self.classify_pooled(image_tokens.mean(1))

    def classify_pooled(self, pooled: torch.Tensor) -> torch.Tensor:
        """Mean image tokens (B, I) → logits as of ``classify``."""
        logits: torch.Tensor = self.alignment(pooled, self.texts)  # type: ignore[misc]  # (B, C)
        if self.background is None:
            return logits
        background = self.alignment(pooled, self.background)  # type: ignore[misc]  # (B, K)
        rest = background.logsumexp(1, keepdim=True)  # (B, 1)
        # The sum over K texts must not grow with their number.
        correction = math.log(len(self.texts) / len(self.background))
        other = rest + correction + self.alignment.other  # type: ignore[union-attr]  # (B, 1)
        return torch.cat([logits, other], dim=1)  # (B, C + 1)


def name_classes(
    model: Model, classes: Sequence[str] | Mapping[str, str | Sequence[str]], *, other: bool = True
) -> Model:
    """The model with classes named by words, used like any other model.

    Parameters
    ----------
    model : one with an alignment
    classes : names ("solar park"; "SolarPark" is read as two words), or names with the words and
        sentences that stand for them, whose embeddings are averaged: ``{"water": ["lake", "river",
        "sea"]}``
    other : also a last class "other" for what is more similar to one of the bundle's own classes;
        not added where a class of that name is there already

    Raises ``UsageError`` for fewer than two classes (one will do with ``other``), names twice,
    words that the text encoder does not know, or a model that was trained without captions.
    """
    asked = ClassWords.of(classes, other=other)
    words = dict(asked.words)
    texts = class_embeddings(model, words)  # (C, X)
    background = None
    if asked.other:
        known = [c.name for c in model.card.classes if in_vocabulary(model, c.name)]
        own = class_embeddings(model, {name: [name] for name in known}) if known else texts[:0]
        background = own[(own @ texts.T).max(1).values < _SAME_CLASS]  # (K, X)
        if not len(background):
            raise UsageError(
                "the named classes are all that the model knows: nothing is left to define 'other'"
                " (--no-other)"
            )
    card = dataclasses.replace(
        model.card,
        name=f"{model.card.name} by words",
        classes=asked.classes,
        temperature=1.0,
        window_temperature=None,
        accuracy={},
        familiarity=None,
    )
    head = ZeroShotHead(model, texts, background)
    return dataclasses.replace(
        model,
        card=card,
        network=head,  # type: ignore[arg-type]
        choice=None,
        familiarity=None,
    )


def with_vectors(named: Model, vectors: torch.Tensor) -> Model:
    """A model of named classes (:func:`name_classes`) with other unit vectors (C, X) for its texts.

    The classes come first, then the background of "other", as :func:`vectors_of` gives them. The
    name of the model tells it apart.
    """
    head = named.network
    assert isinstance(head, ZeroShotHead)  # noqa: S101 -- what name_classes returns
    count = len(head.texts)
    background = None if head.background is None else vectors[count:]
    inner = dataclasses.replace(named, network=head.network)
    moved = ZeroShotHead(inner, vectors[:count], background)
    card = dataclasses.replace(named.card, name=f"{named.card.name}, refined")
    return dataclasses.replace(named, card=card, network=moved)  # type: ignore[arg-type]


def vectors_of(named: Model) -> torch.Tensor:
    """The unit vectors (C, X) of a model of named classes: the classes, then the background."""
    head = named.network
    assert isinstance(head, ZeroShotHead)  # noqa: S101 -- what name_classes returns
    return head.texts if head.background is None else torch.cat([head.texts, head.background])


def refine_texts(alignment: Alignment, texts: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """Text embeddings (C, X) of classes, moved towards the images most similar to them.

    ``pooled``: mean image tokens (N, I) of unlabeled images. Soft k-means that starts from the
    texts and stays close to them: each round assigns the images by text and mean together, then
    takes the means again, in the manner of TransCLIP (Zanella et al., "Boosting Vision-Language
    Models with Transduction", NeurIPS 2024). Deterministic.
    """
    with torch.inference_mode():
        centered = alignment.embed(pooled) - alignment.center  # (N, X)
        unit = F.normalize(centered, dim=1)  # (N, X)
        share = (_SHARPNESS * centered @ texts.T).softmax(1)  # (N, C)
        for _ in range(_ROUNDS):
            means = F.normalize(share.T @ unit, dim=1)  # (C, X)
            scores = centered @ texts.T + _MEAN_WEIGHT * unit @ means.T  # (N, C)
            share = (_SHARPNESS * scores).softmax(1)  # (N, C)
    return F.normalize(texts + _MEAN_WEIGHT * means, dim=1).clone()


def class_embeddings(model: Model, words: Mapping[str, Sequence[str]]) -> torch.Tensor:
    """Unit vectors (C, X) of classes by their phrases; see :func:`class_embedding`.

    Raises ``UsageError`` also for a model trained without captions.
    """
    if model.alignment is None:
        raise UsageError(
            f"the model {model.card.name!r} was trained without captions and cannot name classes by"
            " words"
        )
    return torch.stack([class_embedding(model, name, phrases) for name, phrases in words.items()])


def class_embedding(model: Model, name: str, phrases: Sequence[str]) -> torch.Tensor:
    """The unit vector (X,) of a class: the mean over its phrases.

    "SolarPark" is read as two words. Raises ``UsageError`` for words that the text encoder does not
    know.
    """
    vectors = _embed(model, phrases)
    if not len(vectors) or not bool(vectors.any(1).all()):
        raise UsageError(
            f"class {shortened(repr(name))}:"
            f" {shortened(', '.join(map(repr, phrases))) or 'no words'} holds no word the text"
            " encoder knows"
        )
    return F.normalize(vectors.mean(0), dim=0)


def in_vocabulary(model: Model, name: str) -> bool:
    """Whether the text encoder knows a word in the name of a class."""
    return bool(_embed(model, [name]).any())


def _embed(model: Model, phrases: Sequence[str]) -> torch.Tensor:
    """Unit vectors (N, X) of phrases; zeros where the vocabulary knows no part of one."""
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
    pieces = [encode_text(model.tokenizer, text).ids for text in plain]
    known = [any(piece != unknown for piece in found) for found in pieces]
    return vectors * torch.tensor(known)[:, None]
