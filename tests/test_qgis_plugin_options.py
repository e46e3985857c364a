"""The options of rssc-geo as the QGIS plugin reads them; runs without QGIS."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from rssc_geo.options import describe_options

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin's zip, built by a Python that has its standard library alone."""
    path = tmp_path_factory.mktemp("zip") / "plugin.zip"
    build = [sys.executable, "-I", "-S", ROOT / "qgis_plugin" / "build_zip.py", path]
    subprocess.run(build, check=True)
    return path


@pytest.fixture(scope="module")
def options(archive: Path) -> ModuleType:
    """The plugin's module, out of the zip, which is what QGIS unpacks."""
    folder = archive.parent / "plugins"
    zipfile.ZipFile(archive).extractall(folder)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("rssc_geo_qgis.options")
    finally:
        sys.path.remove(str(folder))


def test_the_zip_carries_the_options(archive: Path) -> None:
    written = zipfile.ZipFile(archive).read("rssc_geo_qgis/options.json")
    told = json.loads(written)
    assert told == {
        "version": version("rssc-geo"),
        "options": json.loads(json.dumps(describe_options())),
    }


def test_it_is_what_the_program_says_of_itself(archive: Path) -> None:
    written = zipfile.ZipFile(archive).read("rssc_geo_qgis/options.json")
    ask = [sys.executable, "-m", "rssc_geo_cli.main", "info", "--json"]
    told = subprocess.run(ask, check=True, capture_output=True).stdout
    assert json.loads(told) == json.loads(written)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version": "9", "options": {"classify": [{"name": "model"}]}}']
)
def test_a_list_that_cannot_be_read(options: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="KeyError|TypeError|Expecting value"):
        options.read(text)


def test_every_option_is_read(options: ModuleType) -> None:
    for command, entries in describe_options().items():
        read = options.options_of(command)
        assert [option.name for option in read] == [entry["name"] for entry in entries]
        assert [option.flag for option in read] == [entry["flag"] for entry in entries]


@pytest.mark.parametrize(
    ("command", "name", "value", "arguments"),
    [
        ("classify", "tile_size", "400m", ["--tile-size=400m"]),
        ("classify", "tile_size", "", []),
        ("classify", "tile_size", None, []),
        ("classify", "model", "compact", []),
        ("classify", "min_valid", 0.5, []),
        ("classify", "nodata", 9007199254740993, ["--nodata=9007199254740993"]),
        ("classify", "nodata", 7.0, ["--nodata=7"]),
        ("classify", "min_valid", 0.25, ["--min-valid=0.25"]),
        ("classify", "min_area", 0.0, []),
        ("classify", "nodata", 0.0, ["--nodata=0"]),
        ("classify", "nodata", -3.4028234663852886e38, ["--nodata=-3.4028234663852886e+38"]),
        ("classify", "review", 20, ["--review=20"]),
        ("classify", "probabilities", True, ["--probabilities"]),
        ("classify", "probabilities", False, []),
        ("zero-shot", "other", True, ["--no-other"]),
        ("zero-shot", "other", False, []),
        ("explain", "at", "7,51", ["--at=7,51"]),
        ("explain", "at", ["7,51", "8,52"], ["--at=7,51", "--at=8,52"]),
    ],
)
def test_the_arguments_of_a_value(
    options: ModuleType, command: str, name: str, value: object, arguments: list[str]
) -> None:
    (option,) = (option for option in options.options_of(command) if option.name == name)
    assert option.arguments(value) == arguments
