"""Label, train, classify, look again, clicked in a QGIS desktop on the example scene.

RSSC_SCREENSHOTS=FOLDER keeps the pictures there; those of the documentation are in docs/images.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from conftest import PLUGINS, ROOT

BLOCKED_S = 0.1
WAITED_S = 1.0
CANCEL_S = 1.0
MORE_THAN_THE_MODEL_S = 5.0


@pytest.fixture(scope="module")
def told(run_session, program):
    """What the session tells."""
    with tempfile.TemporaryDirectory(prefix="user-") as folder:
        home = Path(folder)
        plugins = home / "profiles" / "default" / "python" / "plugins"
        shutil.copytree(PLUGINS / "rssc_geo_qgis", plugins / "rssc_geo_qgis")
        labels = {"RSSC_LABELS": str(ROOT / "examples" / "demo_labels.geojson")}
        found = run_session("loop_session.py", home, f"program={program}", "loop", labels)
        yield {**found, "home": str(home)}


def test_twenty_clicks_are_labels_and_make_a_model(told):
    assert told["labels"] == {"woodland": 4, "fields": 6, "housing": 6, "coast": 4}
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


def test_cells_are_explained_by_what_made_the_map(told):
    assert len(told["explained"]) == 3
    assert all("<b>housing</b>" in text and there for text, there in told["explained"])


def test_a_loaded_model_answers_soon_and_is_cancelled_within_a_second(told):
    assert told["added_s"] < MORE_THAN_THE_MODEL_S
    assert told["cancelled"] == "Cancelled."
    assert told["cancel_s"] < CANCEL_S
    # What the plugin computes on QGIS's own thread at a time; where the machine has other work, it
    # waits for its turn too, but never for the backend.
    assert told["most_work"][1] < BLOCKED_S, told["most_work"]
    assert told["longest"][1] < WAITED_S, told["longest"]


def test_the_process_ends_with_the_desktop(told, children):
    assert children(told["home"]) == []
