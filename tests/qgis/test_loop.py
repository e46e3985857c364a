"""Label, train, classify, look again, clicked in a QGIS desktop.

On the example scene, and on an aerial picture of the real rasters where they lie beside the
checkout. RSSC_SCREENSHOTS=FOLDER keeps the pictures there; those of the documentation are in
docs/images (-k example). Seconds are logged (--log-cli-level INFO) and stand in docs/benchmarks.md;
a limit is set only where QGIS would wait for the backend.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from conftest import PLUGINS, ROOT

LOG = logging.getLogger(__name__)
WAITED_S = 1.0
CANCEL_S = 1.0
MORE_THAN_THE_MODEL_S = 5.0
AERIAL = ROOT.parent / "shared" / "data" / "rasters" / "3420B_2010_328_RGB_LATLNG.tif"
TASKS = {
    "example": {
        "pictures": "loop",
        "labels": str(ROOT / "examples" / "demo_labels.geojson"),
        "field": "label",
        "clicks": {"woodland": 4, "fields": 6, "housing": 6, "coast": 4},
        "explain": "housing",
    },
    "aerial": {
        "pictures": "aerial",
        "labels": str(ROOT / "tests" / "training" / "few_shot" / "data" / "3420B_labels.gpkg"),
        "field": "class",
        "clicks": dict.fromkeys(("cropland", "plantation", "settlement", "shrubland", "water"), 4),
        "explain": "plantation",
    },
}


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    """What is clicked, by its name."""
    if request.param == "aerial" and not AERIAL.is_file():
        pytest.skip(f"the real rasters are not beside the checkout ({AERIAL.name})")
    return TASKS[request.param]


@pytest.fixture(scope="module")
def told(task, run_session, program):
    """What the session tells."""
    with tempfile.TemporaryDirectory(prefix="user-") as folder:
        home = Path(folder)
        plugins = home / "profiles" / "default" / "python" / "plugins"
        shutil.copytree(PLUGINS / "rssc_geo_qgis", plugins / "rssc_geo_qgis")
        if task is TASKS["aerial"]:
            shutil.copy(AERIAL, home / "scene.tif")
        more = {"RSSC_TASK": json.dumps(task)}
        found = run_session("loop_session.py", home, f"program={program}", task["pictures"], more)
        for name, (seconds, worked) in found["took"].items():
            LOG.info("%s: %.1f s, processor %.1f s", name, seconds, worked)
        for what, name in (("longest", "longest call"), ("most_work", "most processor time")):
            LOG.info("%s on QGIS's own thread: %s, %.3f s", name, *found[what])
        yield {**found, "home": str(home)}


def test_twenty_clicks_are_labels_and_make_a_model(told, task):
    assert told["labels"] == task["clicks"]
    assert sum(task["clicks"].values()) == 20
    assert "Trained scene-1: overall accuracy" in told["trained"]
    assert told["model"]
    assert told["chosen"]
    assert told["page"]
    assert [stage for stage in told["stages"] if "label" in stage or stage == "Learning"]
    assert told["percents"] == sorted(told["percents"])
    assert told["percents"][-1] == 100


def test_what_is_seen_is_classified_coarsely_then_finely(told):
    ((group, layers),) = [entry for entry in told["coarse"] if entry[0].startswith("scene")]
    assert group.startswith("scene, scene-1, ")
    assert layers == ["Land use", "Cells"]
    assert told["fine"] == told["coarse"]  # in its place
    coarse, fine = told["cells"]
    assert fine > 20 * coarse


def test_cells_are_explained_by_what_made_the_map(told, task):
    assert len(told["explained"]) == 3
    assert all(f"<b>{task['explain']}</b>" in text and there for text, there in told["explained"])


def test_a_loaded_model_answers_soon_and_is_cancelled_within_a_second(told):
    assert min(told["shown_m"]) > 1999
    assert told["added_s"] < MORE_THAN_THE_MODEL_S
    assert told["cancelled"] == "Cancelled."
    assert told["cancel_s"] < CANCEL_S
    # QGIS's own thread: where the machine has other work it waits for its turn, never for the
    # backend.
    assert told["longest"][1] < WAITED_S, told["longest"]


def test_the_process_ends_with_the_desktop(told, children):
    assert children(told["home"]) == []
