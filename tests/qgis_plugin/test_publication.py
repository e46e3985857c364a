"""What the plugin repository asks of an upload, looked at as it does.  Runs without QGIS."""

from __future__ import annotations

import configparser
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "qgis_plugin"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PLUGIN / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_zip, scan_zip = script("build_zip"), script("scan_zip")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("zip") / "plugin.zip"
    subprocess.run([sys.executable, PLUGIN / "build_zip.py", path], check=True)
    return path


@pytest.mark.slow
def test_the_repository_s_scanners_find_nothing(archive):
    assert scan_zip.scan(archive) == []


@pytest.mark.slow
def test_each_scanner_finds_what_is_planted(archive, tmp_path):
    planted = tmp_path / "planted.zip"
    metadata = zipfile.ZipFile(archive).read("rssc_geo_qgis/metadata.txt").decode()
    key = f"AKIA{'Q3EGRZ2SXNZ7MW4B'}"
    with zipfile.ZipFile(planted, "w") as files:
        files.writestr(
            "rssc_geo_qgis/metadata.txt",
            metadata.replace("tracker=", "supportsQt6=True\nx="),
        )
        files.writestr(
            "rssc_geo_qgis/shell.py", "import subprocess\nsubprocess.call('x', shell=1)\n"
        )
        files.writestr("rssc_geo_qgis/key.py", f'key = "{key}"\n')
        files.writestr("rssc_geo_qgis/style.py", "x=1\n" + "# " + "a " * 60 + "a" + "\n")
        files.writestr("rssc_geo_qgis/run.sh", "")
        executable = zipfile.ZipInfo("rssc_geo_qgis/main.py")
        executable.external_attr = 0o755 << 16
        files.writestr(executable, "")
    found = "\n".join(scan_zip.scan(planted))
    for sign in ("no tracker", "supportsQt6", "B602", "AWS Access Key", "E225", "E501"):
        assert sign in found
    assert "run.sh: hidden, compiled or executable" in found
    assert "main.py: has the permission to be executed" in found
    ended = subprocess.run(
        [sys.executable, PLUGIN / "scan_zip.py", planted], check=False, capture_output=True
    )
    assert ended.returncode == 1


def test_the_zip_with_the_wheel_may_be_uploaded(archive):
    assert archive.stat().st_size <= 24_000_000
    with zipfile.ZipFile(archive) as files:
        names = files.namelist()
        wheels = [name for name in names if name.endswith(".whl")]
        assert len(wheels) == 1
        with files.open(wheels[0]) as file, zipfile.ZipFile(file) as wheel:
            assert "rssc_geo/models/bundles/compact/model.safetensors" in wheel.namelist()
            assert "rssc_geo_cli/main.py" in wheel.namelist()


def test_the_wheel_fits_however_little_the_model_is_compressed():
    bundle = ROOT / "rssc_geo" / "models" / "bundles" / "compact"
    largest = sum(file.stat().st_size for file in bundle.iterdir())
    assert largest <= build_zip.MOST_BUNDLE_BYTES
    # What else is in the zip takes less than a megabyte.
    assert build_zip.MOST_BUNDLE_BYTES + 1_000_000 <= build_zip.MOST_ZIP_BYTES < 25_000_000


def test_a_zip_that_is_too_large_is_refused():
    with pytest.raises(SystemExit, match=r"plugin.zip has 24,000,001 bytes, at most 24,000,000"):
        build_zip._check_size("plugin.zip", 24_000_001, build_zip.MOST_ZIP_BYTES)


def test_the_metadata_has_versions_and_authors_from_pyproject(archive):
    parser = configparser.ConfigParser()
    parser.optionxform = str
    parser.read_string(zipfile.ZipFile(archive).read("rssc_geo_qgis/metadata.txt").decode())
    metadata = parser["general"]
    project = build_zip._pyproject()
    assert metadata["version"] == project["project"]["version"]
    for key, value in build_zip.publication(project).items():
        assert metadata[key] == value
    assert (metadata["qgisMinimumVersion"], metadata["qgisMaximumVersion"]) == ("3.22", "4.99")
    assert metadata["hasProcessingProvider"] == "yes"
    assert metadata["changelog"].strip().startswith(metadata["version"])
    assert f"rssc_geo_qgis/{metadata['icon']}" in zipfile.ZipFile(archive).namelist()


def test_authors_and_addresses_are_named_in_one_place():
    named = build_zip.publication(build_zip._pyproject()).values()
    for file in (ROOT / "qgis_plugin").rglob("*"):
        if file.is_file() and file.suffix in {".py", ".txt", ".md"}:
            text = file.read_text("utf-8")
            assert not [value for value in named if value in text], file


def test_a_release_with_placeholders_is_refused(tmp_path):
    target = tmp_path / "plugin.zip"
    known = {"email": "a@rssc-geo.example.org", "author": "A", "homepage": "https://a.net"}
    assert build_zip.placeholders(known) == ["email"]
    ended = subprocess.run(
        [sys.executable, PLUGIN / "build_zip.py", "--release", target],
        check=False,
        capture_output=True,
        text=True,
    )
    unset = build_zip.placeholders(build_zip.publication(build_zip._pyproject()))
    if not unset:
        pytest.skip("the addresses were set: this is to be published")
    assert ended.returncode == 1
    assert f"{', '.join(unset)} of pyproject.toml" in ended.stderr
    assert not target.exists()


def test_the_zip_is_the_same_each_time(archive, tmp_path):
    again = build_zip.build(tmp_path / "again.zip")
    assert again.read_bytes() == archive.read_bytes()
