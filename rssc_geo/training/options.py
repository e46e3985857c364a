"""From the options of ``train`` to recipes of the stages, and back from a card. No torch here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rssc_geo.errors import BundleError, InputError, UsageError
from rssc_geo.models import Footprint, ModelCard, check_bundle_folder
from rssc_geo.options import CardOptions, TrainOptions, given_of, options_of
from rssc_geo.training.data import DataSets, Split, check_data_sets, check_shares, data_sets

_END_TO_END = {
    "captions",
    "epochs",
    "batch_size",
    "accumulate",
    "clip",
    "patience",
    "silent",
    "levels",
    "width",
    "workers",
    "checkpointing",
    "compile",
}
_LAYERS = {"train_image_layers", "train_text_layers"}
_STAGES = {
    "pad_type",
    "ground_features",
    "sentence_encoder",
    "whole_sentence_encoder",
    "schedule",
    "swa_epochs",
    "trainings",
    "start_share",
    "caption_epochs",
    "fusion_epochs",
    "folds",
    "views",
}
VAL, TEST = 0.1, 0.1


@dataclass(frozen=True, slots=True)
class CropRecipe:
    """Settings of the crops on which the image encoder is trained.

    Attributes
    ----------
    closest, widest : smallest and largest footprint seen, as a share of the picture's side
    closest_texture : the smallest footprint of pictures whose label holds for any part of them
    wide : share of those pictures that are seen from far away, mirrored side by side
    widest_texture : the largest footprint of these
    light : strength of the changes of light, color and haze, see ``augment``
    stretched : share of the pictures whose values are stretched, see ``stretched``
    windows : share of a batch that are windows of one texture, where there are any
    context : share of the batches that are encoded in squares of two by two crops
    """

    closest: float = 0.6
    widest: float = 1.35
    closest_texture: float = 0.25
    wide: float = 0.25
    widest_texture: float = 4.0
    light: float = 0.6
    stretched: float = 0.3
    windows: float = 0.22
    context: float = 0.5


@dataclass(frozen=True, slots=True)
class EncoderRecipe:
    """Settings of the image encoder's fine-tuning.

    Attributes
    ----------
    architecture : name of a timm model
    kwargs : its arguments, as for ``timm.create_model``
    ground : stage and width of its ground features, see ``TimmImageEncoder``; None: without
    crops : settings of the training crops
    mean, std : of its input, by channel, of pixels in [0, 1]
    schedule : (epochs, pixels a side) of each part; small pictures first, since early epochs need
        little detail
    batch_size : pictures a step
    learning_rate : of the heads; the backbone takes a third of it
    weight_decay : AdamW's
    text_weight : of the loss that pulls the picture's embedding towards that of its captions
    patience : epochs of the last part without a better validation accuracy before the end
    swa_epochs : the last epochs, in which the learning rate stays, and the mean of the weights over
        all their steps is what is kept (stochastic weight averaging: Izmailov et al., "Averaging
        Weights Leads to Wider Optima and Better Generalization", UAI 2018; over all steps: Cha et
        al., "SWAD", NeurIPS 2021); 0: the learning rate falls to the end, and a moving average of
        the last steps is kept
    """

    architecture: str = "mobilenetv1_100"
    kwargs: Mapping[str, Any] = field(default_factory=lambda: {"pad_type": "same"})
    ground: Mapping[str, int] | None = None
    crops: CropRecipe = CropRecipe()
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    schedule: tuple[tuple[int, int], ...] = ((6, 128), (8, 160), (6, 192))
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    text_weight: float = 0.5
    patience: int = 6
    swa_epochs: int = 0

    @property
    def epochs(self) -> int:
        """Epochs of all parts together."""
        return sum(epochs for epochs, _ in self.schedule)

    @property
    def size(self) -> int:
        """Pixels a side in the last part: those of the model's input."""
        return self.schedule[-1][1]

    def size_of(self, epoch: int) -> int:
        """Pixels a side in an epoch, counted from 0; ``IndexError`` beyond the last."""
        for epochs, size in self.schedule:
            if epoch < epochs:
                return size
            epoch -= epochs
        raise IndexError("beyond the last epoch")


@dataclass(frozen=True, slots=True)
class CaptionerRecipe:
    """The captioner (width, heads, layers, ``length`` in words) and its training."""

    width: int = 176
    heads: int = 4
    layers: int = 2
    length: int = 28
    epochs: int = 14
    batch_size: int = 64
    learning_rate: float = 1e-3


