"""The rules of ARCHITECTURE.md that the import linter cannot see."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


@pytest.mark.slow
@pytest.mark.parametrize("package", LOADS_NONE_OF)
def test_importing_a_package_loads_nothing_that_it_must_not_know(package: str) -> None:
    """Also through other packages, whose lazy imports the import linter does not follow."""
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


def inner_imports(file: Path, own: str) -> Iterator[str]:
    """Imports from inside another package, but for a verb that is named like its module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            root, *inner = node.module.split(".")
            if root == "rssc_geo" and len(inner) > 1 and inner[0] != own:
                names = {alias.name for alias in node.names}
                if inner[-1] not in names:
                    yield f"{file.relative_to(ROOT)}:{node.lineno} imports from {node.module}"


def test_packages_are_imported_by_their_public_names() -> None:
    files = [
        *(ROOT / "rssc_geo").rglob("*.py"),
        *(ROOT / "cli").rglob("*.py"),
        *(ROOT / "benchmarks").glob("*.py"),
        *(ROOT / "examples").rglob("*.py"),
    ]
    found = [
        line for file in files for line in inner_imports(file, file.relative_to(ROOT).parts[1])
    ]
    assert not found, "\n".join(found)


def _third_party(folder: str) -> dict[str, Path]:
    """The top names of what a folder's modules import from other projects, and where."""
    found = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            found.update({name.partition(".")[0]: file for name in names})
    own = {"rssc_geo", "rssc_geo_cli"}
    return {name: file for name, file in found.items() if name not in sys.stdlib_module_names | own}


@pytest.mark.parametrize("folder", ["rssc_geo", "cli"])
def test_what_is_imported_is_declared(folder: str) -> None:
    """A package that happens to be in the developer's environment is missing in the user's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {canonicalize_name(Requirement(text).name) for part in wanted for text in part}
    providers = packages_distributions()
    imported = _third_party(folder)
    assert imported
    missing = {
        name: str(file.relative_to(ROOT))
        for name, file in imported.items()
        if not declared & {canonicalize_name(found) for found in providers.get(name, [])}
    }
    assert not missing


def _drawn_modules() -> set[str]:
    """Paths of the modules in the tree of ARCHITECTURE.md, from ``rssc_geo`` on."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = text.partition("    rssc_geo/\n")[2].partition("    cli/")[0]
    found, folder, part = set(), "", ""
    for line in tree.splitlines():
        if not line.startswith(" " * 8):  # a package, or modules of the root
            folder = part = ""
        for sub, module in re.findall(r"(\w+/)|(\w+\.pyi?)\b", line):
            if module.endswith(".py"):
                found.add(f"{folder}{part}{module}")
            elif not folder and not module:
                folder = sub
            elif (ROOT / "rssc_geo" / folder / sub / "__init__.py").is_file():
                part = sub
    return found


def test_the_tree_shows_every_module() -> None:
    package = ROOT / "rssc_geo"
    there = {file.relative_to(package).as_posix() for file in package.rglob("*.py")}
    assert _drawn_modules() == {name for name in there if not name.endswith("__init__.py")}
