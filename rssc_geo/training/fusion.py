"""Stage 4: the dual-attention part, on cached image tokens and the words that come with them."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from rssc_geo.captioning.base import Source
from rssc_geo.models.bundle import Model
from rssc_geo.training.augment import soft_labels
from rssc_geo.training.data import SceneImages
from rssc_geo.training.encoder import mixed_precision
from rssc_geo.training.features import Features

log = logging.getLogger(__name__)

_BATCH = 256


@dataclass(frozen=True, slots=True)
class FusionRecipe:
    """How the fusion is trained.

    ``generated``, ``written``: share of the pictures that come with the captioner's words and with people's (the latter
    only where there are some); the others come without, and are read by the learned queries alone.
    """

    epochs: int = 14
    generated: float = 0.35
    written: float = 0.3
    batch_size: int = 128
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    smoothing: float = 0.05


def train_fusion(
    model: Model,
    features: Features,
    data: SceneImages,
    generated: Sequence[Sequence[str]],
    rows: np.ndarray,
    recipe: FusionRecipe,
    *,
    validate: Callable[[], float],
    seed: int = 0,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> float:
    """Train everything of ``model.network`` but the encoders; keep the epoch best by ``validate()``, which is returned.

    ``generated``: one text a view and picture, by a captioner that never saw that picture (empty texts: none). Text
    encoders of transformers are trained too, static word vectors are not.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    network = model.network
    learned = [p for name, p in network.named_parameters() if not name.startswith("image_encoder.")]
    device = learned[0].device
    optimiser = torch.optim.AdamW(learned, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = math.ceil(len(rows) / recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=recipe.epochs * steps, pct_start=0.1
    )
    best, kept = -1.0, {}
    for epoch in range(recipe.epochs):
        network.train()
        started, losses = time.monotonic(), []
        for part in np.array_split(generator.permutation(rows), steps):
            view = generator.integers(len(features.tokens), size=len(part))
            texts, sources = _draw_words(generator, part, view, generated, data.captions, recipe)
            image = torch.from_numpy(features.tokens[view, part]).float().to(device)
            ids, mask = (value.to(device) for value in model.tokenize(texts, source=sources))
            targets = soft_labels(
                torch.from_numpy(data.labels[part]),
                torch.from_numpy(features.visible[view, part]),
                classes=len(data.classes),
                smoothing=recipe.smoothing,
            )
            with mixed_precision(device):
                logits = network.classify(image, ids, mask)
            loss = F.cross_entropy(logits.float(), targets.to(device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(learned, 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        network.eval()
        score = validate()
        log.info(
            "fusion: epoch %d/%d, loss %.3f, validation %.4f (%.0f s)",
            epoch + 1, recipe.epochs, np.mean(losses), score, time.monotonic() - started,
        )  # fmt: skip
        if report is not None:
            report(epoch + 1, {"loss": float(np.mean(losses)), "validation_accuracy": score})
        if score > best:
            best, kept = score, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return best


def _draw_words(
    generator: np.random.Generator,
    rows: np.ndarray,
    views: np.ndarray,
    generated: Sequence[Sequence[str]],
    written: Sequence[Sequence[str]],
    recipe: FusionRecipe,
) -> tuple[list[str], list[Source]]:
    """Each picture's words in this step, and whose they are."""
    texts: list[str] = []
    sources: list[Source] = []
    for row, view, draw in zip(rows.tolist(), views.tolist(), generator.random(len(rows)), strict=True):
        if draw < recipe.written and written[row]:
            texts.append(written[row][int(generator.integers(len(written[row])))])
            sources.append("written")
        else:
            texts.append(generated[view][row] if draw < recipe.written + recipe.generated else "")
            sources.append("generated")
    return texts, sources


@torch.inference_mode()
def logits_of(model: Model, tokens: np.ndarray, captions: Sequence[str], *, source: Source) -> np.ndarray:
    """Logits float32 ``(B, C)`` of image tokens ``(B, N, I)`` with one caption each (empty: none)."""
    device = model.network.queries.device
    parts = []
    for start in range(0, len(tokens), _BATCH):
        ids, mask = (v.to(device) for v in model.tokenize(captions[start : start + _BATCH], source=source))
        image = torch.from_numpy(np.asarray(tokens[start : start + _BATCH])).float().to(device)
        parts.append(model.network.classify(image, ids, mask).float().cpu())
    return torch.cat(parts).numpy()
