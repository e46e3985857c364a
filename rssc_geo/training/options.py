"""What may be chosen of a training run, and the untrained model that follows from it."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from rssc_geo.errors import BundleError, UsageError
from rssc_geo.models import (
    DualAttentionClassifier,
    Footprint,
    Model,
    ModelCard,
    PretrainedTextEncoder,
    load_bundle,
    load_card,
    load_text_encoder,
    scene_classes,
)
from rssc_geo.training.data import SceneImages
from rssc_geo.training.end_to_end_options import FullRecipe
from rssc_geo.training.stages.captioner import CaptionerRecipe
from rssc_geo.training.stages.encoder import EncoderRecipe
from rssc_geo.training.stages.fusion import FusionRecipe, Phase
from rssc_geo.training.stages.text_encoder import distill_text_encoder

_LONGEST = 128
"""Word pieces of a text.

What sentence encoders are read with in :mod:`rssc_geo.training.stages.sentences`.
"""
_LONGEST_STATIC = 48


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What may be chosen of a training run.

    ``start``: bundle whose image and text encoder are the starting point; ``weights``: instead,
    safetensors of the timm model named in ``encoder``; ``sentence_encoder``: folder of a BERT-like
    sentence encoder that the text encoder is distilled from, and whose embeddings of the captions
    the image encoder learns to foretell; ``whole_sentence_encoder``: it becomes the text encoder as
    it is; ``footprint``: metres a picture covers, ``gsd_range_m``: metres a pixel of the rasters it
    is for (default: those of ``start``); ``val``, ``test``: shares; ``folds``: of the captioners;
    ``views``: pictures cached of each image, the first one as it is; ``full``: train the whole
    network end to end by this recipe, instead of stage by stage.
    """

    name: str = "trained"
    version: str = "1"
    description: str = ""
    license: str = "unspecified"
    data: str = ""
    start: str = "compact"
    weights: Path | None = None
    sentence_encoder: Path | None = None
    whole_sentence_encoder: bool = False
    footprint: Footprint | None = None
    gsd_range_m: tuple[float, float] | None = None
    seed: int = 0
    val: float = 0.1
    test: float = 0.1
    folds: int = 2
    views: int = 4
    width: int = 256
    text_width: int = 192
    encoder: EncoderRecipe = field(default_factory=EncoderRecipe)
    captioner: CaptionerRecipe = field(default_factory=CaptionerRecipe)
    fusion: FusionRecipe = field(default_factory=FusionRecipe)
    full: FullRecipe | None = None

    def __post_init__(self) -> None:
        if self.folds < 2 or self.views < 1:
            raise UsageError(
                f"{self.folds} folds and {self.views} views: at least 2 and 1 are needed"
            )
        if self.whole_sentence_encoder and self.sentence_encoder is None:
            raise UsageError("--whole-sentence-encoder needs a --sentence-encoder to keep")


def card_options(options: TrainOptions) -> dict[str, Any]:
    """What a card keeps of the options, for :func:`trained_with`."""
    kept = (
        ["val", "test"]
        if options.full is not None
        else ["val", "test", "folds", "views", "captioner", "fusion"]
    )
    return {name: value for name, value in asdict(options).items() if name in kept}


def trained_with(card: ModelCard) -> TrainOptions:
    """Seed, split, folds, views and recipes of the training that a card tells of; the defaults
    where it does not tell.

    Raises ``BundleError`` where another version of the program wrote what this one does not know.
    """
    told = dict(card.training.get("options", {}))
    try:
        if "captioner" in told:
            told["captioner"] = CaptionerRecipe(**told["captioner"])
        if "fusion" in told:
            phases = {
                name: told["fusion"][name] and Phase(**told["fusion"][name])
                for name in ("together", "words")
            }
            told["fusion"] = FusionRecipe(**{**told["fusion"], **phases})
        return TrainOptions(seed=card.training.get("seed", 0), **told)
    except (TypeError, KeyError) as error:
        raise BundleError(
            f"{card.name}: how it was trained, as its config.json tells, cannot be repeated here:"
            f" {error}"
        ) from error


def initial_weights(options: TrainOptions) -> dict[str, torch.Tensor]:
    """The image encoder's, from ``options.weights`` or the bundle to start from."""
    if options.weights is not None:
        return load_file(options.weights)
    start = load_bundle(options.start)
    architecture = start.card.network["image_encoder"]["architecture"]
    if architecture != options.encoder.architecture:
        raise UsageError(
            f"{options.start} has the image encoder {architecture}, not"
            f" {options.encoder.architecture}"
        )
    return dict(start.network.image_encoder.backbone.state_dict())


def new_model(options: TrainOptions, data: SceneImages) -> Model:
    """The model to train: its text encoder is ready, everything else is as it is initialised."""
    text, special_tokens = _text_encoder(options)
    start = load_card(options.start)
    size = options.encoder.schedule[-1][1]
    card = ModelCard(
        name=options.name,
        version=options.version,
        description=options.description
        or f"trained on {len(data.names)} images of {len(data.classes)} classes",
        license=options.license,
        classes=scene_classes(data.classes),
        input_size=(size, size),
        mean=options.encoder.mean,
        std=options.encoder.std,
        bands=("red", "green", "blue"),
        gsd_range_m=options.gsd_range_m or start.gsd_range_m,
        footprint=options.footprint or start.footprint,
        network={
            "image_encoder": {
                "architecture": options.encoder.architecture,
                "kwargs": dict(options.encoder.kwargs),
            },
            "text_encoder": dict(text.configuration),
            "width": options.width,
            "heads": 4,
            "levels": 2,
            "learned_queries": 8,
            "dropout": 0.2,
        },
        captioner=None,
        prompt="",
        max_tokens=text.max_tokens,
        special_tokens=special_tokens,
        temperature=1.0,
    )
    network = DualAttentionClassifier(classes=len(card.classes), **card.network)
    network.text_encoder.load_state_dict(text.weights)
    return Model(card, network, text.tokenizer)


def _text_encoder(options: TrainOptions) -> tuple[PretrainedTextEncoder, bool]:
    """What reads the words, and whether they stand between the tokenizer's marks of begin and end."""
    if options.sentence_encoder is None:
        start = load_bundle(options.start)
        weights, configuration = (
            start.network.text_encoder.state_dict(),
            start.card.network["text_encoder"],
        )
        text = PretrainedTextEncoder(configuration, weights, start.tokenizer, start.card.max_tokens)
        return text, start.card.special_tokens
    if options.whole_sentence_encoder:
        text = load_text_encoder(str(options.sentence_encoder))
        return dataclasses.replace(text, max_tokens=min(text.max_tokens, _LONGEST)), True
    tokenizer, encoder = distill_text_encoder(
        options.sentence_encoder, width=options.text_width, seed=options.seed
    )
    configuration = {
        "model_type": "static",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": options.text_width,
    }
    return (
        PretrainedTextEncoder(configuration, encoder.state_dict(), tokenizer, _LONGEST_STATIC),
        False,
    )
