"""The model card as data: everything a bundle's ``config.json`` says. No torch here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rssc_geo.errors import BundleError

FORMAT = 1
AS_PUBLISHED: Final = "as-published"
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def in_words(name: str) -> str:
    """A class's name as words.

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
    description : one phrase, for people
    """

    id: int
    name: str
    color: str
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(f"class {self.id} has no name")
        if not _COLOR.fullmatch(self.color):
            raise ValueError(f"class {self.name!r}: color {self.color!r} is not #rrggbb")


@dataclass(frozen=True, slots=True)
class Footprint:
    """Side of a tile on the ground, in meters: the range trained for and the size to prefer."""

    minimum_m: float
    preferred_m: float
    maximum_m: float

    def __post_init__(self) -> None:
        if not 0 < self.minimum_m <= self.preferred_m <= self.maximum_m:
            raise ValueError(f"footprint {self} is not 0 < minimum <= preferred <= maximum")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a bundle is, and how its network wants to be fed.

    Attributes
    ----------
    name, version, description, license : of the bundle
    classes : in the order of the network's output
    input_size : (rows, cols) in pixels
    mean, std : of RGB in [0, 1], for normalization
    bands : what the three channels are
    gsd_range_m : ground sampling distance of the rasters it was trained for, meters a pixel
    footprint : side of its tiles on the ground
    network : arguments of the architecture, and its ``variant``
    captioner : arguments of the embedded captioner; None: there is none
    prompt : that the captions of its training were written for
    max_tokens : longest caption that is read, its mark included
    temperature : logits are divided by it before the softmax
    alignment : arguments of the alignment of images and texts; None: there is none
    reads_own_captions : whether the class is better for reading the embedded captioner's words;
        else they only go to the output
    cpu_tiles_per_s : tiles per second on one core of a laptop-class processor, captions included,
        for estimates
    special_tokens : whether captions stand between the tokenizer's marks of begin and end
    training, accuracy : how it was trained, and what was measured
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
    training: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("the card names no classes")
        if [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ValueError("class ids are not 0, 1, 2 … in order")
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("two classes share a name")
        if (
            min(self.input_size) < 1
            or min(self.std) <= 0
            or self.temperature <= 0
            or self.max_tokens < 1
        ):
            raise ValueError("input_size, std, temperature and max_tokens must be positive")
        if not 0 < self.gsd_range_m[0] <= self.gsd_range_m[1]:
            raise ValueError(f"gsd_range_m {self.gsd_range_m} is not a range")
        for file, digest in self.sha256.items():
            if not _SHA256.fullmatch(digest):
                raise ValueError(f"sha256 of {file} is {digest!r}")

    @property
    def variant(self) -> str:
        """Whose network it is: "as-published" (the authors', with its defects) or "corrected".

        Figures of one say nothing of the other.
        """
        return str(self.network.get("variant", "corrected"))

    @property
    def needs_captions(self) -> bool:
        """Whether the network has nothing to read where there is no caption."""
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
            data = json.loads(text)
            _check_format(data)
            data["classes"] = tuple(SceneClass(**entry) for entry in data["classes"])
            data["footprint"] = Footprint(**data["footprint"])
            for key in ("input_size", "mean", "std", "bands", "gsd_range_m"):
                data[key] = tuple(data[key])
            return cls(**data)
        except KeyError as error:
            raise BundleError(f"{where}: config.json lacks {error}") from error
        except (ValueError, TypeError) as error:
            raise BundleError(f"{where}: config.json cannot be used: {error}") from error


def _check_format(data: Any) -> None:
    if not isinstance(data, dict):
        raise TypeError("not a JSON object")
    version = data.pop("format", None)
    if version != FORMAT:
        raise ValueError(f"bundle format {version!r}, this program reads {FORMAT}")


def read_card(folder: Path) -> ModelCard:
    """The card of a bundle folder; ``BundleError`` where there is none or it is not valid."""
    path = folder / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(f"{folder} is no model bundle: config.json is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    return ModelCard.from_json(text, where=str(folder))
