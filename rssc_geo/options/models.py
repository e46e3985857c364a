"""Options of the model, its classes, the device and the captioner."""

from __future__ import annotations

from dataclasses import dataclass

from rssc_geo.options.declaration import (
    CAPTIONS,
    CARD,
    COMPUTING,
    MODEL,
    OUTPUT,
    Options,
    option,
)
from rssc_geo.options.kinds import (
    COUNT,
    DEVICE,
    FILE,
    FLAG,
    JSON,
    LINE,
    NAME,
    NAMES,
    POSITIVE,
    Kind,
    choice,
)
from rssc_geo.options.runs import OverwriteOptions


@dataclass(frozen=True, kw_only=True)
class ClassNamesOptions(Options):
    """Which classes."""

    classes: str = option(
        "Names of the classes, or a file: JSON {name: [words, …]}, or text, a name a line.",
        MODEL,
        Kind("A,B,…|FILE", str),
        default="",
        required=True,
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """Which model."""

    model: str = option("Embedded name, bundle folder or hub id.", MODEL, NAME, default="compact")
    revision: str | None = option("Revision of a hub id.", MODEL, NAME, default=None)


@dataclass(frozen=True, kw_only=True)
class ClassChoiceOptions(Options):
    """The allowed classes of the model."""

    only_classes: tuple[str, ...] = option(
        "Choose among these classes alone; a group's name stands for all of its classes.",
        MODEL,
        NAMES,
        default=(),
    )
    exclude_classes: tuple[str, ...] = option(
        "Never choose these classes, or the classes of these groups.", MODEL, NAMES, default=()
    )


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """Where the network runs."""

    device: str | None = option(
        "cpu, cuda, cuda:1, mps. Default: the fastest there is.", COMPUTING, DEVICE, default=None
    )


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(DeviceOptions):
    """Where and how the network runs."""

    dtype: str | None = option(
        "Precision. Default: bfloat16 on CUDA, else float32.",
        COMPUTING,
        choice("float32", "bfloat16", "float16"),
        default=None,
    )
    batch_size: int | None = option(
        "Tiles a batch. Default: by the device.", COMPUTING, COUNT, default=None
    )


@dataclass(frozen=True, kw_only=True)
class CaptionerOptions(Options):
    """Options of the captioner; all but ``caption_beam`` are for large captioners."""

    captioner: str | None = option(
        "compact (the model's own, the default where it has one), none, hf:ID[@REVISION], hf:FOLDER"
        " or openai:http://HOST:PORT/v1#MODEL (a key goes into the environment as"
        " RSSC_GEO_API_KEY).",
        CAPTIONS,
        NAME,
        default=None,
    )
    caption_when: str = option(
        "always, or uncertain[:0.9]: only tiles whose confidence without a caption is lower than"
        " that.",
        CAPTIONS,
        Kind("WHEN", str),
        default="always",
    )
    caption_beam: int = option(
        "compact: width of the beam search; 1 is greedy search.", CAPTIONS, COUNT, default=1
    )
    prompt: str = option(
        "Prompt of hf: and openai: captioners: published, closed, free, or a text of your own.",
        CAPTIONS,
        default="published",
    )
    caption_tokens: int = option(
        "Length of an answer at most.", CAPTIONS, COUNT, default=192, unit="tokens"
    )
    share_captions: bool = option(
        "Tiles that look the same get one caption.", CAPTIONS, FLAG, default=False
    )
    caption_cache: str | None = option(
        "Where captions are kept. Default: see `models cache`.",
        CAPTIONS,
        FILE,
        default=None,
        path=True,
    )
    caption_requests: int = option("openai: requests at a time.", CAPTIONS, COUNT, default=8)
    caption_timeout: float = option(
        "openai: time for an answer.", CAPTIONS, POSITIVE, default=120.0, unit="s"
    )
    caption_batch_size: int | None = option(
        "hf: tiles a batch. Default: by the device.", CAPTIONS, COUNT, default=None
    )
    quantize: str | None = option(
        "hf: weights in 4 or 8 bit, with bitsandbytes on CUDA.",
        CAPTIONS,
        choice("4bit", "8bit"),
        default=None,
    )
    trust_remote_code: bool = option(
        "hf: run the Python code that the model's repository brings.",
        CAPTIONS,
        FLAG,
        default=False,
        commandline_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class NamedClassOptions(Options):
    """How classes that are named by words are used."""

    other: bool = option(
        "Also a class 'other' for what is none of these.",
        MODEL,
        FLAG,
        default=True,
        negative="--no-other",
        row=True,
    )
    refine: bool = option(
        "Move the classes towards the clusters of each raster's tiles, which are read twice.",
        MODEL,
        FLAG,
        default=False,
        row=True,
    )


@dataclass(frozen=True, kw_only=True)
class DescribingOptions(ModelOptions, ComputeOptions, CaptionerOptions):
    """The model and captioner for ``caption``."""


@dataclass(frozen=True, kw_only=True)
class PredictorOptions(DescribingOptions, ClassChoiceOptions):
    """The model and captioner that classify tiles."""


@dataclass(frozen=True, kw_only=True)
class ModelInfoOptions(OverwriteOptions):
    """Options of ``models info``."""

    revision: str | None = option("Revision of a hub id.", MODEL, NAME, default=None)
    stac_item: str | None = option(
        "Write the card as a STAC item instead, by the Machine Learning Model extension.",
        OUTPUT,
        JSON,
        default=None,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class ImportOptions(Options):
    """Options of ``models import``."""

    levels: int = option(
        "Levels it was trained with; the published command has 2.",
        MODEL,
        COUNT,
        default=2,
        required=True,
    )
    heads: int = option("Heads of the dual attention.", MODEL, COUNT, default=4)
    variant: str = option(
        "The published network with its defects, or the corrected one with its weights, to train.",
        MODEL,
        choice("as-published", "corrected"),
        default="as-published",
    )
    tokenizer: str = option(
        "Folder or hub id of CLIP's tokenizer.", MODEL, NAME, default="openai/clip-vit-base-patch32"
    )
    bundle_name: str | None = option(
        "Of the bundle. Default: the checkpoint's.", CARD, LINE, default=None, flag="--name"
    )
