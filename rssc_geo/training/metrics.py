"""Figures of merit of a classifier."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar


def overall_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of samples whose class is right."""
    return float((predicted == labels).mean())


def average_accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes present of the share that is right."""
    return float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))


def cohen_kappa(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Agreement beyond chance, (p_o − p_e) / (1 − p_e) (Cohen, 1960)."""
    classes = np.arange(max(predicted.max(), labels.max()) + 1)
    shares = [np.bincount(values, minlength=len(classes)) / len(values) for values in (predicted, labels)]
    expected = float(shares[0] @ shares[1])
    return (overall_accuracy(predicted, labels) - expected) / (1 - expected) if expected < 1 else 1.0


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> float:
    """ECE of the top label over equal-width confidence bins (Guo et al., 2017)."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[place == b].mean() - confidence[place == b].mean()) * (place == b).mean() for b in np.unique(place)]
    return float(np.sum(gaps))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that minimises the negative log-likelihood of ``softmax(logits / t)`` (Guo et al., 2017)."""

    def loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        scaled = scaled - scaled.max(1, keepdims=True)
        return float((np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(labels)), labels]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
