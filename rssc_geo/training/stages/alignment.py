"""Stage 4: the alignment of pictures and texts, for named classes; trained and calibrated."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

from rssc_geo.models import Alignment, Model, class_embedding, in_vocabulary
from rssc_geo.training.data import SceneImages, Split
from rssc_geo.training.loop import LoopOptions, Task, fit, one_cycle
from rssc_geo.training.metrics import fit_temperature
from rssc_geo.training.options import AlignmentRecipe
from rssc_geo.training.stages.features import Features, mean_tokens

log = logging.getLogger(__name__)

_DEFAULTS = AlignmentRecipe()
_BATCH = 256
_STEPS = 100
_DRAWS, _THIRDS = 20, 6
_TEMPERATURE = 0.05
"""Temperature of the targets, the softmax of the texts' own cosines.

Texts with nearly the same meaning are no negatives of each other.
"""


def train_alignment(
    model: Model,
    features: Features,
    captions: Sequence[Sequence[str]],
    rows: NDArray[np.int64],
    recipe: AlignmentRecipe = _DEFAULTS,
    *,
    seed: int = 0,
) -> Alignment:
    """Contrastive learning on random views of the pictures ``rows`` and random sentences of theirs.

    Both encoders are frozen, so that each sentence is embedded once. The loss is the cross entropy
    of similarities within a batch, both ways (Radford et al., 2021), with soft targets
    (``_TEMPERATURE``). Few epochs, and dropout of the pictures' embedding: longer training overfits
    to the classes of the training and fails on others (benchmarks/zero_shot.py).

    Parameters
    ----------
    model : its text encoder embeds the sentences
    features : image tokens; an image's embedding is their mean
    captions : the sentences of each picture
    rows : int64, pictures to learn from; those without captions are left out
    recipe : how
    seed : of every random choice
    """
    torch.manual_seed(seed)
    task = _AlignmentTask(model, features, captions, rows, dropout=recipe.dropout, seed=seed)
    epochs = max(recipe.epochs, math.ceil(_STEPS / task.steps))
    optimizer = torch.optim.AdamW(
        task.network.parameters(), lr=recipe.learning_rate, weight_decay=0.05
    )
    schedule = one_cycle(optimizer, recipe.learning_rate, steps=epochs * task.steps)
    options = LoopOptions(epochs, clip=None, log_epochs=False)
    state = fit(task, optimizer, schedule, options)
    task.center()
    log.info("alignment: %d pictures, loss %.3f", task.pictures, state.loss)
    return task.network.eval()


class _AlignmentTask(Task[tuple[torch.Tensor, torch.Tensor]]):
    """A batch is image embeddings ``(B, I)`` and an embedded sentence each, ``(B, X)``."""

    name = "alignment"
    network: Alignment

    def __init__(
        self,
        model: Model,
        features: Features,
        captions: Sequence[Sequence[str]],
        rows: NDArray[np.int64],
        *,
        dropout: float,
        seed: int,
    ) -> None:
        self._rows = np.array([row for row in rows.tolist() if captions[row]])
        self._captions, self._dropout = captions, dropout
        self._random = np.random.default_rng(seed)
        sentences = list(
            dict.fromkeys(text for row in self._rows.tolist() for text in captions[row])
        )
        self._place_of = {text: place for place, text in enumerate(sentences)}
        self._embedded = _embed(model, sentences)
        self._pooled = np.stack(
            [mean_tokens(view, self._rows) for view in features.tokens]
        )  # (V, N, I)
        self.pictures = len(self._rows)
        self.steps = math.ceil(self.pictures / _BATCH)
        self.network = Alignment(
            image_width=self._pooled.shape[-1], text_width=self._embedded.shape[1]
        )

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:  # noqa: ARG002 -- all epochs alike
        """Every picture once, each with one of its sentences in one of its views."""
        captions, random = self._captions, self._random
        for places in np.array_split(random.permutation(self.pictures), self.steps):
            chosen = [
                captions[row][int(random.integers(len(captions[row])))]
                for row in self._rows[places].tolist()
            ]
            texts = self._embedded[[self._place_of[text] for text in chosen]]
            view = random.integers(len(self._pooled), size=len(places))
            yield torch.from_numpy(self._pooled[view, places]), texts

    def loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Contrastive cross entropy, from pictures to sentences and back."""
        images, texts = batch
        targets = (texts @ texts.T / _TEMPERATURE).softmax(1)
        logits = self.network(F.dropout(images, self._dropout), texts)
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2

    @torch.no_grad()
    def center(self) -> None:
        """Set the alignment's center: the mean embedding of the pictures as they are."""
        embedded = self.network.embed(torch.from_numpy(self._pooled[0]))
        self.network.center.copy_(embedded.mean(0))


