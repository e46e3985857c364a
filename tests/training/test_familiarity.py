"""Pictures that are no photographs, and a model that separates them from its training data."""

import numpy as np
import pytest
import torch

from rssc_geo.models import Familiarity, Model
from rssc_geo.training import EncoderRecipe, Legend, SceneImages, cache_features
from rssc_geo.training.outliers import make_outliers
from rssc_geo.training.stages.familiarity import add_familiarity


def _pictures(count: int, size: int = 64) -> np.ndarray:
    """Brown and green blocks with soft light."""
    random = np.random.default_rng(0)
    colors = np.array([(120, 100, 70), (60, 90, 50), (90, 120, 60)], float)
    blocks = colors[random.integers(3, size=(count, 4, 4))].repeat(size // 4, 1)
    pixels = blocks.repeat(size // 4, 2) + random.normal(0, 4, (count, size, size, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def test_outliers_are_pictures_of_all_kinds() -> None:
    pixels = _pictures(12)
    made = make_outliers(pixels, 40, np.random.default_rng(1))
    assert made.shape == (40, 64, 64, 3)
    assert made.dtype == np.uint8
    assert len(np.unique(made.reshape(40, -1), axis=0)) == 40
    again = make_outliers(pixels, 40, np.random.default_rng(1))
    assert (made == again).all()
    gray = (made == made[..., :1]).all((1, 2, 3))
    assert 4 <= gray.sum() <= 25  # noise, elevation and radar, not the others


def test_familiarity_is_the_share_that_scores_less() -> None:
    part = Familiarity(image_width=2, hidden=2, levels=5)
    with torch.no_grad():
        part.hidden.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        part.hidden.bias.zero_()
        part.weigh.weight.copy_(torch.tensor([[1.0, -1.0]]))
        part.weigh.bias.zero_()
        part.scores.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0, 7.0]))
    pooled = torch.tensor([[-4.0, 9], [0, 9], [1, 9], [2.25, 9], [25, 9], [100, 9]])
    expected = [0, 0, 0.25, 0.375, 0.875, 1]
    assert part(pooled).tolist() == pytest.approx(expected)


@pytest.mark.slow
def test_what_is_no_photograph_is_less_familiar(fine_model: Model, tmp_path) -> None:
    pixels = _pictures(60, size=192)
    allowed, weights = np.ones((1, 1), bool), np.ones((1, 1), np.float32)
    legend = Legend(("Farmland",), ("one/Farmland",), allowed, weights, np.array([True]))
    names = tuple(str(place) for place in range(60))
    data = SceneImages(pixels, np.zeros(60, np.int64), names, legend, ((),) * 60)
    split = {"train": np.arange(40), "val": np.arange(40, 50), "test": np.arange(50, 60)}
    features = cache_features(fine_model, data, split["train"], views=1, seed=0, work=tmp_path)
    model = add_familiarity(fine_model, features, data, split, EncoderRecipe(), seed=0)
    assert model.familiarity is not None
    shares = model.card.accuracy["unknown"]
    assert shares["made_up"] > 0.5
    assert shares["test"] <= 0.2
    assert model.card.familiarity == {"image_width": 1024 + 8, "hidden": 32, "levels": 1001}
