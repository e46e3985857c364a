"""Stage 1: fine-tune the image encoder as a scene classifier, and cache what it then sees.

Its heads are thrown away afterwards; the cached tokens are what all later stages learn from.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rssc_geo.models import Model, TimmImageEncoder
from rssc_geo.training.augment import augment, normalize, to_input
from rssc_geo.training.data import SceneImages, Split
from rssc_geo.training.label_loss import LabelLoss
from rssc_geo.training.loop import (
    LoopOptions,
    StageRun,
    Task,
    fit,
    mixed_precision,
    moving_average,
    warmup_cosine,
)
from rssc_geo.training.options import EncoderRecipe
from rssc_geo.training.work import identity, is_kept, keeping

log = logging.getLogger(__name__)

_BATCH = 64
_ZOOM = (0.75, 1.3)
"""Views stay wide enough for the captions, which speak of the whole picture, to hold."""

_FLOOR = 1e-3
"""Share of the learning rate that is left at the end of the cosine."""


class _PretextNetwork(nn.Module):
    """The encoder with its two heads: class, and embedding of the captions."""

    def __init__(self, recipe: EncoderRecipe, classes: int, embedding: int) -> None:
        super().__init__()
        self.encoder = TimmImageEncoder(recipe.architecture, recipe.kwargs)
        self.drop = nn.Dropout(0.2)
        self.classify = nn.Linear(self.encoder.width, classes)
        self.describe = nn.Linear(self.encoder.width, embedding) if embedding else None

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits ``(B, C)`` and the predicted caption embedding ``(B, D)``."""
        pooled = self.encoder(images).mean(1)  # (B, T, I) → (B, I)
        return self.classify(self.drop(pooled)), (
            self.describe(pooled) if self.describe is not None else None
        )


def train_encoder(
    data: SceneImages,
    split: Split,
    recipe: EncoderRecipe,
    *,
    initial: Mapping[str, torch.Tensor] | None,
    embeddings: NDArray[np.float32] | None = None,
    run: StageRun,
) -> dict[str, torch.Tensor]:
    """Train, and return the encoder's weights of the epoch best on the validation part.

    AdamW, one warmup epoch, cosine decay; the weights are the exponential moving average, validated
    at the last part's size. A finished run only loads its result.

    Parameters
    ----------
    data : all pictures
    split : its parts; ``train`` is learned, ``val`` validates
    recipe : how
    initial : weights of the timm model
    embeddings : float32 ``(N, D)``, unit length, of each image's captions; zeros where it has none
    run : how the stage runs; after each epoch its folder holds all that is needed to go on

    Raises ``InputError`` when the loss is not finite; the last good epoch is kept.
    """
    torch.manual_seed(run.seed)
    task = _EncoderTask(data, split, recipe, embeddings, run=run)
    if initial is not None:
        task.network.encoder.backbone.load_state_dict(initial)
    task.average = moving_average(task.network, lambda n: min(0.995, (1 + n) / (10 + n)))
    weights = run.work / "encoder.safetensors"
    made_of = identity(
        pictures=data.fingerprint(),
        rows=np.concatenate([split["train"], split["val"]]),
        recipe=recipe,
        start=initial or {},
        embeddings=embeddings,
        seed=run.seed,
    )
    heads = [p for name, p in task.network.named_parameters() if not name.startswith("encoder.")]
    rate = recipe.learning_rate
    groups = [
        {"params": task.network.encoder.parameters(), "lr": rate / 3},
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
        optimizer, warmup=task.steps, steps=recipe.epochs * task.steps, floor=_FLOOR
    )
    fit(task, optimizer, schedule, options, report=run.report)
    return load_file(weights)


