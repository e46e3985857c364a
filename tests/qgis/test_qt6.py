"""What Qt 6 wants of the plugin's source, as QGIS's own migration script looks for it.

A QGIS on Qt 6 is in no release of Debian yet. The names are looked up in the QGIS that is here: a
member of an enumeration that is reached through the class around it is not there under Qt 6.
"""

from __future__ import annotations

import ast
import enum
import importlib
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

PLUGIN = Path(__file__).resolve().parents[2] / "qgis_plugin" / "rssc_geo_qgis"
FILES = sorted(PLUGIN.rglob("*.py"))
GONE = {"exec_", "qApp", "QRegExp", "QVariant", "QDesktopWidget", "QFontMetrics"}


def imported(tree):
    """What a module takes from QGIS and Qt, by its name there."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qgis."):
            module = importlib.import_module(node.module)
            found.update(
                {name.asname or name.name: getattr(module, name.name) for name in node.names}
            )
    return found


def unscoped(tree):
    """Members of enumerations that are not reached through their enumeration."""
    names = imported(tree)

    def value_of(node):
        if isinstance(node, ast.Name):
            return names.get(node.id)
        owner = value_of(node.value) if isinstance(node, ast.Attribute) else None
        return getattr(owner, node.attr, None) if owner is not None else None

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner, member = value_of(node.value), value_of(node)
            is_member = type(type(member)).__name__ == "enumtype" or isinstance(member, enum.Enum)
            if is_member and owner is not type(member):
                yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PLUGIN).as_posix())
def test_nothing_to_migrate(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert list(unscoped(tree)) == []
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(tree)}
    assert not names & GONE
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in modules if name.startswith(("PyQt", "sip", "qgis.PyQt.Qt."))}


def test_the_check_sees_what_is_to_migrate():
    lines = ("from qgis.PyQt.QtCore import Qt", "Qt.AlignLeft", "Qt.AlignmentFlag.AlignLeft")
    assert list(unscoped(ast.parse("\n".join(lines)))) == [(2, "Qt.AlignLeft")]
