"""Pretrained encoders: read once from a folder or the hub, kept in our bundles.

A bundle holds their configuration and weights, and needs neither folder nor hub afterwards.
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

from rssc_geo.errors import BundleError, one_line
from rssc_geo.hub import fetch_file
from rssc_geo.models.encoders import (
    fit_keys,
    make_image_encoder,
    make_text_encoder,
    text_class,
)
from rssc_geo.models.weights import load_weights
from rssc_geo.texts import parse_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DEFAULT_TOKENS = 512  # of a text whose encoder names no limit (T5)
_NO_LIMIT = 1_000_000  # transformers writes a number at least so large for "no limit"
# Fields of a configuration about its origin, not about the network.
_PROVENANCE_KEYS = (
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
    """The parts of an image encoder that a bundle needs.

    Attributes
    ----------
    configuration : for the card
    weights : state dict of ``make_image_encoder(configuration)``
    size : side of its input, in pixels
    mean, std : of RGB in [0, 1]
    """

    configuration: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class PretrainedTokenizer:
    """A tokenizer that a bundle can hold.

    Attributes
    ----------
    tokenizer : without padding and truncation
    padding : id of the token that fills short texts up
    longest : tokens that it was made for, marks of begin and end included; None: unknown
    """

    tokenizer: Tokenizer
    padding: int
    longest: int | None


@dataclass(frozen=True, slots=True)
class PretrainedTextEncoder:
    """The parts of a text encoder that a bundle needs.

    Attributes
    ----------
    configuration : for the card
    weights : state dict of ``make_text_encoder(configuration)``
    tokenizer : its own
    max_tokens : longest text, marks of begin and end included
    """

    configuration: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    tokenizer: Tokenizer
    max_tokens: int


def load_image_encoder(name: str, *, weights: Path | None = None) -> PretrainedImageEncoder:
    """The image encoder of a folder (transformers or timm), a timm model's name, or a hub id.

    Of a model of images and texts such as CLIP the vision part is taken. ``weights``: safetensors
    of the timm model ``name``, instead of the hub's. Raises ``BundleError``, one line, where there
    is none, or it cannot be read safely.
    """
    if weights is not None or timm.is_model(name):
        return _named_timm(name, weights)
    where = fetch_file(name, "config.json", what=f"image encoder {name!r}", other="timm model")
    if "architecture" in _json(where):
        return _timm_repository(name, name)
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
    except Exception as error:  # a foreign file can make the library raise anything
        raise BundleError(
            f"image encoder {name!r}: its preprocessor_config.json cannot be used"
            f" ({one_line(error)})"
        ) from error
    if len(mean) != 3 or len(std) != 3:
        raise BundleError(f"image encoder {name!r} takes images of {len(mean)} channels, not of 3")
    configuration = as_configuration(config)
    filled = _fill(make_image_encoder(configuration), model.state_dict())
    return PretrainedImageEncoder(configuration, filled, _side(size), mean, std)


def timm_normalization(
    name: str,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of RGB in [0, 1] that a timm model was trained with.

    Raises ``BundleError`` for a name that timm does not know.
    """
    if not timm.is_model(name):
        raise BundleError(f"image encoder {name!r} is no timm model")
    preset = timm.get_pretrained_cfg(name)
    data = resolve_data_config(pretrained_cfg={} if preset is None else preset.to_dict())
    mean, std = (tuple(float(v) for v in data[key]) for key in ("mean", "std"))
    return mean, std  # type: ignore[return-value]


def load_text_encoder(name: str) -> PretrainedTextEncoder:
    """The text encoder of a folder (transformers) or a hub id, with its tokenizer.

    Of a model of images and texts the text part is taken, of an encoder–decoder the encoder. Raises
    ``BundleError`` as ``load_image_encoder`` does.
    """
    fetch_file(name, "config.json", what=f"text encoder {name!r}")
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
        configuration, filled, words.tokenizer, min(limits, default=_DEFAULT_TOKENS)
    )


