"""Why a picture was given its class: evidence of its parts, attention between its parts and words,
effect of words.

*Evidence* is integrated gradients (Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep
Networks", ICML 2017) of the class's log-odds over the image tokens, from those of a blank picture
(the card's mean, which also fills invalid pixels) to the picture's own. It is signed, and what the
tokens are given adds up to what the picture adds to the log-odds.

*Attention* is what the network's own cross-attentions weigh, as a mean over heads and levels: where
the words and learned queries look in the picture, and which words the picture looks up. It says
what was read, not what it changed (Jain and Wallace, "Attention is not Explanation", NAACL 2019).

The *effect* of a word is what the log-odds lose when it is left out (Li, Monroe and Jurafsky,
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
from torch import nn

from rssc_geo.errors import UsageError
from rssc_geo.models.bundle import Model
from rssc_geo.models.caption_decoder import CaptionSource
from rssc_geo.models.network import DualAttentionClassifier, DualAttentionLevel

_STEPS = 16  # of the integral: the parts then add up to the whole within a few per cent
_TOP_WORDS = 5
_PUNCTUATION = ".,;:!?\"'()"
_TOP_SHARE = 0.25  # of the largest effect: a word under it is not among the top words


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the caption.

    ``effect``: what the class's log-odds lose without it; below 0: the word speaks against the
    class. ``attention``: its share of what the picture's attention gives the words; None where that
    is not known.
    """

    text: str
    effect: float
    attention: float | None


@dataclass(frozen=True, slots=True)
class Reasons:
    """What spoke for a class in a picture of H × W pixels.

    ``evidence`` float32 (H, W): scaled so that its mean over the picture is about ``total``, what
    the picture as a whole adds to the log-odds of a blank one. ``attention`` float32 (H, W), of
    mean 1; None for a network without attention. ``words``: those of the caption in its order.
    """

    evidence: np.ndarray
    attention: np.ndarray | None
    total: float
    words: tuple[Word, ...]

    @property
    def top_words(self) -> tuple[str, ...]:
        """The words that speak most for the class, the strongest first.

        A word that comes twice is named once.
        """
        largest = max((word.effect for word in self.words), default=0.0)
        strong = sorted(
            (w for w in self.words if w.effect > 0 and w.effect >= _TOP_SHARE * largest),
            key=lambda w: -w.effect,
        )
        names = dict.fromkeys(word.text.strip(_PUNCTUATION).lower() for word in strong)
        return tuple(name for name in names if name)[:_TOP_WORDS]


def find_reasons(
    model: Model,
    pixels: np.ndarray,
    mask: np.ndarray,
    *,
    class_id: int,
    caption: str,
    source: CaptionSource,
    words_read: bool,
) -> Reasons:
    """The reasons for one class of one tile, on the device where the model is; best in float32.

    ``pixels`` uint8 ``(H, W, 3)``, ``mask`` bool ``(H, W)``, True = valid. ``words_read``: whether
    the network found the class with the ``caption``; if not, words and their effect are what they
    would have been with it. The model has two classes or more. Raises ``UsageError`` where its
    image tokens are not laid out as a grid.
    """
    network = model.network
    weight = next(network.parameters())
    image = model.preprocess(np.stack([pixels]), np.stack([mask])).to(
        device=weight.device, dtype=weight.dtype
    )
    # inference_mode is of no use here: its tensors can have no gradient.
    with torch.no_grad():
        both = network.encode_image(torch.cat([image, torch.zeros_like(image)]))
    tokens, blank = both[:1], both[1:]
    read = [
        values.to(weight.device)
        for values in model.tokenize([caption if words_read else ""], source=source)
    ]
    shares, total = _integrated_gradients(model, tokens, blank, read=read, class_id=class_id)
    shape = pixels.shape[:2]
    with torch.no_grad(), _attention(network) as seen:
        network.classify(tokens, *read)
    looks = _looks(network, seen["picture"], read[1])
    evidence = _as_map(shares * len(shares), shape)
    attention = None if looks is None else _as_map(looks * len(looks), shape)
    words = _words(model, tokens, caption=caption, source=source, class_id=class_id)
    return Reasons(evidence, attention, total, words)


