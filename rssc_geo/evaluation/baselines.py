"""What the fusion brings: the paper's baselines and the dual attention on the same pictures,
captions and encoders.

All arms share the image encoder, its cached tokens, the text encoder, the classifier's form, the
recipe and the split; they differ in what they read and how. Each is trained once a seed; what it
answered is kept in the work folder, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from rssc_geo.errors import UsageError
from rssc_geo.models import CaptionSource, DualAttentionClassifier, Model
from rssc_geo.training import (
    Features,
    FusionRecipe,
    McNemar,
    OutOfFoldCaptioners,
    SceneImages,
    Split,
    TrainingRecipe,
    cache_features,
    load_image_folder,
    logits_of,
    mcnemar,
    overall_accuracy,
    share_work,
    stratified_split,
    train_fusion,
    trained_with,
    write_captions,
)

log = logging.getLogger(__name__)

IMAGE_ONLY = "image only, dual attention on learned queries"
GENERATED = "dual attention, own captions"
_HELD = ("val", "test")


class TextOnly(DualAttentionClassifier):
    """Words alone: self-attention over them, their mean; zeros where the image's half would be."""

    def fuse(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The embedding ``(B, E + I)`` without the picture."""
        nothing = torch.zeros_like(image_tokens)
        text, present = self._text(nothing, token_ids, token_mask)
        read, _ = self.level.text_self_attention(
            text, text, text, key_padding_mask=~present, need_weights=False
        )
        return torch.cat([_mean(text + read, present), nothing.mean(1)], dim=1)


class Concatenation(DualAttentionClassifier):
    """The mean of the words beside the mean of the image tokens, without attention between them."""

    def fuse(
        self,
        image_tokens: torch.Tensor,
        token_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The embedding ``(B, E + I)``."""
        text, present = self._text(image_tokens, token_ids, token_mask)
        return torch.cat([_mean(text, present), image_tokens.mean(1)], dim=1)


def _mean(text: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    weight = present.unsqueeze(2).to(text.dtype)
    return (text * weight).sum(1) / weight.sum(1)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: overall accuracy of each seed on the validation and the test part."""

    name: str
    validation: tuple[float, ...]
    test: tuple[float, ...]

    def __str__(self) -> str:
        cells = [
            f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
            for values in (self.validation, self.test)
        ]
        return f"| {self.name} | {cells[0]} | {cells[1]} |"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The table, and McNemar's test of own captions against image only on the test part, seed by seed."""

    rows: tuple[Row, ...]
    paired: tuple[McNemar, ...]

    def markdown(self) -> str:
        """The table and the tests, for people."""
        lines = [
            "| trained on → read at the test | validation | test |",
            "|---|---|---|",
            *map(str, self.rows),
            "",
        ]
        lines += [
            f"McNemar, seed {seed}: right only with own captions {found.only_first}, only without"
            f" {found.only_second}, p = {found.p_value:.2f}"
            for seed, found in enumerate(self.paired)
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The same, seed by seed, ready for JSON."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "mcnemar": [asdict(found) for found in self.paired],
        }


def compare_on_folder(
    model: Model,
    dataset: str | Path,
    *,
    work: Path,
    seeds: int,
    device: torch.device,
    options: TrainingRecipe | None = None,
) -> Comparison:
    """:func:`compare` on an image folder with captions.

    ``options``: split, folds, views and recipes; default those of the model's training, as its card
    tells. ``work``: the work folder of that training, whose cached tokens and captioners are used;
    another folder is filled anew.

    Raises ``UsageError`` for a model without a captioner, pictures without captions, or a split
    without a test part; ``InputError`` for a work folder of another split.
    """
    if model.decoder is None or model.vocabulary is None:
        raise UsageError(
            f"the model {model.card.name!r} has no captioner: there are no own captions to compare"
        )
    data = load_image_folder(dataset, size=model.card.input_size[0])
    if not any(data.captions):
        raise UsageError(f"{dataset} has no captions.jsonl: there is nothing to compare")
    options = options or trained_with(model.card)
    seed = options.seed
    split = stratified_split(data, seed=seed, val=options.val, test=options.test)
    if not len(split["test"]):
        raise UsageError("there is no test part to compare on: give it a share (--test 0.1)")
    share_work(work, recipe=options)
    network = model.network.to(device).eval()
    features = cache_features(
        network,
        model.card,
        data,
        split["train"],
        views=options.views,
        seed=seed,
        work=work,
        device=device,
    )
    log.info("captions of the training pictures, by captioners that have not seen them")
    captioners = OutOfFoldCaptioners(
        features=features,
        data=data,
        vocabulary=model.vocabulary,
        recipe=options.captioner,
        folds=options.folds,
        seed=seed,
        work=work,
        device=device,
    )
    generated = captioners.captions(split["train"])
    held = np.concatenate([split["val"], split["test"]])
    written = write_captions(
        model.decoder.to(device), model.vocabulary, features.tokens[0, held], device=device
    )
    for row, text in zip(held.tolist(), written, strict=True):
        generated[0][row] = text
    return compare(model, features, data, split, generated, options.fusion, seeds=seeds, work=work)


def compare(
    model: Model,
    features: Features,
    data: SceneImages,
    split: Split,
    generated: Sequence[Sequence[str]],
    recipe: FusionRecipe,
    *,
    seeds: int,
    work: Path,
) -> Comparison:
    """Train every arm ``seeds`` times (at least twice) and measure it.

    ``model`` brings the encoders; ``features``, ``generated``: as for ``train_fusion``, with the
    own captions of the validation and test pictures in view 0; ``work``: an existing folder for
    each arm's logits, where arms that are there are not trained again.
    """
    logits: dict[str, list[Mapping[str, np.ndarray]]] = {}
    images, own, human = (
        recipe.reading(),
        recipe.reading(generated=0.65),
        recipe.reading(written=0.65),
    )
    arms: list[
        tuple[type[DualAttentionClassifier], FusionRecipe, dict[str, tuple[str, CaptionSource]]]
    ] = [
        (DualAttentionClassifier, images, {IMAGE_ONLY: ("none", "generated")}),
        (TextOnly, own, {"text only, own captions": ("own", "generated")}),
        (TextOnly, human, {"text only, human captions": ("human", "written")}),
        (Concatenation, own, {"concatenation, own captions": ("own", "generated")}),
        (Concatenation, human, {"concatenation, human captions": ("human", "written")}),
        (DualAttentionClassifier, own, {GENERATED: ("own", "generated")}),
        (DualAttentionClassifier, human, {"dual attention, human captions": ("human", "written")}),
        (
            DualAttentionClassifier,
            recipe,
            {
                "dual attention, all kinds → own captions": ("own", "generated"),
                "dual attention, all kinds → no captions": ("none", "generated"),
                "dual attention, all kinds → human captions": ("human", "written"),
            },
        ),
    ]
    for seed in range(seeds):
        for number, (kind, arm_recipe, readings) in enumerate(arms):
            log.info(
                "seed %d of %d, arm %d of %d: %s",
                seed + 1,
                seeds,
                number + 1,
                len(arms),
                next(iter(readings)),
            )
            arm = _Arm(model, kind, features, data, split, generated, seed=seed)
            for name, found in arm.answers(arm_recipe, readings, work).items():
                logits.setdefault(name, []).append(found)
        votes = [logits[name][seed] for name in (IMAGE_ONLY, "text only, own captions")]
        voted = {part: _softmax(votes[0][part]) + _softmax(votes[1][part]) for part in _HELD}
        logits.setdefault("voting of image only and text only, own captions", []).append(voted)
    labels = {part: data.labels[split[part]] for part in _HELD}

    def accuracies(name: str, part: str) -> tuple[float, ...]:
        return tuple(
            overall_accuracy(values[part].argmax(1), labels[part]) for values in logits[name]
        )

    def right(name: str, seed: int) -> np.ndarray:
        return np.asarray(logits[name][seed]["test"].argmax(1) == labels["test"])

    rows = tuple(Row(name, accuracies(name, "val"), accuracies(name, "test")) for name in logits)
    return Comparison(
        rows,
        tuple(mcnemar(right(GENERATED, seed), right(IMAGE_ONLY, seed)) for seed in range(seeds)),
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(1).numpy()


class _Arm:
    """A network of one kind with the model's encoders, trained and measured."""

    def __init__(
        self,
        model: Model,
        kind: type[DualAttentionClassifier],
        features: Features,
        data: SceneImages,
        split: Split,
        generated: Sequence[Sequence[str]],
        *,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        network = kind(classes=len(model.card.classes), **model.card.network)
        network.text_encoder.load_state_dict(model.network.text_encoder.state_dict())
        self._model = dataclasses.replace(model, network=network.to(model.network.queries.device))
        self._features, self._data, self._split, self._generated, self._seed = (
            features,
            data,
            split,
            generated,
            seed,
        )

    def answers(
        self, recipe: FusionRecipe, readings: Mapping[str, tuple[str, CaptionSource]], work: Path
    ) -> dict[str, dict[str, np.ndarray]]:
        """Logits of the validation and the test part for each reading.

        From ``work``, or of the arm that is trained now.
        """
        model = self._model
        kind = (
            type(model.network).__name__,
            model.card.sha256,
            recipe,
            self._seed,
            sorted(readings.items()),
        )
        rows = b"".join(self._split[part].tobytes() for part in ("train", *_HELD))
        file = (
            work / f"arm-{hashlib.sha256(repr(kind).encode() + rows).hexdigest()[:16]}.safetensors"
        )
        if not file.is_file():
            self._train(recipe, list(readings.values()))
            read = [(words, source, part) for words, source in readings.values() for part in _HELD]
            found = {
                f"{words} {part}": self._logits(part, words, source) for words, source, part in read
            }
            partial = file.with_suffix(".part")
            save_file(found, partial)
            partial.replace(file)
        kept = load_file(file)
        return {
            name: {part: kept[f"{words} {part}"] for part in _HELD}
            for name, (words, _) in readings.items()
        }

    def _train(self, recipe: FusionRecipe, readings: Sequence[tuple[str, CaptionSource]]) -> None:
        """Train, keeping the epoch best on validation in the mean of what will be read, as the training proper does."""
        labels = self._data.labels[self._split["val"]]

        def validate() -> float:
            found = [self._logits("val", words, source).argmax(1) for words, source in readings]
            return float(np.mean([overall_accuracy(predicted, labels) for predicted in found]))

        train_fusion(
            self._model, self._features, self._data, self._generated, self._split["train"], recipe,
            validate=validate, seed=self._seed,
        )  # fmt: skip

    def _logits(self, part: str, words: str, source: CaptionSource) -> np.ndarray:
        """Logits of a part of the data, reading the captions named: own, none or human."""
        rows = self._split[part].tolist()
        captions = [""] * len(rows)
        if words == "own":
            captions = [self._generated[0][row] for row in rows]
        elif words == "human":
            captions = [" ".join(self._data.captions[row]) for row in rows]
        return logits_of(self._model, self._features.tokens[0, rows], captions, source=source)
