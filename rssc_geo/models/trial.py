"""Checks of foreign bundles: the network's size before it is built, a trial run before its use."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from rssc_geo.errors import BundleError
from rssc_geo.models.network import pool_windows

if TYPE_CHECKING:
    from rssc_geo.models.model import Model

_TRICKY = (
    f"{'a' * 200}{' field' * 50}; 12.5 % of Ĳssel-Ærø, 森林 \N{DECIDUOUS TREE} (e.g. {'x ' * 50}"
)
"""A text at which patterns of a tokenizer fail that try very many ways to read it."""
_TIMES = 10  # factor by which a network may be larger than its weights
_SMALL = 1_000_000  # parameters that are always allowed, and a thousandth of it tensors


@contextmanager
def no_larger_than(weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Check that modules that this thread builds in the block are about as large as their weights.

    Raises ``BundleError`` as soon as they hold ten times as many numbers or tensors. torch reports
    each tensor before it is filled.
    """
    numbers = _SMALL + _TIMES * sum(value.numel() for value in weights.values())
    tensors = _SMALL // 1000 + _TIMES * len(weights)
    thread = threading.get_ident()

    def count(_module: torch.nn.Module, _name: str, tensor: torch.Tensor | None) -> None:
        nonlocal numbers, tensors
        if tensor is None or threading.get_ident() != thread:
            return
        numbers, tensors = numbers - tensor.numel(), tensors - 1
        if numbers < 0 or tensors < 0:
            raise BundleError(
                f"config.json asks for a network more than {_TIMES} times as large as its weights:"
                " the two do not belong together"
            )

    hooks = (
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def without_words() -> Iterator[None]:
    """Discard what a library in another language writes to stderr in the block.

    The tokenizers library describes its panics there, at length, before it raises.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
    finally:  # again: an interruption may come before the line above
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _windows(model: Model, pixels: torch.Tensor) -> torch.Tensor:
    """Logits of a blank picture as one window of shared features."""
    card = model.card
    scene, ground = model.encode_block(pixels)
    sides = [card.input_size[0] // stride for stride in card.token_strides]
    finest = getattr(model.network.image_encoder, "ground_stride", None) or card.token_strides[0]
    if scene.ndim != 4 or scene.shape[2:] != (sides[0],) * 2 or finest > card.token_strides[1]:
        raise BundleError("its image encoder has other tokens than local_features says")
    whole = [(np.full((1, side), 1 / side, np.float32),) * 2 for side in sides]
    pooled = pool_windows((scene[0], ground[0]), scene=whole[0], ground=whole[1])
    return model.network.classify_pooled(pooled.flatten(0, 1))


def try_model(model: Model) -> None:
    """Run a model on one blank picture with as many words as it takes.

    Raises ``BundleError`` where parts do not fit together, or results are not finite; other
    exceptions of the libraries are left to the caller.
    """
    card, network = model.card, model.network
    known = max(model.tokenizer.get_vocab().values(), default=0) + 1
    if known > network.text_encoder.vocabulary:
        raise BundleError(
            f"its tokenizer knows {known} tokens, its text encoder"
            f" {network.text_encoder.vocabulary}: they do not belong together"
        )
    model.tokenize(["A green field, near a river.", _TRICKY])
    pixels = torch.zeros(1, 3, *card.input_size)
    words = torch.zeros(1, card.max_tokens, dtype=torch.long)
    with torch.inference_mode():
        tokens = network.encode_image(pixels.contiguous(memory_format=torch.channels_last))
        logits = network.classify(tokens, words) / card.temperature
        results = [tokens, logits]
        if card.local_features is not None:
            results.append(_windows(model, pixels))
        if model.decoder is not None and model.vocabulary is not None:
            if model.vocabulary.get_vocab_size() < model.decoder.words.num_embeddings:
                raise BundleError("its captioner writes words that captioner.json lacks")
            model.decoder.greedy(tokens)
            begin = torch.zeros(1, 1, dtype=torch.long)
            results.append(model.decoder(tokens, begin))
        if model.alignment is not None:
            texts = network.text_encoder.embed(words, torch.ones_like(words, dtype=torch.bool))
            results.append(model.alignment(tokens.mean(1), texts))
        if model.familiarity is not None:
            results.append(model.familiarity(tokens.mean(1)))
    if logits.shape != (1, len(card.classes)) or tokens.ndim != 3:
        raise BundleError("its network does not give one number a class")
    if not all(bool(values.isfinite().all()) for values in results):
        raise BundleError("its network gives values that are not finite: the weights are damaged")
