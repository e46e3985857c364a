"""Stage 5: the dual attention, on cached image tokens and the words that come with them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.optim.swa_utils import AveragedModel

from rssc_geo.models import CaptionSource, DualAttentionClassifier, Model
from rssc_geo.training.data import SceneImages
from rssc_geo.training.label_loss import LabelLoss
from rssc_geo.training.loop import (
    LoopOptions,
    Report,
    Task,
    fit,
    mixed_precision,
    moving_average,
    one_cycle,
)
from rssc_geo.training.options import FusionRecipe
from rssc_geo.training.stages.features import Features, mean_tokens

_BATCH = 256
_Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class FusionData:
    """Training data of the fusion.

    Attributes
    ----------
    features : image tokens of the pictures
    images : their labels and human captions
    generated : one text a view and picture, by a captioner that never saw that picture; empty
        texts: none
    rows : int64, pictures to learn from
    """

    features: Features
    images: SceneImages
    generated: Sequence[Sequence[str]]
    rows: NDArray[np.int64]


def train_fusion(
    model: Model,
    data: FusionData,
    recipe: FusionRecipe,
    *,
    validate: Callable[[], float],
    seed: int = 0,
    report: Report | None = None,
) -> float:
    """Train everything of ``model.network`` but image encoder and image head, in place.

    The moving average of the weights is kept, of the epoch best by ``validate()``. A text encoder
    of transformers is trained too, unless the model has an alignment, which was trained on it as it
    is; static word vectors never are.

    Parameters
    ----------
    model : to be trained, on its device
    data : to train on
    recipe : how
    validate : gives the validation accuracy of ``model`` as it is when called
    seed : of every random choice
    report : called after each epoch

    Returns the best validation accuracy. Raises ``InputError`` when the loss is not finite.
    """
    torch.manual_seed(seed)
    if model.network.image_head is not None and not _has_words(data):
        return validate()
    frozen = ["image_encoder.", "image_head."]
    if model.alignment is not None:
        frozen.append("text_encoder.")
    names = (name for name, _ in model.network.named_parameters())
    learned = [name for name in names if not name.startswith(tuple(frozen))]
    task = _FusionTask(model, data, recipe, validate, np.random.default_rng(seed))
    return task.train(learned, report)


def _has_words(data: FusionData) -> bool:
    """Whether any training picture has a text."""
    rows = data.rows.tolist()
    generated = any(texts[row] for texts in data.generated for row in rows)
    return generated or any(data.images.captions[row] for row in rows)


class _FusionTask(Task[_Batch]):
    """Pictures with and without words.

    A batch is image tokens ``(B, T, I)``, token ids and mask ``(B, L)``, labels ``(B,)`` and the
    share of each picture that is visible, ``(B,)``.
    """

    name = "fusion"
    network: DualAttentionClassifier
    average: AveragedModel

    def __init__(
        self,
        model: Model,
        data: FusionData,
        recipe: FusionRecipe,
        validate: Callable[[], float],
        random: np.random.Generator,
    ) -> None:
        self._model, self._data, self._recipe = model, data, recipe
        self._validate, self._random = validate, random
        self._device = model.network.queries.device
        self._negatives = (
            hard_negatives(data.features.tokens[0], data.images, data.rows)
            if recipe.hard_negatives
            else None
        )
        self._label_loss = LabelLoss(data.images.legend, smoothing=recipe.smoothing)
        self._best: dict[str, torch.Tensor] = {}

    def train(self, learned: Sequence[str], report: Report | None) -> float:
        """Train the parameters of these names; the model gets the best average of the weights."""
        self.network = copy.deepcopy(self._model.network)
        for name, value in self.network.named_parameters():
            value.requires_grad_(name in learned)
        recipe = self._recipe
        self.average = moving_average(self.network, lambda n: min(recipe.ema, n / (n + 10)))
        optimizer = torch.optim.AdamW(
            [value for value in self.network.parameters() if value.requires_grad],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
        )
        steps = math.ceil(len(self._data.rows) / recipe.batch_size)
        schedule = one_cycle(optimizer, recipe.learning_rate, steps=recipe.epochs * steps)
        state = fit(self, optimizer, schedule, LoopOptions(recipe.epochs), report=report)
        self._model.network.load_state_dict(self._best)
        return state.best

    def train_mode(self) -> None:
        """A frozen text encoder is run as in evaluation, without dropout."""
        self.network.train()
        if self._model.alignment is not None:
            self.network.text_encoder.eval()

    def batches(self, epoch: int) -> Iterator[_Batch]:  # noqa: ARG002 -- all epochs alike
        """Every picture once, in one of its views, with or without words."""
        features, images = self._data.features, self._data.images
        rows, random = self._data.rows, self._random
        steps = math.ceil(len(rows) / self._recipe.batch_size)
        for part in np.array_split(random.permutation(rows), steps):
            views = random.integers(len(features.tokens), size=len(part))
            texts, sources = self._draw_captions(part, views)
            tokens = self._draw_tokens(part, views, sources)
            ids, mask = self._model.tokenize(texts, source=sources)
            labels = torch.from_numpy(images.labels[part])
            visible = torch.from_numpy(features.visible[views, part])
            yield torch.from_numpy(tokens).float(), ids, mask, labels, visible

    def _draw_captions(
        self, rows: NDArray[np.int64], views: NDArray[np.int64]
    ) -> tuple[list[str], list[CaptionSource]]:
        """A caption, which may be empty, and its source for each picture of a batch."""
        recipe, random = self._recipe, self._random
        written, generated = self._data.images.captions, self._data.generated
        texts: list[str] = []
        sources: list[CaptionSource] = []
        for row, view, draw in zip(
            rows.tolist(), views.tolist(), random.random(len(rows)), strict=True
        ):
            if draw < recipe.written and written[row]:
                # All of it or, for one picture in four, one sentence.
                sentences = random.permutation(written[row])
                few = draw < recipe.written / 4
                texts.append(str(sentences[0]) if few else " ".join(sentences))
                sources.append("written")
            else:
                told = draw < recipe.written + recipe.generated
                texts.append(generated[view][row] if told else "")
                sources.append("generated")
        return texts, sources

    def _draw_tokens(
        self,
        rows: NDArray[np.int64],
        views: NDArray[np.int64],
        sources: Sequence[CaptionSource],
    ) -> NDArray[np.float16]:
        """Image tokens ``(B, T, I)`` of the pictures or, with human captions, of hard negatives.

        A random subset of tokens of each picture, of the same size for all.
        """
        recipe, random, negatives = self._recipe, self._random, self._negatives
        shown = rows
        if negatives is not None:
            replaced = (np.array(sources) == "written") & (
                random.random(len(rows)) < recipe.hard_negatives
            )
            other = negatives[rows, random.integers(negatives.shape[1], size=len(rows))]
            shown = np.where(replaced, other, rows)
        chosen: NDArray[np.float16] = self._data.features.tokens[views, shown]
        if recipe.min_tokens == 1:
            return chosen
        count = max(1, round(chosen.shape[1] * random.uniform(recipe.min_tokens, 1.0)))
        places = random.random(chosen.shape[:2]).argsort(1)[:, :count]
        return np.take_along_axis(chosen, places[..., None], axis=1)

    def loss(self, batch: _Batch) -> torch.Tensor:
        """The loss of the labels."""
        *read, labels, visible = batch
        tokens, ids, mask = (value.to(self._device) for value in read)
        with mixed_precision(self._device):
            logits = self.network.classify(tokens, ids, mask)
        loss = self._label_loss(logits.float(), labels, visible)
        # No word in the whole batch: the image head is not trained here, and nothing else was used.
        return loss if loss.requires_grad else loss + 0 * self.network.text_proj.weight.sum()

    def validate(self, epoch: int) -> float:  # noqa: ARG002 -- all epochs alike
        """The result of ``validate`` for the model with the averaged weights."""
        self._model.network.load_state_dict(self.average.module.state_dict())
        self._model.network.eval()
        return self._validate()

    def keep(self) -> None:
        """Keep the averaged weights."""
        self._best = copy.deepcopy(self._model.network.state_dict())


def hard_negatives(
    tokens: NDArray[np.floating],
    images: SceneImages,
    rows: NDArray[np.int64],
    *,
    count: int = 8,
) -> NDArray[np.int64]:
    """The ``count`` pictures that share no class with a picture and are most similar to it.

    Similar by the cosine of their mean tokens, the mean of all subtracted.

    Parameters
    ----------
    tokens : ``(N, T, I)``
    images : the pictures with their labels
    rows : int64, the pictures that have hard negatives and are some

    Returns rows, int64 ``(N, count)``; zeros for pictures not in ``rows``.
    """
    pooled = torch.from_numpy(mean_tokens(tokens, rows))
    pooled = F.normalize(pooled - pooled.mean(0), dim=1)
    labels = torch.from_numpy(images.labels[rows])
    allowed = images.legend.allowed.astype(np.int64)
    shared = torch.from_numpy(allowed @ allowed.T > 0)  # (L, L)
    found = np.zeros((len(tokens), count), np.int64)
    for start in range(0, len(rows), 1024):
        places = slice(start, start + 1024)
        cosines = pooled[places] @ pooled.T
        cosines[shared[labels[places]][:, labels]] = -2.0
        found[rows[places]] = rows[cosines.topk(count).indices.numpy()]
    return found


@torch.inference_mode()
def logits_of(
    model: Model, tokens: NDArray[np.float16], captions: Sequence[str], *, source: CaptionSource
) -> NDArray[np.float32]:
    """Logits float32 ``(B, C)`` of image tokens ``(B, T, I)`` with one caption each.

    An empty caption is none; ``source``: of the captions.
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
