"""A classifying layer for new classes on top of a model's joint embedding, from few examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


@dataclass(frozen=True, slots=True)
class Head:
    """Logits = ``embedding @ weight.T + bias``.

    ``weight`` float32 ``(C, D)``, ``bias`` float32 ``(C,)``.
    """

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, embedding: np.ndarray) -> np.ndarray:
        """Logits float32 ``(N, C)`` of embeddings ``(N, D)``."""
        return np.asarray(embedding @ self.weight.T + self.bias, np.float32)


def fit_head(
    embedding: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    strength: float = 1.0,
    prior: Head | None = None,
) -> Head:
    """Multinomial logistic regression with all classes counting the same.

    Parameters
    ----------
    embedding : floats (N, D); centered and scaled by one number for the fit, which the layer
        returned undoes
    labels : integers (N,), 0 to ``classes`` − 1; a class without examples gets logits far below the
        others'
    strength : of the weights' squared norm against the mean loss of an example, times N: 1 is a
        prior of unit variance
    prior : a layer from which the weights are penalised for departing, instead of from zero

    The loss is convex: the result does not depend on a seed.
    """
    x = torch.from_numpy(np.asarray(embedding, np.float64))
    center = x.mean(0)
    scale = (x - center).pow(2).sum(1).mean().sqrt().clamp(min=1e-12)
    x = (x - center) / scale
    y = torch.from_numpy(labels.astype(np.int64))
    counts = torch.bincount(y, minlength=classes)
    balance = torch.where(counts > 0, len(y) / ((counts > 0).sum() * counts.clamp(min=1)), 0.0).to(
        x.dtype
    )
    absent = torch.where(counts > 0, 0.0, -30.0).to(x.dtype)
    known = (
        torch.from_numpy(prior.logits(embedding)).to(x.dtype)
        if prior is not None
        else torch.zeros_like(absent)
    )
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=300, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(
            _SHARP * x @ weight.T + bias + absent + known, y, weight=balance, reduction="sum"
        )
        loss = (loss + strength / 2 * weight.pow(2).sum()) / len(y)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        final = _SHARP * weight / scale
        shift = bias + absent - final @ center
        if prior is not None:
            final, shift = (
                final + torch.from_numpy(prior.weight),
                shift + torch.from_numpy(prior.bias),
            )
    return Head(final.numpy().astype(np.float32), shift.numpy().astype(np.float32))


_SHARP = 10.0
"""Embeddings of unit scale times this.

Logits of a size that a prior of unit variance allows (see benchmarks/few_shot.py).
"""
