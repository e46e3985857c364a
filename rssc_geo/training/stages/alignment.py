"""Teach the alignment of pictures and texts on captions, and calibrate it for named classes."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

from rssc_geo.models import Alignment, Model, class_embedding, in_vocabulary
from rssc_geo.training.metrics import fit_temperature
from rssc_geo.training.schedule import one_cycle
from rssc_geo.training.stages.features import Features

log = logging.getLogger(__name__)

_BATCH = 256
_STEPS = 100
_DRAWS, _THIRDS = 20, 6
_LIKENESS = 0.05
"""Texts that say nearly the same are no opposites.

Targets are the softmax of the texts' own cosines over this.
"""


def train_alignment(
    model: Model,
    features: Features,
    captions: Sequence[Sequence[str]],
    rows: np.ndarray,
    *,
    epochs: int = 10,
    learning_rate: float = 2e-3,
    dropout: float = 0.3,
    seed: int = 0,
) -> Alignment:
    """Contrastive learning on random views of the pictures ``rows`` and random sentences of theirs.

    Both encoders stay as they are, so that each sentence is embedded once. The loss is the cross
    entropy of similarities within a batch, both ways (Radford et al., 2021), with soft targets
    (:data:`_LIKENESS`). Few epochs and dropout of the pictures' numbers: what is learned beyond
    that fits the classes that are there and fails on others (benchmarks/zero_shot.py).
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    rows = np.array([row for row in rows.tolist() if captions[row]])
    sentences = list(dict.fromkeys(text for row in rows.tolist() for text in captions[row]))
    place_of = {text: place for place, text in enumerate(sentences)}
    embedded = _embed(model, sentences)
    pooled = np.stack(
        [
            np.stack([view[row].mean(0, dtype=np.float32) for row in rows.tolist()])
            for view in features.tokens
        ]
    )
    alignment = Alignment(image_width=pooled.shape[-1], text_width=embedded.shape[1])
    steps = math.ceil(len(rows) / _BATCH)
    epochs = max(epochs, math.ceil(_STEPS / steps))
    optimizer = torch.optim.AdamW(alignment.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = one_cycle(optimizer, learning_rate, steps=epochs * steps)
    for _ in range(epochs):
        losses = []
        for places in np.array_split(generator.permutation(len(rows)), steps):
            chosen = [
                captions[row][int(generator.integers(len(captions[row])))]
                for row in rows[places].tolist()
            ]
            texts = embedded[[place_of[text] for text in chosen]]
            targets = (texts @ texts.T / _LIKENESS).softmax(1)
            view = generator.integers(len(pooled), size=len(places))
            logits = alignment(F.dropout(torch.from_numpy(pooled[view, places]), dropout), texts)
            loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    with torch.no_grad():
        alignment.center.copy_(alignment.embed(torch.from_numpy(pooled[0])).mean(0))
    log.info("alignment: %d pictures, loss %.3f", len(rows), np.mean(losses))
    return alignment.eval()


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
    model: Model, alignment: Alignment, features: Features, labels: np.ndarray, rows: np.ndarray
) -> None:
    """Fit the scale, so that probabilities of named classes are right, and the shift of "other", in
    place.

    On pictures of the model's classes (``rows``, those of the validation part) and the classes'
    names, as far as the text encoder knows their words. For the shift a third of the classes is
    named, a third speaks for "other" and a third is unknown, some times over: "other" is to be
    wrong of the named ones as often as it is missed of the rest.
    """
    known = [c for c in model.card.classes if in_vocabulary(model, c.name)]
    places = {c.id: place for place, c in enumerate(known)}
    rows = rows[np.isin(labels[rows], list(places))]
    if len(known) < _THIRDS or not len(rows):
        return
    texts = torch.stack([class_embedding(model, c.name, [c.name]) for c in known])
    pooled = torch.from_numpy(
        np.stack([features.tokens[0, row].mean(0, dtype=np.float32) for row in rows.tolist()])
    )
    labels = np.array([places[label] for label in labels[rows].tolist()])
    with torch.inference_mode():
        likeness = ((alignment.embed(pooled) - alignment.center) @ texts.T).double().numpy()
    scale = 1 / fit_temperature(likeness, labels)
    with torch.no_grad():
        alignment.log_scale.fill_(math.log(scale))
    generator = np.random.default_rng(0)
    gaps, others = [], []
    for _ in range(_DRAWS):
        named, background, _ = np.array_split(generator.permutation(len(texts)), 3)
        gaps.append(
            logsumexp(scale * likeness[:, background], axis=1)
            - logsumexp(scale * likeness[:, named], axis=1)
        )
        others.append(~np.isin(labels, named))
    gap, rest = np.concatenate(gaps), np.concatenate(others)
    shift = brentq(
        lambda value: expit(gap[~rest] + value).mean() - expit(-gap[rest] - value).mean(), -50, 50
    )
    with torch.no_grad():
        alignment.other.fill_(shift)
