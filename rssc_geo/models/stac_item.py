"""A model's card as an item of a SpatioTemporal Asset Catalog (STAC 1.1, https://stacspec.org).

By the Machine Learning Model extension (MLM 1.4, https://github.com/stac-extensions/mlm), so that a
catalog describes the model's inputs, outputs and weights. No torch here.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rssc_geo.errors import BundleError, one_line
from rssc_geo.files import atomic_write, check_writable, relative_link
from rssc_geo.models.bundle import TOKENIZER, VOCABULARY, WEIGHTS, find_bundle
from rssc_geo.models.card import ModelCard, SceneClass, read_card
from rssc_geo.options import JSON

STAC_VERSION = "1.1.0"
_EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("mlm/v1.4.0", "classification/v2.0.0")
)
_FILES = {
    WEIGHTS: ("application/vnd.safetensors", "Weights", ("mlm:model", "mlm:weights", "data")),
    "config.json": ("application/json", "Card", ("metadata",)),
    TOKENIZER: ("application/json", "Tokenizer", ("metadata",)),
    VOCABULARY: ("application/json", "Words of the captioner", ("metadata",)),
    "README.md": ("text/markdown", "What it is and how it was made", ("metadata",)),
}
_LENGTH_BYTES, _LONGEST_HEADER = 8, 100_000_000
"""Of a safetensors file: bytes of the length of its header; largest header."""

_FLOAT_BYTES = 4
"""Bytes of a weight in computation."""

_ANYWHERE = (-180.0, -90.0, 180.0, 90.0)
_ANYTIME = {
    "datetime": None,
    "start_datetime": "1900-01-01T00:00:00Z",
    "end_datetime": "9999-12-31T23:59:59Z",
}
"""Geometry and time of an item without place and time, by MLM's best practices."""

_ODD = re.compile(r"[^0-9A-Za-z_-]+")
_ODD_ID = re.compile(r"[^0-9A-Za-z_.-]+")


def stac_class(known: SceneClass) -> dict[str, Any]:
    """A class by the classification extension, whose names have only letters, digits, - and _.

    Examples
    --------
    >>> from rssc_geo.models import SceneClass, stac_class
    >>> stac_class(SceneClass(3, "tennis court", "#ff0000", title="Tennis court"))["name"]
    'tennis_court'
    """
    return {
        "value": known.id,
        "name": _ODD.sub("_", known.name).strip("_") or f"class_{known.id}",
        "title": known.title or known.name,
        "description": known.description or known.title or known.name,
        "color_hint": known.color.removeprefix("#").upper(),
    }


def write_model_item(
    model: str | Path, path: str | Path, *, revision: str | None = None, overwrite: bool = False
) -> Path:
    """Write a model's card as a STAC item to ``path``, which is returned.

    Parameters
    ----------
    model, revision : as for :func:`rssc_geo.load_card`
    path : .json; the bundle's files are linked from there
    overwrite : whether a file that is there is replaced

    Raises ``UsageError`` for another suffix, ``OutputError`` where it cannot be written,
    ``BundleError`` for a bundle that cannot be read.

    Examples
    --------
    >>> import json
    >>> from rssc_geo.models import write_model_item
    >>> made = write_model_item("compact", "compact.json")
    >>> json.loads(made.read_text())["properties"]["mlm:tasks"]
    ['scene-classification', 'image-captioning', 'similarity-search']
    """
    path = Path(path)
    JSON.check_suffix("--stac-item", path)
    check_writable(path, overwrite=overwrite)
    folder = find_bundle(model, revision)
    item = _item(read_card(folder), folder, path.parent)
    return write_stac_item(path, item, overwrite=overwrite)


def write_stac_item(path: Path, item: Mapping[str, Any], *, overwrite: bool) -> Path:
    """Write an item to ``path``, which is returned; ``OutputError`` where it cannot be written."""
    text = json.dumps(item, ensure_ascii=False, indent=2)
    with atomic_write(path, overwrite=overwrite) as made:
        # File names that are not UTF-8 come as lone surrogates, which no text can hold.
        made.write_bytes(text.encode("utf-8", "replace") + b"\n")
    return path


