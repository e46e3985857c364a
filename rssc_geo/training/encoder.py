"""Stage 1: fine-tune the image encoder as a plain scene classifier (its head is thrown away afterwards)."""

from __future__ import annotations

import copy
import logging
import math
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from rssc_geo.training.augment import augment
from rssc_geo.training.data import SceneImages

log = logging.getLogger(__name__)


def to_input(pixels: np.ndarray) -> torch.Tensor:
    """uint8 ``(B, H, W, 3)`` → float ``(B, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255


def normalise(images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """``(images − mean) / std`` per channel, channels last in memory (faster convolutions on CPU)."""
    shift, scale = (torch.tensor(v).view(1, -1, 1, 1) for v in (mean, std))
    return ((images - shift) / scale).contiguous(memory_format=torch.channels_last)


def train_encoder(
    data: SceneImages,
    split: dict[str, np.ndarray],
    *,
    architecture: str,
    kwargs: dict[str, object],
    initial: Path | None,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    checkpoint: Path,
) -> dict[str, torch.Tensor]:
    """Fine-tune ``timm.create_model(architecture, **kwargs)`` and return its averaged weights.

    AdamW, one warm-up epoch, cosine decay, label smoothing 0.1, exponential moving average of the weights;
    the weights of the epoch best on ``split["val"]`` are kept. ``checkpoint`` (safetensors) is written after
    every better epoch. The learning rate of the ImageNet weights is a third of the head's.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    backbone = timm.create_model(architecture, num_classes=0, **kwargs)
    if initial is not None:
        backbone.load_state_dict(load_file(initial))
    model = nn.Sequential(backbone, nn.Dropout(0.2), nn.Linear(backbone.num_features, len(data.classes)))
    model = model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval()
    groups = [{"params": backbone.parameters(), "lr": learning_rate / 3}, {"params": model[2].parameters(), "lr": learning_rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.05)
    steps = len(split["train"]) // batch_size
    total, warm = epochs * steps, steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * min(1, max(0, s - warm) / max(1, total - warm))))) + 1e-3,
    )
    best, step = -1.0, 0
    for epoch in range(epochs):
        model.train()
        started, losses = time.monotonic(), []
        order = split["train"][torch.randperm(len(split["train"]), generator=generator).numpy()]
        for start in range(0, steps * batch_size, batch_size):
            rows = order[start : start + batch_size]
            images = normalise(augment(to_input(data.pixels[rows]), generator), mean, std)
            loss = F.cross_entropy(model(images), torch.from_numpy(data.labels[rows]), label_smoothing=0.1)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss is {loss.item()} in epoch {epoch}, step {step}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            _update(average, model, decay=min(0.995, (1 + step) / (10 + step)))
            losses.append(loss.item())
        accuracy = _accuracy(average, data, split["val"], mean, std, batch_size)
        log.info("encoder epoch %d loss %.3f val %.4f (%.0f s)", epoch, np.mean(losses), accuracy, time.monotonic() - started)
        if accuracy >= best:
            best = accuracy
            save_file({k: v.contiguous() for k, v in average[0].state_dict().items()}, checkpoint)
    return load_file(checkpoint)


@torch.no_grad()
def _update(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


@torch.inference_mode()
def _accuracy(
    model: nn.Module, data: SceneImages, rows: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], batch_size: int
) -> float:
    right = 0
    for part in np.array_split(rows, math.ceil(len(rows) / batch_size)):
        logits = model(normalise(to_input(data.pixels[part]), mean, std))
        right += int((logits.argmax(1).numpy() == data.labels[part]).sum())
    return right / len(rows)
