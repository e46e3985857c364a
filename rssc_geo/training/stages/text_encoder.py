"""The text encoder: that of the start bundle, a whole sentence encoder, or a distilled one.

The distilled one holds the word pieces of a sentence encoder as fixed vectors, after model2vec
(Tulkens and van Dongen, 2024, "Model2Vec: Fast State-of-the-Art Static Embeddings"): each piece of
the teacher's vocabulary is encoded alone, the vectors are reduced by principal components and
weighted by the rarity of the piece, here by the smooth inverse frequency of Arora et al. (2017)
with Zipf's law over the vocabulary's order. The sentence encoder's embeddings of the captions are
cached too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from rssc_geo.errors import InputError
from rssc_geo.fingerprints import content_hash
from rssc_geo.models import (
    PretrainedTextEncoder,
    StaticTextEncoder,
    load_bundle,
    load_sentence_encoder,
    load_text_encoder,
)
from rssc_geo.training.data import SceneImages
from rssc_geo.training.kept import identity, is_kept, keeping
from rssc_geo.training.options import TrainingRecipe

_MAX_TOKENS = 128
"""Word pieces of a text, as sentence encoders read it."""
_MAX_TOKENS_STATIC = 48
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[GENERATED]", "[WRITTEN]")
_PIECE = re.compile(r"(##)?[a-z0-9]+|[-',.&/]")
_RARE = 1e-3
_READ = (".safetensors", ".json", ".txt", ".model")
"""Suffixes of the files of a sentence encoder: its weights, configuration and tokenizer."""


def embed_sentences(
    texts: Sequence[str], folder: str | Path, *, batch_size: int = 256
) -> NDArray[np.float32]:
    """Unit-length embeddings float32 ``(len(texts), D)``.

    The mean of the last hidden states, as sentence-transformers does. ``folder``: of the encoder.
    """
    tokenizer, model = load_sentence_encoder(str(folder))
    # Texts of similar length need little padding.
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    result = np.zeros((len(texts), model.config.hidden_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            words = tokenizer(
                [texts[p] for p in places],
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            )
            states = model(**words).last_hidden_state  # (B, T, D)
            mask = words["attention_mask"].unsqueeze(2).to(states.dtype)  # (B, T, 1)
            result[places] = F.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()
    return result


def caption_embeddings(
    captions: Sequence[Sequence[str]], folder: str | Path
) -> NDArray[np.float32]:
    """The mean embedding of each image's captions, minus the mean of all images.

    Float32 ``(N, D)`` of unit length, zeros for no captions; ``captions``: the sentences of each
    image; ``folder``: of the sentence encoder.
    """
    flat = [text for texts in captions for text in texts]
    counts = [len(texts) for texts in captions]
    distinct = {text: place for place, text in enumerate(dict.fromkeys(flat))}
    embedded = embed_sentences(list(distinct), folder)
    result = np.zeros((len(captions), embedded.shape[1]), np.float32)
    owner = np.repeat(np.arange(len(captions)), counts)
    np.add.at(result, owner, embedded[[distinct[text] for text in flat]])
    some = np.array(counts) > 0
    result[some] /= np.array(counts)[some, None]
    result[some] -= result[some].mean(0)
    result[some] /= np.linalg.norm(result[some], axis=1, keepdims=True)
    return result


def cache_caption_embeddings(
    data: SceneImages, rows: NDArray[np.int64], folder: str | Path, *, work: Path
) -> NDArray[np.float32]:
    """``caption_embeddings`` of the pictures ``rows``, zeros elsewhere; kept in ``work``.

    The center does not depend on the words of other pictures.
    """
    file = work / "embeddings.npy"
    files = sorted(path for path in Path(folder).glob("*") if path.suffix in _READ)
    made_of = identity(
        captions=data.captions,
        rows=rows,
        encoder=[(path.name, content_hash(path)) for path in files] or str(folder),
    )
    if not is_kept(file, made_of):
        learned = set(rows.tolist())
        captions = [texts if row in learned else () for row, texts in enumerate(data.captions)]
        with keeping(file, made_of) as made, made.open("wb") as stream:
            np.save(stream, caption_embeddings(captions, folder))
    return np.asarray(np.load(file))


@dataclass(frozen=True, slots=True)
class TextEncoderStart:
    """The text encoder that a training starts with.

    ``special_tokens``: whether texts stand between the tokenizer's marks of begin and end.
    """

    encoder: PretrainedTextEncoder
    special_tokens: bool


def make_text_encoder_start(recipe: TrainingRecipe) -> TextEncoderStart:
    """The text encoder of a recipe, with its weights and tokenizer.

    Raises ``InputError`` and ``BundleError`` for a sentence encoder that cannot be read.
    """
    if recipe.sentence_encoder is None:
        start = load_bundle(recipe.model)
        encoder = PretrainedTextEncoder(
            start.card.network["text_encoder"],
            start.network.text_encoder.state_dict(),
            start.tokenizer,
            start.card.max_tokens,
        )
        return TextEncoderStart(encoder, start.card.special_tokens)
    if recipe.whole_sentence_encoder:
        encoder = load_text_encoder(str(recipe.sentence_encoder))
        shorter = dataclasses.replace(encoder, max_tokens=min(encoder.max_tokens, _MAX_TOKENS))
        return TextEncoderStart(shorter, special_tokens=True)
    tokenizer, distilled = distill_text_encoder(
        recipe.sentence_encoder, width=recipe.text_width, seed=recipe.seed
    )
    configuration = {
        "model_type": "static",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": recipe.text_width,
    }
    encoder = PretrainedTextEncoder(
        configuration, distilled.state_dict(), tokenizer, _MAX_TOKENS_STATIC
    )
    return TextEncoderStart(encoder, special_tokens=False)


def distill_text_encoder(
    folder: str | Path, *, width: int, seed: int = 0
) -> tuple[Tokenizer, StaticTextEncoder]:
    """A tokenizer and static word vectors of ``width`` numbers from a sentence encoder.

    Pieces of Latin letters, digits and a few signs are kept, in the teacher's order. ``folder``: a
    transformers sentence encoder with a WordPiece ``vocab.txt``; ``seed``: of the special tokens'
    vectors. Raises ``InputError`` when ``folder`` holds no such vocabulary.
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
    # (P, teacher's width)
    vectors = embed_sentences([piece.removeprefix("##") for piece in pieces], folder)
    vectors -= vectors.mean(0)
    _, _, axes = np.linalg.svd(vectors.T @ vectors)
    reduced = vectors @ axes[:width].T  # (P, width)
    chance = 1 / (np.arange(len(pieces)) + 2)
    chance /= chance.sum()
    reduced *= (_RARE / (_RARE + chance))[:, None]
    marks = np.random.default_rng(seed).normal(size=(len(SPECIAL_TOKENS), width))
    marks *= np.linalg.norm(reduced, axis=1).mean() / np.linalg.norm(marks, axis=1, keepdims=True)
    marks[:2] = 0  # padding and unknown pieces have no meaning
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
