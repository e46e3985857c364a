"""The rules of ARCHITECTURE.md that the import linter cannot see."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = ("torch", "transformers", "timm")
LOADS_NONE_OF = {
    "raster": NETWORKS,
    "output": NETWORKS,
    "geometry": (*NETWORKS, "rasterio"),
    "models": ("rasterio",),
    "captioning": ("rasterio",),
    "options": (*NETWORKS, "rasterio", "numpy", "click"),
}


def modules(package: str) -> list[str]:
    """The names of all modules of a package, or of the module."""
    source = ROOT / "rssc_geo" / package
    files = sorted(source.rglob("*.py")) if source.is_dir() else [source.with_suffix(".py")]
    names = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("package", LOADS_NONE_OF)
def test_importing_a_package_loads_nothing_that_it_must_not_know(package: str) -> None:
    """Also by way of others, whose doors the import linter does not look behind."""
    unwanted = LOADS_NONE_OF[package]
    program = f"""
import importlib, sys
for name in {modules(package)}:
    importlib.import_module(name)
    found = [library for library in {unwanted} if library in sys.modules]
    assert not found, f"{{name}} loads {{found}}"
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr.splitlines()[-1]


def past_the_door(file: Path, own: str) -> Iterator[str]:
    """Imports from inside another package, but for a verb that is named like its module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            root, *inner = node.module.split(".")
            if root == "rssc_geo" and len(inner) > 1 and inner[0] != own:
                names = {alias.name for alias in node.names}
                if inner[-1] not in names:
                    yield f"{file.relative_to(ROOT)}:{node.lineno} imports from {node.module}"


def test_packages_are_entered_by_their_doors() -> None:
    files = [
        *(ROOT / "rssc_geo").rglob("*.py"),
        *(ROOT / "cli").rglob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
        *(ROOT / "examples").rglob("*.py"),
    ]
    found = [
        line for file in files for line in past_the_door(file, file.relative_to(ROOT).parts[1])
    ]
    assert not found, "\n".join(found)
