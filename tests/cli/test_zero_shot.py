"""``rssc-geo zero-shot`` with the embedded weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest

from tests.factories import texture, write_raster

from .conftest import Outcome, whole_tiles


def test_a_map_of_named_classes(rssc: Callable[..., Outcome], scene: Path, tmp_path: Path) -> None:
    target = tmp_path / "map.gpkg"
    done = rssc(
        "zero-shot", scene, "-o", target, "--classes", "solar park, forest,vineyard",
        "--probabilities", *whole_tiles("200px"), "--json"
    )  # fmt: skip
    assert done.code == 0, done.err
    values = json.loads(done.out)
    assert values["cells"] == 12
    cells = gpd.read_file(target, layer="cells")
    names = ["solar park", "forest", "vineyard", "other"]
    assert set(cells["class"]) <= set(names)
    probabilities = cells[[column for column in cells.columns if column.startswith("p_")]]
    assert probabilities.shape == (12, 4)
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert cells["caption"].str.len().min() > 5


def test_classes_from_a_file_with_words(
    rssc: Callable[..., Outcome], scene: Path, tmp_path: Path
) -> None:
    file = tmp_path / "classes.json"
    file.write_text(json.dumps({"water": ["lake", "river", "sea"], "land": ["fields", "forest"]}))
    done = rssc(
        "zero-shot",
        scene,
        "-o",
        tmp_path / "map.gpkg",
        "--classes",
        file,
        *whole_tiles("200px"),
        "-q",
    )
    assert done.code == 0, done.err
    assert set(gpd.read_file(tmp_path / "map.gpkg", layer="cells")["class"]) <= {
        "water",
        "land",
        "other",
    }
    # Other words are another run: nothing of it is taken over.
    file.write_text(json.dumps({"water": ["lake"], "land": ["fields", "forest"]}))
    again = rssc(
        "zero-shot",
        scene,
        "-o",
        tmp_path / "map.gpkg",
        "--classes",
        file,
        *whole_tiles("200px"),
        "--overwrite",
        "--json",
    )
    assert json.loads(again.out)["resumed_at"] == 0


def test_refined_classes_are_another_run_and_the_same_each_time(
    rssc: Callable[..., Outcome], scene: Path, tmp_path: Path
) -> None:
    words = [
        "zero-shot",
        scene,
        "--classes",
        "forest,water,town",
        "--no-other",
        *whole_tiles("200px"),
        "--probabilities",
    ]
    for name, more in (
        ("plain", []),
        ("first", ["--refine"]),
        ("second", ["--refine", "--batch-size", 3]),
    ):
        done = rssc(*words, *more, "-o", tmp_path / f"{name}.gpkg", "-q")
        assert done.code == 0, done.err
    plain, first, second = (
        gpd.read_file(tmp_path / f"{name}.gpkg", layer="cells")
        for name in ("plain", "first", "second")
    )
    columns = ["p_forest", "p_water", "p_town"]
    np.testing.assert_allclose(first[columns], second[columns], atol=1e-5)
    assert abs(plain[columns].to_numpy() - first[columns].to_numpy()).max() > 1e-3


@pytest.mark.parametrize("verb", [("zero-shot",), ("batch", "run")])
def test_classes_are_refined_wherever_cells_are_written(
    rssc: Callable[..., Outcome], tmp_path: Path, verb: tuple[str, ...]
) -> None:
    """Also where no tile has its share of valid pixels, but a cell in it has."""
    pixels = texture(600, 600)
    pixels[:, :, 120:] = 0  # tiles of 300 pixels, cells of 100
    scene = write_raster(tmp_path / "strip.tif", pixels, nodata=0, photometric="rgb")
    words = ("--classes", "forest,water,town", "--no-other", "--refine", "-q")
    sizes = ("--tile-size", "300px", "--cell-size", "100px", "--no-unknown")
    done = rssc(*verb, scene, "-o", tmp_path / "strip.gpkg", *words, *sizes)
    assert done.code == 0, done.err
    cells = gpd.read_file(tmp_path / "strip.gpkg", layer="cells")
    assert len(cells) == 6


@pytest.mark.parametrize("verb", [("zero-shot",), ("batch", "run")])
def test_classes_are_refined_in_any_precision(
    rssc: Callable[..., Outcome], scene: Path, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    """The tiles go to where the network lies, in its numbers: those of a GPU, by default."""
    words = ("--classes", "forest,water,town", "--no-other", "--refine", "--dtype", "bfloat16")
    done = rssc(*verb, scene, "-o", tmp_path / "map.gpkg", *words, *whole_tiles("200px"), "-q")
    assert done.code == 0, done.err
    assert len(gpd.read_file(tmp_path / "map.gpkg", layer="cells")) == 12


@pytest.mark.parametrize(
    ("content", "classes", "message"),
    [
        (None, "forest,forest", "the class 'forest' is named twice"),
        (None, "forest,日本", "holds no word the text encoder knows"),
        (None, "{file}", "cannot be read as JSON"),
        ("{", "{file}", "cannot be read as JSON"),
        ('["forest"]', "{file}", "expected"),
        ('{"forest": "trees"}', "{file}", "expected"),
    ],
)
def test_classes_that_mean_nothing_are_one_line(
    rssc: Callable[..., Outcome],
    scene: Path,
    tmp_path: Path,
    content: str | None,
    classes: str,
    message: str,
) -> None:
    file = tmp_path / "classes.json"
    if content is not None:
        file.write_text(content)
    done = rssc(
        "zero-shot", scene, "-o", tmp_path / "map.gpkg", "--classes", classes.format(file=file)
    )
    assert done.code in {1, 2}
    assert message in done.message
    assert not (tmp_path / "map.gpkg").exists()