def _item(card: ModelCard, folder: Path, beside: Path) -> dict[str, Any]:
    """The item of a bundle's ``folder``, to lie in ``beside``."""
    west, south, east, north = _ANYWHERE
    bands = [{"name": band} for band in card.bands]
    parameters = _parameters(folder / WEIGHTS)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(_EXTENSIONS),
        "id": _ODD_ID.sub("-", f"{card.name}-{card.version}"),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(_ANYWHERE),
        "properties": {
            "title": f"{card.name} {card.version}",
            "description": card.description or card.name,
            "license": card.license,
            **_ANYTIME,
            "gsd": card.gsd_range_m[0],
            "bands": bands,
            "mlm:name": _ODD_ID.sub("-", card.name),
            "mlm:architecture": _architecture(card),
            "mlm:framework": "PyTorch",
            "mlm:tasks": _tasks(card),
            "mlm:accelerator_constrained": False,
            "mlm:memory_size": _FLOAT_BYTES * parameters,
            "mlm:total_parameters": parameters,
            "mlm:input": [_input(card)],
            "mlm:output": _outputs(card),
            **_training(card),
            "rssc_geo:gsd_range_m": list(card.gsd_range_m),
            "rssc_geo:footprint_m": [
                card.footprint.minimum_m,
                card.footprint.preferred_m,
                card.footprint.maximum_m,
            ],
            "rssc_geo:accuracy": dict(card.accuracy),
            "rssc_geo:sha256": dict(card.sha256),
        },
        "links": [],
        "assets": {
            Path(name).stem.lower(): _asset(relative_link(folder / name, beside), told, bands)
            for name, told in _FILES.items()
            if (folder / name).is_file()
        },
    }


def _architecture(card: ModelCard) -> str:
    """The image encoder, by its name in timm or its type in transformers, and what follows it."""
    encoder = card.network["image_encoder"]
    name = encoder.get("architecture") or encoder.get("model_type", "unknown")
    return f"{name}, dual cross-attention"


def _tasks(card: ModelCard) -> list[str]:
    tasks = ["scene-classification"]
    tasks += ["image-captioning"] if card.captioner is not None else []
    return tasks + (["similarity-search"] if card.alignment is not None else [])


def _input(card: ModelCard) -> dict[str, Any]:
    """A batch of tiles; the values that the extension knows are of bytes that became 0 to 1."""
    rows, cols = card.input_size
    return {
        "name": "tile",
        "description": "Tiles as red, green and blue from 0 to 1, resampled to this size",
        "bands": list(card.bands),
        "input": {
            "shape": [-1, len(card.bands), rows, cols],
            "dim_order": ["batch", "channel", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [
            {"type": "z-score", "mean": mean, "stddev": deviation}
            for mean, deviation in zip(card.mean, card.std, strict=True)
        ],
        "resize_type": "interpolation-area",
    }


def _outputs(card: ModelCard) -> list[dict[str, Any]]:
    def output(task: str, name: str, shape: Sequence[int], order: str, kind: str) -> dict[str, Any]:
        result = {"shape": [-1, *shape], "dim_order": ["batch", order], "data_type": kind}
        return {"name": name, "tasks": [task], "result": result}

    classes = output(
        "scene-classification", "probabilities", [len(card.classes)], "class", "float32"
    )
    found = [{**classes, "classification:classes": [stac_class(known) for known in card.classes]}]
    if card.captioner is not None:
        found.append(
            output("image-captioning", "caption", [card.captioner["length"]], "token", "int64")
        )
    if card.alignment is not None:
        width = card.alignment["text_width"]
        found.append(output("similarity-search", "embedding", [width], "feature", "float16"))
    return found


def _training(card: ModelCard) -> dict[str, Any]:
    """The card's record of the training."""
    told = card.training
    if not told.get("data"):
        return {}
    found: dict[str, Any] = {"mlm:pretrained": True, "mlm:pretrained_source": str(told["data"])}
    options = {_ODD_ID.sub("_", name): value for name, value in told.get("options", {}).items()}
    return {**found, **({"mlm:hyperparameters": options} if options else {})}


def _asset(
    href: str, told: tuple[str, str, Sequence[str]], bands: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """A file of the bundle; MLM wants the bands both in the item and here, with the weights."""
    kind, title, roles = told
    found: dict[str, Any] = {"href": href, "type": kind, "title": title, "roles": list(roles)}
    if "mlm:model" in roles:
        found |= {"mlm:artifact_type": "safetensors", "bands": bands}
    return found


def _parameters(weights: Path) -> int:
    """The number of parameters of a safetensors file, by its header."""
    try:
        with weights.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES))
            header: Mapping[str, Any] = json.loads(file.read(min(length, _LONGEST_HEADER)))
        return sum(
            math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__"
        )
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{weights} cannot be read ({one_line(error)})") from error
