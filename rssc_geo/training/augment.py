"""Augmentation of pictures from above for training, and corruptions to measure robustness.

There is no up, and ground sampling, light and processing vary.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

_GAIN = (0.4, 1.4)
"""Darkest and brightest factor of pixel values."""


def to_input(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Pixels uint8 ``(B, H, W, 3)`` as float32 ``(B, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255


def normalize(
    images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> torch.Tensor:
    """``(images − mean) / std`` by channel, of images ``(B, 3, H, W)``.

    Channels come last in memory: faster convolutions on the CPU.
    """
    shift, scale = (torch.tensor(v).view(1, -1, 1, 1) for v in (mean, std))
    return ((images - shift) / scale).contiguous(memory_format=torch.channels_last)


def augment(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    size: int,
    zoom: tuple[float | torch.Tensor, float | torch.Tensor],
    light: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Randomly turned, scaled, tinted, blurred, hazy and compressed copies of ``images``.

    Each is turned by any angle (half of them by a multiple of 90° only) and mirrored; a closer view
    may be taken anywhere in the picture.

    Parameters
    ----------
    images : float ``(B, 3, H, W)`` in [0, 1]
    generator : of all random choices
    size : pixels a side of the copies
    zoom : smallest and largest footprint seen, as a share of the picture's side, of all or of each
        picture, ``(B,)``. Over 1 the picture is mirrored at its border
    light : strength of the changes of light, color and haze; 1 is strong, 0 none. Brightness
        changes equally at any strength above 0, so that darkness alone does not indicate water

    Returns the copies, float ``(B, 3, size, size)`` in [0, 1], and ``(B,)``, the share of the
    picture's area that each shows.
    """
    images, visible = _warp(images, generator, size, zoom)
    images = _soften(_light(images, generator, light), generator).clamp_(0, 1)
    return _compress(images, generator), visible


def stretched(
    images: torch.Tensor, scenes: torch.Tensor, generator: torch.Generator, *, share: float
) -> torch.Tensor:
    """Some of the images with their values stretched, as viewers and tile servers render scenes.

    The 2nd to 98th percentile of the image and three others of its class, of each band or of all
    bands alike, go to 0 and 1; the result is mixed with the image as it was.

    Parameters
    ----------
    images : float ``(B, 3, H, W)`` in [0, 1]
    scenes : int64 ``(B,)``, the class of scene that each may be a part of
    generator : of all random choices
    share : of the images that are stretched
    """
    chosen = _sometimes(len(images), share, generator).nonzero().flatten().tolist()
    if not chosen:
        return images
    sample = images[:, :, ::4, ::4].flatten(2)  # (B, 3, P)
    low, high = sample.quantile(torch.tensor([0.02, 0.98]), dim=2)  # (B, 3) each
    images = images.clone()
    for place in chosen:
        kind = (scenes == scenes[place]).nonzero().flatten()
        others = kind[torch.randint(len(kind), (3,), generator=generator)]
        members = torch.cat([others, torch.tensor([place])])
        first, last = low[members].amin(0), high[members].amax(0)  # (3,) each
        if bool(_sometimes(1, 0.5, generator)):
            first, last = first.mean().expand(3), last.mean().expand(3)
        mixed = float(drawn(1, 0.2, 1.0, generator))
        span = (last - first).clamp(min=0.08)
        values = (images[place] - first[:, None, None]) / span[:, None, None]
        images[place] = torch.lerp(images[place], values.clamp(0, 1), mixed)
    return images


