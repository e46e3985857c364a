"""Pictures and texts in one space, so that classes can be named by words."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class Alignment(nn.Module):
    """Maps the mean of a picture's tokens into the space of the text encoder's sentence vectors.

    ``center`` is the mean embedding of the training pictures: what all pictures have in common says
    nothing about any class. ``log_scale`` and ``other`` are fitted on validation pictures: what
    similarities are multiplied by, as in CLIP (Radford et al., 2021), and what the class "other" of
    :func:`rssc_geo.pipelines.zero_shot.name_classes` is shifted by.
    """

    def __init__(self, *, image_width: int, text_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(image_width, text_width)
        self.center: torch.Tensor
        self.register_buffer("center", torch.zeros(text_width))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.other = nn.Parameter(torch.tensor(0.0))

    def embed(self, pooled: torch.Tensor) -> torch.Tensor:
        """Mean image tokens ``(B, I)`` → unit vectors ``(B, X)``."""
        return F.normalize(self.project(pooled), dim=1)

    def forward(self, pooled: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, C)`` of mean image tokens ``(B, I)`` for unit text vectors ``(C, X)``."""
        return self.log_scale.exp() * (self.embed(pooled) - self.center) @ texts.T
