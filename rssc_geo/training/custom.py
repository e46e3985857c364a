"""A model for classes of one's own from a few labelled polygons: ``rssc-geo train --raster … --labels …``.

The start bundle's encoder stays as it is. A new classifying layer reads either the joint embedding, or the mean image
token without attention: the attention was learned to tell the start bundle's classes apart and keeps little of what they
do not differ in (benchmarks/few_shot.py), but is better for classes like those. Spatially blocked cross-validation
decides which, measures the layer, and fits the temperature; then it learns from all patches.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rssc_geo.errors import InputError, UsageError
from rssc_geo.inference.device import choose_compute
from rssc_geo.inference.plan import TilingOptions, make_plan
from rssc_geo.models.bundle import Model, load_model, save_bundle
from rssc_geo.models.card import Footprint, ModelCard
from rssc_geo.models.palette import scene_classes
from rssc_geo.training.blocks import blocked_folds
from rssc_geo.training.head import Head, fit_head
from rssc_geo.training.labels import read_labels
from rssc_geo.training.metrics import Scores, fit_temperature, score
from rssc_geo.training.patches import Patches, cut_patches, join_patches
from rssc_geo.training.polygons import PURITY
from rssc_geo.training.readme import polygons_readme

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
_BATCH = 64
_FEW = 5
"""Classes with fewer patches get a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomOptions:
    """What may be chosen of a training from polygons.

    ``column``: column of the class names; ``start``: bundle whose image encoder is used; ``purity``: share of a
    patch that its class has to cover; ``tiling``: how the rasters are read and cut, as for ``classify``.
    """

    column: str = "class"
    start: str | Path = "compact"
    name: str = "trained"
    version: str = "1"
    description: str = ""
    licence: str = "unspecified"
    data: str = ""
    purity: float = PURITY
    tiling: TilingOptions = field(default_factory=TilingOptions)

    def __post_init__(self) -> None:
        if not 0.5 <= self.purity <= 1:
            raise UsageError(f"--purity {self.purity:g} is no share from 0.5 to 1")


@dataclass(frozen=True, slots=True)
class CustomResult:
    """The card as written, the scores of the cross-validation (None: all labels lie in one place), and what to know."""

    card: ModelCard
    scores: Scores | None
    warnings: tuple[str, ...]


