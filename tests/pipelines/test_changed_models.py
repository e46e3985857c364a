"""A bundle whose config.json was edited between two runs is another model; weights are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rssc_geo
from rssc_geo import BatchOptions, ClassifyOptions, ExplainOptions, UsageError
from rssc_geo.models import load_card
from rssc_geo.service import Service
from tests.factories import read_cells, texture, write_raster

HERE: dict[str, Any] = {"tile_size": "50px", "force": True, "device": "cpu", "batch_size": 8}
OTHER = {"temperature": 0.05, "mean": [0.1, 0.9, 0.1]}


class StopError(Exception):
    pass


def edit(bundle: Path, values: dict[str, Any]) -> None:
    card = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**card, **values}))


def stop_halfway(stage: str, done: int, total: int | None) -> None:
    if stage == "classify" and total and total > done >= total // 2:
        raise StopError


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", texture(300, 400))


@pytest.mark.parametrize(
    ("values", "goes_on"), [(OTHER, False), ({"accuracy": {"test": 0.9}, "license": "MIT"}, True)]
)
def test_a_part_file_of_an_edited_model_is_not_continued(
    bundle: Path, scene: Path, tmp_path: Path, values: dict[str, Any], goes_on: bool
) -> None:
    options = ClassifyOptions(model=str(bundle), **HERE)
    with pytest.raises(StopError):
        rssc_geo.classify(scene, tmp_path / "map.gpkg", options, progress=stop_halfway)
    assert (tmp_path / "map.gpkg.part").exists()
    edit(bundle, values)
    result = rssc_geo.classify(scene, tmp_path / "map.gpkg", options)
    assert (result.resumed_at > 0) == goes_on
    rssc_geo.classify(scene, tmp_path / "fresh.gpkg", options)
    found, fresh = (read_cells(tmp_path / f"{name}.gpkg") for name in ("map", "fresh"))
    np.testing.assert_allclose(found["confidence"], fresh["confidence"], atol=1e-5)
    assert (found["class"] == fresh["class"]).all()


def test_a_batch_makes_the_maps_of_an_edited_model_again(
    bundle: Path, scene: Path, tmp_path: Path
) -> None:
    options = BatchOptions(model=str(bundle), **HERE, overwrite=True)
    assert rssc_geo.run_batch([scene], tmp_path / "maps", options).tiles == 48
    assert rssc_geo.run_batch([scene], tmp_path / "maps", options).tiles == 0
    edit(bundle, OTHER)
    assert rssc_geo.run_batch([scene], tmp_path / "maps", options).tiles == 48


def test_a_map_of_the_model_before_is_not_explained(
    bundle: Path, scene: Path, tmp_path: Path
) -> None:
    rssc_geo.classify(scene, tmp_path / "map.gpkg", ClassifyOptions(model=str(bundle), **HERE))
    edit(bundle, OTHER)
    options = ExplainOptions(model=str(bundle), result=str(tmp_path / "map.gpkg"), device="cpu")
    with pytest.raises(UsageError, match=r"weights or config\.json differ"):
        rssc_geo.explain(scene, tmp_path / "why", options)


def test_a_service_loads_an_edited_model_anew(bundle: Path, scene: Path, tmp_path: Path) -> None:
    answers: list[dict[str, Any]] = []
    options = {"model": str(bundle), "tile_size": "200px", "device": "cpu"}
    service = Service(answers.append)
    for number in range(2):
        request = {
            "id": number,
            "command": "classify",
            "raster": str(scene),
            "output": str(tmp_path / f"{number}.gpkg"),
            "options": options,
        }
        service.receive(json.dumps(request))
        service.close()
        service.run(idle_s=60)
        edit(bundle, OTHER)
    rssc_geo.classify(scene, tmp_path / "fresh.gpkg", ClassifyOptions(**options))
    before, after, fresh = (
        read_cells(tmp_path / f"{name}.gpkg")["confidence"] for name in ("0", "1", "fresh")
    )
    assert not np.allclose(before, fresh, atol=1e-2)
    np.testing.assert_allclose(after, fresh, atol=1e-5)


def test_the_looks_of_classes_are_no_part_of_a_model(bundle: Path) -> None:
    card = load_card(bundle)
    classes = json.loads((bundle / "config.json").read_text())["classes"]
    edit(bundle, {"classes": [{**known, "color": "#123456"} for known in classes]})
    assert load_card(bundle).identity == card.identity
    edit(bundle, {"classes": [{**known, "name": known["name"] + "s"} for known in classes]})
    assert load_card(bundle).identity != card.identity
