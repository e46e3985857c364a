"""The model card as data: the contents of a bundle's ``config.json``. No torch here."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from rssc_geo.errors import BundleError, UsageError, one_line

_DEPTH = 32
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def read_json(text: str) -> Any:
    """The value of a JSON text; refused: a key given twice, NaN and infinities, deep nesting."""
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_plain(found)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        found[name] = value
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _check_plain(value: Any) -> None:
    """Refuse values that could not be written again: infinities, lone surrogates, deep nesting."""
    level = [value]
    for _ in range(_DEPTH):
        inner: list[Any] = []
        for found in level:
            if isinstance(found, dict):
                inner += found
                inner += found.values()
            elif isinstance(found, list):
                inner += found
            elif isinstance(found, float) and not math.isfinite(found):
                raise ValueError("a number in it is too large")
            elif isinstance(found, str) and any("\ud800" <= sign <= "\udfff" for sign in found):
                raise ValueError(f"{found!r} is no text")
        if not inner:
            return
        level = inner
    raise ValueError("it is nested too deeply")


def check_integer(value: object, name: str, low: int, high: int) -> None:
    """Refuse a value that is no integer from ``low`` to ``high``."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, not an integer from {low} to {high}")


def check_number(value: object, name: str, low: float, high: float) -> None:
    """Refuse a value that is no number from ``low`` to ``high``, or NaN."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r}, not a number from {low:g} to {high:g}")


def check_flag(value: object, name: str) -> None:
    """Refuse a value that is neither true nor false."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, neither true nor false")


def check_text(value: object, name: str) -> None:
    """Refuse a value that is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, not a text")


def check_name(value: object, name: str) -> None:
    """Refuse a value that is no text of one line."""
    check_text(value, name)
    if any(unicodedata.category(sign) in _UNPRINTABLE for sign in str(value)):
        raise ValueError(f"{name} {value!r} holds signs that cannot be printed")


def check_encodable(text: str, name: str) -> None:
    """Refuse NUL and lone surrogates; other characters are escaped when written."""
    if any(sign == "\0" or unicodedata.category(sign) == "Cs" for sign in text):
        raise ValueError(f"{name} {text!r} is no text that a file can hold")


def check_mapping(value: object, name: str) -> None:
    """Refuse a value that is no JSON object."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} is {value!r}, not an object")


def check_list(value: object, name: str) -> None:
    """Refuse a value that is no list."""
    if not isinstance(value, list):
        raise TypeError(f"{name} is {value!r}, not a list")


def check_tuple(value: object, name: str, length: int) -> None:
    """Refuse a value that is no list of ``length`` values."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != length:
        raise ValueError(f"{name} is {value!r}, not a list of {length}")


def check_arguments(
    given: Mapping[str, Any],
    name: str,
    allowed: Mapping[str, tuple[int, int]],
    *,
    flags: Sequence[str] = (),
) -> None:
    """Refuse arguments other than an object of known names with integers in range and flags.

    ``dropout``, a share, is always allowed.
    """
    check_mapping(given, name)
    for key, value in given.items():
        if key in allowed:
            check_integer(value, f"{name}.{key}", *allowed[key])
        elif key == "dropout":
            check_number(value, f"{name}.{key}", 0, 1)
        elif key in flags:
            check_flag(value, f"{name}.{key}")
        else:
            raise ValueError(f"{name}.{key} is not known")
    width, heads = given.get("width"), given.get("heads")
    if width is not None and heads is not None and width % heads:
        raise ValueError(f"{name}: {heads} heads do not share a width of {width} equally")


FORMAT = 1
AS_PUBLISHED: Final = "as-published"
UNKNOWN_CLASS = "Unknown"
"""The class, and its group, for cells that no other class describes."""
_WITHOUT_EFFECT = ("description", "license", "training", "accuracy", "cpu_tiles_per_s")
_LOOKS = ("color", "title", "group")  # of a class
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_CARD = 1_000_000  # bytes; the embedded one has 7,000
_LARGEST_SIDE = 2048  # of the images that a network reads, in pixels
_EARTH_M = 40_100_000  # around it
_MOST_BANDS = 65535  # of a TIFF
_LONGEST_TEXT = 8192  # in tokens
_VARIANTS = ("corrected", AS_PUBLISHED)
# Limits of the network's sizes: far above useful ones, and still safe to build and run.
_WIDTH, _HEADS, _VOCABULARY = (1, 16384), (1, 256), (1, 4_000_000)
_NETWORK = MappingProxyType(
    {
        "width": _WIDTH,
        "heads": _HEADS,
        "levels": (0, 64),
        "learned_queries": (0, 1024),
        "text_length": (1, _LONGEST_TEXT),
        "padding_token": (0, _VOCABULARY[1]),
    }
)
_CAPTIONER = MappingProxyType(
    {
        "image_width": _WIDTH,
        "vocabulary": _VOCABULARY,
        "width": _WIDTH,
        "heads": _HEADS,
        "layers": (1, 64),
        "length": (1, 512),
    }
)
_ALIGNMENT = MappingProxyType({"image_width": _WIDTH, "text_width": _WIDTH})
_FAMILIARITY = MappingProxyType({"image_width": _WIDTH, "hidden": (1, 4096), "levels": (2, 10_001)})
_LOCAL = MappingProxyType(
    {"stride": (1, 256), "receptive_field": (1, 1024), "ground_stride": (1, 256)}
)


def in_words(name: str) -> str:
    """The name of a class as words.

    Examples
    --------
    >>> in_words("DenseResidential")
    'Dense Residential'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)


