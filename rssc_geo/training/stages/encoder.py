"""Stage 1: fine-tune the image encoder as a scene classifier.

With ground features, both parts are trained together, on crops of scene pictures, windows of one
texture, and crops in the context of others, like the parts of a raster.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from rssc_geo.models import TimmImageEncoder
from rssc_geo.training.augment import normalize, to_input
from rssc_geo.training.crops import Crops, CropSampler
from rssc_geo.training.data import SceneImages, Split
from rssc_geo.training.kept import beyond_half, identity
from rssc_geo.training.label_loss import LabelLoss
from rssc_geo.training.loop import (
    LoopOptions,
    StageRun,
    Task,
    fit,
    mixed_precision,
    moving_average,
    read_ahead,
    warmup_cosine,
)
from rssc_geo.training.options import EncoderRecipe
from rssc_geo.training.windows import find_windows, without_windows

_FLOOR = 1e-3
"""Share of the learning rate that is left at the end of the cosine."""

_LOOK_WEIGHT = 0.3
"""Weight of the loss of each part of the features alone, beside that of both together."""

_STATISTICS = 64
"""Batches from which the statistics of averaged weights are computed."""


@dataclass(frozen=True, slots=True)
class FeatureLogits:
    """Logits of scene and ground features, ``(B, C)`` each; those of both together are their sum.

    Attributes
    ----------
    scene : of the scene features, over the whole crop
    ground : of the ground features, over the whole crop; None: there are none
    cells : ``(B, K, C)``, of the ground features over each token's ground
    """

    scene: torch.Tensor
    ground: torch.Tensor | None = None
    cells: torch.Tensor | None = None

    @property
    def both(self) -> torch.Tensor:
        """Of scene and ground features together."""
        return self.scene if self.ground is None else self.scene + self.ground


class LookClassifier(nn.Module):
    """An image encoder with a linear classifier of the mean token, and one of the captions.

    The classifier is linear in each part, so that their logits add up, and a mean over windows of
    tokens costs nothing extra.
    """

    def __init__(self, recipe: EncoderRecipe, classes: int, embedding: int = 0) -> None:
        super().__init__()
        self.encoder = TimmImageEncoder(recipe.architecture, recipe.kwargs, recipe.ground)
        self.drop = nn.Dropout(0.2)
        self.classify = nn.Linear(self.encoder.width, classes)
        self.describe = nn.Linear(self.encoder.width, embedding) if embedding else None

    def forward(
        self, images: torch.Tensor, context: int = 1
    ) -> tuple[FeatureLogits, torch.Tensor | None]:
        """Logits of normalized images ``(B, 3, S, S)``, and the predicted caption embedding.

        ``context``: the images are encoded in squares of ``context × context`` of them side by
        side, each in the context of the others.
        """
        images = laid_out(images, context)
        width = self.encoder.scene_width
        weight, bias = self.classify.weight, self.classify.bias
        if self.encoder.ground is None:
            pooled = self.encoder(images).mean(1)  # (B, N, I) → (B, I)
            logits = FeatureLogits(self.classify(self.drop(pooled)))
        else:
            looks = self.encoder.feature_maps(images)
            scene, ground = (taken_apart(look.float(), context) for look in looks)  # (B, ·, h, w)
            rows, cols = scene.shape[2:]
            cells = F.adaptive_avg_pool2d(ground, (rows, cols)).flatten(2).mT  # (B, K, G)
            seen = scene.mean((2, 3))  # (B, I)
            pooled = torch.cat([seen, cells.mean(1)], dim=1)
            logits = FeatureLogits(
                F.linear(self.drop(seen), weight[:, :width], bias),
                F.linear(cells.mean(1), weight[:, width:]),
                F.linear(cells, weight[:, width:]),
            )
        return logits, self.describe(pooled) if self.describe is not None else None


def laid_out(images: torch.Tensor, side: int) -> torch.Tensor:
    """Images ``(B, 3, S, S)`` in squares of ``side × side``, ``(B / side², 3, side·S, side·S)``."""
    count, channels, rows, cols = images.shape
    if side == 1:
        return images
    squares = images.view(count // side**2, side, side, channels, rows, cols)
    squares = squares.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, side * rows, side * cols)
    return squares.contiguous(memory_format=torch.channels_last)


def taken_apart(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Feature maps ``(B / side², C, h, w)`` of squares as those of their images, ``(B, C, …)``."""
    count, channels, rows, cols = maps.shape
    if side == 1:
        return maps
    parts = maps.view(count, channels, side, rows // side, side, cols // side)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, rows // side, cols // side)


@dataclass(frozen=True, slots=True)
class TrainedEncoder:
    """State dicts of the trained modules.

    Attributes
    ----------
    encoder : of the ``TimmImageEncoder``
    classify : of the linear classifier of its mean token
    """

    encoder: dict[str, torch.Tensor]
    classify: dict[str, torch.Tensor]

    @classmethod
    def load(cls, path: Path) -> TrainedEncoder:
        """What a training has kept: the ``encoder.safetensors`` of its folder."""
        made = load_file(path)
        encoder, classify = (
            {name.removeprefix(part): made[name] for name in made if name.startswith(part)}
            for part in ("encoder.", "classify.")
        )
        return cls(encoder, classify)

    @classmethod
    def mean(cls, trained: Iterable[TrainedEncoder]) -> TrainedEncoder:
        """The mean of some of the same modules, one at least."""
        first, *others = trained
        for count, other in enumerate(others, 2):
            first = first.mixed(other, 1 / count)
        return first

    def mixed(self, other: TrainedEncoder, share: float) -> TrainedEncoder:
        """The weighted mean with another one of the same modules, of which it has ``share``."""
        return TrainedEncoder(
            _mixed(self.encoder, other.encoder, share), _mixed(self.classify, other.classify, share)
        )


def _mixed(
    ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Weights and statistics of both; counts are ours."""
    return {
        name: value.lerp(theirs[name].to(value), share) if value.is_floating_point() else value
        for name, value in ours.items()
    }


def train_encoder(
    data: SceneImages,
    split: Split,
    recipe: EncoderRecipe,
    *,
    initial: Mapping[str, torch.Tensor] | None,
    embeddings: NDArray[np.float32] | None = None,
    run: StageRun,
) -> TrainedEncoder:
    """Train, and return the weights of the epoch best on the validation part.

    AdamW, one warmup epoch, cosine decay; the weights are the exponential moving average or, over
    the last ``swa_epochs``, the mean, validated at the last part's size. A finished run only loads
    its result.

    Parameters
    ----------
    data : all pictures
    split : its parts; ``train`` is for training, ``val`` for validation
    recipe : how
    initial : state dict of the image encoder; missing weights start at random
    embeddings : float32 ``(N, D)``, unit length, of each image's captions; zeros where it has none
    run : of the stage; after each epoch its folder holds everything needed to continue

    Raises ``InputError`` when the loss is not finite; the last good epoch is kept.
    """
    torch.manual_seed(run.seed)
    task = EncoderTask(data, split, recipe, embeddings, run=run)
    if initial is not None:
        task.network.encoder.load_state_dict({**task.network.encoder.state_dict(), **initial})
    task.average = moving_average(task.network, task.decay)
    weights = run.work / "encoder.safetensors"
    made_of = identity(
        pictures=data.fingerprint(),
        rows=np.concatenate([split["train"], split["val"]]),
        recipe=recipe,
        start=initial or {},
        embeddings=embeddings,
        seed=run.seed,
        **beyond_half(initial or {}),
    )
    heads = [p for name, p in task.network.named_parameters() if "backbone" not in name]
    rate = recipe.learning_rate
    groups = [
        {"params": task.network.encoder.backbone.parameters(), "lr": rate / 3},
        {"params": heads, "lr": rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
    options = LoopOptions(
        recipe.epochs,
        patience=recipe.patience,
        later_wins=True,
        checkpoint=run.work / "encoder.last.safetensors",
        weights=weights,
        made_of=made_of,
    )
    schedule = warmup_cosine(
        optimizer,
        warmup=task.steps,
        steps=recipe.epochs * task.steps,
        floor=_FLOOR,
        constant=recipe.swa_epochs * task.steps,
    )
    fit(task, optimizer, schedule, options, report=run.report)
    return TrainedEncoder.load(weights)


class EncoderTask(Task[Crops]):
    """Crops of the training part, with their labels and their captions' embeddings."""

    name = "encoder"
    network: LookClassifier
    average: AveragedModel

    def __init__(
        self,
        data: SceneImages,
        split: Split,
        recipe: EncoderRecipe,
        embeddings: NDArray[np.float32] | None,
        *,
        run: StageRun,
    ) -> None:
        self._data, self._split, self._recipe = data, split, recipe
        self._embeddings, self._device = embeddings, run.device
        # Crops are drawn ahead of the steps, so each has a generator of its own.
        drawing, self._generator = (
            torch.Generator().manual_seed(run.seed + number) for number in (0, 1)
        )
        self.generators = (drawing, self._generator)
        self._sampler = CropSampler(
            data,
            split["train"],
            find_windows(data, split["train"])
            if recipe.crops.windows
            else without_windows(data.legend),
            recipe.crops,
            batch_size=recipe.batch_size,
            generator=drawing,
        )
        self.steps = self._sampler.steps
        self._label_loss = LabelLoss(self._sampler.legend)
        self._texture = torch.from_numpy(self._sampler.legend.texture)
        embedding = 0 if embeddings is None else embeddings.shape[1]
        network = LookClassifier(recipe, len(data.classes), embedding)
        self.network = network.to(run.device).to(memory_format=torch.channels_last)

    def decay(self, step: int) -> float:
        """The share of the average that stays after a step, counted from 1."""
        averaged = step - (self._recipe.epochs - self._recipe.swa_epochs) * self.steps
        return min(0.995, (1 + step) / (10 + step)) if averaged <= 0 else 1 - 1 / averaged

    def batches(self, epoch: int) -> Iterator[Crops]:
        """An epoch of crops, drawn while the network is trained on the previous ones."""
        return read_ahead(self._sampler.batches(self._recipe.size_of(epoch)))

    def loss(self, batch: Crops) -> torch.Tensor:
        """The loss of the labels, and the distance to the captions' embedding.

        The latter is weighted by the visible share of the picture.
        """
        recipe = self._recipe
        images = normalize(batch.images, recipe.mean, recipe.std).to(self._device)
        context = self._draw_context(images)
        with mixed_precision(self._device):
            logits, described = self.network(images, context)
        loss = self._look_loss(logits, batch)
        if described is not None and self._embeddings is not None:
            count = len(batch.rows)
            target = torch.from_numpy(self._embeddings[batch.rows]).to(self._device)
            weight = batch.visible[:count].to(self._device) * target.any(1)
            distance = 1 - F.cosine_similarity(described[:count].float(), target)
            loss = loss + recipe.text_weight * (weight * distance).mean()
        return loss

    def _draw_context(self, images: torch.Tensor) -> int:
        """Crops a side of a square that is encoded as one: 1, or 2 for a share of the batches."""
        draw = float(torch.rand(1, generator=self._generator))
        return 2 if self._fits(images) and draw < self._recipe.crops.context else 1

    def _fits(self, images: torch.Tensor) -> bool:
        """Whether a batch can be encoded in squares of two by two crops."""
        encoder = self.network.encoder
        whole = encoder.ground is not None and images.shape[-1] % encoder.stride == 0
        return whole and len(images) % 4 == 0

    def _look_loss(self, logits: FeatureLogits, batch: Crops) -> torch.Tensor:
        """The loss of both parts together, and of each alone.

        Of textures, half of the crops by the ground of one token instead of the whole crop's, and
        by each token's alone.
        """
        labels, visible = batch.labels, batch.visible
        scene, ground, cells = logits.scene.float(), logits.ground, logits.cells
        if ground is None or cells is None:
            return self._label_loss(scene, labels, visible)
        texture = self._texture[labels]
        count, places = cells.shape[:2]
        one = torch.randint(places, (count,), generator=self._generator)
        single = texture & (torch.rand(count, generator=self._generator) < 0.5)
        alone = cells[torch.arange(count), one]  # (B, C)
        read = torch.where(single[:, None].to(scene.device), alone, ground)
        together = self._label_loss(scene + read, labels, visible)
        looks = self._label_loss(scene, labels, visible) + self._label_loss(ground, labels, visible)
        chosen = texture.nonzero().flatten()
        if len(chosen):
            each = cells[chosen].flatten(0, 1)  # (K · textures, C)
            repeated = labels[chosen].repeat_interleave(places)
            looks = looks + self._label_loss(each, repeated, torch.ones(len(each)))
        return together + _LOOK_WEIGHT * looks

    @torch.inference_mode()
    def validate(self, epoch: int) -> float:
        """Accuracy of the averaged weights at the epoch's size, the mean over data sets."""
        data, recipe, size = self._data, self._recipe, self._recipe.size_of(epoch)
        if self._is_averaged(epoch):
            self._renew_statistics(size)
        rows, found = self._split["val"], []
        for part in np.array_split(rows, math.ceil(len(rows) / recipe.batch_size)):
            images = to_input(data.pixels[part])
            if images.shape[-1] != size:
                images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
            with mixed_precision(self._device):
                logits, _ = self.average(
                    normalize(images, recipe.mean, recipe.std).to(self._device)
                )
            scores = logits.both.float().cpu().numpy()
            found.append(scores.argmax(1) == data.truth(scores, part))
        right = np.concatenate(found)
        sets = np.array(data.legend.sets)[data.labels[rows]]
        return float(np.mean([right[sets == name].mean() for name in np.unique(sets)]))

    def competes(self, epoch: int) -> bool:
        """Only accuracies at the final size and with averaged weights are comparable."""
        recipe = self._recipe
        averaged = not recipe.swa_epochs or self._is_averaged(epoch)
        return averaged and recipe.size_of(epoch) == recipe.size

    def _is_averaged(self, epoch: int) -> bool:
        return epoch >= self._recipe.epochs - self._recipe.swa_epochs

    def _renew_statistics(self, size: int) -> None:
        """Compute the statistics of batch normalization, which the averaged weights lack."""
        recipe, average = self._recipe, cast("LookClassifier", self.average.module)
        drawing, *_ = self.generators
        state = drawing.get_state()  # the state of training does not change
        batches = itertools.islice(self._sampler.batches(size), _STATISTICS)
        inputs = (normalize(b.images, recipe.mean, recipe.std).to(self._device) for b in batches)
        squares = (
            laid_out(images, 2 if n % 2 and self._fits(images) else 1)
            for n, images in enumerate(inputs)
        )
        update_bn(squares, average)
        drawing.set_state(state)

    def details(self, epoch: int) -> dict[str, float]:
        """Pixels a side."""
        return {"pixels": self._recipe.size_of(epoch)}

    def weights(self) -> Mapping[str, torch.Tensor]:
        """The averaged weights."""
        average = cast("LookClassifier", self.average.module)
        return average.state_dict()
