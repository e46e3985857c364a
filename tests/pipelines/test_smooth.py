"""``--smooth`` from every interface: the same for a scene, however it was classified."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rssc_geo
from rssc_geo import BatchOptions, ClassifyOptions, ExplainOptions, Predictor
from rssc_geo.captioning import NoCaptioner
from rssc_geo.inference import choose_compute
from rssc_geo.inference import layout as layout_module
from rssc_geo.models import Model, load_bundle, save_bundle
from rssc_geo.output import read_provenance
from tests.factories import read_cells

OPTIONS = ClassifyOptions(smooth=True, probabilities=True, captioner="none", device="cpu")


@pytest.fixture(scope="module")
def bundle(fine_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "fine"
    save_bundle(folder, fine_model, readme="# fine\n")
    return folder


@pytest.fixture
def model(bundle: Path) -> Model:
    """That of the bundle, as a batch loads it."""
    return load_bundle(bundle)


def predictor(model: Model) -> Predictor:
    return Predictor(model, NoCaptioner(), choose_compute("cpu", dtype="float32"))


@pytest.mark.slow
def test_blocks_a_stop_and_a_batch_give_the_same(
    model: Model,
    bundle: Path,
    fine_scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = dataclasses.replace(OPTIONS, smooth=False)
    rssc_geo.classify(fine_scene, tmp_path / "plain.gpkg", plain, model=predictor(model))
    rssc_geo.classify(fine_scene, tmp_path / "whole.gpkg", OPTIONS, model=predictor(model))

    look, calls = Predictor.classify_block, 0

    def stop(self: Predictor, *arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return look(self, *arguments, **more)

    stopped = tmp_path / "stopped.gpkg"
    monkeypatch.setattr(layout_module, "_BLOCK_TOKENS", 12)
    monkeypatch.setattr(Predictor, "classify_block", stop)
    with pytest.raises(KeyboardInterrupt):
        rssc_geo.classify(fine_scene, stopped, OPTIONS, model=predictor(model))
    rssc_geo.classify(fine_scene, stopped, OPTIONS, model=predictor(model))
    monkeypatch.undo()
    rssc_geo.run_batch(
        [fine_scene],
        tmp_path / "maps",
        BatchOptions(
            model=str(bundle),
            captioner="none",
            device="cpu",
            smooth=True,
            probabilities=True,
        ),
    )

    whole, before = read_cells(tmp_path / "whole.gpkg"), read_cells(tmp_path / "plain.gpkg")
    columns = [name for name in whole.columns if name.startswith("p_")]
    assert np.abs(whole[columns] - before[columns]).to_numpy().max() > 0.01
    told = read_provenance(tmp_path / "whole.gpkg")["steps"]
    assert told["smooth"]["cells"] == len(whole)
    for path in (stopped, tmp_path / "maps" / "scene.gpkg"):
        np.testing.assert_allclose(read_cells(path)[columns], whole[columns], atol=1e-4)
        assert read_provenance(path)["steps"] == told
    assert "smooth" not in read_provenance(tmp_path / "plain.gpkg").get("steps", {})


def test_explain_says_that_neighbors_told(
    model: Model, fine_scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = dataclasses.replace(OPTIONS, smooth=False)
    rssc_geo.classify(fine_scene, tmp_path / "plain.gpkg", plain, model=predictor(model))
    rssc_geo.classify(fine_scene, tmp_path / "map.gpkg", OPTIONS, model=predictor(model))
    before, after = read_cells(tmp_path / "plain.gpkg"), read_cells(tmp_path / "map.gpkg")
    row, col = before.index[before["class"] != after["class"]][0]
    where = ExplainOptions(result=str(tmp_path / "map.gpkg"), where=f"row = {row} AND col = {col}")
    why = rssc_geo.explain(fine_scene, tmp_path / "why", where, model=predictor(model))
    assert why.cells[0].class_name == before.loc[(row, col), "class"]
    assert "the map was smoothed (--smooth)" in caplog.text
