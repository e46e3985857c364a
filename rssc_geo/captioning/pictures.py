"""A tile as a picture to show a vision-language model."""

from __future__ import annotations

import numpy as np
from PIL import Image


def picture(pixels: np.ndarray, mask: np.ndarray) -> Image.Image:
    """uint8 ``(H, W, 3)`` and bool ``(H, W)`` (True = valid) → an RGB picture.

    Invalid pixels get the mean color of the valid ones: black ones would be described.
    """
    if mask.any() and not mask.all():
        pixels = np.where(mask[..., None], pixels, pixels[mask].mean(0).round().astype(np.uint8))
    return Image.fromarray(np.ascontiguousarray(pixels))
