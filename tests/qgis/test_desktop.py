"""A QGIS desktop with nothing but the zip: from the offer to install to a styled result.

Also a run that is canceled, and a desktop that is closed during a run.

RSSC_SCREENSHOTS=FOLDER keeps the pictures there; those of the documentation are in docs/images.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from conftest import VENV


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


def test_from_nothing_but_the_zip_to_a_styled_map(run_session, archive, wheels, children, home):
    zipfile.ZipFile(archive).extractall(home / "profiles" / "default" / "python" / "plugins")
    (home / "tmp").mkdir()
    more = {"TMPDIR": str(home / "tmp"), "PIP_CONFIG_FILE": os.devnull}
    told = run_session("desktop_session.py", home, f"wheels={wheels}", "qgis", more)

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
    assert told["status"].endswith(
        "It stays when the plugin is uninstalled: remove it here before."
    )
    # A busy machine may hold up a few of them.
    assert told["gaps_s"][int(len(told["gaps_s"]) * 0.98)] < 0.1
    assert "Classify scene" in told["asked"][0]
    assert children(str(home)) == []
    assert not list((home / "tmp").glob("processing_*/**/*.part*"))
