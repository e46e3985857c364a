"""``rssc-geo train`` and ``rssc-geo evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image
from shapely import box

from .conftest import NORTH_UP, Outcome


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    random = np.random.default_rng(0)
    for name, level in {"Forest": 60, "Beach": 200}.items():
        (root / name).mkdir(parents=True)
        for index in range(8):
            pixels = random.integers(level - 20, level + 20, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_a_model_is_trained_measured_and_used(
    rssc: Callable[..., Outcome], pictures: Path, bundle: Path, scene: Path, tmp_path: Path
) -> None:
    words = ["train", pictures, "-o", tmp_path / "mine", "--model", bundle, "--schedule", "1x32,1x48", "--views", 1,
             "--fusion-epochs", 2, "--device", "cpu", "--name", "mine", "--data", "drawn by the test", "-q"]  # fmt: skip
    done = rssc(*words, "--progress", "json")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    assert events[-1]["event"] == "result"
    assert events[-1]["bundle"] == str(tmp_path / "mine")
    assert {event["stage"] for event in events[:-1]} == {"encoder", "fusion"}
    info = rssc("models", "info", tmp_path / "mine", "--json")
    card = json.loads(info.out)
    assert [c["name"] for c in card["classes"]] == ["Beach", "Forest"]
    assert card["training"]["data"] == "drawn by the test"
    assert card["training"]["command"].startswith("rssc-geo")
    assert card["footprint"]["preferred_m"] == 400

    measured = rssc("evaluate", tmp_path / "mine", pictures, "--device", "cpu", "--json")
    assert measured.code == 0, measured.err
    values = json.loads(measured.out)
    assert values["images"] == 16
    assert 0 <= values["overall_accuracy"] <= 1
    part = json.loads(rssc("evaluate", tmp_path / "mine", pictures, "--part", "val", "--device", "cpu", "--json").out)
    assert part["images"] == 2
    assert part["overall_accuracy"] == card["accuracy"]["validation"]["overall_accuracy"]

    labels = gpd.GeoDataFrame(
        {"class": ["forest"]}, geometry=[box(*(NORTH_UP @ (0, 300)), *(NORTH_UP @ (300, 0)))], crs="EPSG:32632"
    )
    labels.to_file(tmp_path / "labels.gpkg")
    on_raster = rssc(
        "evaluate", tmp_path / "mine", "--raster", scene, "--labels", tmp_path / "labels.gpkg", "--tile-size", "100px",
        "--device", "cpu",
    )  # fmt: skip
    assert on_raster.code == 0, on_raster.err
    assert on_raster.out.startswith("9 pictures\n")

    again = rssc(*words)
    assert again.code == 1
    assert "holds a bundle already" in again.message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schedule", "3,4"], "is not EPOCHSxPIXELS"),
        (["--schedule", "0x64"], "at least 1 epoch and 32 pixels"),
        (["--image-encoder", "resnet18"], "--image-encoder and --weights go together"),
        (["--folds", "1"], "at least 2"),
        (["--val", "0.7", "--test", "0.4"], "leave something to train on"),
        (["--device", "abacus"], "--device abacus cannot be used"),
        (["--model", "nowhere"], "model 'nowhere' is no folder"),
    ],
)
def test_wrong_use_of_train_is_one_line(
    rssc: Callable[..., Outcome], pictures: Path, bundle: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    done = rssc("train", pictures, "-o", tmp_path / "mine", "--model", bundle, "-q", *words)
    assert done.code in {1, 2}
    assert message in done.message
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a DATASET folder, or --raster together with --labels"),
        (["{pictures}", "--raster", "x.tif"], "give a DATASET folder"),
        (["--raster", "x.tif"], "together with --labels"),
        (["{pictures}"], "none of the data set's classes"),
        (["{pictures}", "--class-map", "none.json"], "none.json is not a JSON object"),
        (["nowhere"], "nowhere: no such folder"),
    ],
)
def test_wrong_use_of_evaluate_is_one_line(
    rssc: Callable[..., Outcome], pictures: Path, bundle: Path, words: list[str], message: str
) -> None:
    done = rssc("evaluate", bundle, *(word.format(pictures=pictures) for word in words))
    assert done.code in {1, 2}
    assert message in done.message
