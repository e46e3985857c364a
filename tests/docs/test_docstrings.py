"""The examples in the docstrings of the public names, run as they stand."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rssc_geo

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from make_demo_scene import draw_scene, write_scene

STUB = (ROOT / "rssc_geo" / "__init__.pyi").read_text(encoding="utf-8")
HOMES = {name: module for module, name in re.findall(r"from \.([\w.]+) import (\w+) as", STUB)}
VERBS = [
    "assess_accuracy",
    "assess_sample",
    "caption",
    "change",
    "classify",
    "describe_run",
    "embed",
    "evaluate",
    "evaluate_on_polygons",
    "explain",
    "export_tiles",
    "index",
    "load_card",
    "load_image_folder",
    "load_model",
    "load_predictor",
    "make_plan",
    "open_scene",
    "refine",
    "run_batch",
    "search",
    "tabulate_areas",
    "tabulate_batch",
    "train",
    "train_on_polygons",
    "zero_shot",
]
"""The public functions, each of which has an example."""


def examples(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(f"rssc_geo.{HOMES[name]}")
    found = doctest.DocTestFinder().find(getattr(rssc_geo, name), name, module)
    return [test for test in found if test.examples]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples name: a scene, labels of it, pictures with captions."""
    folder = tmp_path_factory.mktemp("material")
    write_scene(draw_scene(gsd_m=15), folder / "scene.tif")
    shutil.copy(ROOT / "examples" / "demo_labels.geojson", folder / "labels.geojson")
    known = {"woodland": "Forest", "farmland": "Farmland", "fields": "Farmland"}
    labels = json.loads((folder / "labels.geojson").read_text(encoding="utf-8"))
    kept = [
        {**feature, "properties": {"class": known[feature["properties"]["label"]]}}
        for feature in labels["features"]
        if feature["properties"]["label"] in known
    ]
    (folder / "classes.geojson").write_text(json.dumps({**labels, "features": kept}))
    random = np.random.default_rng(0)
    lines = []
    for name, color in (("Beach", 210), ("Forest", 60), ("River", 120)):
        (folder / "pictures" / "images" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.clip(color + random.integers(-40, 40, (40, 40, 3)), 0, 255)
            file = f"{name}/{number:02}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "pictures" / "images" / file)
            lines.append(json.dumps({"image": file, "captions": [f"a {name.lower()} ."]}))
    (folder / "pictures" / "captions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VERBS, "Predictor"])
def test_an_example_does_what_it_shows(
    name: str, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in material.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    found = examples(name)
    assert found, f"{name} has no example"
    for test in found:
        output: list[str] = []
        runner = doctest.DocTestRunner()
        failed = runner.run(test, out=output.append).failed
        assert not failed, "".join(output)
        assert "SKIP" not in (test.docstring or "")


def test_every_public_function_has_an_example() -> None:
    functions = [n for n in rssc_geo.__all__ if n.islower()]
    assert sorted(functions) == sorted(VERBS)
