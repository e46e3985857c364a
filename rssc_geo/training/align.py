"""Teach the alignment of pictures and texts on captions, and calibrate it for named classes."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from rssc_geo.models.alignment import Alignment
from rssc_geo.models.bundle import Model
from rssc_geo.models.encoders import StaticTextEncoder
from rssc_geo.training.features import Features

log = logging.getLogger(__name__)

_BATCH = 256
_LIKENESS = 0.05
"""Texts that say nearly the same are no opposites: targets are the softmax of the texts' own cosines over this."""


def train_alignment(
    model: Model,
    features: Features,
    captions: Sequence[Sequence[str]],
    rows: np.ndarray,
    *,
    epochs: int = 30,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> Alignment:
    """Contrastive learning on random views of the pictures ``rows`` and random sentences of theirs.

    Both encoders stay as they are. The loss is the cross entropy of similarities within a batch, both ways (Radford
    et al., 2021), with soft targets (:data:`_LIKENESS`).
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    text_encoder = model.network.text_encoder
    if not isinstance(text_encoder, StaticTextEncoder):
        raise TypeError("an alignment needs a static text encoder")
    rows = np.array([row for row in rows.tolist() if captions[row]])
    pooled = np.stack([np.stack([view[row].mean(0, dtype=np.float32) for row in rows.tolist()]) for view in features.tokens])
    alignment = Alignment(image_width=pooled.shape[-1], text_width=text_encoder.width)
    steps = math.ceil(len(rows) / _BATCH)
    optimiser = torch.optim.AdamW(alignment.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * steps, pct_start=0.1)
    device = text_encoder.scale.device
    for _ in range(epochs):
        losses = []
        for places in np.array_split(generator.permutation(len(rows)), steps):
            chosen = [captions[row][int(generator.integers(len(captions[row])))] for row in rows[places].tolist()]
            ids, mask = (value.to(device) for value in model.tokenize(chosen, source=None))
            texts = text_encoder.embed(ids, mask).cpu()
            targets = (texts @ texts.T / _LIKENESS).softmax(1)
            view = generator.integers(len(pooled), size=len(places))
            logits = alignment(torch.from_numpy(pooled[view, places]), texts)
            loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
    log.info("alignment: %d pictures, loss %.3f", len(rows), np.mean(losses))
    return alignment.eval()
