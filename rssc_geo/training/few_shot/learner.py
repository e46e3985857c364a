"""What learns from labeled patches.

A classifying layer on a bundle's embedding and, if wanted, the image encoder.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from rssc_geo.errors import UsageError
from rssc_geo.models import Model, class_embeddings
from rssc_geo.progress import Progress
from rssc_geo.training.few_shot.blocks import blocked_folds
from rssc_geo.training.few_shot.finetune import fine_tune
from rssc_geo.training.few_shot.head import Head, fit_head
from rssc_geo.training.few_shot.patches import Patches

log = logging.getLogger(__name__)

_BATCH = 64
_VIEWS = 4
"""Each patch is seen upright, turned by a quarter and a half, and mirrored.

From above there is no upright.
"""


def without_attention(model: Model) -> Model:
    """The model as a classifier by its mean image token alone.

    No levels of attention, captions are not read.
    """
    network = copy.copy(model.network)
    network.levels = 0
    return silent(dataclasses.replace(model, network=network), levels=0)


def silent(model: Model, **network: int) -> Model:
    """The model reading no captions of its own."""
    if model.card.needs_captions:
        raise UsageError(
            f"the model {model.card.name!r} sees nothing without captions; start from another"
            " (--model)"
        )
    card = dataclasses.replace(
        model.card, network={**model.card.network, **network}, reads_own_captions=False
    )
    return dataclasses.replace(model, card=card)


class Learner:
    """Learns from patches.

    Which reader of the start bundle to take, its classifying layer and, if wanted, its encoder.
    """

    def __init__(
        self,
        start: Model,
        patches: Patches,
        codes: np.ndarray,
        *,
        classes: Sequence[str],
        words: Mapping[str, Sequence[str]] | None,
        tune: bool,
        device: torch.device,
        report: Progress,
    ) -> None:
        self._patches, self._codes, self._classes = patches, codes, classes
        self._tune, self._device, self._report = tune, device, report
        self._words = (
            None
            if words is None
            else class_embeddings(start, {name: words[name] for name in classes})
        )
        plain = without_attention(start)
        readers = (plain,) if tune or words is not None else (silent(start), plain)
        self._folds = list(blocked_folds(patches.places, codes, side_m=patches.side_m))
        self._candidates = list(
            zip(readers, embed_views(readers, patches.pixels, device), strict=True)
        )
        self._reader, self._embedding = self._candidates[-1]
        self._parts, self._done = len(self._folds) * len(readers) + 1, 0

    def validate(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits of upright patches by the better reader's layers that have learned elsewhere.

        Which patches these are.
        """
        tested = np.concatenate([np.zeros(0, np.int64), *(held for _, held in self._folds)])
        found = []
        for candidate in self._candidates:
            self._reader, self._embedding = candidate
            logits = [self._elsewhere(*fold) for fold in self._folds]
            found.append(np.concatenate([np.zeros((0, len(self._classes)), np.float32), *logits]))
        right = [
            float((logits.argmax(1) == self._codes[tested]).mean()) if len(tested) else 0.0
            for logits in found
        ]
        best = 0 if len(tested) and right[0] >= right[-1] else len(found) - 1
        self._reader, self._embedding = self._candidates[best]
        names = ("without attention",) if len(found) == 1 else ("with attention", "without")
        log.info(
            "cross-validation: %s",
            ", ".join(f"{share:.3f} {name}" for share, name in zip(right, names, strict=True)),
        )
        return found[best], tested

    def learn(self) -> Model:
        """The model that has learned from all patches."""
        everything = np.arange(len(self._codes))
        model, head = self._fit(everything)
        self._report("learn", self._parts, self._parts)
        return _with_head(model, head)

    def _elsewhere(self, training: np.ndarray, held: np.ndarray) -> np.ndarray:
        model, head = self._fit(training)
        if not self._tune:
            return head.logits(self._embedding[0, held])
        return head.logits(
            embed_views([model], self._patches.pixels[held], self._device, views=1)[0][0]
        )

    def _fit(self, rows: np.ndarray) -> tuple[Model, Head]:
        """Reader and layer that know the patches ``rows`` alone."""
        self._report("learn", self._done, self._parts)
        self._done += 1
        labels = self._codes[rows]
        head = self._head(self._embedding[:, rows], labels)
        if not self._tune:
            return self._reader, head
        pixels = self._patches.pixels[rows]
        model = fine_tune(self._reader, head, pixels, labels, device=self._device)
        return model, self._head(embed_views([model], pixels, self._device)[0], labels)

    def _head(self, embedding: np.ndarray, labels: np.ndarray) -> Head:
        flat = embedding.reshape(-1, embedding.shape[-1])
        prior = None
        if self._words is not None:
            prior = said(
                self._reader, self._words, flat, np.bincount(labels, minlength=len(self._classes))
            )
        return fit_head(
            flat, np.tile(labels, len(embedding)), classes=len(self._classes), prior=prior
        )


