"""The page in the options: what it keeps, what its buttons do, a task that outlives it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from helpers import look_at_backend, script, wait_for
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QCoreApplication
from qgis.PyQt.QtWidgets import QMessageBox
from rssc_geo_qgis import install, place, settings
from rssc_geo_qgis.options_page import OptionsFactory, OptionsPage
from rssc_geo_qgis.tasks import BackendTask
from rssc_geo_qgis.torch_build import Build


@pytest.fixture
def page(application):
    look_at_backend()
    BackendTask.last = None
    found = OptionsPage(None)
    yield found
    if BackendTask.current is not None:
        BackendTask.current.cancel()
    wait_until_idle()


def wait_until_idle():
    wait_for(lambda: BackendTask.current is None)


def slow_backend(folder: Path) -> str:
    """Answers as a backend does, but its run takes longer than anyone waits."""
    made = script(
        folder / "rssc-geo",
        'case "$1" in --version) echo rssc-geo 0.1.0;; --help) echo "Commands:";; *) echo started;'
        " sleep 600;; esac",
    )
    return str(made)


def test_what_is_entered_is_kept(page, tmp_path):
    page.program.setFilePath(str(tmp_path / "rssc-geo"))
    page.device.setCurrentText("cuda:1")
    page.cache.setFilePath(str(tmp_path))
    page.source.setFilePath(" rssc-geo==0.1.0 ")
    page.apply()
    again = OptionsPage(None)
    assert again.program.filePath() == str(tmp_path / "rssc-geo")
    assert (again.device.currentText(), again.cache.filePath()) == ("cuda:1", str(tmp_path))
    assert again.source.filePath() == "rssc-geo==0.1.0"
    assert settings.environment() == {
        "XDG_CACHE_HOME": str(tmp_path),
        "HF_HOME": f"{tmp_path}/huggingface",
    }
    again.device.setCurrentText("the fastest there is")
    again.apply()
    assert settings.get(settings.DEVICE) == ""


def test_the_status_names_the_backend_or_what_is_missing(page, backend, tmp_path):
    assert page.status.text().startswith("Backend: rssc-geo 0.1.0")
    assert str(backend) in page.status.text()
    settings.put(settings.PROGRAM, str(tmp_path / "gone"))
    assert "does not exist" in OptionsFactory(page.windowIcon()).createWidget(None).status.text()


def test_check_runs_in_the_background(page):
    page.check_button.click()
    assert not page.install_button.isEnabled()
    assert page.stop_button.isEnabled()
    assert page.bar.isVisibleTo(page)
    wait_until_idle()
    assert page.log.toPlainText().endswith("the backend works")
    assert page.install_button.isEnabled()
    assert not page.bar.isVisibleTo(page)
    assert page.status.text().startswith("Backend: rssc-geo")


def test_stop(page, tmp_path):
    page.program.setFilePath(slow_backend(tmp_path))
    page.check_button.click()
    wait_for(lambda: "started" in page.log.toPlainText())
    stopped = time.monotonic()
    page.stop_button.click()
    wait_until_idle()
    assert time.monotonic() - stopped < 1
    assert page.status.text() == "Stopped. Start it again to go on."


def test_a_page_that_is_closed_and_opened_again_during_a_task(page, tmp_path):
    page.program.setFilePath(slow_backend(tmp_path))
    page.check_button.click()
    sip.delete(page)
    again = OptionsPage(None)
    assert not again.check_button.isEnabled()
    BackendTask.current.setProgress(50)
    QCoreApplication.processEvents()
    assert again.bar.value() == 50
    again.stop_button.click()
    wait_until_idle()
    assert again.check_button.isEnabled()


def test_what_ended_while_the_page_was_closed_is_shown_when_it_is_opened(page, tmp_path):
    old = script(tmp_path / "rssc-geo", "echo rssc-geo 0.0.9")
    page.program.setFilePath(str(old))
    page.check_button.click()
    sip.delete(page)
    wait_until_idle()
    BackendTask.last.lines.append("what it said")
    again = OptionsPage(None)
    assert again.log.toPlainText() == "what it said"
    assert "version 0.0.9, this plugin needs 0.1 or newer" in again.status.text()
    again.program.setFilePath("")
    again.apply()  # it was read: the page tells of the new choice from then on
    assert "0.0.9" not in OptionsPage(None).status.text()


def test_an_installation_that_fails_says_why(page, monkeypatch, wheel):
    huge = Build("cpu", "CPU", 900_000)
    monkeypatch.setattr(install, "choose_build", lambda *_: huge)
    page.source.setFilePath(str(wheel))
    page.install_button.click()
    wait_until_idle()
    assert "needs 900000 GB on the disk" in page.status.text()
    assert not Path(place.folder()).exists()


def test_remove_asks_first(page, monkeypatch):
    Path(place.folder()).mkdir(parents=True)
    answers = iter([QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes])
    asked = []
    monkeypatch.setattr(
        QMessageBox, "question", lambda *arguments: asked.append(arguments[2]) or next(answers)
    )
    page.remove_button.click()
    assert Path(place.folder()).is_dir()
    page.remove_button.click()
    wait_until_idle()
    assert not Path(place.folder()).exists()
    assert place.folder() in asked[0]