def drawn(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Numbers ``(count,)``, uniform between two."""
    return torch.rand(count, generator=generator) * (high - low) + low


def _sometimes(count: int, share: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator) < share


def _warp(
    images: torch.Tensor,
    generator: torch.Generator,
    size: int,
    zoom: tuple[float | torch.Tensor, float | torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    count = len(images)
    closest, widest = (torch.as_tensor(v, dtype=torch.float32).log() for v in zoom)
    quarter = torch.randint(0, 4, (count,), generator=generator) * (torch.pi / 2)
    free = _sometimes(count, 0.5, generator)
    angle = quarter + torch.where(
        free, drawn(count, -torch.pi / 4, torch.pi / 4, generator), torch.zeros(count)
    )
    mirror = torch.where(_sometimes(count, 0.5, generator), -1.0, 1.0)
    scale = torch.lerp(
        closest.expand(count), widest.expand(count), torch.rand(count, generator=generator)
    ).exp()
    room = (1 - scale).clamp(min=0)
    shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * room[:, None]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = scale * angle.cos() * mirror
    theta[:, 0, 1] = -scale * angle.sin()
    theta[:, 1, 0] = scale * angle.sin() * mirror
    theta[:, 1, 1] = scale * angle.cos()
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    seen = F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return seen, scale.clamp(max=1) ** 2


def _light(images: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
    """Exposure, tint, contrast, saturation, gamma and haze, each picture its own."""
    count = len(images)

    def around_one(low: float, high: float) -> torch.Tensor:
        """Factors ``(B, 1, 1, 1)``, uniform in the logarithm."""
        first, last = strength * math.log(low), strength * math.log(high)
        return drawn(count, first, last, generator).exp().view(count, 1, 1, 1)

    def around_zero(width: float) -> torch.Tensor:
        return (torch.rand(count, 3, 1, 1, generator=generator) - 0.5) * (width * strength)

    tint, offset = 1 + around_zero(0.3), around_zero(0.1)
    saturation, contrast = around_one(0.35, 1.6), around_one(0.6, 1.6)
    gamma = around_one(0.75, 1.35)
    darkest, brightest = (math.log(factor) if strength else 0.0 for factor in _GAIN)
    gain = drawn(count, darkest, brightest, generator).exp().view(count, 1, 1, 1)
    hazy = _sometimes(count, 0.2, generator).float() * drawn(count, 0.05, 0.4, generator)
    haze = hazy.view(count, 1, 1, 1) * strength
    gray = images.mean(1, keepdim=True)
    images = gray + (images - gray) * saturation
    mean = images.mean((2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast) * tint + offset
    images = (images * gain).clamp(1e-4, 1) ** gamma
    return images * (1 - haze) + 0.85 * haze


def _soften(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One in seven blurred, one in three of a coarser ground sampling, one in five noisy.

    The noise is of each band or, in half of them, gray.
    """
    count, size = len(images), images.shape[-1]
    draw = torch.rand(count, generator=generator)
    soft, coarse, noisy = draw < 0.15, (draw >= 0.15) & (draw < 0.5), draw >= 0.8
    if soft.any():
        line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        kernel = (line[:, None] * line).expand(3, 1, 5, 5).contiguous()
        images[soft] = F.conv2d(F.pad(images[soft], (2, 2, 2, 2), mode="reflect"), kernel, groups=3)
    if coarse.any():
        factor = float(drawn(1, 1.3, 5, generator))
        small = F.interpolate(images[coarse], scale_factor=1 / factor, mode="area")
        images[coarse] = F.interpolate(small, size=(size, size), mode="bilinear")
    if noisy.any():
        noise = torch.randn(images[noisy].shape, generator=generator)
        gray = draw[noisy].view(-1, 1, 1, 1) >= 0.9
        images[noisy] += torch.where(gray, noise[:, :1], noise) * 0.025
    return images


def _compress(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One in six through JPEG of quality 25 to 85."""
    chosen = _sometimes(len(images), 1 / 6, generator).nonzero().flatten().tolist()
    quality = torch.randint(25, 86, (len(images),), generator=generator).tolist()
    for place in chosen:
        pixels = (images[place] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        images[place] = torch.from_numpy(_jpeg(pixels, quality[place])).permute(2, 0, 1) / 255
    return images


Pixels = NDArray[np.uint8]
Corruption = Callable[[Pixels], Pixels]


def all_corruptions() -> dict[str, Corruption]:
    """Functions of uint8 (B, H, W, 3) that return the same shape, by their description.

    A footprint of 1/2 is the picture's center enlarged; one of 2 shows the picture at half its
    size, its surroundings mirrored. "coarser" keeps the footprint and loses detail.
    """
    return {
        "JPEG, quality 50": lambda pixels: np.stack([_jpeg(one, 50) for one in pixels]),
        "JPEG, quality 20": lambda pixels: np.stack([_jpeg(one, 20) for one in pixels]),
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


def _jpeg(picture: Pixels, quality: int) -> Pixels:
    """A picture (H, W, 3) after JPEG compression."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return np.array(image)


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
    if share > 1:  # sampled from a smoothed picture, like an overview
        images = F.interpolate(images, scale_factor=1 / share, mode="area")
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]
    theta = torch.tensor(turn).float() * share
    size = [len(images), 3, *pixels.shape[1:3]]
    grid = F.affine_grid(theta.expand(len(images), 2, 3), size, align_corners=False)
    seen = F.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return _values(seen.permute(0, 2, 3, 1).numpy())
