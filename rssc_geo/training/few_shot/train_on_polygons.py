"""A model for classes of one's own from a few labeled polygons.

The start bundle's encoder stays as it is, unless it is to be fine-tuned. A new classifying layer
reads either the joint embedding, or the mean image token without attention: the attention was
trained to separate the start bundle's classes and drops most other features
(benchmarks/few_shot.py), but is better for similar classes. Spatially blocked cross-validation
selects one (learner.py), measures the layer, and fits the temperature; then the layer is trained on
all patches.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import InputError, UsageError
from rssc_geo.files import check_writable, paths_of
from rssc_geo.inference import Plan, Source
from rssc_geo.models import (
    Footprint,
    ModelCard,
    check_bundle_folder,
    load_card,
    phrases_of,
    scene_classes,
)
from rssc_geo.options import TrainOnPolygonsOptions, check_suffixes
from rssc_geo.pipelines import read_class_words
from rssc_geo.progress import Progress, reporting
from rssc_geo.reports import write_training_page
from rssc_geo.training.few_shot.labels import Labels, labels_mark
from rssc_geo.training.few_shot.measured import measure, measure_apart
from rssc_geo.training.few_shot.patches import Patches, cut_patches, join_patches, read_labeled
from rssc_geo.training.metrics import NOT_MEASURED, Measured, Scores, fit_temperature
from rssc_geo.training.readme import polygons_readme

if TYPE_CHECKING:
    from rssc_geo.models import Model
    from rssc_geo.training.few_shot.learner import Learner

log = logging.getLogger(__name__)

_FEW = 5
"""Classes with fewer patches get a warning."""


@dataclass(frozen=True, slots=True)
class TrainOnPolygonsResult:
    """The bundle that was written, and its accuracy.

    Attributes
    ----------
    bundle : its folder
    card : its card, as written
    measured : its accuracy; None where all labels lie in one place
    warnings : weaknesses of the labels
    """

    bundle: Path
    card: ModelCard
    measured: Measured | None
    warnings: tuple[str, ...]

    @property
    def scores(self) -> Scores | None:
        """The figures alone."""
        return None if self.measured is None else self.measured.scores

    def as_dict(self) -> dict[str, Any]:
        """The result as plain data for JSON."""
        return {
            "bundle": str(self.bundle),
            "patches": dict(self.card.training["patches"]),
            **(NOT_MEASURED if self.measured is None else self.measured.as_dict()),
            "warnings": list(self.warnings),
        }


def train_on_polygons(
    sources: Iterable[tuple[Source, str | Path]],
    output: str | Path,
    options: TrainOnPolygonsOptions | None = None,
    *,
    command: str = "",
    progress: Progress | bool | None = None,
) -> TrainOnPolygonsResult:
    """Learn the classes of labeled polygons and write a bundle that every command takes.

    Parameters
    ----------
    sources : pairs of a raster and its labels, see :func:`read_labels`; points stand for the tile
        around them
    output : the bundle's folder
    options : all that the command line has; its defaults
    command : noted in the card as the way to reproduce the bundle
    progress : called as ``progress(stage, done, total)``; True: a bar

    Raises ``InputError`` and ``UsageError``: fewer than two classes, labels that fit no raster, a
    bundle in the way.

    Examples
    --------
    >>> from rssc_geo import TrainOnPolygonsOptions, train_on_polygons
    >>> options = TrainOnPolygonsOptions(field="label", tile_size="300m")
    >>> result = train_on_polygons([("scene.tif", "labels.geojson")], "mine", options)
    >>> len(result.card.classes) > 2
    True
    """
    started = time.monotonic()
    options, sources = options or TrainOnPolygonsOptions(), list(sources)
    _check(Path(output), options)
    words = _class_words(options)
    card = load_card(options.model)

    def read(raster: Source, labels: str | Path) -> tuple[Plan, Labels]:
        group = options.group_field
        return read_labeled(raster, labels, card, options, field=options.field, group_field=group)

    labeled = [read(raster, labels) for raster, labels in sources]
    tests = None
    if options.test_labels:
        pairs = zip(sources, _each(options.test_labels, len(sources)), strict=True)
        tests = [read(raster, labels) for (raster, _), labels in pairs]

    # All checks without torch and the weights are done; they are loaded from here on.
    from rssc_geo.inference import choose_compute
    from rssc_geo.models import load_bundle, save_bundle
    from rssc_geo.training.few_shot.learner import Learner

    compute = choose_compute(options.device)
    start = load_bundle(options.model)
    with reporting(progress) as report:
        patches = _cut(labeled, card, options, report)
        _check_classes(patches.classes, words)
        apart = None if tests is None else _apart(_cut(tests, card, options, report), patches)
        learner = Learner(
            start, patches,
            words=words, fine_tune=options.fine_tune, device=compute.device, report=report,
        )  # fmt: skip
        learned = _learn(learner, patches, apart)
    training = {
        **_record(sources, options, patches, card),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "command": command,
    }
    measured, warnings = learned.measured, learned.warnings
    card = _card(learned.model.card, options, patches, measured, learned.temperature)
    card = dataclasses.replace(card, training=training)
    written = save_bundle(
        output,
        dataclasses.replace(learned.model, card=card),
        readme=polygons_readme(card, measured, warnings),
        overwrite=False,
    )
    result = TrainOnPolygonsResult(Path(output), written, measured, warnings)
    if options.report is not None:
        write_training_page(Path(options.report), written, result.as_dict(), overwrite=False)
    return result


@dataclass(frozen=True, slots=True)
class _Learned:
    """A model of the patches' classes, its calibration and accuracy, and weaknesses of the labels.

    ``measured``: None where all labels lie in one place.
    """

    model: Model
    temperature: float
    measured: Measured | None
    warnings: tuple[str, ...]


def _learn(learner: Learner, patches: Patches, apart: Patches | None) -> _Learned:
    """Cross-validate, calibrate, train on all patches, and measure.

    ``apart``: the patches to measure on; None: those of the cross-validation.
    """
    from scipy.special import softmax

    logits, tested = learner.cross_validate()
    warnings = _warnings(patches, tested)
    for warning in warnings:
        log.warning("%s", warning)
    temperature, measured = 1.0, None
    if len(tested):
        allowed = np.eye(len(patches.classes), dtype=bool)[patches.labels[tested]]
        temperature = fit_temperature(logits, allowed)
        measured = measure(softmax(logits / temperature, axis=1), patches, tested)
    model = learner.fit()
    if apart is not None:
        probabilities = softmax(learner.test(apart.pixels) / temperature, axis=1)
        measured = measure_apart(probabilities, apart, patches.classes)
    return _Learned(model, temperature, measured, warnings)


def _record(
    sources: Sequence[tuple[Source, str | Path]],
    options: TrainOnPolygonsOptions,
    patches: Patches,
    start: ModelCard,
) -> dict[str, Any]:
    """What the card says of the data and the start."""
    counts = np.bincount(patches.labels).tolist()
    return {
        "data": options.data or "labeled polygons",
        "sources": [
            {
                "raster": _name(raster),
                "labels": Path(labels).name,
                "labels_sha256": labels_mark(labels),
            }
            for raster, labels in sources
        ],
        "patches": dict(zip(patches.classes, counts, strict=True)),
        "start": f"{start.name} {start.version}",
    }


def _check(output: Path, options: TrainOnPolygonsOptions) -> None:
    """Refuse options without effect and an existing bundle."""
    check_bundle_folder(output)
    if options.cell_size is not None:
        raise UsageError("--cell-size has no effect here: patches are as large as tiles")
    check_suffixes(options)
    if options.report is not None:
        check_writable(Path(options.report), overwrite=False)


def _class_words(options: TrainOnPolygonsOptions) -> Mapping[str, Sequence[str]] | None:
    """The words of the classes, from their file if they are in one."""
    words = options.class_words
    if words is None:
        return None
    if isinstance(words, str):
        return read_class_words(words)
    return {name: phrases_of(words[name]) for name in words}


def _each(labels: Sequence[str], rasters: int) -> Sequence[str]:
    """The labels of each raster; ``UsageError`` where there are neither one nor as many."""
    if len(labels) not in {1, rasters}:
        raise UsageError("give --test-labels once for all rasters, or once for each")
    return labels if len(labels) == rasters else [labels[0]] * rasters


def _apart(tests: Patches, learned: Patches) -> Patches:
    """The patches to test on that nothing learned overlaps or touches, of classes that are learned.

    Raises ``InputError`` where there is none.
    """
    from rssc_geo.training.few_shot.learner import near

    known = np.isin(tests.names, learned.classes)
    close = near(tests.places, learned.places, learned.side_m)
    for left_out, why in (
        (~known, "of classes that are not learned"),
        (known & close, "that touch what is learned from"),
    ):
        if left_out.any():
            log.warning("--test-labels: %d patch(es) %s left out", int(left_out.sum()), why)
    if not (known & ~close).any():
        raise InputError("--test-labels: no patch lies apart from what is learned from")
    return tests.take(known & ~close)


def _cut(
    labeled: Sequence[tuple[Plan, Labels]],
    card: ModelCard,
    options: TrainOnPolygonsOptions,
    report: Progress,
) -> Patches:
    """The patches of all rasters."""
    parts = []
    for number, (plan, labels) in enumerate(labeled):
        report("read", number, len(labeled))
        parts.append(cut_patches(plan, labels, purity=options.purity, out_size=card.input_size))
    report("read", len(labeled), len(labeled))
    return join_patches(parts)


def _check_classes(classes: Sequence[str], words: Mapping[str, Sequence[str]] | None) -> None:
    """Refuse labels without two classes, and words that do not match them."""
    if len(classes) < 2:
        raise InputError(
            f"only the class {classes[0]!r} is labeled; label at least one other, if only as"
            " 'other'"
        )
    if words is not None and (wordless := set(classes) - set(words)):
        raise UsageError(
            f"words are given, but none for {', '.join(map(repr, sorted(wordless)))}; the labels"
            " have these classes"
        )


def _warnings(patches: Patches, tested: NDArray[np.int64]) -> tuple[str, ...]:
    """Weaknesses of the labels, each with the classes that have it."""
    few, mixed, untested = [], [], []
    for code, name in enumerate(patches.classes):
        own = patches.labels == code
        if own.sum() < _FEW:
            few.append(f"{name!r} {own.sum()}")
        if patches.mixed[own].mean() > 0.5:
            mixed.append(f"{name!r} {patches.mixed[own].sum()} of {own.sum()}")
        if not own[tested].any():
            untested.append(repr(name))
    found = []
    if few:
        found.append(f"classes with fewer than {_FEW} patches, label more: {', '.join(few)}")
    if mixed:
        found.append(
            "patches that show mostly something else, since the polygons are smaller than a tile"
            f" (draw larger ones or use smaller tiles, --tile-size): {', '.join(mixed)}"
        )
    if untested:
        found.append(
            "classes that could not be tested, since all of their patches are neighbors (label"
            f" them elsewhere too): {', '.join(untested)}"
        )
    return tuple(found)


def _card(
    start: ModelCard,
    options: TrainOnPolygonsOptions,
    patches: Patches,
    measured: Measured | None,
    temperature: float,
) -> ModelCard:
    """The start bundle's card with the new classes, for tiles as large as the patches were."""
    near, side_m = start.footprint, patches.side_m
    accuracy = {} if measured is None else measured.figures()
    count = len(patches.classes)
    return dataclasses.replace(
        start,
        name=options.name,
        version=options.bundle_version,
        description=options.description
        or f"{count} classes from labeled polygons, on {start.name} {start.version}",
        license=options.license,
        classes=scene_classes(list(patches.classes)),
        footprint=Footprint(min(near.minimum_m, side_m), side_m, max(near.maximum_m, side_m)),
        temperature=round(temperature, 4),
        window_temperature=None,
        raster_bands=options.bands or start.raster_bands,
        stretch=options.stretch or start.stretch,
        accuracy={"test_labels" if options.test_labels else "cross_validation": accuracy}
        if accuracy
        else {},
    )


def _name(source: Source) -> str:
    """A raster's name without its folder."""
    return ", ".join(Path(part).name for part in paths_of(source))