def load_tokenizer(name: str) -> PretrainedTokenizer:
    """The tokenizer of a folder or hub id.

    Raises ``BundleError``, one line, where there is none that a bundle can hold.
    """
    fetch_file(name, "tokenizer_config.json", what=f"tokenizer {name!r}")
    try:
        loaded = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        tokenizer = loaded.backend_tokenizer
    except Exception as error:  # a foreign file can make the library raise anything
        raise BundleError(
            f"tokenizer {name!r} cannot be loaded as a tokenizer.json ({one_line(error)})"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    longest = loaded.model_max_length
    return PretrainedTokenizer(
        tokenizer,
        padding=0 if loaded.pad_token_id is None else loaded.pad_token_id,
        longest=longest if longest < _NO_LIMIT else None,
    )


def load_sentence_encoder(name: str) -> tuple[Any, Any]:
    """Tokenizer and model of a sentence encoder (transformers): of a folder or a hub id.

    Raises ``BundleError``, one line, where it cannot be read, or the two do not belong together.
    """
    config, model = _transformers(name, "text_config", kind="sentence encoder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        tokenizer(["A green field."], padding=True)
    except Exception as error:  # a foreign file can make the library raise anything
        raise BundleError(f"tokenizer {name!r} cannot be loaded ({one_line(error)})") from error
    if len(tokenizer) > config.vocab_size:
        raise BundleError(
            f"tokenizer {name!r} cannot be loaded (it knows {len(tokenizer)} tokens, the model"
            f" {config.vocab_size})"
        )
    return tokenizer, model.eval()


def as_configuration(config: Any) -> dict[str, Any]:
    """A transformers configuration for a card: plain values without those of its origin."""
    return {
        key: value
        for key, value in json.loads(config.to_json_string()).items()
        if key not in _PROVENANCE_KEYS
    }


def _transformers(name: str, part: str, *, kind: str) -> tuple[Any, torch.nn.Module]:
    """Configuration and model of one part (``text_config``, ``vision_config``) or the whole.

    From safetensors alone, and complete; else ``BundleError``.
    """
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        config = getattr(config, part, None) or config
        previous = transformers_logging.get_verbosity()
        # It would list every weight of the other half of the model.
        transformers_logging.set_verbosity_error()
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
    except Exception as error:  # a foreign file can make the library raise anything
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
    """A timm model by its name, perhaps with a tag; weights of a file, or of the hub."""
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
    return _timm_repository(preset.hf_hub_id, name)


def _timm_repository(repository: str, name: str) -> PretrainedImageEncoder:
    """A timm model in timm's own layout: config.json with its architecture, model.safetensors."""
    what = f"image encoder {repository!r}"
    settings = _json(fetch_file(repository, "config.json", what=what))
    weights = fetch_file(repository, "model.safetensors", what=what)
    arguments = dict(settings.get("model_args", {}))
    preset = {**settings, **settings.get("pretrained_cfg", {})}
    return _timm(str(settings.get("architecture", name)), arguments, preset, weights)


def _timm(
    architecture: str, arguments: dict[str, Any], preset: Mapping[str, Any], file: Path
) -> PretrainedImageEncoder:
    """A timm model with the weights of a file; ``preset`` has the normalization of its images."""
    data = resolve_data_config(
        pretrained_cfg={key: value for key, value in preset.items() if value is not None}
    )
    configuration = {"architecture": architecture, "kwargs": arguments}
    try:
        encoder = make_image_encoder(configuration)
        weights = load_weights(file)
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
    """The weights under the encoder's names; a pooler that is not used is left out."""
    own = encoder.state_dict()
    named = fit_keys({f"backbone.{name}": value for name, value in weights.items()}, own)
    return {name: named[name] for name in own}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise BundleError(f"{path} is no JSON object")
    return found


def _side(size: Any) -> int:
    """Side in pixels: of a number, a pair, or a mapping with height or shortest_edge."""
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    return int(size[0] if isinstance(size, (list, tuple)) else size)
