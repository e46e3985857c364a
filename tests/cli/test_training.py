"""``rssc-geo train`` and ``rssc-geo evaluate``."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from shapely import box

from rssc_geo.models import load_bundle, load_card, load_text_encoder
from tests.factories import NORTH_UP
from tests.programs import Program

from .conftest import Outcome


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
    words = ["train", pictures, "-o", tmp_path / "mine", "--model", bundle, "--schedule",
             "1x32,1x48", "--views", 1,
             "--fusion-epochs", 2, "--device", "cpu", "--name", "mine", "--data",
             "drawn by the test",
             "--seed", 5, "--val", 0.25, "--test", 0.25, "-q"]  # fmt: skip
    done = rssc(*words, "--progress", "json")
    assert done.code == 0, done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    assert events[-1]["event"] == "result"
    assert events[-1]["bundle"] == str(tmp_path / "mine")
    assert {event["stage"] for event in events[:-1]} == {"encoder"}  # no words: nothing to fuse
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
    part = json.loads(
        rssc(
            "evaluate", tmp_path / "mine", pictures, "--part", "val", "--device", "cpu", "--json"
        ).out
    )
    assert part["images"] == 4  # the split is that of the training, without being told
    assert part["overall_accuracy"] == card["accuracy"]["validation"]["overall_accuracy"]

    labels = gpd.GeoDataFrame(
        {"class": ["forest"]},
        geometry=[box(*(NORTH_UP @ (0, 300)), *(NORTH_UP @ (300, 0)))],
        crs="EPSG:32632",
    )
    labels.to_file(tmp_path / "labels.gpkg")
    on_raster = rssc(
        "evaluate", tmp_path / "mine", "--raster", scene, "--labels", tmp_path / "labels.gpkg",
        "--tile-size", "100px",
        "--device", "cpu",
    )  # fmt: skip
    assert on_raster.code == 0, on_raster.err
    assert on_raster.out.startswith("8 pictures, overall accuracy ")

    again = rssc(*words)
    assert again.code == 1
    assert "holds a bundle already" in again.message


def test_another_timm_model_sees_colors_as_it_was_trained_to(
    rssc: Callable[..., Outcome], pictures: Path, bundle: Path, tmp_path: Path
) -> None:
    backbone = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=0)
    save_file(backbone.state_dict(), tmp_path / "weights.safetensors")
    words = ["train", pictures, "--model", bundle, "--weights", tmp_path / "weights.safetensors",
             "--schedule", "1x32",
             "--views", 1, "--fusion-epochs", 1, "--device", "cpu", "-q"]  # fmt: skip
    done = rssc(*words, "-o", tmp_path / "mine", "--image-encoder", "mobilenetv3_small_050")
    assert done.code == 0, done.err
    card = load_card(tmp_path / "mine")
    assert (card.mean, card.std) == (backbone.default_cfg["mean"], backbone.default_cfg["std"])
    assert card.mean != load_card(bundle).mean
    unknown = rssc(*words, "-o", tmp_path / "other", "--image-encoder", "abacus")
    assert unknown.code == 1
    assert "image encoder 'abacus' is no timm model" in unknown.message
    assert not (tmp_path / "other").exists()


def test_a_whole_sentence_encoder_reads_and_names_classes(
    rssc: Callable[..., Outcome],
    pictures: Path,
    bundle: Path,
    scene: Path,
    sentence_encoder: Path,
    tmp_path: Path,
) -> None:
    with (pictures / "captions.jsonl").open("w") as file:
        for path in sorted(pictures.glob("*/*.png")):
            words = "this is a green field" if path.parent.name == "Forest" else "a wide river"
            file.write(
                json.dumps({"image": f"{path.parent.name}/{path.name}", "captions": [words]}) + "\n"
            )
    words = ["train", pictures, "-o", tmp_path / "mine", "--model", bundle, "--schedule", "1x32",
             "--views", 1, "--caption-epochs", 1, "--fusion-epochs", 1, "--device", "cpu", "-q",
             "--whole-sentence-encoder"]  # fmt: skip
    lost = rssc(*words)
    assert lost.code == 2
    assert "--whole-sentence-encoder needs a --sentence-encoder" in lost.message
    done = rssc(*words, "--sentence-encoder", sentence_encoder)
    assert done.code == 0, done.err
    model = load_bundle(tmp_path / "mine")
    assert (model.card.network["text_encoder"]["model_type"], model.card.special_tokens) == (
        "bert",
        True,
    )
    for name, value in load_text_encoder(
        str(sentence_encoder)
    ).weights.items():  # nothing learned, half precision on disk
        torch.testing.assert_close(
            model.network.text_encoder.state_dict()[name], value, atol=1e-3, rtol=1e-3
        )
    zero = [
        "zero-shot",
        scene,
        "--model",
        tmp_path / "mine",
        "--no-other",
        "--tile-size",
        "200px",
        "--device",
        "cpu",
    ]
    done = rssc(*zero, "-o", tmp_path / "map.gpkg", "--classes", "green field,wide river")
    assert done.code == 0, done.err
    assert set(gpd.read_file(tmp_path / "map.gpkg", layer="cells")["class"]) <= {
        "green field",
        "wide river",
    }
    unknown = rssc(*zero, "-o", tmp_path / "other.gpkg", "--classes", "green field,zoo")
    assert unknown.code == 2
    assert "holds no word the text encoder knows" in unknown.message


@pytest.mark.slow
def test_baselines_go_on_from_the_training(
    rssc: Callable[..., Outcome], pictures: Path, bundle: Path, tmp_path: Path
) -> None:
    with (pictures / "captions.jsonl").open("w") as file:
        for path in sorted(pictures.glob("*/*.png")):
            words = (
                ["many houses", "a green field ."]
                if path.parent.name == "Beach"
                else ["a river and trees ."]
            )
            file.write(
                json.dumps({"image": f"{path.parent.name}/{path.name}", "captions": words}) + "\n"
            )
    done = rssc("train", pictures, "-o", tmp_path / "mine", "--model", bundle, "--schedule", "1x32",
                "--views", 2, "--folds", 3, "--caption-epochs", 1, "--fusion-epochs", 1,
                "--val", 0.25, "--test", 0.25, "--device", "cpu", "-q")  # fmt: skip
    assert done.code == 0, done.err
    work = tmp_path / "mine.work"
    before = {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    assert {f"captioner{number}.safetensors" for number in range(4)} <= set(before)
    compare = [
        "evaluate",
        tmp_path / "mine",
        pictures,
        "--baselines",
        2,
        "--work",
        work,
        "--device",
        "cpu",
    ]
    done = rssc(*compare, "--json")
    assert done.code == 0, done.err
    arms = set(work.glob("arm-*.safetensors"))
    marks = {arm.with_name(f"{arm.name}.mark") for arm in arms}
    assert len(arms) == 16
    # all that was needed was there
    assert {
        path.name: path.stat().st_mtime_ns for path in set(work.iterdir()) - arms - marks
    } == before
    table = json.loads(done.out)
    assert len(table["rows"]) == 11
    assert all(len(row["validation"]) == len(row["test"]) == 2 for row in table["rows"])
    assert all(
        {value * 4 for value in row["test"]} <= {0, 1, 2, 3, 4} for row in table["rows"]
    )  # a quarter of 16 pictures
    assert len(table["mcnemar"]) == 2
    assert "info: seed 2 of 2, arm 8 of 8: dual attention, all kinds → own captions" in done.err
    assert (
        done.err.count("info: fusion: epoch 1/1") == 14
    )  # of sixteen arms, two read no words: the image head, which is not trained
    for arm in sorted(arms)[:3]:
        arm.unlink()
    again = rssc(*compare, "--json")  # goes on: of sixteen arms, three are missing
    assert json.loads(again.out) == table
    # two of all arms read no words: the image head, which is not trained
    assert 1 <= again.err.count("info: fusion: epoch 1/1") <= 3
    longer = rssc(*compare, "--fusion-epochs", 2)  # another recipe: nothing that is kept will do
    assert longer.err.count("info: fusion: epoch 2/2") == 14
    assert rssc(*compare, "-q", "--caption-source", "none").message.endswith(
        "--caption-source has no effect with --baselines, which trains networks of its own"
    )
    assert (
        f"{work} was made with seed 0, not 1; choose another"
        in rssc(*compare, "-q", "--seed", 1).message
    )
    (work / "options.json").write_text("{", encoding="utf-8")
    assert "does not tell what" in rssc(*compare, "-q").message
    (work / "options.json").unlink()
    assert rssc(*compare, "-q", "--val", 0.4, "--test", 0).message.endswith(
        "give it a share (--test 0.1)"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_baselines_are_killed_again_and_again(
    rssc: Callable[..., Outcome],
    start: Callable[..., Program],
    pictures: Path,
    bundle: Path,
    tmp_path: Path,
) -> None:
    """The table is that of an undisturbed run; of two runs in one folder one goes on."""
    lines = [
        {"image": f"{path.parent.name}/{path.name}", "captions": [f"a {path.parent.name} ."]}
        for path in sorted(pictures.glob("*/*.png"))
    ]
    (pictures / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    done = rssc("train", pictures, "-o", tmp_path / "mine", "--model", bundle, "--schedule", "1x32",
                "--views", 2, "--folds", 2, "--caption-epochs", 1, "--fusion-epochs", 1,
                "--val", 0.25, "--test", 0.25, "--device", "cpu", "-q")  # fmt: skip
    assert done.code == 0, done.err

    def command(work: str) -> tuple[object, ...]:
        compare = ("evaluate", tmp_path / "mine", pictures, "--baselines", 2, "--device", "cpu")
        return (*compare, "--work", tmp_path / work, "--json", "-q")

    began = time.monotonic()
    code, whole, err = start(*command("whole")).finish()
    assert code == 0, err
    seconds, moments = time.monotonic() - began, random.Random(8)
    for _ in range(6):
        program = start(*command("killed"))
        until = time.monotonic() + moments.uniform(0.2, 0.9) * seconds
        while program.running and time.monotonic() < until:
            time.sleep(0.02)
        program.kill()
    ends = [program.finish() for program in [start(*command("killed")) for _ in range(2)]]
    refused = [err for code, _, err in ends if code]
    assert all("is in use by another rssc-geo process" in err for err in refused)
    assert len(refused) < 2
    code, out, err = start(*command("killed")).finish()
    assert (code, json.loads(out)) == (0, json.loads(whole)), err
    left = [path.name for path in (tmp_path / "killed").iterdir()]
    assert "lock.rssc-geo" not in left


def test_a_bundle_s_folder_is_checked_before_the_training(
    rssc: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("of others")
    for output in (tmp_path / "file", tmp_path / "file" / "bundle"):
        done = rssc("train", "--raster", "a.tif", "--labels", "b.gpkg", "-o", output)
        assert (done.code, "cannot write in" in done.message) == (1, True)


def test_a_card_s_name_is_one_line(rssc: Callable[..., Outcome], tmp_path: Path) -> None:
    """Told before the training."""
    for option in ("--name", "--bundle-version", "--license"):
        done = rssc(
            "train", "--raster", "a.tif", "--labels", "b.gpkg", "-o", tmp_path / "x", option, "a\nb"
        )
        assert (done.code, "is not a name of one line" in done.message) == (2, True)


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
    rssc: Callable[..., Outcome],
    pictures: Path,
    bundle: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
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
        (["{pictures}", "--class-map", "none.json"], "none.json cannot be read: No such file"),
        (["nowhere"], "nowhere: no such folder"),
    ],
)
def test_wrong_use_of_evaluate_is_one_line(
    rssc: Callable[..., Outcome], pictures: Path, bundle: Path, words: list[str], message: str
) -> None:
    done = rssc("evaluate", bundle, *(word.format(pictures=pictures) for word in words))
    assert done.code in {1, 2}
    assert message in done.message
