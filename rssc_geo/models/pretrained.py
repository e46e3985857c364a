"""Pretrained encoders.

Found in a folder or on the hub, read once, kept as configuration and weights in our bundles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.data import resolve_data_config
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
from transformers.utils import logging as transformers_logging

from rssc_geo.errors import BundleError, not_fetched, one_line
from rssc_geo.models.encoders import make_image_encoder, make_text_encoder, text_class
from rssc_geo.models.keys import fit_keys

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_UNLIMITED = 512
"""Tokens of a text whose encoder names no limit (T5)."""
_NOT_OURS = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "quantization_config",
)


@dataclass(frozen=True, slots=True)
class PretrainedImageEncoder:
    """What a bundle needs of an image encoder.

    ``configuration``: for the card; ``weights``: of ``make_image_encoder(configuration)``;
    ``size``: pixels a side of its input; ``mean``, ``std``: for RGB in [0, 1].
    """

    configuration: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class PretrainedTokenizer:
    """``padding``: the id that fills short texts up; ``longest``.

    Tokens that it was made for, marks included, if it says.
    """

    tokenizer: Tokenizer
    padding: int
    longest: int | None


@dataclass(frozen=True, slots=True)
class PretrainedTextEncoder:
    """``weights``: of ``make_text_encoder(configuration)``; ``max_tokens``.

    Longest text, marks included.
    """

    configuration: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    tokenizer: Tokenizer
    max_tokens: int


def load_image_encoder(name: str, *, weights: Path | None = None) -> PretrainedImageEncoder:
    """The image encoder ``name``: a folder (of transformers or timm), a timm model's name, or a hub
    id.

    Of a model of pictures and texts such as CLIP its vision part is taken. ``weights``: safetensors
    of a timm model named, instead of the hub's. ``BundleError``, one line, when there is none, or
    it cannot be read safely.
    """
    if weights is not None or timm.is_model(name):
        return _named_timm(name, weights)
    where = _file(name, "config.json", kind="image encoder")
    if "architecture" in _json(where):
        return _timm_encoder(name, name)
    config, model = _transformers(name, "vision_config", kind="image encoder")
    try:
        processor = AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        size = getattr(config, "image_size", None) or _side(
            getattr(processor, "crop_size", None) or processor.size
        )
        mean, std = (
            tuple(float(v) for v in values)
            for values in (processor.image_mean, processor.image_std)
        )
    except Exception as error:  # whatever a foreign file makes the library raise
        raise BundleError(
            f"image encoder {name!r}: its preprocessor_config.json cannot be used"
            f" ({one_line(error)})"
        ) from error
    if len(mean) != 3 or len(std) != 3:
        raise BundleError(
            f"image encoder {name!r} takes pictures of {len(mean)} channels, not of 3"
        )
    configuration = as_configuration(config)
    filled = _fill(make_image_encoder(configuration), model.state_dict())
    return PretrainedImageEncoder(configuration, filled, _side(size), mean, std)


def timm_colors(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation, for RGB in [0, 1], of the pictures that a timm model was trained
    on.

    Raises ``BundleError`` for a name that timm does not know.
    """
    if not timm.is_model(name):
        raise BundleError(f"image encoder {name!r} is no timm model")
    preset = timm.get_pretrained_cfg(name)
    data = resolve_data_config(pretrained_cfg={} if preset is None else preset.to_dict())
    mean, std = (tuple(float(v) for v in data[key]) for key in ("mean", "std"))
    return mean, std  # type: ignore[return-value]


def load_text_encoder(name: str) -> PretrainedTextEncoder:
    """The text encoder ``name``: a folder of transformers or a hub id, with its tokenizer.

    Of a model of pictures and texts its text part is taken, of an encoder–decoder its encoder.
    ``BundleError`` as for :func:`load_image_encoder`.
    """
    _file(name, "config.json", kind="text encoder")
    config, model = _transformers(name, "text_config", kind="text encoder")
    words = load_tokenizer(name)
    limits = [
        value
        for value in (words.longest, getattr(config, "max_position_embeddings", None))
        if value
    ]
    configuration = as_configuration(config)
    filled = _fill(make_text_encoder(configuration), model.state_dict())
    return PretrainedTextEncoder(
        configuration, filled, words.tokenizer, min(limits, default=_UNLIMITED)
    )


