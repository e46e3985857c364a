"""Captioners by name."""

from __future__ import annotations

import dataclasses
import json

import torch

from rssc_geo.captioning.adaptive import AdaptiveCaptioner
from rssc_geo.captioning.base import Captioner, NoCaptioner
from rssc_geo.captioning.cache import CachedCaptioner, CaptionCache, LargeCaptioner
from rssc_geo.captioning.compact import CompactCaptioner
from rssc_geo.captioning.options import CaptionOptions
from rssc_geo.captioning.prompts import make_prompt
from rssc_geo.errors import UsageError
from rssc_geo.models import Model

_DEFAULTS = CaptionOptions()


def make_captioner(
    name: str | None,
    model: Model,
    options: CaptionOptions = _DEFAULTS,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Captioner:
    """The captioner called ``name``.

    Parameters
    ----------
    name : ``compact`` (the bundle's own, the default where it has one), ``none``,
        ``hf:<id[@revision] or folder>`` or ``openai:<address>#<model>``; the last two keep their
        captions in a cache
    model : whose classes the prompt may list, and whose own captioner is used for the tiles that
        the large one is not asked about
    options : ``beam`` is of the model's own captioner, the others are of the large ones; what the
        captioner does not heed must be the default
    device, dtype : where an ``hf:`` model runs, and in which precision

    Raises ``UsageError`` for another name, options without effect, or no own captioner where it is
    asked for, and what the captioners themselves raise.
    """
    large = _large(name, model, options, device=device, dtype=dtype)
    if large is not None:
        cached = CachedCaptioner(large, CaptionCache(options.cache), share=options.share)
        if options.threshold is None:
            return cached
        if model.card.needs_captions:
            raise UsageError(
                f"--caption-when {options.when}: the model {model.card.name!r} classifies nothing"
                " without captions"
            )
        return AdaptiveCaptioner(make_captioner(None, model), cached, options.threshold)
    if dataclasses.replace(options, beam=1) != _DEFAULTS:
        raise UsageError(
            "options of captions need a captioner that heeds them: --captioner hf:… or openai:…"
        )
    if name == "none" or (name is None and model.decoder is None):
        if model.card.needs_captions:
            raise UsageError(
                f"the model {model.card.name!r} needs captions; use --captioner hf:… or openai:…"
            )
        if options.beam > 1:
            raise _beamless()
        return NoCaptioner()
    if name in (None, "compact"):
        if model.decoder is None or model.vocabulary is None:
            raise UsageError(
                f"the model {model.card.name!r} brings no captioner of its own; use --captioner"
                " none"
            )
        return CompactCaptioner(model.decoder, model.vocabulary, beam=options.beam)
    raise UsageError(
        f"--captioner {name!r} is unknown; use compact, none, hf:<id or folder> or"
        " openai:<address>#<model>"
    )


def _large(
    name: str | None,
    model: Model,
    options: CaptionOptions,
    *,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> LargeCaptioner | None:
    """The large captioner of that name; None where the name is another's."""
    kind, _, what = (name or "").partition(":")
    if kind not in ("hf", "openai"):
        return None
    if options.beam > 1:
        raise _beamless()
    prompt = make_prompt(
        options.prompt, [scene_class.name for scene_class in model.card.classes]
    ).text
    if kind == "openai":
        from rssc_geo.captioning.openai import ServerCaptioner

        return ServerCaptioner(
            what,
            prompt=prompt,
            max_tokens=options.max_tokens,
            requests=options.requests,
            timeout_s=options.timeout_s,
        )
    from rssc_geo.captioning.huggingface import HuggingFaceCaptioner

    return HuggingFaceCaptioner(
        what,
        prompt=prompt,
        device=device,
        dtype=dtype,
        max_new_tokens=options.max_tokens,
        batch_size=options.batch_size,
        quantize=options.quantize,
        trust_remote_code=options.trust_remote_code,
    )


def _beamless() -> UsageError:
    return UsageError("--caption-beam is for the model's own captioner: --captioner compact")


def describe_captioner(captioner: Captioner) -> str:
    """Name and all that its captions depend on, in one line.

    For provenance, and for telling runs apart.
    """
    if isinstance(captioner, AdaptiveCaptioner):
        first, second = describe_captioner(captioner.first), describe_captioner(captioner.second)
        return f"{first}; where less sure than {captioner.threshold:g}: {second}"
    if isinstance(captioner, CachedCaptioner):
        shared = {"shared": True} if captioner.share else {}
        return (
            f"{captioner.name}"
            f" {json.dumps({**captioner.parameters, **shared}, sort_keys=True, ensure_ascii=False)}"
        )
    if isinstance(captioner, CompactCaptioner) and captioner.beam > 1:
        return f"{captioner.name}, beam of {captioner.beam}"
    return captioner.name
