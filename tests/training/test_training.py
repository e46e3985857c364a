"""The stages train on a small data set, split without leaks, and continue where they stopped."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from rssc_geo import TrainOptions
from rssc_geo.errors import InputError, OutputError, UsageError
from rssc_geo.models import (
    Model,
    ModelCard,
    StaticTextEncoder,
    load_bundle,
    load_card,
    name_classes,
    scene_classes,
)
from rssc_geo.training import (
    CaptionerRecipe,
    EncoderRecipe,
    Features,
    FusionData,
    FusionRecipe,
    LabelLoss,
    Legend,
    Report,
    SceneImages,
    StageRun,
    TrainingRecipe,
    WorkFolder,
    build_vocabulary,
    cache_features,
    deal_folds,
    hard_negatives,
    is_kept,
    keeping,
    load_image_folder,
    logits_of,
    overall_accuracy,
    stratified_split,
    train_captioner,
    train_encoder,
    train_fusion,
    train_recipe,
    trained_with,
    training_recipe,
    write_captions,
)
from rssc_geo.training.augment import augment
from rssc_geo.training.data import read_picture
from rssc_geo.training.loop import moving_average, warmup_cosine
from rssc_geo.training.stages.encoder import EncoderTask
from tests.users import without_privileges

COLORS = {"Field": (60, 160, 60), "River, wide": (40, 80, 180), "Town <b>": (170, 90, 80)}
CPU = torch.device("cpu")
ENCODER = EncoderRecipe(schedule=((1, 32), (1, 48)), batch_size=12)


@pytest.fixture(scope="module")
def data(folder: Path) -> SceneImages:
    return load_image_folder(folder, size=48)


def test_image_folder(data: SceneImages) -> None:
    assert data.pixels.shape == (60, 48, 48, 3)
    assert data.classes == tuple(sorted(COLORS))
    assert np.bincount(data.labels).tolist() == [20, 20, 20]
    assert data.captions[0] == ("this is a field .",)
    assert data.captions[-1] == ()


def _picture(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def test_pictures_of_odd_modes_are_read_as_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 250
    _picture(tmp_path / "a" / "cmyk.jpg", red, "CMYK")
    _picture(tmp_path / "a" / "alpha.png", red, "RGBA")
    _picture(tmp_path / "b" / "palette.png", red, "P")
    _picture(tmp_path / "b" / "gray16.png", np.full((8, 8), 65535 // 2, np.uint16))
    data = load_image_folder(tmp_path, size=4)
    found = dict(zip(data.names, data.pixels, strict=True))
    for name in ("a/cmyk.jpg", "a/alpha.png", "b/palette.png"):
        np.testing.assert_allclose(found[name].reshape(-1, 3).mean(0), (250, 0, 0), atol=6)
    np.testing.assert_array_equal(found["b/gray16.png"], 127)


def test_what_cannot_be_read_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        for index in range(2):
            _picture(tmp_path / name / f"{index}.png", np.full((8, 8, 3), index * 90, np.uint8))
    (tmp_path / "b" / "broken.png").write_bytes(b"no picture")
    whole = (tmp_path / "b" / "0.png").read_bytes()
    place = whole.index(b"IDAT") - 1
    damaged = whole[:place] + b"\4" + whole[place + 1 :]  # Pillow raises SyntaxError
    (tmp_path / "b" / "damaged.png").write_bytes(damaged)
    (tmp_path / "captions.jsonl").write_text(
        '{"image": "a/0.png", "captions": ["dark"]}\n{"image": "a/9.png", "captions": ["gone"]}\n'
    )
    with caplog.at_level(logging.WARNING):
        data = load_image_folder(tmp_path, size=8)
    assert data.names == ("a/0.png", "a/1.png", "b/0.png", "b/1.png")
    assert data.captions == (("dark",), (), (), ())
    said = [record.getMessage() for record in caplog.records]
    assert "2 of 6 images cannot be read" in said[0]
    assert "broken.png" in said[0]
    assert "1 captions name images that are not there, first a/9.png" in said[1]
    assert "3 of 4 images have no caption" in said[2]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_pictures_of_32_bit_and_what_is_no_file_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        _picture(tmp_path / file, np.zeros((8, 8, 3), np.uint8))
    for name, dtype in (("real", np.float32), ("whole", np.int32)):
        _picture(tmp_path / "a" / f"{name}.tif", np.full((8, 8), 200, dtype))
        with pytest.raises(ValueError, match="pixels of 32 bit; scale them to 8 bit first"):
            read_picture(tmp_path / "a" / f"{name}.tif", 8)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "folder.png").mkdir()
    data = load_image_folder(tmp_path, size=8)
    assert data.names == ("a/0.png", "a/1.png", "b/0.png", "b/1.png")
    assert "4 of 8 images cannot be read" in caplog.text
    assert "pipe.png (a folder, pipe or device, no file)" in caplog.text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no such folder"),
        (["a/"], "no images"),
        (["a/0.png", "a/1.png"], "one class folder only"),
        (["a/0.png", "a/1.png", "b/0.png"], r"fewer than two readable images in b \(1\)"),
        (["a/0.png", "a/1.png", "b/"], r"fewer than two readable images in b \(0\)"),
    ],
)
def test_folders_that_cannot_be_learned_from_are_refused(
    tmp_path: Path, files: list[str], message: str
) -> None:
    root = tmp_path / "data"
    for file in files:
        if file.endswith("/"):
            (root / file).mkdir(parents=True)
        else:
            _picture(root / file, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match=message):
        load_image_folder(root, size=8)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"image": "a/0.png"}',
        '{"image": "a/0.png", "captions": "a wood"}',
        '{"image": "a/0.png", "captions": [null]}',
        '{"image": "a/0.png", "captions": {"en": "a wood"}}',
        '{"image": 3, "captions": []}',
        "[" * 100_000,
    ],
)
def test_captions_that_are_no_captions_are_refused(tmp_path: Path, line: str) -> None:
    for file in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        _picture(tmp_path / file, np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "captions.jsonl").write_text(line)
    with pytest.raises(InputError, match="captions.jsonl, line 1: expected"):
        load_image_folder(tmp_path, size=8)
    (tmp_path / "captions.jsonl").write_bytes(b"\xe9")
    with pytest.raises(InputError, match="captions.jsonl cannot be read as text"):
        load_image_folder(tmp_path, size=8)


def test_an_image_has_the_captions_of_all_its_lines(tmp_path: Path) -> None:
    for file in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        _picture(tmp_path / file, np.zeros((8, 8, 3), np.uint8))
    lines = [("a/0.png", ["a  wood"]), ("b/0.png", [" ", ""]), ("a/0.png", ["trees", ""])]
    (tmp_path / "captions.jsonl").write_text(
        "\n".join(json.dumps({"image": image, "captions": texts}) for image, texts in lines)
    )
    data = load_image_folder(tmp_path, size=8)
    assert data.captions == (("a wood", "trees"), (), (), ()), "texts without words are none"


def test_captions_too_few_for_the_folds_are_refused_before_the_training(
    data: SceneImages, folder: Path, start: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "few")
    name = data.names[stratified_split(data, seed=0)["train"][0]]
    line = json.dumps({"image": name, "captions": ["this is a field ."]})
    (tmp_path / "few" / "captions.jsonl").write_text(line)
    with pytest.raises(InputError, match=r"only 1 of \d+ training images have a caption, too few"):
        _train(tmp_path / "few", tmp_path / "out", _options(start))
    assert not (tmp_path / "out.work").exists()


def test_split_is_stratified_disjoint_and_keeps_twins_together(
    data: SceneImages, caplog: pytest.LogCaptureFixture
) -> None:
    split = stratified_split(data, seed=0)
    assert "(1 pairs): Field/00.png = Field/19.png" in caplog.text
    together = np.concatenate(list(split.values()))
    assert sorted(together.tolist()) == list(range(60))
    for name, share in {"train": 16, "val": 2, "test": 2}.items():
        assert np.bincount(data.labels[split[name]]).tolist() == [share] * 3
    twins = [data.names.index("Field/00.png"), data.names.index("Field/19.png")]
    assert set(twins) <= set(split["train"].tolist())
    again = stratified_split(data, seed=0)
    assert all((split[k] == again[k]).all() for k in split)
    assert any((split[k] != stratified_split(data, seed=1)[k]).any() for k in split)


def test_few_pictures_still_train_and_validate() -> None:
    labels = np.repeat([0, 1], [2, 3])
    random = np.random.default_rng(0)
    data = SceneImages(
        random.integers(0, 255, (5, 4, 4, 3), dtype=np.uint8),
        labels,
        tuple("abcde"),
        Legend.of_classes(("x", "y")),
        ((),) * 5,
    )
    split = stratified_split(data, seed=0)
    assert np.bincount(data.labels[split["train"]]).tolist() == [1, 1]
    assert np.bincount(data.labels[split["val"]]).tolist() == [1, 1]
    with pytest.raises(InputError, match="must be above 0"):
        stratified_split(data, seed=0, val=0.6, test=0.4)


def test_folds_deal_every_class_alike(data: SceneImages) -> None:
    rows = stratified_split(data, seed=0)["train"]
    folds = deal_folds(data, rows, folds=3, seed=1)
    assert sorted(np.concatenate(folds).tolist()) == rows.tolist()
    for fold in folds:
        assert set(np.bincount(data.labels[fold]).tolist()) <= {5, 6}
    with pytest.raises(InputError, match="class Field has 16 training images, fewer than 17 folds"):
        deal_folds(data, rows, folds=17, seed=1)


def test_augmentation_changes_pictures_but_not_their_kind(data: SceneImages) -> None:
    images = torch.from_numpy(data.pixels[:30].transpose(0, 3, 1, 2).copy()).float() / 255
    first, visible = augment(
        images.clone(), torch.Generator().manual_seed(1), size=32, zoom=(0.4, 1.35)
    )
    assert first.shape == (30, 3, 32, 32)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert 0.4**2 - 1e-6 <= float(visible.min()) < float(visible.max()) == 1
    again, _ = augment(images.clone(), torch.Generator().manual_seed(1), size=32, zoom=(0.4, 1.35))
    assert torch.equal(first, again)
    colors = first[:20].mean((2, 3))
    assert (colors[:, 1] > colors[:, 0]).float().mean() > 0.8


def test_labels_are_trusted_by_what_is_visible() -> None:
    loss = LabelLoss(Legend.of_classes(("a", "b", "c", "d")), smoothing=0.1)
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.5]])
    log_p = logits.log_softmax(1)[0]
    for label, shown, own in ((0, 1.0, 0.9), (1, 0.5, 0.25 + 0.65 * 0.75), (2, 0.0, 0.25)):
        targets = torch.full((4,), (1 - own) / 3)
        targets[label] = own
        found = loss(logits, torch.tensor([label]), torch.tensor([shown]))
        torch.testing.assert_close(found, -(targets * log_p).sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ground", "swa_epochs"), [(None, 0), ({"stage": 2, "width": 16}, 0), (None, 2)]
)
def test_encoder_repeats_and_goes_on_where_it_stopped(
    data: SceneImages, tmp_path: Path, ground: dict[str, int] | None, swa_epochs: int
) -> None:
    split = stratified_split(data, seed=0)
    embeddings = np.eye(60, 8, dtype=np.float32)
    works = [tmp_path / name for name in "abc"]
    for work in works:
        work.mkdir()

    recipe = dataclasses.replace(ENCODER, ground=ground, swa_epochs=swa_epochs)

    def learn(work: Path, report: Report | None = None) -> dict[str, torch.Tensor]:
        trained = train_encoder(
            data,
            split,
            recipe,
            initial=None,
            embeddings=embeddings,
            run=StageRun(work, CPU, seed=3, report=report),
        )
        return {**trained.encoder, **trained.classify}

    whole, again = learn(works[0]), learn(works[1])
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert all(torch.isfinite(value).all() for value in whole.values())

    class StopError(Exception):
        pass

    def stop(step: int, values: object) -> None:
        if step == 1:
            raise StopError

    with pytest.raises(StopError):
        learn(works[2], report=stop)
    resumed = learn(works[2])
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def _task(data: SceneImages, recipe: EncoderRecipe, work: Path) -> EncoderTask:
    task = EncoderTask(data, stratified_split(data, seed=0), recipe, None, run=StageRun(work, CPU))
    task.average = moving_average(task.network, task.decay)
    return task


def test_weights_are_averaged_over_the_last_epochs(data: SceneImages, tmp_path: Path) -> None:
    """The mean over all steps, at a learning rate that stays half of the highest."""
    recipe = dataclasses.replace(ENCODER, schedule=((3, 32),), swa_epochs=2)
    task = _task(data, recipe, tmp_path)
    name, seen = "classify.bias", []
    for step in range(3 * task.steps):
        with torch.no_grad():
            task.network.classify.bias.fill_(float(step))
        task.average.update_parameters(task.network)
        seen.append(float(task.average.module.state_dict()[name][0]))
    first = task.steps  # steps of the epoch before
    for count in range(1, 2 * task.steps + 1):
        expected = np.mean(range(first, first + count))
        assert seen[first + count - 1] == pytest.approx(expected, rel=1e-5)
    rates = []
    optimizer = torch.optim.SGD(task.network.parameters(), lr=1.0)
    schedule = warmup_cosine(optimizer, warmup=5, steps=30, constant=10)
    for _ in range(30):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[4] == 1.0
    assert rates[20:] == [0.5] * 10
    assert all(np.diff(rates[5:21]) <= 0)


def test_averaged_weights_get_statistics_of_their_own(data: SceneImages, tmp_path: Path) -> None:
    """Those of batch normalization come from batches that the averaged network itself has read."""
    recipe = dataclasses.replace(ENCODER, swa_epochs=1)
    task = _task(data, recipe, tmp_path)
    with torch.no_grad():
        for value in task.average.module.encoder.backbone.conv_stem.parameters():
            value.mul_(3)
    before = task.average.module.encoder.backbone.bn1.running_var.clone()
    drawing = task.generators[0].get_state()
    task.validate(recipe.epochs - 1)
    after = task.average.module.encoder.backbone.bn1.running_var
    assert not torch.allclose(before, after)
    assert torch.equal(drawing, task.generators[0].get_state())
    assert not task.average.module.training


def test_a_loss_that_is_no_number_stops_with_the_last_good_epoch(
    data: SceneImages, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(ENCODER, learning_rate=float("inf"))
    with pytest.raises(InputError, match="loss is nan.*lower --learning-rate"):
        train_encoder(
            data,
            stratified_split(data, seed=0),
            recipe,
            initial=None,
            run=StageRun(tmp_path, CPU),
        )


@pytest.fixture(scope="module")
def features(data: SceneImages) -> Features:
    """Stand-in features (1 view, 60 images, 4 tokens, 1024).

    The mean colors, spread over the width.
    """
    colors = data.pixels.reshape(60, 4, -1, 3).mean(2) / 255 - 0.4
    spread = np.random.default_rng(0).normal(size=(3, 1024))
    return Features((colors @ spread)[None].astype(np.float16), np.ones((1, 60), np.float32))


def test_captioner_learns_to_name_what_it_sees(
    data: SceneImages, features: Features, tmp_path: Path
) -> None:
    vocabulary = build_vocabulary(text for captions in data.captions for text in captions)
    recipe = CaptionerRecipe(
        width=32, heads=2, layers=1, length=10, epochs=40, batch_size=20, learning_rate=5e-3
    )
    decoder = train_captioner(
        features, data.captions, vocabulary, np.arange(60), recipe, run=StageRun(tmp_path, CPU)
    )
    texts = write_captions(decoder, vocabulary, features.tokens[0], device=CPU)
    right = [
        text.startswith("This is a") and data.classes[label].split(",")[0].lower()[:4] in text
        for text, label in zip(texts, data.labels, strict=True)
    ]
    assert np.mean(right) > 0.9


def _fused(
    model: Model, features: Features, data: SceneImages, captions: list[str], recipe: FusionRecipe
) -> tuple[Model, float]:
    model = dataclasses.replace(model, network=copy.deepcopy(model.network))

    def accuracy() -> float:
        return overall_accuracy(
            logits_of(model, features.tokens[0], captions, source="generated").argmax(1),
            data.labels,
        )

    learned = FusionData(features, data, [captions], np.arange(60))
    best = train_fusion(model, learned, recipe, validate=accuracy)
    assert accuracy() == best
    return model, best


def _fusion(epochs: int, **more: float) -> FusionRecipe:
    alone = {"generated": 0.0, "written": 0.0, "hard_negatives": 0.0, "min_tokens": 1.0}
    recipe = FusionRecipe(epochs, learning_rate=3e-3, batch_size=20)
    return dataclasses.replace(recipe, **{**alone, **more})


def test_words_are_read_where_pictures_mislead(
    data: SceneImages, features: Features, small_model: Model
) -> None:
    """Pictures with weak evidence of the class, some of them of another's."""
    words = ["a green field", "a wide river", "many houses"]
    told = [words[label] for label in data.labels.tolist()]
    data = dataclasses.replace(data, captions=tuple((text,) for text in told))
    faint = Features(features.tokens * np.float16(0.02), features.visible)
    recipe = _fusion(20, written=1.0, hard_negatives=0.5, min_tokens=0.5, learning_rate=1e-2)
    model = dataclasses.replace(small_model, network=copy.deepcopy(small_model.network))
    others = faint.tokens[0][np.roll(np.arange(60), 20)]

    def right(texts: list[str]) -> float:
        found = logits_of(model, others, texts, source="written").argmax(1)
        return float((found == data.labels).mean())

    learned = FusionData(faint, data, [[""] * 60], np.arange(60))
    train_fusion(model, learned, recipe, validate=lambda: right(told))
    assert right(told) > 0.6
    assert right([""] * 60) < 0.5


