"""A QGIS desktop with nothing but the zip: from the offer to install to a styled result.

Also a run that is canceled, and a desktop that is closed during a run.

RSSC_SCREENSHOTS=FOLDER keeps the pictures there; those of the documentation are in docs/images.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

ROOT = Path(__file__).resolve().parents[2]
VENV = Path(os.environ.get("RSSC_TEST_VENV", ROOT / ".venv"))
QGIS = shutil.which("qgis.bin") or shutil.which("qgis")


@pytest.fixture(scope="module")
def display():
    if QGIS is None or shutil.which("Xvfb") is None:
        pytest.skip("the desktop test needs qgis and Xvfb (Debian: qgis xvfb)")
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "1600x1000x24"],
        stdout=subprocess.PIPE,
        text=True,
    )
    yield f":{server.stdout.readline().strip()}"
    server.terminate()
    server.communicate()


@pytest.fixture
def home():
    """Short, since the pictures show its name."""
    with tempfile.TemporaryDirectory(prefix="user-") as folder:
        yield Path(folder)


@pytest.fixture
def wheels(request, home):
    """A folder to install from, since the tests use no network.

    Where QGIS's Python cannot use the packages of the project's .venv, an environment is begun by
    that of the .venv, and the folder is empty.
    """
    if next(VENV.glob(f"lib/python3.{sys.version_info[1]}/site-packages"), None):
        return request.getfixturevalue("stub_wheels")
    (home / "wheels").mkdir()
    begin = request.getfixturevalue("begin_installation")
    begin(home / ".local" / "share" / "rssc-geo" / "qgis-backend")
    return home / "wheels"


def test_from_nothing_but_the_zip_to_a_styled_map(display, archive, wheels, children, home):
    profile = home / "profiles" / "default"
    zipfile.ZipFile(archive).extractall(profile / "python" / "plugins")
    (profile / "QGIS").mkdir()
    (profile / "QGIS" / "QGIS3.ini").write_text(
        "[PythonPlugins]\nrssc_geo_qgis=true\nprocessing=true\n"
        f"[rssc_geo]\nwheels={wheels}\n[qgis]\nenableMacros=0\n"
    )
    (home / "tmp").mkdir()
    draw = [
        VENV / "bin" / "python",
        ROOT / "examples" / "make_demo_scene.py",
        home / "scene.tif",
        "--gsd",
        "3",
    ]
    subprocess.run(draw, check=True)
    environment = {
        **os.environ,
        "DISPLAY": display,
        "HOME": str(home),
        "RSSC_SESSION": str(home),
        "TMPDIR": str(home / "tmp"),
        "PATH": "/usr/bin:/bin",
        "PIP_CONFIG_FILE": os.devnull,
    }
    for name in ("QT_QPA_PLATFORM", "QGIS_CUSTOM_CONFIG_PATH", "PIP_FIND_LINKS"):
        environment.pop(name, None)
    desktop = [
        QGIS,
        "--nologo",
        "--noversioncheck",
        "--profiles-path",
        home,
        "--code",
        Path(__file__).with_name("desktop_session.py"),
    ]
    ended = subprocess.run(desktop, env=environment, check=False, timeout=600, capture_output=True)
    told = json.loads((home / "told.json").read_text("utf-8"))
    screenshots = os.environ.get("RSSC_SCREENSHOTS")
    for file in home.glob("qgis-*.png") if screenshots else ():
        shutil.copy(file, ROOT / screenshots)

    assert "failed" not in told, told["failed"]
    assert ended.returncode == 0
    assert "is not installed" in told["missing"]
    assert "is not installed" in told["offer"]
    assert "Install the RSSC Geo backend: done." in told["installed"]
    ((group, layers),) = told["tree"]
    assert group.startswith("scene, compact, ")
    assert layers == ["Land use", "Cells"]
    assert told["renderers"]["Land use"] == told["renderers"]["Cells"] == "categorizedSymbol"
    assert told["pages"] == {"Report": True}
    assert "rssc-geo" in told["log"]
    assert "--progress=json" in told["log"]
    assert told["cancel_s"] < 1
    assert told["status"].startswith("Backend: rssc-geo 0.1.0, installed by this plugin in ")
    # A busy machine may hold up a few of them.
    assert told["gaps_s"][int(len(told["gaps_s"]) * 0.98)] < 0.1
    assert "Classify scene" in told["asked"][0]
    assert children(str(home)) == []
    assert not list((home / "tmp").glob("processing_*/**/*.part*"))
