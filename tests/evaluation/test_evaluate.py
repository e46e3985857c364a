"""Figures agree with the network run by hand, and baselines read what they say."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import torch
from affine import Affine
from PIL import Image
from shapely import Point, box

from rssc_geo import load_model
from rssc_geo.errors import InputError, OutputError, RsscGeoError, UsageError
from rssc_geo.evaluation import (
    GENERATED,
    IMAGE_ONLY,
    ArmData,
    Comparison,
    Concatenation,
    Predictions,
    TextOnly,
    compare_arms,
    compare_baselines,
    evaluate_on_polygons,
    match_classes,
)
from rssc_geo.evaluation.evaluate import evaluate
from rssc_geo.inference import make_plan
from rssc_geo.locks import FileLock
from rssc_geo.models import Model
from rssc_geo.options import BaselineOptions, EvaluateOptions, TilingOptions
from rssc_geo.training import (
    Features,
    FusionRecipe,
    Legend,
    SceneImages,
    all_corruptions,
    cut_patches,
    load_image_folder,
    read_labels,
    stratified_split,
)
from tests.chat_server import ChatServer
from tests.factories import write_raster


@pytest.fixture(scope="module")
def data(folder: Path) -> SceneImages:
    return load_image_folder(folder, size=64)


def test_figures_are_those_of_the_network(
    small_model: Model, data: SceneImages, bundle: Path
) -> None:
    found = evaluate(small_model, data, EvaluateOptions(caption_source="none", device="cpu"))
    with torch.inference_mode():
        images = small_model.preprocess(data.pixels, np.ones(data.pixels.shape[:3], bool))
        logits = small_model.network(images) / small_model.card.temperature
    np.testing.assert_allclose(
        found.predictions.probabilities, logits.softmax(1).numpy(), atol=1e-5
    )
    assert found.scores.overall_accuracy == pytest.approx(
        (logits.argmax(1).numpy() == data.labels).mean()
    )
    assert found.scores.confusion.sum() == 60
    assert found.predictions.embedding.shape == (60, 32 + 1024)
    assert found.captions["CIDEr"] >= 0
    assert json.loads(json.dumps(found.as_dict()))["images"] == 60
    predictor = load_model(bundle, device="cpu", dtype="float32")
    again = evaluate(predictor, data, EvaluateOptions(caption_source="none"))
    np.testing.assert_allclose(
        again.predictions.probabilities, found.predictions.probabilities, atol=2e-3
    )  # half precision on disk
    coarse = load_model(bundle, device="cpu", dtype="bfloat16")
    rough = evaluate(coarse, data, EvaluateOptions(caption_source="none")).predictions
    np.testing.assert_allclose(rough.probabilities, again.predictions.probabilities, atol=0.05)
    table = found.to_pandas()
    assert (table["class"] == table["predicted"]).mean() == pytest.approx(
        found.scores.overall_accuracy
    )
    assert table.name.tolist() == list(data.names)
    assert table.caption.tolist() == found.predictions.captions


def test_a_part_is_that_of_the_training(
    small_model: Model, data: SceneImages, folder: Path
) -> None:
    def names(**options: object) -> list[str]:
        chosen = EvaluateOptions(caption_source="none", device="cpu", **options)
        return list(evaluate(small_model, folder, chosen).data.names)

    told = {"seed": 7, "options": {"val": 0.2, "test": 0.3}}
    card = dataclasses.replace(small_model.card, training=told)
    trained = dataclasses.replace(small_model, card=card)
    split = stratified_split(data, seed=7, val=0.2, test=0.3)
    options = EvaluateOptions(part="test", caption_source="none", device="cpu")
    found = evaluate(trained, folder, options)
    assert found.data.names == data.take(split["test"]).names
    assert len(names()) == 60
    assert names(part="val", seed=7, val=0.2, test=0.3) == list(data.take(split["val"]).names)


def test_words_are_read_as_asked(small_model: Model, data: SceneImages) -> None:
    def predictions(model: Model, source: str) -> Predictions:
        options = EvaluateOptions(caption_source=source, device="cpu")
        return evaluate(model, data, options).predictions

    by_words = {source: predictions(small_model, source) for source in ("own", "none", "human")}
    assert by_words["own"].captions == by_words["none"].captions
    assert not np.allclose(by_words["own"].probabilities, by_words["none"].probabilities, atol=1e-6)
    assert not np.allclose(
        by_words["human"].probabilities[:59], by_words["none"].probabilities[:59], atol=1e-6
    )
    # The last picture has no caption: nothing is read of it.
    np.testing.assert_allclose(
        by_words["human"].probabilities[59], by_words["none"].probabilities[59], atol=1e-6
    )
    mute = dataclasses.replace(
        small_model, card=dataclasses.replace(small_model.card, reads_own_captions=False)
    )
    np.testing.assert_allclose(
        predictions(mute, "own").probabilities, by_words["none"].probabilities, atol=1e-6
    )
    silent = dataclasses.replace(data, captions=((),) * 60)
    with pytest.raises(UsageError, match="--caption-source human needs captions"):
        evaluate(small_model, silent, EvaluateOptions(caption_source="human"))


def test_classes_are_matched_by_name(small_model: Model, data: SceneImages) -> None:
    other = dataclasses.replace(data, legend=Legend.of_classes(("f i e l d", "Sea", "TOWN B")))
    found = match_classes(other, small_model.card, {"Sea": "river wide"})
    assert found.classes == ("Field", "River, wide", "Town <b>")
    np.testing.assert_array_equal(found.labels, data.labels)
    assert len(match_classes(other, small_model.card, {}).labels) == 40
    assert len(match_classes(other, small_model.card, {"Sea": ""}).labels) == 40
    with pytest.raises(UsageError, match="not there: Lake, Ocean"):
        match_classes(other, small_model.card, {"Lake": "Field", "Sea": "Ocean"})
    with pytest.raises(InputError, match="none of the data set's classes"):
        strange = dataclasses.replace(data, legend=Legend.of_classes(("x", "y", "z")))
        match_classes(strange, small_model.card, {})


def test_corruptions_keep_the_form_and_do_something(data: SceneImages) -> None:
    pixels = data.pixels[::10]
    for name, corrupt in all_corruptions().items():
        changed = corrupt(pixels)
        assert changed.dtype == np.uint8, name
        assert changed.shape == pixels.shape, name
        assert not np.array_equal(changed, pixels), name
        np.testing.assert_array_equal(changed, corrupt(pixels), err_msg=name)
    center = np.zeros((1, 64, 64, 3), np.uint8)
    center[:, 24:40, 24:40] = 200
    assert (all_corruptions()["footprint 1/4"](center)[0, 4:60, 4:60] == 200).all()
    assert all_corruptions()["footprint 2"](center)[0, 28:36, 28:36].min() == 200
    assert all_corruptions()["footprint 2"](center)[0, 17:26, 17:47].max() == 0


@pytest.mark.slow
def test_report_files(small_model: Model, data: SceneImages, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'train' is not installed")
    options = EvaluateOptions(robustness=True, device="cpu")
    found = evaluate(small_model, data, options, output=tmp_path / "new" / "out")
    assert set(found.robustness) == set(all_corruptions())
    names = [path.name for path in found.files]
    assert names[:3] == ["evaluation.json", "confusion.png", "embedding.png"]
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == sorted(names)
    assert all(path.stat().st_size > 100 for path in found.files)
    written = json.loads(found.files[0].read_text())
    assert written["overall_accuracy"] == pytest.approx(found.scores.overall_accuracy, abs=1e-4)
    assert found.as_dict() == written | {"files": [str(path) for path in found.files]}
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the folder"):
        evaluate(small_model, data, output=tmp_path / "file")


def test_pictures_of_classes_that_the_model_has_not_are_left_out_with_a_word(
    small_model: Model, data: SceneImages, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("Orchard", *data.classes[1:])
    strange = dataclasses.replace(data, legend=Legend.of_classes(names))
    assert len(match_classes(strange, small_model.card, {}).names) == 40
    assert "20 of 60 pictures are left out" in caplog.text
    assert "no class of the model is called 'Orchard'; --class-map states" in caplog.text
    caplog.clear()
    assert len(match_classes(strange, small_model.card, {"Orchard": ""}).names) == 40
    assert not caplog.records, "as asked for"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON: "),
        ("[]", "is not a JSON object of class names such as"),
        ('{"Field": ["River"]}', "is not a JSON object of class names such as"),
        ('{"Field": null}', "is not a JSON object of class names such as"),
    ],
)
def test_a_class_map_that_is_none_is_refused(
    folder: Path, bundle: Path, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "map.json").write_text(text)
    options = EvaluateOptions(class_map=str(tmp_path / "map.json"))
    with pytest.raises(InputError, match=f"map.json {message}"):
        evaluate(bundle, folder, options)


def test_what_makes_no_sense_is_refused_before_the_model_is_loaded(
    folder: Path, bundle: Path
) -> None:
    pairs = [("scene.tif", "labels.gpkg")]
    with pytest.raises(UsageError, match="--part test has no effect for polygons"):
        evaluate_on_polygons(bundle, pairs, EvaluateOptions(part="test"))
    with pytest.raises(InputError, match=r"none.json cannot be read: No such file"):
        evaluate(bundle, folder, EvaluateOptions(class_map="none.json"))
    with pytest.raises(InputError, match="no such folder"):
        evaluate(bundle, folder / "none")
    for options in (BaselineOptions(baselines=1, work="w"), BaselineOptions(baselines=2)):
        with pytest.raises(UsageError, match="--baselines needs at least 2 seeds"):
            compare_baselines(bundle, folder, options)


def test_labels_on_a_raster_are_measured_by_the_patches_of_the_training(
    small_model: Model, bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transform = Affine(10, 0, 500_000, 0, -10, 5_000_000)
    pixels = np.full((3, 80, 120), 90, np.uint8)
    pixels[:, :20, :20] = 0
    path = write_raster(tmp_path / "scene.tif", pixels, transform=transform, nodata=0)

    def area(left: int, top: int, right: int, bottom: int):
        return box(*(transform @ (left, bottom)), *(transform @ (right, top)))

    shapes = [
        ("field", area(0, 0, 60, 40)),  # its first corner is nodata
        ("river, wide", Point(*(transform @ (90, 20)))),
        ("field", area(100, 60, 103, 62)),  # far smaller than a tile
        ("elsewhere", area(0, 60, 40, 80)),
    ]
    frame = gpd.GeoDataFrame(
        {"kind": [name for name, _ in shapes]},
        geometry=[shape for _, shape in shapes],
        crs="EPSG:32632",
    )
    labels = tmp_path / "labels.gpkg"
    frame.to_crs(4326).to_file(labels)
    options = EvaluateOptions(field="kind", tile_size="20px", device="cpu")
    measured = evaluate_on_polygons(small_model, [(path, labels)], options)
    plan = make_plan(path, small_model.card, TilingOptions(tile_size="20px"))
    read = read_labels(labels, plan.scene, field="kind", around_points=plan.grid.size)
    patches = cut_patches(plan, read, purity=0.6, out_size=small_model.card.input_size)
    known = patches.names != "elsewhere"
    assert measured.data.names == tuple(patches.where[known].tolist())
    assert np.array_equal(measured.data.pixels, patches.pixels[known])
    assert set(measured.truth.tolist()) == {0, 1}  # a polygon and a point
    assert "1 of " in measured.warnings[0]
    assert "patches show mostly something else" in measured.warnings[0]
    low, high = measured.interval
    assert low <= measured.scores.overall_accuracy <= high
    assert measured.as_dict()["interval"] == [round(low, 4), round(high, 4)]

    twice = evaluate_on_polygons(small_model, [(path, labels)] * 2, options)
    assert twice.scores.confusion.tolist() == (2 * measured.scores.confusion).tolist()
    # Twice the same places say no more.
    assert twice.blocks is not None
    assert len(set(twice.blocks.tolist())) == len(set(measured.blocks.tolist()))  # type: ignore[union-attr]

    for more, words in (
        ({"cell_size": "20px"}, "--cell-size has no effect here"),
        ({"captions": "captions.jsonl"}, "labels on a raster have no captions by people"),
        ({"caption_source": "human"}, "labels on a raster have no captions by people"),
        ({"caption_when": "uncertain", "captioner": "hf:x"}, "--caption-when is for maps"),
        ({"captioner": "gpt"}, "--captioner 'gpt' is unknown"),
    ):
        with pytest.raises(UsageError, match=words):
            evaluate_on_polygons(
                small_model, [(path, labels)], dataclasses.replace(options, **more)
            )


def test_the_captioner_of_the_options_is_read(
    small_model: Model, folder: Path, bundle: Path, tmp_path: Path
) -> None:
    found = evaluate(bundle, folder, EvaluateOptions(device="cpu"))
    assert any(found.predictions.captions)
    none = evaluate(bundle, folder, EvaluateOptions(captioner="none", device="cpu"))
    assert not any(none.predictions.captions)
    assert none.captions == {}
    with ChatServer() as server:
        options = EvaluateOptions(
            captioner=server.captioner,
            caption_cache=str(tmp_path / "captions.sqlite"),
            device="cpu",
        )
        asked = evaluate(bundle, folder, options)
    different = {pixels.tobytes() for pixels in asked.data.pixels}
    assert len(server.pictures) == len(different)  # captions are cached by content
    assert set(asked.predictions.captions).isdisjoint(found.predictions.captions)


def test_captions_may_lie_in_another_file(folder: Path, bundle: Path, tmp_path: Path) -> None:
    picture = next(path for path in sorted(folder.rglob("*.png")))
    lines = tmp_path / "more.jsonl"
    name = f"{picture.parent.name}/{picture.name}"
    lines.write_text(json.dumps({"image": name, "captions": ["a wide river"]}) + "\n")
    options = EvaluateOptions(captions=str(lines), caption_source="human", device="cpu")
    found = evaluate(bundle, folder, options)
    assert [texts for texts in found.data.captions if texts] == [("a wide river",)]


@pytest.mark.parametrize("model", ["small_model", "fine_model"])
@pytest.mark.parametrize("kind", [TextOnly, Concatenation])
def test_baselines_read_what_they_say(
    kind: type, model: str, request: pytest.FixtureRequest
) -> None:
    torch.manual_seed(0)
    made: Model = request.getfixturevalue(model)
    network = kind(classes=3, **made.card.network).eval()
    width = network.image_encoder.width
    ids, mask = made.tokenize(["a green field", "many houses"])
    images = torch.randn(2, 4, width)
    with torch.inference_mode():
        first = network.classify(images, ids, mask)
        other_image = network.classify(torch.randn(2, 4, width), ids, mask)
        other_words = network.classify(images, ids.flip(0), mask.flip(0))
        alone = network.classify(images[:1], ids[:1], mask[:1])
    torch.testing.assert_close(first[:1], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(first, other_words)
    assert torch.allclose(first, other_image) == (kind is TextOnly)
    with torch.inference_mode():
        assert network.classify(images).shape == (2, 3)  # without words


@pytest.mark.slow
def test_baselines_are_compared_on_several_data_sets(
    small_model: Model, folder: Path, tmp_path: Path
) -> None:
    told = {"options": {"captioner": {"epochs": 1}, "views": 1, "val": 0.2, "test": 0.2}}
    model = dataclasses.replace(
        small_model, card=dataclasses.replace(small_model.card, training=told)
    )
    silent = tmp_path / "silent"
    for name, source in (("any", "Field"), ("Town <b>", "Town <b>")):
        (silent / "images" / name).mkdir(parents=True)
        for path in (folder / "images" / source).iterdir():
            with Image.open(path) as image:  # equal pictures would be for training alone
                image.rotate(90).save(silent / "images" / name / path.name)
    taxonomy = {
        "groups": {"All": [known.name for known in model.card.classes]},
        "sets": {"silent": {"any": ["Field", "River, wide"]}},
    }
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps(taxonomy), encoding="utf-8")
    options = BaselineOptions(
        baselines=2, fusion_epochs=1, taxonomy=str(file), work=str(tmp_path / "work"), device="cpu"
    )
    with pytest.raises(InputError, match="the classes of the pictures are not those of small"):
        compare_baselines(model, silent, dataclasses.replace(options, taxonomy=None))
    with pytest.raises(UsageError, match="no captions.jsonl, there is nothing to compare"):
        compare_baselines(model, silent, options)
    taken = dataclasses.replace(options, work=str(file))
    with pytest.raises(OutputError, match="cannot write taxonomy.json"):
        compare_baselines(model, [folder, silent], taken)
    found = compare_baselines(model, [folder, silent], options)
    by_name = {row.name: row for row in found.rows}
    assert len(by_name) == 11
    human = by_name["dual attention, human captions"]
    # 4 test pictures a label: 20, of which the 12 of the first data set are described
    assert all(round(value * 20, 6) % 1 == 0 for value in human.test)
    assert all(round(value * 12, 6) % 1 == 0 for value in human.described)


BASELINE_DAMAGE: tuple[Callable[[bytes], bytes], ...] = (
    lambda content: content[: len(content) // 2],
    lambda _: b"",
    lambda content: bytes(len(content)),
    lambda content: content[:-1] + bytes([content[-1] ^ 4]),
)


class Comparing:
    """Compares baselines on a copy of the pictures, in work folders."""

    def __init__(self, home: Path, pictures: Path, model: Model) -> None:
        told = {"options": {"captioner": {"epochs": 1}, "views": 1, "val": 0.2, "test": 0.2}}
        card = dataclasses.replace(model.card, training=told)
        self.model = dataclasses.replace(model, card=card)
        self.pictures = Path(shutil.copytree(pictures, home / "pictures"))
        names = [known.name for known in card.classes]
        groups = {"Field": names[:1], "River, wide": names[1:2], "Town <b>": names[2:]}
        self._taxonomy = home / "taxonomy.json"
        self._taxonomy.write_text(
            json.dumps({"groups": {"All": names}, "sets": {"pictures": groups}}), encoding="utf-8"
        )

    def __call__(self, work: Path, model: Model | None = None) -> Comparison:
        options = BaselineOptions(
            baselines=2,
            fusion_epochs=1,
            taxonomy=str(self._taxonomy),
            work=str(work),
            device="cpu",
        )
        return compare_baselines(model or self.model, self.pictures, options)

    def logits(self, work: Path, model: Model | None = None) -> dict[str, bytes]:
        """What each arm answers, by its file."""
        self(work, model)
        return {path.name: path.read_bytes() for path in work.glob("arm-*.safetensors")}


@pytest.fixture
def comparing(small_model: Model, folder: Path, tmp_path: Path) -> Comparing:
    return Comparing(tmp_path, folder, small_model)


@pytest.mark.slow
def test_damage_to_the_work_folder_changes_no_comparison(
    comparing: Comparing, tmp_path: Path
) -> None:
    """Each file in turn: damaged, gone, or another of its kind under its name, with the mark."""
    work = tmp_path / "work"
    right = comparing(work)
    whole = Path(shutil.copytree(work, tmp_path / "whole"))
    names = sorted(path.name for path in whole.iterdir())
    arms = [name for name in names if name.startswith("arm-") and not name.endswith(".mark")]
    assert len(arms) == 16
    assert comparing(work) == right
    for number, name in enumerate(names):
        shutil.rmtree(work)
        shutil.copytree(whole, work)
        kind = number % (len(BASELINE_DAMAGE) + 2)
        if kind < len(BASELINE_DAMAGE):
            (work / name).write_bytes(BASELINE_DAMAGE[kind]((whole / name).read_bytes()))
        elif kind == len(BASELINE_DAMAGE) or name not in arms:
            (work / name).unlink()
        else:
            other = arms[arms.index(name) - 1]
            for end in ("", ".mark"):
                shutil.copy(whole / f"{other}{end}", work / f"{name}{end}")
        try:
            assert comparing(work) == right, (name, kind)
        except RsscGeoError as error:
            assert name == "options.json", (name, kind)
            assert str(error).isprintable()  # noqa: PT017


@pytest.mark.slow
def test_changed_inputs_are_compared_anew(comparing: Comparing, tmp_path: Path) -> None:
    """As in a folder that knows nothing of the earlier ones."""
    work, model = tmp_path / "work", comparing.model
    found = [comparing.logits(work)]
    network = copy.deepcopy(model.network)
    with torch.no_grad():
        for value in network.text_encoder.parameters():
            value.copy_(value.flip(0))
    changed = dataclasses.replace(model, network=network)
    found.append(comparing.logits(work, changed))
    assert found[-1] == comparing.logits(tmp_path / "second", changed)
    assert found[-1] != found[0]
    places = sorted(comparing.pictures.glob("images/*/0*.png"))
    for first, second in zip(places[:10], places[-10:], strict=True):
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
    found.append(comparing.logits(work))
    assert comparing.logits(tmp_path / "third").items() <= found[-1].items()
    file = comparing.pictures / "captions.jsonl"
    file.write_text(file.read_text().replace("a field", "a green field"))
    found.append(comparing.logits(work))
    last = comparing.logits(tmp_path / "fourth")
    assert last.items() <= found[-1].items()
    assert any(found[-2][name] != content for name, content in last.items())


def test_a_work_folder_of_others_is_left_alone(comparing: Comparing, tmp_path: Path) -> None:
    """One with files and no options of ours, and one that another process uses."""
    work = tmp_path / "mine"
    work.mkdir()
    (work / "captions.json").write_text("what people wrote")
    with pytest.raises(OutputError, match="mine holds captions.json, which is of no training"):
        comparing(work)
    assert [(path.name, path.read_text()) for path in work.iterdir()] == [
        ("captions.json", "what people wrote")
    ]
    (work / "captions.json").unlink()
    with (
        FileLock(work / "lock.rssc-geo", taken=work),
        pytest.raises(OutputError, match="mine is in use by another rssc-geo process"),
    ):
        comparing(work)
    assert list(work.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small_model", "fine_model"])
def test_the_comparison_sees_where_words_help(
    name: str, data: SceneImages, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Pictures that say nothing and captions that tell the class.

    Only what reads them gets it right.
    """
    model: Model = request.getfixturevalue(name)
    data = dataclasses.replace(data, captions=(*data.captions[:59], ("this is a town",)))
    tokens = np.zeros((1, 60, 4, model.network.image_encoder.width), np.float16)
    features = Features(tokens, np.ones((1, 60), np.float32))
    words = ["field", "river", "trees"]
    generated = [[f"a {words[label]}" for label in data.labels.tolist()]]
    split = stratified_split(data, seed=0, val=0.2, test=0.3)
    recipe = FusionRecipe(18, learning_rate=3e-3, batch_size=12, min_tokens=0.5)
    arms = ArmData(data, features, split, generated)
    table = compare_arms(model, arms, recipe, seeds=2, work=tmp_path)
    found = {row.name: np.mean(row.test) for row in table.rows}
    assert found[GENERATED] == 1.0
    assert found["text only, own captions"] == 1.0
    assert found[IMAGE_ONLY] < 0.5
    silent = next(row for row in table.rows if row.name.endswith("→ no captions"))
    if model.network.image_head is not None:  # both are that head
        only = next(row for row in table.rows if row.name == IMAGE_ONLY)
        assert (silent.validation, silent.test) == (only.validation, only.test)
    assert [test.only_second for test in table.paired] == [0, 0]
    assert all(test.p_value < 0.05 for test in table.paired)
    lines = table.markdown().splitlines()
    assert sum(line.startswith("| ") for line in lines) == len(table.rows) + 1
    assert any(line.startswith(f"| {GENERATED} | 1.0000 ± 0.0000 |") for line in lines)
