from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from rssc_geo.environment import prepare_torch

prepare_torch()

import numpy as np
import pytest
import torch
from affine import Affine
from hypothesis import HealthCheck, settings
from PIL import Image
from transformers import BertConfig, BertModel, BertTokenizerFast

from rssc_geo.models import (
    CaptionDecoder,
    DualAttentionClassifier,
    Footprint,
    Model,
    ModelCard,
    SceneClass,
    save_bundle,
)
from rssc_geo.training import build_vocabulary
from tests.factories import write_raster
from tests.programs import Program

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Shared machines stall at times: examples are bounded in number, never in time.
settings.register_profile(
    "steady", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def no_internal_error(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that ends in the handler of last resort fails the test, whatever it expected."""
    import rssc_geo_cli.main as program

    faults: list[Exception] = []
    print_fault = program.internal_error

    def record(arguments: list[str], error: Exception) -> int:
        faults.append(error)
        return print_fault(arguments, error)

    def communicate(self: Any, *arguments: Any, **settings: Any) -> Any:
        told = wait(self, *arguments, **settings)
        if any("internal error, please report it" in str(text) for text in told):
            faults.append(RuntimeError(str(told)))
        return told

    wait = subprocess.Popen.communicate
    monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
    monkeypatch.setattr(program, "internal_error", record)
    yield
    if faults:
        raise AssertionError("a command ended in an internal error") from faults[0]


@pytest.fixture(scope="session")
def fork_server() -> Any:
    """What starts processes that have the libraries loaded."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        [
            "rssc_geo.batch.batch",
            "rssc_geo.pipelines.classify",
            "rssc_geo.models.network",
            "rssc_geo_cli.batch",
        ]
    )
    # There is one such server, which Dask too would start, with libraries of its own.
    forkserver.ensure_running()
    return server


@pytest.fixture
def start(
    fork_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Program]]:
    """Start a command line in a process of its own; whatever is left is killed at the end."""
    started: list[Program] = []

    def begin(*arguments: object, before: str = "") -> Program:
        started.append(Program(fork_server, tmp_path_factory.mktemp("run"), arguments, before))
        return started[-1]

    yield begin
    for program in started:
        program.kill()


SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def rasters() -> Path:
    """Folder of real rasters beside the checkout; tests that need it skip where it is absent."""
    folder = SHARED / "data" / "rasters"
    if not folder.is_dir():
        pytest.skip("the real rasters (shared/data/rasters beside the checkout) are not here")
    return folder


@pytest.fixture(scope="session")
def small_model() -> Model:
    """A real network of small random weights; classes with awkward names."""
    torch.manual_seed(1)
    tokenizer = build_vocabulary(
        ["a green field near a river .", "many houses , roads and trees"] * 2
    )
    card = ModelCard(
        name="small",
        version="0",
        description="random weights",
        license="Apache-2.0",
        classes=tuple(
            SceneClass(i, name, "#336699", title=title, group=group)
            for i, (name, title, group) in enumerate(
                [
                    ("Field", "", ""),
                    ("River, wide", "Wide river", "Water"),
                    ("Town <b>", "Town & <b>", "Built <up>"),
                ]
            )
        ),
        input_size=(64, 64),
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        bands=("red", "green", "blue"),
        gsd_range_m=(0.5, 8.0),
        footprint=Footprint(300, 400, 4800),
        network={
            "image_encoder": {"architecture": "mobilenetv1_100", "kwargs": {"pad_type": "same"}},
            "text_encoder": {
                "model_type": "bert",
                "vocab_size": tokenizer.get_vocab_size(),
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 48,
            },
            "width": 32,
            "heads": 2,
            "levels": 2,
            "learned_queries": 4,
        },
        captioner={
            "image_width": 1024,
            "vocabulary": tokenizer.get_vocab_size(),
            "width": 32,
            "heads": 2,
            "layers": 2,
            "length": 9,
        },
        prompt="",
        max_tokens=16,
        temperature=1.5,
    )
    network = DualAttentionClassifier(classes=3, **card.network).eval()
    decoder = CaptionDecoder(**card.captioner).eval()
    return Model(card, network, tokenizer, decoder, tokenizer)


