"""The backend's private environment: made, stopped, gone on with, checked, used, removed.

Without network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)
pytest.importorskip(
    "ensurepip",
    reason="QGIS's Python cannot make environments (Debian: apt-get install python3-venv)",
)

from helpers import classify, wait_for
from qgis.core import QgsFeedback, QgsVectorLayer
from rssc_geo_qgis import backend as backends
from rssc_geo_qgis import install, settings, tasks
from rssc_geo_qgis.check import check_backend


@pytest.fixture
def private(monkeypatch):
    """No backend but the one that is installed; pip may use no network."""
    settings.put(settings.PROGRAM, "")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    backends.forget()
    yield
    install.remove()


@pytest.fixture
def half_installed(private, begin_installation):
    begin_installation(install.folder())


def test_install_goes_on_checks_works_and_is_removed(
    wheel, half_installed, scene, tmp_path, feedback
):
    lines = []
    install.install(str(wheel), feedback=feedback, log=lines.append)
    assert feedback.percents == sorted(feedback.percents)
    assert feedback.percents[-1] <= 100
    assert any("Successfully installed rssc-geo" in line for line in lines), lines
    backends.forget()
    assert backends.find_backend().program == install.program_path()

    report = []
    check_backend(feedback=feedback, log=report.append)
    assert report[-1] == "the backend works"
    assert "PyTorch" in "\n".join(report)
    assert "device" in "\n".join(report)

    found = classify(INPUT=str(scene), OUTPUT=str(tmp_path / "map.gpkg"))
    assert QgsVectorLayer(found["OUTPUT"]).featureCount() > 0

    install.remove()
    backends.forget()
    assert not Path(install.folder()).exists()
    with pytest.raises(backends.BackendError, match="is not installed"):
        backends.find_backend()


def test_the_install_task_as_the_button_starts_it(wheel, half_installed, web_server):
    """From an address, so that pip downloads.

    A program chosen before gives way to the installed one.
    """
    web_server.folder = wheel.parent
    settings.put(settings.INSTALL_FROM, f"{web_server.url}/{wheel.name}")
    settings.put(settings.PROGRAM, "/nowhere/rssc-geo")
    task = tasks.install_task()
    lines, percents, ended = [], [], []
    task.line.connect(lines.append)
    task.progressChanged.connect(percents.append)
    task.ended.connect(ended.append)
    assert task.start()
    assert not tasks.check_task().start()  # one at a time
    wait_for(lambda: ended)
    assert ended == [""], (ended, lines)
    assert lines[-1] == "the backend works"
    assert percents == sorted(percents)
    assert not any(line.startswith("Progress") for line in lines)
    assert backends.find_backend().program == install.program_path()
    assert tasks.BackendTask.current is None


def test_an_environment_that_broke_is_made_again(private, tmp_path):
    """Its Python was updated away: the link leads nowhere."""
    python = Path(install.python_path())
    python.parent.mkdir(parents=True)
    python.symlink_to("/nowhere/python3")
    stale = Path(install.folder()) / "stale"
    stale.write_text("")
    lines = []
    with pytest.raises(
        install.InstallError,
        match="installing PyTorch failed: ERROR: No matching distribution found for torch",
    ):
        install.install(str(tmp_path / "none.whl"), feedback=QgsFeedback(), log=lines.append)
    assert not stale.exists()
    assert subprocess.run([python, "-c", "import pip"], check=False).returncode == 0


def test_cancel(private, tmp_path):
    feedback, lines = QgsFeedback(), []
    timer = threading.Timer(1.0, feedback.cancel)
    timer.start()
    install.install("rssc-geo", feedback=feedback, log=lines.append)
    assert any("Install backend goes on from there" in line for line in lines)
    assert not Path(install.program_path()).exists()


def test_too_little_space(private):
    with pytest.raises(
        install.InstallError, match=r"needs 900000 GB on the disk of /.*, which has [\d.]+ GB free"
    ):
        install.check_space(install.Build("huge", "", 900_000))
    assert not Path(install.folder()).exists()


@pytest.fixture
def small_disk(private):
    """A file system of 8 MB where the environment would go.

    Less than it takes without any package.
    """
    place = Path(install.folder()).parent
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_small_disk_is_refused_before_anything_is_written(small_disk):
    with pytest.raises(
        install.InstallError, match=r"build\) needs .* GB on the disk of .* which has 0.0 GB free"
    ):
        install.install("rssc-geo", feedback=QgsFeedback(), log=print)
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_is_left_empty(small_disk, monkeypatch):
    for name in ("CPU", "CUDA"):  # as if others took the space after the check
        monkeypatch.setattr(install, name, install.Build(name, "", 0.0))
    with pytest.raises(
        install.InstallError, match=r"The disk of .* is full. What was installed was deleted"
    ):
        install.install("rssc-geo", feedback=QgsFeedback(), log=print)
    assert list(small_disk.iterdir()) == []


def test_no_suitable_python(private, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("executable", "exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path / "qgis-bin"))
    with pytest.raises(install.InstallError, match=r"No Python 3.11 or newer .*python3-venv"):
        install.suitable_python()


def test_on_windows_python_org_s_own_names_are_tried(private, monkeypatch):
    """Read from the candidates alone: there is no Windows here."""
    monkeypatch.setattr(install.shutil, "which", lambda name, **_: f"found/{name}")
    monkeypatch.setattr(sys, "executable", "/nowhere/qgis-bin.exe")
    with monkeypatch.context() as windows:
        windows.setattr(install.os, "name", "nt")
        candidates = list(install._candidates())
    assert candidates[-7:-4] == ["found/py", "found/python", "found/python3"]


def test_on_macos_the_folders_of_installers_are_looked_in(private, monkeypatch):
    """The same: a program started from the Finder has not got them on its PATH."""
    places = set()
    monkeypatch.setattr(install.shutil, "which", lambda name, path: places.add(path))
    with monkeypatch.context() as macos:
        macos.setattr(install.sys, "platform", "darwin")
        list(install._candidates())
    assert places == {"/usr/bin:/bin:/usr/local/bin:/opt/homebrew/bin"}


def test_qgis_s_own_python_is_taken(private):
    assert install.suitable_python() == sys.executable
