"""Which PyTorch is chosen, by what NVIDIA's driver tells: a program of its name answers."""

from __future__ import annotations

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from helpers import script
from rssc_geo_qgis import torch_build


@pytest.fixture
def driver(tmp_path, monkeypatch):
    def answer(text):
        script(tmp_path / "nvidia-smi", text)
        monkeypatch.setenv("PATH", str(tmp_path))

    monkeypatch.setenv("PATH", str(tmp_path))
    return answer


def chosen(wanted=""):
    lines = []
    return torch_build.choose_build(wanted, lines.append).name, lines


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("NVIDIA H100 80GB HBM3, 9.0, 580.95.05", "cu130"),
        ("NVIDIA A10, 8.6, 560.35.03", "cu126"),
        ("NVIDIA GeForce GTX 1080, 6.1, 580.95.05", "cu126"),  # no code for it in CUDA 13
        ("Tesla V100, 7.0, 525.147.05", "cu126"),
        ("NVIDIA GeForce RTX 5090, 12.0, 572.16", "cu128"),  # no code for it in CUDA 12.6
        ("NVIDIA GeForce RTX 5090, 12.0, 581.80", "cu130"),
        ("Tesla K80, 3.7, 470.256.02", "cpu"),
        ("NVIDIA A10, 8.6, 470.256.02", "cpu"),  # a driver of before CUDA 12
        ("GeForce, card, 8.6, 560.35", "cu126"),  # a comma in its name
    ],
)
def test_the_build_that_runs_on_the_card(driver, told, name):
    driver(f"echo '{told}'")
    assert chosen()[0] == name
    assert chosen("cpu")[0] == "cpu"


def test_the_first_card_that_a_build_runs_on(driver):
    driver("echo 'Tesla K80, 3.7, 560.1'; echo 'NVIDIA A10, 8.6, 560.1'")
    name, lines = chosen()
    assert name == "cu126"
    assert "Tesla K80 (3.7, driver 560): no build of PyTorch for it" in lines


@pytest.mark.parametrize(
    "text",
    [
        "echo 'NVIDIA-SMI has failed'; exit 9",
        "echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2",
        "echo 'GeForce GT 710, [N/A], 470.1'",
        "echo",
    ],
)
def test_a_driver_that_does_not_tell(driver, text):
    driver(text)
    assert chosen()[0] == "cpu"
    assert chosen("cuda")[0] == "cu126"  # who asks for it knows better


def test_no_driver_and_macos(driver, monkeypatch):
    assert chosen() == ("cpu", [])
    monkeypatch.setattr(torch_build.sys, "platform", "darwin")
    assert chosen("cuda")[0] == ""
    assert torch_build.APPLE.index == ""


def test_pytorch_s_indexes_stand_in_one_constant(monkeypatch):
    monkeypatch.setattr(torch_build, "INDEXES", "https://mirror/")
    assert [build.index for build in (torch_build.CPU, *torch_build.CUDA)] == [
        "https://mirror/cpu",
        *(f"https://mirror/{name}" for name in ("cu130", "cu126", "cu128")),
    ]


def test_windows_needs_another_driver(driver, monkeypatch):
    card = torch_build.Card("V100", (7, 0), 526)
    assert torch_build.WIDEST.runs(card)
    with monkeypatch.context() as windows:
        windows.setattr(torch_build.os, "name", "nt")
        assert not torch_build.WIDEST.runs(card)
