"""Options of labels, training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rssc_geo.errors import UsageError
from rssc_geo.options.declaration import (
    CAPTIONS,
    CARD,
    FULL_SIZE,
    INPUT,
    LEARNING,
    MODEL,
    OUTPUT,
    POLYGONS,
    SPLIT,
    Options,
    option,
)
from rssc_geo.options.kinds import (
    COUNT,
    FILE,
    FLAG,
    FOLDER,
    HTML,
    LAYERS,
    LINE,
    NAME,
    NATURAL,
    POSITIVE,
    RANGE,
    SCHEDULE,
    SEED,
    SHARE,
    Kind,
    choice,
    numbers,
)
from rssc_geo.options.models import CaptionerOptions, ClassChoiceOptions, DeviceOptions
from rssc_geo.options.rasters import TilingOptions


@dataclass(frozen=True, kw_only=True)
class PolygonSourceOptions(Options):
    """Labeled polygons, instead of a data set of pictures."""

    raster: tuple[str, ...] = option(
        "Instead of DATASET: a raster; may be repeated.",
        POLYGONS,
        FILE,
        default=(),
        multiple=True,
        path=True,
    )
    labels: tuple[str, ...] = option(
        "Its labeled polygons; one file for all rasters, or one each.",
        POLYGONS,
        FILE,
        default=(),
        multiple=True,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationTargetOptions(Options):
    """The paths of figures and pictures of an evaluation."""

    output: str | None = option(
        "Also write JSON, confusion matrix, t-SNE and worst mistakes into this folder.",
        OUTPUT,
        Kind("PATH", str),
        default=None,
        short="o",
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class SplitOptions(Options):
    """How a data set is cut into parts for training, validation and test."""

    seed: int | None = option(
        "Seed of all random choices. Default: 0; that of MODEL.", SPLIT, SEED, default=None
    )
    val: float | None = option(
        "Share of the validation part. Default: 0.1; that of MODEL's training.",
        SPLIT,
        SHARE,
        default=None,
    )
    test: float | None = option(
        "Share of the test part, evaluated once. Default: 0.1; that of MODEL's training.",
        SPLIT,
        SHARE,
        default=None,
    )


@dataclass(frozen=True, kw_only=True)
class ClassFieldOptions(Options):
    """The column of the class in labels."""

    field: str = option("Column of the class names.", POLYGONS, NAME, default="class")


@dataclass(frozen=True, kw_only=True)
class PatchOptions(ClassFieldOptions):
    """How patches are cut from labels on a raster."""

    purity: float = option(
        "Share of a patch that its class covers, at least 0.5.", POLYGONS, SHARE, default=0.6
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.5 <= self.purity <= 1:
            raise UsageError(f"--purity {self.purity:g} is no share from 0.5 to 1")


@dataclass(frozen=True, kw_only=True)
class TaxonomyOptions(Options):
    """The meaning of data sets' labels."""

    taxonomy: str | None = option(
        "JSON: classes, groups, and which classes each label of each DATASET allows.",
        INPUT,
        FILE,
        default=None,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(
    TilingOptions,
    SplitOptions,
    TaxonomyOptions,
    PatchOptions,
    ClassChoiceOptions,
    CaptionerOptions,
    DeviceOptions,
):
    """Options of ``evaluate``."""

    revision: str | None = option("Revision of a hub id.", MODEL, NAME, default=None)
    captions: str | None = option(
        "Captions of the pictures by people, JSON Lines. Default: the data set's captions.jsonl.",
        CAPTIONS,
        FILE,
        default=None,
        path=True,
    )
    caption_source: Literal["own", "none", "human"] = option(
        "Captions that the classifier may read: own are those of --captioner.",
        CAPTIONS,
        choice("own", "none", "human"),
        default="own",
    )
    part: Literal["all", "train", "val", "test"] = option(
        "Which part of the data set.", SPLIT, choice("all", "train", "val", "test"), default="all"
    )
    class_map: str | None = option(
        'JSON: {"class of the data set": "class of the model"}.',
        INPUT,
        FILE,
        default=None,
        path=True,
    )
    robustness: bool = option(
        "Also the accuracy under corruptions and other footprints.", OUTPUT, FLAG, default=False
    )


@dataclass(frozen=True, kw_only=True)
class BaselineOptions(SplitOptions, TaxonomyOptions, DeviceOptions):
    """Options of ``evaluate --baselines``."""

    revision: str | None = option("Revision of a hub id.", MODEL, NAME, default=None)
    baselines: int | None = option(
        "Train the paper's baselines too, N times each.", LEARNING, COUNT, default=None
    )
    work: str | None = option(
        "The work folder of the training.", LEARNING, FOLDER, default=None, path=True
    )
    fusion_epochs: int | None = option(
        "Epochs of the fusion. Default: as in the training.", LEARNING, COUNT, default=None
    )


@dataclass(frozen=True, kw_only=True)
class CardOptions(Options):
    """The description of a new bundle in its card."""

    model: str = option("Bundle to start from.", MODEL, NAME, default="compact")
    name: str = option("Name of the bundle.", CARD, LINE, default="trained")
    bundle_version: str = option("Version of the bundle.", CARD, LINE, default="1")
    description: str = option("One line for the card.", CARD, default="")
    license: str = option("License of the weights.", CARD, LINE, default="unspecified")
    data: str = option("What the data set is, and its license.", CARD, default="")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(CardOptions, SplitOptions, TaxonomyOptions, DeviceOptions):
    """Options of ``train`` on pictures."""

    work: str | None = option(
        "Folder of intermediate results, with which a stopped run continues. Default: OUTPUT.work.",
        LEARNING,
        FOLDER,
        default=None,
        path=True,
    )
    image_encoder: str | None = option(
        "Another timm model, with --weights; end to end: a folder or hub id.",
        LEARNING,
        NAME,
        default=None,
    )
    weights: str | None = option(
        "Weights of --image-encoder, safetensors.", LEARNING, FILE, default=None, path=True
    )
    pad_type: str = option(
        "Padding of timm models that come from TensorFlow.",
        LEARNING,
        choice("", "same"),
        default="",
    )
    ground_features: tuple[int, ...] | None = option(
        "Early stage of the image encoder (from 0) that describes each cell's own ground, and the"
        " number of its features. Default: those of --model.",
        LEARNING,
        numbers(int, "STAGE,WIDTH"),
        default=None,
    )
    sentence_encoder: str | None = option(
        "Sentence encoder to distill the text encoder from.",
        LEARNING,
        FOLDER,
        default=None,
        path=True,
    )
    whole_sentence_encoder: bool = option(
        "Keep it whole as the text encoder, instead of distilling it.",
        LEARNING,
        FLAG,
        default=False,
    )
    schedule: tuple[tuple[int, int], ...] | None = option(
        "Parts of the image encoder's training. Default: 6x128,8x160,6x192.",
        LEARNING,
        SCHEDULE,
        default=None,
        structured=True,
    )
    learning_rate: float | None = option(
        "Learning rate of the image encoder's heads; end to end: of all layers.",
        LEARNING,
        POSITIVE,
        default=None,
    )
    swa_epochs: int | None = option(
        "Last epochs of the image encoder, over which its weights are averaged (SWA).",
        LEARNING,
        COUNT,
        default=None,
    )
    trainings: int = option(
        "Trainings of the image encoder from different seeds; the mean of their weights is kept"
        " (model soup).",
        LEARNING,
        COUNT,
        default=1,
    )
    start_share: float = option(
        "Share of --model's weights in the trained image encoder, for the same classes (WiSE-FT):"
        " more holds better on other imagery.",
        LEARNING,
        SHARE,
        default=0.0,
    )
    caption_epochs: int | None = option("Epochs of each captioner.", LEARNING, COUNT, default=None)
    fusion_epochs: int | None = option("Epochs of the fusion.", LEARNING, COUNT, default=None)
    folds: int = option("Folds of the captioners, at least 2.", LEARNING, COUNT, default=2)
    views: int = option(
        "Copies of each picture: the first as it is, the others augmented.",
        LEARNING,
        COUNT,
        default=4,
    )
    footprint: tuple[float, ...] | None = option(
        "Ground that a picture covers.",
        CARD,
        numbers(float, "MIN,PREFERRED,MAX"),
        default=None,
        unit="m",
    )
    gsd_range: tuple[float, ...] | None = option(
        "Ground sampling of the rasters that the model is for.",
        CARD,
        numbers(float, "MIN,MAX"),
        default=None,
        unit="m a pixel",
    )
    stretch: str | None = option(
        "Default scaling of 8-bit rasters, such as 'dos'. Default: that of --model.",
        CARD,
        RANGE,
        default=None,
    )
    recipe: str | None = option(
        "stages: encoder, captioner, fusion (default); full: the whole network end to end (default"
        " with --text-encoder); published: the same with the paper's settings.",
        FULL_SIZE,
        choice("stages", "full", "published"),
        default=None,
    )
    text_encoder: str | None = option(
        "Folder or hub id of a transformers text encoder or CLIP.", FULL_SIZE, NAME, default=None
    )
    captions: str | None = option(
        "JSON Lines of captions.", FULL_SIZE, FILE, default=None, path=True
    )
    train_image_layers: int | None = option(
        "Layers of the image encoder that are trained.", FULL_SIZE, LAYERS, default=None
    )
    train_text_layers: int | None = option(
        "Layers of the text encoder that are trained.", FULL_SIZE, LAYERS, default=None
    )
    epochs: int | None = option("Epochs at most.", FULL_SIZE, COUNT, default=None)
    batch_size: int | None = option(
        "Pictures a step, over all GPUs.", FULL_SIZE, COUNT, default=None
    )
    accumulate: int | None = option(
        "Parts that each GPU's share of a batch is computed in.", FULL_SIZE, COUNT, default=None
    )
    clip: float | None = option("Largest norm of the gradient.", FULL_SIZE, POSITIVE, default=None)
    patience: int | None = option(
        "Epochs without a better validation accuracy before the end.",
        FULL_SIZE,
        COUNT,
        default=None,
    )
    silent: float | None = option(
        "Share of pictures shown without their caption.", FULL_SIZE, SHARE, default=None
    )
    levels: int | None = option("Levels of the dual attention.", FULL_SIZE, COUNT, default=None)
    width: int | None = option("Width of the dual attention.", FULL_SIZE, COUNT, default=None)
    checkpointing: bool = option(
        "Compute activations twice to save memory.", FULL_SIZE, FLAG, default=False
    )
    compile: bool = option("Compile the network.", FULL_SIZE, FLAG, default=False)
    workers: int | None = option(
        "Processes that prepare batches.", FULL_SIZE, NATURAL, default=None
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds < 2:
            raise UsageError(f"--folds {self.folds}: at least 2 are needed")
        if self.whole_sentence_encoder and self.sentence_encoder is None:
            raise UsageError("--whole-sentence-encoder needs a --sentence-encoder to keep")


@dataclass(frozen=True, kw_only=True)
class TrainOnPolygonsOptions(TilingOptions, CardOptions, PatchOptions, DeviceOptions):
    """Options of ``train --raster``."""

    group_field: str | None = option(
        "Column of groups of labels (a field, a site): the cross-validation trains or tests on all"
        " labels of a group, never both.",
        POLYGONS,
        NAME,
        default=None,
    )
    test_labels: tuple[str, ...] = option(
        "Labels to test on alone, instead of the cross-validation; one file for all rasters, or one"
        " each.",
        POLYGONS,
        FILE,
        default=(),
        multiple=True,
        path=True,
    )
    fine_tune: bool = option(
        "Train the image encoder, too: minutes instead of seconds.", POLYGONS, FLAG, default=False
    )
    report: str | None = option(
        "Also a page: accuracy of each class, confusion matrix, weaknesses of the labels.",
        OUTPUT,
        HTML,
        default=None,
        path=True,
    )
    class_words: Mapping[str, str | Sequence[str]] | str | None = option(
        "JSON {class: [words, …]}: phrases that describe classes with few patches.",
        POLYGONS,
        FILE,
        default=None,
        path=True,
        structured=True,
    )
