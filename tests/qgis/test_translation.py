"""The plugin's own texts can be translated: collected by `make translations`, shown by QGIS."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from string import Formatter

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from helpers import algorithm
from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, QLocale
from rssc_geo_qgis import backend, i18n

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "qgis_plugin" / "rssc_geo_qgis"
FOR_DEVELOPERS = {"diagnostics.py"}
"""What is pasted into an issue stays in English."""
# Two words with a space between them; and what is one word where it is shown.
SENTENCE = re.compile(r"[^\W\d_]{2,}\W* +\W*[^\W\d_]{2,}")
SHOWN = {
    *("addRow", "addItem", "setText", "setToolTip", "pushMessage", "pushInfo", "pushWarning"),
    *("QPushButton", "QGroupBox", "QLabel", "QgsProcessingOutputHtml", "Override", "described"),
}
NAMES = {"RSSC Geo", "CPU", "NVIDIA CUDA"}
"""Of programs and devices: the same in all languages."""
NO_TEXT = re.compile(
    r"SELECT |import |assess |train --|rssc-geo: error: | is not the raster that |\[% "
    r"|No space left on device|not enough space on the disk|not the full name of a program"
)
"""What a database, a Python, QGIS or the program is told or says itself; a fault of the plugin."""


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    if shutil.which("pylupdate5") is None:
        pytest.skip("pylupdate5 is not installed (Debian: pyqt5-dev-tools)")
    made = subprocess.run(
        ["make", "--no-print-directory", "translations"], cwd=ROOT, check=True, capture_output=True
    )
    return Path(made.stdout.decode().split("template: ")[1].strip())


def literals(path):
    """Line and text of each literal that is no docstring and is not given to ``tr``; who gets it.

    HTML without its tags, and what is put into an f-string left out.
    """
    tree = ast.parse(path.read_text("utf-8"))
    passed, getters = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed.add(node.value)
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called in ("tr", "compile"):  # a regular expression is none either
                passed.update(part for given in node.args for part in ast.walk(given))
            getters.update(dict.fromkeys(node.args, called))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and node not in passed:
            parts = [part for part in node.values if isinstance(part, ast.Constant)]
            passed.update(parts)
            words = "{}".join(part.value for part in parts)
        elif isinstance(node, ast.Constant) and node not in passed:
            words = node.value
        else:
            continue
        if isinstance(words, str):
            yield node.lineno, re.sub(r"</?\w[^>]*>?|[^<]*>", "|", words), getters.get(node, "")


@pytest.mark.parametrize(
    "path", sorted(PLUGIN.rglob("*.py")), ids=lambda path: path.relative_to(PLUGIN).as_posix()
)
def test_what_a_user_reads_goes_through_tr(path):
    if path.name in FOR_DEVELOPERS:
        return
    for line, text, getter in literals(path):
        word = getter in SHOWN and re.search(r"[^\W\d_]{2}[a-z]", text)
        if text not in NAMES and not NO_TEXT.match(text):
            found = SENTENCE.search(text) or word
            assert not found, (line, text)


def calls(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "id", getattr(node.func, "attr", "")), node


def test_the_template_has_every_text(template):
    collected = {node.text for node in ET.parse(template).iter("source")}
    for path in PLUGIN.rglob("*.py"):
        for called, node in calls(path):
            if called == "tr" and isinstance(node.args[0], ast.Constant):
                assert node.args[0].value in collected
    classify = algorithm("classify")
    for definition in classify.parameterDefinitions():
        assert definition.description() in collected


def test_each_text_can_be_filled_in():
    """What is put in has a name, and where a text has none there is nothing to put in."""
    for path in PLUGIN.rglob("*.py"):
        for called, node in calls(path):
            if called == "format" and isinstance(node.func.value, ast.Call):
                text = node.func.value.args[0]
                names = {name for _, name, _, _ in Formatter().parse(text.value) if name}
                given = {keyword.arg for keyword in node.keywords}
                assert names == given or None in given, (path.name, node.lineno)


def test_a_translation_is_shown(template, tmp_path, monkeypatch):
    lrelease = shutil.which("lrelease", path="/usr/lib/qt5/bin:/usr/lib/qt6/bin")
    if lrelease is None:
        pytest.skip("lrelease is not installed (Debian: qttools5-dev-tools)")
    tree = ET.parse(template)
    for message in tree.iter("message"):
        if (
            message.findtext("source")
            == "The backend (the program rssc-geo, which does the work) is not installed. {how}"
        ):
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