def train_on_polygons(
    sources: Sequence[tuple[str | Path, str | Path]],
    output: str | Path,
    *,
    options: CustomOptions | None = None,
    device: str | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> CustomResult:
    """Learn the classes of labelled polygons and write a bundle that every command takes.

    Parameters
    ----------
    sources : pairs of a raster and its labels, see :func:`read_labels`; points stand for the tile around them
    output : the bundle's folder
    device : default the fastest there is
    command : noted in the card as the way to reproduce the bundle
    progress : called as ``progress(stage, done, total)``

    Raises ``InputError`` and ``UsageError``: fewer than two classes, labels that fit no raster, a bundle in the way.
    """
    started = time.monotonic()
    options = options or CustomOptions()
    report = progress or (lambda _stage, _done, _total: None)
    if (Path(output) / "config.json").exists():
        raise InputError(f"{output} holds a bundle already; choose another folder or remove it")
    compute = choose_compute(device)
    start = load_model(options.start)
    parts = []
    for number, (raster, labels) in enumerate(sources):
        report("read", number, len(sources))
        parts.append(_patches(raster, labels, start.card, options))
    report("read", len(sources), len(sources))
    patches = join_patches(parts)
    classes = tuple(sorted(set(patches.labels.tolist())))
    if len(classes) < 2:
        raise InputError(f"only the class {classes[0]!r} is labelled; label at least one other, if only as 'other'")
    codes = np.array([classes.index(name) for name in patches.labels.tolist()])
    report("learn", 0, 1)
    readers = (_silent(start), without_attention(start))
    embeddings = _embed(readers, patches.pixels, compute.device)
    tests = [_validate(embedding, codes, patches, len(classes)) for embedding in embeddings]
    tested = tests[0][1]
    right = [float((logits.argmax(1) == codes[held]).mean()) if len(held) else 0.0 for logits, held in tests]
    best = 0 if len(tested) and right[0] >= right[1] else 1
    log.info("cross-validation: %.3f with attention, %.3f without", *right)
    reader, embedding, logits = readers[best], embeddings[best], tests[best][0]
    warnings = _warnings(classes, codes, patches.mixed, tested)
    for warning in warnings:
        log.warning("%s", warning)
    temperature, scores = 1.0, None
    if len(tested):
        temperature = fit_temperature(logits, codes[tested])
        probabilities = torch.from_numpy(logits / temperature).softmax(1).numpy()
        scores = score(probabilities, codes[tested], class_names=classes)
    everything = np.tile(codes, _VIEWS)
    head = fit_head(embedding.reshape(-1, embedding.shape[-1]), everything, classes=len(classes))
    card = _card(reader.card, options, classes, patches, scores, temperature)
    training = {
        "data": options.data or "labelled polygons",
        "sources": [{"raster": Path(raster).name, "labels": Path(labels).name} for raster, labels in sources],
        "patches": {name: int((codes == code).sum()) for code, name in enumerate(classes)},
        "start": f"{start.card.name} {start.card.version}",
        "minutes": round((time.monotonic() - started) / 60, 1),
        "command": command,
    }
    card = dataclasses.replace(card, training=training)
    model = dataclasses.replace(_with_head(reader, head), card=card)
    written = save_bundle(output, model, readme=polygons_readme(card, scores, warnings))
    report("learn", 1, 1)
    return CustomResult(written, scores, warnings)


_VIEWS = 4
"""Each patch is seen upright, turned by a quarter and a half, and mirrored: from above there is no upright."""


def without_attention(model: Model) -> Model:
    """The model as a classifier by its mean image token alone: no levels of attention, captions are not read."""
    network = copy.copy(model.network)
    network.levels = 0
    return _silent(dataclasses.replace(model, network=network), levels=0)


def _silent(model: Model, **network: int) -> Model:
    """The model reading no captions of its own."""
    if model.card.needs_captions:
        raise UsageError(f"the model {model.card.name!r} sees nothing without captions; start from another (--model)")
    card = dataclasses.replace(model.card, network={**model.card.network, **network}, reads_own_captions=False)
    return dataclasses.replace(model, card=card)


def _patches(raster: str | Path, labels: str | Path, card: ModelCard, options: CustomOptions) -> Patches:
    plan = make_plan(raster, card, options.tiling)
    for warning in plan.warnings:
        log.warning("%s", warning)
    found = read_labels(labels, plan.scene, field=options.column, around_points=plan.grid.size)
    return cut_patches(
        plan.scene,
        plan.grid.size,
        found,
        out_size=card.input_size,
        purity=options.purity,
        min_valid=options.tiling.min_valid,
        stretch=options.tiling.stretch,
    )


@torch.inference_mode()
def _embed(readers: Sequence[Model], pixels: np.ndarray, device: torch.device) -> list[np.ndarray]:
    """For each reader the embedding of every view of every patch, float32 ``(views, N, D)``."""
    turned = [pixels, np.rot90(pixels, 1, (1, 2)), np.rot90(pixels, 2, (1, 2)), pixels[:, :, ::-1]]
    networks = [reader.network.to(device).eval() for reader in readers]
    found: list[list[np.ndarray]] = [[] for _ in readers]
    for view in turned:
        for start in range(0, len(view), _BATCH):
            part = np.ascontiguousarray(view[start : start + _BATCH])
            images = readers[0].preprocess(part, np.ones(part.shape[:3], bool)).to(device)
            tokens = networks[0].encode_image(images)
            for network, parts in zip(networks, found, strict=True):
                parts.append(network.fuse(tokens).float().cpu().numpy())
    return [np.concatenate(parts).reshape(_VIEWS, len(pixels), -1) for parts in found]


def _validate(embedding: np.ndarray, codes: np.ndarray, patches: Patches, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the upright patches by heads that have learned from elsewhere, and which patches these are."""
    logits, tested = [np.zeros((0, classes), np.float32)], [np.zeros(0, np.int64)]
    for training, held in blocked_folds(patches.places, codes, side_m=patches.side_m):
        seen = embedding[:, training].reshape(-1, embedding.shape[-1])
        head = fit_head(seen, np.tile(codes[training], _VIEWS), classes=classes)
        logits.append(head.logits(embedding[0, held]))
        tested.append(held)
    return np.concatenate(logits), np.concatenate(tested)


def _warnings(classes: Sequence[str], codes: np.ndarray, mixed: np.ndarray, tested: np.ndarray) -> tuple[str, ...]:
    """What is weak about the labels."""
    found = []
    for code, name in enumerate(classes):
        mine = codes == code
        if mine.sum() < _FEW:
            found.append(f"class {name!r} has {mine.sum()} patch(es); label at least {_FEW}")
        if mixed[mine].mean() > 0.5:
            found.append(
                f"class {name!r}: {mixed[mine].sum()} of {mine.sum()} patches show mostly something else, since the polygons "
                "are smaller than a tile; draw larger ones or use smaller tiles (--tile-size)"
            )
        if not (codes[tested] == code).any():
            found.append(
                f"class {name!r} is labelled in one place only, so that it could not be measured; label it elsewhere too"
            )
    return tuple(found)


def _with_head(model: Model, head: Head) -> Model:
    """The model with another classifying layer."""
    new = nn.Linear(head.weight.shape[1], len(head.bias))
    with torch.no_grad():
        new.weight.copy_(torch.from_numpy(head.weight))
        new.bias.copy_(torch.from_numpy(head.bias))
    model.network.classifier[1] = new
    return model


def _card(
    start: ModelCard,
    options: CustomOptions,
    classes: Sequence[str],
    patches: Patches,
    scores: Scores | None,
    temperature: float,
) -> ModelCard:
    """The start bundle's card with the new classes; a tile is as large by default as the patches were."""
    near = start.footprint
    footprint = Footprint(min(near.minimum_m, patches.side_m), patches.side_m, max(near.maximum_m, patches.side_m))
    figures: Mapping[str, Any] = {}
    if scores is not None:
        figures = {name: value for name, value in scores.to_dict().items() if isinstance(value, float)}
    return dataclasses.replace(
        start,
        name=options.name,
        version=options.version,
        description=options.description or f"{len(classes)} classes from labelled polygons, on {start.name} {start.version}",
        licence=options.licence,
        classes=scene_classes(list(classes)),
        footprint=footprint,
        temperature=round(temperature, 4),
        accuracy={"cross_validation": figures} if figures else {},
    )
