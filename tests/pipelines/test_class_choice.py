"""A restricted choice of classes: tile by tile, from every interface, and in the key of a run."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio

import rssc_geo
from rssc_geo import ClassifyOptions, EvaluateOptions, ExplainOptions, Predictor
from rssc_geo.captioning import AdaptiveCaptioner, CaptionBatch, NoCaptioner, make_captioner
from rssc_geo.errors import InputError, UsageError
from rssc_geo.evaluation.evaluate import evaluate
from rssc_geo.inference import choose_compute
from rssc_geo.models import Model, name_classes
from rssc_geo.output import read_provenance
from rssc_geo.training import load_image_folder
from tests.factories import texture, write_raster

COLUMNS = ["p_field", "p_river_wide", "p_town_b"]


def predictor(model: Model, batch_size: int = 16) -> Predictor:
    compute = choose_compute("cpu", dtype="float32", batch_size=batch_size)
    return Predictor(model, make_captioner(model), compute)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """5 × 4 tiles of 64 px."""
    return write_raster(tmp_path / "scene.tif", texture(320, 256), photometric="rgb")


def classify(
    model: Model | Predictor, scene: Path, target: Path, **options: Any
) -> gpd.GeoDataFrame:
    model = predictor(model) if isinstance(model, Model) else model
    chosen = ClassifyOptions(
        **{"tile_size": "64px", "probabilities": True, "smooth": False, **options}
    )
    rssc_geo.classify(scene, target, chosen, model=model)
    return gpd.read_file(target, layer="cells").set_index(["row", "col"]).sort_index()


def restricted(probabilities: np.ndarray, ids: list[int]) -> np.ndarray:
    kept = np.zeros_like(probabilities)
    kept[..., ids] = probabilities[..., ids]
    return kept / kept.sum(-1, keepdims=True)


def test_tiles_are_restricted_one_by_one(small_model: Model, scene: Path, tmp_path: Path) -> None:
    """Cells of half a tile: their probabilities are means of restricted ones, not the reverse."""
    options: dict[str, Any] = {"cell_size": "32px", "tile_size": "64px"}
    cells = classify(
        small_model,
        scene,
        tmp_path / "map.gpkg",
        **options,
        exclude_classes=("river wide",),
        class_raster=str(tmp_path / "classes.tif"),
    )
    pixels = rasterio.open(scene).read()
    starts = [(row, col) for row in range(0, 257, 32) for col in range(0, 193, 32)]
    tiles = np.stack(
        [pixels[:, row : row + 64, col : col + 64].transpose(1, 2, 0) for row, col in starts]
    )
    found = dict(
        zip(
            starts,
            restricted(
                predictor(small_model)(tiles, np.ones(tiles.shape[:3], bool)).probabilities, [0, 2]
            ),
            strict=True,
        )
    )
    for row, col in ((0, 0), (3, 5), (9, 7)):
        own = [
            values
            for (top, left), values in found.items()
            if top <= row * 32 <= top + 32 and left <= col * 32 <= left + 32
        ]
        np.testing.assert_allclose(
            cells.loc[(row, col), COLUMNS].astype(float), np.mean(own, 0), atol=1e-5
        )
    assert (cells["p_river_wide"] == 0).all()
    assert set(cells["class"]) | set(cells["runner_up"]) <= {"Field", "Town <b>"}
    top = np.sort(cells[COLUMNS].to_numpy(), 1)
    np.testing.assert_allclose(cells["confidence"], top[:, 2], atol=2e-6)
    np.testing.assert_allclose(cells["margin"], top[:, 2] - top[:, 1], atol=2e-6)
    with rasterio.open(tmp_path / "classes.tif") as classes:
        grid = classes.read(1)
    assert set(np.unique(grid)) <= {0, 2}  # the model's ids
    ids = {"Field": 0, "Town <b>": 2}
    assert [ids[name] for name in cells["class"]] == cells["class_id"].tolist()
    assert read_provenance(tmp_path / "map.gpkg")["class_choice"] == ["Field", "Town <b>"]


def test_fine_maps_are_restricted_too(fine_model: Model, fine_scene: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"tile_size": None, "cell_size": "100m"}
    free = classify(fine_model, fine_scene, tmp_path / "free.gpkg", **options)
    held = classify(
        fine_model,
        fine_scene,
        tmp_path / "held.gpkg",
        only_classes=("Field", "River, wide"),
        **options,
    )
    expected = restricted(free[COLUMNS].to_numpy(), [0, 1])
    np.testing.assert_allclose(held[COLUMNS], expected, atol=1e-5)
    assert (held["p_town_b"] == 0).all()


def test_one_class_has_no_runner_up(small_model: Model, scene: Path, tmp_path: Path) -> None:
    cells = classify(small_model, scene, tmp_path / "map.gpkg", only_classes=("Town b",))
    assert set(cells["class"]) == {"Town <b>"}
    assert cells["runner_up"].isna().all()
    assert (cells["confidence"] == 1).all()
    assert (cells["margin"] == 1).all()


class _Counted:
    """A large captioner that counts what it is asked."""

    name = "large"
    source = "written"

    def __init__(self) -> None:
        self.asked = 0

    def caption(self, batch: CaptionBatch) -> list[str]:
        self.asked += len(batch.pixels)
        return ["many houses ."] * len(batch.pixels)


def test_who_is_sure_among_the_choice_needs_no_caption(small_model: Model) -> None:
    """``--caption-when uncertain`` goes by the confidence among the classes that are left."""
    pixels = np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), np.uint8)
    large = _Counted()
    asking = Predictor(
        small_model, AdaptiveCaptioner(NoCaptioner(), large, 0.99), choose_compute("cpu")
    )
    asking.predict(pixels)
    assert large.asked == 12
    asking.choosing((1,)).predict(pixels)
    assert large.asked == 12
    assert asking.choosing(None) is asking
    assert asking.spec.choice is None


def test_another_choice_does_not_go_on_with_what_is_left(
    small_model: Model,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    target, calls = tmp_path / "map.gpkg", 0
    run = Predictor._run

    def stop(self: Predictor, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise KeyboardInterrupt
        return run(self, *arguments)

    def interrupt(**options: Any) -> None:
        nonlocal calls
        calls = 0
        monkeypatch.setattr(Predictor, "_run", stop)
        with pytest.raises(KeyboardInterrupt):
            classify(predictor(small_model, 1), scene, target, **options)
        monkeypatch.setattr(Predictor, "_run", run)
        assert target.with_name("map.gpkg.part").exists()

    def finish(**options: Any) -> int:
        chosen = ClassifyOptions(tile_size="64px", probabilities=True, **options)
        model = predictor(small_model, 1)
        return rssc_geo.classify(scene, target, chosen, model=model).tiles_classified

    two = ("Field", "Town <b>")
    interrupt(only_classes=two)
    assert finish() == 20
    assert "it is from a run with another choice of classes)" in caplog.text
    target.unlink()
    interrupt()
    assert finish(only_classes=two) == 20
    target.unlink()
    interrupt(only_classes=two)
    assert finish(exclude_classes=("River, wide",)) < 15  # the same choice in other words


def test_a_batch_does_scenes_again_for_another_choice(
    small_model: Model, bundle: Path, scene: Path, tmp_path: Path
) -> None:
    def run(*names: str) -> tuple[int, gpd.GeoDataFrame]:
        options = rssc_geo.BatchOptions(
            model=str(bundle),
            tile_size="64px",
            probabilities=True,
            only_classes=names,
            captioner="none",
            overwrite=True,
            device="cpu",
        )
        result = rssc_geo.run_batch([scene], tmp_path / "maps", options)
        cells = gpd.read_file(tmp_path / "maps" / "scene.gpkg", layer="cells")
        return result.done - result.skipped, cells.set_index(["row", "col"]).sort_index()

    done, free = run()
    assert done == 1
    done, held = run("Field", "Town <b>")
    assert done == 1
    assert run("Field", "Town <b>")[0] == 0
    np.testing.assert_allclose(
        held[COLUMNS], restricted(free[COLUMNS].to_numpy(), [0, 2]), atol=2e-5
    )
    with pytest.raises(UsageError, match="no class or group 'Feld'; nearest: Field"):
        run("Feld")


def test_cells_are_explained_among_the_choice_of_their_map(
    small_model: Model, scene: Path, tmp_path: Path
) -> None:
    target = tmp_path / "map.gpkg"
    cells = classify(small_model, scene, target, exclude_classes=("Field",))
    options = ExplainOptions(result=str(target), cells=3)
    why = rssc_geo.explain(scene, tmp_path / "why", options, model=predictor(small_model))
    for cell in why.cells:
        known = cells.loc[(cell.row, cell.col)]
        assert (cell.class_name, cell.runner_up) == (known["class"], known["runner_up"])
        assert cell.confidence == pytest.approx(known["confidence"], abs=1e-5)
        assert np.isfinite(cell.reasons.evidence).all()
        assert np.isfinite(cell.reasons.total)
    given = dataclasses.replace(options, only_classes=("Field", "Town b"))
    other = rssc_geo.explain(scene, tmp_path / "other", given, model=predictor(small_model))
    assert {cell.class_name for cell in other.cells} <= {"Field", "Town <b>"}
    with pytest.raises(UsageError, match="one class only to choose"):
        rssc_geo.explain(
            scene,
            tmp_path / "none",
            ExplainOptions(
                at=((500_010.0, 4_999_990.0),), tile_size="64px", only_classes=("Field",)
            ),
            model=predictor(small_model),
        )


def test_pictures_are_measured_among_the_choice(small_model: Model, folder: Path) -> None:
    data = load_image_folder(folder, size=64)
    options = EvaluateOptions(caption_source="none", device="cpu")
    free = evaluate(small_model, data, options)
    held = evaluate(
        small_model, data, dataclasses.replace(options, exclude_classes=("river wide",))
    )
    kept = np.flatnonzero(free.truth != 1)
    assert held.data.names == tuple(data.names[place] for place in kept)
    np.testing.assert_allclose(
        held.predictions.probabilities,
        restricted(free.predictions.probabilities[kept], [0, 2]),
        atol=1e-5,
    )
    assert held.as_dict()["class_choice"] == ["Field", "Town <b>"]
    assert "class_choice" not in free.as_dict()
    assert held.scores.confusion[:, 1].sum() == held.scores.confusion[1].sum() == 0
    only_river = dataclasses.replace(data.take(np.flatnonzero(data.labels == 1)))
    with pytest.raises(InputError, match=r"one of the model's \(Field, …\)"):
        evaluate(small_model, only_river, dataclasses.replace(options, only_classes=("Field",)))


def test_classes_named_by_words_are_all_to_choose(small_model: Model) -> None:
    model = rssc_geo.load_model("compact", captioner="none", device="cpu").choosing((1, 2))
    assert name_classes(model.model, ["water", "forest"]).choice is None


_DOORS = {
    "classify": ["scene.tif", "-o", "map.gpkg"],
    "batch run": ["scene.tif", "-o", "maps"],
    "explain": ["scene.tif", "-o", "why", "--at", "500010,4999990"],
    "evaluate": ["compact", "pictures"],
}


@pytest.mark.parametrize("command", _DOORS)
def test_unknown_names_are_told_before_torch_is_loaded(
    command: str, scene: Path, tmp_path: Path
) -> None:
    program = (
        "import sys\nfrom rssc_geo_cli.main import run\ncode = run(sys.argv[1:])\n"
        "assert 'torch' not in sys.modules\nsys.exit(code)"
    )
    words = [*command.split(), *_DOORS[command], "--only-classes", "Prot,Beach"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "--only-classes: the model 'compact' has no class or group 'Prot'; nearest: Port" in line
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_words_of_zero_shot_are_its_classes(tmp_path: Path, scene: Path) -> None:
    words = ["zero-shot", str(scene), "-o", "x.gpkg", "--classes", "a,b", "--only-classes", "a"]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from rssc_geo_cli.main import main; main()", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--only-classes" in done.stderr


def test_the_choice_is_plain_data(small_model: Model) -> None:
    spec = predictor(small_model).choosing((0, 2)).spec
    assert json.loads(json.dumps(spec.as_dict()))["class_choice"] == ["Field", "Town <b>"]
