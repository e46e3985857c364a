"""Stage 1.

Fine-tune the image encoder as a scene classifier (its heads are thrown away afterwards).
"""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from rssc_geo.errors import InputError
from rssc_geo.models import TimmImageEncoder
from rssc_geo.training.augment import augment, soft_labels
from rssc_geo.training.data import SceneImages

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EncoderRecipe:
    """How the image encoder is trained.

    ``architecture``, ``kwargs``: as for ``timm.create_model``; ``mean``, ``std``: of its input;
    ``schedule``: (epochs, pixels a side) of each part, small pictures first, since early epochs
    need no detail; ``learning_rate``: of the heads, the encoder takes a third of it;
    ``text_weight``: of the loss that pulls the picture's embedding towards that of its captions;
    ``patience``: epochs of the last part without a better validation accuracy before it ends.
    """

    architecture: str = "mobilenetv1_100"
    kwargs: Mapping[str, Any] = field(default_factory=lambda: {"pad_type": "same"})
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    schedule: tuple[tuple[int, int], ...] = ((6, 128), (8, 160), (6, 192))
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    text_weight: float = 0.5
    patience: int = 6

    @property
    def epochs(self) -> int:
        """Of all parts together."""
        return sum(epochs for epochs, _ in self.schedule)

    def size_of(self, epoch: int) -> int:
        """Pixels a side in an epoch."""
        for epochs, size in self.schedule:
            if epoch < epochs:
                return size
            epoch -= epochs
        raise IndexError("beyond the last epoch")


