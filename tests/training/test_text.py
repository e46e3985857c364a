"""Sentence embeddings, and the word vectors distilled from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from rssc_geo.errors import InputError
from rssc_geo.models import load_text_encoder, make_text_encoder
from rssc_geo.training import (
    SPECIAL_TOKENS,
    caption_embeddings,
    distill_text_encoder,
    embed_sentences,
)


def test_sentences_are_embedded_as_sentence_transformers_does(sentence_encoder: Path) -> None:
    texts = ["a green field", "river", "this is a town a b c d e"]
    found = embed_sentences(texts, sentence_encoder, batch_size=2)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(sentence_encoder),
        AutoModel.from_pretrained(sentence_encoder).eval(),
    )
    for text, vector in zip(texts, found, strict=True):
        with torch.inference_mode():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)


def test_a_whole_sentence_encoder_embeds_as_sentence_transformers_does(
    sentence_encoder: Path,
) -> None:
    pretrained = load_text_encoder(str(sentence_encoder))
    encoder = make_text_encoder(pretrained.configuration).eval()
    encoder.load_state_dict(pretrained.weights)
    texts = ["a green field", "river"]
    rows = [pretrained.tokenizer.encode(text).ids for text in texts]
    ids, mask = torch.zeros(3, 5, dtype=torch.long), torch.zeros(3, 5, dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = True
    with torch.inference_mode():
        found = encoder.embed(ids, mask).numpy()
    np.testing.assert_allclose(found[:2], embed_sentences(texts, sentence_encoder), atol=1e-5)
    assert not found[2].any()


def test_captions_are_embedded_by_image_and_centred(sentence_encoder: Path) -> None:
    captions = [("a field", "green field"), (), ("river",), ("a town",)]
    found = caption_embeddings(captions, sentence_encoder)
    assert found.shape == (4, 24)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0, 1, 1], atol=1e-5)


def test_pieces_keep_what_the_teacher_says_of_them(sentence_encoder: Path) -> None:
    tokenizer, encoder = distill_text_encoder(sentence_encoder, width=16)
    vocabulary = tokenizer.get_vocab()
    assert [tokenizer.id_to_token(k) for k in range(4)] == list(SPECIAL_TOKENS)
    assert "日" not in vocabulary
    assert tokenizer.encode("Green VINEYARD").tokens == ["green", "vine", "##yard"]
    ids = torch.tensor([[vocabulary["field"], vocabulary["river"]], [0, 0]])
    mask = torch.tensor([[True, True], [False, False]])
    embedded = encoder.embed(ids, mask)
    torch.testing.assert_close(embedded.norm(dim=1), torch.tensor([1.0, 0.0]))

    # With as many numbers as there are directions, centered pieces keep their angles to each other
    # (but for rounding).
    words = ["field", "river", "town", "green"]
    every = [piece for piece in vocabulary if piece not in SPECIAL_TOKENS]
    teacher = embed_sentences([piece.removeprefix("##") for piece in every], sentence_encoder)
    teacher -= teacher.mean(0)
    places = [every.index(word) for word in words]
    wanted = _cosines(teacher[places])
    _, wide = distill_text_encoder(sentence_encoder, width=24)
    kept = wide.embed(
        torch.tensor([[vocabulary[word]] for word in words]), torch.ones(4, 1, dtype=torch.bool)
    ).numpy()
    np.testing.assert_allclose(_cosines(kept), wanted, atol=0.03)
    # To attention all words come equally loud.
    loud = wide(
        torch.tensor([[vocabulary[word] for word in words]]), torch.ones(1, 4, dtype=torch.bool)
    )[0]
    torch.testing.assert_close(loud.norm(dim=1), torch.full((4,), 24**0.5), atol=0.01, rtol=0)


def _cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def test_the_encoder_is_rebuilt_from_its_configuration(sentence_encoder: Path) -> None:
    tokenizer, encoder = distill_text_encoder(sentence_encoder, width=8)
    again = make_text_encoder(
        {"model_type": "static", "vocab_size": tokenizer.get_vocab_size(), "hidden_size": 8}
    )
    again.load_state_dict(encoder.state_dict())
    ids, mask = torch.arange(6)[None], torch.ones(1, 6, dtype=torch.bool)
    assert torch.equal(again(ids, mask), encoder(ids, mask))
    assert again.table.dtype == torch.int8


def test_folders_without_a_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no vocab\.txt"):
        distill_text_encoder(tmp_path, width=8)
