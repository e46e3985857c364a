"""Familiarity of pictures: trained on augmented crops and on pictures that are no photographs."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rssc_geo.models import Familiarity, Model
from rssc_geo.training.augment import normalize, to_input
from rssc_geo.training.crops import CropSampler
from rssc_geo.training.data import SceneImages, Split
from rssc_geo.training.loop import mixed_precision
from rssc_geo.training.options import EncoderRecipe
from rssc_geo.training.outliers import make_outliers
from rssc_geo.training.stages.features import Features, mean_tokens
from rssc_geo.training.windows import find_windows

log = logging.getLogger(__name__)

_CROPS = 6144
"""At most, and as many outliers."""
_HELD = 4096
"""Crops of the validation part, at most."""
_BATCH = 64
_HIDDEN = 32
_DECAY = 10.0
"""Of the perceptron's weights."""
_ROUNDS = 60
_LEVELS = 1001


def add_familiarity(
    model: Model,
    features: Features,
    data: SceneImages,
    split: Split,
    recipe: EncoderRecipe,
    *,
    seed: int,
) -> Model:
    """The model with a part that estimates how familiar pictures are.

    Positive samples are crops like those of the image encoder's training, but in their own colors;
    negative ones are synthetic, see ``make_outliers``. A perceptron separates them by the mean
    token, as in ``Familiarity``. Its quantiles are those of such crops of the validation part.
    Where windows of the model share features, all samples are also encoded in surroundings, like
    the parts of a raster: plain water there differs from plain water in a frame.

    Parameters
    ----------
    model : its network is in evaluation mode, on the device where it computes
    features : image tokens of all pictures
    data : all pictures
    split : crops come from the training part, the quantiles from the validation part; the shares of
        the test part and of synthetic pictures that are ``Unknown`` go to the card
    recipe : how crops are drawn
    seed : of every random choice
    """
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    rows, size = split["train"], model.card.input_size[0]

    def crops(rows: NDArray[np.int64], *, most: int, epochs: int) -> Iterator[torch.Tensor]:
        windows = find_windows(data, rows)
        sampler = CropSampler(
            data, rows, windows, recipe.crops, batch_size=_BATCH, generator=generator
        )
        passes = (sampler.batches(size) for _ in range(epochs))
        batches = itertools.chain.from_iterable(passes)
        return (batch.images for batch in itertools.islice(batches, most // _BATCH))

    known = _embed(model, crops(rows, most=_CROPS, epochs=1))
    made = make_outliers(data.pixels[rows], min(_CROPS, len(rows)), random)
    parts = np.array_split(made, math.ceil(len(made) / _BATCH))
    other = _embed(model, (to_input(part) for part in parts))
    held = _embed(model, crops(split["val"], most=_HELD, epochs=2))
    part = Familiarity(image_width=known.shape[1], hidden=_HIDDEN, levels=_LEVELS)
    _fit(part, known, other, seed)
    with torch.no_grad():
        quantiles = torch.quantile(part.score(held), torch.linspace(0, 1, _LEVELS))
        part.scores.copy_(quantiles)

        def unknown(tokens: torch.Tensor) -> float:
            return round(float((part(tokens) < model.card.unknown_below).float().mean()), 4)

        figures = {"made_up": unknown(other)}
        if len(split["test"]):
            pooled = mean_tokens(features.tokens[0], split["test"])
            figures["test"] = unknown(torch.from_numpy(pooled))
    log.info("share that is Unknown: %s", figures)
    card = dataclasses.replace(
        model.card,
        familiarity={"image_width": known.shape[1], "hidden": _HIDDEN, "levels": _LEVELS},
        accuracy={**model.card.accuracy, "unknown": figures},
    )
    return dataclasses.replace(model, card=card, familiarity=part.eval())


@torch.inference_mode()
def _embed(model: Model, batches: Iterator[torch.Tensor]) -> torch.Tensor:
    """Mean tokens float32 ``(N, I)`` of images ``(B, 3, S, S)`` in [0, 1] a batch.

    Where windows share features, each image also gives one as seen in its mirrored surroundings.
    """
    card, network = model.card, model.network
    found = []
    for images in batches:
        fitting = F.interpolate(images, size=card.input_size, mode="bilinear", antialias=True)
        inputs = normalize(fitting, card.mean, card.std)
        inputs = inputs.to(network.queries.device)
        with mixed_precision(inputs.device):
            found.append(network.encode_image(inputs).mean(1).float().cpu())
            if card.local_features is not None:
                found.append(_surrounded(model, inputs).mean(1).float().cpu())
    return torch.cat(found)


def _surrounded(model: Model, inputs: torch.Tensor) -> torch.Tensor:
    """Tokens ``(B, T, I)`` of inputs ``(B, 3, S, S)`` surrounded by their mirror images."""
    around = inputs.shape[-1] // 2
    wide = F.pad(inputs, (around,) * 4, mode="reflect")
    tokens = model.network.encode_image(wide)  # (B, 4 T, I)
    side = math.isqrt(tokens.shape[1])
    own = slice(side // 4, side // 4 + side // 2)
    grid = tokens.reshape(len(tokens), side, side, -1)
    return grid[:, own, own].flatten(1, 2)


def _fit(part: Familiarity, known: torch.Tensor, other: torch.Tensor, seed: int) -> None:
    """Weights of ``part`` by standardized roots; both classes have the same weight."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    repeated = other.repeat(max(1, round(len(known) / len(other))), 1)
    roots = part.roots(torch.cat([known, repeated])).numpy()
    mean, scale = roots[: len(known)].mean(0), roots[: len(known)].std(0) + 1e-3
    perceptron = MLPClassifier(
        (_HIDDEN,), alpha=_DECAY, max_iter=_ROUNDS, random_state=seed, n_iter_no_change=_ROUNDS
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of rounds
        perceptron.fit((roots - mean) / scale, np.arange(len(roots)) < len(known))
    (first, second), (shift, bias) = perceptron.coefs_, perceptron.intercepts_
    first = first / scale[:, None]
    with torch.no_grad():
        part.hidden.weight.copy_(torch.from_numpy(first.T))
        part.hidden.bias.copy_(torch.from_numpy(shift - mean @ first))
        part.weigh.weight.copy_(torch.from_numpy(second.T))
        part.weigh.bias.copy_(torch.from_numpy(bias))