def said(model: Model, texts: torch.Tensor, embedding: np.ndarray, counts: np.ndarray) -> Head:
    """What words say of the classes, as a layer on the embedding without attention; the less, the
    more patches there are.

    The logits of named classes (:class:`rssc_geo.pipelines.zero_shot.ZeroShotHead`) but for one
    thing: the lengths of the pictures' vectors, which a layer cannot divide by, are all taken for
    their mean over ``embedding`` ``(N, D)``. ``texts``: unit vectors ``(C, X)``; ``counts``:
    patches of each class (C,), of which words weigh as one: 1 / (1 + count).
    """
    assert model.alignment is not None
    alignment = model.alignment.cpu()
    width = alignment.project.in_features
    with torch.inference_mode():
        length = alignment.project(torch.from_numpy(embedding[:, -width:])).norm(dim=1).mean()
        scale = alignment.log_scale.exp() * torch.from_numpy(1 / (1 + counts)).float()[:, None]
        weight = scale * texts @ (alignment.project.weight / length)  # (C, I)
        bias = (scale * texts) @ (alignment.project.bias / length - alignment.center)  # (C,)
    before = np.zeros(
        (len(texts), embedding.shape[1] - width), np.float32
    )  # the learned queries' half says nothing
    return Head(np.concatenate([before, weight.numpy()], axis=1), bias.numpy())


@torch.inference_mode()
def embed_views(
    readers: Sequence[Model], pixels: np.ndarray, device: torch.device, *, views: int = _VIEWS
) -> list[np.ndarray]:
    """For each reader the embedding of the first ``views`` views of uint8 patches ``(N, H, W, 3)``:
    float32 ``(views, N, D)``.

    The readers share one image encoder: the first one's.
    """
    turned = [pixels, np.rot90(pixels, 1, (1, 2)), np.rot90(pixels, 2, (1, 2)), pixels[:, :, ::-1]][
        :views
    ]
    networks = [reader.network.to(device).eval() for reader in readers]
    found: list[list[np.ndarray]] = [[] for _ in readers]
    for view in turned:
        for start in range(0, len(view), _BATCH):
            part = np.ascontiguousarray(view[start : start + _BATCH])
            images = readers[0].preprocess(part, np.ones(part.shape[:3], bool)).to(device)
            tokens = networks[0].encode_image(images)
            for network, parts in zip(networks, found, strict=True):
                parts.append(network.fuse(tokens).float().cpu().numpy())
    return [np.concatenate(parts).reshape(views, len(pixels), -1) for parts in found]


def _with_head(model: Model, head: Head) -> Model:
    """The model with another classifying layer."""
    new = nn.Linear(head.weight.shape[1], len(head.bias))
    with torch.no_grad():
        new.weight.copy_(torch.from_numpy(head.weight))
        new.bias.copy_(torch.from_numpy(head.bias))
    model.network.classifier[1] = new
    return model
