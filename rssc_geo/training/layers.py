"""Which layers of the encoders learn, and how their memory is kept small."""

from __future__ import annotations

import contextlib
from typing import Any

from torch import nn

from rssc_geo.errors import UsageError
from rssc_geo.models import DualAttentionClassifier


def train_layers(encoder: nn.Module, layers: int | None, *, what: str) -> None:
    """Let the last ``layers`` of an encoder learn, with all behind them; 0: nothing, None:
    everything.

    Layers are the entries of its longest list of equal blocks. ``UsageError`` where it has fewer of
    them.
    """
    parameters = list(encoder.named_parameters())
    first = 0
    if layers == 0:
        first = len(parameters)
    elif layers is not None:
        name, blocks = _blocks(encoder)
        if layers > len(blocks):
            raise UsageError(
                f"the {what} encoder has {len(blocks)} layers, of which {layers} cannot be trained"
            )
        start = f"{name}.{len(blocks) - layers}."
        first = next(place for place, (key, _) in enumerate(parameters) if key.startswith(start))
    for place, (_, value) in enumerate(parameters):
        value.requires_grad_(place >= first)


def _blocks(encoder: nn.Module) -> tuple[str, nn.ModuleList | nn.Sequential]:
    lists: list[tuple[str, nn.ModuleList | nn.Sequential]] = [
        (name, module)
        for name, module in encoder.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
        and len({type(child) for child in module}) == 1
    ]
    return max(lists, key=lambda found: len(found[1]), default=("", nn.Sequential()))


def train_mode(network: nn.Module) -> None:
    """Training mode, but for parts that do not learn.

    Their statistics and dropout stay as in use.
    """
    network.train()
    for module in network.modules():
        values = list(module.parameters())
        if values and not any(value.requires_grad for value in values):
            module.eval()


def keep_no_activations(network: DualAttentionClassifier) -> None:
    """Let the encoders compute their activations twice instead of keeping them, where they can."""
    how = {"use_reentrant": False}  # the other kind gives frozen layers no gradient to pass on
    for encoder in (network.image_encoder, network.text_encoder):
        backbone: Any = getattr(encoder, "backbone", None)
        with contextlib.suppress(
            AssertionError, ValueError
        ):  # how timm and transformers say that a model has none
            if hasattr(
                backbone, "activation_checkpointing_enable"
            ):  # its name from transformers 5 on
                backbone.activation_checkpointing_enable(how)
            elif hasattr(backbone, "gradient_checkpointing_enable"):
                backbone.gradient_checkpointing_enable(how)
            elif hasattr(backbone, "set_grad_checkpointing"):  # timm
                backbone.set_grad_checkpointing()