@dataclass(frozen=True, slots=True)
class AlignmentRecipe:
    """Training of the alignment of pictures and texts.

    Attributes
    ----------
    epochs : at least so many, and at least a hundred steps
    learning_rate : the highest
    dropout : share of the image embedding's numbers
    """

    epochs: int = 10
    learning_rate: float = 2e-3
    dropout: float = 0.3


@dataclass(frozen=True, slots=True)
class FusionRecipe:
    """Training of the fusion.

    The image encoder has overfitted to its training pictures, so that words add nothing to them;
    new pictures it may confuse with those of other classes, and there the words have to decide.
    Therefore some image tokens are replaced by those of a hard negative, and many are left out.

    Attributes
    ----------
    epochs : passes over the pictures
    generated : share of the pictures that come with the captioner's words
    written : share that come with people's words, where there are some; the rest comes without
        words, and is read by the learned queries alone
    learning_rate, weight_decay : AdamW's
    hard_negatives : share of people's words that come with the image tokens of a hard negative (see
        ``hard_negatives`` of the fusion stage) instead of their own picture's
    min_tokens : of each picture between this share of its tokens and all are shown, at random
    batch_size : pictures a step
    smoothing : of the labels
    ema : decay a step of the moving average of the weights, which is what is kept
    """

    epochs: int = 10
    generated: float = 0.3
    written: float = 0.65
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    hard_negatives: float = 0.2
    min_tokens: float = 0.2
    batch_size: int = 128
    smoothing: float = 0.05
    ema: float = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEndRecipe:
    """Training of the whole network on pictures and captions, encoders included.

    Attributes
    ----------
    image_encoder, text_encoder : folders or hub ids (see ``load_image_encoder``); both None: the
        network of the start bundle goes on learning
    weights : safetensors of a timm model that ``image_encoder`` names
    captions : JSON Lines instead of the data set's own captions
    image_layers, text_layers : how many of each encoder's last layers learn; 0: none, None: all
    epochs : at most so many
    batch_size : pictures a step, over all processes
    accumulate : parts that each process's share of a batch is computed in
    optimizer, learning_rate : of all that learns
    schedule : "cosine" after one epoch of warmup; "step": a tenth every 20 epochs
    clip : largest norm of the gradient
    patience : epochs without a better validation accuracy before the end
    augment : whether pictures are turned, tinted, …
    smoothing : of the labels
    silent : share of the pictures that come without words; a network that needs words always has
        them
    width, levels, learned_queries, gate : of a new network
    checkpointing : compute the encoders' activations twice instead of keeping them
    compile : through ``torch.compile``
    workers : processes that prepare batches

    Raises ``UsageError`` for invalid values.
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


PUBLISHED = EndToEndRecipe(
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
"""The authors' training (their README's command) with two corrections: early stopping uses a
validation part separate from the test part, and the network is the corrected one."""


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe(CardOptions):
    """Everything on which the result of a training depends, made from ``TrainOptions``.

    Attributes
    ----------
    weights : safetensors of the timm model named in ``encoder``, instead of the start bundle's
    sentence_encoder : folder of a BERT-like sentence encoder that the text encoder is distilled
        from, and whose embeddings of the captions the image encoder learns to predict
    whole_sentence_encoder : it becomes the text encoder unchanged, instead
    footprint : of the pictures on the ground; None: that of the start bundle
    gsd_range_m : meters a pixel of the rasters it is for; None: those of the start bundle
    stretch : scaling of these rasters to 8 bit, see ``fit_radiometry``; None: as of the start
        bundle
    taxonomy : file that states which classes the labels of each data set allow
    seed : of every random choice
    val, test : shares of the validation and the test part
    folds : of the captioners
    views : pictures cached of each image, the first one as it is
    width, text_width : of the dual attention and of a distilled text encoder
    trainings : of the image encoder from different seeds, of whose weights the mean is kept
        (Wortsman et al., "Model soups", ICML 2022)
    start_share : of the start bundle's weights in the trained image encoder and image head, for the
        same classes (WiSE-FT: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022)
    encoder, captioner, fusion : of the stages
    end_to_end : train the whole network by this recipe, instead of stage by stage

    The other attributes are the options of the same name. Raises ``UsageError``.
    """

    weights: Path | None = None
    sentence_encoder: Path | None = None
    whole_sentence_encoder: bool = False
    footprint: Footprint | None = None
    gsd_range_m: tuple[float, float] | None = None
    stretch: str | None = None
    taxonomy: Path | None = None
    seed: int = 0
    val: float = VAL
    test: float = TEST
    folds: int = 2
    views: int = 4
    width: int = 256
    text_width: int = 192
    trainings: int = 1
    start_share: float = 0.0
    encoder: EncoderRecipe = field(default_factory=EncoderRecipe)
    captioner: CaptionerRecipe = field(default_factory=CaptionerRecipe)
    fusion: FusionRecipe = field(default_factory=FusionRecipe)
    end_to_end: EndToEndRecipe | None = None

    def __post_init__(self) -> None:
        if self.folds < 2 or self.views < 1:
            raise UsageError(
                f"{self.folds} folds and {self.views} views: at least 2 and 1 are needed"
            )


def check_training(dataset: DataSets, output: str | Path, options: TrainOptions) -> None:
    """Refuse invalid options and inputs before anything slow is loaded.

    Raises ``UsageError`` for options that contradict each other, and ``InputError`` where the
    bundle exists, the data set is no image folder or a named file is missing.
    """
    recipe = end_to_end_recipe(options)
    if recipe is None and (options.image_encoder is None) != (options.weights is None):
        raise UsageError(
            "--image-encoder and --weights go together: the name of the timm model and its weights"
        )
    _footprint(options)
    if options.stretch is not None:
        from rssc_geo.raster import check_stretch

        check_stretch(options.stretch)
    check_shares(*_shares(options))
    check_bundle_folder(output)
    for file in (options.weights, options.captions, options.taxonomy):
        if file is not None and not Path(file).is_file():
            raise InputError(f"{file}: no such file")
    check_data_sets(data_sets(dataset), options.taxonomy)


def training_recipe(options: TrainOptions) -> TrainingRecipe:
    """The recipe of the options, completed by the card of the start bundle.

    Raises ``UsageError`` for options that contradict each other or do not suit the start bundle,
    and ``BundleError`` where that cannot be read.
    """
    val, test = _shares(options)
    recipe = TrainingRecipe(
        **{group.name: getattr(options, group.name) for group in dataclasses.fields(CardOptions)},
        weights=None if options.weights is None else Path(options.weights),
        sentence_encoder=(
            None if options.sentence_encoder is None else Path(options.sentence_encoder)
        ),
        whole_sentence_encoder=options.whole_sentence_encoder,
        footprint=_footprint(options),
        gsd_range_m=_pair(options.gsd_range),
        stretch=options.stretch,
        taxonomy=None if options.taxonomy is None else Path(options.taxonomy),
        seed=options.seed or 0,
        val=val,
        test=test,
        folds=options.folds,
        views=options.views,
        trainings=options.trainings,
        start_share=options.start_share,
        end_to_end=end_to_end_recipe(options),
    )
    if recipe.end_to_end is not None:
        return recipe
    captioner, fusion = recipe.captioner, recipe.fusion
    if options.caption_epochs is not None:
        captioner = dataclasses.replace(captioner, epochs=options.caption_epochs)
    if options.fusion_epochs is not None:
        fusion = dataclasses.replace(fusion, epochs=options.fusion_epochs)
    return dataclasses.replace(
        recipe, encoder=_encoder_recipe(options), captioner=captioner, fusion=fusion
    )


def _encoder_recipe(options: TrainOptions) -> EncoderRecipe:
    """The image encoder of the start bundle, or the timm model that is named instead."""
    from rssc_geo.models import load_card, timm_normalization

    start = load_card(options.model)
    if options.image_encoder is not None and options.start_share:
        raise UsageError("--start-share is of --model's image encoder; leave --image-encoder out")
    if options.image_encoder is not None:
        mean, std = timm_normalization(options.image_encoder)
        recipe = EncoderRecipe(
            architecture=options.image_encoder,
            kwargs={"pad_type": options.pad_type} if options.pad_type else {},
            mean=mean,
            std=std,
        )
    else:
        network = start.network["image_encoder"]
        if "architecture" not in network:
            raise UsageError(
                f"{options.model} has an image encoder of transformers; it goes on learning with"
                " --recipe full"
            )
        recipe = EncoderRecipe(
            architecture=network["architecture"],
            kwargs=network.get("kwargs", {}),
            ground=network.get("ground"),
            mean=start.mean,
            std=start.std,
        )
    if options.ground_features is not None:
        stage, width = options.ground_features
        recipe = dataclasses.replace(recipe, ground={"stage": stage, "width": width})
    if options.schedule is not None:
        recipe = dataclasses.replace(recipe, schedule=options.schedule)
    if options.learning_rate is not None:
        recipe = dataclasses.replace(recipe, learning_rate=options.learning_rate)
    swa_epochs = options.swa_epochs or 0
    if swa_epochs > recipe.epochs:
        raise UsageError(
            f"--swa-epochs {swa_epochs}: the image encoder is trained for {recipe.epochs} epochs in"
            " all (--schedule)"
        )
    return dataclasses.replace(recipe, swa_epochs=swa_epochs)


def end_to_end_recipe(options: TrainOptions) -> EndToEndRecipe | None:
    """The recipe of end-to-end training that the options ask for; None: by stages.

    Raises ``UsageError`` where they contradict each other.
    """
    kind = options.recipe or ("full" if options.text_encoder else "stages")
    given = given_of(options, TrainOptions)
    if kind == "stages":
        if named := _flags(given, _END_TO_END | _LAYERS | {"text_encoder"}):
            raise UsageError(
                f"{named}: only for training end to end, with --text-encoder or --recipe full"
            )
        return None
    if named := _flags(given, _STAGES):
        raise UsageError(f"{named}: only for training by stages, without --recipe {kind}")
    recipe = PUBLISHED if kind == "published" else EndToEndRecipe()
    settings = {name: value for name, value in given.items() if name in _END_TO_END}
    if options.image_encoder or options.text_encoder:
        settings["image_encoder"] = options.image_encoder or recipe.image_encoder
        settings["text_encoder"] = options.text_encoder or recipe.text_encoder
    elif options.model != "compact":
        settings |= {"image_encoder": None, "text_encoder": None}
    if options.learning_rate is not None:
        settings["learning_rate"] = options.learning_rate
    if options.captions is not None:
        settings["captions"] = Path(options.captions)
    return dataclasses.replace(
        recipe,
        weights=None if options.weights is None else Path(options.weights),
        image_layers=options.train_image_layers,
        text_layers=options.train_text_layers,
        **settings,
    )


def _flags(given: Mapping[str, Any], names: set[str]) -> str:
    """Those of the options that are given, as on the command line."""
    options = options_of(TrainOptions)
    return ", ".join(item.flag for item in options if item.name in names and item.name in given)


def _shares(options: TrainOptions) -> tuple[float, float]:
    """Shares of the validation and the test part."""
    return (
        VAL if options.val is None else options.val,
        TEST if options.test is None else options.test,
    )


def _footprint(options: TrainOptions) -> Footprint | None:
    if options.footprint is None:
        return None
    try:
        return Footprint(*options.footprint)
    except (TypeError, ValueError) as error:
        raise UsageError(
            "--footprint is the smallest, preferred and largest side in meters, such as"
            f" 300,400,600, not {options.footprint}"
        ) from error


def _pair(values: Sequence[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


def training_record(
    recipe: TrainingRecipe, split: Split, *, seconds: float, device: str, command: str
) -> dict[str, Any]:
    """The card's record of the training: data, parts, time, fields for ``trained_with``.

    ``seconds``: its time; ``command``: the way to reproduce it.
    """
    kept = ["val", "test"]
    if recipe.end_to_end is None:
        kept += ["folds", "views", "captioner", "fusion"]
    values = asdict(recipe)
    return {
        "data": recipe.data or "not described",
        "images": {name: len(rows) for name, rows in split.items()},
        "seed": recipe.seed,
        "minutes": round(seconds / 60, 1),
        "device": device,
        "command": command,
        "options": {name: values[name] for name in kept},
    }


def trained_with(card: ModelCard) -> TrainingRecipe:
    """Seed, split, folds, views and recipes of the training that a card records.

    Defaults are used where the card records nothing. Raises ``BundleError`` for fields of another
    version that this one does not know.
    """
    recorded = dict(card.training.get("options", {}))
    try:
        if "captioner" in recorded:
            recorded["captioner"] = CaptionerRecipe(**recorded["captioner"])
        if "fusion" in recorded:
            recorded["fusion"] = FusionRecipe(**recorded["fusion"])
        return TrainingRecipe(seed=card.training.get("seed", 0), **recorded)
    except (TypeError, KeyError) as error:
        raise BundleError(
            f"{card.name}: how it was trained, as its config.json tells, cannot be repeated here:"
            f" {error}"
        ) from error
