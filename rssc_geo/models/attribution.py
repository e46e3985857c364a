"""Explanation of an image's class: evidence of its parts, attention, and the effect of words.

*Evidence* is integrated gradients (Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep
Networks", ICML 2017) of the class's log-odds over the image tokens, from those of a blank image
(the card's mean, which also fills invalid pixels) to the image's own. It is signed, and the
evidence of all tokens sums to the change of the log-odds by the image.

*Attention* are the weights of the network's own cross-attentions, as a mean over heads and levels:
from the words and learned queries to the image tokens, and from the image tokens to the words. It
shows what was read, not its effect on the class (Jain and Wallace, "Attention is not Explanation",
NAACL 2019).

The *effect* of a word is the decrease of the log-odds when it is left out (Li, Monroe and Jurafsky,
"Understanding Neural Networks through Representation Erasure", arXiv 1612.08220, 2016).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from rssc_geo.errors import UsageError
from rssc_geo.models.caption_decoder import CaptionSource
from rssc_geo.models.model import Model, encode_text
from rssc_geo.models.network import DualAttentionClassifier, DualAttentionLevel

_STEPS = 16  # steps of the integral: the parts then sum to the whole within a few percent
_TOP_WORDS = 5
_PUNCTUATION = ".,;:!?\"'()"
_TOP_SHARE = 0.25  # share of the largest effect that a top word has at least


@dataclass(frozen=True, slots=True)
class ReadCaption:
    """The caption of a tile and how the network used it.

    Attributes
    ----------
    text : empty where there is none
    source : of its text
    read : whether the class was found with it; if not, words and effects are those of a run with it
    """

    text: str
    source: CaptionSource
    read: bool


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the caption.

    Attributes
    ----------
    text : as in the caption
    effect : decrease of the class's log-odds without it; below 0: evidence against the class
    attention : its share of the image tokens' attention to the words; None where it is not known
    """

    text: str
    effect: float
    attention: float | None


@dataclass(frozen=True, slots=True)
class Attribution:
    """The explanation of a class for an image of H × W pixels.

    Attributes
    ----------
    evidence : (H, W), scaled so that its mean over the image is about ``total``
    attention : (H, W), of mean 1; None for a network without attention
    total : log-odds of the image minus those of a blank one
    words : those of the caption in its order
    """

    evidence: NDArray[np.float32]
    attention: NDArray[np.float32] | None
    total: float
    words: tuple[Word, ...]

    @property
    def top_words(self) -> tuple[str, ...]:
        """The words with the largest effect for the class, the strongest first, each once."""
        largest = max((word.effect for word in self.words), default=0.0)
        strong = sorted(
            (w for w in self.words if w.effect > 0 and w.effect >= _TOP_SHARE * largest),
            key=lambda w: -w.effect,
        )
        names = dict.fromkeys(word.text.strip(_PUNCTUATION).lower() for word in strong)
        return tuple(name for name in names if name)[:_TOP_WORDS]


def attribute(
    model: Model,
    pixels: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    *,
    class_id: int,
    caption: ReadCaption,
) -> Attribution:
    """Explain one class of one tile, on the device of the model; best in float32.

    Parameters
    ----------
    model : of two classes or more
    pixels : uint8 (H, W, 3)
    mask : bool (H, W), True = valid
    class_id : the class that is explained, a place in the model's list
    caption : what the model reads of the tile

    Raises ``UsageError`` where the model's image tokens are not laid out as a grid.
    """
    network = model.network
    weight = next(network.parameters())
    image = model.preprocess(np.stack([pixels]), np.stack([mask])).to(
        device=weight.device, dtype=weight.dtype
    )
    # Not inference_mode: its tensors can have no gradient.
    with torch.no_grad():
        both = network.encode_image(torch.cat([image, torch.zeros_like(image)]))
    tokens, blank = both[:1], both[1:]
    read = [
        values.to(weight.device)
        for values in model.tokenize([caption.text if caption.read else ""], source=caption.source)
    ]
    shares, total = _integrated_gradients(model, tokens, blank, read=read, class_id=class_id)
    shape = pixels.shape[:2]
    with torch.no_grad(), _attention_weights(network) as recorded:
        network.classify(tokens, *read)
    to_image = _attention_to_image(network, recorded["image"], read[1])
    evidence = _as_map(shares * len(shares), shape)
    attention = None if to_image is None else _as_map(to_image * len(to_image), shape)
    words = _words(model, tokens, caption=caption, class_id=class_id)
    return Attribution(evidence, attention, total, words)


def _log_odds(model: Model, logits: torch.Tensor, class_id: int) -> torch.Tensor:
    """Logits (B, C) → log p / (1 − p) of the class (B,), which does not saturate as p does.

    Among the allowed classes, of which it is one and not the only one.
    """
    scaled = model.calibrated(logits)
    others = torch.cat([scaled[:, :class_id], scaled[:, class_id + 1 :]], dim=1)
    return scaled[:, class_id] - others.logsumexp(1)


