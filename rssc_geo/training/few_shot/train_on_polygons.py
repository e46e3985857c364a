"""A model for classes of one's own from a few labeled polygons: ``rssc-geo train --raster …
--labels …``.

The start bundle's encoder stays as it is, unless it is to be fine-tuned. A new classifying layer
reads either the joint embedding, or the mean image token without attention: the attention was
learned to tell the start bundle's classes apart and keeps little of what they do not differ in
(benchmarks/few_shot.py), but is better for classes like those. Spatially blocked cross-validation
decides which (training/learner.py), measures the layer, and fits the temperature; then it learns
from all patches.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rssc_geo.errors import InputError, UsageError
from rssc_geo.inference import choose_compute, make_plan
from rssc_geo.models import Footprint, ModelCard, load_bundle, save_bundle, scene_classes
from rssc_geo.options import TilingOptions
from rssc_geo.progress import Progress
from rssc_geo.training.few_shot.labels import read_labels
from rssc_geo.training.few_shot.learner import Learner
from rssc_geo.training.few_shot.patches import Patches, cut_patches, join_patches
from rssc_geo.training.few_shot.polygons import PURITY
from rssc_geo.training.metrics import Scores, fit_temperature, score
from rssc_geo.training.readme import polygons_readme

log = logging.getLogger(__name__)

_FEW = 5
"""Classes with fewer patches get a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomOptions:
    """What may be chosen of a training from polygons.

    ``column``: column of the class names; ``start``: bundle whose image encoder is used;
    ``purity``: share of a patch that its class has to cover; ``fine_tune``: the image encoder
    learns too (minutes instead of seconds); ``words``: phrases for each class, which help where
    there are one or two patches of it; ``tiling``: how the rasters are read and cut, as for
    ``classify``.
    """

    column: str = "class"
    start: str | Path = "compact"
    name: str = "trained"
    version: str = "1"
    description: str = ""
    license: str = "unspecified"
    data: str = ""
    purity: float = PURITY
    fine_tune: bool = False
    words: Mapping[str, Sequence[str]] | None = None
    tiling: TilingOptions = field(default_factory=TilingOptions)

    def __post_init__(self) -> None:
        if not 0.5 <= self.purity <= 1:
            raise UsageError(f"--purity {self.purity:g} is no share from 0.5 to 1")


@dataclass(frozen=True, slots=True)
class CustomResult:
    """The card as written, the scores of the cross-validation (None.

    All labels lie in one place), and what to know.
    """

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
    """Learn the classes of labeled polygons and write a bundle that every command takes.

    Parameters
    ----------
    sources : pairs of a raster and its labels, see :func:`read_labels`; points stand for the tile
        around them
    output : the bundle's folder
    device : default the fastest there is
    command : noted in the card as the way to reproduce the bundle
    progress : called as ``progress(stage, done, total)``

    Raises ``InputError`` and ``UsageError``: fewer than two classes, labels that fit no raster, a
    bundle in the way.
    """
    started = time.monotonic()
    options = options or CustomOptions()
    report = progress or (lambda _stage, _done, _total: None)
    if (Path(output) / "config.json").exists():
        raise InputError(f"{output} holds a bundle already; choose another folder or remove it")
    compute = choose_compute(device)
    start = load_bundle(options.start)
    parts = []
    for number, (raster, labels) in enumerate(sources):
        report("read", number, len(sources))
        parts.append(_patches(raster, labels, start.card, options))
    report("read", len(sources), len(sources))
    patches = join_patches(parts)
    classes = tuple(sorted(set(patches.labels.tolist())))
    if len(classes) < 2:
        raise InputError(
            f"only the class {classes[0]!r} is labeled; label at least one other, if only as"
            " 'other'"
        )
    if options.words is not None and (silent := set(classes) - set(options.words)):
        raise UsageError(
            f"words are given, but none for {', '.join(map(repr, sorted(silent)))}; the labels have"
            " these classes"
        )
    codes = np.array([classes.index(name) for name in patches.labels.tolist()])
    learner = Learner(
        start, patches, codes,
        classes=classes, words=options.words, tune=options.fine_tune, device=compute.device, report=report,
    )  # fmt: skip
    logits, tested = learner.validate()
    warnings = _warnings(classes, codes, patches.mixed, tested)
    for warning in warnings:
        log.warning("%s", warning)
    temperature, scores = 1.0, None
    if len(tested):
        temperature = fit_temperature(logits, codes[tested])
        probabilities = torch.from_numpy(logits / temperature).softmax(1).numpy()
        scores = score(probabilities, codes[tested], class_names=classes)
    model = learner.learn()
    card = _card(model.card, options, classes, patches, scores, temperature)
    training = {
        "data": options.data or "labeled polygons",
        "sources": [
            {"raster": Path(raster).name, "labels": Path(labels).name} for raster, labels in sources
        ],
        "patches": {name: int((codes == code).sum()) for code, name in enumerate(classes)},
        "start": f"{start.card.name} {start.card.version}",
        "minutes": round((time.monotonic() - started) / 60, 1),
        "command": command,
    }
    card = dataclasses.replace(card, training=training)
    written = save_bundle(
        output,
        dataclasses.replace(model, card=card),
        readme=polygons_readme(card, scores, warnings),
    )
    return CustomResult(written, scores, warnings)


def _patches(
    raster: str | Path, labels: str | Path, card: ModelCard, options: CustomOptions
) -> Patches:
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


def _warnings(
    classes: Sequence[str], codes: np.ndarray, mixed: np.ndarray, tested: np.ndarray
) -> tuple[str, ...]:
    """What is weak about the labels."""
    found = []
    for code, name in enumerate(classes):
        mine = codes == code
        if mine.sum() < _FEW:
            found.append(f"class {name!r} has {mine.sum()} patch(es); label at least {_FEW}")
        if mixed[mine].mean() > 0.5:
            found.append(
                f"class {name!r}: {mixed[mine].sum()} of {mine.sum()} patches show mostly something"
                " else, since the polygons are smaller than a tile; draw larger ones or use"
                " smaller tiles (--tile-size)"
            )
        if not (codes[tested] == code).any():
            found.append(
                f"class {name!r} is labeled in one place only, so that it could not be measured;"
                " label it elsewhere too"
            )
    return tuple(found)


def _card(
    start: ModelCard,
    options: CustomOptions,
    classes: Sequence[str],
    patches: Patches,
    scores: Scores | None,
    temperature: float,
) -> ModelCard:
    """The start bundle's card with the new classes.

    A tile is as large by default as the patches were.
    """
    near = start.footprint
    footprint = Footprint(
        min(near.minimum_m, patches.side_m), patches.side_m, max(near.maximum_m, patches.side_m)
    )
    figures: Mapping[str, Any] = {}
    if scores is not None:
        figures = {
            name: value for name, value in scores.to_dict().items() if isinstance(value, float)
        }
    return dataclasses.replace(
        start,
        name=options.name,
        version=options.version,
        description=options.description
        or f"{len(classes)} classes from labeled polygons, on {start.name} {start.version}",
        license=options.license,
        classes=scene_classes(list(classes)),
        footprint=footprint,
        temperature=round(temperature, 4),
        accuracy={"cross_validation": figures} if figures else {},
    )
