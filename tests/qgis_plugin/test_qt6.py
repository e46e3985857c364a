"""What only Qt 5 understands is found in the QGIS plugin's source.

No QGIS with Qt 6 is at hand. Runs without QGIS. Its own tests and its benchmark are held to the
same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    file
    for folder in ("qgis_plugin", "tests/qgis")
    for file in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in file.parts
)
SOURCES.append(ROOT / "benchmarks" / "qgis_plugin.py")
# Qt 6 has none of these: methods renamed for Python 2, types of a QVariant, regular expressions and
# screens of Qt 4.
GONE = {
    "exec_",
    "print_",
    "QVariant",
    "QRegExp",
    "QDesktopWidget",
    "QTextCodec",
    "QMatrix",
    "toTime_t",
}
_CAMEL_CASE = re.compile(r"[A-Z]\w*[a-z]\w*")


def only_in_qt5(source: str) -> Iterator[str]:
    """``line: what`` for each use in a module's source."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    qt = {"self", "cls"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qgis."):
            qt |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, (ast.Import, ast.ImportFrom))
            else []
        )
        if isinstance(node, (ast.Attribute, ast.Name)):
            names.append(node.attr if isinstance(node, ast.Attribute) else node.id)
        found = [name for name in names if name in GONE or name.startswith(("PyQt", "PySide"))]
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("PyQt", "PySide")):
            found.append(node.module)
        if isinstance(node, ast.Attribute) and _unscoped(node, parents[node], qt):
            found.append(ast.unparse(node))
        # One argument copies a field; a second is a QVariant.Type in Qt 5 and a QMetaType.Type in
        # Qt 6.
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", "") == "QgsField"
            and len(node.args) + len(node.keywords) > 1
        ):
            found.append("QgsField of a type")
        yield from (f"{node.lineno}: {what}" for what in found)


def _unscoped(node: ast.Attribute, parent: ast.AST, qt: set[str]) -> bool:
    """``Qt.AlignLeft``.

    A class of QGIS or Qt, then one name in camel case that is neither called, nor itself a scope,
    nor the type of a function's result.
    """
    if isinstance(parent, ast.FunctionDef) and parent.returns is node:
        return False
    is_scope = isinstance(parent, ast.Attribute)
    is_class = isinstance(parent, ast.Call) and parent.func is node
    owned = isinstance(node.value, ast.Name) and node.value.id in qt
    return owned and _CAMEL_CASE.fullmatch(node.attr) is not None and not is_scope and not is_class


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_that_only_qt5_understands(file: Path) -> None:
    assert list(only_in_qt5(file.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "dialog.exec_()",
        "x = Qt.AlignLeft",
        "x = QgsProcessing.TypeVectorPolygon",
        "x = self.flags() | self.FlagNoThreading",
        "x = Qgis.Warning",
        "f(QFrame.NoFrame, QgsWkbTypes.PolygonGeometry)",
        "x = QVariant.Type",
        "from qgis.PyQt.QtCore import QVariant",
        "from PyQt5.QtCore import QObject",
        "import PyQt5",
        'x = QgsField("class", 10)',
        "from qgis.PyQt.QtCore import QRegExp",
    ],
)
def test_what_is_found(line: str) -> None:
    head = (
        "from qgis.core import Qgis, QgsField, QgsProcessing, QgsWkbTypes\nfrom qgis.PyQt.QtCore"
        " import Qt\n"
    )
    assert len(set(only_in_qt5(f"{head}from qgis.PyQt.QtWidgets import QFrame\n{line}"))) >= 1


@pytest.mark.parametrize(
    "line",
    [
        "dialog.exec()",
        "x = Qt.AlignmentFlag.AlignLeft",
        "x = QgsProcessing.SourceType.TypeVectorPolygon",
        "x = QgsProcessingContext.LayerDetails(1, 2)",
        "x = Qgis.QGIS_VERSION",
        "x = QgsField(other)",
        "x = queue.Empty",
        "x = self.NAME",
    ],
)
def test_what_is_not(line: str) -> None:
    head = (
        "import queue\nfrom qgis.core import Qgis, QgsField, QgsProcessing, QgsProcessingContext\n"
    )
    assert list(only_in_qt5(f"{head}from qgis.PyQt.QtCore import Qt\n{line}")) == []
