"""Captions of training pictures as a captioner writes them that has not seen those pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from rssc_geo.models import CaptionDecoder
from rssc_geo.training import (
    CaptionerRecipe,
    Features,
    SceneImages,
    deal_folds,
    decoder_settings,
    train_captioner,
    write_captions,
)

Reporter = Callable[[str, int], Callable[[int, Mapping[str, float]], None]]
"""Called with the name of a stage and its steps; gives what is called after each step."""


class FoldCaptioners:
    """One captioner a fold, taught on the other folds, and a last one taught on all.

    Each is kept in ``work``.
    """

    def __init__(
        self,
        features: Features,
        data: SceneImages,
        vocabulary: Tokenizer,
        recipe: CaptionerRecipe,
        *,
        folds: int,
        seed: int,
        work: Path,
        device: torch.device,
        reporter: Reporter | None = None,
    ) -> None:
        self._features, self._data, self._vocabulary, self._recipe = (
            features,
            data,
            vocabulary,
            recipe,
        )
        self._folds, self._seed, self._work, self._device, self._reporter = (
            folds,
            seed,
            work,
            device,
            reporter,
        )

    def of_all(self, rows: np.ndarray) -> CaptionDecoder:
        """The captioner that learned from all of ``rows``."""
        return self._captioner(rows, self._folds)

    def captions(self, rows: np.ndarray) -> list[list[str]]:
        """A caption of each view and picture, by the captioner that has not seen it; empty beyond
        ``rows``.

        Kept in ``work`` as well, for the same rows.
        """
        file = self._work / "captions.json"
        if file.is_file():
            kept: list[list[str]] = json.loads(file.read_text(encoding="utf-8"))
            return kept
        texts = [[""] * len(self._data.names) for _ in self._features.tokens]
        for number, held in enumerate(
            deal_folds(self._data, rows, folds=self._folds, seed=self._seed)
        ):
            decoder = self._captioner(np.setdiff1d(rows, held), number)
            for view, column in enumerate(texts):
                written = write_captions(
                    decoder,
                    self._vocabulary,
                    self._features.tokens[view, held],
                    device=self._device,
                )
                for row, text in zip(held.tolist(), written, strict=True):
                    column[row] = text
        part = file.with_suffix(".part")
        part.write_text(json.dumps(texts), encoding="utf-8")
        part.replace(file)
        return texts

    def _captioner(self, rows: np.ndarray, number: int) -> CaptionDecoder:
        file = self._work / f"captioner{number}.pt"
        if file.is_file():
            decoder = CaptionDecoder(
                **decoder_settings(self._recipe, self._features, self._vocabulary)
            )
            decoder.load_state_dict(torch.load(file, weights_only=True))
            return decoder.to(self._device).eval()
        stage = f"captioner {number + 1} of {self._folds + 1}"
        decoder = train_captioner(
            self._features,
            self._data.captions,
            self._vocabulary,
            rows,
            self._recipe,
            seed=self._seed + number,
            device=self._device,
            report=(
                self._reporter(stage, self._recipe.epochs) if self._reporter is not None else None
            ),
        )
        part = file.with_suffix(".part")
        torch.save(decoder.state_dict(), part)
        part.replace(file)
        return decoder
