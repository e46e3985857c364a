"""Sentence embeddings by a transformers encoder on disk.

All-MiniLM-L6-v2 for the embedded model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from rssc_geo.files import atomic_write
from rssc_geo.training.data import SceneImages


def embed_sentences(
    texts: Sequence[str], folder: str | Path, *, batch_size: int = 256
) -> NDArray[np.float32]:
    """Unit-length embeddings float32 ``(len(texts), D)``.

    The mean of the last hidden states, as sentence-transformers does. ``folder``: of the encoder.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False).eval()
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
                max_length=128,
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

    The words of other pictures must not even shift the center.
    """
    file = work / "embeddings.npy"
    if not file.is_file():
        learned = set(rows.tolist())
        captions = [texts if row in learned else () for row, texts in enumerate(data.captions)]
        with atomic_write(file) as made, made.open("wb") as stream:
            np.save(stream, caption_embeddings(captions, folder))
    return np.asarray(np.load(file))