@dataclass(frozen=True, slots=True)
class SceneClass:
    """One class of a model.

    Attributes
    ----------
    id : its place in the network's output
    name : unique in its model
    color : ``#rrggbb``
    description : one phrase
    title : the name in plain writing, such as "Dense residential"; by default the name
    group : broader class, such as "Residential"; empty for classes that the legend lacks
    """

    id: int
    name: str
    color: str
    description: str = ""
    title: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        check_integer(self.id, "the id of a class", 0, 1_000_000)
        check_text(self.name, f"the name of class {self.id}")
        check_encodable(self.name, f"the name of class {self.id}")
        check_text(self.color, f"the color of class {self.id}")
        check_text(self.description, f"the description of class {self.id}")
        for part in ("title", "group"):
            check_text(getattr(self, part), f"the {part} of class {self.id}")
            check_encodable(getattr(self, part), f"the {part} of class {self.id}")
        if not self.name:
            raise ValueError(f"class {self.id} has no name")
        if not self.title:
            object.__setattr__(self, "title", self.name)
        if not _COLOR.fullmatch(self.color):
            raise ValueError(f"class {self.name!r}: color {self.color!r} is not #rrggbb")


@dataclass(frozen=True, slots=True)
class Footprint:
    """Side of a tile on the ground, in meters: the range of the training and the preferred size."""

    minimum_m: float
    preferred_m: float
    maximum_m: float

    def __post_init__(self) -> None:
        for name in ("minimum_m", "preferred_m", "maximum_m"):
            check_number(getattr(self, name), f"footprint.{name}", 0, _EARTH_M)
        if not 0 < self.minimum_m <= self.preferred_m <= self.maximum_m:
            raise ValueError(f"footprint {self} is not 0 < minimum <= preferred <= maximum")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Description of a bundle, and of the input of its network.

    Attributes
    ----------
    name, version, description, license : of the bundle
    classes : in the order of the network's output
    input_size : (rows, cols) in pixels
    mean, std : of RGB in [0, 1], for normalization
    bands : names of the three channels
    gsd_range_m : ground sampling distance of the rasters it was trained for, meters a pixel
    footprint : side of its tiles on the ground
    network : arguments of the architecture, and its ``variant``
    captioner : arguments of the embedded captioner; None: there is none
    prompt : for which the captions of its training were written
    max_tokens : longest caption that is read, its mark included
    temperature : logits are divided by it before the softmax
    window_temperature : the same for the windows of fine maps, which are classified by the picture
        alone; None: ``temperature``
    alignment : arguments of the alignment of images and texts; None: there is none
    reads_own_captions : whether classification reads the embedded captioner's words, since that is
        more accurate; else they are only written to the output
    cpu_tiles_per_s : tiles per second on one core of a laptop-class processor, captions included,
        for estimates
    special_tokens : whether captions are put between the tokenizer's marks of begin and end
    local_features : ``stride`` and ``receptive_field`` of the image encoder's tokens in pixels of
        its input, for an encoder with a small receptive field, so that windows of a raster can
        share its features, and ``ground_stride`` of its ground features' tokens, where these are
        finer; None: every tile is encoded by itself
    familiarity : arguments of the part that estimates how familiar a picture is; None: there is
        none
    unknown_below : a cell that is less familiar is ``Unknown``
    unknown_raster_below : where more than a fifth of a raster's cells, without plain water, are
        less familiar, all are ``Unknown``
    raster_bands : bands of a raster, counted from 1, that are read as red, green and blue unless
        others are asked for: those of its training; None: chosen from the raster's tags
    stretch : likewise the scaling of a raster to 8 bit
    training, accuracy : how it was trained, and its measured accuracy
    sha256 : digest of each file by its name
    """

    name: str
    version: str
    description: str
    license: str
    classes: tuple[SceneClass, ...]
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bands: tuple[str, str, str]
    gsd_range_m: tuple[float, float]
    footprint: Footprint
    network: Mapping[str, Any]
    captioner: Mapping[str, Any] | None
    prompt: str
    max_tokens: int
    temperature: float
    alignment: Mapping[str, Any] | None = None
    reads_own_captions: bool = True
    cpu_tiles_per_s: float | None = None
    special_tokens: bool = False
    local_features: Mapping[str, int] | None = None
    window_temperature: float | None = None
    familiarity: Mapping[str, Any] | None = None
    unknown_below: float = 0.0002
    unknown_raster_below: float = 0.003
    raster_bands: tuple[int, ...] | None = None
    stretch: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_words()
        self._check_numbers()
        self._check_parts()
        if not self.classes:
            raise ValueError("the card names no classes")
        if [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ValueError("class ids are not 0, 1, 2 … in order")
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("two classes share a name")
        if not 0 < self.gsd_range_m[0] <= self.gsd_range_m[1]:
            raise ValueError(f"gsd_range_m {self.gsd_range_m} is not a range")
        for file, digest in self.sha256.items():
            check_text(digest, f"sha256 of {file}")
            if not _SHA256.fullmatch(digest):
                raise ValueError(f"sha256 of {file} is {digest!r}")

    def _check_words(self) -> None:
        for name in ("name", "version"):
            check_name(getattr(self, name), name)
        for name in ("description", "license", "prompt"):
            check_text(getattr(self, name), name)
        check_tuple(self.bands, "bands", 3)
        for band in self.bands:
            check_name(band, "a band")
        if self.stretch is not None:
            check_name(self.stretch, "stretch")

    def _check_numbers(self) -> None:
        check_tuple(self.input_size, "input_size", 2)
        for side in self.input_size:
            check_integer(side, "a side of input_size", 1, _LARGEST_SIDE)
        for name, low, high in (("mean", -10.0, 10.0), ("std", 1e-3, 100.0)):
            check_tuple(getattr(self, name), name, 3)
            for value in getattr(self, name):
                check_number(value, f"a value of {name}", low, high)
        check_tuple(self.gsd_range_m, "gsd_range_m", 2)
        for value in self.gsd_range_m:
            check_number(value, "a value of gsd_range_m", 0, _EARTH_M)
        if self.raster_bands is not None:
            check_tuple(self.raster_bands, "raster_bands", 3)
            for number in self.raster_bands:
                check_integer(number, "one of raster_bands", 1, _MOST_BANDS)
        check_integer(self.max_tokens, "max_tokens", 1, _LONGEST_TEXT)
        check_number(self.temperature, "temperature", 1e-3, 1e3)
        if self.window_temperature is not None:
            check_number(self.window_temperature, "window_temperature", 1e-3, 1e3)
        check_number(self.unknown_below, "unknown_below", 0, 1)
        check_number(self.unknown_raster_below, "unknown_raster_below", 0, 1)
        if self.cpu_tiles_per_s is not None:
            check_number(self.cpu_tiles_per_s, "cpu_tiles_per_s", 1e-6, 1e6)

    def _check_parts(self) -> None:
        for name in ("reads_own_captions", "special_tokens"):
            check_flag(getattr(self, name), name)
        for name in ("training", "accuracy", "sha256", "network"):
            check_mapping(getattr(self, name), name)
        numbers = dict(self.network)
        for encoder in ("image_encoder", "text_encoder"):
            check_mapping(numbers.pop(encoder, None), f"network.{encoder}")
        if numbers.pop("variant", "corrected") not in _VARIANTS:
            raise ValueError(f"network.variant is {self.network['variant']!r}, not a known one")
        check_arguments(numbers, "network", _NETWORK, flags=("gate", "image_head"))
        if self.captioner is not None:
            check_arguments(self.captioner, "captioner", _CAPTIONER)
        if self.alignment is not None:
            check_arguments(self.alignment, "alignment", _ALIGNMENT)
        if self.familiarity is not None:
            check_arguments(self.familiarity, "familiarity", _FAMILIARITY)
        if self.local_features is not None:
            self._check_local_features(self.local_features)
        elif self.window_temperature is not None:
            raise ValueError("window_temperature is of local_features, and there are none")

    def _check_local_features(self, features: Mapping[str, int]) -> None:
        check_arguments(features, "local_features", _LOCAL)
        wanted = [name for name in _LOCAL if name != "ground_stride"]
        if not features.keys() >= set(wanted):
            raise ValueError(f"local_features has {', '.join(wanted)}, not {', '.join(features)}")
        if not self.network.get("image_head"):
            raise ValueError("local_features are read by an image head, and there is none")
        rows, cols = self.input_size
        if rows != cols or rows % features["stride"]:
            raise ValueError(
                f"an input of {rows} x {cols} pixels is no square of tokens of {features['stride']}"
            )
        if features["stride"] % features.get("ground_stride", 1):
            raise ValueError(
                f"tokens of {features['stride']} pixels are no multiple of the ground features' of"
                f" {features['ground_stride']}"
            )

    def names(self, ids: Sequence[int]) -> list[str]:
        """The names of classes by their ids."""
        return [self.classes[each].name for each in ids]

    @property
    def identity(self) -> str:
        """SHA-256 of the fields that a result depends on: models of one identity give the same.

        Texts about the model, its figures and the looks of its classes have no part in it.
        """
        values = asdict(self)
        for name in _WITHOUT_EFFECT:
            del values[name]
        for known in values["classes"]:
            for name in _LOOKS:
                del known[name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def token_strides(self) -> tuple[int, int]:
        """Pixels of the input a side of a token of the scene features, and of the ground features.

        ``ValueError`` where windows share no features.
        """
        if self.local_features is None:
            raise ValueError(f"windows of {self.name} share no features")
        stride = self.local_features["stride"]
        return stride, self.local_features.get("ground_stride", stride)

    @property
    def variant(self) -> str:
        """Variant of the network: "as-published" (the authors', defects included) or "corrected".

        Figures of one do not hold for the other.
        """
        return str(self.network.get("variant", "corrected"))

    @property
    def tells_unknown(self) -> bool:
        """Whether maps may have the class ``Unknown``, beside the model's own."""
        taken = any(scene_class.name == UNKNOWN_CLASS for scene_class in self.classes)
        return self.familiarity is not None and self.unknown_below > 0 and not taken

    @property
    def needs_captions(self) -> bool:
        """Whether the network cannot classify without a caption."""
        if self.network.get("image_head"):
            return False
        return self.variant == AS_PUBLISHED or self.network.get("learned_queries") == 0

    def to_json(self) -> str:
        """The text of ``config.json``."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str) -> ModelCard:
        """The card of a ``config.json``.

        Raises ``BundleError`` that names ``where`` and the first thing wrong with it.
        """
        try:
            data = read_json(text)
            _check_format(data)
            classes = data["classes"]
            check_list(classes, "classes")
            for entry in [*classes, data["footprint"]]:
                check_mapping(entry, "a class or the footprint")
            data["classes"] = tuple(SceneClass(**entry) for entry in classes)
            data["footprint"] = Footprint(**data["footprint"])
            for key in ("input_size", "mean", "std", "bands", "gsd_range_m"):
                check_list(data[key], key)
                data[key] = tuple(data[key])
            if data.get("raster_bands") is not None:
                check_list(data["raster_bands"], "raster_bands")
                data["raster_bands"] = tuple(data["raster_bands"])
            return cls(**data)
        except KeyError as error:
            raise BundleError(f"{where}: config.json lacks {error}") from error
        except (ValueError, TypeError) as error:
            raise BundleError(
                f"{where}: config.json cannot be used: {one_line(error)}; get the bundle again"
            ) from error


def check_embeddings(card: ModelCard) -> int:
    """The width of a model's embeddings, in the space that its pictures and texts share.

    Raises ``UsageError`` for a model that was trained without captions.
    """
    if card.alignment is None:
        raise UsageError(
            f"the model {card.name!r} was trained without captions: it has no embeddings that"
            " pictures and words share"
        )
    return int(card.alignment["text_width"])


def _check_format(data: Any) -> None:
    if not isinstance(data, dict):
        raise TypeError("not a JSON object")
    version = data.pop("format", None)
    if version != FORMAT or isinstance(version, bool):
        raise ValueError(f"bundle format {version!r}, this program reads {FORMAT}")


def read_card(folder: Path) -> ModelCard:
    """The card of a bundle folder; ``BundleError`` where there is none or it is not valid."""
    path = folder / "config.json"
    try:
        if path.stat().st_size > _LARGEST_CARD:
            raise BundleError(f"{path} is too large for a model card: get the bundle again")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(f"{folder} is no model bundle: config.json is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {one_line(error)}") from error
    return ModelCard.from_json(text, where=str(folder))
