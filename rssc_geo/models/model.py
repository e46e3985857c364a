"""A loaded model: its network, captioner and tokenizers, and how pixels and captions enter them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import BundleError, one_line
from rssc_geo.models.card import AS_PUBLISHED, ModelCard

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding, Tokenizer

    from rssc_geo.models.caption_decoder import CaptionDecoder, CaptionSource
    from rssc_geo.models.network import Alignment, DualAttentionClassifier, Familiarity

_SENTENCE_ENDS = (".", "!", "?", "。")


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded bundle.

    Attributes
    ----------
    card : the bundle's description
    network : in evaluation mode
    tokenizer : of the captions that the network reads
    decoder, vocabulary : the model's own captioner, if it has one
    alignment : of images and texts, if the model can name classes by words
    familiarity : of images with those of the training, if the model has it
    choice : ids of the allowed classes, see :func:`class_choice`; None: all
    """

    card: ModelCard
    network: DualAttentionClassifier
    tokenizer: Tokenizer
    decoder: CaptionDecoder | None = None
    vocabulary: Tokenizer | None = None
    alignment: Alignment | None = None
    familiarity: Familiarity | None = None
    choice: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if (self.decoder is None) != (self.vocabulary is None):
            raise ValueError("a captioner needs its decoder and its vocabulary")

    def modules(self) -> list[tuple[str, torch.nn.Module]]:
        """The modules with weights, each with the prefix of their names."""
        parts = {
            "network": self.network,
            "captioner": self.decoder,
            "alignment": self.alignment,
            "familiarity": self.familiarity,
        }
        return [(name, module) for name, module in parts.items() if module is not None]

    def reads(self, source: CaptionSource) -> bool:
        """Whether the class is found with captions of that source.

        Otherwise they are only written to the output.
        """
        return source == "written" or self.card.reads_own_captions

    def calibrated(self, logits: torch.Tensor, *, windows: bool = False) -> torch.Tensor:
        """Logits (B, C) → calibrated logits, whose softmax are the probabilities, float32 (B, C).

        Divided by the card's temperature, that of the ``windows`` of fine maps where they are of
        these; −∞ for a class that is not allowed.
        """
        card = self.card
        of_windows = card.window_temperature if windows else None
        scaled = logits.float() / (card.temperature if of_windows is None else of_windows)
        if self.choice is None:
            return scaled
        chosen = scaled.new_full(scaled.shape, -math.inf)
        ids = list(self.choice)
        chosen[:, ids] = scaled[:, ids]
        return chosen

    def preprocess(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> torch.Tensor:
        """Pixels (B, H, W, 3) and mask (B, H, W) → normalized images, float32 (B, 3, H, W).

        ``mask``: True = valid. Invalid pixels become the card's mean, which is 0 then.
        """
        import torch

        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        images = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (self.card.mean, self.card.std)
        )
        images.sub_(mean).div_(std)
        return images.masked_fill_(torch.from_numpy(~mask)[:, None], 0.0)

    def encode_block(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scene features (1, S, h, w) and ground features (1, G, h', w') of images (1, 3, H, W).

        For windows that share features, see ``pool_windows``; as fine as ``card.local_features``
        says. Images that are not whole tokens are padded behind with the card's mean. Raises
        ``BundleError`` where the image encoder does not support that.
        """
        import torch.nn.functional as F

        from rssc_geo.models.encoders import TimmImageEncoder

        encoder = self.network.image_encoder
        if not isinstance(encoder, TimmImageEncoder):
            raise BundleError(f"the image encoder of {self.card.name} sees whole tiles only")
        stride, ground_stride = self.card.token_strides
        down, across = (-side % stride for side in images.shape[2:])
        if down or across:
            images = F.pad(images, (0, across, 0, down))
        scene, ground = encoder.feature_maps(images, in_strips=True)
        rows, cols = (side // ground_stride for side in images.shape[2:])
        if ground.shape[1] and ground.shape[2:] != (rows, cols):
            ground = F.adaptive_avg_pool2d(ground, (rows, cols))
        return scene, ground

    def tokenize(
        self,
        captions: Sequence[str],
        *,
        source: CaptionSource | Sequence[CaptionSource] | None = "written",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Captions → token ids, int64 (B, T), and their mask, bool (B, T), True = a token.

        T is the card's ``max_tokens`` at most. ``source`` says where all or each of them come from:
        "generated" by the bundle's own captioner, or "written" by people or a large model. Where
        the vocabulary has a mark for it, the mark precedes the words, so that the network can weigh
        them accordingly (None: no mark). An empty caption has no tokens; one that is too long keeps
        its conclusion (:func:`caption_ids`).
        """
        import torch

        marks = {
            kind: self.tokenizer.token_to_id(f"[{kind.upper()}]")
            for kind in ("generated", "written")
        }
        sources = [source] * len(captions) if source is None or isinstance(source, str) else source
        rows = []
        for text, kind in zip(captions, sources, strict=True):
            mark = [] if kind is None or marks[kind] is None else [marks[kind]]
            words = caption_ids(
                self.tokenizer,
                text,
                room=self.card.max_tokens - len(mark),
                special_tokens=self.card.special_tokens,
                keep_conclusion=self.card.variant != AS_PUBLISHED,
            )
            rows.append([*mark, *words] if words else [])
        length = max(1, *(len(row) for row in rows))
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[index, : len(row)] = True
        return ids, mask


def encode_text(tokenizer: Tokenizer, text: str, *, special_tokens: bool = False) -> Encoding:
    """A text in tokens; ``BundleError`` for a tokenizer that cannot read it."""
    try:
        return tokenizer.encode(text, add_special_tokens=special_tokens)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # panics of the tokenizers library are no Exception
        raise BundleError(
            f"the model's tokenizer cannot read the text {one_line(text)!r}: {one_line(error)}"
        ) from error


def caption_ids(
    tokenizer: Tokenizer,
    text: str,
    *,
    room: int,
    special_tokens: bool = False,
    keep_conclusion: bool = True,
) -> list[int]:
    """Token ids of a caption, ``room`` at most; none for an empty text.

    Parameters
    ----------
    special_tokens : whether the text stands between the tokenizer's marks of begin and end, as an
        encoder such as CLIP's was trained
    keep_conclusion : a text that is too long loses whole words, the ones before its last sentence
        first, since large models end with their conclusion ("Overall, this scene can be classified
        as …"), and then that sentence's first. Without it the text is cut at its end, as the
        published code does; the mark of the end stays
    """
    words = text.split()
    if not words:
        return []

    def encode(chosen: str) -> list[int]:
        ids: list[int] = encode_text(tokenizer, chosen, special_tokens=special_tokens).ids
        return ids

    ids = encode(text)
    if len(ids) > room and keep_conclusion:
        # The fewest words to drop, by bisection: of more there are fewer ids.
        dropped = bisect_left(
            range(len(words) - 1), -room, key=lambda count: -len(encode(_shortened(words, count)))
        )
        ids = encode(_shortened(words, dropped))
    last = ids[-1:] if special_tokens else []
    return ids if len(ids) <= room else ids[: room - len(last)] + last


def _shortened(words: Sequence[str], count: int) -> str:
    """A text without ``count`` of its words.

    Those before its last sentence go first, from their end on, then that sentence's first ones.
    """
    ends = (place + 1 for place, word in enumerate(words[:-1]) if word.endswith(_SENTENCE_ENDS))
    sentence = max(ends, default=0)  # where the last sentence begins
    return " ".join([*words[: max(0, sentence - count)], *words[max(sentence, count) :]])
