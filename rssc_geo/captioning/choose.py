"""Captioners by name: the one that the options ask for, checks of the options, and its description.

torch is imported only where it is needed, so that options are checked without it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rssc_geo.captioning.base import (
    AdaptiveCaptioner,
    Captioner,
    CompactCaptioner,
    NoCaptioner,
    caption_threshold,
)
from rssc_geo.captioning.cache import CachedCaptioner, CaptionCache, LargeCaptioner
from rssc_geo.captioning.prompts import make_prompt
from rssc_geo.errors import UsageError
from rssc_geo.options import CaptionerOptions, values_of

if TYPE_CHECKING:
    import torch

    from rssc_geo.models import Model, ModelCard

_DEFAULTS = CaptionerOptions()


def check_captioner(options: CaptionerOptions, card: ModelCard) -> None:
    """Refuse options that are invalid for a model, before anything is loaded.

    Raises ``UsageError`` for an unknown captioner, an invalid number, prompt or address, options
    without effect, a model without the captioner that is asked for, and a model that needs captions
    where there would be none.
    """
    caption_threshold(options)
    if options.captioner in (None, "none", "compact"):
        _check_own(options, card)
    elif options.captioner.startswith(("hf:", "openai:")):
        _check_large(options, card)
    else:
        raise UsageError(
            f"--captioner {options.captioner!r} is unknown; use compact, none, hf:<id or folder> or"
            " openai:<address>#<model>"
        )


def check_whole_tiles(captioner: Captioner) -> None:
    """Refuse ``--caption-when uncertain`` for a fine map, whose classes do not depend on captions.

    Raises ``UsageError``.
    """
    if isinstance(captioner, AdaptiveCaptioner):
        raise UsageError(
            f"--caption-when uncertain:{captioner.threshold:g}: captions do not change the classes"
            " of a fine map; use cells that are whole tiles (such as --cell-size 400m), or leave it"
            " out"
        )


def _check_large(options: CaptionerOptions, card: ModelCard) -> None:
    if options.caption_beam > 1:
        raise _beam_without_effect()
    make_prompt(options.prompt, [scene_class.name for scene_class in card.classes])
    kind, _, address = (options.captioner or "").partition(":")
    if kind == "openai":
        from rssc_geo.captioning.openai import parse_address

        parse_address(address)
    if caption_threshold(options) is not None and card.needs_captions:
        raise UsageError(
            f"--caption-when {options.caption_when}: the model {card.name!r} classifies nothing"
            " without captions"
        )


def _check_own(options: CaptionerOptions, card: ModelCard) -> None:
    # The cache's path may be set once for all runs, in the environment.
    no_matter = {"captioner": None, "caption_beam": 1, "caption_cache": _DEFAULTS.caption_cache}
    large = values_of(options, CaptionerOptions) | no_matter
    if large != values_of(_DEFAULTS, CaptionerOptions):
        raise UsageError(
            "options of captions need a captioner that uses them: --captioner hf:… or openai:…"
        )
    if options.captioner == "compact" and card.captioner is None:
        raise _no_own_captioner(card)
    if options.captioner == "none" or card.captioner is None:
        if card.needs_captions:
            raise UsageError(
                f"the model {card.name!r} needs captions; use --captioner hf:… or openai:…"
            )
        if options.caption_beam > 1:
            raise _beam_without_effect()


def make_captioner(
    model: Model,
    options: CaptionerOptions = _DEFAULTS,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Captioner:
    """The captioner that ``options.captioner`` names.

    Parameters
    ----------
    model : whose classes the prompt may list, and whose own captioner is used for the tiles that
        the large one does not describe
    options : those that the captioner does not use must be the defaults. ``captioner`` is
        ``compact`` (the bundle's own, the default where it has one), ``none``, ``hf:<id[@revision]
        or folder>`` or ``openai:<address>#<model>``; the last two keep their captions in a cache
    device, dtype : where an ``hf:`` model runs, and in which precision

    Raises ``UsageError`` as ``check_captioner`` does, and what the captioners themselves raise.
    """
    check_captioner(options, model.card)
    kind, _, rest = (options.captioner or "").partition(":")
    if kind in ("hf", "openai"):
        large = _make_large(kind, rest, model, options, device=device, dtype=dtype)
        cached = CachedCaptioner(
            large, CaptionCache(options.caption_cache), share=options.share_captions
        )
        threshold = caption_threshold(options)
        if threshold is None:
            return cached
        return AdaptiveCaptioner(make_captioner(model), cached, threshold)
    if kind == "none" or (options.captioner is None and model.decoder is None):
        return NoCaptioner()
    if model.decoder is None or model.vocabulary is None:
        raise _no_own_captioner(model.card)
    return CompactCaptioner(model.decoder, model.vocabulary, beam=options.caption_beam)


def _make_large(
    kind: str,
    name: str,
    model: Model,
    options: CaptionerOptions,
    *,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> LargeCaptioner:
    classes = [scene_class.name for scene_class in model.card.classes]
    prompt = make_prompt(options.prompt, classes).text
    if kind == "openai":
        from rssc_geo.captioning.openai import ServerCaptioner

        return ServerCaptioner(name, prompt=prompt, options=options)
    from rssc_geo.captioning.huggingface import HuggingFaceCaptioner

    return HuggingFaceCaptioner(name, prompt=prompt, options=options, device=device, dtype=dtype)


def _beam_without_effect() -> UsageError:
    return UsageError("--caption-beam is for the model's own captioner: --captioner compact")


def _no_own_captioner(card: ModelCard) -> UsageError:
    return UsageError(
        f"the model {card.name!r} brings no captioner of its own; use --captioner none"
    )


def describe_captioner(captioner: Captioner) -> str:
    """Name and parameters on which its captions depend, in one line.

    For provenance, and for comparing runs.
    """
    if isinstance(captioner, AdaptiveCaptioner):
        first, second = describe_captioner(captioner.first), describe_captioner(captioner.second)
        return f"{first}; where less sure than {captioner.threshold:g}: {second}"
    if isinstance(captioner, CachedCaptioner):
        shared = {"shared": True} if captioner.share else {}
        parameters = {**captioner.parameters, **shared}
        return f"{captioner.name} {json.dumps(parameters, sort_keys=True, ensure_ascii=False)}"
    if isinstance(captioner, CompactCaptioner) and captioner.beam > 1:
        return f"{captioner.name}, beam of {captioner.beam}"
    return captioner.name
