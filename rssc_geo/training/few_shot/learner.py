"""Training on labeled patches, and its evaluation.

A linear probe on a bundle's embedding, spatially blocked cross-validation of it, and, if wanted,
fine-tuning of the image encoder below it.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import nn

from rssc_geo.errors import UsageError
from rssc_geo.models import DualAttentionClassifier, Model, class_embeddings
from rssc_geo.progress import Progress
from rssc_geo.training.augment import augment, normalize, to_input
from rssc_geo.training.few_shot.patches import Patches
from rssc_geo.training.loop import LoopOptions, Task, fit, mixed_precision, one_cycle

log = logging.getLogger(__name__)

_BATCH = 64
_VIEWS = 4
"""Views of a patch: upright, turned by 90° and 180°, mirrored; from above there is no upright."""
_FOLDS = 5
_PROBE_SCALE = 10.0
"""Embeddings are scaled to this root mean square.

Then a prior of unit variance on the weights allows logits of the right size (see
benchmarks/few_shot.py).
"""
_ABSENT = -30.0
"""Added to the logits of a class without examples."""
_STEPS, _STEP_BATCH = 160, 20
_RATE, _DECAY, _SMOOTHING, _DROPOUT = 5e-4, 0.05, 0.1, 0.2
_ZOOM = (0.7, 1.2)
_ANCHOR = 0.5
"""Weight of the distance to the tokens of the original encoder, which the captioner reads."""


class Learner:
    """Learns classes from patches on top of a bundle's encoder.

    The probe reads either the joint embedding or the mean image token without attention;
    cross-validation decides. With words or fine-tuning it is the latter.
    """

    def __init__(
        self,
        start: Model,
        patches: Patches,
        *,
        words: Mapping[str, Sequence[str]] | None,
        fine_tune: bool,
        device: torch.device,
        report: Progress,
    ) -> None:
        self._patches, self._classes, self._labels = patches, patches.classes, patches.labels
        self._fine_tune, self._device, self._report = fine_tune, device, report
        self._texts = None
        if words is not None:
            self._texts = class_embeddings(start, {name: words[name] for name in self._classes})
        plain = without_attention(start)
        backbones = [plain]
        if not fine_tune and words is None and start.network.image_head is None:
            backbones = [without_captions(start), plain]
        self._folds = list(blocked_folds(patches))
        embeddings = embed_views(backbones, patches.pixels, device, report=report)
        self._candidates = list(zip(backbones, embeddings, strict=True))
        self._backbone, self._embedding = self._candidates[-1]
        self._parts, self._done = len(self._folds) * len(backbones) + 1, 0

    def cross_validate(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Choose the embedding, and return its out-of-fold logits.

        Logits (K, C) of the upright patches that could be tested, and which patches these are (K,).
        """
        tested = np.concatenate([np.zeros(0, np.int64), *(held for _, held in self._folds)])
        found = []
        for candidate in self._candidates:
            self._backbone, self._embedding = candidate
            logits = [self._out_of_fold(*fold) for fold in self._folds]
            found.append(np.concatenate([np.zeros((0, len(self._classes)), np.float32), *logits]))
        right = [
            float((logits.argmax(1) == self._labels[tested]).mean()) if len(tested) else 0.0
            for logits in found
        ]
        best = 0 if len(tested) and right[0] >= right[-1] else len(found) - 1
        self._backbone, self._embedding = self._candidates[best]
        names = ("without attention",) if len(found) == 1 else ("with attention", "without")
        log.info(
            "cross-validation: %s",
            ", ".join(f"{share:.3f} {name}" for share, name in zip(right, names, strict=True)),
        )
        return found[best], tested

    def fit(self) -> Model:
        """The model that has learned from all patches."""
        model, probe = self._fit(np.arange(len(self._labels)))
        self._learned = model, probe
        self._report("learn", self._parts, self._parts)
        classifier = nn.Linear(probe.weight.shape[1], len(probe.bias))
        with torch.no_grad():
            classifier.weight.copy_(torch.from_numpy(probe.weight))
            classifier.bias.copy_(torch.from_numpy(probe.bias))
        network = _with_own_parts(model.network)
        network.replace_classes(classifier)
        # Classes unknown to the start bundle may be just those that were learned now.
        card = dataclasses.replace(model.card, familiarity=None)
        return dataclasses.replace(model, card=card, network=network, familiarity=None)

    def test(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, C) of other patches (N, H, W, 3), upright, by the model that ``fit`` made."""
        model, probe = self._learned
        return probe.logits(embed_views([model], pixels, self._device, views=1)[0][0])

    def _out_of_fold(
        self, training: NDArray[np.int64], held: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Logits (H, C) of the patches ``held``, learned from ``training``."""
        model, probe = self._fit(training)
        if not self._fine_tune:
            return probe.logits(self._embedding[0, held])
        views = embed_views([model], self._patches.pixels[held], self._device, views=1)
        return probe.logits(views[0][0])

    def _fit(self, rows: NDArray[np.int64]) -> tuple[Model, LinearProbe]:
        """Encoder and probe trained on the patches ``rows`` alone."""
        self._report("learn", self._done, self._parts)
        self._done += 1
        labels = self._labels[rows]
        probe = self._probe(self._embedding[:, rows], labels)
        if not self._fine_tune:
            return self._backbone, probe
        pixels = self._patches.pixels[rows]
        model = fine_tune(self._backbone, probe, pixels, labels, device=self._device)
        return model, self._probe(embed_views([model], pixels, self._device)[0], labels)

    def _probe(self, views: NDArray[np.float32], labels: NDArray[np.int64]) -> LinearProbe:
        """The probe of embeddings (V, N, D) of every view."""
        classes, flat = len(self._classes), views.reshape(-1, views.shape[-1])
        prior = None
        if self._texts is not None:
            counts = np.bincount(labels, minlength=classes)
            prior = word_prior(self._backbone, self._texts, flat, counts)
        return fit_probe(flat, np.tile(labels, len(views)), classes=classes, prior=prior)


