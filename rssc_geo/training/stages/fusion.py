"""Stage 4: the dual-attention part, on cached image tokens and the words that come with them."""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from rssc_geo.models import CaptionSource, Model
from rssc_geo.training.augment import soft_labels
from rssc_geo.training.data import SceneImages
from rssc_geo.training.schedule import one_cycle
from rssc_geo.training.stages.encoder import mixed_precision
from rssc_geo.training.stages.features import Features

log = logging.getLogger(__name__)

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training.

    ``generated``, ``written``: share of the pictures that come with the captioner's words and with
    people's (the latter only where there are some); the others come without, and are read by the
    learned queries alone. ``doubted``: share of people's words that come with the tokens of a
    lookalike (see :func:`lookalikes`) instead of their own picture's; ``least_tokens``: of each
    picture between this share of its tokens and all are shown, at random.
    """

    epochs: int
    generated: float
    written: float
    learning_rate: float
    weight_decay: float
    doubted: float = 0.0
    least_tokens: float = 1.0


@dataclass(frozen=True, slots=True)
class FusionRecipe:
    """How the fusion is trained: ``together``, then ``words`` alone (None: not).

    The image encoder knows its training pictures by heart, so that words have nothing to add to
    them; of new pictures it takes some for lookalikes, and there the words must win. So in the
    second part some tokens are a lookalike's and many are missing, and only what words pass through
    is learned (their projection and the gate): a picture without words is classified exactly as
    after the first part. ``ema``: decay a step of the moving average that is kept.
    """

    together: Phase = Phase(14, generated=0.35, written=0.3, learning_rate=5e-4, weight_decay=0.05)
    words: Phase | None = Phase(
        6,
        generated=0.3,
        written=0.65,
        learning_rate=3e-3,
        weight_decay=0.01,
        doubted=0.2,
        least_tokens=0.2,
    )
    batch_size: int = 128
    smoothing: float = 0.05
    ema: float = 0.98

    @property
    def epochs(self) -> int:
        """Of both parts."""
        return self.together.epochs + (self.words.epochs if self.words is not None else 0)

    def shortened(self, epochs: int) -> FusionRecipe:
        """So many epochs, then half as many for the words."""
        words = self.words and dataclasses.replace(self.words, epochs=max(1, epochs // 2))
        return dataclasses.replace(
            self, together=dataclasses.replace(self.together, epochs=epochs), words=words
        )

    def reading(self, *, generated: float = 0.0, written: float = 0.0) -> FusionRecipe:
        """The first part alone, with these shares of words."""
        together = dataclasses.replace(self.together, generated=generated, written=written)
        return dataclasses.replace(self, together=together, words=None)


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
    """Train everything of ``model.network`` but the image encoder; keep the epoch best by
    ``validate()``, which is returned.

    ``generated``: one text a view and picture, by a captioner that never saw that picture (empty
    texts: none). A text encoder of transformers is trained too (in the first part), unless the
    model has an alignment, which was taught on it as it is; static word vectors never are.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    run = functools.partial(
        _learn,
        model,
        features,
        data,
        generated,
        rows,
        recipe,
        generator=generator,
        validate=validate,
        report=report,
    )
    fixed = ("image_encoder.",) if model.alignment is None else ("image_encoder.", "text_encoder.")
    best = run(recipe.together, learned=lambda name: not name.startswith(fixed), done=0)
    if recipe.words is None or not any(data.captions[row] for row in rows.tolist()):
        return best
    return run(
        recipe.words,
        learned=lambda name: name.startswith(("text_proj.", "gate.")),
        done=recipe.together.epochs,
    )


