"""Windows full of one texture, and the batches of crops that the image encoder learns from."""

import numpy as np
import pytest
import torch

from rssc_geo.training import CropRecipe, Legend, SceneImages
from rssc_geo.training.augment import stretched
from rssc_geo.training.crops import CropSampler
from rssc_geo.training.stages.encoder import LookClassifier, laid_out, taken_apart
from rssc_geo.training.windows import find_windows, without_windows

CLASSES = ("River", "Lake", "OpenWater", "Meadow", "Park", "Farmland")
SIZE = 96
WATER, GRASS, ROOFS = (40, 70, 95), (70, 120, 50), (150, 140, 130)


def _scene(random: np.random.Generator) -> np.ndarray:
    """The upper half is water, the lower one built, with sharp edges."""
    picture = np.empty((SIZE, SIZE, 3))
    picture[: SIZE // 2] = np.array(WATER) + random.normal(0, 2, (SIZE // 2, SIZE, 3))
    blocks = random.uniform(-60, 60, (SIZE // 8, SIZE // 4, 1)).repeat(4, 0).repeat(4, 1)
    picture[SIZE // 2 :] = np.array(ROOFS) + blocks
    return picture.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def data() -> SceneImages:
    random = np.random.default_rng(0)
    rivers = [_scene(random) for _ in range(6)]
    grass = (np.array(GRASS) + random.normal(0, 3, (6, SIZE, SIZE, 3))).clip(0, 255)
    fields = [_scene(random) for _ in range(6)]
    legend = Legend.joined(
        [
            Legend(CLASSES, ("one/River",), np.eye(6, dtype=bool)[:1], np.eye(6, dtype="f4")[:1],
                   np.array([False])),
            Legend(CLASSES, ("one/Meadow",), np.eye(6, dtype=bool)[3:4],
                   np.eye(6, dtype="f4")[3:4], np.array([True])),
            Legend(CLASSES, ("two/Farmland",), np.eye(6, dtype=bool)[5:],
                   np.eye(6, dtype="f4")[5:], np.array([True])),
        ]
    )  # fmt: skip
    pixels = np.stack([*rivers, *grass.astype(np.uint8), *fields])
    names = tuple(f"{k}" for k in range(18))
    return SceneImages(pixels, np.repeat([0, 1, 2], 6), names, legend, ((),) * 18)


def test_windows_lie_where_the_texture_is_and_the_label_allows_it(data: SceneImages) -> None:
    found = find_windows(data, np.arange(1, 18))
    assert [texture.name for texture in found.textures] == ["water", "lawn", "plants"]
    assert found.legend.labels[3:] == ("water", "lawn", "plants")
    water, lawn, plants = (found.kinds == kind for kind in range(3))
    assert (found.labels[water] == 3).all()
    assert (found.labels[lawn] == 4).all()
    assert set(found.rows[water].tolist()) == {1, 2, 3, 4, 5}  # not 0, not the fields' water
    top, side = found.boxes[water][:, 0], found.boxes[water][:, 2]
    assert (top + side <= SIZE // 2).all()
    assert np.bincount(found.rows[water]).max() <= 3
    np.testing.assert_allclose(found.legend.weights[3], [0, 0.1, 0.9, 0, 0, 0], atol=1e-6)
    # Blurred throughout, but by its label nothing but grass.
    assert set(found.rows[lawn].tolist()) == set(range(6, 12))
    # What is smooth in pictures of plants keeps the name of its picture.
    assert set(found.rows[plants].tolist()) == set(range(6, 18))
    assert found.labels[plants].tolist() == data.labels[found.rows[plants]].tolist()
    nothing = find_windows(data, np.empty(0, np.int64))
    assert len(nothing) == 0
    assert nothing.legend.labels == data.legend.labels


def _sampler(data: SceneImages, recipe: CropRecipe, seed: int = 0) -> CropSampler:
    windows = find_windows(data, np.arange(18)) if recipe.windows else without_windows(data.legend)
    generator = torch.Generator().manual_seed(seed)
    return CropSampler(data, np.arange(18), windows, recipe, batch_size=8, generator=generator)


def test_batches_mix_pictures_and_windows(data: SceneImages) -> None:
    recipe = CropRecipe(windows=0.25, light=0.0, stretched=0.0)
    sampler = _sampler(data, recipe)
    assert sampler.legend.labels[3:] == ("water", "lawn", "plants")
    assert sampler.steps == 2
    batches = list(sampler.batches(64))
    assert len(batches) == 2
    for crops in batches:
        assert crops.images.shape == (8, 3, 64, 64)
        assert 0 <= float(crops.images.min()) <= float(crops.images.max()) <= 1
        assert crops.rows.shape == (6,)
        assert crops.labels[:6].tolist() == data.labels[crops.rows].tolist()
        assert set(crops.labels[6:].tolist()) <= {1, 2, 3, 4}
        assert (crops.visible[6:] == 1).all()
        for image, label in zip(crops.images[6:], crops.labels[6:], strict=True):
            red, green, blue = image.mean((1, 2))
            assert blue > red if label in (2, 3) else green > blue  # the fields' smooth half
    again = list(_sampler(data, recipe).batches(64))
    assert all(torch.equal(a.images, b.images) for a, b in zip(batches, again, strict=True))


def test_labels_of_several_sets_come_alike_and_textures_closer(data: SceneImages) -> None:
    few = np.array([0, 6, 12, 13, 14, 15, 16, 17])  # one River, one Meadow, six Farmland
    generator = torch.Generator().manual_seed(0)
    sampler = CropSampler(
        data, few, without_windows(data.legend), CropRecipe(), batch_size=8, generator=generator
    )
    crops = [batch for _ in range(60) for batch in sampler.batches(32)]
    labels = torch.cat([batch.labels for batch in crops])
    counts = torch.bincount(labels, minlength=3) / len(labels)
    assert counts.tolist() == pytest.approx([1 / 3] * 3, abs=0.1)
    visible = torch.cat([batch.visible for batch in crops])
    assert visible[labels == 0].min() >= 0.6**2 - 1e-6
    assert visible[labels == 2].min() < 0.3**2


def test_stretching_spreads_values_of_a_kind_of_scene() -> None:
    generator = torch.Generator().manual_seed(0)
    dull = 0.4 + 0.1 * torch.rand((6, 3, 32, 32), generator=generator)
    images = torch.cat([dull, torch.ones(2, 3, 32, 32) * 0.2])
    scenes = torch.tensor([0] * 6 + [1] * 2)
    found = stretched(images, scenes, generator, share=1.0)
    wider = found.flatten(1).std(1) / images.flatten(1).std(1)
    assert (wider[:6] > 1.1).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(stretched(images, scenes, generator, share=0.0), images)


def test_squares_are_laid_out_and_taken_apart_in_order() -> None:
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 4, 4)
    squares = laid_out(images, 2)
    assert squares.shape == (2, 3, 8, 8)
    assert squares[0, 0, ::4, ::4].tolist() == [[0, 1], [2, 3]]
    assert torch.equal(taken_apart(squares, 2), images)


def test_looks_add_up_to_the_classifier_of_the_mean_token() -> None:
    from rssc_geo.training import EncoderRecipe

    torch.manual_seed(0)
    recipe = EncoderRecipe(ground={"stage": 2, "width": 16})
    network = LookClassifier(recipe, classes=5).eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        logits, _ = network(images)
        tokens = network.encoder(images)
        torch.testing.assert_close(logits.both, network.classify(tokens.mean(1)))
        assert logits.cells is not None
        torch.testing.assert_close(logits.cells.mean(1), logits.ground)
        # In context other things are seen; each crop's own ground hardly changes.
        inside, _ = network(images, context=2)
    assert inside.scene.shape == logits.scene.shape
    assert (inside.scene - logits.scene).abs().max() > 1e-4