def without_attention(model: Model) -> Model:
    """The model as a classifier by its mean image token: no attention, captions are not read."""
    if model.network.image_head is not None:
        return without_captions(model)
    network = copy.copy(model.network)
    network.levels = 0
    return without_captions(dataclasses.replace(model, network=network), levels=0)


def without_captions(model: Model, **network: int) -> Model:
    """The model reading no captions of its own, with changes of the card's ``network``.

    Raises ``UsageError`` for a model that cannot do without captions.
    """
    if model.card.needs_captions:
        raise UsageError(
            f"the model {model.card.name!r} sees nothing without captions; start from another"
            " (--model)"
        )
    card = dataclasses.replace(
        model.card, network={**model.card.network, **network}, reads_own_captions=False
    )
    return dataclasses.replace(model, card=card)


@torch.inference_mode()
def embed_views(
    models: Sequence[Model],
    pixels: NDArray[np.uint8],
    device: torch.device,
    *,
    views: int = _VIEWS,
    report: Progress | None = None,
) -> list[NDArray[np.float32]]:
    """Each model's embedding of the first views of patches.

    Parameters
    ----------
    models : all with the image encoder of the first
    pixels : uint8 (N, H, W, 3)
    views : at most 4
    report : called after each batch, with the stage "look"

    Returns float32 (views, N, D) for each model.
    """
    turned = [pixels, np.rot90(pixels, 1, (1, 2)), np.rot90(pixels, 2, (1, 2)), pixels[:, :, ::-1]]
    networks = [model.network.to(device).eval() for model in models]
    found: list[list[NDArray[np.float32]]] = [[] for _ in models]
    for number, view in enumerate(turned[:views]):
        for start in range(0, len(view), _BATCH):
            if report is not None:
                report("look", number * len(view) + start, views * len(view))
            part = np.ascontiguousarray(view[start : start + _BATCH])
            images = models[0].preprocess(part, np.ones(part.shape[:3], bool)).to(device)
            tokens = networks[0].encode_image(images)
            for network, parts in zip(networks, found, strict=True):
                parts.append(network.embed(tokens).float().cpu().numpy())
    return [np.concatenate(parts).reshape(views, len(pixels), -1) for parts in found]


# The linear probe.


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A linear classifier of embeddings: ``weight`` float32 (C, D), ``bias`` float32 (C,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, embedding: NDArray[np.floating]) -> NDArray[np.float32]:
        """Logits (N, C) of embeddings (N, D)."""
        return np.asarray(embedding @ self.weight.T + self.bias, np.float32)


