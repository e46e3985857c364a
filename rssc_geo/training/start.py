"""The model before training: pretrained encoders, and new layers between them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rssc_geo.errors import BundleError, UsageError, one_line
from rssc_geo.geometry import DEFAULT_FRACTION
from rssc_geo.models import (
    AS_PUBLISHED,
    DualAttentionClassifier,
    Model,
    ModelCard,
    PretrainedImageEncoder,
    PretrainedTextEncoder,
    TimmImageEncoder,
    build_network,
    load_bundle,
    load_card,
    load_image_encoder,
    load_text_encoder,
    load_weights,
    receptive_field,
    scene_classes,
)
from rssc_geo.training.data import SceneImages
from rssc_geo.training.options import EncoderRecipe, EndToEndRecipe, TrainingRecipe
from rssc_geo.training.stages.encoder import TrainedEncoder
from rssc_geo.training.stages.text_encoder import make_text_encoder_start
from rssc_geo.training.taxonomy import Legend

Encoders = tuple[PretrainedImageEncoder, PretrainedTextEncoder]


def initial_weights(recipe: TrainingRecipe) -> dict[str, torch.Tensor]:
    """State dict of the image encoder, from ``recipe.weights`` or the start bundle.

    Without the ground features where the recipe has other ones.

    Raises ``UsageError`` where the start bundle has another encoder than the recipe,
    ``BundleError`` for weights that cannot be read or do not fit it.
    """
    if recipe.weights is not None:
        return _timm_weights(recipe.weights, recipe.encoder)
    start = load_bundle(recipe.model)
    configuration = start.card.network["image_encoder"]
    architecture = configuration["architecture"]
    if architecture != recipe.encoder.architecture:
        raise UsageError(
            f"{recipe.model} has the image encoder {architecture}, not"
            f" {recipe.encoder.architecture}"
        )
    weights = dict(start.network.image_encoder.state_dict())
    if configuration.get("ground") == recipe.encoder.ground:
        return weights
    return {name: value for name, value in weights.items() if name.startswith("backbone.")}


def start_encoder(recipe: TrainingRecipe, legend: Legend) -> TrainedEncoder:
    """The start bundle's image encoder and image head.

    Raises ``UsageError`` where they are of another form than those to be trained.
    """
    start = load_bundle(recipe.model)
    head, classes = start.network.image_head, [known.name for known in start.card.classes]
    ground = start.card.network["image_encoder"].get("ground")
    if head is None or classes != list(legend.classes) or ground != recipe.encoder.ground:
        raise UsageError(
            f"--start-share: {recipe.model} has other classes or features than the new model; leave"
            " it out"
        )
    return TrainedEncoder(start.network.image_encoder.state_dict(), head.state_dict())


def _timm_weights(path: Path, recipe: EncoderRecipe) -> dict[str, torch.Tensor]:
    """Weights of a timm model by their names in an encoder; ``BundleError`` for unfit ones."""
    try:
        weights = {f"backbone.{name}": value for name, value in load_weights(path).items()}
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{path} is not a readable safetensors file: {one_line(error)}"
        ) from error
    encoder = TimmImageEncoder(recipe.architecture, recipe.kwargs, recipe.ground)
    try:
        encoder.load_state_dict({**encoder.state_dict(), **weights})
    except RuntimeError as error:
        first = one_line(str(error).strip().splitlines()[-1])
        raise BundleError(
            f"{path} does not fit the image encoder {recipe.architecture}: {first}"
        ) from error
    return weights


def new_model(recipe: TrainingRecipe, data: SceneImages) -> Model:
    """The model to train by stages: its text encoder is ready, everything else is initialized."""
    text = make_text_encoder_start(recipe)
    start = load_card(recipe.model)
    encoder = recipe.encoder
    card = ModelCard(
        name=recipe.name,
        version=recipe.bundle_version,
        description=recipe.description
        or f"trained on {len(data.names)} images of {len(data.classes)} classes",
        license=recipe.license,
        classes=scene_classes(data.classes, data.legend.groups),
        input_size=(encoder.size, encoder.size),
        mean=encoder.mean,
        std=encoder.std,
        bands=("red", "green", "blue"),
        gsd_range_m=recipe.gsd_range_m or start.gsd_range_m,
        footprint=recipe.footprint or start.footprint,
        stretch=recipe.stretch or start.stretch,
        network={
            "image_encoder": {
                "architecture": encoder.architecture,
                "kwargs": dict(encoder.kwargs),
                **({"ground": dict(encoder.ground)} if encoder.ground else {}),
            },
            "text_encoder": dict(text.encoder.configuration),
            "width": recipe.width,
            "heads": 4,
            "levels": 2,
            "learned_queries": 0,
            "image_head": True,
            "dropout": 0.2,
        },
        captioner=None,
        prompt="",
        max_tokens=text.encoder.max_tokens,
        special_tokens=text.special_tokens,
        temperature=1.0,
    )
    network = DualAttentionClassifier(classes=len(card.classes), **card.network)
    network.text_encoder.load_state_dict(text.encoder.weights)
    return Model(card, network, text.encoder.tokenizer)


def with_encoder(model: Model, trained: TrainedEncoder) -> Model:
    """The model with a trained image encoder and image head.

    Its card has the stride and receptive field that fine maps need.
    """
    network, size = model.network, model.card.input_size[0]
    encoder, head = network.image_encoder, network.image_head
    if not isinstance(encoder, TimmImageEncoder) or head is None:
        raise TypeError("only a model that new_model has made takes a trained encoder")
    encoder.load_state_dict(trained.encoder)
    head.load_state_dict(trained.classify)
    found = receptive_field(encoder, largest=2 * size)
    features = None
    if found is not None and size % (found[0] * DEFAULT_FRACTION) == 0:
        features = {"stride": found[0], "receptive_field": found[1]}
        if encoder.ground_stride is not None:
            features["ground_stride"] = encoder.ground_stride
    return dataclasses.replace(model, card=dataclasses.replace(model.card, local_features=features))


def load_encoders(recipe: EndToEndRecipe) -> Encoders | None:
    """The pretrained encoders that a recipe names, if any.

    Raises ``BundleError`` where they cannot be had.
    """
    if recipe.image_encoder is None or recipe.text_encoder is None:
        return None
    return load_image_encoder(recipe.image_encoder, weights=recipe.weights), load_text_encoder(
        recipe.text_encoder
    )


def new_end_to_end_model(
    recipe: TrainingRecipe, own: EndToEndRecipe, encoders: Encoders | None, legend: Legend
) -> Model:
    """The model to train end to end.

    Parameters
    ----------
    recipe : names the start bundle and the fields of the card
    own : its part for end-to-end training
    encoders : pretrained, with a new attention; None: the start bundle's network goes on learning
    legend : of the data set: its classes and their groups

    Raises ``UsageError`` for a start bundle that cannot be trained.
    """
    start, classes = load_card(recipe.model), legend.classes
    fields: dict[str, Any] = {
        "name": recipe.name,
        "version": recipe.bundle_version,
        "description": (
            recipe.description or f"dual attention trained end to end on {len(classes)} classes"
        ),
        "license": recipe.license,
        "classes": scene_classes(classes, legend.groups),
        "gsd_range_m": recipe.gsd_range_m or start.gsd_range_m,
        "footprint": recipe.footprint or start.footprint,
        "stretch": recipe.stretch or start.stretch,
        "captioner": None,
        "alignment": None,
        "familiarity": None,
        "reads_own_captions": False,
        "temperature": 1.0,
        "window_temperature": None,
        "cpu_tiles_per_s": None,
        "training": {},
        "accuracy": {},
        "sha256": {},
    }
    if encoders is None:
        return _start_model(recipe.model, fields)
    image, text = encoders
    network = {
        "image_encoder": dict(image.configuration),
        "text_encoder": dict(text.configuration),
        "width": own.width,
        "heads": 4,
        "levels": own.levels,
        "learned_queries": own.learned_queries,
        "gate": own.gate,
    }
    card = dataclasses.replace(
        start,
        **fields,
        input_size=(image.size, image.size),
        mean=image.mean,
        std=image.std,
        network=network,
        max_tokens=text.max_tokens,
        special_tokens=True,
        local_features=None,
    )
    built = build_network(card)
    built.image_encoder.load_state_dict(image.weights)
    built.text_encoder.load_state_dict(text.weights)
    return Model(card, built, text.tokenizer)


def _start_model(name: str, fields: dict[str, Any]) -> Model:
    """The start bundle's network; its classifier is new unless the classes are the same."""
    model = load_bundle(name)
    if model.card.variant == AS_PUBLISHED:
        raise UsageError(
            f"{name} is as published, which is for comparison; import the checkpoint with"
            " --variant corrected"
        )
    card = dataclasses.replace(model.card, **fields)
    if [c.name for c in card.classes] == [c.name for c in model.card.classes]:
        return Model(card, model.network, model.tokenizer)
    network = build_network(card)
    kept = {
        name: value
        for name, value in model.network.state_dict().items()
        if not name.startswith("classifier.")
    }
    network.load_state_dict(kept, strict=False)
    return Model(card, network, model.tokenizer)