def test_hard_negatives_are_the_nearest_of_other_classes() -> None:
    random = np.random.default_rng(0)
    tokens, labels = random.normal(size=(50, 3, 8)).astype(np.float32), np.arange(50) % 4
    rows = np.arange(5, 50)
    images = SceneImages(
        np.zeros((50, 1, 1, 3), np.uint8),
        labels,
        ("",) * 50,
        Legend.of_classes(("a", "b", "c", "d")),
        ((),) * 50,
    )
    found = hard_negatives(tokens, images, rows, count=3)
    pooled = tokens[rows].mean(1) - tokens[rows].mean(1).mean(0)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    for place in (0, 20, 44):
        others = np.flatnonzero(labels[rows] != labels[rows[place]])
        nearest = others[np.argsort(-(pooled[others] @ pooled[place]))[:3]]
        assert found[rows[place]].tolist() == rows[nearest].tolist()


def test_fusion_learns_from_pictures_alone_and_keeps_its_best(
    data: SceneImages, features: Features, small_model: Model
) -> None:
    recipe = _fusion(15, generated=0.35)
    _, best = _fused(small_model, features, data, [""] * 60, recipe)
    assert best > 0.9


def test_fusion_learns_from_words_where_pictures_say_nothing(
    data: SceneImages, features: Features, small_model: Model
) -> None:
    blank = Features(np.zeros_like(features.tokens), features.visible)
    words = ["field", "river", "trees"]
    captions = [f"a {words[label]}" for label in data.labels.tolist()]
    recipe = _fusion(15, generated=1.0)
    _, best = _fused(small_model, blank, data, captions, recipe)
    assert best == 1.0


