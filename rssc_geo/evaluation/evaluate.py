"""Accuracy of a model on labeled pictures: ``rssc-geo evaluate`` and ``rssc_geo.evaluate``.

torch is loaded after the data set is read, so that a wrong path is reported at once.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rssc_geo.captioning import check_captioner
from rssc_geo.errors import InputError, UsageError, one_line
from rssc_geo.evaluation.caption_metrics import caption_scores
from rssc_geo.evaluation.evaluation import Evaluation, Predictions, check_evaluation_folder
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
    TrainingRecipe,
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
    import torch

    from rssc_geo.inference import Predictor
    from rssc_geo.models import CaptionSource, Model
    from rssc_geo.training import Corruption

log = logging.getLogger(__name__)

_BATCH = 64


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
    check_evaluation_folder(output)
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
    sources: Iterable[tuple[Source, str | Path]],
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
    options, sources = options or EvaluateOptions(), list(sources)
    _check_for_rasters(options)
    check_evaluation_folder(output)
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