def _integrated_gradients(
    model: Model,
    tokens: torch.Tensor,
    blank: torch.Tensor,
    *,
    read: list[torch.Tensor],
    class_id: int,
) -> tuple[torch.Tensor, float]:
    """The evidence of each image token (N,), and of all of them together.

    ``tokens``, ``blank``: (1, N, I). The path integral by midpoints of equal steps.
    """
    way = (torch.arange(_STEPS, device=tokens.device, dtype=tokens.dtype) + 0.5).view(
        -1, 1, 1
    ) / _STEPS
    points = (blank + way * (tokens - blank)).requires_grad_()
    ids, present = (values.expand(_STEPS, -1) for values in read)
    with torch.enable_grad():
        odds = _log_odds(model, model.network.classify(points, ids, present), class_id)
        (slopes,) = torch.autograd.grad(odds.sum(), points)
    with torch.no_grad():
        both = torch.cat([tokens, blank])
        ends = _log_odds(
            model,
            model.network.classify(both, *(values.expand(2, -1) for values in read)),
            class_id,
        )
    return (slopes.mean(0) * (tokens - blank)[0]).sum(1).float(), float(ends[0] - ends[1])


@contextmanager
def _attention_weights(network: nn.Module) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Record the weights (B, queries, keys) of the attentions, level by level, while it is open.

    "image": from the text to the image tokens; "words": from the image tokens to the text.
    """
    recorded: dict[str, list[torch.Tensor]] = {"image": [], "words": []}
    handles = []

    def want_weights(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "need_weights": True}

    def keep(name: str) -> Any:
        return lambda _module, _args, output: recorded[name].append(output[1].float())

    for level in network.modules():
        if isinstance(level, DualAttentionLevel):
            for name, attention in (
                ("image", level.text_cross_attention),
                ("words", level.image_cross_attention),
            ):
                handles.append(attention.register_forward_pre_hook(want_weights, with_kwargs=True))
                handles.append(attention.register_forward_hook(keep(name)))
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _attention_to_image(
    network: nn.Module, levels: list[torch.Tensor], present: torch.Tensor
) -> torch.Tensor | None:
    """Mean attention of queries and words to the image tokens: (N,), of sum 1.

    ``present`` (1, T): which tokens are words.
    """
    if not levels:
        return None
    weights = torch.stack(levels).mean(0)[0]  # (S, N)
    queries = _queries(network)
    used = present.new_ones(len(weights))  # (S,)
    used[queries : queries + present.shape[1]] = present[0]
    return weights[used].mean(0)


def _queries(network: nn.Module) -> int:
    """The number of learned queries before the words."""
    return next(
        len(module.queries)
        for module in network.modules()
        if isinstance(module, DualAttentionClassifier)
    )


def _words(
    model: Model, tokens: torch.Tensor, *, caption: ReadCaption, class_id: int
) -> tuple[Word, ...]:
    """The caption's words, separated by blanks.

    A single word is not left out: its effect is 0.
    """
    words = caption.text.split()
    if not words:
        return ()
    texts = (
        [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
        if len(words) > 1
        else []
    )
    ids, present = (
        values.to(tokens.device)
        for values in model.tokenize([" ".join(words), *texts], source=caption.source)
    )
    with torch.no_grad(), _attention_weights(model.network) as recorded:
        logits = model.network.classify(tokens.expand(len(ids), -1, -1), ids, present)
    odds = _log_odds(model, logits, class_id)
    effects = (odds[0] - odds[1:]).tolist() or [0.0]
    shares = _shares(model, words, ids[0, present[0]].tolist(), recorded["words"])
    return tuple(Word(*values) for values in zip(words, effects, shares, strict=True))


def _shares(
    model: Model, words: list[str], ids: list[int], levels: list[torch.Tensor]
) -> Sequence[float | None]:
    """Each word's share of the image tokens' attention to all words; its pieces are summed.

    None where the network has no such attention, or has not read the whole caption (longer than
    ``max_tokens``).
    """
    text = " ".join(words)
    pieces = encode_text(model.tokenizer, text)
    starts = [
        at
        for at in range(len(ids) - len(pieces.ids) + 1)
        if ids[at : at + len(pieces.ids)] == pieces.ids
    ]
    if not levels or not starts or not pieces.ids:
        return [None] * len(words)
    mean = torch.stack(levels).mean(0)[0].mean(0)  # (S,)
    weights = mean[_queries(model.network) + starts[0] :].cpu().numpy()  # (T,)
    # Punctuation does not count.
    counts = np.array([any(map(str.isalnum, text[start:end])) for start, end in pieces.offsets])
    # Ends of the words in the text, each with the blank behind it.
    ends = np.cumsum([len(word) + 1 for word in words])
    centers = [(start + end - 1) // 2 for start, end in pieces.offsets]
    of_word = np.searchsorted(ends, centers, side="right")
    sums = np.bincount(of_word, weights=weights[: len(of_word)] * counts, minlength=len(words))
    return [float(value) for value in sums / max(sums.sum(), 1e-12)]


def _as_map(values: torch.Tensor, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Values of the image tokens (N,), interpolated over an image of ``shape``: (H, W).

    Tokens that stand for no place (a vision transformer's first ones) are left out: the others form
    a grid of the image's proportions. Raises ``UsageError`` where they form none.
    """
    rows, cols = (
        int((len(values) * side / other) ** 0.5 + 1e-6) for side, other in (shape, shape[::-1])
    )
    if not rows * cols:
        raise UsageError(
            f"the image encoder's {len(values)} tokens are not laid out as a grid: they cannot be"
            " mapped"
        )
    grid = values[len(values) - rows * cols :].view(1, 1, rows, cols)
    spread = F.interpolate(grid, size=shape, mode="bilinear", align_corners=False)[0, 0]
    return np.asarray(spread.cpu().numpy(), np.float32)
