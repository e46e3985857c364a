"""Files that a training keeps to go on from: whole, of this version, and made of the same content.

Beside each lies ``<file>.mark``, which says what the file was made of and holds its checksum. What
is damaged, or was made of something else, is made anew.
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

from rssc_geo.files import atomic_write, content_hash

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

SCHEMA = 2
"""Of all that lies in a work folder."""


@contextmanager
def keeping(path: Path, made_of: str) -> Iterator[Path]:
    """``atomic_write`` of a file that ``is_kept`` recognizes; ``made_of``: see ``identity``."""
    with atomic_write(path) as made:
        yield made
        # The mark goes first and knows both files: whichever a crash leaves is recognized.
        earlier = _read_mark(path)
        known = earlier["sha256"][:1] if earlier.get("made_of") == made_of else []
        mark = {"schema": SCHEMA, "made_of": made_of, "sha256": [content_hash(made), *known]}
        with atomic_write(_mark_path(path)) as file:
            file.write_text(json.dumps(mark), encoding="utf-8")


def is_kept(path: Path, made_of: str) -> bool:
    """Whether a file is there, undamaged, and made of the same; a warning where only it is there.

    ``made_of``: as it was given to ``keeping``.
    """
    if not path.is_file():
        return False
    mark = _read_mark(path)
    reason = ""
    if not mark or content_hash(path) not in mark["sha256"]:
        reason = "it is damaged, or of another version"
    elif mark["made_of"] != made_of:
        reason = "it was made of other pictures, weights or options"
    if reason:
        log.warning("%s is made anew: %s", path, reason)
    return not reason


def identity(**parts: object) -> str:
    """A hash of the content of what something is made of: arrays, weights, or what ``repr`` tells.

    Weights count in half precision, in which bundles keep them.
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


def _mark_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.mark")


def _read_mark(path: Path) -> dict[str, Any]:
    """What the mark of a file says; empty where it is missing, damaged or of another version."""
    try:
        mark = json.loads(_mark_path(path).read_bytes())
        known = mark["schema"] == SCHEMA and isinstance(mark["made_of"], str)
        return dict(mark) if known and isinstance(mark["sha256"], list) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
