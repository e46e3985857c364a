"""Which tiles look the same, for ``--share-captions``."""

from __future__ import annotations

import numpy as np

_PARTS = 4  # a side
_COLOR_STEP, _TEXTURE_STEP = 16, 8


def likeness(pixels: np.ndarray) -> bytes:
    """A perceptual hash: uint8 ``(H, W, 3)`` → the coarse color and texture of 4 × 4 parts, 64
    bytes.

    Equal bytes mean near-identical tiles: open water, one field, bare sand. The usual hashes
    (dHash, pHash) compare a pixel with its neighbors or with the mean, which is noise in just those
    tiles; color and spread are not. Like any steps, these part some tiles that are alike, and cost
    a caption more then. Tiles under 4 pixels a side are told apart by every pixel.
    """
    rows, cols = (side // _PARTS for side in pixels.shape[:2])
    if min(rows, cols) == 0:
        return pixels.tobytes()
    whole = pixels[: rows * _PARTS, : cols * _PARTS].astype(np.float32)
    parts = whole.reshape(_PARTS, rows, _PARTS, cols, 3)
    color = parts.mean((1, 3)) // _COLOR_STEP  # (4, 4, 3)
    texture = parts.std((1, 3)).mean(-1) // _TEXTURE_STEP  # (4, 4)
    return np.concatenate([color.ravel(), texture.ravel()]).astype(np.uint8).tobytes()