def load_tokenizer(name: str) -> PretrainedTokenizer:
    """The tokenizer of a folder or hub id.

    ``BundleError``, one line, where there is none that a bundle can hold.
    """
    _file(name, "tokenizer_config.json", kind="tokenizer")
    try:
        loaded = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        tokenizer = loaded.backend_tokenizer
    except Exception as error:  # whatever a foreign file makes the library raise
        raise BundleError(
            f"tokenizer {name!r} cannot be loaded as a tokenizer.json ({one_line(error)})"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    longest = (
        loaded.model_max_length if loaded.model_max_length < 1_000_000 else None
    )  # else: "no limit"
    return PretrainedTokenizer(
        tokenizer, 0 if loaded.pad_token_id is None else loaded.pad_token_id, longest
    )


def as_configuration(config: Any) -> dict[str, Any]:
    """A transformers configuration as a card holds it.

    Plain values, nothing about where it came from.
    """
    return {
        key: value
        for key, value in json.loads(config.to_json_string()).items()
        if key not in _NOT_OURS
    }


def _transformers(name: str, part: str, *, kind: str) -> tuple[Any, torch.nn.Module]:
    """Configuration and model of one part of what lies there, from safetensors alone and complete."""
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        config = getattr(config, part, None) or config
        previous = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()  # it names the other half of the model weight by weight
        try:
            model, report = text_class(config).from_pretrained(
                name,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        finally:
            transformers_logging.set_verbosity(previous)
    except Exception as error:  # whatever a foreign file makes the library raise
        if "trust_remote_code" in str(error):
            raise BundleError(
                f"{kind} {name!r} runs code of its own, which is refused: a bundle could not"
                " bring it"
            ) from error
        raise BundleError(
            f"{kind} {name!r} cannot be loaded as safetensors of a transformers model"
            f" ({one_line(error)})"
        ) from error
    missing = sorted(str(key) for key in report["missing_keys"] if "pooler" not in str(key))
    if missing:
        some = ", ".join(missing[:3]) + (
            f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        )
        raise BundleError(f"{kind} {name!r}: its weights lack {some}")
    return config, model.float()


def _named_timm(name: str, weights: Path | None) -> PretrainedImageEncoder:
    """A timm model's name, perhaps with a tag, and its weights: a file's or the hub's."""
    if not timm.is_model(name):
        raise BundleError(f"image encoder {name!r} is no timm model, and --weights are for those")
    try:
        preset = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise BundleError(
            f"image encoder {name!r}: timm knows no weights of that name ({one_line(error)})"
        ) from error
    if weights is not None:
        return _timm(name, {}, preset.to_dict(), weights)
    if not preset.hf_hub_id:
        raise BundleError(
            f"image encoder {name!r}: the hub has no weights of this timm model; give them with"
            " --weights"
        )
    return _timm_encoder(preset.hf_hub_id, name)


def _timm_encoder(repository: str, name: str) -> PretrainedImageEncoder:
    """A timm model in timm's own layout.

    Config.json with its architecture, and model.safetensors.
    """
    settings = _json(_file(repository, "config.json", kind="image encoder"))
    weights = _file(repository, "model.safetensors", kind="image encoder")
    arguments = dict(settings.get("model_args", {}))
    preset = {**settings, **settings.get("pretrained_cfg", {})}
    return _timm(str(settings.get("architecture", name)), arguments, preset, weights)


def _timm(
    architecture: str, arguments: dict[str, Any], preset: Mapping[str, Any], file: Path
) -> PretrainedImageEncoder:
    from safetensors.torch import load_file

    data = resolve_data_config(
        pretrained_cfg={key: value for key, value in preset.items() if value is not None}
    )
    configuration = {"architecture": architecture, "kwargs": arguments}
    try:
        encoder = make_image_encoder(configuration)
        weights = load_file(file)
    except Exception as error:  # whatever foreign files make the libraries raise
        raise BundleError(
            f"image encoder {architecture!r}: {file} cannot be used ({one_line(error)})"
        ) from error
    backbone = encoder.backbone.state_dict()
    missing = sorted(
        name
        for name in backbone
        if name not in weights or weights[name].shape != backbone[name].shape
    )
    if missing:
        raise BundleError(
            f"image encoder {architecture!r}: {file} lacks {missing[0]} (and {len(missing) - 1}"
            " more)"
        )
    state = {
        f"backbone.{name}": (
            weights[name].float() if weights[name].is_floating_point() else weights[name]
        )
        for name in backbone
    }
    mean, std = (tuple(float(v) for v in data[key]) for key in ("mean", "std"))
    return PretrainedImageEncoder(configuration, state, int(data["input_size"][-1]), mean, std)  # type: ignore[arg-type]


def _fill(encoder: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under the encoder's names; a pooler that it has no use for is left out."""
    own = encoder.state_dict()
    named = fit_keys({f"backbone.{name}": value for name, value in weights.items()}, own)
    return {name: named[name] for name in own}


def _file(name: str, file: str, *, kind: str) -> Path:
    """A file of a folder, or of a hub repository: fetched into the hub's cache."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / file).is_file():
            raise BundleError(f"{kind} {name!r}: the folder holds no {file}")
        return folder / file
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(hf_hub_download(name, file))
    except HFValidationError:
        raise BundleError(
            f"{kind} {name!r} is no folder, no hub id (owner/name) and no timm model"
        ) from None
    except LocalEntryNotFoundError as error:
        raise BundleError(
            f"{kind} {name!r}: no such folder here, and the hub cannot be reached; "
            f"fetch it beforehand with 'hf download {name}' or pass a folder"
        ) from error
    except EntryNotFoundError as error:
        raise BundleError(f"{kind} {name!r}: the hub's repository holds no {file}") from error
    except Exception as error:  # gated, unknown, or whatever the network makes the library raise
        raise not_fetched(f"{kind} {name!r}", name, error) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise BundleError(f"{path} is no JSON object")
    return found


def _side(size: Any) -> int:
    """Pixels a side, of a number, a pair, or a mapping with height or shortest_edge."""
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    return int(size[0] if isinstance(size, (list, tuple)) else size)
