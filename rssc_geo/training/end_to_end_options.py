"""How the whole network is trained at full size, and the untrained model that follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rssc_geo.errors import UsageError
from rssc_geo.models import (
    AS_PUBLISHED,
    Model,
    PretrainedImageEncoder,
    PretrainedTextEncoder,
    build_network,
    load_bundle,
    load_card,
    load_image_encoder,
    load_text_encoder,
    scene_classes,
)

if TYPE_CHECKING:
    from rssc_geo.training.options import TrainOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class FullRecipe:
    """How pictures and captions train the whole network, encoders included.

    ``image_encoder``, ``text_encoder``: folders or hub ids (see :func:`load_image_encoder`); None,
    both: the network of the start bundle goes on learning. ``captions``: JSON Lines instead of the
    data set's own. ``image_layers``, ``text_layers``: layers of each encoder that learn, the last
    ones; 0: none, None: all. ``batch_size``: pictures a step, over all processes; each is gone
    through in ``accumulate`` parts. ``schedule``: "cosine" after one epoch of warming up, "step" a
    tenth every 20 epochs. ``clip``: of the gradient's norm; ``patience``: epochs without a better
    validation accuracy; ``augment``: whether pictures are turned, tinted, …; ``silent``: share of
    the pictures that come without words (a network that needs them always has them); ``levels`` …
    ``gate``: of a new network; ``checkpointing``: compute the encoders' activations twice instead
    of keeping them; ``compile``: through torch.compile; ``workers``: processes that prepare
    batches.
    """

    image_encoder: str | None = "google/vit-base-patch16-224-in21k"
    text_encoder: str | None = "openai/clip-vit-base-patch32"
    weights: Path | None = None
    captions: Path | None = None
    image_layers: int | None = None
    text_layers: int | None = None
    epochs: int = 20
    batch_size: int = 64
    accumulate: int = 1
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 5e-5
    schedule: Literal["cosine", "step"] = "cosine"
    clip: float = 1.0
    patience: int = 6
    augment: bool = True
    smoothing: float = 0.05
    silent: float = 0.3
    width: int = 512
    levels: int = 2
    learned_queries: int = 8
    gate: bool = True
    checkpointing: bool = False
    compile: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        if (self.image_encoder is None) != (self.text_encoder is None):
            raise UsageError(
                "an image encoder and a text encoder go together; without both, the start bundle's"
                " go on learning"
            )
        if min(self.epochs, self.batch_size, self.accumulate, self.levels, self.width) < 1:
            raise UsageError("epochs, batch size, accumulation, levels and width are at least 1")
        if not (
            self.learning_rate > 0
            and self.clip > 0
            and 0 <= self.silent < 1
            and 0 <= self.smoothing < 1
        ):
            raise UsageError(
                "learning rate and clip are above 0, the shares of silence and smoothing from 0 to"
                " below 1"
            )


PUBLISHED = FullRecipe(
    epochs=40,
    optimizer="adam",
    learning_rate=1e-4,
    schedule="step",
    clip=0.8,
    patience=10,
    augment=False,
    smoothing=0.0,
    silent=0.0,
    learned_queries=0,
    gate=False,
)
"""As the authors train (their README's command), but for two corrections: it stops by a validation
part that is not the
test part, and the network is the corrected one."""


Encoders = tuple[PretrainedImageEncoder, PretrainedTextEncoder]


def load_encoders(recipe: FullRecipe) -> Encoders | None:
    """The pretrained encoders that a recipe names; ``BundleError`` where they cannot be had."""
    if recipe.image_encoder is None or recipe.text_encoder is None:
        return None
    return load_image_encoder(recipe.image_encoder, weights=recipe.weights), load_text_encoder(
        recipe.text_encoder
    )


def new_full_model(
    options: TrainOptions, recipe: FullRecipe, encoders: Encoders | None, classes: Sequence[str]
) -> Model:
    """The model to train: pretrained encoders with a new attention, or (None) the start bundle's
    network.

    Raises ``UsageError`` for a start bundle that cannot be trained.
    """
    start = load_card(options.start)
    told: dict[str, Any] = {
        "name": options.name,
        "version": options.version,
        "description": (
            options.description or f"dual attention trained end to end on {len(classes)} classes"
        ),
        "license": options.license,
        "classes": scene_classes(classes),
        "gsd_range_m": options.gsd_range_m or start.gsd_range_m,
        "footprint": options.footprint or start.footprint,
        "captioner": None,
        "alignment": None,
        "reads_own_captions": False,
        "temperature": 1.0,
        "cpu_tiles_per_s": None,
        "training": {},
        "accuracy": {},
        "sha256": {},
    }
    if encoders is None:
        return _go_on(options.start, told)
    image, text = encoders
    network = {
        "image_encoder": dict(image.configuration),
        "text_encoder": dict(text.configuration),
        "width": recipe.width,
        "heads": 4,
        "levels": recipe.levels,
        "learned_queries": recipe.learned_queries,
        "gate": recipe.gate,
    }
    card = dataclasses.replace(
        start,
        **told,
        input_size=(image.size, image.size),
        mean=image.mean,
        std=image.std,
        network=network,
        max_tokens=text.max_tokens,
        special_tokens=True,
    )
    built = build_network(card)
    built.image_encoder.load_state_dict(image.weights)
    built.text_encoder.load_state_dict(text.weights)
    return Model(card, built, text.tokenizer)


def _go_on(start: str, told: dict[str, Any]) -> Model:
    """The start bundle's network; what classifies is new unless the classes are the same."""
    model = load_bundle(start)
    if model.card.variant == AS_PUBLISHED:
        raise UsageError(
            f"{start} is as published, which is for comparison; import the checkpoint with"
            " --variant corrected"
        )
    card = dataclasses.replace(model.card, **told)
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
