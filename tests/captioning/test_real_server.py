"""Captions from ``transformers serve``, a process of its own with a small random LLaVA."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from packaging.version import Version

from rssc_geo.captioning import CaptionBatch, HuggingFaceCaptioner, ServerCaptioner
from rssc_geo.errors import RsscGeoError
from rssc_geo.options import CaptionerOptions
from tests.captioning.test_huggingface import llava_next, save

_NEEDED = ("fastapi", "openai", "uvicorn")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in _NEEDED),
        reason=f"transformers serve needs {', '.join(_NEEDED)}",
    ),
    pytest.mark.skipif(
        Version(version("transformers")) < Version("5.5"),
        reason="transformers serve takes a folder as its model since 5.5",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(llava_next, tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [
        sys.executable,
        "-m",
        "transformers.cli.transformers",
        "serve",
        str(folder),
        "--host",
        "127.0.0.1",
    ]
    log = folder / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [*program, "--port", str(port), "--device", "cpu"],
            stdout=file,
            stderr=file,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    try:
        for _ in range(1200):
            assert server.poll() is None, log.read_text()
            try:
                httpx2.get(f"http://127.0.0.1:{port}/health")
                break
            except httpx2.TransportError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def test_the_server_says_what_the_model_says_here(address: str, folder: Path) -> None:
    pixels = (
        np.random.default_rng(0).integers(0, 255, (4, 56, 56, 3), dtype=np.uint8)
        // np.array([1, 2, 4, 8], np.uint8)[:, None, None, None]
    )
    batch = CaptionBatch(pixels, np.ones((4, 56, 56), bool), torch.zeros(4, 1, 1))
    options = CaptionerOptions(caption_tokens=12, caption_requests=2)
    asked = ServerCaptioner(
        f"{address}#{folder}", prompt="river and field .", options=options
    ).caption(batch)
    here = HuggingFaceCaptioner(
        str(folder), prompt="river and field .", device="cpu", options=options
    ).caption(batch)
    assert asked == here
    assert len(set(asked)) > 1


def test_the_server_refuses_a_wrong_name(address: str) -> None:
    batch = CaptionBatch(
        np.zeros((1, 56, 56, 3), np.uint8), np.ones((1, 56, 56), bool), torch.zeros(1, 1, 1)
    )
    with pytest.raises(RsscGeoError, match=r"refuses the request \(4\d\d .*'nobody/nothing'"):
        ServerCaptioner(f"{address}#nobody/nothing", prompt="?").caption(batch)
