"""The batches of a training at full size."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from rssc_geo.models import Model
from rssc_geo.training.augment import augment, soft_labels
from rssc_geo.training.data import SceneImages
from rssc_geo.training.end_to_end_options import FullRecipe
from rssc_geo.training.stages.encoder import normalize, to_input

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
_ZOOM = (0.5, 1.2)


class FullBatches(Dataset[Batch]):
    """The parts of batches that a process goes through in an epoch, each made from its own seed, in any worker."""

    def __init__(
        self,
        model: Model,
        data: SceneImages,
        rows: list[np.ndarray],
        recipe: FullRecipe,
        *,
        seed: tuple[int, ...],
    ) -> None:
        self._model, self._data, self._rows, self._recipe, self._seed = (
            model,
            data,
            rows,
            recipe,
            seed,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Batch:
        """Images ``(B, 3, H, W)``, token ids and mask ``(B, T)``, and the classes' shares ``(B, C)``."""
        card, data, recipe, rows = self._model.card, self._data, self._recipe, self._rows[place]
        random = np.random.default_rng((*self._seed, place))
        images, visible = to_input(data.pixels[rows]), torch.ones(len(rows))
        if recipe.augment:
            generator = torch.Generator().manual_seed(int(random.integers(2**62)))
            images, visible = augment(images, generator, size=card.input_size[0], zoom=_ZOOM)
        targets = soft_labels(
            torch.from_numpy(data.labels[rows]),
            visible,
            classes=len(data.classes),
            smoothing=recipe.smoothing,
        )
        silent = random.random(len(rows)) < recipe.silent
        texts = [
            "" if quiet else " ".join(data.captions[row])
            for row, quiet in zip(rows.tolist(), silent, strict=True)
        ]
        ids, mask = self._model.tokenize(texts)
        if recipe.compile:  # one shape, so that it is compiled once
            room = (0, card.max_tokens - ids.shape[1])
            ids, mask = F.pad(ids, room), F.pad(mask, room)
        return normalize(images, card.mean, card.std), ids, mask, targets