def _log_odds(model: Model, logits: torch.Tensor, class_id: int) -> torch.Tensor:
    """Log p / (1 − p) of the class, ``(B,)``: unlike the probability it does not saturate."""
    scaled = logits.float() / model.card.temperature
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
    """What each image token adds ``(N,)``, and all of them together.

    Midpoints of equal steps on the straight way.
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
def _attention(network: nn.Module) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Weights (B, asking, asked) of the attentions to the picture and to the words, level by level, while it is open."""
    seen: dict[str, list[torch.Tensor]] = {"picture": [], "words": []}
    handles = []

    def ask(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "need_weights": True}

    def keep(name: str) -> Any:
        return lambda _module, _args, output: seen[name].append(output[1].float())

    for level in network.modules():
        if isinstance(level, DualAttentionLevel):
            for name, attention in (
                ("picture", level.text_cross_attention),
                ("words", level.image_cross_attention),
            ):
                handles.append(attention.register_forward_pre_hook(ask, with_kwargs=True))
                handles.append(attention.register_forward_hook(keep(name)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _looks(
    network: nn.Module, levels: list[torch.Tensor], present: torch.Tensor
) -> torch.Tensor | None:
    """Where all that stands in the text looks: ``(N,)``, of sum 1.

    ``present`` (1, T): which tokens are words.
    """
    if not levels:
        return None
    weights = torch.stack(levels).mean(0)[0]  # (S, N)
    queries = _queries(network)
    asking = present.new_ones(len(weights))
    asking[queries : queries + present.shape[1]] = present[0]
    return weights[asking].mean(0)


def _queries(network: nn.Module) -> int:
    """How many learned queries stand before the words."""
    return next(
        len(module.queries)
        for module in network.modules()
        if isinstance(module, DualAttentionClassifier)
    )


def _words(
    model: Model, tokens: torch.Tensor, *, caption: str, source: CaptionSource, class_id: int
) -> tuple[Word, ...]:
    """The caption's words, as blanks part them.

    A word that stands alone is not left out: its effect is 0.
    """
    words = caption.split()
    if not words:
        return ()
    texts = (
        [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
        if len(words) > 1
        else []
    )
    ids, present = (
        values.to(tokens.device)
        for values in model.tokenize([" ".join(words), *texts], source=source)
    )
    with torch.no_grad(), _attention(model.network) as seen:
        logits = model.network.classify(tokens.expand(len(ids), -1, -1), ids, present)
    odds = _log_odds(model, logits, class_id)
    effects = (odds[0] - odds[1:]).tolist() or [0.0]
    shares = _shares(model, words, ids[0, present[0]].tolist(), seen["words"])
    return tuple(Word(*values) for values in zip(words, effects, shares, strict=True))


def _shares(
    model: Model, words: list[str], ids: list[int], levels: list[torch.Tensor]
) -> Sequence[float | None]:
    """Each word's share of the picture's attention to all words; its pieces are summed.

    None where the network has no such attention, or has not read the whole caption (longer than
    ``max_tokens``).
    """
    text = " ".join(words)
    pieces = model.tokenizer.encode(text, add_special_tokens=False)
    starts = [
        at
        for at in range(len(ids) - len(pieces.ids) + 1)
        if ids[at : at + len(pieces.ids)] == pieces.ids
    ]
    if not levels or not starts or not pieces.ids:
        return [None] * len(words)
    weights = (
        torch.stack(levels).mean(0)[0].mean(0)[_queries(model.network) + starts[0] :].cpu().numpy()
    )  # (T,)
    counts = np.array(
        [any(map(str.isalnum, text[start:end])) for start, end in pieces.offsets]
    )  # not punctuation
    ends = np.cumsum(
        [len(word) + 1 for word in words]
    )  # of the words in the text, each with the blank behind it
    of_word = np.searchsorted(
        ends, [(start + end - 1) // 2 for start, end in pieces.offsets], side="right"
    )
    sums = np.bincount(of_word, weights=weights[: len(of_word)] * counts, minlength=len(words))
    return [float(value) for value in sums / max(sums.sum(), 1e-12)]


def _as_map(values: torch.Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Values of the image tokens ``(N,)``, spread smoothly over a picture of ``shape``: float32 (H,
    W).

    Tokens that stand for no place (a vision transformer's first ones) are left out: the others form
    a grid of the picture's proportions.
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
