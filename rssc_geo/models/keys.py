"""Names of weights that transformers changed between its versions 4 and 5."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_RENAMED = (
    (r"\b(text|vision)_model\.", ""),
    (r"\bencoder\.layer\.", "layers."),
    (
        r"\.attention\.attention\.(query|key|value)\.",
        lambda found: f".attention.{found[1][0]}_proj.",
    ),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)


def fit_keys(weights: Mapping[str, torch.Tensor], wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    """``weights`` under the names that the installed transformers gives them; names that match none
    stay as they are.

    ``wanted``: the names in the module that is to be filled. Both sides are brought to one
    spelling, so that weights written with either version are read by either.
    """
    names = {_spelling(name): name for name in wanted}
    return {names.get(_spelling(name), name): value for name, value in weights.items()}


def _spelling(name: str) -> str:
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return name
