"""Explanations of classes.

Evidence that adds up and whose removal counts, words left out, maps in their right place.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image
from rasterio.coords import BoundingBox

import rssc_geo
from rssc_geo import ClassifyOptions, ClassifyResult, ExplainOptions, ExplainResult, Predictor
from rssc_geo.captioning import make_captioner
from rssc_geo.errors import InputError, OutputError, UsageError
from rssc_geo.inference import choose_compute
from rssc_geo.models import (
    Attribution,
    Model,
    ReadCaption,
    Word,
    attribute,
    load_bundle,
    name_classes,
)
from rssc_geo.models.attribution import _as_map
from tests.factories import texture, write_raster

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from demo_scene.plan import draw_scene

TRANSFORM = Affine(2.0, 0, 500_000, 0, -2.0, 5_000_000)


def predictor(model: Model) -> Predictor:
    return Predictor(model, make_captioner(model), choose_compute("cpu", dtype="float32"))


def classify(scene: Path, target: Path, *, model: Model, **options: object) -> ClassifyResult:
    return rssc_geo.classify(scene, target, ClassifyOptions(**options), model=predictor(model))


def explain(scene: Path, folder: Path, *, model: Model, **options: object) -> ExplainResult:
    if "at" in options:
        options["at"] = tuple(options["at"])
    if "result" in options:
        options["result"] = str(options["result"])
    return rssc_geo.explain(scene, folder, ExplainOptions(**options), model=predictor(model))


@pytest.fixture(scope="module")
def compact() -> Model:
    return load_bundle("compact")


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """Tiles of the demo scene at the network's size: uint8 (36, 192, 192, 3)."""
    pixels = draw_scene(gsd_m=7.5).pixels
    cut = [
        pixels[row : row + 56, col : col + 56]
        for row in range(20, 530, 85)
        for col in range(20, 530, 85)
    ]
    return np.stack(
        [
            np.asarray(Image.fromarray(tile).resize((192, 192), Image.Resampling.BICUBIC))
            for tile in cut
        ]
    )


