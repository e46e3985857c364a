"""``rssc-geo train`` at full size, ``rssc-geo models import``, and the bundles that they make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.models.test_published import CLASSES, Authors
from tests.pretrained_folders import save_clip, save_pictures, save_tokenizer, save_vit

from .conftest import Outcome, whole_tiles


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    vit, clip = tmp_path_factory.mktemp("vit"), tmp_path_factory.mktemp("clip")
    save_vit(vit)
    save_clip(clip)
    return ["--image-encoder", str(vit), "--text-encoder", str(clip)]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    save_pictures(tmp_path / "pictures")
    return tmp_path / "pictures"


def test_a_model_is_trained_at_full_size_and_maps(
    rssc: Callable[..., Outcome], pictures: Path, encoders: list[str], scene: Path, tmp_path: Path
) -> None:
    done = rssc(
        "train", pictures, "-o", tmp_path / "mine", *encoders, "--captions",
        tmp_path / "generated.jsonl", "--epochs", 1,
        "--width", 16, "--train-image-layers", 1, "--train-text-layers", "none", "--device", "cpu",
        "-q", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["accuracy"]) == {"validation", "test", "test_no_captions"}
    mapped = rssc(
        "classify", scene, "-o", tmp_path / "map.gpkg", "--model", tmp_path / "mine", "--captioner",
        "none", *whole_tiles("200px"),
        "--device", "cpu", "-q",
    )  # fmt: skip
    assert mapped.code == 0, mapped.err
    assert (tmp_path / "map.gpkg").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--captions", "x.jsonl"], "--captions: only for training end to end"),
        (["--checkpointing"], "--checkpointing: only for training end to end"),
        (
            ["--recipe", "full", "--train-text-layers", "some"],
            "'some' is not none, all or a number",
        ),
        (["--recipe", "published"], "hf download google/vit-base-patch16-224-in21k"),
        (
            ["--text-encoder", "nobody/nothing", "--image-encoder", "nobody/nothing"],
            "hf download nobody/nothing",
        ),
    ],
)
def test_wrong_use_is_one_line(
    rssc: Callable[..., Outcome],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    done = rssc("train", pictures, "-o", tmp_path / "mine", "--device", "cpu", "-q", *words)
    assert done.code in {1, 2}
    assert message in done.message
    assert not (tmp_path / "mine").exists()


def test_a_checkpoint_is_imported_and_asks_for_captions(
    rssc: Callable[..., Outcome], scene: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    torch.save(Authors(levels=2).state_dict(), tmp_path / "best.pth")
    save_tokenizer(tmp_path / "clip")
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    words = [
        "models",
        "import",
        tmp_path / "best.pth",
        "-o",
        tmp_path / "theirs",
        "--levels",
        2,
        "--tokenizer",
        tmp_path / "clip",
    ]
    done = rssc(*words, "--classes", tmp_path / "classes.txt", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["variant"] == "as-published"
    assert "as published by the authors" in rssc("models", "info", tmp_path / "theirs").out
    mapped = rssc(
        "classify",
        scene,
        "-o",
        tmp_path / "map.gpkg",
        "--model",
        tmp_path / "theirs",
        "--device",
        "cpu",
        "-q",
    )
    assert mapped.code == 2
    assert "needs captions; use --captioner" in mapped.message
    assert not (tmp_path / "map.gpkg").exists()
    again = rssc(*words, "--classes", "a,b", "--json")
    assert again.code == 1
    assert "holds a bundle already" in again.message
    words[4] = tmp_path / "other"
    wrong = rssc(*words, "--classes", "a,b")
    assert wrong.code == 2
    assert "trained for 3 classes, and --classes names 2" in wrong.message
    assert not (tmp_path / "other").exists()