def test_classes_have_colors_of_their_own() -> None:
    classes = scene_classes(["beach", "Vineyard", *map(str, range(40))])
    assert classes[0].color == "#ddc9ad"
    assert classes[0].name == "beach"
    assert len({c.color for c in classes}) == 42
    few = [
        np.array([int(c.color[k : k + 2], 16) for k in (1, 3, 5)])
        for c in scene_classes(["farmland", "forest", *"abcdef"])
    ]
    assert min(np.linalg.norm(few[i] - few[j]) for i in range(8) for j in range(i)) > 90


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, small_model: Model) -> Path:
    from rssc_geo.models import save_bundle

    path = tmp_path_factory.mktemp("start")
    save_bundle(path, small_model, readme="")
    return path


def _options(start: Path, sentence_encoder: Path | None = None) -> TrainingRecipe:
    return TrainingRecipe(
        model=str(start),
        sentence_encoder=sentence_encoder,
        text_width=16,
        views=2,
        width=32,
        encoder=ENCODER,
        captioner=CaptionerRecipe(width=32, heads=2, layers=1, length=8, epochs=2),
        fusion=dataclasses.replace(_fusion(2, generated=0.35, written=0.3), batch_size=128),
    )


def _train(
    folder: Path, output: Path, recipe: TrainingRecipe, work: WorkFolder | None = None
) -> ModelCard:
    place = work or WorkFolder(output.with_name(output.name + ".work"))
    return train_recipe(folder, output, recipe, work=place, device=CPU, command="test")


