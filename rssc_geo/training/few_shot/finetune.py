"""Fine-tune a bundle's image encoder on the few patches of a training from polygons."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from rssc_geo.models import Model
from rssc_geo.training.augment import augment, normalize, to_input
from rssc_geo.training.few_shot.head import Head
from rssc_geo.training.loop import mixed_precision, one_cycle

_STEPS, _BATCH = 160, 20
_RATE, _DECAY, _SMOOTHING, _DROPOUT = 5e-4, 0.05, 0.1, 0.2
_ZOOM = (0.7, 1.2)
_ANCHOR = 0.5
"""Weight of staying near the tokens of the encoder as it was, which the bundle's captioner reads."""


def fine_tune(
    model: Model,
    head: Head,
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    device: torch.device,
) -> Model:
    """The model with an image encoder that has learned from labeled patches, all else as it was.

    Starts from a linear layer that fits the encoder as it is, so that the first steps do not tear
    at what the encoder knows (Kumar et al., "Fine-Tuning can Distort Pretrained Features", ICLR
    2022). A fixed number of steps at any number of patches, each class drawn as often; statistics
    of batch normalization stay, since a few patches of one scene are no sample of pictures. The
    loss also holds the tokens near those of the encoder before.

    Parameters
    ----------
    model : its ``image_encoder`` is read and copied, not changed
    head : what :func:`fit_head` found for the encoder as it is, on the embedding of a model without
        attention, whose last columns are the mean image token's
    pixels : uint8 (N, H, W, 3)
    labels : integers (N,), 0 to C − 1, C as in ``head``

    The result is the same each time on one machine's processor.
    """
    generator = torch.Generator().manual_seed(0)
    before = model.network.image_encoder.to(device).eval()
    encoder = copy.deepcopy(before).requires_grad_(True)
    layer = head.weight[:, -encoder.width :].copy(), head.bias.copy()
    weight, bias = (torch.from_numpy(value).to(device).requires_grad_() for value in layer)
    learned = [*encoder.parameters(), weight, bias]
    optimizer = torch.optim.AdamW(learned, lr=_RATE, weight_decay=_DECAY)
    schedule = one_cycle(optimizer, _RATE, steps=_STEPS)
    images, codes = to_input(pixels), torch.from_numpy(labels.astype(np.int64))
    odds = 1 / torch.bincount(codes).clamp(min=1)[codes].float()
    size = pixels.shape[1]
    for _ in range(_STEPS):
        rows = torch.multinomial(odds, min(_BATCH, len(codes)), generator=generator)
        views, _ = augment(images[rows], generator, size=size, zoom=_ZOOM)
        batch = normalize(views, model.card.mean, model.card.std).to(device)
        with mixed_precision(device):
            tokens = encoder(batch)
            with torch.no_grad():
                wanted = before(batch)
        pooled = tokens.float().mean(1)
        drop = torch.rand(pooled.shape, generator=generator).to(device) >= _DROPOUT
        logits = (pooled * drop / (1 - _DROPOUT)) @ weight.T + bias
        loss = F.cross_entropy(logits, codes[rows].to(device), label_smoothing=_SMOOTHING)
        spread = wanted.float().var().clamp(min=1e-12)
        loss = loss + _ANCHOR * F.mse_loss(tokens.float(), wanted.float()) / spread
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
    network = copy.copy(model.network)
    network._modules = dict(network._modules)
    network.image_encoder = encoder.eval().requires_grad_(False)
    return dataclasses.replace(model, network=network)