class _EncoderTask(Task[tuple[NDArray[np.int64], int]]):
    """Pictures of the training part, augmented, with their classes and their captions' embeddings.

    A batch is the rows of its pictures, and their pixels a side.
    """

    name = "encoder"
    network: _PretextNetwork
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
        self._label_loss = LabelLoss(data.legend)
        self.steps = max(1, len(split["train"]) // recipe.batch_size)
        embedding = 0 if embeddings is None else embeddings.shape[1]
        network = _PretextNetwork(recipe, len(data.classes), embedding)
        self.network = network.to(run.device).to(memory_format=torch.channels_last)
        self._generator = torch.Generator().manual_seed(run.seed)
        self.generators = (self._generator,)

    def batches(self, epoch: int) -> Iterator[tuple[NDArray[np.int64], int]]:
        """The training part in a random order; what does not fill a batch is left out."""
        rows, batch_size = self._split["train"], self._recipe.batch_size
        order = rows[torch.randperm(len(rows), generator=self._generator).numpy()]
        for number in range(self.steps):
            part = order[number * batch_size : (number + 1) * batch_size]
            yield part, self._recipe.size_of(epoch)

    def loss(self, batch: tuple[NDArray[np.int64], int]) -> torch.Tensor:
        """The loss of the labels, and the distance to the captions' embedding.

        The latter is weighted by what of the picture is visible.
        """
        (rows, size), data, recipe = batch, self._data, self._recipe
        images, visible = augment(to_input(data.pixels[rows]), self._generator, size=size)
        with mixed_precision(self._device):
            logits, described = self.network(
                normalize(images, recipe.mean, recipe.std).to(self._device)
            )
        loss = self._label_loss(logits.float(), torch.from_numpy(data.labels[rows]), visible)
        if described is not None and self._embeddings is not None:
            target = torch.from_numpy(self._embeddings[rows]).to(self._device)
            weight = visible.to(self._device) * target.any(1)
            distance = 1 - F.cosine_similarity(described.float(), target)
            loss = loss + recipe.text_weight * (weight * distance).mean()
        return loss

    @torch.inference_mode()
    def validate(self, epoch: int) -> float:
        """Accuracy of the averaged weights at the epoch's size."""
        data, recipe, size = self._data, self._recipe, self._recipe.size_of(epoch)
        rows, right = self._split["val"], 0
        for part in np.array_split(rows, math.ceil(len(rows) / recipe.batch_size)):
            images = to_input(data.pixels[part])
            if images.shape[-1] != size:
                images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
            logits, _ = self.average(normalize(images, recipe.mean, recipe.std).to(self._device))
            scores = logits.float().cpu().numpy()
            right += int((scores.argmax(1) == data.truth(scores, part)).sum())
        return right / len(rows)

    def competes(self, epoch: int) -> bool:
        """Only accuracies at the size that will be used compare with each other."""
        return self._recipe.size_of(epoch) == self._recipe.size

    def details(self, epoch: int) -> dict[str, float]:
        """Pixels a side."""
        return {"pixels": self._recipe.size_of(epoch)}

    def weights(self) -> Mapping[str, torch.Tensor]:
        """The averaged weights of the backbone."""
        average = cast("_PretextNetwork", self.average.module)
        weights: Mapping[str, torch.Tensor] = average.encoder.backbone.state_dict()
        return weights


@dataclass(frozen=True, slots=True)
class Features:
    """Image tokens of V views of N pictures; view 0 is the picture as it is, the others augmented.

    Attributes
    ----------
    tokens : float16 ``(V, N, T, I)``; of the other views only training pictures are filled
    visible : float32 ``(V, N)``, the share of the picture that a view shows
    made_of : hash of the pictures, the network and the views
    """

    tokens: NDArray[np.float16]
    visible: NDArray[np.float32]
    made_of: str = ""


def mean_tokens(tokens: NDArray[np.float16], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Float32 ``(len(rows), I)``: the mean token of each of those pictures, of ``(N, T, I)``."""
    return np.stack([tokens[row].mean(0, dtype=np.float32) for row in rows.tolist()])


@torch.inference_mode()
def cache_features(
    model: Model,
    data: SceneImages,
    rows: NDArray[np.int64],
    *,
    views: int,
    seed: int,
    work: Path,
) -> Features:
    """Tokens of every picture, and of ``views − 1`` augmented copies of the pictures ``rows``.

    Kept in ``work``, from where they are read if they are there, of the same pictures, network and
    views.

    Parameters
    ----------
    model : its network is in evaluation mode, on the device where the tokens are computed
    data : all pictures
    rows : int64, pictures that are augmented too
    views : of each picture
    seed : of the augmentation
    work : folder
    """
    network, card = model.network, model.card
    tokens_file, visible_file = work / "tokens.npy", work / "visible.npy"
    made_of = identity(
        pictures=data.fingerprint(),
        rows=rows,
        weights=network.image_encoder.state_dict(),
        reading=(card.input_size, card.mean, card.std, views, seed),
    )
    if not (is_kept(tokens_file, made_of) and is_kept(visible_file, made_of)):
        generator = torch.Generator().manual_seed(seed)
        size, device = card.input_size[0], network.queries.device
        shape = network.encode_image(torch.zeros(1, 3, *card.input_size, device=device)).shape[1:]
        with keeping(tokens_file, made_of) as made:
            tokens = np.lib.format.open_memmap(
                made, mode="w+", dtype=np.float16, shape=(views, len(data.pixels), *shape)
            )
            visible = np.ones((views, len(data.pixels)), np.float32)
            for view in range(views):
                chosen = rows if view else np.arange(len(data.pixels))
                for part in np.array_split(chosen, -(-len(chosen) // _BATCH)):
                    images = to_input(data.pixels[part])
                    if view:
                        images, shown = augment(images, generator, size=size, zoom=_ZOOM)
                        visible[view, part] = shown.numpy()
                    batch = normalize(images, card.mean, card.std).to(device)
                    tokens[view, part] = network.encode_image(batch).cpu().numpy()
                log.info("features: view %d of %d", view + 1, views)
            tokens.flush()
            del tokens  # Windows renames no file that is mapped
            with keeping(visible_file, made_of) as file, file.open("wb") as stream:
                np.save(stream, visible)
    return Features(np.load(tokens_file, mmap_mode="r"), np.load(visible_file), made_of)