def add_alignment(
    model: Model, features: Features, data: SceneImages, split: Split, *, seed: int
) -> Model:
    """The model with an alignment, trained on the training part, calibrated on validation."""
    alignment = train_alignment(model, features, data.captions, split["train"], seed=seed)
    alone = np.where(data.legend.allowed.sum(1) == 1, data.legend.allowed.argmax(1), -1)
    calibrate_alignment(model, alignment, features, alone[data.labels], split["val"])
    settings = {
        "image_width": alignment.project.in_features,
        "text_width": alignment.project.out_features,
    }
    card = dataclasses.replace(model.card, alignment=settings)
    return dataclasses.replace(model, card=card, alignment=alignment)


@torch.no_grad()
def _embed(model: Model, sentences: Sequence[str]) -> torch.Tensor:
    """Unit vectors float32 ``(len(sentences), X)`` by the model's text encoder."""
    found = []
    for start in range(0, len(sentences), _BATCH):
        ids, mask = model.tokenize(sentences[start : start + _BATCH], source=None)
        device = model.network.queries.device
        found.append(model.network.text_encoder.embed(ids.to(device), mask.to(device)).cpu())
    return torch.cat(found)


def calibrate_alignment(
    model: Model,
    alignment: Alignment,
    features: Features,
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> None:
    """Fit in place the scale of named classes' logits, and the shift of "other".

    On pictures of the model's classes and the classes' names, as far as the text encoder knows
    their words. For the shift a third of the classes is named, a third is the background of "other"
    and a third is unknown, in ``_DRAWS`` random draws: "other" has to be false for named classes as
    often as it is missed for the rest. With too few known classes or no pictures of them nothing is
    fitted.

    Parameters
    ----------
    model : its classes and text encoder
    alignment : is changed
    features : image tokens of all pictures
    labels : int64 ``(N,)``, the class of each picture, -1 where its label allows several
    rows : int64, pictures of the validation part
    """
    known = [c for c in model.card.classes if in_vocabulary(model, c.name)]
    places = {c.id: place for place, c in enumerate(known)}
    rows = rows[np.isin(labels[rows], list(places))]
    if len(known) < _THIRDS or not len(rows):
        return
    texts = torch.stack([class_embedding(model, c.name, [c.name]) for c in known])
    pooled = torch.from_numpy(mean_tokens(features.tokens[0], rows))
    labels = np.array([places[label] for label in labels[rows].tolist()])
    with torch.inference_mode():
        cosines = ((alignment.embed(pooled) - alignment.center) @ texts.T).double().numpy()
    scale = 1 / fit_temperature(cosines, np.eye(len(texts), dtype=bool)[labels])
    with torch.no_grad():
        alignment.log_scale.fill_(math.log(scale))
    generator = np.random.default_rng(0)
    gaps, others = [], []
    for _ in range(_DRAWS):
        named, background, _ = np.array_split(generator.permutation(len(texts)), 3)
        gaps.append(
            logsumexp(scale * cosines[:, background], axis=1)
            - logsumexp(scale * cosines[:, named], axis=1)
        )
        others.append(~np.isin(labels, named))
    gap, rest = np.concatenate(gaps), np.concatenate(others)
    shift = brentq(
        lambda value: expit(gap[~rest] + value).mean() - expit(-gap[rest] - value).mean(), -50, 50
    )
    with torch.no_grad():
        alignment.other.fill_(shift)
