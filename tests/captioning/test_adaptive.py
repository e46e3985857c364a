"""A large captioner for uncertain tiles only."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from rssc_geo.captioning import AdaptiveCaptioner, CaptionBatch, make_captioner, perceptual_hash
from rssc_geo.inference import Compute, Predictor
from rssc_geo.models import CaptionSource, Model


@dataclass
class Large:
    name: str = "large"
    source: CaptionSource = "written"
    asked: list[bytes] = field(default_factory=list)

    def caption(self, batch: CaptionBatch) -> list[str]:
        self.asked += [pixels.tobytes() for pixels in batch.pixels]
        assert len(batch.image_tokens) == len(batch.pixels)
        return [f"Many houses near a river, {pixels[0, 0, 0]}." for pixels in batch.pixels]


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return (
        np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)
        // np.arange(1, 13, dtype=np.uint8)[:, None, None, None]
    )


def run(
    model: Model, captioner: object, pixels: np.ndarray, batch_size: int = 16
) -> tuple[np.ndarray, list[str]]:
    classifier = Predictor(
        model, captioner, Compute(torch.device("cpu"), torch.float32, batch_size)
    )  # type: ignore[arg-type]
    found = classifier(pixels, np.ones(pixels.shape[:3], bool))
    return found.probabilities, found.captions


def test_uncertain_tiles_are_those_of_always_and_the_others_those_of_never(
    small_model: Model, pixels: np.ndarray
) -> None:
    own = make_captioner(small_model)
    alone, own_captions = run(small_model, own, pixels)
    always, large_captions = run(small_model, Large(), pixels)
    confidence = np.sort(alone.max(1))
    threshold = float(confidence[5] + confidence[6]) / 2
    unsure = alone.max(1) < threshold
    assert unsure.sum() == 6
    large = Large()
    mixed, captions = run(small_model, AdaptiveCaptioner(own, large, threshold), pixels)
    np.testing.assert_allclose(mixed[unsure], always[unsure], atol=1e-5)
    np.testing.assert_allclose(mixed[~unsure], alone[~unsure], atol=1e-5)
    assert not np.allclose(mixed[unsure], alone[unsure], atol=1e-4)
    assert captions == [
        b if u else a for u, a, b in zip(unsure, own_captions, large_captions, strict=True)
    ]
    assert large.asked == [tile.tobytes() for tile in pixels[unsure]]

    single = Large()
    apart, said = run(
        small_model, AdaptiveCaptioner(own, single, threshold), pixels[::-1].copy(), batch_size=1
    )
    np.testing.assert_allclose(apart[::-1], mixed, atol=1e-5)
    assert said[::-1] == captions


def test_nobody_is_asked_where_all_are_certain(small_model: Model, pixels: np.ndarray) -> None:
    large = Large()
    run(small_model, AdaptiveCaptioner(make_captioner(small_model), large, 1e-6), pixels)
    assert large.asked == []
    with pytest.raises(ValueError, match="threshold"):
        AdaptiveCaptioner(large, large, 0.0)


def test_the_perceptual_hash_of_water_and_of_houses() -> None:
    random = np.random.default_rng(1)
    water = [random.normal(104, 5, (50, 50, 3)).astype(np.uint8) for _ in range(3)]
    assert len({perceptual_hash(tile) for tile in water}) == 1
    house = water[0].copy()
    house[20:30, 20:30] = 230
    others = [
        house,
        np.roll(house, 15, 0),
        water[0] // 2,
        random.normal(104, 25, (50, 50, 3)).clip(0, 255).astype(np.uint8),
    ]
    assert len({perceptual_hash(tile) for tile in [water[0], *others]}) == 5
    assert perceptual_hash(np.zeros((3, 3, 3), np.uint8)) != perceptual_hash(
        np.ones((3, 3, 3), np.uint8)
    )