def probabilities(model: Model, pixels: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
    """What the network says of pictures without words.

    What ``masks`` leaves out is filled as invalid pixels are.
    """
    masks = np.ones(pixels.shape[:3], bool) if masks is None else masks
    with torch.inference_mode():
        logits = model.network(model.preprocess(pixels, masks)) / model.card.temperature
    return logits.softmax(1).numpy()


def log_odds(
    model: Model, pixels: np.ndarray, masks: np.ndarray | None, class_ids: np.ndarray
) -> np.ndarray:
    p = probabilities(model, pixels, masks).astype(np.float64)[np.arange(len(pixels)), class_ids]
    return np.log(p) - np.log1p(-p)


def reasons_of(
    model: Model, pixels: np.ndarray, class_id: int, caption: str = "", *, words_read: bool = False
) -> Attribution:
    mask = np.ones(pixels.shape[:2], bool)
    read = ReadCaption(caption, "generated", words_read)
    return attribute(model, pixels, mask, class_id=class_id, caption=read)


@pytest.mark.slow
def test_removing_what_counts_lowers_the_class_more_than_removing_anything(
    compact: Model, tiles: np.ndarray
) -> None:
    class_ids = probabilities(compact, tiles).argmax(1)
    whole = log_odds(compact, tiles, None, class_ids)
    maps = [
        reasons_of(compact, tile, class_id)
        for tile, class_id in zip(tiles, class_ids.tolist(), strict=True)
    ]
    random = np.random.default_rng(0)
    evidence = [reasons.evidence for reasons in maps]
    lost = {}
    for name, draws in {
        "evidence": [evidence],
        "least": [[-heat for heat in evidence]],
        # Random maps are as smooth as those of the 6 × 6 tokens: single pixels would be another
        # test.
        "random": [
            [_as_map(torch.from_numpy(random.random(36)), (192, 192)) for _ in maps]
            for _ in range(3)
        ],
    }.items():
        kept = [np.stack([heat <= np.quantile(heat, 0.8) for heat in heats]) for heats in draws]
        lost[name] = np.mean(
            [whole - log_odds(compact, tiles, masks, class_ids) for masks in kept], axis=0
        )
    means = {name: values.mean() for name, values in lost.items()}
    assert means["evidence"] > means["random"] + 0.3, means
    assert (lost["evidence"] > lost["random"]).mean() > 0.6, means
    assert means["random"] > means["least"] + 0.3, means


def test_evidence_adds_up_to_what_the_picture_adds(compact: Model, tiles: np.ndarray) -> None:
    tile = tiles[:1]
    for class_id in (int(probabilities(compact, tile).argmax()), 3):
        reasons = reasons_of(compact, tile[0], class_id)
        nothing = log_odds(compact, tile, np.zeros(tile.shape[:3], bool), np.array([class_id]))
        assert reasons.total == pytest.approx(
            (log_odds(compact, tile, None, np.array([class_id])) - nothing).item(), abs=2e-2
        )
        assert reasons.evidence.mean() == pytest.approx(
            reasons.total, abs=0.1 + 0.02 * abs(reasons.total)
        )
        assert reasons.attention is None  # of no words


def test_an_invalid_half_speaks_for_nothing(compact: Model, tiles: np.ndarray) -> None:
    mask = np.ones((192, 192), bool)
    mask[:, 96:] = False
    class_id = int(probabilities(compact, tiles[:1], mask[None]).argmax())
    nothing = ReadCaption("", "generated", read=False)
    half = attribute(compact, tiles[0], mask, class_id=class_id, caption=nothing)
    # The last token column sees little of the valid half; the blank picture is what it is compared
    # with.
    assert np.abs(half.evidence[:, 176:]).mean() < 0.2 * np.abs(half.evidence[:, :96]).mean()
    assert half.words == ()


def test_a_word_counts_what_is_lost_without_it(small_model: Model) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    reasons = reasons_of(small_model, pixels, 1, "Many houses, roads and trees", words_read=True)
    assert [word.text for word in reasons.words] == ["Many", "houses,", "roads", "and", "trees"]
    images = small_model.preprocess(pixels[None], np.ones((1, 64, 64), bool))
    odds = []
    for text in ("Many houses, roads and trees", "Many roads and trees"):
        with torch.inference_mode():
            p = (
                small_model.network(images, *small_model.tokenize([text], source="generated")) / 1.5
            ).softmax(1)[0, 1]
        odds.append(float(p.log() - (1 - p).log()))
    assert reasons.words[1].effect == pytest.approx(odds[0] - odds[1], abs=1e-5)
    assert sum(word.attention or 0 for word in reasons.words) == pytest.approx(1)
    assert (
        not small_model.network.level.text_cross_attention._forward_hooks
    )  # the network is left as it was
    # Not read: the evidence is that of the picture alone.
    silent = reasons_of(small_model, pixels, 1, "Many houses, roads and trees")
    assert silent.total != reasons.total
    assert silent.total == reasons_of(small_model, pixels, 1).total


def test_top_words_are_those_for_the_class() -> None:
    words = (
        Word("Many", -0.5, None),
        Word("planes,", 0.4, None),
        Word("an", 0.05, None),
        Word("airport.", 0.3, None),
    )
    reasons = Attribution(
        np.zeros((1, 1)), None, 0.0, (*words, Word("planes", 0.2, None), Word(".", 0.3, None))
    )
    assert reasons.top_words == ("planes", "airport")
    assert Attribution(np.zeros((1, 1)), None, 0.0, ()).top_words == ()


def test_classes_named_by_words_have_evidence_but_no_attention(
    compact: Model, tiles: np.ndarray
) -> None:
    named = name_classes(compact, ["river", "town"])
    reasons = reasons_of(named, tiles[0], 0, "a river")
    assert reasons.attention is None
    assert [(word.effect, word.attention) for word in reasons.words] == [(0, None), (0, None)]
    assert np.ptp(reasons.evidence) > 0


def test_tokens_of_no_place_are_left_out_of_the_map() -> None:
    values = torch.zeros(1 + 4 * 4)
    values[0], values[1 + 4 + 2] = 100, 1  # the class token; row 1, column 2
    spread = _as_map(values, (64, 64))
    assert spread.max() == pytest.approx(1, abs=0.1)
    assert np.unravel_index(spread.argmax(), spread.shape)[0] in range(16, 32)
    assert np.unravel_index(spread.argmax(), spread.shape)[1] in range(32, 48)
    assert _as_map(torch.arange(8.0), (32, 64)).shape == (32, 64)  # 2 × 4


def write_scene(
    path: Path, height: int, width: int, *, hole: bool = False, transform: Affine = TRANSFORM
) -> Path:
    pixels = texture(height, width)
    if hole:
        pixels[:, :50, :50] = 0
        pixels[:, -40:] = 0
    return write_raster(path, pixels, photometric="rgb", nodata=0, transform=transform)


def test_explained_cells_are_those_that_classify_writes(small_model: Model, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", 300, 250, hole=True)
    tiling = {"tile_size": "100px", "cell_size": "60px"}
    classify(scene, tmp_path / "map.gpkg", model=small_model, smooth=False, **tiling)
    cells = gpd.read_file(tmp_path / "map.gpkg", layer="cells").set_index(["row", "col"])
    # Row 1, column 3 twice; the raster's corner, where the cell is narrower.
    points = [
        (500_000 + 2 * x, 5_000_000 - 2 * y)
        for x, y in ((200, 70), (239, 119), (10, 100), (249, 180))
    ]
    done = explain(scene, tmp_path / "why", at=points, model=small_model, **tiling)
    assert [(cell.row, cell.col) for cell in done.cells] == [(1, 3), (1, 0), (3, 4)]
    table = gpd.read_file(done.index, layer="explained")
    for number, cell in enumerate(done.cells):
        known = cells.loc[cell.row, cell.col]
        row = table.iloc[number]
        for field in ("class", "class_id", "runner_up", "caption"):
            assert row[field] == known[field]
        assert row["confidence"] == pytest.approx(known["confidence"], abs=1e-5)
        assert row["margin"] == pytest.approx(known["margin"], abs=1e-5)
        assert row["words_read"]
        assert row.geometry.equals(known.geometry)
        assert row["top_words"] == ", ".join(cell.reasons.top_words)
        with Image.open(done.folder / row["panel"]) as panel:
            assert panel.format == "PNG"
            assert panel.width > 1200
    names = {
        "explain.gpkg",
        *(cell.panel for cell in done.cells),
        *(cell.heat_map for cell in done.cells),
    }
    assert {path.name for path in done.folder.iterdir()} == names


@pytest.mark.parametrize(("height", "width"), [(1, 190), (190, 1), (1, 1), (190, 201)])
def test_narrow_cells_are_explained(
    height: int, width: int, small_model: Model, tmp_path: Path
) -> None:
    """Cells of hardly a pixel of the picture."""
    scene = write_scene(tmp_path / "scene.tif", height, width)
    last = (500_000 + 2 * width - 1, 5_000_000 - 2 * height + 1)
    options = {"tile_size": "200px", "cell_size": "1px", "model": small_model}
    done = explain(scene, tmp_path / "why", at=[(500_001, 4_999_999), last], **options)
    assert [(cell.row, cell.col) for cell in done.cells][-1] == (height - 1, width - 1)
    for cell in done.cells:
        with Image.open(done.folder / cell.panel) as panel:
            assert panel.width > 1200


def test_heat_maps_lie_on_their_tiles(small_model: Model, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", 300, 250, hole=True)
    points = [(500_000 + 2 * x, 5_000_000 - 2 * y) for x, y in ((70, 70), (240, 240))]
    done = explain(scene, tmp_path / "why", at=points, model=small_model, tile_size="100px")
    first, last = (rasterio.open(done.folder / cell.heat_map) for cell in done.cells)
    with first, last:
        # Tiles of 100 px from (0, 0), and, shifted to the raster's end, from row 200 and column
        # 150.
        assert first.bounds == BoundingBox(500_000, 4_999_800, 500_200, 5_000_000)
        assert last.bounds == BoundingBox(500_300, 4_999_400, 500_500, 4_999_600)
        assert first.crs == rasterio.CRS.from_epsg(32632)
        assert first.dtypes == ("float32", "float32")
        assert first.shape == (64, 64)
        assert first.descriptions[0] == f"Evidence for {done.cells[0].class_name} (log-odds)"
        seen, valid = first.read(1), first.read_masks(1) > 0
        assert np.isnan(first.nodata)
        assert not valid[:31, :31].any()
        assert valid[33:].all()
        expected = done.cells[0].reasons.evidence
        np.testing.assert_array_equal(seen[valid], expected[valid])
        assert not (last.read_masks(2)[40:] > 0).any()


def test_a_raster_smaller_than_a_tile_has_a_map_of_its_own_size(
    small_model: Model, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "scene.tif", 100, 40)
    done = explain(
        scene, tmp_path / "why", at=[(500_001, 4_999_999)], model=small_model, tile_size="100px"
    )
    with (
        rasterio.open(done.folder / done.cells[0].heat_map) as heat,
        rasterio.open(scene) as raster,
    ):
        assert heat.bounds == raster.bounds
        assert heat.shape == (64, 26)


def test_turned_rasters_and_maps_in_another_crs(small_model: Model, tmp_path: Path) -> None:
    turned = TRANSFORM @ Affine.rotation(30)
    scene = write_scene(tmp_path / "scene.tif", 200, 300, transform=turned)
    classify(scene, tmp_path / "map.gpkg", model=small_model, tile_size="100px", crs="EPSG:4326")
    done = explain(
        scene, tmp_path / "why", result=tmp_path / "map.gpkg", cells=6, model=small_model
    )
    assert {(cell.row, cell.col) for cell in done.cells} == {
        (row, col) for row in range(2) for col in range(3)
    }
    with rasterio.open(done.folder / "cell_00001_00002.tif") as heat:
        assert heat.transform.almost_equals(
            turned @ Affine.translation(200, 100) @ Affine.scale(100 / 64)
        )
    # The grid of another tile size has other cells there.
    with pytest.raises(InputError, match="lies elsewhere"):
        explain(
            scene, tmp_path / "b", result=tmp_path / "map.gpkg", model=small_model, tile_size="80px"
        )


def test_another_class_than_the_map_has_is_said(
    small_model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scene = write_scene(tmp_path / "scene.tif", 200, 200)
    classify(
        scene, tmp_path / "map.geojson", model=small_model, tile_size="100px", crs="EPSG:32632"
    )
    # A GeoJSON does not say how it was made: other colors, other classes.
    with rasterio.open(scene, "r+") as dataset:
        dataset.write(255 - dataset.read())
    opposite = dataclasses.replace(small_model)
    with caplog.at_level(logging.WARNING):
        done = explain(
            scene,
            tmp_path / "why",
            result=tmp_path / "map.geojson",
            model=opposite,
            tile_size="100px",
        )
    known = gpd.read_file(tmp_path / "map_cells.geojson").sort_values("confidence", kind="stable")
    assert [(cell.row, cell.col) for cell in done.cells] == list(
        zip(known["row"], known["col"], strict=True)
    )
    differ = sum(
        cell.class_name != name for cell, name in zip(done.cells, known["class"], strict=True)
    )
    assert ("cells have another class there" in caplog.text) == (differ > 0)


def test_nothing_is_left_behind_when_a_cell_has_no_class(
    small_model: Model, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "scene.tif", 300, 250, hole=True)
    points = [(500_300, 4_999_700), (500_010, 4_999_990)]
    with pytest.raises(
        InputError, match=r"--at 500010,4999990: less than 50% of the cell's pixels are valid"
    ):
        explain(scene, tmp_path / "why", at=points, model=small_model, tile_size="50px")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]


def test_only_earlier_explanations_and_empty_folders_are_replaced(
    small_model: Model, tmp_path: Path
) -> None:
    scene, folder = write_scene(tmp_path / "scene.tif", 100, 100), tmp_path / "why"
    options = {"at": [(500_100, 4_999_900)], "model": small_model, "tile_size": "100px"}
    folder.mkdir()
    explain(scene, folder, **options)
    with pytest.raises(OutputError, match="exists"):
        explain(scene, folder, **options)
    (folder / "explanation.html").touch()
    explain(scene, folder, overwrite=True, **options)
    mine = folder / "cell_20240612_101530.png"
    mine.touch()
    with pytest.raises(OutputError, match=r"holds cell_20240612_101530\.png, which is of no"):
        explain(scene, folder, overwrite=True, **options)
    mine.unlink()
    (folder / "explain.gpkg").unlink()
    with pytest.raises(OutputError, match=r"holds no explain\.gpkg"):
        explain(scene, folder, overwrite=True, **options)


def test_a_folder_with_the_raster_is_spared(small_model: Model, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", 100, 100)
    (tmp_path / "explain.gpkg").touch()
    with pytest.raises(UsageError, match="choose another folder"):
        explain(scene, tmp_path, at=[(500_100, 4_999_900)], model=small_model, overwrite=True)
    assert scene.is_file()


def test_a_model_of_one_class_explains_nothing(small_model: Model, tmp_path: Path) -> None:
    alone = dataclasses.replace(
        small_model,
        card=dataclasses.replace(small_model.card, classes=small_model.card.classes[:1]),
    )
    with pytest.raises(UsageError, match="one class only"):
        explain(tmp_path / "scene.tif", tmp_path / "why", at=[(0, 0)], model=alone)


def test_the_cell_of_a_map_at_a_point_needs_the_raster_that_the_map_was_made_of(
    small_model: Model, tmp_path: Path
) -> None:
    pixels = texture(200, 120)
    scene = write_raster(tmp_path / "scene.tif", pixels, transform=TRANSFORM, photometric="rgb")
    classify(scene, tmp_path / "map.gpkg", model=small_model, tile_size="40px", cell_size="20px")
    cells = gpd.read_file(tmp_path / "map.gpkg", layer="cells")
    point = cells.geometry[7].centroid
    moved = tmp_path / "elsewhere" / "renamed.tif"
    moved.parent.mkdir()
    scene.rename(moved)
    result = explain(
        moved,
        tmp_path / "why",
        result=tmp_path / "map.gpkg",
        at=[(point.x, point.y)],
        model=small_model,
    )
    assert [(cell.row, cell.col) for cell in result.cells] == [(cells["row"][7], cells["col"][7])]
    assert result.cells[0].class_name == cells["class"][7]
    other = write_raster(scene, pixels[:, ::-1], transform=TRANSFORM, photometric="rgb")
    with pytest.raises(InputError, match="is not the raster that .*map.gpkg was made of"):
        explain(
            other,
            tmp_path / "wrong",
            result=tmp_path / "map.gpkg",
            at=[(point.x, point.y)],
            model=small_model,
        )
