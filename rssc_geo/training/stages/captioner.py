"""Stage 3: the vocabulary and the embedded captioner, trained on human sentences.

Training pictures get out-of-fold captions: each by a captioner that has not seen that picture.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from rssc_geo.captioning import CaptionBatch, CompactCaptioner
from rssc_geo.models import BEGIN, END, PAD, SPECIAL_TOKENS, CaptionDecoder, Model
from rssc_geo.training.data import SceneImages, deal_folds
from rssc_geo.training.kept import identity, is_kept, keeping
from rssc_geo.training.loop import (
    LoopOptions,
    Report,
    StageRun,
    Task,
    fit,
    mixed_precision,
    one_cycle,
    plain,
)
from rssc_geo.training.options import CaptionerRecipe
from rssc_geo.training.stages.features import Features

_BATCH = 256


def build_vocabulary(sentences: Iterable[str], *, minimum_count: int = 2) -> Tokenizer:
    """A vocabulary of all lower-case words that occur ``minimum_count`` times.

    The most frequent come first, words of equal count in the order of the alphabet.
    """
    splitter = Whitespace()
    counts = Counter(
        word for text in sentences for word, _ in splitter.pre_tokenize_str(text.lower())
    )
    ranked = sorted(
        (word for word, count in counts.items() if count >= minimum_count),
        key=lambda w: (-counts[w], w),
    )
    vocabulary = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *ranked))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = splitter
    return tokenizer


def train_captioner(
    features: Features,
    captions: Sequence[Sequence[str]],
    vocabulary: Tokenizer,
    rows: NDArray[np.int64],
    recipe: CaptionerRecipe,
    *,
    run: StageRun,
) -> CaptionDecoder:
    """Train a decoder to write the captions of the pictures ``rows``, where they have any.

    A view and a sentence are drawn at random each time. AdamW with cosine decay, label smoothing
    0.1; an epoch sees every picture once.

    Parameters
    ----------
    features : image tokens of the pictures
    captions : the sentences of each picture
    vocabulary : of the decoder
    rows : int64, pictures to learn from
    recipe : how
    run : folder, device, seed, and a function that is called after each epoch

    Raises ``InputError`` when the loss is not finite.
    """
    torch.manual_seed(run.seed)
    task = _CaptionerTask(features, captions, vocabulary, rows, recipe, run=run)
    optimizer = torch.optim.AdamW(
        task.network.parameters(), lr=recipe.learning_rate, weight_decay=0.02
    )
    schedule = one_cycle(optimizer, recipe.learning_rate, steps=recipe.epochs * task.steps)
    fit(task, optimizer, schedule, LoopOptions(recipe.epochs), report=run.report)
    return task.network.eval()


class _CaptionerTask(Task[tuple[torch.Tensor, torch.Tensor]]):
    """A batch is image tokens ``(B, T, I)`` and the words of a sentence each, ``(B, L)``."""

    name = "captioner"
    network: CaptionDecoder

    def __init__(
        self,
        features: Features,
        captions: Sequence[Sequence[str]],
        vocabulary: Tokenizer,
        rows: NDArray[np.int64],
        recipe: CaptionerRecipe,
        *,
        run: StageRun,
    ) -> None:
        self._features, self._captions, self._vocabulary = features, captions, vocabulary
        self._device, self._random = run.device, np.random.default_rng(run.seed)
        self._rows = np.array([row for row in rows.tolist() if captions[row]])
        self.steps = math.ceil(len(self._rows) / recipe.batch_size)
        decoder = CaptionDecoder(**decoder_settings(recipe, features, vocabulary))
        self.network = decoder.to(run.device)

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:  # noqa: ARG002 -- all epochs alike
        """Every picture once, each with one of its sentences in one of its views."""
        features, captions, random = self._features, self._captions, self._random
        for part in np.array_split(random.permutation(self._rows), self.steps):
            chosen = [
                captions[row][int(random.integers(len(captions[row])))] for row in part.tolist()
            ]
            words = _padded(chosen, self._vocabulary, self.network.length).to(self._device)
            view = random.integers(len(features.tokens), size=len(part))
            yield torch.from_numpy(features.tokens[view, part]).float().to(self._device), words

    def loss(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Cross entropy of each next word."""
        image, words = batch
        with mixed_precision(self._device):
            logits = self.network(image, words[:, :-1])
        return F.cross_entropy(
            logits.float().flatten(0, 1),
            words[:, 1:].flatten(),
            ignore_index=PAD,
            label_smoothing=0.1,
        )


def decoder_settings(
    recipe: CaptionerRecipe, features: Features, vocabulary: Tokenizer
) -> dict[str, int]:
    """The arguments of ``CaptionDecoder``."""
    return {
        "image_width": features.tokens.shape[-1],
        "vocabulary": vocabulary.get_vocab_size(),
        "width": recipe.width,
        "heads": recipe.heads,
        "layers": recipe.layers,
        "length": recipe.length,
    }


