"""Taxonomy files: contents, invalid files, and combined data sets."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rssc_geo import EvaluateOptions, TrainOptions, evaluate, train
from rssc_geo.errors import InputError, UsageError
from rssc_geo.training import (
    LabelLoss,
    Legend,
    load_data_sets,
    load_image_folder,
    read_taxonomy,
    stratified_split,
)
from rssc_geo.training.data import check_data_sets

TAXONOMY = {
    "about": "two data sets",
    "groups": {"Water": ["River", "Lake"], "Built": ["Dense", "Sparse"], "Forest": ["Forest"]},
    "texture": ["Forest", "Dense", "Sparse"],
    "sets": {
        "one": {"Pond": {"Lake": 0.8, "River": 0.2}},
        "two": {"houses": ["Dense", "Sparse"], "trees": ["Forest"]},
    },
}


def _write(folder: Path, content: object) -> Path:
    path = folder / "taxonomy.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _pictures(root: Path, labels: list[str], *, count: int = 10) -> Path:
    for label in labels:
        random = np.random.default_rng(list(f"{root.name}/{label}".encode()))
        (root / label).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 255, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number:02}.png")
    return root


def test_labels_allow_and_weigh_classes(tmp_path: Path) -> None:
    taxonomy = read_taxonomy(_write(tmp_path, TAXONOMY))
    assert taxonomy.classes == ("River", "Lake", "Dense", "Sparse", "Forest")
    assert taxonomy.group_of("Sparse") == "Built"
    one = taxonomy.legend("one", ["Forest", "Pond"])
    assert one.labels == ("one/Forest", "one/Pond")
    np.testing.assert_array_equal(one.allowed, [[0, 0, 0, 0, 1], [1, 1, 0, 0, 0]])
    np.testing.assert_allclose(one.weights, [[0, 0, 0, 0, 1], [0.2, 0.8, 0, 0, 0]])
    two = taxonomy.legend("two", ["houses", "trees"])
    np.testing.assert_array_equal(two.allowed, [[0, 0, 1, 1, 0], [0, 0, 0, 0, 1]])
    np.testing.assert_allclose(two.weights, [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    assert one.texture.tolist() == [True, False]
    assert two.texture.tolist() == [True, True]
    assert Legend.joined([one, two]).sets == ("one", "one", "two", "two")


def test_a_partial_label_is_right_when_allowed(tmp_path: Path) -> None:
    legend = read_taxonomy(_write(tmp_path, TAXONOMY)).legend("two", ["houses", "trees"])
    scores = np.array([[0.1, 0.0, 0.3, 0.4, 0.2], [0.5, 0.0, 0.3, 0.1, 0.1], [0.1, 0, 0.6, 0, 0.3]])
    truth = legend.truth(scores, np.array([0, 0, 1]))
    assert truth.tolist() == [3, 2, 4]
    assert (scores.argmax(1) == truth).tolist() == [True, False, False]


def _without(key: str) -> dict[str, object]:
    return {name: value for name, value in TAXONOMY.items() if name != key}


def _with(**changes: object) -> dict[str, object]:
    return {**TAXONOMY, **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ('{"groups": {}, "groups": {}}', "'groups' is given twice"),
        ([], 'an object with "groups"'),
        (_without("groups"), 'an object with "groups"'),
        (_with(classes=["x"]), "'classes': a taxonomy has only about, groups, sets, texture"),
        (_with(groups=["River"]), "groups is no object"),
        (_with(groups={"Water": "River"}), "group 'Water' is no list of names"),
        (_with(groups={"Water": []}), "group 'Water' is no list of names"),
        (_with(groups={"Water": ["River", "River"]}), "group 'Water' names a class twice"),
        (_with(groups={"A": ["River"], "B": ["River"]}), "'River' stands in two groups"),
        (_with(groups={"A": ["River"]}, texture=[], sets={}), "fewer than two classes"),
        (_with(texture=["Sea"]), "texture names 'Sea', which stands in no group"),
        (_with(sets={"two": {"houses": ["Town"]}}), r"sets.two.houses names 'Town', which stands"),
        (_with(sets={"two": {"houses": []}}), "sets.two.houses is no list of names"),
        (_with(sets={"two": {"houses": {}}}), "sets.two.houses: the weights sum to 0, not to 1"),
        (_with(sets={"two": {"h": {"Dense": 0.4}}}), "sets.two.h: the weights sum to 0.4, not to"),
        (_with(sets={"two": {"h": {"Dense": "1"}}}), "the weight of 'Dense' is \"1\", not in 0–1"),
        (_with(sets={"two": {"h": {"Dense": -1}}}), "the weight of 'Dense' is -1, not in 0–1"),
        (_with(sets={"two": ["h"]}), "sets.two is no object"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: object, message: str) -> None:
    path = _write(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        read_taxonomy(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_taxonomy_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t.json cannot be read: No such file"):
        read_taxonomy(tmp_path / "t.json")


def test_data_sets_are_joined_and_split_alike(tmp_path: Path) -> None:
    one = _pictures(tmp_path / "one", ["Forest", "Pond"])
    two = _pictures(tmp_path / "two", ["houses", "trees"])
    (two / "captions.jsonl").write_text('{"image": "trees/03.png", "captions": ["trees"]}\n')
    path = _write(tmp_path, TAXONOMY)
    data = load_data_sets([one, two], size=6, taxonomy=path)
    alone = load_image_folder(two, size=6)
    assert data.names[0] == "one/Forest/00.png"
    assert data.names[20:] == tuple(f"two/{name}" for name in alone.names)
    np.testing.assert_array_equal(data.pixels[20:], alone.pixels)
    np.testing.assert_array_equal(data.labels[20:], alone.labels + 2)
    assert data.captions[20 + alone.names.index("trees/03.png")] == ("trees",)
    assert data.classes == ("River", "Lake", "Dense", "Sparse", "Forest")
    both, single = stratified_split(data, seed=3), stratified_split(alone, seed=3)
    for part, rows in single.items():
        mine = both[part][both[part] >= 20] - 20
        np.testing.assert_array_equal(mine, rows)
    changed = json.loads(json.dumps(TAXONOMY))
    changed["sets"]["one"]["Pond"] = ["Lake"]
    again = load_data_sets([one, two], size=6, taxonomy=_write(tmp_path, changed))
    assert again.fingerprint() != data.fingerprint()


def test_without_a_taxonomy_equal_names_are_one_class(tmp_path: Path) -> None:
    one = _pictures(tmp_path / "one", ["Forest", "River"], count=2)
    two = _pictures(tmp_path / "two", ["Forest", "Town"], count=2)
    data = load_data_sets([one, two], size=6)
    assert data.classes == ("Forest", "River", "Town")
    names = [data.classes[k] for k in data.truth(np.zeros((8, 3)))]
    assert names == ["Forest"] * 2 + ["River"] * 2 + ["Forest"] * 2 + ["Town"] * 2


def test_data_sets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one = _pictures(tmp_path / "one", ["Forest", "Pond"], count=2)
    two = _pictures(tmp_path / "two", ["houses", "woods"], count=2)
    twin = _pictures(tmp_path / "x" / "one", ["Forest", "Pond"], count=2)
    path = _write(tmp_path, TAXONOMY)
    with pytest.raises(InputError, match="lists 'trees' for 'two', which has no such class folder"):
        load_data_sets([one, two], size=6, taxonomy=path)
    changed = _with(sets={"one": TAXONOMY["sets"]["one"], "two": {"houses": ["Dense"]}})  # type: ignore[index]
    with pytest.raises(InputError, match=r"no class of the taxonomy: 'woods'; list them under"):
        load_data_sets([one, two], size=6, taxonomy=_write(tmp_path, changed))
    with pytest.raises(InputError, match="two data sets are called 'one'"):
        load_data_sets([one, twin], size=6)
    with pytest.raises(UsageError, match="several bring their own"):
        load_data_sets([one, two], size=6, captions=tmp_path / "c.jsonl")


def test_what_no_picture_is_of_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = _pictures(tmp_path / "one", ["Forest", "Pond"], count=2)
    sets = {"one": TAXONOMY["sets"]["one"], "onne": {"Pond": ["Lake"]}}  # type: ignore[index]
    path = _write(tmp_path, _with(sets=sets))
    check_data_sets([one], path)
    said = [record.getMessage() for record in caplog.records]
    assert f"{path} lists 'onne' under sets, but the data sets are 'one'" in said
    assert any("no data set has pictures of 'Dense', 'Sparse', which" in line for line in said)
    caplog.clear()
    load_data_sets([one], size=6, taxonomy=path)
    assert not caplog.records, "to measure on one data set of several is usual"


@pytest.mark.slow
def test_several_sets_are_learned_and_measured(tmp_path: Path) -> None:
    one = _pictures(tmp_path / "one", ["Forest", "Pond"])
    two = _pictures(tmp_path / "two", ["houses", "trees"])
    path = str(_write(tmp_path, TAXONOMY))
    quick = TrainOptions(
        taxonomy=path,
        schedule=((1, 32),),
        caption_epochs=1,
        fusion_epochs=1,
        views=1,
        footprint=(300, 400, 4800),
    )
    card = train([one, two], tmp_path / "model", quick)
    assert [c.name for c in card.classes] == ["River", "Lake", "Dense", "Sparse", "Forest"]
    groups = {name: group for group, names in TAXONOMY["groups"].items() for name in names}
    assert {c.name: c.group for c in card.classes} == groups
    options = EvaluateOptions(taxonomy=path, part="test", device="cpu")
    found = evaluate(str(tmp_path / "model"), [one, two], options)
    values = found.as_dict()
    assert {name: row["images"] for name, row in values["sets"].items()} == {"one": 2, "two": 2}
    assert values["overall_accuracy"] == card.accuracy["test"]["overall_accuracy"]
    alone = evaluate(str(tmp_path / "model"), two, options).as_dict()
    assert alone["sets"]["two"] == values["sets"]["two"]
    assert {row.split("/")[0] for row in found.to_pandas()["name"]} == {"one", "two"}


def test_the_loss_of_a_partial_label_is_that_of_its_classes_together() -> None:
    legend = Legend(
        ("a", "b", "c"),
        ("ab", "mixed", "c"),
        np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], bool),
        np.array([[0, 0, 0], [0.75, 0.25, 0], [0, 0, 1]], np.float32),
        np.array([False, False, True]),
    )
    loss = LabelLoss(legend, smoothing=0.0)
    logits = torch.tensor([[1.0, 0.2, -0.5]], requires_grad=True)
    p = logits.softmax(1)[0]
    whole, none = torch.ones(1), torch.zeros(1)
    torch.testing.assert_close(loss(logits, torch.tensor([0]), whole), -(p[0] + p[1]).log())
    mixed = -(0.75 * p[0].log() + 0.25 * p[1].log())
    torch.testing.assert_close(loss(logits, torch.tensor([1]), whole), mixed)
    # What is not visible is not trusted; a texture holds for any part.
    torch.testing.assert_close(loss(logits, torch.tensor([0]), none), -p.log().mean())
    torch.testing.assert_close(loss(logits, torch.tensor([2]), none), -p[2].log())
    # The shares within a partial label are left as they are: moving them costs nothing.
    (gradient,) = torch.autograd.grad(loss(logits, torch.tensor([0]), whole), logits)
    share = p[:2] / (p[0] + p[1])
    torch.testing.assert_close(gradient[0, :2] / gradient[0, :2].sum(), share)
