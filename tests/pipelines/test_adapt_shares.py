"""``--adapt-shares`` from every interface: the same for a scene, however it was classified."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest

import rssc_geo
from rssc_geo import BatchOptions, ClassifyOptions, ExplainOptions, Predictor
from rssc_geo.captioning import NoCaptioner
from rssc_geo.inference import choose_compute
from rssc_geo.models import Model, load_bundle
from rssc_geo.output import read_provenance
from tests.factories import read_cells, texture, write_raster

NUMBERS = ["confidence", "margin"]


@pytest.fixture
def model(bundle: Path) -> Model:
    """That of the bundle, as a batch loads it."""
    return load_bundle(bundle)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """9 × 8 tiles of 64 px."""
    return write_raster(tmp_path / "scene.tif", texture(576, 512), photometric="rgb")


def predictor(model: Model, batch_size: int) -> Predictor:
    compute = choose_compute("cpu", dtype="float32", batch_size=batch_size)
    return Predictor(model, NoCaptioner(), compute)


@pytest.mark.slow
def test_batch_size_stop_and_batch_give_the_same(
    model: Model, bundle: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ClassifyOptions(tile_size="64px", adapt_shares=True)
    plain = dataclasses.replace(options, adapt_shares=False, probabilities=True)
    rssc_geo.classify(scene, tmp_path / "plain.gpkg", plain, model=predictor(model, 16))
    rssc_geo.classify(scene, tmp_path / "whole.gpkg", options, model=predictor(model, 16))

    run, calls = Predictor._run, 0

    def stop(self: Predictor, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise KeyboardInterrupt
        return run(self, *arguments)

    stopped = tmp_path / "stopped.gpkg"
    monkeypatch.setattr(Predictor, "_run", stop)
    with pytest.raises(KeyboardInterrupt):
        rssc_geo.classify(scene, stopped, options, model=predictor(model, 1))
    result = rssc_geo.classify(scene, stopped, options, model=predictor(model, 1))
    assert result.tiles_classified < 72
    batch = BatchOptions(
        model=str(bundle), tile_size="64px", captioner="none", device="cpu", batch_size=3
    )
    (tmp_path / "scenes.csv").write_text("input,adapt-shares\nscene.tif,true\n")
    rssc_geo.run_batch([tmp_path / "scenes.csv"], tmp_path / "maps", batch)

    whole, before = read_cells(tmp_path / "whole.gpkg"), read_cells(tmp_path / "plain.gpkg")
    told = read_provenance(tmp_path / "whole.gpkg")["steps"]["adapt_shares"]
    assert (told["cells"], told["done"]) == (72, True)
    shares = np.array(list(told["shares"].values()))
    columns = [name for name in before.columns if name.startswith("p_")]
    weighted = before[columns].to_numpy() * shares
    expected = weighted / weighted.sum(1, keepdims=True)
    np.testing.assert_allclose(whole["confidence"], expected.max(1), atol=1e-4)
    assert np.abs(whole["confidence"] - before["confidence"]).max() > 0.01
    for path in (stopped, tmp_path / "maps" / "scene.gpkg"):
        other = read_cells(path)
        np.testing.assert_allclose(other[NUMBERS], whole[NUMBERS], atol=1e-4)
        assert (other["class"] == whole["class"]).all()
        again = read_provenance(path)["steps"]["adapt_shares"]
        assert again["cells"] == 72
        np.testing.assert_allclose(list(again["shares"].values()), shares, atol=1e-4)
    landuse = gpd.read_file(tmp_path / "whole.gpkg", layer="landuse")
    assert set(landuse["class"]) == set(whole["class"])


def test_classes_that_cannot_be_chosen_get_no_share(
    model: Model, scene: Path, tmp_path: Path
) -> None:
    target = tmp_path / "map.gpkg"
    options = ClassifyOptions(
        tile_size="64px", adapt_shares=True, probabilities=True, exclude_classes=("Field",)
    )
    rssc_geo.classify(scene, target, options, model=predictor(model, 16))
    cells = read_cells(target)
    assert (cells["p_field"] == 0).all()
    np.testing.assert_allclose(cells["p_river_wide"] + cells["p_town_b"], 1, atol=1e-5)
    shares = read_provenance(target)["steps"]["adapt_shares"]["shares"]
    assert set(shares) == {"River, wide", "Town <b>"}
    assert min(shares.values()) >= 0.99e-4

    asked = ExplainOptions(result=str(target), cells=3)
    why = rssc_geo.explain(scene, tmp_path / "why", asked, model=predictor(model, 16))
    for cell in why.cells:  # as the map has them
        known = cells.loc[(cell.row, cell.col)]
        assert (cell.class_name, cell.runner_up) == (known["class"], known["runner_up"])
        assert cell.confidence == pytest.approx(known["confidence"], abs=1e-5)
