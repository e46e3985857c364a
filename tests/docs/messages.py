"""The messages of the program's errors and warnings, as the source writes them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .conftest import ROOT

BASE = "RsscGeoError"
_PRINTF = re.compile(r"%(?:\.\d+)?[sdgfr]")
_WORD = re.compile(r"[^\W\d_]{2,}")


def messages() -> dict[str, list[str]]:
    """Each message with "…" for what varies, and where in the source it stands.

    Errors are the calls of a class below ``RsscGeoError`` with text as their first argument,
    warnings the calls of ``log.warning``, what functions named ``…_warnings`` yield, what is
    appended to a list ``notes``, and the third argument of ``BandChoice``. Those that only pass
    on a text have none of their own.
    """
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for folder in ("rssc_geo", "cli")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    errors = _error_classes(trees)
    found: dict[str, list[str]] = {}
    for path, tree in trees.items():
        for told in _told(tree, errors):
            for text in _texts(told):
                if _WORD.search(text):
                    place = f"{path.relative_to(ROOT)}:{told.lineno}"
                    found.setdefault(text, []).append(place)
    return found


def _told(tree: ast.Module, errors: set[str]) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and _tells(node.func, errors):
            yield node.args[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from node.args[2:] if node.func.id == "BandChoice" else ()
        elif isinstance(node, ast.FunctionDef) and node.name.endswith("_warnings"):
            for each in ast.walk(node):
                if isinstance(each, ast.Yield) and each.value is not None:
                    yield each.value


def _error_classes(trees: dict[Path, ast.Module]) -> set[str]:
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    known = {BASE}
    while more := {name for name, above in bases.items() if above & known} - known:
        known |= more
    return known


def _tells(function: ast.expr, errors: set[str]) -> bool:
    if isinstance(function, ast.Name):
        return function.id in errors
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and (function.value.id, function.attr) in {("log", "warning"), ("notes", "append")}
    )


def _texts(node: ast.expr) -> Iterator[str]:
    """What an expression can be: both sides of a condition, "…" for what is not written out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield _PRINTF.sub("…", node.value)
    elif isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        yield "".join(map(str, parts))
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.BinOp):
        yield from (a + b for a in _texts(node.left) for b in _texts(node.right))
    else:
        yield "…"
