"""Device, precision, batches.

A tile's result is its own, and memory that runs out only slows the run.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from rssc_geo.captioning import CaptionBatch, CompactCaptioner, NoCaptioner
from rssc_geo.errors import RsscGeoError, UsageError
from rssc_geo.inference import Compute, Predictor, choose_compute
from rssc_geo.models import Model, load_bundle


@pytest.fixture(scope="module")
def tiles() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (13, 10, 10, 3)).astype(np.uint8)
    pixels = coarse.repeat(16, 1).repeat(16, 2)
    mask = np.ones(pixels.shape[:3], bool)
    mask[3, :80] = False
    return pixels, mask


@pytest.fixture(scope="module")
def compact() -> Model:
    return load_bundle("compact")


def classifier(model: Model, batch_size: int, *, captions: bool = True) -> Predictor:
    captioner = (
        CompactCaptioner(model.decoder, model.vocabulary)
        if captions and model.decoder
        else NoCaptioner()
    )
    return Predictor(model, captioner, Compute(torch.device("cpu"), torch.float32, batch_size))


def test_results_do_not_depend_on_the_batch(
    compact: Model, tiles: tuple[np.ndarray, np.ndarray]
) -> None:
    whole = classifier(compact, 13)(*tiles)
    assert whole.probabilities.shape == (13, 41)
    np.testing.assert_allclose(whole.probabilities.sum(1), 1, atol=1e-5)
    for size in (1, 4):
        other = classifier(compact, size)(*tiles)
        np.testing.assert_allclose(other.probabilities, whole.probabilities, atol=1e-5)
        assert other.captions == whole.captions
    order = np.random.default_rng(1).permutation(13)
    mixed = classifier(compact, 13)(tiles[0][order], tiles[1][order])
    np.testing.assert_allclose(mixed.probabilities, whole.probabilities[order], atol=1e-5)


def test_pictures_as_other_libraries_hold_them(
    compact: Model, tiles: tuple[np.ndarray, np.ndarray], recwarn: pytest.WarningsRecorder
) -> None:
    pictures = tiles[0][:2, :64, :64]
    predictor = classifier(compact, 2, captions=False)
    wanted = predictor.predict(pictures.copy()).probabilities
    read_only = pictures.copy()
    read_only.flags.writeable = False  # as of PIL
    backwards = pictures[..., ::-1].copy()[..., ::-1]  # as of OpenCV, whose colors are BGR
    for values in (read_only, backwards, np.asfortranarray(pictures)):
        mask = np.ones(pictures.shape[:3], bool)[:, ::-1]
        assert np.array_equal(predictor.predict(values, mask).probabilities, wanted)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 0, 64, 3), np.uint8), "uint8 (B, H, W, 3) is wanted"),
        ([[1]], "uint8 (B, H, W, 3) is wanted"),
        ([np.zeros((64, 64, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)], "of one size"),
    ],
)
def test_what_is_no_picture_is_one_line(compact: Model, images: Any, message: str) -> None:
    with pytest.raises(UsageError) as told:
        classifier(compact, 2, captions=False).predict(images)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_numbers_too_large_for_the_precision_are_told(
    compact: Model, tiles: tuple[np.ndarray, np.ndarray]
) -> None:
    network = copy.deepcopy(compact.network)
    with torch.no_grad():
        network.image_head.weight.mul_(1e6)
    model = dataclasses.replace(compact, network=network, decoder=None, vocabulary=None)
    half = Predictor(model, NoCaptioner(), Compute(torch.device("cpu"), torch.float16, 4))
    with pytest.raises(
        RsscGeoError, match="in float16 gives values that are not finite: run it with --dtype"
    ):
        half(*tiles)


def test_invalid_pixels_are_filled_with_the_mean_whatever_they_hold(
    compact: Model, tiles: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, mask = (part[3:4].copy() for part in tiles)
    first = classifier(compact, 1)(pixels, mask).probabilities
    pixels[~mask] = 255
    np.testing.assert_array_equal(classifier(compact, 1)(pixels, mask).probabilities, first)
    images = compact.preprocess(pixels, mask)
    assert (images[0, :, :80] == 0).all()


class _SmallMemory(CompactCaptioner):
    """A captioner on a device that holds so many tiles and no more."""

    def __init__(self, model: Model, room: int, error: Exception | None = None) -> None:
        assert model.decoder is not None
        super().__init__(model.decoder, model.vocabulary)
        self.room = room
        words = "CUDA out of memory. Tried to allocate 2 GiB"
        self.error = error or torch.OutOfMemoryError(words)

    def caption(self, batch: CaptionBatch) -> list[str]:
        if len(batch.pixels) > self.room:
            raise self.error
        return super().caption(batch)


@pytest.mark.parametrize("error", [None, MemoryError("Unable to allocate 2 GiB for an array")])
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    compact: Model, tiles: tuple[np.ndarray, np.ndarray], error: Exception | None
) -> None:
    whole = classifier(compact, 13)(*tiles)
    squeezed = Predictor(
        compact, _SmallMemory(compact, 3, error), Compute(torch.device("cpu"), torch.float32, 12)
    )
    found = squeezed(*tiles)
    assert squeezed.batch_size == 3
    np.testing.assert_allclose(found.probabilities, whole.probabilities, atol=1e-5)
    assert found.captions == whole.captions


def test_a_single_tile_too_many_is_one_clear_line(
    compact: Model, tiles: tuple[np.ndarray, np.ndarray]
) -> None:
    with pytest.raises(RsscGeoError, match="single tile"):
        Predictor(
            compact, _SmallMemory(compact, 0), Compute(torch.device("cpu"), torch.float32, 4)
        )(*tiles)


def test_other_errors_are_not_taken_for_memory(
    compact: Model, tiles: tuple[np.ndarray, np.ndarray]
) -> None:
    class Broken(NoCaptioner):
        def caption(self, batch: CaptionBatch) -> list[str]:
            raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Predictor(compact, Broken(), Compute(torch.device("cpu"), torch.float32, 4))(*tiles)


def test_half_precision_stays_close(tiles: tuple[np.ndarray, np.ndarray]) -> None:
    model = load_bundle("compact")
    exact = classifier(model, 13, captions=False)(*tiles).probabilities
    rough = Predictor(
        load_bundle("compact"), NoCaptioner(), Compute(torch.device("cpu"), torch.bfloat16, 13)
    )(*tiles)
    np.testing.assert_allclose(rough.probabilities, exact, atol=0.15)
    assert rough.probabilities.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "nonsense"}, "--device nonsense"),
        ({"device": "cuda:99"}, "--device cuda:99"),
        ({"device": "meta"}, "--device meta cannot be used"),
        ({"dtype": "int8"}, "float32, bfloat16, float16"),
        ({"batch_size": 0}, "--batch-size 0"),
    ],
)
def test_impossible_choices_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        choose_compute(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_the_processor_computes_in_float32() -> None:
    compute = choose_compute("cpu")
    assert (compute.device.type, compute.dtype) == ("cpu", torch.float32)
    assert compute.batch_size >= 1