@pytest.mark.slow
def test_a_whole_run_makes_a_bundle_that_classifies(
    folder: Path,
    start: Path,
    sentence_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = _options(start, sentence_encoder)
    stages: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        if stage not in stages:
            stages.append(stage)

    work = tmp_path / "bundle.work"
    card = _train(folder, tmp_path / "bundle", options, WorkFolder(work, progress=progress))
    assert stages == [
        "encoder",
        "captioner 1 of 3",
        "captioner 2 of 3",
        "captioner 3 of 3",
        "fusion",
    ]
    model = load_bundle(tmp_path / "bundle")
    assert model.card == card
    assert [c.name for c in card.classes] == sorted(COLORS)
    assert card.input_size == (48, 48)
    assert set(card.accuracy) == {
        "validation",
        "test",
        "test_own_captions",
        "test_no_captions",
        "test_human_captions",
        "unknown",
    }
    told = card.accuracy["unknown"]
    assert told.keys() == {"made_up", "test"}
    assert all(0 <= share <= 1 for share in told.values())
    assert card.training["images"] == {"train": 48, "val": 6, "test": 6}
    assert (tmp_path / "bundle" / "README.md").read_text().startswith("# trained 1")
    assert isinstance(model.network.text_encoder, StaticTextEncoder)
    assert model.alignment is not None
    assert len(name_classes(model, ["green", "river"], other=False).card.classes) == 2
    lines = [
        json.loads(line)
        for line in (tmp_path / "bundle.work" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines if line["stage"] == "encoder"] == [1, 2]

    # Rerun from the work folder: nothing is trained again but the fusion, and the bundle is the
    # same.
    from rssc_geo.training.stages import captioner

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a captioner was trained again")

    monkeypatch.setattr(captioner, "train_captioner", refuse)
    seconds = tmp_path / "bundle.work" / "seconds.txt"
    assert float(seconds.read_text()) == pytest.approx(60 * card.training["minutes"], abs=3.1)
    seconds.write_text("7200")  # as if it had been stopped after two hours
    again = _train(folder, tmp_path / "again", options, WorkFolder(work))
    assert again.sha256 == card.sha256
    assert again.training["minutes"] == pytest.approx(122.5, abs=2.5)  # and the rerun's own
    assert trained_with(load_card(tmp_path / "again")) == TrainingRecipe(
        folds=2, views=2, captioner=options.captioner, fusion=options.fusion
    )
    with pytest.raises(InputError, match="holds a run of other options"):
        other = dataclasses.replace(options, seed=5)
        _train(folder, tmp_path / "third", other, WorkFolder(work))
    with pytest.raises(InputError, match="holds a bundle already"):
        _train(folder, tmp_path / "bundle", options)


@pytest.mark.slow
def test_pictures_without_captions_make_a_bundle_without_a_captioner(
    folder: Path, start: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    (folder / "images").rename(plain)
    try:
        card = _train(plain, tmp_path / "bundle", _options(start))
    finally:
        plain.rename(folder / "images")
    assert card.captioner is None
    assert not card.reads_own_captions
    model = load_bundle(tmp_path / "bundle")
    assert model.decoder is None
    assert not (tmp_path / "bundle" / "captioner.json").exists()


@pytest.mark.slow
def test_a_share_of_the_start_s_weights_stays(folder: Path, start: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--start-share: .* has other classes or features"):
        _train(folder, tmp_path / "none", dataclasses.replace(_options(start), start_share=0.5))
    with pytest.raises(UsageError, match="leave --image-encoder out"):
        training_recipe(TrainOptions(image_encoder="mobilenetv1_100", weights="x", start_share=0.5))
    plain = _options(start)
    _train(folder, tmp_path / "first", plain)
    found = [_encoder_weights(tmp_path / "first")]
    for share in (0.0, 0.25):
        output = tmp_path / f"with {share}"
        recipe = dataclasses.replace(
            plain, model=str(tmp_path / "first"), seed=1, start_share=share
        )
        _train(folder, output, recipe)
        found.append(_encoder_weights(output))
    first, alone, mixed = found
    assert not torch.allclose(alone, first, atol=0.01)
    assert torch.allclose(mixed, 0.75 * alone + 0.25 * first, atol=2e-3)  # float16


@pytest.mark.slow
def test_the_mean_of_several_trainings_is_kept(folder: Path, start: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(_options(start), trainings=2)
    work = tmp_path / "work"
    _train(folder, tmp_path / "bundle", recipe, WorkFolder(work))
    first, second = (
        load_file(place / "encoder.safetensors") for place in (work, work / "training_2")
    )
    found = load_bundle(tmp_path / "bundle").network.image_encoder.state_dict()
    apart = 0.0
    for name, value in found.items():
        one, other = first[f"encoder.{name}"], second[f"encoder.{name}"]
        if value.is_floating_point():
            apart = max(apart, float((one - other).abs().max()))
            assert torch.allclose(value, (one + other) / 2, rtol=2e-3, atol=2e-3)  # float16
    assert apart > 0.01
    lines = (work / "metrics.jsonl").read_text().splitlines()
    stages = {json.loads(line)["stage"] for line in lines}
    assert {"encoder 1 of 2", "encoder 2 of 2"} <= stages


def _encoder_weights(bundle: Path) -> torch.Tensor:
    """Weights and statistics of the image encoder and the image head, one after the other."""
    network = load_bundle(bundle).network
    assert network.image_head is not None
    parts = [
        *network.image_encoder.state_dict().values(),
        *network.image_head.state_dict().values(),
    ]
    return torch.cat([part.flatten() for part in parts if part.is_floating_point()])


def test_words_of_different_sources_are_marked(small_model: Model) -> None:
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(
        WordLevel(
            {"[PAD]": 0, "[UNK]": 1, "[GENERATED]": 2, "[WRITTEN]": 3, "field": 4},
            unk_token="[UNK]",
        )
    )
    tokenizer.pre_tokenizer = Whitespace()
    model = dataclasses.replace(small_model, tokenizer=tokenizer)
    ids, mask = model.tokenize(
        ["field field", "", "field"], source=["generated", "written", "written"]
    )
    assert ids.tolist() == [[2, 4, 4], [0, 0, 0], [3, 4, 0]]
    assert mask.tolist() == [[True] * 3, [False] * 3, [True, True, False]]
    assert small_model.tokenize(["a field"])[0].shape == (1, 2)


# Kept files have the identity of their inputs.


def test_tokens_of_another_network_or_other_pictures_are_not_taken(
    data: SceneImages, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_bundle(start)

    def tokens(pictures: SceneImages = data) -> np.ndarray:
        features = cache_features(model, pictures, np.arange(10), views=1, seed=0, work=tmp_path)
        return np.array(features.tokens)

    first = tokens()
    np.testing.assert_array_equal(tokens(), first)
    assert not caplog.records
    swapped = dataclasses.replace(data, pixels=data.pixels[::-1])
    assert not np.array_equal(tokens(swapped), first)
    np.testing.assert_array_equal(tokens(), first)
    with torch.no_grad():
        for value in model.network.image_encoder.parameters():
            value.mul_(0.5)
    assert not np.array_equal(tokens(), first)
    assert "made of other pictures, weights or options" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_weights_for_which_there_is_no_room_are_one_line(tmp_path: Path) -> None:
    """A limit in place of a full disk: the library tells both by an error of its own."""
    import resource

    file, limits = tmp_path / "weights.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    weights = {"layer": torch.zeros(100_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with (
            pytest.raises(OutputError, match="cannot write weights.safetensors in .*: make room"),
            keeping(file, "these"),
        ):
            save_file(weights, next(tmp_path.iterdir()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files of Linux")
def test_tokens_have_room_on_the_disk_before_they_are_mapped(
    data: SceneImages, start: Path, tmp_path: Path
) -> None:
    """Else a full disk ends the process, without a word."""
    model, found = load_bundle(start), []

    def look(*_: object) -> None:
        found.extend(file.stat() for file in tmp_path.glob(".tokens.npy*"))

    model.network.image_encoder.register_forward_pre_hook(look)
    cache_features(model, data, np.arange(10), views=8, seed=0, work=tmp_path)
    assert found
    assert all(file.st_blocks * 512 >= file.st_size for file in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder.last.safetensors", "encoder.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_damaged_checkpoint_is_made_anew(
    data: SceneImages, tmp_path: Path, name: str, share: float
) -> None:
    split = stratified_split(data, seed=0)

    def learn() -> dict[str, torch.Tensor]:
        run = StageRun(tmp_path, CPU, seed=3)
        return train_encoder(data, split, ENCODER, initial=None, run=run).encoder

    # Copies: the tensors lie in the file that is damaged now.
    whole = {key: value.clone() for key, value in learn().items()}
    file = tmp_path / name
    content = file.read_bytes()
    cut = content[: int(share * len(content))]
    file.write_bytes(cut if share < 1 else content[:-9] + b"\1" + content[-8:])
    again = learn()
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_a_work_folder_of_other_pictures_is_refused(
    data: SceneImages, start: Path, sentence_encoder: Path, tmp_path: Path
) -> None:
    recipe = _options(start, sentence_encoder)

    def open_for(data: SceneImages) -> None:
        with contextlib.closing(WorkFolder(tmp_path / "w")) as work:
            work.open(data, recipe)

    open_for(data)
    open_for(data)
    for changed in (
        dataclasses.replace(data, labels=data.labels[::-1].copy()),
        dataclasses.replace(data, pixels=data.pixels[::-1].copy()),
        dataclasses.replace(data, captions=data.captions[::-1]),
    ):
        with pytest.raises(InputError, match="a run of other pictures, labels or captions"):
            open_for(changed)
    (tmp_path / "w" / "seconds.txt").write_bytes(b"\xff\0")
    open_for(data)
    (tmp_path / "w" / "options.json").write_bytes(b"\xff\0")
    with pytest.raises(InputError, match=r"its options\.json is damaged"):
        open_for(data)


def test_two_trainings_at_once_in_one_work_folder(
    data: SceneImages, start: Path, sentence_encoder: Path, tmp_path: Path
) -> None:
    recipe = _options(start, sentence_encoder)
    first, second = WorkFolder(tmp_path / "w"), WorkFolder(tmp_path / "w")
    with contextlib.closing(first):
        first.open(data, recipe)
        with pytest.raises(OutputError, match="is in use by another rssc-geo process") as caught:
            second.open(data, recipe)
        assert "\n" not in str(caught.value)
        second.open(data, recipe, locks=False)  # one that trains together with the first
    with contextlib.closing(second):
        second.open(data, recipe)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        WorkFolder(tmp_path / "file").open(data, recipe)


def test_a_work_folder_with_files_of_others_is_left_alone(
    data: SceneImages, start: Path, sentence_encoder: Path, tmp_path: Path
) -> None:
    recipe, work = _options(start, sentence_encoder), tmp_path / "w"
    work.mkdir()
    (work / "tokens.npy").write_bytes(b"of others")
    with pytest.raises(OutputError, match=r"w holds tokens\.npy, which is of no training"):
        WorkFolder(work).open(data, recipe)
    assert [(path.name, path.read_bytes()) for path in work.iterdir()] == [
        ("tokens.npy", b"of others")
    ]
    (work / "tokens.npy").unlink()
    (work / ".DS_Store").touch()
    (work / "folder").mkdir()
    with contextlib.closing(WorkFolder(work)) as opened:
        opened.open(data, recipe)


@pytest.mark.skipif(sys.platform != "linux", reason="permissions of POSIX")
def test_files_of_a_work_folder_that_cannot_be_read(
    data: SceneImages,
    start: Path,
    sentence_encoder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is kept is made again; what the folder was made for cannot be."""
    recipe, work = _options(start, sentence_encoder), tmp_path / "w"
    with contextlib.closing(WorkFolder(work)) as opened:
        opened.open(data, recipe)
    kept, options = work / "x.npy", work / "options.json"
    with keeping(kept, "one") as made:
        made.write_bytes(b"first")
    kept.chmod(0)
    options.chmod(0)
    with without_privileges():
        assert not is_kept(kept, "one")
        assert "x.npy is made again: it cannot be read" in caplog.text
        with keeping(kept, "one") as made:
            made.write_bytes(b"second")
        assert is_kept(kept, "one")
        with (
            contextlib.closing(WorkFolder(work)) as opened,
            pytest.raises(InputError, match=r"options\.json cannot be read"),
        ):
            opened.open(data, recipe)
