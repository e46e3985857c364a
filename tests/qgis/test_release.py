"""The zip, installed into a fresh profile, and ``qgis_process`` with it from end to end."""

from __future__ import annotations

import ast
import functools
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from helpers import whole_tiles
from qgis.core import QgsVectorLayer

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "qgis_plugin" / "rssc_geo_qgis"
# Debian 12's wrapper passes an option that the program refuses.
QGIS_PROCESS = next(
    (path for name in ("qgis_process.bin", "qgis_process") if (path := shutil.which(name))), None
)

TILES = [f"{name}={size}" for name, size in whole_tiles("200px").items()]


def run_qgis_process(folder, environment, *arguments):
    return subprocess.run(
        [QGIS_PROCESS, *map(str, arguments)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def profile(archive, program, tmp_path_factory):
    """The environment of a user with nothing but the zip unpacked where QGIS unpacks it.

    The plugin is switched on, the program is on PATH.
    """
    if QGIS_PROCESS is None:
        pytest.skip("qgis_process is not installed (Debian: package qgis)")
    home = tmp_path_factory.mktemp("home")
    zipfile.ZipFile(archive).extractall(
        home / ".local/share/QGIS/QGIS3/profiles/default/python/plugins"
    )
    # Only the program: QGIS takes the first Python on PATH for its own, and another one lies beside
    # the backend.
    (home / "bin").mkdir()
    (home / "bin" / "rssc-geo").symlink_to(program)
    path = f"{home}/bin{os.pathsep}/usr/bin{os.pathsep}/bin"
    environment = {**os.environ, "HOME": str(home), "PATH": path}
    environment.pop("QGIS_CUSTOM_CONFIG_PATH")
    enabled = run_qgis_process(home, environment, "plugins", "enable", "rssc_geo_qgis")
    assert "rssc_geo_qgis" in enabled.stdout
    return environment


@pytest.fixture
def qgis_process(profile, tmp_path):
    return functools.partial(run_qgis_process, tmp_path, profile)


def test_the_zip_holds_what_is_needed_and_no_more(archive):
    names = zipfile.ZipFile(archive).namelist()
    assert {name.split("/")[0] for name in names} == {"rssc_geo_qgis"}
    assert {
        "rssc_geo_qgis/LICENSE",
        "rssc_geo_qgis/metadata.txt",
        "rssc_geo_qgis/__init__.py",
        "rssc_geo_qgis/options.json",
    } <= set(names)
    assert not [
        name
        for name in names
        if not name.endswith((".py", ".svg", "LICENSE", "metadata.txt", "options.json", ".whl"))
    ]
    assert (
        "GNU GENERAL PUBLIC LICENSE"
        in zipfile.ZipFile(archive).read("rssc_geo_qgis/LICENSE").decode()
    )


def test_only_the_standard_library_and_qgis_are_imported():
    allowed = {*sys.stdlib_module_names, "qgis", "processing"}  # what QGIS brings
    for file in PLUGIN.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert {name.split(".")[0] for name in names} <= allowed, file


def test_qgis_process_lists_and_explains(qgis_process):
    listed = qgis_process("list").stdout
    for name in ("caption", "classify", "explain", "info", "train", "zeroshot"):
        assert f"rsscgeo:{name}\t" in listed
    told = qgis_process("help", "rsscgeo:classify").stdout
    assert "TILE_SIZE" in told
    assert "CELLS" in told
    assert "satellite" in told


def test_qgis_process_classifies(qgis_process, scene, tmp_path):
    done = qgis_process(
        "run",
        "rsscgeo:classify",
        "--",
        f"INPUT={scene}",
        f"OUTPUT={tmp_path}/map.gpkg",
        *TILES,
    )
    assert done.returncode == 0, done.stderr
    assert f"OUTPUT:\t{tmp_path}/map.gpkg|layername=landuse" in done.stdout
    assert QgsVectorLayer(f"{tmp_path}/map.gpkg|layername=cells").featureCount() == 12


def test_qgis_process_answers_in_json(qgis_process, scene, tmp_path):
    done = qgis_process(
        "--json", "run", "rsscgeo:classify", "--", f"INPUT={scene.name}", "OUTPUT=map.gpkg", *TILES
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"]["CELLS"] == f"{tmp_path}/map.gpkg|layername=cells"


def test_qgis_process_fails_with_one_line(qgis_process, tmp_path, write_raster):
    plain = write_raster(tmp_path / "plain.tif", epsg=None)
    done = qgis_process(
        "run", "rsscgeo:classify", "--", f"INPUT={plain}", f"OUTPUT={tmp_path}/map.gpkg"
    )
    assert done.returncode != 0
    assert "has no CRS. Set it first" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
