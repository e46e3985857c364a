"""The loss of a classifier whose labels may allow several classes."""

from __future__ import annotations

import torch

from rssc_geo.training.taxonomy import Legend


class LabelLoss:
    """Negative log-likelihood of the labels, softer the less of a picture is visible.

    A label that allows several classes without their shares costs −log Σ p over them (the marginal
    likelihood of a partial label: Jin and Ghahramani, "Learning with Multiple Labels", NIPS 2002);
    any other the cross entropy with its weights. A part ``sure`` of the loss is that, the rest is
    the cross entropy with all classes alike: ``sure`` falls from ``1 − smoothing`` (of the label's
    own share) for the whole picture to 0 with the square of what is missing (Liu et al., "Soft
    Augmentation for Image Classification", CVPR 2023), since a corner of a picture labeled Bridge
    may show fields only. Labels of textures hold for any part.

    Parameters
    ----------
    legend : of the labels
    smoothing : share of a label's target that goes to the other classes
    """

    def __init__(self, legend: Legend, *, smoothing: float = 0.1) -> None:
        count = len(legend.classes)
        self._sure = 1 - smoothing * count / (count - 1) if count > 1 else 1.0
        self._allowed = torch.from_numpy(legend.allowed)
        self._weights = torch.from_numpy(legend.weights)
        self._texture = torch.from_numpy(legend.texture)

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, visible: torch.Tensor
    ) -> torch.Tensor:
        """The mean loss of a batch, a scalar.

        ``logits``: float ``(B, C)``; ``labels``: int64 ``(B,)``, on the CPU; ``visible``: float
        ``(B,)``, on the CPU, the share of each picture's area that is shown.
        """
        device = logits.device
        weights, allowed = self._weights[labels].to(device), self._allowed[labels].to(device)
        shown = torch.where(self._texture[labels], torch.ones(()), visible)
        sure = (self._sure * (1 - (1 - shown) ** 2)).to(device)  # (B,)
        log_p = logits.log_softmax(1)  # (B, C)
        marginal = log_p.masked_fill(~allowed, -torch.inf).logsumexp(1)  # (B,)
        told = torch.where(weights.any(1), (weights * log_p).sum(1), marginal)  # (B,)
        return -(sure * told + (1 - sure) * log_p.mean(1)).mean()
