"""Augmentation for pictures taken from above: there is no up, the ground sampling and the light vary."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def augment(images: torch.Tensor, generator: torch.Generator, *, zoom: tuple[float, float] = (0.55, 1.25)) -> torch.Tensor:
    """Randomly turned, scaled, tinted, blurred and hazy copies of ``images``.

    ``images``: float ``(B, 3, H, W)`` in [0, 1]; the result has the same shape and range.
    ``zoom``: range of the footprint seen, as a share of the image's side (under 1: closer). Each image is
    turned by any angle (half of them by a multiple of 90° only), mirrored, and its border reflected.
    """
    images = _warp(images, generator, zoom)
    images = _light(images, generator)
    images = _blur(images, generator)
    return images.clamp_(0, 1)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _warp(images: torch.Tensor, generator: torch.Generator, zoom: tuple[float, float]) -> torch.Tensor:
    count = len(images)
    quarter = torch.randint(0, 4, (count,), generator=generator) * (torch.pi / 2)
    free = torch.rand(count, generator=generator) < 0.5
    angle = quarter + torch.where(free, _uniform(count, -torch.pi / 4, torch.pi / 4, generator), torch.zeros(count))
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    low, high = torch.tensor(zoom).log().tolist()
    scale = _uniform(count, low, high, generator).exp()
    room = (1 - scale).clamp(min=0)
    shift = (torch.rand(count, 2, generator=generator) * 2 - 1) * room[:, None]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = scale * angle.cos() * mirror
    theta[:, 0, 1] = -scale * angle.sin()
    theta[:, 1, 0] = scale * angle.sin() * mirror
    theta[:, 1, 1] = scale * angle.cos()
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _light(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count = len(images)
    column = (count, 1, 1, 1)
    gain = _uniform(count, 0.7, 1.3, generator).view(column)
    tint = 1 + (torch.rand(count, 3, 1, 1, generator=generator) - 0.5) * 0.24
    offset = (torch.rand(count, 3, 1, 1, generator=generator) - 0.5) * 0.08
    contrast = _uniform(count, 0.7, 1.35, generator).view(column)
    saturation = _uniform(count, 0.4, 1.4, generator).view(column)
    haze = (torch.rand(count, generator=generator) < 0.2).float() * _uniform(count, 0.05, 0.35, generator)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * saturation
    mean = images.mean((2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast) * gain * tint + offset
    return images * (1 - haze.view(column)) + 0.85 * haze.view(column)


def _blur(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A 3 × 3 binomial kernel on a quarter of the images, slight noise on another quarter."""
    draw = torch.rand(len(images), generator=generator)
    soft = draw < 0.25
    if soft.any():
        line = torch.tensor([0.25, 0.5, 0.25])
        kernel = (line[:, None] * line).expand(3, 1, 3, 3).contiguous()
        images[soft] = F.conv2d(F.pad(images[soft], (1, 1, 1, 1), mode="reflect"), kernel, groups=3)
    noisy = draw > 0.75
    if noisy.any():
        noise = torch.randn(images[noisy].shape, generator=generator) * 0.02
        images[noisy] = images[noisy] + noise
    return images
