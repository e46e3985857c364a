"""The plugin's own texts can be translated: collected by `make translations`, shown by QGIS."""

from __future__ import annotations

import ast
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, QLocale
from rssc_geo_qgis import backend, i18n

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "qgis_plugin" / "rssc_geo_qgis"
# What installs and describes the backend, and what is shown of it.
TRANSLATED = [
    *("backend", "check", "child", "install", "options_page", "plugin", "python_search", "tasks"),
    "torch_build",
]
# What a user reads of what is given to them.
SHOWN = {
    *("addRow", "log", "question", "pushMessage", "createMessage", "setText", "setPlaceholderText"),
    *("QPushButton", "QGroupBox", "QLabel", "BackendTask", "_button", "_file", "addItem"),
    *("InstallError", "BackendError", "ChildError", "ChildStoppedError", "PythonMissingError"),
}
NAMES = {"CPU", "NVIDIA CUDA"}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    if shutil.which("pylupdate5") is None:
        pytest.skip("pylupdate5 is not installed (Debian: pyqt5-dev-tools)")
    made = subprocess.run(
        ["make", "--no-print-directory", "translations"], cwd=ROOT, check=True, capture_output=True
    )
    return Path(made.stdout.decode().split("template: ")[1].strip())


def calls(name):
    tree = ast.parse((PLUGIN / f"{name}.py").read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "id", getattr(node.func, "attr", "")), node


@pytest.mark.parametrize("name", TRANSLATED)
def test_what_a_user_reads_goes_through_tr(name):
    """No words that are given as they are to what shows them."""
    for called, node in calls(name):
        if called in SHOWN:
            for value in node.args:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    words = value.value
                elif isinstance(value, ast.JoinedStr):
                    words = "".join(
                        part.value for part in value.values if isinstance(part, ast.Constant)
                    )
                else:
                    continue
                said = [word for word in words.split() if len(word) > 3]
                assert words in NAMES or not said, (node.lineno, words)


def test_the_template_has_every_text(template):
    collected = {node.text for node in ET.parse(template).iter("source")}
    for name in (path.stem for path in PLUGIN.glob("*.py")):
        for called, node in calls(name):
            if called == "tr" and isinstance(node.args[0], ast.Constant):
                assert node.args[0].value in collected


def test_a_translation_is_shown(template, tmp_path, monkeypatch):
    lrelease = shutil.which("lrelease", path="/usr/lib/qt5/bin:/usr/lib/qt6/bin")
    if lrelease is None:
        pytest.skip("lrelease is not installed (Debian: qttools5-dev-tools)")
    tree = ET.parse(template)
    for message in tree.iter("message"):
        if message.findtext("source") == "The backend rssc-geo is not installed. {how}":
            translation = message.find("translation")
            translation.text = "Das Programm rssc-geo ist nicht installiert. {how}"
            del translation.attrib["type"]
    (tmp_path / "i18n").mkdir()
    tree.write(tmp_path / "german.ts", encoding="utf-8")
    made = [lrelease, tmp_path / "german.ts", "-qm", tmp_path / "i18n" / "rssc_geo_de.qm"]
    subprocess.run(made, check=True, capture_output=True)

    monkeypatch.setattr(i18n, "__file__", str(tmp_path / "i18n.py"))
    monkeypatch.setattr(QgsApplication, "locale", staticmethod(lambda: "de_AT"))
    translator = i18n.load_translation()
    try:
        from rssc_geo_qgis import settings

        settings.put(settings.PROGRAM, "")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(backend.BackendError, match=r"^Das Programm rssc-geo ist nicht inst"):
            backend.known_backend()
    finally:
        QCoreApplication.removeTranslator(translator)


def test_a_language_without_a_translation(monkeypatch):
    monkeypatch.setattr(QgsApplication, "locale", staticmethod(lambda: QLocale("fi").name()))
    assert i18n.load_translation() is None
    assert i18n.tr("as it {is}") == "as it {is}"