class _Pretext(nn.Module):
    """The encoder with its two heads: class, and embedding of the captions."""

    def __init__(self, recipe: EncoderRecipe, classes: int, embedding: int) -> None:
        super().__init__()
        self.encoder = TimmImageEncoder(recipe.architecture, recipe.kwargs)
        self.drop = nn.Dropout(0.2)
        self.classify = nn.Linear(self.encoder.width, classes)
        self.describe = nn.Linear(self.encoder.width, embedding) if embedding else None

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits ``(B, C)`` and the predicted caption embedding ``(B, D)``."""
        pooled = self.encoder(images).mean(1)
        return self.classify(self.drop(pooled)), (
            self.describe(pooled) if self.describe is not None else None
        )


def to_input(pixels: np.ndarray) -> torch.Tensor:
    """uint8 ``(B, H, W, 3)`` → float ``(B, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255


def normalize(
    images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """``(images − mean) / std`` per channel, channels last in memory (faster convolutions on CPU)."""
    shift, scale = (torch.tensor(v).view(1, -1, 1, 1) for v in (mean, std))
    return ((images - shift) / scale).contiguous(memory_format=torch.channels_last)


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the machine computes in it, float32 elsewhere."""
    on_cpu = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    fast = device.type == "cuda" or on_cpu
    return torch.autocast(device.type, torch.bfloat16, enabled=bool(fast))


def train_encoder(
    data: SceneImages,
    split: Mapping[str, np.ndarray],
    recipe: EncoderRecipe,
    *,
    work: Path,
    initial: Mapping[str, torch.Tensor] | None,
    embeddings: np.ndarray | None = None,
    seed: int = 0,
    device: torch.device,
    report: Callable[[int, Mapping[str, float]], None] | None = None,
) -> dict[str, torch.Tensor]:
    """The encoder's weights of the epoch whose moving average is best on ``split["val"]``, at the
    last part's size.

    AdamW, one warm-up epoch, cosine decay, an exponential moving average of the weights.
    ``initial``: weights of the timm model. ``embeddings``: float32 ``(N, D)``, unit length, of each
    image's captions; rows of zeros have none. After each epoch ``work`` holds all that is needed to
    go on; a finished run only loads its result. Raises ``InputError`` when the loss is no number;
    the last good epoch is kept.
    """
    torch.manual_seed(seed)
    training = _Training(data, split["train"], recipe, embeddings, seed=seed, device=device)
    if initial is not None:
        training.model.encoder.backbone.load_state_dict(initial)
        training.average.encoder.backbone.load_state_dict(initial)
    best_file, last_file = work / "encoder.safetensors", work / "encoder.last.pt"
    if last_file.is_file():
        training.load(last_file)
        log.info(
            "encoder: epochs 1 to %d of %d were done before", training.state["epoch"], recipe.epochs
        )
    state = training.state
    while state["epoch"] < recipe.epochs and state["since"] < recipe.patience:
        started = time.monotonic()
        size = recipe.size_of(int(state["epoch"]))
        loss = training.epoch(size)
        if not math.isfinite(loss):
            raise InputError(
                f"training stopped in epoch {state['epoch'] + 1}: the loss is {loss}. {work} holds"
                " the last good epoch; run again in another --work folder with a lower"
                " --learning-rate"
            )
        accuracy = _accuracy(training.average, data, split["val"], recipe, size, device)
        state["epoch"] += 1
        log.info(
            "encoder: epoch %d/%d, %d px, loss %.3f, validation %.4f (%.0f s)",
            state["epoch"], recipe.epochs, size, loss, accuracy, time.monotonic() - started,
        )  # fmt: skip
        if size == recipe.schedule[-1][1]:
            # Only accuracies at the size that will be used compare with each other.
            better = accuracy >= state["best"]
            state["since"] = 0 if better else state["since"] + 1
            if better:
                state["best"] = accuracy
                weights = training.average.encoder.backbone.state_dict()
                save_file({name: value.contiguous() for name, value in weights.items()}, best_file)
        training.save(last_file)
        if report is not None:
            report(
                int(state["epoch"]), {"loss": loss, "validation_accuracy": accuracy, "pixels": size}
            )
    return load_file(best_file)


class _Training:
    """Everything that changes while the encoder is trained."""

    def __init__(
        self,
        data: SceneImages,
        rows: np.ndarray,
        recipe: EncoderRecipe,
        embeddings: np.ndarray | None,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self._data, self._rows, self._recipe, self._embeddings, self._device = (
            data,
            rows,
            recipe,
            embeddings,
            device,
        )
        self._steps = max(1, len(rows) // recipe.batch_size)
        model = _Pretext(
            recipe, len(data.classes), 0 if embeddings is None else embeddings.shape[1]
        )
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.model).eval()
        heads = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
        rate = recipe.learning_rate
        groups = [
            {"params": model.encoder.parameters(), "lr": rate / 3},
            {"params": heads, "lr": rate},
        ]
        self._optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, _warm_cosine(self._steps, recipe.epochs * self._steps)
        )
        self._generator = torch.Generator().manual_seed(seed)
        self.state: dict[str, float] = {"epoch": 0, "best": -1.0, "since": 0}

    def epoch(self, size: int) -> float:
        """One pass over the pictures at ``size`` pixels a side.

        The mean loss, or the first that is no number.
        """
        batch_size = self._recipe.batch_size
        self.model.train()
        order = self._rows[torch.randperm(len(self._rows), generator=self._generator).numpy()]
        losses = []
        for number in range(self._steps):
            loss = self._loss(order[number * batch_size : (number + 1) * batch_size], size)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                return losses[-1]
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self._optimizer.step()
            self._schedule.step()
            done = self._schedule.last_epoch
            _update(self.average, self.model, decay=min(0.995, (1 + done) / (10 + done)))
        return float(np.mean(losses))

    def _loss(self, rows: np.ndarray, size: int) -> torch.Tensor:
        """Cross entropy with the labels, and the distance to the captions' embedding, weighted by what is visible."""
        data, recipe, device = self._data, self._recipe, self._device
        images, visible = augment(to_input(data.pixels[rows]), self._generator, size=size)
        targets = soft_labels(
            torch.from_numpy(data.labels[rows]), visible, classes=len(data.classes)
        ).to(device)
        with mixed_precision(device):
            logits, described = self.model(normalize(images, recipe.mean, recipe.std).to(device))
        loss = F.cross_entropy(logits.float(), targets)
        if described is not None and self._embeddings is not None:
            wanted = torch.from_numpy(self._embeddings[rows]).to(device)
            weight = visible.to(device) * wanted.any(1)
            loss = (
                loss
                + recipe.text_weight
                * (weight * (1 - F.cosine_similarity(described.float(), wanted))).mean()
            )
        return loss

    def _parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "average": self.average,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
        }

    def save(self, path: Path) -> None:
        """Write all of it; a crash leaves the file as it was."""
        content = {name: part.state_dict() for name, part in self._parts().items()}
        content |= {
            "generator": self._generator.get_state(),
            "rng": torch.get_rng_state(),
            "state": dict(self.state),
        }
        part_file = path.with_suffix(".part")
        torch.save(content, part_file)
        os.replace(part_file, path)

    def load(self, path: Path) -> None:
        """Go on from what :meth:`save` wrote."""
        saved = torch.load(path, map_location=self._device, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        self._generator.set_state(saved["generator"].cpu())
        torch.set_rng_state(saved["rng"].cpu())
        self.state.update(saved["state"])


def _warm_cosine(warm: int, total: int) -> Callable[[int], float]:
    """Linear over the first epoch, then half a cosine down to a thousandth."""

    def factor(step: int) -> float:
        done = min(1.0, max(0, step - warm) / max(1, total - warm))
        return min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * done))) + 1e-3

    return factor


@torch.no_grad()
def _update(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


@torch.inference_mode()
def _accuracy(
    model: nn.Module,
    data: SceneImages,
    rows: np.ndarray,
    recipe: EncoderRecipe,
    size: int,
    device: torch.device,
) -> float:
    right = 0
    for part in np.array_split(rows, math.ceil(len(rows) / recipe.batch_size)):
        images = to_input(data.pixels[part])
        if images.shape[-1] != size:
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        logits, _ = model(normalize(images, recipe.mean, recipe.std).to(device))
        right += int((logits.argmax(1).cpu().numpy() == data.labels[part]).sum())
    return right / len(rows)
