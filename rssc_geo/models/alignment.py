"""Pictures and texts in one space, so that classes can be named by words."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class Alignment(nn.Module):
    """Maps the mean of a picture's tokens into the space of the text encoder's sentence vectors.

    Cosine similarities are multiplied by a learned scale, as in CLIP (Radford et al., 2021).
    """

    def __init__(self, *, image_width: int, text_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(image_width, text_width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def embed(self, pooled: torch.Tensor) -> torch.Tensor:
        """Mean image tokens ``(B, I)`` → unit vectors ``(B, X)``."""
        return F.normalize(self.project(pooled), dim=1)

    def forward(self, pooled: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, C)`` of mean image tokens ``(B, I)`` for unit text vectors ``(C, X)``."""
        return self.log_scale.exp() * self.embed(pooled) @ texts.T
