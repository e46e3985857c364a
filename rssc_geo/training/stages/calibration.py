"""Stage 6: temperature, whether the own captions are read, and the figures for the card."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rssc_geo.models import CaptionSource, Model
from rssc_geo.training.data import SceneImages, Split
from rssc_geo.training.metrics import fit_temperature, overall_accuracy, score
from rssc_geo.training.stages.captioner import write_captions
from rssc_geo.training.stages.features import Features
from rssc_geo.training.stages.fusion import logits_of

log = logging.getLogger(__name__)

_AWAY = 1.5
"""Factor of the temperature that fits validation pictures of the same data sets.

On whole data sets that were left out of the training, confidence is closest to accuracy at 1.5 to 2
times that temperature (benchmarks/left_out.py), and rasters are such pictures.
"""
_WINDOWS = 0.75
"""The same for the windows of fine maps, and logits by the picture alone.

Chosen on real scenes whose masks show kinds of land: confidence is closest to the share of the land
whose kind is right (benchmarks/real_scenes.py).
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """Captions that are read with some pictures (empty: none), and their source."""

    captions: Sequence[str]
    source: CaptionSource


def readings_of(
    model: Model, features: Features, data: SceneImages, rows: NDArray[np.int64]
) -> dict[str, Reading]:
    """The captions with which the pictures ``rows`` can be read: ``none``, ``own`` and ``human``.

    The latter two only by a model with a captioner; ``human``: all that people wrote of a picture.
    """
    readings = {"none": Reading([""] * len(rows), "generated")}
    if model.decoder is not None and model.vocabulary is not None:
        own = write_captions(
            model.decoder,
            model.vocabulary,
            features.tokens[0, rows],
            device=model.network.queries.device,
        )
        readings["own"] = Reading(own, "generated")
        human = [" ".join(data.captions[row]) for row in rows.tolist()]
        readings["human"] = Reading(human, "written")
    return readings


def mean_accuracy(
    model: Model,
    tokens: NDArray[np.float16],
    data: SceneImages,
    readings: Mapping[str, Reading],
) -> float:
    """Overall accuracy of image tokens ``(B, T, I)`` of ``data``, the mean of all readings."""
    logits = [logits_of(model, tokens, r.captions, source=r.source) for r in readings.values()]
    return float(np.mean([overall_accuracy(one.argmax(1), data.truth(one)) for one in logits]))


def calibrate(model: Model, features: Features, data: SceneImages, split: Split) -> Model:
    """The model with temperature, figures, and the decision whether it reads its own captions.

    All are decided on the validation part. The test part is evaluated once, here; a split may have
    none.
    """
    logits: dict[str, dict[str, NDArray[np.float32]]] = {}
    for part in ("val", "test") if len(split["test"]) else ("val",):
        tokens = features.tokens[0, split[part]]
        logits[part] = {
            name: logits_of(model, tokens, reading.captions, source=reading.source)
            for name, reading in readings_of(model, features, data, split[part]).items()
        }
    right = {
        name: overall_accuracy(found.argmax(1), data.truth(found, split["val"]))
        for name, found in logits["val"].items()
    }
    reads = right.get("own", 0.0) > right["none"]
    chosen = "own" if reads else "none"
    allowed = data.legend.allowed[data.labels[split["val"]]]
    temperature = _AWAY * fit_temperature(logits["val"][chosen], allowed)
    window_temperature = None
    if model.card.local_features is not None:
        fitted = fit_temperature(logits["val"]["none"], allowed)
        window_temperature = round(_WINDOWS * fitted, 4)
    log.info("validation accuracy by the captions that are read: %s", right)

    def figures(part: str, reading: str) -> dict[str, float]:
        found = logits[part][reading]
        truth = data.truth(found, split[part])
        return accuracy_figures(found, truth, data.classes, temperature=temperature)

    accuracy = {"validation": figures("val", chosen)}
    if "test" in logits:
        accuracy["test"] = figures("test", chosen)
        if model.decoder is not None:
            accuracy["test_own_captions"] = figures("test", "own")
            accuracy["test_no_captions"] = figures("test", "none")
            accuracy["test_human_captions"] = figures("test", "human")
    log.info("%s", accuracy)
    card = dataclasses.replace(
        model.card,
        temperature=round(temperature, 4),
        window_temperature=window_temperature,
        reads_own_captions=reads,
        accuracy=accuracy,
    )
    return dataclasses.replace(model, card=card)


def accuracy_figures(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    temperature: float,
) -> dict[str, float]:
    """The single numbers of a part of the data, for the card.

    ``logits``: ``(N, C)``; ``labels``: ``(N,)``; the logits are divided by ``temperature``.
    """
    probabilities = torch.from_numpy(logits / temperature).softmax(1).numpy()
    return score(probabilities, labels, class_names=class_names).figures()
