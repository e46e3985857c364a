"""Files of a work folder that are made once: recognized by a hash of what they were made of.

Beside each is its mark: that hash, and the file's own, so that a damaged file, or one made of other
pictures, weights or options, is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError

from rssc_geo.errors import one_line
from rssc_geo.files import atomic_write, write_error
from rssc_geo.fingerprints import content_hash
from rssc_geo.texts import parse_json

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

SCHEMA = 2
"""Version of the files in a work folder."""


@contextmanager
def keeping(path: Path, made_of: str) -> Iterator[Path]:
    """``atomic_write`` of a file that ``is_kept`` recognizes; ``made_of``: see ``identity``."""
    with atomic_write(path) as made:
        try:
            yield made
        except SafetensorError as error:  # a full disk, of which the library makes no OSError
            raise write_error(path, error) from error
        # The mark is written first and covers both files: after a crash either is recognized.
        earlier = _read_mark(path)
        known = earlier["sha256"][:1] if earlier.get("made_of") == made_of else []
        mark = {"schema": SCHEMA, "made_of": made_of, "sha256": [content_hash(made), *known]}
        with atomic_write(_mark_path(path)) as file:
            file.write_text(json.dumps(mark), encoding="utf-8")


def is_kept(path: Path, made_of: str) -> bool:
    """Whether a file exists, undamaged, of the same inputs; with a warning where it is unusable.

    ``made_of``: as it was given to ``keeping``.
    """
    if not path.is_file():
        return False
    mark = _read_mark(path)
    reason = ""
    try:
        if not mark or content_hash(path) not in mark["sha256"]:
            reason = "it is damaged, or of another version"
        elif mark["made_of"] != made_of:
            reason = "it was made of other pictures, weights or options"
    except OSError as error:
        reason = f"it cannot be read: {one_line(error)}"
    if reason:
        log.warning("%s is made again: %s", path, reason)
    return not reason


def identity(**parts: object) -> str:
    """A hash of the inputs of a file: arrays, weights, or the ``repr`` of others.

    Weights are hashed in half precision, as in bundles; see ``beyond_half``.
    """
    digest = hashlib.sha256()
    for name, part in parts.items():
        digest.update(f"{name}=".encode())
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        elif isinstance(part, Mapping):
            _add_weights(digest, part)
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def _add_weights(digest: Any, weights: Mapping[str, torch.Tensor]) -> None:
    for name, value in sorted(weights.items()):
        array = (value.half() if value.is_floating_point() else value).detach().cpu().numpy()
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())


def beyond_half(weights: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """A part for ``identity`` of weights that half precision would round; none of others."""
    import torch

    digest, lost = hashlib.sha256(), False
    for name, value in sorted(weights.items()):
        if value.is_floating_point() and not torch.equal(value, value.half().to(value.dtype)):
            exact = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(name.encode() + exact.numpy().tobytes())
            lost = True
    return {"start_beyond_half": digest.hexdigest()} if lost else {}


def _mark_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.mark")


def _read_mark(path: Path) -> dict[str, Any]:
    """The contents of a file's mark; empty where it is missing, damaged or of another version."""
    try:
        mark = parse_json(_mark_path(path).read_bytes())
        known = mark["schema"] == SCHEMA and isinstance(mark["made_of"], str)
        return dict(mark) if known and isinstance(mark["sha256"], list) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
