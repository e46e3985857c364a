"""Accuracy of a model on labeled pictures: ``rssc-geo evaluate`` and ``rssc_geo.evaluate``.

torch is loaded after the data set is read, so that a wrong path is reported at once.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rssc_geo.captioning import check_captioner
from rssc_geo.errors import InputError, OutputError, UsageError, one_line
from rssc_geo.evaluation.caption_metrics import caption_scores
from rssc_geo.evaluation.plots import confusion_png, mistakes_png, require_plots, tsne_png
from rssc_geo.files import StagingFolder, check_writable, make_folders, remove_empty
from rssc_geo.inference import Source
from rssc_geo.models import (
    ModelCard,
    check_class_choice,
    class_choice,
    load_card,
    simplified_name,
)
from rssc_geo.options import EvaluateOptions, SplitOptions, TilingOptions, narrowed, values_of
from rssc_geo.texts import parse_json, read_text
from rssc_geo.training import (
    DataSets,
    Legend,
    Patches,
    SceneImages,
    Scores,
    TrainingRecipe,
    accuracy_interval,
    cut_patches,
    data_sets,
    join_patches,
    labels_mark,
    load_data_sets,
    read_labeled,
    score,
    stratified_split,
    trained_with,
)

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from rssc_geo.inference import Predictor
    from rssc_geo.models import CaptionSource, Model
    from rssc_geo.training import Corruption

log = logging.getLogger(__name__)

_BATCH = 64
_MISTAKES = 24
_FILES = ("evaluation.json", "confusion.png", "embedding.png", "mistakes.png")


@dataclass(frozen=True, slots=True)
class Predictions:
    """The results of a model for N pictures.

    Attributes
    ----------
    probabilities : float32 (N, C)
    captions : its own, empty where it has no captioner
    embedding : float32 (N, D), the joint embedding that the class was read from
    """

    probabilities: NDArray[np.float32]
    captions: list[str]
    embedding: NDArray[np.float32]

    @property
    def classes(self) -> NDArray[np.int64]:
        """The most likely class of each picture, (N,)."""
        return np.asarray(self.probabilities.argmax(1), np.int64)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one model on one data set, and what they were computed from.

    Attributes
    ----------
    card : of the model
    data : the pictures, with the model's classes
    predictions : the model's results for them
    scores : of its classes
    captions : of its captions, where people have written some (see ``caption_scores``)
    robustness : overall accuracy under each of ``corruptions``, if asked for
    choice : ids of the classes that were allowed; None: all
    blocks : integers (N,), which pictures lie together; None: each is for itself
    warnings : limits of the figures
    files : what was written
    """

    card: ModelCard
    data: SceneImages
    predictions: Predictions
    scores: Scores
    captions: Mapping[str, float]
    robustness: Mapping[str, float]
    choice: tuple[int, ...] | None = None
    blocks: NDArray[np.int64] | None = None
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of a 95 % interval of the overall accuracy, see ``accuracy_interval``."""
        right = self.predictions.classes == self.truth
        blocks = np.arange(len(right)) if self.blocks is None else self.blocks
        return accuracy_interval(right, blocks)

    @property
    def truth(self) -> NDArray[np.int64]:
        """The class that each picture counts as, (N,), see ``Legend.truth``."""
        return self.data.truth(self.predictions.probabilities)

    def by_set(self) -> dict[str, dict[str, float]]:
        """Pictures, accuracy and calibration error of each of several data sets."""
        legend, probabilities, truth = self.data.legend, self.predictions.probabilities, self.truth
        of = np.array(legend.sets, object)[self.data.labels]
        figures = {}
        for name in dict.fromkeys(legend.sets) if any(legend.sets) else ():
            mine = np.flatnonzero(of == name)
            scores = score(probabilities[mine], truth[mine], class_names=legend.classes)
            figures[name] = {"images": len(mine), **scores.figures()}
        return figures

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        values: dict[str, Any] = {"images": len(self.data.labels), **self.scores.as_dict()}
        values["interval"] = [round(bound, 4) for bound in self.interval]
        if self.warnings:
            values["warnings"] = list(self.warnings)
        if self.choice is not None:
            values["class_choice"] = self.card.names(self.choice)
        if sets := self.by_set():
            values["sets"] = sets
        for name, figures in (("captions", self.captions), ("robustness", self.robustness)):
            if figures:
                values[name] = {key: round(value, 4) for key, value in figures.items()}
        if self.files:
            values["files"] = [str(path) for path in self.files]
        return values

    def to_pandas(self) -> pd.DataFrame:
        """One row a picture: name, class, predicted class, confidence and caption."""
        import pandas as pd

        names = np.array(self.data.classes, object)
        return pd.DataFrame(
            {
                "name": self.data.names,
                "class": names[self.truth],
                "predicted": names[self.predictions.classes],
                "confidence": self.predictions.probabilities.max(1),
                "caption": self.predictions.captions,
            }
        )

    def written(self, folder: str | Path) -> Evaluation:
        """The same with the files that ``write`` made of it."""
        return dataclasses.replace(self, files=tuple(self.write(folder)))

    def write(self, folder: str | Path) -> list[Path]:
        """Write figures, confusion matrix, a map of the embedding, and the most confident mistakes.

        ``evaluation.json``, ``confusion.png``, ``embedding.png`` (t-SNE) and, where there are
        mistakes, ``mistakes.png``. Raises ``OutputError`` where they cannot be written.
        """
        target = Path(folder)
        _make_folder(target)
        files = [target / name for name in _FILES]
        figures, confusion, embedding, mistakes = files
        data, found = self.data, self.predictions
        titles = tuple(known.title for known in self.card.classes)
        colors = [c.color for c in self.card.classes]
        predicted, confidence = found.classes, found.probabilities.max(1)
        wrong = np.flatnonzero(predicted != self.truth)
        worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
        told = [
            f"{data.legend.labels[data.labels[k]]} → {titles[predicted[k]]}, {confidence[k]:.2f}"
            for k in worst.tolist()
        ]
        captions = [found.captions[k] for k in worst.tolist()]
        with StagingFolder(figures) as staging:
            text = json.dumps(self.as_dict(), indent=2) + "\n"
            staging.place(figures).write_text(text, encoding="utf-8")
            confusion_png(self.scores.confusion, titles, path=staging.place(confusion))
            tsne_png(
                found.embedding,
                self.truth,
                names=titles,
                colors=colors,
                path=staging.place(embedding),
            )
            if len(worst):
                place = staging.place(mistakes)
                mistakes_png(data.pixels[worst], told, captions=captions, path=place)
            else:
                files.remove(mistakes)
            staging.publish(files[::-1], overwrite=True, obsolete=[mistakes])
        return files


def evaluate(
    model: str | Path | Model | Predictor,
    dataset: DataSets | SceneImages,
    options: EvaluateOptions | None = None,
    *,
    output: str | Path | None = None,
) -> Evaluation:
    """Classify every picture of one or several data sets and compare.

    A picture whose label allows several classes is right where the best of all is one of them.

    Parameters
    ----------
    model : embedded name, bundle folder or hub id, or a loaded one; of a predictor the model is
        measured, on its device and in its precision
    dataset : a folder with one folder of pictures a class, and captions.jsonl if there are any; or
        several such folders; or pictures of the model's input size. ``options.taxonomy`` states
        what the labels of each mean
    options : all that the command line has; its defaults. ``part`` is that of the model's own
        training, unless ``seed``, ``val`` or ``test`` are given. Where ``only_classes`` or
        ``exclude_classes`` restrict the choice, pictures of none of its classes are left out
    output : a folder to write figures and pictures into, see :meth:`Evaluation.write`

    Raises ``InputError`` when no class of the data set is one of the model's, ``UsageError`` for
    unknown names.

    Examples
    --------
    >>> from rssc_geo import EvaluateOptions, evaluate
    >>> result = evaluate("compact", "pictures", EvaluateOptions(device="cpu"))
    >>> len(result.to_pandas())
    36
    """
    options = options or EvaluateOptions()
    _check_output(output)
    class_map = _class_map(options)
    card = card_of(model, options.revision)
    choice = check_class_choice(card, options)
    check_evaluation_captioner(options, card)
    if isinstance(dataset, SceneImages):
        data = dataset
    else:
        data = load_data_sets(
            data_sets(dataset),
            size=card.input_size[0],
            taxonomy=options.taxonomy,
            captions=options.captions,
        )
    if options.part != "all":
        recipe = trained_as(card, options)
        split = stratified_split(data, seed=recipe.seed, val=recipe.val, test=recipe.test)
        data = data.take(split[options.part])
    data = match_classes(data, card, class_map, choice=choice)
    result = _measure(model, data, options)
    return result if output is None else result.written(output)


def check_evaluation_captioner(options: EvaluateOptions, card: ModelCard) -> None:
    """Refuse invalid captioners and options that only maps have."""
    check_captioner(options, card)
    if options.caption_when != EvaluateOptions.caption_when:
        raise UsageError("--caption-when is for maps: every picture is described here")


def evaluate_on_polygons(
    model: str | Path | Model | Predictor,
    sources: Sequence[tuple[Source, str | Path]],
    options: EvaluateOptions | None = None,
    *,
    output: str | Path | None = None,
) -> Evaluation:
    """Classify patches of rasters that people have labeled, by polygons or points, and compare.

    Parameters
    ----------
    model, output : as for :func:`evaluate`
    sources : pairs of a raster and a vector file of polygons with a class each
    options : ``field`` names the column of the classes; the raster is read and cut as
        :func:`rssc_geo.train_on_polygons` does with the same options: the same patches

    Raises what ``evaluate`` does, and ``UsageError`` for a ``part`` or ``captions``, which only
    data sets of pictures have, and for a ``cell_size``: patches are as large as tiles.

    Examples
    --------
    >>> from rssc_geo import EvaluateOptions, evaluate_on_polygons
    >>> pairs = [("scene.tif", "classes.geojson")]
    >>> options = EvaluateOptions(tile_size="150m")
    >>> result = evaluate_on_polygons("compact", pairs, options)
    >>> sorted(set(result.to_pandas()["class"]))
    ['Farmland', 'Forest']
    """
    options = options or EvaluateOptions()
    _check_for_rasters(options)
    _check_output(output)
    class_map = _class_map(options)
    card = card_of(model, options.revision)
    choice = check_class_choice(card, options)
    tiling = narrowed(options, TilingOptions)
    check_evaluation_captioner(options, card)
    parts = []
    for raster, labels in sources:
        plan, found = read_labeled(raster, labels, card, tiling, field=options.field)
        parts.append(cut_patches(plan, found, purity=options.purity, out_size=card.input_size))
    patches = join_patches(parts)
    warnings = [*_learned_from(card, sources), *_mostly_other(patches)]
    for warning in warnings:
        log.warning("%s", warning)
    pictures = SceneImages(
        patches.pixels,
        patches.labels,
        tuple(patches.where.tolist()),
        Legend.of_classes(patches.classes),
        ((),) * len(patches.where),
    )
    data = match_classes(pictures, card, class_map, choice=choice)
    blocks = dict(zip(pictures.names, patches.blocks.tolist(), strict=True))
    result = _measure(model, data, options)
    result = dataclasses.replace(
        result, blocks=np.array([blocks[name] for name in data.names]), warnings=tuple(warnings)
    )
    return result if output is None else result.written(output)


def _check_for_rasters(options: EvaluateOptions) -> None:
    """Refuse options that only data sets of pictures have."""
    if options.part != "all":
        raise UsageError(f"--part {options.part} has no effect for polygons on a raster")
    if options.captions is not None or options.caption_source == "human":
        raise UsageError("labels on a raster have no captions by people: --captioner describes")
    if options.cell_size is not None:
        raise UsageError("--cell-size has no effect here: patches are as large as tiles")


def _learned_from(card: ModelCard, sources: Sequence[tuple[Source, str | Path]]) -> Iterator[str]:
    """A warning for each file of labels that the model has learned from."""
    known = {
        str(entry.get("labels_sha256"))
        for entry in card.training.get("sources", ())
        if isinstance(entry, Mapping)
    }
    for labels in dict.fromkeys(str(labels) for _, labels in sources):
        if labels_mark(labels) in known:
            yield (
                f"{card.name} has learned from {labels}: its figures there say little about"
                " other places; give separate labels"
            )


def _mostly_other(patches: Patches) -> Iterator[str]:
    """A warning where patches show mostly something else."""
    if count := int(patches.mixed.sum()):
        yield (
            f"{count} of {len(patches.mixed)} patches show mostly something else than their label:"
            " draw larger polygons, or use smaller tiles (--tile-size)"
        )


def card_of(model: str | Path | Model | Predictor, revision: str | None) -> ModelCard:
    """The card of a model, without loading it."""
    return load_card(model, revision=revision) if isinstance(model, str | Path) else model.card


def trained_as(card: ModelCard, options: SplitOptions) -> TrainingRecipe:
    """The training of a model by its card, with the split of the options where given."""
    split = values_of(options, SplitOptions)
    return dataclasses.replace(
        trained_with(card), **{name: value for name, value in split.items() if value is not None}
    )


def match_classes(
    data: SceneImages,
    card: ModelCard,
    class_map: Mapping[str, str],
    *,
    choice: Sequence[int] | None = None,
) -> SceneImages:
    """The pictures whose label allows a class that the model may choose, with the model's classes.

    Names are compared without case, spaces and punctuation. ``class_map``: the model's class for a
    class of the data set, where the names differ, or "" to leave it out; ``choice``: ids of the
    allowed classes, None: all. Raises ``UsageError`` for unknown names in the map, ``InputError``
    when no class is left.
    """
    known = {simplified_name(c.name): c.id for c in card.classes}
    unknown = [name for name in class_map if name not in data.classes]
    missing = [name for name in class_map.values() if name and simplified_name(name) not in known]
    if unknown or missing:
        raise UsageError(
            f"the class map names classes that are not there: {', '.join([*unknown, *missing])}"
        )
    targets = np.array(
        [known.get(simplified_name(class_map.get(name, name)), -1) for name in data.classes]
    )
    allowed = np.zeros((len(data.legend.labels), len(card.classes)), bool)
    for name, target in enumerate(targets.tolist()):
        if target >= 0 and (choice is None or target in choice):
            allowed[:, target] |= data.legend.allowed[:, name]
    labels = np.flatnonzero(allowed.any(1))
    kept = np.flatnonzero(np.isin(data.labels, labels))
    if not len(kept):
        names = card.names(range(len(card.classes)) if choice is None else choice)
        raise InputError(
            f"none of the data set's classes ({', '.join(data.classes[:8])}, …) is one of the"
            f" model's ({', '.join(names[:8])}, …); --class-map states which is which"
        )
    of_dropped = np.asarray(data.legend.allowed[~allowed.any(1)].any(0)).tolist()
    foreign = [
        name
        for name, target, dropped in zip(data.classes, targets, of_dropped, strict=True)
        if dropped and target < 0 and class_map.get(name) != ""
    ]
    if foreign:
        log.warning(
            "%d of %d pictures are left out, as no class of the model is called %s; --class-map"
            " states which class that is, or leaves it out",
            len(data.labels) - len(kept),
            len(data.labels),
            ", ".join(map(repr, foreign[:5])),
        )
    taken = data.take(kept)
    legend = Legend(
        tuple(c.name for c in card.classes),
        tuple(data.legend.labels[label] for label in labels.tolist()),
        allowed[labels],
        (allowed & (allowed.sum(1, keepdims=True) == 1))[labels].astype(np.float32),
        data.legend.texture[labels],
    )
    return dataclasses.replace(taken, labels=np.searchsorted(labels, taken.labels), legend=legend)


def predict(
    model: Model,
    data: SceneImages,
    options: EvaluateOptions,
    *,
    device: torch.device,
    corrupt: Corruption | None = None,
) -> Predictions:
    """Run a model over pictures, after ``corrupt`` where one is given.

    ``caption_source`` and the captioner of the options count. Corrupted pictures are described only
    where the classifier reads that.
    """
    import torch

    from rssc_geo.captioning import CaptionBatch, NoCaptioner, make_captioner

    network = model.network.to(device).eval()
    dtype = next(network.parameters()).dtype
    if model.decoder is not None:
        model.decoder.to(device)
    captioner = make_captioner(model, options, device=device, dtype=dtype)
    reads = options.caption_source == "own" and model.reads(captioner.source)
    describes = not isinstance(captioner, NoCaptioner) and (reads or corrupt is None)
    source: CaptionSource = "written" if options.caption_source == "human" else captioner.source
    probabilities, captions, embedding = [], [], []
    for start in range(0, len(data.pixels), _BATCH):
        part = data.pixels[start : start + _BATCH]
        part = corrupt(part) if corrupt is not None else part
        mask = np.ones(part.shape[:3], bool)
        own = read = [""] * len(part)
        with torch.inference_mode():
            tokens = network.encode_image(model.preprocess(part, mask).to(device, dtype))
            if describes:
                own = captioner.caption(CaptionBatch(part, mask, tokens))
            if options.caption_source == "human":
                read = [" ".join(texts) for texts in data.captions[start : start + _BATCH]]
            elif reads:
                read = own
            ids, present = (values.to(device) for values in model.tokenize(read, source=source))
            logits = network.classify(tokens, ids, present)  # (B, C)
            probabilities.append(model.calibrated(logits).softmax(1).cpu().numpy())
            embedding.append(network.embed(tokens, ids, present).float().cpu().numpy())
        captions += own
    return Predictions(np.concatenate(probabilities), captions, np.concatenate(embedding))


def _measure(
    model: str | Path | Model | Predictor,
    data: SceneImages,
    options: EvaluateOptions,
) -> Evaluation:
    """All figures of the model on pictures with its classes."""
    if options.caption_source == "human" and not any(data.captions):
        raise UsageError(
            "--caption-source human needs captions, and the data set has none (captions.jsonl)"
        )

    from rssc_geo.inference import Predictor, choose_compute
    from rssc_geo.models import load_bundle
    from rssc_geo.training import all_corruptions

    if isinstance(model, Predictor):
        device, model = model.compute.device, model.model
    else:
        device = choose_compute(options.device).device
    if isinstance(model, str | Path):
        model = load_bundle(model, revision=options.revision)
    choice = class_choice(model.card, options)
    if choice is not None:
        model = dataclasses.replace(model, choice=choice)
    found = predict(model, data, options, device=device)
    robustness = {}
    if options.robustness:
        for name, corrupt in all_corruptions().items():
            corrupted = predict(model, data, options, device=device, corrupt=corrupt)
            truth = data.truth(corrupted.probabilities)
            robustness[name] = float((corrupted.classes == truth).mean())
    described = [place for place, texts in enumerate(data.captions) if texts]
    captions = {}
    if described and any(found.captions):
        captions = caption_scores(
            [found.captions[k] for k in described], [data.captions[k] for k in described]
        )
    truth = data.truth(found.probabilities)
    scores = score(found.probabilities, truth, class_names=data.classes)
    return Evaluation(model.card, data, found, scores, captions, robustness, choice=model.choice)


def _class_map(options: EvaluateOptions) -> dict[str, str]:
    """The JSON object of class names, if one is given."""
    if options.class_map is None:
        return {}
    try:
        values = parse_json(read_text(options.class_map))
    except OSError as error:
        raise InputError(f"{options.class_map} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{options.class_map} is no JSON: {one_line(error)}") from error
    names = values.values() if isinstance(values, dict) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{options.class_map} is not a JSON object of class names such as"
            ' {"Woods": "Forest", "Yards": ""}'
        )
    return dict(values)


def _check_output(folder: str | Path | None) -> None:
    """Refuse at the start a folder that could not be written into at the end."""
    if folder is not None:
        require_plots()
        remove_empty(_make_folder(Path(folder)))


def _make_folder(target: Path) -> list[Path]:
    """Make the folder if need be; the folders made. One that cannot be written is refused.

    Also one where other files have our names. Raises ``OutputError``.
    """
    there = [name for name in _FILES if (target / name).exists()]
    if there and not _is_evaluation(target / _FILES[0]):
        raise OutputError(
            f"{target} holds {there[0]}, which is of no earlier evaluation: choose another folder"
        )
    made = make_folders(target)
    check_writable(target / _FILES[0], overwrite=True)
    return made


def _is_evaluation(path: Path) -> bool:
    try:
        return "overall_accuracy" in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError):
        return False
