"""What is pasted into an issue: all that helps, nothing secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from helpers import wait_for
from qgis.core import Qgis, QgsApplication
from rssc_geo_qgis import diagnostics, place, settings, tasks
from rssc_geo_qgis.options_page import OptionsPage


@pytest.fixture
def installed_before(monkeypatch):
    Path(place.home()).mkdir(parents=True, exist_ok=True)
    Path(place.log_path()).write_text("Looking in indexes: https://me:pw1@index/simple\ndone\n")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pw2@proxy:3128")
    monkeypatch.setenv("HF_TOKEN", "hf_pw3")
    monkeypatch.setenv("PIP_INDEX_URL", "https://robot:pw@4@index/simple?key=pw5")
    monkeypatch.setenv("SOMETHING_OF_OTHERS", "pw6")
    monkeypatch.setenv("RSSC_GEO_DEVICE", "cpu")
    settings.put(settings.INDEX, "https://me:pw7@index/simple")
    yield
    Path(place.log_path()).unlink()


@pytest.mark.cold  # versions are those of the Python beside the program
def test_what_it_tells(installed_before, backend):
    text = "\n".join(diagnostics.describe())
    for part in (
        f"QGIS: {Qgis.QGIS_VERSION}, Qt ",
        "Python: 3.",
        "backend: 0.1.0, ",
        "PyTorch ",
        "device ",
        "  device=",
        "  index=https://…@index/simple",
        "  HTTPS_PROXY=http://…@proxy:3128",
        "  HF_TOKEN=…",
        "  RSSC_GEO_DEVICE=cpu",
        "  PIP_INDEX_URL=https://…@index/simple?key=…",
        "last installation:\n  Looking in indexes: https://…@index/simple\n  done",
    ):
        assert part in text
    assert "pw" not in text
    assert "SOMETHING_OF_OTHERS" not in text
    assert os.path.expanduser("~") not in text


def test_without_a_backend_and_an_installation(tmp_path, monkeypatch):
    settings.put(settings.PROGRAM, str(tmp_path / "gone"))
    monkeypatch.setenv("PATH", str(tmp_path))
    text = "\n".join(diagnostics.describe())
    assert "does not exist" in text
    assert "cards: none by nvidia-smi" in text
    assert text.endswith("last installation:\n  none")


def test_the_button_copies_it(backend):
    QgsApplication.clipboard().setText("before")
    page = OptionsPage(None)
    page.diagnose_button.click()
    wait_for(lambda: tasks.BackendTask.current is None)
    assert QgsApplication.clipboard().text() == "\n".join(tasks.BackendTask.last.lines)
    assert "QGIS: " in QgsApplication.clipboard().text()
