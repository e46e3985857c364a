"""The network: properties that the authors' code violates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rssc_geo.models import DualAttentionLevel, Model

CAPTIONS = [
    "A green field.",
    "Many houses, roads and trees near a river.",
    "",
    "A river.",
    "Trees.",
]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def _run(model: Model, images: torch.Tensor, captions: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        return model.network(images, *model.tokenize(captions))


def test_a_sample_does_not_see_its_batch(small_model: Model, images: torch.Tensor) -> None:
    together = _run(small_model, images, CAPTIONS)
    alone = torch.cat([_run(small_model, images[i : i + 1], CAPTIONS[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-5)
    backwards = _run(small_model, images.flip(0), CAPTIONS[::-1]).flip(0)
    assert torch.allclose(together, backwards, atol=1e-5)


def test_padding_changes_nothing_even_with_words_under_the_mask(
    small_model: Model, images: torch.Tensor
) -> None:
    ids, mask = small_model.tokenize(CAPTIONS[:1])
    padded = torch.cat([ids, torch.full((1, 6), 5)], 1)
    padded_mask = torch.cat([mask, torch.zeros(1, 6, dtype=torch.bool)], 1)
    with torch.inference_mode():
        plain = small_model.network(images[:1], ids, mask)
        assert torch.allclose(
            plain, small_model.network(images[:1], padded, padded_mask), atol=1e-5
        )
        assert not torch.allclose(plain, small_model.network(images[:1], padded), atol=1e-4)


def test_words_and_picture_both_count(small_model: Model, images: torch.Tensor) -> None:
    one = _run(small_model, images[:1], ["A green field."])
    assert not torch.allclose(one, _run(small_model, images[:1], ["Many houses."]), atol=1e-4)
    assert not torch.allclose(one, _run(small_model, images[1:2], ["A green field."]), atol=1e-4)


def test_an_empty_caption_equals_no_caption(small_model: Model, images: torch.Tensor) -> None:
    with torch.inference_mode():
        none = small_model.network(images)
    assert torch.isfinite(none).all()
    assert torch.allclose(none, _run(small_model, images, [""] * 5), atol=1e-5)


def test_each_level_projects_the_image_it_was_given() -> None:
    """Defect 5 of the published code: the projection was taken once, before the loop."""
    torch.manual_seed(0)
    level = DualAttentionLevel(image_width=12, width=8, heads=2, dropout=0.0).eval()
    calls: list[torch.Tensor] = []
    level.image_proj.register_forward_hook(
        lambda _m, inputs, _o: calls.append(inputs[0].detach().clone())
    )
    image, text = torch.randn(2, 5, 12), torch.randn(2, 3, 8)
    padding = torch.zeros(2, 3, dtype=torch.bool)
    for _ in range(2):
        image, text = level(image, text, padding)
    assert len(calls) == 2
    assert not torch.allclose(calls[0], calls[1])


def test_level_agrees_with_the_formula() -> None:
    """One level against a plain restatement with single-head attention written out."""
    torch.manual_seed(0)
    level = DualAttentionLevel(image_width=6, width=4, heads=1, dropout=0.0).eval()
    image, text = torch.randn(1, 3, 6), torch.randn(1, 2, 4)

    def attend(
        block: torch.nn.MultiheadAttention, q: torch.Tensor, k: torch.Tensor
    ) -> torch.Tensor:
        wq, wk, wv = block.in_proj_weight.chunk(3)
        bq, bk, bv = block.in_proj_bias.chunk(3)
        q, key, value = q @ wq.T + bq, k @ wk.T + bk, k @ wv.T + bv
        return block.out_proj((q @ key.transpose(1, 2) / np.sqrt(4)).softmax(-1) @ value)

    seen = level.image_proj(image)
    own = attend(level.text_self_attention, text, text)
    new_text = level.text_norm(own + attend(level.text_cross_attention, own, seen))
    words = level.mlp(new_text)
    new_image = level.image_norm(
        image + level.back_proj(attend(level.image_cross_attention, seen, words))
    )
    got_image, got_text = level(image, text, torch.zeros(1, 2, dtype=torch.bool))
    assert torch.allclose(got_text, new_text, atol=1e-5)
    assert torch.allclose(got_image, new_image, atol=1e-5)


def test_every_trained_part_gets_a_gradient(small_model: Model, images: torch.Tensor) -> None:
    small_model.network.zero_grad()
    small_model.network(images, *small_model.tokenize(CAPTIONS)).sum().backward()
    idle = [
        name
        for name, p in small_model.network.named_parameters()
        if p.grad is None and "pooler" not in name
    ]
    small_model.network.zero_grad()
    assert idle == []
