"""Files of weights (safetensors) of others: what their header costs, before it is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_LARGEST_HEADER = 4_000_000  # bytes; that of a model with 1000 tensors has 150,000
_MOST_TENSORS = 10_000


def check_header(path: Path) -> None:
    """Refuse a safetensors file whose header is larger than that of any model.

    The library reads it whatever it costs. Raises ``ValueError`` and ``OSError``.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _LARGEST_HEADER:
            raise ValueError(f"its header has {size} bytes, {_LARGEST_HEADER} at most are read")
        # One that describes each tensor, beside the outermost.
        most = file.read(size).count(b"{") - 1
    if most > _MOST_TENSORS:
        raise ValueError(f"its header names {most} tensors, {_MOST_TENSORS} at most are read")


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name.

    Raises what ``check_header`` does, and the library's errors.
    """
    from safetensors.torch import load_file

    check_header(path)
    return load_file(path)
