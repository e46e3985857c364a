"""The small text encoder: word pieces of a sentence encoder as fixed vectors.

After model2vec (Tulkens and van Dongen, 2024, "Model2Vec: Fast State-of-the-Art Static
Embeddings"): each piece of the teacher's vocabulary is read alone, the vectors are reduced by
principal components and weighted by how rare the piece is, here by the smooth inverse frequency of
Arora et al. (2017) with Zipf's law over the vocabulary's order.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from rssc_geo.errors import InputError
from rssc_geo.models import StaticTextEncoder
from rssc_geo.training.stages.sentences import embed_sentences

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[GENERATED]", "[WRITTEN]")
_PIECE = re.compile(r"(##)?[a-z0-9]+|[-',.&/]")
_RARE = 1e-3


def distill_text_encoder(
    folder: str | Path, *, width: int, seed: int = 0
) -> tuple[Tokenizer, StaticTextEncoder]:
    """A tokenizer and ``width`` numbers a piece from a transformers sentence encoder with a
    WordPiece ``vocab.txt``.

    Pieces of Latin letters, digits and a few signs are kept, in the teacher's order. ``InputError``
    when ``folder`` holds no such vocabulary.
    """
    path = Path(folder) / "vocab.txt"
    if not path.is_file():
        raise InputError(
            f"{folder}: no vocab.txt; give the folder of a BERT-like sentence encoder such as"
            " all-MiniLM-L6-v2"
        )
    pieces = [
        line for line in path.read_text(encoding="utf-8").splitlines() if _PIECE.fullmatch(line)
    ]
    vectors = embed_sentences(
        [piece.removeprefix("##") for piece in pieces], folder
    )  # (P, teacher's width)
    vectors -= vectors.mean(0)
    _, _, axes = np.linalg.svd(vectors.T @ vectors)
    reduced = vectors @ axes[:width].T  # (P, width)
    chance = 1 / (np.arange(len(pieces)) + 2)
    chance /= chance.sum()
    reduced *= (_RARE / (_RARE + chance))[:, None]
    marks = np.random.default_rng(seed).normal(size=(len(SPECIAL_TOKENS), width))
    marks *= np.linalg.norm(reduced, axis=1).mean() / np.linalg.norm(marks, axis=1, keepdims=True)
    marks[:2] = 0  # padding and unknown pieces say nothing
    table = np.concatenate([marks, reduced]).astype(np.float32)

    encoder = StaticTextEncoder(vocab_size=len(table), hidden_size=width)
    scale = np.maximum(np.abs(table).max(1, keepdims=True), 1e-8) / 127
    values = {
        "table": torch.from_numpy(np.rint(table / scale).astype(np.int8)),
        "scale": torch.from_numpy(scale),
    }
    encoder.load_state_dict(values)
    vocabulary = {piece: place for place, piece in enumerate((*SPECIAL_TOKENS, *pieces))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=SPECIAL_TOKENS[1]))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer, encoder
