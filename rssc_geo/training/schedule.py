"""The learning rate over a training run."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle(optimizer: torch.optim.Optimizer, learning_rate: float, *, steps: int) -> OneCycleLR:
    """Up for a tenth of the steps, then down along a cosine (Smith and Topin, 2018).

    Very short runs go up for longer: PyTorch divides by nothing where the rise is exactly one step.
    """
    return OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=min(0.9, max(0.1, 1.5 / steps))
    )
