"""A model for classes of one's own from a few labelled polygons: ``rssc-geo train --raster … --labels …``.

The start bundle's encoders and attention stay as they are; a new classifying layer reads their joint embedding. It is
measured by spatially blocked cross-validation, whose logits also fit the temperature, and then learns from all patches.
"""

from __future__ import annotations

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
from rssc_geo.training.evaluate import answer
from rssc_geo.training.head import Head, fit_head
from rssc_geo.training.labels import read_labels
from rssc_geo.training.metrics import Scores, fit_temperature, score
from rssc_geo.training.patches import Patches, cut_patches, join_patches
from rssc_geo.training.polygons import PURITY
from rssc_geo.training.readme import polygons_readme

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
_FEW = 5
"""Classes with fewer patches get a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomOptions:
    """What may be chosen of a training from polygons.

    ``column``: column of the class names; ``start``: bundle whose encoders and attention are used; ``purity``: share of a
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
    embedding = _embed(start, patches.pixels, compute.device)
    logits, tested = _validate(embedding, codes, patches, len(classes))
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
    card = _card(start.card, options, classes, patches, scores, temperature)
    training = {
        "data": options.data or "labelled polygons",
        "sources": [{"raster": Path(raster).name, "labels": Path(labels).name} for raster, labels in sources],
        "patches": {name: int((codes == code).sum()) for code, name in enumerate(classes)},
        "start": f"{start.card.name} {start.card.version}",
        "minutes": round((time.monotonic() - started) / 60, 1),
        "command": command,
    }
    card = dataclasses.replace(card, training=training)
    model = dataclasses.replace(_with_head(start, head), card=card)
    written = save_bundle(output, model, readme=polygons_readme(card, scores, warnings))
    report("learn", 1, 1)
    return CustomResult(written, scores, warnings)


_VIEWS = 4
"""Each patch is seen upright, turned by a quarter and a half, and mirrored: from above there is no upright."""


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


def _embed(model: Model, pixels: np.ndarray, device: torch.device) -> np.ndarray:
    """The joint embedding of every view of every patch, float32 ``(views, N, D)``, read as the start bundle reads tiles."""
    turned = [pixels, np.rot90(pixels, 1, (1, 2)), np.rot90(pixels, 2, (1, 2)), pixels[:, :, ::-1]]
    written: list[tuple[str, ...]] = [()] * len(pixels)
    return np.stack(
        [answer(model, np.ascontiguousarray(view), words="own", written=written, device=device).embedding for view in turned]
    )


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
