"""Benefit of the fusion: the paper's baselines beside the dual attention.

All arms share the pictures, captions, image encoder, its cached tokens, text encoder, form of the
classifier, recipe and split; they differ in what they read and how. Each is trained once a seed;
its logits are kept in the work folder, so that the same command continues where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from rssc_geo.errors import InputError, UsageError
from rssc_geo.evaluation.evaluate import trained_as
from rssc_geo.inference import choose_compute
from rssc_geo.models import (
    CaptionSource,
    DualAttentionClassifier,
    Model,
    load_bundle,
    masked_mean,
)
from rssc_geo.options import BaselineOptions
from rssc_geo.training import (
    DataSets,
    Features,
    FusionData,
    FusionRecipe,
    McNemar,
    OutOfFoldCaptioners,
    SceneImages,
    Split,
    beyond_half,
    cache_features,
    data_sets,
    identity,
    is_kept,
    keeping,
    load_data_sets,
    logits_of,
    mcnemar,
    sharing_work,
    stratified_split,
    train_fusion,
    write_captions,
)

log = logging.getLogger(__name__)

IMAGE_ONLY = "image only"
TEXT_ONLY = "text only, own captions"
GENERATED = "dual attention, own captions"
_HELD = ("val", "test")
_QUERIES = 8
Captions = Literal["own", "none", "human"]
Logits = Mapping[str, NDArray[np.float32]]
"""Logits (N, C) of the parts "val" and "test"."""


class TextOnly(DualAttentionClassifier):
    """Words alone: self-attention over them, their mean; zeros where the image's half would be.

    There is no image head, which would read the image; learned queries stand before the words, so
    that a picture without any can be read.
    """

    def __init__(
        self, *, image_head: bool = False, learned_queries: int = 0, **settings: Any
    ) -> None:
        del image_head
        super().__init__(learned_queries=learned_queries or _QUERIES, **settings)

    def fuse(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The embedding (B, E + I) of words (B, T) alone; image tokens (B, N, I) are not read."""
        nothing = torch.zeros_like(image_tokens)
        text, present = self.embed_text(nothing, token_ids, token_mask)
        read, _ = self.level.text_self_attention(
            text, text, text, key_padding_mask=~present, need_weights=False
        )
        return torch.cat([masked_mean(text + read, present), nothing.mean(1)], dim=1)


