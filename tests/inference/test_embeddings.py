"""Embeddings beside the probabilities: of a cell alone, in the space that its words share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio

from rssc_geo.batch import Worker, cut_blocks
from rssc_geo.errors import UsageError
from rssc_geo.geometry import TileGrid
from rssc_geo.inference import (
    CellAggregator,
    CellMap,
    Predictor,
    SceneRun,
    TileResult,
    load_predictor,
    make_plan,
)
from rssc_geo.inference import layout as layout_module
from rssc_geo.models import Model, class_embeddings
from rssc_geo.options import PredictorOptions, TilingOptions
from rssc_geo.output import OutputTarget, PartFile
from tests.factories import texture, write_raster

WIDTH = 192
TILINGS = {
    "fine": TilingOptions(tile_size="96px", cell_size="32px"),
    "cell = tile": TilingOptions(tile_size="64px", cell_size="64px"),
}


def silent(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patches of colors, with a corner of nodata."""
    pixels = texture(320, 256)
    pixels[:, :64, :64] = 0
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", pixels, nodata=0)


@pytest.fixture(scope="module")
def compact() -> Predictor:
    return load_predictor(PredictorOptions(captioner="none", device="cpu", batch_size=3))


def embeddings(
    scene: Path, path: Path, predictor: Predictor, options: TilingOptions
) -> dict[tuple[int, int], np.ndarray]:
    target = OutputTarget(path, embeds=True)
    with SceneRun(make_plan(scene, predictor.card, options), target, predictor.spec) as run:
        run.classify(predictor, silent)
        return cells_of(run)


def cells_of(run: SceneRun) -> dict[tuple[int, int], np.ndarray]:
    part: PartFile = run._writer._part
    return {
        (row, col): np.frombuffer(blob, np.float16)
        for chunk in part.read("row, col, embedding")
        for row, col, blob in chunk
    }


def same(one: dict[tuple[int, int], np.ndarray], other: dict[tuple[int, int], np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for place, vector in one.items():
        np.testing.assert_allclose(vector, other[place], atol=1e-3)  # half a float16's last digit


def test_a_picture_lies_near_the_words_for_it(compact: Predictor) -> None:
    """Even water and a rough forest, whichever picture of the batch."""
    random = np.random.default_rng(0)
    water = np.full((192, 192, 3), (20, 50, 80)) + random.integers(-2, 3, (192, 192, 3))
    forest = np.full((192, 192, 3), (40, 70, 35)) + random.integers(-30, 31, (192, 192, 1))
    found = compact.predict(np.stack([water, forest]).astype(np.uint8), embed=True)
    assert found.embeddings is not None
    assert found.embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)
    words = {"water": ["the open water of a lake"], "forest": ["many green trees of a forest"]}
    likeness = found.embeddings @ class_embeddings(compact.model, words).numpy().T
    assert (likeness.argmax(0) == [0, 1]).all()
    assert (likeness.argmax(1) == [0, 1]).all()
    assert compact.predict(np.zeros((1, 64, 64, 3), np.uint8)).embeddings is None


@pytest.mark.parametrize("tiling", TILINGS)
def test_a_cell_s_embedding_is_its_own(
    scene: Path, tmp_path: Path, compact: Predictor, tiling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in other batches, blocks and areas of interest, by another worker, after a stop."""
    options = TILINGS[tiling]
    whole = embeddings(scene, tmp_path / "whole.gpkg", compact, options)
    assert {vector.shape for vector in whole.values()} == {(WIDTH,)}
    assert (0, 0) not in whole
    assert (4, 3) in whole

    monkeypatch.setattr(layout_module, "_BLOCK_TOKENS", 12)
    other = Predictor(compact.model, compact.captioner, compact.compute)
    other._batches.size = 2
    same(whole, embeddings(scene, tmp_path / "other.gpkg", other, options))

    plan = make_plan(scene, compact.card, options)
    target = OutputTarget(tmp_path / "worker.gpkg", embeds=True)
    worker = Worker(
        other.spec, other, input_size=other.card.input_size, reading_threads=1, name="one"
    )
    with SceneRun(plan, target, other.spec) as run:
        blocks = cut_blocks(run, tiles=3)
        assert len(blocks) > 2
        for block in blocks[:2]:
            run.take(worker.run(block).unpack(plan.units))
    with SceneRun(plan, target, other.spec) as run:
        assert run.watermark > 0
        run.classify(other, silent)
        same(whole, cells_of(run))

    with rasterio.open(scene) as raster:
        west, south, east, north = raster.bounds
    part = dataclasses.replace(options, bounds=(west + 200, south, east, north - 200))
    found = embeddings(scene, tmp_path / "part.gpkg", compact, part)
    assert 0 < len(found) < len(whole)
    same({place: whole[place] for place in found}, found)


def test_embeddings_of_overlapping_tiles_are_averaged() -> None:
    grid = TileGrid((4, 8), (4, 4), (4, 2))
    cells = CellMap(grid, np.ones(grid.cells_shape, bool), min_valid=0.5)
    vectors = np.eye(3, dtype=np.float32)
    results = [
        TileResult(
            grid.tile(index), 1.0, np.ones((1, 2), np.float32), np.ones(2, np.float32) / 2,
            ("",), embeddings=vectors[index],
        )
        for index in range(3)
    ]  # fmt: skip
    batch = CellAggregator(cells, classes=2).add(results)
    assert batch.embeddings is not None
    half = 0.5**0.5
    expected = [[1, 0, 0], [half, half, 0], [0, half, half], [0, 0, 1]]
    np.testing.assert_allclose(batch.embeddings, expected, atol=1e-6)


def test_a_model_without_captions_is_refused(
    scene: Path, tmp_path: Path, small_model: Model
) -> None:
    from rssc_geo.captioning import NoCaptioner
    from rssc_geo.inference import choose_compute

    assert small_model.card.alignment is None
    predictor = Predictor(small_model, NoCaptioner(), choose_compute("cpu"))
    with pytest.raises(UsageError, match="'small' was trained without captions"):
        predictor.predict(np.zeros((1, 64, 64, 3), np.uint8), embed=True)
    plan = make_plan(scene, small_model.card, TilingOptions(force=True))
    with pytest.raises(UsageError, match="'small' was trained without captions"):
        SceneRun(plan, OutputTarget(tmp_path / "x.gpkg", embeds=True), predictor.spec)
    assert not list(tmp_path.iterdir())