def write_captions(
    decoder: CaptionDecoder,
    vocabulary: Tokenizer,
    tokens: NDArray[np.float16],
    *,
    device: torch.device,
) -> list[str]:
    """Captions of image tokens ``(B, T, I)`` by a decoder on ``device``."""
    captioner = CompactCaptioner(decoder, vocabulary)
    pixels, mask = np.empty((0,), np.uint8), np.empty((0,), np.bool_)  # the decoder reads tokens
    written: list[str] = []
    for start in range(0, len(tokens), _BATCH):
        image = torch.from_numpy(np.asarray(tokens[start : start + _BATCH])).float().to(device)
        written += captioner.caption(CaptionBatch(pixels, mask, image))
    return written


def _padded(sentences: Sequence[str], tokenizer: Tokenizer, length: int) -> torch.Tensor:
    """``[BEGIN, words…, END, PAD…]`` as int64 ``(B, L)``, at most ``length`` before the end."""
    rows = [[BEGIN, *tokenizer.encode(text).ids[: length - 1], END] for text in sentences]
    width = max(len(row) for row in rows)
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


@dataclass(frozen=True, slots=True)
class OutOfFoldCaptioners:
    """One captioner a fold, trained on the other folds, and a last one trained on all.

    Attributes
    ----------
    features : image tokens of the pictures
    data : the pictures, with captions
    vocabulary : of the captioners
    recipe : of each
    folds : how many
    seed : of the folds and of the training
    work : folder where each captioner and the captions are kept, and read from if they are there
    device : where they are trained
    reporter : called with a stage's name and number of epochs, gives what is called after each
    """

    features: Features
    data: SceneImages
    vocabulary: Tokenizer
    recipe: CaptionerRecipe
    folds: int
    seed: int
    work: Path
    device: torch.device
    reporter: Callable[[str, int], Report] | None = None

    def of_all(self, rows: NDArray[np.int64]) -> CaptionDecoder:
        """The captioner that learned from all pictures ``rows``, int64 (n,)."""
        return self._captioner(rows, self.folds)

    def captions(self, rows: NDArray[np.int64]) -> list[list[str]]:
        """A caption of each view and picture, by the captioner that has not seen it.

        Empty for pictures that are not in ``rows``, int64 (n,). Kept in ``work`` as well, for the
        same rows.
        """
        file, made_of = self.work / "captions.json", self._made_of(rows, self.folds)
        if is_kept(file, made_of):
            kept: list[list[str]] = json.loads(file.read_text(encoding="utf-8"))
            return kept
        texts = [[""] * len(self.data.names) for _ in self.features.tokens]
        for number, held in enumerate(
            deal_folds(self.data, rows, folds=self.folds, seed=self.seed)
        ):
            decoder = self._captioner(np.setdiff1d(rows, held), number)
            for view, column in enumerate(texts):
                tokens = self.features.tokens[view, held]
                written = write_captions(decoder, self.vocabulary, tokens, device=self.device)
                for row, text in zip(held.tolist(), written, strict=True):
                    column[row] = text
        with keeping(file, made_of) as made:
            made.write_text(json.dumps(texts), encoding="utf-8")
        return texts

    def _made_of(self, rows: NDArray[np.int64], number: int) -> str:
        """The identity of the inputs of a captioner, or of the captions of all."""
        return identity(
            features=self.features.made_of,
            captions=self.data.captions,
            vocabulary=self.vocabulary.to_str(),
            recipe=self.recipe,
            rows=rows,
            labels=self.data.labels,
            folds=(self.folds, self.seed, number),
        )

    def _captioner(self, rows: NDArray[np.int64], number: int) -> CaptionDecoder:
        file = self.work / f"captioner{number}.safetensors"
        made_of = self._made_of(rows, number)
        if is_kept(file, made_of):
            settings = decoder_settings(self.recipe, self.features, self.vocabulary)
            decoder = CaptionDecoder(**settings)
            decoder.load_state_dict(load_file(file))
            return decoder.to(self.device).eval()
        report = None
        if self.reporter is not None:
            stage = f"captioner {number + 1} of {self.folds + 1}"
            report = self.reporter(stage, self.recipe.epochs)
        decoder = train_captioner(
            self.features,
            self.data.captions,
            self.vocabulary,
            rows,
            self.recipe,
            run=StageRun(self.work, self.device, seed=self.seed + number, report=report),
        )
        with keeping(file, made_of) as made:
            save_file(plain(decoder.state_dict()), made)
        return decoder


def add_captioner(
    model: Model, captioners: OutOfFoldCaptioners, rows: NDArray[np.int64]
) -> tuple[Model, list[list[str]]]:
    """The model with the captioner of all pictures ``rows``, and their out-of-fold captions."""
    generated = captioners.captions(rows)
    settings = decoder_settings(captioners.recipe, captioners.features, captioners.vocabulary)
    card = dataclasses.replace(model.card, captioner=settings)
    decoder = captioners.of_all(rows)
    model = dataclasses.replace(model, card=card, decoder=decoder, vocabulary=captioners.vocabulary)
    return model, generated
