"""Ways in which real rasters differ from the pictures that a model was trained on."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Corruption = Callable[[Pixels], Pixels]


def all_corruptions() -> dict[str, Corruption]:
    """Functions of uint8 (B, H, W, 3) that give the same shape, by what they do.

    A footprint of 1/2 is the picture's center enlarged; one of 2 shows the picture at half its
    size, its surroundings mirrored. "coarser" keeps the footprint and loses detail.
    """
    return {
        "JPEG, quality 50": lambda pixels: _jpeg(pixels, 50),
        "JPEG, quality 20": lambda pixels: _jpeg(pixels, 20),
        "2 × coarser ground sampling": lambda pixels: _coarser(pixels, 2),
        "4 × coarser ground sampling": lambda pixels: _coarser(pixels, 4),
        "8 × coarser ground sampling": lambda pixels: _coarser(pixels, 8),
        "haze 30 %": lambda pixels: _values(pixels * 0.7 + 255 * 0.85 * 0.3),
        "haze 50 %": lambda pixels: _values(pixels * 0.5 + 255 * 0.85 * 0.5),
        "half as bright": lambda pixels: _values(pixels * 0.5),
        "1.5 × as bright": lambda pixels: _values(pixels * 1.5),
        "blue cast": lambda pixels: _values(pixels * np.array([0.8, 0.95, 1.2])),
        "yellow cast": lambda pixels: _values(pixels * np.array([1.15, 1.05, 0.75])),
        "gray": lambda pixels: _values(pixels.mean(3, keepdims=True).repeat(3, axis=3)),
        "2–98 % stretch of each band": _stretch,
        "noise, standard deviation 12": _noise,
        "footprint 1/4": lambda pixels: _footprint(pixels, 0.25),
        "footprint 1/2": lambda pixels: _footprint(pixels, 0.5),
        "footprint 3/4": lambda pixels: _footprint(pixels, 0.75),
        "footprint 3/2": lambda pixels: _footprint(pixels, 1.5),
        "footprint 2": lambda pixels: _footprint(pixels, 2),
        "turned by 30°": lambda pixels: _footprint(pixels, 1, degrees=30),
    }


def _values(values: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.rint(values).clip(0, 255).astype(np.uint8))


def _jpeg(pixels: Pixels, quality: int) -> Pixels:
    result = np.empty_like(pixels)
    for place, picture in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        with Image.open(file) as image:
            result[place] = np.asarray(image)
    return result


def _coarser(pixels: Pixels, factor: int) -> Pixels:
    """Averaged over ``factor`` pixels each way and enlarged again."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    rows, cols = images.shape[2:]
    small = F.interpolate(
        images, size=(max(1, rows // factor), max(1, cols // factor)), mode="area"
    )
    return _values(
        F.interpolate(small, size=(rows, cols), mode="bilinear").permute(0, 2, 3, 1).numpy()
    )


def _stretch(pixels: Pixels) -> Pixels:
    low, high = np.percentile(pixels, [2, 98], axis=(1, 2), keepdims=True)
    return _values((pixels - low) * (255 / np.maximum(high - low, 1)))


def _noise(pixels: Pixels) -> Pixels:
    return _values(pixels + np.random.default_rng(0).normal(0, 12, pixels.shape))


def _footprint(pixels: Pixels, share: float, *, degrees: float = 0) -> Pixels:
    angle = np.deg2rad(degrees)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    if share > 1:  # sampled from a smoothed picture, as an overview would be
        images = F.interpolate(images, scale_factor=1 / share, mode="area")
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]
    theta = torch.tensor(turn).float() * share
    size = [len(images), 3, *pixels.shape[1:3]]
    grid = F.affine_grid(theta.expand(len(images), 2, 3), size, align_corners=False)
    seen = F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _values(seen.permute(0, 2, 3, 1).numpy())
