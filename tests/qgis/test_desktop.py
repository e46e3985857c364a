"""A QGIS desktop with nothing but the zip: offer, install, toolbox, dialog, styled result, cancel; pictures are kept.

RSSC_GEO_PICTURES=FOLDER keeps the pictures there (docs/images/qgis).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed")

ROOT = Path(__file__).resolve().parents[2]
QGIS = shutil.which("qgis.bin") or shutil.which("qgis")


@pytest.fixture(scope="module")
def display():
    if QGIS is None or shutil.which("Xvfb") is None or shutil.which("import") is None:
        pytest.skip("the desktop test needs qgis, Xvfb and ImageMagick (Debian: qgis xvfb imagemagick)")
    server = subprocess.Popen(["Xvfb", "-displayfd", "1", "-screen", "0", "1600x1000x24"], stdout=subprocess.PIPE, text=True)
    yield f":{server.stdout.readline().strip()}"
    server.terminate()
    server.communicate()


def test_from_nothing_but_the_zip_to_a_styled_map(display, wheel, begin_installation, tmp_path):
    profile = tmp_path / "profiles" / "default"
    archive = tmp_path / "plugin.zip"
    subprocess.run([sys.executable, ROOT / "qgis_plugin" / "build_zip.py", archive], check=True)
    zipfile.ZipFile(archive).extractall(profile / "python" / "plugins")
    (profile / "QGIS").mkdir()
    # Where to install from is the one thing that is set, since the tests use no network.
    (profile / "QGIS" / "QGIS3.ini").write_text(
        f"[PythonPlugins]\nrssc_geo_qgis=true\nprocessing=true\n[rssc_geo]\ninstall_from={wheel}\n[qgis]\nenableMacros=0\n"
    )
    begin_installation(profile / "rssc_geo" / "venv")
    draw = [ROOT / ".venv" / "bin" / "python", ROOT / "examples" / "make_demo_scene.py", tmp_path / "scene.tif", "--gsd", "3"]
    subprocess.run(draw, check=True)
    environment = {
        **os.environ, "DISPLAY": display, "HOME": str(tmp_path), "RSSC_SESSION": str(tmp_path), "PATH": "/usr/bin:/bin",
        "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip
    for name in ("QT_QPA_PLATFORM", "QGIS_CUSTOM_CONFIG_PATH", "PIP_FIND_LINKS"):
        environment.pop(name, None)
    desktop = [
        QGIS,
        "--nologo",
        "--noversioncheck",
        "--profiles-path",
        tmp_path,
        "--code",
        Path(__file__).with_name("desktop_session.py"),
    ]
    ended = subprocess.run(desktop, env=environment, check=False, timeout=240, capture_output=True)
    told = json.loads((tmp_path / "told.json").read_text("utf-8"))
    pictures = os.environ.get("RSSC_GEO_PICTURES")
    for file in tmp_path.glob("*.png") if pictures else ():
        shutil.copy(file, pictures)

    assert "failed" not in told, told["failed"]
    assert ended.returncode == 0
    assert "is not installed" in told["missing"]
    assert "is not installed" in told["offer"]
    assert "Install the RSSC Geo backend: done." in told["installed"]
    assert told["tree"] == [["scene", ["Land use", "Scenes"]]]
    assert told["renderers"]["Land use"] == told["renderers"]["Scenes"] == "categorizedSymbol"
    assert "rssc-geo" in told["log"]
    assert "--progress=json" in told["log"]
    assert told["cancel_s"] < 1
    assert "Backend: rssc-geo 0.1.0" in told["status"]