def fit_probe(
    embedding: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    classes: int,
    prior: LinearProbe | None = None,
) -> LinearProbe:
    """Multinomial logistic regression with an L2 penalty, all classes counting the same.

    Parameters
    ----------
    embedding : floats (N, D); centered and scaled by one number for the fit, which the probe
        returned undoes
    labels : integers (N,), 0 to ``classes`` − 1; a class without examples gets logits far below the
        others'
    prior : a probe from which the weights are penalized for departing, instead of from zero

    The loss is convex: the result does not depend on a seed.

    Without a prior and with examples of all classes this is scikit-learn's
    ``LogisticRegression(C=1, class_weight="balanced")`` (checked by a test), which however
    penalizes the distance from zero alone and takes no offset, so that words could not be a prior.
    """
    x = torch.from_numpy(np.asarray(embedding, np.float64))
    center = x.mean(0)
    scale = (x - center).pow(2).sum(1).mean().sqrt().clamp(min=1e-12) / _PROBE_SCALE
    x = (x - center) / scale
    y = torch.from_numpy(labels.astype(np.int64))
    counts = torch.bincount(y, minlength=classes)
    balance = torch.where(counts > 0, len(y) / ((counts > 0).sum() * counts.clamp(min=1)), 0.0).to(
        x.dtype
    )
    absent = torch.where(counts > 0, 0.0, _ABSENT).to(x.dtype)
    offset = absent if prior is None else absent + torch.from_numpy(prior.logits(embedding))
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=300, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = x @ weight.T + bias + offset
        loss = F.cross_entropy(logits, y, weight=balance, reduction="sum")
        loss = (loss + weight.pow(2).sum() / 2) / len(y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        final = weight / scale
        shift = bias + absent - final @ center
        if prior is not None:
            final += torch.from_numpy(prior.weight)
            shift += torch.from_numpy(prior.bias)
    return LinearProbe(final.numpy().astype(np.float32), shift.numpy().astype(np.float32))


def word_prior(
    model: Model,
    texts: torch.Tensor,
    embedding: NDArray[np.float32],
    counts: NDArray[np.integer],
) -> LinearProbe:
    """Named classes as a probe of the embedding without attention.

    Its logits are those of :class:`rssc_geo.models.ZeroShotHead` with one exception: a linear probe
    cannot divide by the lengths of the pictures' vectors, so their mean is used instead.

    Parameters
    ----------
    model : with an alignment of pictures and texts
    texts : unit vectors (C, X), one a class
    embedding : float32 (N, D); the mean image token is the last columns
    counts : patches of each class (C,); words weigh as one patch more: 1 / (1 + count)
    """
    alignment = model.alignment
    assert alignment is not None  # noqa: S101 -- without one, class_embeddings made no texts
    alignment = alignment.cpu()
    width = alignment.project.in_features
    with torch.inference_mode():
        length = alignment.project(torch.from_numpy(embedding[:, -width:])).norm(dim=1).mean()
        scale = alignment.log_scale.exp() * torch.from_numpy(1 / (1 + counts)).float()[:, None]
        weight = scale * texts @ (alignment.project.weight / length)  # (C, I)
        bias = (scale * texts) @ (alignment.project.bias / length - alignment.center)  # (C,)
    # The columns before are those of the learned queries, which are independent of words.
    before = np.zeros((len(texts), embedding.shape[1] - width), np.float32)
    return LinearProbe(np.concatenate([before, weight.numpy()], axis=1), bias.numpy())


# Spatially blocked cross-validation.


def blocked_folds(patches: Patches) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to train on and to test, fold by fold, so that no neighbors lie on both sides.

    Blocks (``Patches.blocks``) are dealt to five folds, the largest first, each to the fold that
    has least of the block's classes. A patch trains only if it overlaps no tested one and does not
    touch it (buffered leave-block-out validation: Roberts et al., 2017, Ecography 40). Classes that
    the rest of a fold lacks are not tested in it.

    Yields pairs of index arrays; fewer than five where there are fewer blocks, none for a single
    block.
    """
    labels, block = patches.labels, patches.blocks
    counts = np.zeros((block.max() + 1, labels.max() + 1))
    np.add.at(counts, (block, labels), 1)
    share = counts / counts.sum(0).clip(min=1)
    folds = min(_FOLDS, len(counts))
    held = np.zeros((folds, counts.shape[1]))
    fold_of = np.zeros(len(counts), np.int64)
    for number in np.argsort(-share.sum(1), kind="stable").tolist():
        fold_of[number] = (held @ (counts[number] > 0) + 1e-6 * held.sum(1)).argmin()
        held[fold_of[number]] += share[number]
    if folds < 2:
        return
    for fold in range(folds):
        tested = np.flatnonzero(fold_of[block] == fold)
        others = np.flatnonzero(fold_of[block] != fold)
        if not len(tested):
            continue
        training = others[~near(patches.places[others], patches.places[tested], patches.side_m)]
        known = np.isin(labels[tested], labels[training])
        if known.any() and len(np.unique(labels[training])) > 1:
            yield training, tested[known]


def near(
    places: NDArray[np.float64], others: NDArray[np.float64], side_m: float
) -> NDArray[np.bool_]:
    """Whether patches at places (N, 3) overlap or touch one of those at others (M, 3), (N,)."""
    distance, _ = cKDTree(others).query(places)
    return np.asarray(distance <= np.sqrt(2) * side_m)


# Fine-tuning.


def fine_tune(
    model: Model,
    probe: LinearProbe,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.integer],
    *,
    device: torch.device,
) -> Model:
    """The model with an image encoder that has learned from labeled patches, all else as it was.

    Starts from a linear probe that fits the original encoder, so that the first steps do not
    distort its features (Kumar et al., "Fine-Tuning can Distort Pretrained Features", ICLR 2022). A
    fixed number of steps for any number of patches, with all classes equally frequent; statistics
    of batch normalization are kept, since a few patches of one scene are no representative sample.
    The loss also penalizes the distance of tokens from those of the original encoder.

    Parameters
    ----------
    model : its ``image_encoder`` is read and copied, not changed
    probe : what :func:`fit_probe` found for the encoder as it is, on the embedding of a model
        without attention, whose last columns are the mean image token's
    pixels : uint8 (N, H, W, 3)
    labels : integers (N,), 0 to C − 1, C as in ``probe``

    The result is the same each time on one machine's processor.
    """
    task = _FineTuning(model, probe, pixels, labels, device)
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = one_cycle(optimizer, _RATE, steps=_STEPS)
    fit(task, optimizer, schedule, LoopOptions(epochs=1, log_epochs=False))
    network = _with_own_parts(model.network)
    network.image_encoder = task.encoder.eval().requires_grad_(requires_grad=False)
    return dataclasses.replace(model, network=network)


def _with_own_parts(network: DualAttentionClassifier) -> DualAttentionClassifier:
    """A network of the same parts, any of which can be replaced without changing the first one."""
    copied = copy.copy(network)
    copied._modules = dict(copied._modules)  # noqa: SLF001 -- a shallow copy shares the list of them
    return copied


class _FineTuning(Task[torch.Tensor]):
    """A copy of a model's image encoder, and a linear layer on its mean token; batches are rows."""

    name = "fine-tuning"

    def __init__(
        self,
        model: Model,
        probe: LinearProbe,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.integer],
        device: torch.device,
    ) -> None:
        self._card, self._device = model.card, device
        self._before = model.network.image_encoder.to(device).eval()
        self.encoder = copy.deepcopy(self._before).requires_grad_()
        layer = nn.Linear(self.encoder.width, len(probe.bias))
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(probe.weight[:, -self.encoder.width :]))
            layer.bias.copy_(torch.from_numpy(probe.bias))
        self._layer = layer.to(device)
        self.network = nn.ModuleList([self.encoder, self._layer])
        self._images, self._codes = to_input(pixels), torch.from_numpy(labels.astype(np.int64))
        self._generator = torch.Generator().manual_seed(0)

    def train_mode(self) -> None:
        """Leave the statistics of batch normalization as they are."""
        self.network.eval()

    def batches(self, epoch: int) -> Iterator[torch.Tensor]:  # noqa: ARG002 -- there is one
        """Rows of the patches of each step, every class drawn as often."""
        codes = self._codes
        odds = 1 / torch.bincount(codes).clamp(min=1)[codes].float()
        count = min(_STEP_BATCH, len(codes))
        for _ in range(_STEPS):
            yield torch.multinomial(odds, count, generator=self._generator)

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of augmented patches, and how far their tokens have moved."""
        size = self._images.shape[-1]
        views, _ = augment(self._images[batch], self._generator, size=size, zoom=_ZOOM)
        images = normalize(views, self._card.mean, self._card.std).to(self._device)
        with mixed_precision(self._device):
            tokens = self.encoder(images)  # (B, T, I)
            with torch.no_grad():
                anchor = self._before(images)
        tokens, anchor = tokens.float(), anchor.float()
        pooled = tokens.mean(1)
        kept = torch.rand(pooled.shape, generator=self._generator).to(self._device) >= _DROPOUT
        logits = self._layer(pooled * kept / (1 - _DROPOUT))
        codes = self._codes[batch].to(self._device)
        loss: torch.Tensor = F.cross_entropy(logits, codes, label_smoothing=_SMOOTHING)
        moved: torch.Tensor = F.mse_loss(tokens, anchor) / anchor.var().clamp(min=1e-12)
        return loss + _ANCHOR * moved