class Concatenation(DualAttentionClassifier):
    """The mean of the words beside the mean of the image tokens, without attention between them."""

    def fuse(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The embedding (B, E + I) of image tokens (B, N, I) and words (B, T)."""
        text, present = self.embed_text(image_tokens, token_ids, token_mask)
        return torch.cat([masked_mean(text, present), image_tokens.mean(1)], dim=1)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: overall accuracy of each seed on parts of the data.

    ``described``: on the pictures of the test part that people have written about.
    """

    name: str
    validation: tuple[float, ...]
    test: tuple[float, ...]
    described: tuple[float, ...]

    def __str__(self) -> str:
        cells = [
            f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
            for values in (self.validation, self.test, self.described)
        ]
        return f"| {self.name} | {' | '.join(cells)} |"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The table of all arms, and the significance of the difference that own captions make.

    ``paired``: McNemar's test, seed by seed, of own captions against image only on the test part.
    """

    rows: tuple[Row, ...]
    paired: tuple[McNemar, ...]

    def markdown(self) -> str:
        """The table and the tests as text."""
        lines = [
            "| trained on → read at the test | validation | test | test, described by people |",
            "|---|---|---|---|",
            *map(str, self.rows),
            "",
        ]
        lines += [
            f"McNemar, seed {seed}: right only with own captions {found.only_first}, only without"
            f" {found.only_second}, p = {found.p_value:.2f}"
            for seed, found in enumerate(self.paired)
        ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The same, seed by seed, ready for JSON."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "mcnemar": [asdict(found) for found in self.paired],
        }


@dataclass(frozen=True, slots=True)
class ArmData:
    """The data on which every arm is trained and measured.

    Attributes
    ----------
    data : labels and captions of the pictures
    features : their cached image tokens
    split : rows of "train", "val" and "test"
    generated : a caption for each view and picture, by a captioner that never saw the picture; of
        the validation and the test part in the first view only
    """

    data: SceneImages
    features: Features
    split: Split
    generated: Sequence[Sequence[str]]

    def captions(self, rows: NDArray[np.int64], kind: Captions) -> list[str]:
        """The captions of the pictures ``rows``, int64 ``(n,)``, that are read at the test."""
        if kind == "own":
            return [self.generated[0][row] for row in rows.tolist()]
        if kind == "human":
            return [" ".join(self.data.captions[row]) for row in rows.tolist()]
        return [""] * len(rows)


def compare_baselines(
    model: str | Path | Model, dataset: DataSets, options: BaselineOptions
) -> Comparison:
    """Train the baselines and the dual attention on data sets with captions, and compare.

    The classes are those of the model. Where it has an image head, the arms that read the image
    have the same one: "image only" is that head as it is, and concatenation and dual attention
    learn what words add to it.

    Parameters
    ----------
    model : embedded name, bundle folder or hub id, or a loaded one; split, folds, views and recipes
        are those of its training, as its card tells, unless the options say otherwise
    dataset : a folder with one folder of pictures a class, and captions.jsonl; or several such
        folders. ``options.taxonomy`` says what the labels of each mean
    options : ``baselines``: how often each is trained, at least twice; ``work``: the work folder of
        the model's training, whose cached tokens and captioners are used; another folder is filled
        again

    Raises ``UsageError`` for a model without a captioner, pictures without captions, or a split
    without a test part that people have written about; ``InputError`` for classes that are not the
    model's, and for a work folder of another split.
    """
    seeds: int | None = options.baselines
    if seeds is None or seeds < 2 or options.work is None:
        raise UsageError("--baselines needs at least 2 seeds, a DATASET folder and --work")
    if isinstance(model, str | Path):
        model = load_bundle(model, revision=options.revision)
    if model.decoder is None or model.vocabulary is None:
        raise UsageError(
            f"the model {model.card.name!r} has no captioner: there are no own captions to compare"
        )
    recipe = trained_as(model.card, options)
    if options.fusion_epochs is not None:
        fusion = dataclasses.replace(recipe.fusion, epochs=options.fusion_epochs)
        recipe = dataclasses.replace(recipe, fusion=fusion)
    work, device = Path(options.work), choose_compute(options.device).device
    folders = data_sets(dataset)
    data = load_data_sets(folders, size=model.card.input_size[0], taxonomy=options.taxonomy)
    if data.classes != tuple(known.name for known in model.card.classes):
        raise InputError(
            f"the classes of the pictures are not those of {model.card.name}, in their order;"
            " --taxonomy names the file that it was trained with"
        )
    if not any(data.captions):
        told = ", ".join(map(str, folders))
        raise UsageError(f"{told}: no captions.jsonl, there is nothing to compare")
    split = stratified_split(data, seed=recipe.seed, val=recipe.val, test=recipe.test)
    if not len(split["test"]):
        raise UsageError("there is no test part to compare on: give it a share (--test 0.1)")
    if not any(data.captions[row] for row in split["test"].tolist()):
        raise UsageError("people wrote of no picture of the test part: there is nothing to compare")
    with sharing_work(work, recipe=recipe):
        model.network.to(device).eval()
        features = cache_features(
            model, data, split["train"], views=recipe.views, seed=recipe.seed, work=work
        )
        log.info("captions of the training pictures, by captioners that have not seen them")
        captioners = OutOfFoldCaptioners(
            features=features,
            data=data,
            vocabulary=model.vocabulary,
            recipe=recipe.captioner,
            folds=recipe.folds,
            seed=recipe.seed,
            work=work,
            device=device,
        )
        generated = captioners.captions(split["train"])
        held = np.concatenate([split[part] for part in _HELD])
        written = write_captions(
            model.decoder.to(device), model.vocabulary, features.tokens[0, held], device=device
        )
        for row, text in zip(held.tolist(), written, strict=True):
            generated[0][row] = text
        arm_data = ArmData(data, features, split, generated)
        return compare_arms(model, arm_data, recipe.fusion, seeds=seeds, work=work)


def compare_arms(
    model: Model, data: ArmData, recipe: FusionRecipe, *, seeds: int, work: Path
) -> Comparison:
    """Train every arm ``seeds`` times (at least twice) and measure it.

    ``model`` brings the encoders; ``work``: an existing folder for each arm's logits, where arms
    that are there are not trained again.
    """
    logits: dict[str, list[Logits]] = {}
    arms = _arms(recipe)
    for seed in range(seeds):
        for number, arm in enumerate(arms):
            log.info(
                "seed %d of %d, arm %d of %d: %s",
                seed + 1, seeds, number + 1, len(arms), next(iter(arm.readings)),
            )  # fmt: skip
            for name, found in arm.logits(model, data, seed=seed, work=work).items():
                logits.setdefault(name, []).append(found)
        first, second = (logits[name][seed] for name in (IMAGE_ONLY, TEXT_ONLY))
        votes = {part: softmax(first[part], 1) + softmax(second[part], 1) for part in _HELD}
        logits.setdefault("voting of image only and text only, own captions", []).append(votes)

    def right(name: str, seed: int, part: str = "test") -> NDArray[np.bool_]:
        found = logits[name][seed][part]
        return np.asarray(found.argmax(1) == data.data.truth(found, data.split[part]))

    described = np.array([bool(data.data.captions[row]) for row in data.split["test"].tolist()])

    def row(name: str) -> Row:
        validation = [right(name, seed, "val") for seed in range(seeds)]
        test = [right(name, seed) for seed in range(seeds)]
        return Row(
            name,
            tuple(float(found.mean()) for found in validation),
            tuple(float(found.mean()) for found in test),
            tuple(float(found[described].mean()) for found in test),
        )

    rows = tuple(row(name) for name in logits)
    return Comparison(
        rows,
        tuple(mcnemar(right(GENERATED, seed), right(IMAGE_ONLY, seed)) for seed in range(seeds)),
    )


@dataclass(frozen=True, slots=True)
class _Arm:
    """A network, how it is trained, and what it reads at the test, by the names of rows."""

    network: type[DualAttentionClassifier]
    recipe: FusionRecipe
    readings: Mapping[str, Captions]

    def logits(
        self, model: Model, data: ArmData, *, seed: int, work: Path
    ) -> dict[str, dict[str, NDArray[np.float32]]]:
        """Logits for each reading, from the work folder or of the arm that is trained now."""
        readings = sorted(self.readings.items())
        texts = (data.data.captions, data.generated)
        key = (self.network.__name__, model.card.sha256, self.recipe, seed, readings)
        rows = b"".join(data.split[part].tobytes() for part in ("train", *_HELD))
        digest = hashlib.sha256(repr(key).encode() + rows).hexdigest()
        file = work / f"arm-{digest[:16]}.safetensors"
        card = model.card
        encoder, head = model.network.text_encoder, model.network.image_head
        weights = {f"text {name}": value for name, value in encoder.state_dict().items()}
        if head is not None:
            weights |= {f"head {name}": value for name, value in head.state_dict().items()}
        made_of = identity(
            key=key,
            rows=rows,
            weights=weights,
            words=model.tokenizer.to_str(),
            **beyond_half(weights),
            features=data.features.made_of,
            labels=data.data.labels,
            texts=texts,
            network=(card.network, card.max_tokens, card.special_tokens),
        )
        if not is_kept(file, made_of):
            trained = self._train(model, data, seed)
            found = {
                f"{kind} {part}": _logits(trained, data, part, kind)
                for kind in self.readings.values()
                for part in _HELD
            }
            with keeping(file, made_of) as made:
                save_file(found, made)
        kept = load_file(file)
        return {
            name: {part: kept[f"{kind} {part}"] for part in _HELD}
            for name, kind in self.readings.items()
        }

    def _train(self, model: Model, data: ArmData, seed: int) -> Model:
        """The model with this arm's network, trained.

        The epoch that is best on validation in the mean of all readings is kept, as in the training
        itself.
        """
        torch.manual_seed(seed)
        network = self.network(classes=len(model.card.classes), **model.card.network)
        network.text_encoder.load_state_dict(model.network.text_encoder.state_dict())
        if network.image_head is not None and model.network.image_head is not None:
            network.image_head.load_state_dict(model.network.image_head.state_dict())
        trained = dataclasses.replace(model, network=network.to(model.network.queries.device))
        rows = data.split["val"]

        def validate() -> float:
            found = [_logits(trained, data, "val", kind) for kind in self.readings.values()]
            right = [logits.argmax(1) == data.data.truth(logits, rows) for logits in found]
            return float(np.mean(right))

        learned = FusionData(data.features, data.data, data.generated, data.split["train"])
        train_fusion(trained, learned, self.recipe, validate=validate, seed=seed)
        return trained


def _logits(model: Model, data: ArmData, part: str, kind: Captions) -> NDArray[np.float32]:
    """Logits (N, C) of a part of the data, reading captions of a kind."""
    rows = data.split[part]
    source: CaptionSource = "written" if kind == "human" else "generated"
    tokens = data.features.tokens[0, rows]
    return logits_of(model, tokens, data.captions(rows, kind), source=source)


def _arms(recipe: FusionRecipe) -> tuple[_Arm, ...]:
    """All arms of the comparison."""
    image, own, human = (
        dataclasses.replace(recipe, generated=generated, written=written)
        for generated, written in ((0.0, 0.0), (0.65, 0.0), (0.0, 0.65))
    )
    attention = DualAttentionClassifier
    return (
        _Arm(attention, image, {IMAGE_ONLY: "none"}),
        _Arm(TextOnly, own, {TEXT_ONLY: "own"}),
        _Arm(TextOnly, human, {"text only, human captions": "human"}),
        _Arm(Concatenation, own, {"concatenation, own captions": "own"}),
        _Arm(Concatenation, human, {"concatenation, human captions": "human"}),
        _Arm(attention, own, {GENERATED: "own"}),
        _Arm(attention, human, {"dual attention, human captions": "human"}),
        _Arm(
            attention,
            recipe,
            {
                "dual attention, all kinds → own captions": "own",
                "dual attention, all kinds → no captions": "none",
                "dual attention, all kinds → human captions": "human",
            },
        ),
    )