def _learn(
    model: Model,
    features: Features,
    data: SceneImages,
    generated: Sequence[Sequence[str]],
    rows: np.ndarray,
    recipe: FusionRecipe,
    phase: Phase,
    *,
    learned: Callable[[str], bool],
    done: int,
    generator: np.random.Generator,
    validate: Callable[[], float],
    report: Callable[[int, dict[str, float]], None] | None,
) -> float:
    """One part of the training.

    The parameters whose name is ``learned``, after ``done`` epochs of the part before.
    """
    network = copy.deepcopy(model.network)  # learns; the model's own follows it as a moving average
    for name, value in network.named_parameters():
        value.requires_grad_(learned(name))
    changed, averaged = (
        [p for name, p in net.named_parameters() if learned(name)]
        for net in (network, model.network)
    )
    device = changed[0].device
    optimizer = torch.optim.AdamW(changed, lr=phase.learning_rate, weight_decay=phase.weight_decay)
    steps = math.ceil(len(rows) / recipe.batch_size)
    schedule = one_cycle(optimizer, phase.learning_rate, steps=phase.epochs * steps)
    alike = lookalikes(features.tokens[0], data.labels, rows) if phase.doubted else None
    best, kept, taken = -1.0, {}, 0
    for epoch in range(phase.epochs):
        network.train()
        if model.alignment is not None:
            network.text_encoder.eval()  # what does not learn is read as it will be later, without dropout
        started, losses = time.monotonic(), []
        for part in np.array_split(generator.permutation(rows), steps):
            view = generator.integers(len(features.tokens), size=len(part))
            texts, sources = _draw_words(generator, part, view, generated, data.captions, phase)
            tokens = _draw_tokens(generator, features.tokens, part, view, sources, alike, phase)
            ids, mask = (value.to(device) for value in model.tokenize(texts, source=sources))
            targets = soft_labels(
                torch.from_numpy(data.labels[part]),
                torch.from_numpy(features.visible[view, part]),
                classes=len(data.classes),
                smoothing=recipe.smoothing,
            )
            with mixed_precision(device):
                logits = network.classify(torch.from_numpy(tokens).float().to(device), ids, mask)
            loss = F.cross_entropy(logits.float(), targets.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(changed, 1.0)
            optimizer.step()
            schedule.step()
            taken += 1
            with torch.no_grad():
                for average, value in zip(averaged, changed, strict=True):
                    average.lerp_(value, 1 - min(recipe.ema, taken / (taken + 10)))
            losses.append(loss.item())
        model.network.eval()
        score = validate()
        log.info(
            "fusion: epoch %d/%d, loss %.3f, validation %.4f (%.0f s)",
            epoch + 1, phase.epochs, np.mean(losses), score, time.monotonic() - started,
        )  # fmt: skip
        if report is not None:
            report(done + epoch + 1, {"loss": float(np.mean(losses)), "validation_accuracy": score})
        if score > best:
            best, kept = score, copy.deepcopy(model.network.state_dict())
    model.network.load_state_dict(kept)
    return best


def _draw_tokens(
    generator: np.random.Generator,
    tokens: np.ndarray,
    rows: np.ndarray,
    views: np.ndarray,
    sources: Sequence[CaptionSource],
    alike: np.ndarray | None,
    phase: Phase,
) -> np.ndarray:
    """Image tokens ``(B, T, I)`` of the pictures or, where people's words are doubted, of lookalikes; equally many of all."""
    shown = rows
    if alike is not None:
        doubted = (np.array(sources) == "written") & (generator.random(len(rows)) < phase.doubted)
        shown = np.where(
            doubted, alike[rows, generator.integers(alike.shape[1], size=len(rows))], rows
        )
    chosen: np.ndarray = tokens[views, shown]
    if phase.least_tokens == 1:
        return chosen
    count = max(1, round(chosen.shape[1] * generator.uniform(phase.least_tokens, 1.0)))
    places = generator.random(chosen.shape[:2]).argsort(1)[:, :count]
    return np.take_along_axis(chosen, places[..., None], axis=1)


def lookalikes(
    tokens: np.ndarray, labels: np.ndarray, rows: np.ndarray, *, count: int = 8
) -> np.ndarray:
    """The ``count`` pictures of other classes whose mean token is most like each picture's, int64
    ``(N, count)``.

    ``tokens``: ``(N, T, I)``; only the pictures ``rows`` have and are lookalikes (by cosine), other
    lines are zero.
    """
    pooled = torch.from_numpy(
        np.stack([tokens[row].mean(0, dtype=np.float32) for row in rows.tolist()])
    )
    pooled = F.normalize(pooled - pooled.mean(0), dim=1)
    kinds = torch.from_numpy(labels[rows])
    found = np.zeros((len(tokens), count), np.int64)
    for start in range(0, len(rows), 1024):
        places = slice(start, start + 1024)
        likeness = pooled[places] @ pooled.T
        likeness[kinds[places, None] == kinds] = -2.0
        found[rows[places]] = rows[likeness.topk(count).indices.numpy()]
    return found


def _draw_words(
    generator: np.random.Generator,
    rows: np.ndarray,
    views: np.ndarray,
    generated: Sequence[Sequence[str]],
    written: Sequence[Sequence[str]],
    phase: Phase,
) -> tuple[list[str], list[CaptionSource]]:
    """Each picture's words in this step, and whose they are."""
    texts: list[str] = []
    sources: list[CaptionSource] = []
    for row, view, draw in zip(
        rows.tolist(), views.tolist(), generator.random(len(rows)), strict=True
    ):
        if draw < phase.written and written[row]:
            said = generator.permutation(
                written[row]
            )  # all of it or, for one picture in four, one sentence
            texts.append(str(said[0]) if draw < phase.written / 4 else " ".join(said))
            sources.append("written")
        else:
            texts.append(generated[view][row] if draw < phase.written + phase.generated else "")
            sources.append("generated")
    return texts, sources


@torch.inference_mode()
def logits_of(
    model: Model, tokens: np.ndarray, captions: Sequence[str], *, source: CaptionSource
) -> np.ndarray:
    """Logits float32 ``(B, C)`` of image tokens ``(B, N, I)`` with one caption each (empty.

    None).
    """
    device = model.network.queries.device
    parts = []
    for start in range(0, len(tokens), _BATCH):
        ids, mask = (
            v.to(device) for v in model.tokenize(captions[start : start + _BATCH], source=source)
        )
        image = torch.from_numpy(np.asarray(tokens[start : start + _BATCH])).float().to(device)
        parts.append(model.network.classify(image, ids, mask).float().cpu())
    return torch.cat(parts).numpy()