@pytest.fixture(scope="session")
def fine_model(small_model: Model) -> Model:
    """Random weights, with batch statistics that pictures leave, and classes that differ."""
    torch.manual_seed(0)
    network = {
        **small_model.card.network,
        "image_encoder": {
            "architecture": "mobilenetv1_100",
            "kwargs": {"pad_type": "same"},
            "ground": {"stage": 2, "width": 8},
        },
        "image_head": True,
    }
    card = dataclasses.replace(
        small_model.card,
        name="fine",
        input_size=(192, 192),
        footprint=Footprint(300, 600, 4800),
        network=network,
        captioner={**small_model.card.captioner, "image_width": 1032},  # type: ignore[dict-item]
        local_features={"stride": 32, "receptive_field": 315, "ground_stride": 8},
        temperature=1.0,
    )
    made = DualAttentionClassifier(classes=3, **network)
    with torch.no_grad():
        made.train()
        for _ in range(3):
            made.image_encoder(torch.randn(4, 3, 192, 192))
        made.eval()
        head = made.image_head
        assert head is not None
        head.weight.mul_(40)
        mean = made.image_encoder(torch.randn(8, 3, 192, 192)).mean((0, 1))
        head.bias.copy_(-head.weight @ mean)
    decoder = CaptionDecoder(**card.captioner).eval()  # type: ignore[arg-type]
    return Model(card, made, small_model.tokenizer, decoder, small_model.tokenizer)


@pytest.fixture(scope="session")
def fine_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """320 × 260 pixels of 10 m, patches of colors, with a hole of nodata."""
    random = np.random.default_rng(0)
    coarse = random.integers(20, 235, (3, 10, 9)).repeat(32, 1).repeat(32, 2)[:, :320, :260]
    pixels = (coarse + random.integers(-20, 20, (3, 320, 260))).clip(1, 255).astype(np.uint8)
    pixels[:, 200:240, 50:130] = 0
    path = tmp_path_factory.mktemp("fine") / "scene.tif"
    write_raster(
        path,
        pixels,
        nodata=0,
        transform=Affine(10, 0, 500_000, 0, -10, 5_000_000),
        tiled=True,
    )
    return path


@pytest.fixture
def bundle(small_model: Model, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    save_bundle(folder, dataclasses.replace(small_model), readme="# small\n")
    return folder


@pytest.fixture(scope="session")
def sentence_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real BERT of small random weights with a WordPiece vocabulary."""
    path = tmp_path_factory.mktemp("sentences")
    pieces = [
        "field",
        "river",
        "town",
        "wide",
        "vine",
        "##yard",
        "this",
        "is",
        "a",
        "green",
        "日",
        "é",
        *"bcdefghij",
    ]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]
    (path / "vocab.txt").write_text("\n".join(words))
    vocabulary = {word: place for place, word in enumerate(words)}
    BertTokenizerFast(vocab=vocabulary).save_pretrained(path)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    torch.manual_seed(0)  # the same weights whichever tests ran before
    BertModel(config).save_pretrained(path)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("making a small file system needs root")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    ).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


COLORS = {"Field": (60, 160, 60), "River, wide": (40, 80, 180), "Town <b>": (170, 90, 80)}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 noisy pictures of one color each, with captions of all but one.

    One picture is there twice.
    """
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    lines = []
    for name, color in COLORS.items():
        (root / "images" / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.clip(
                np.array(color) + random.integers(-40, 40, (40, 40, 3)), 0, 255
            ).astype(np.uint8)
            file = f"{name}/{index:02d}.png"
            Image.fromarray(pixels).save(root / "images" / file)
            lines.append(
                json.dumps(
                    {
                        "image": file,
                        "captions": [f"this is a {name.split(',', maxsplit=1)[0].lower()} ."],
                    }
                )
            )
    (root / "images" / "Field" / "19.png").write_bytes(
        (root / "images" / "Field" / "00.png").read_bytes()
    )
    (root / "captions.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    return root
