"""Runs that end otherwise: cancelled, failed, QGIS gone.

Nothing is left running and nothing is left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import classify, script, start_classify, temporary_files, wait_for, whole_tiles
from qgis.core import QgsProcessingException
from qgis.PyQt.QtCore import QTimer

TILES = whole_tiles("50px")


@pytest.fixture
def large(write_raster, tmp_path):
    """1600 of ``TILES``: far longer than the tests wait."""
    return write_raster(tmp_path / "large.tif", columns=2000, rows=2000)


class Canceller(threading.Thread):
    """Cancels a feedback, or does something else, as soon as a condition holds, and knows when."""

    def __init__(self, feedback, condition, act=None):
        super().__init__(daemon=True)
        self.condition, self.at, self.act = condition, None, act or feedback.cancel

    def run(self):
        while not self.condition():
            time.sleep(0.02)
        self.at = time.monotonic()
        self.act()


@pytest.mark.cold  # its processes are looked for
def test_cancel_of_a_named_output_keeps_what_was_done(large, tmp_path, feedback, children):
    output = tmp_path / "map.gpkg"
    canceller = Canceller(feedback, lambda: any(percent > 1 for percent in feedback.percents))
    canceller.start()
    found = classify(feedback, INPUT=str(large), **TILES, OUTPUT=str(output))
    assert time.monotonic() - canceller.at < 1
    assert not found.get("OUTPUT")
    assert children(str(output)) == []
    assert (tmp_path / "map.gpkg.part").is_file()
    assert not output.exists()
    assert any("Run again with the same output to" in line for line in feedback.lines)


def test_a_cancelled_run_goes_on(write_raster, tmp_path, feedback):
    raster = write_raster(tmp_path / "scene.tif", columns=600, rows=600)
    run = {"INPUT": str(raster), **TILES, "OUTPUT": str(tmp_path / "map.gpkg")}
    Canceller(feedback, lambda: any(percent > 5 for percent in feedback.percents)).start()
    classify(feedback, **run)
    part = tmp_path / "map.gpkg.part"
    assert part.is_file()
    again = type(feedback)()
    found = classify(again, **run)
    assert next(percent for percent in again.percents) > 0  # not from the start
    assert found["OUTPUT"]
    assert not part.exists()


@pytest.mark.cold  # its processes are looked for
def test_cancel_of_a_temporary_output_leaves_nothing(large, feedback, children):
    before = temporary_files()
    canceller = Canceller(feedback, lambda: any(percent > 1 for percent in feedback.percents))
    canceller.start()
    classify(feedback, INPUT=str(large), **TILES, OUTPUT="TEMPORARY_OUTPUT")
    assert time.monotonic() - canceller.at < 1
    assert children(str(large)) == []
    assert temporary_files() == before


@pytest.mark.cold  # its processes are looked for
def test_cancel_before_the_first_tile(large, tmp_path, feedback, children):
    """While the backend still loads its libraries it hears no signal."""
    canceller = Canceller(feedback, lambda: children(str(large)))
    canceller.start()
    classify(feedback, INPUT=str(large), OUTPUT=str(tmp_path / "map.gpkg"))
    assert time.monotonic() - canceller.at < 1
    assert children(str(large)) == []
    assert not (tmp_path / "map.gpkg").exists()


@pytest.mark.cold  # its processes are looked for
def test_a_task_of_the_desktop_leaves_qgis_responsive_and_can_be_cancelled(
    large, tmp_path, feedback, children
):
    gaps, last = [], [time.monotonic()]

    def tick():
        gaps.append(time.monotonic() - last[0])
        last[0] = time.monotonic()

    task, ended = start_classify(
        feedback, INPUT=str(large), **TILES, OUTPUT=str(tmp_path / "map.gpkg")
    )
    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(10)
    wait_for(lambda: any(percent > 2 for percent in feedback.percents))
    timer.stop()
    # The machine may be busy: nearly all gaps, not each, must be short.
    assert sorted(gaps)[int(len(gaps) * 0.99)] < 0.1
    stopped = time.monotonic()
    task.cancel()
    wait_for(lambda: ended, seconds=5)
    assert time.monotonic() - stopped < 1
    assert not children(str(large))
    assert not (tmp_path / "map.gpkg").exists()


@pytest.mark.cold  # its processes are looked for
def test_the_plugin_is_switched_off_during_a_run(large, feedback, children):
    """As when QGIS closes: its Python goes, and the thread of the run must be gone before."""
    from rssc_geo_qgis.child import end_all

    _, ended = start_classify(feedback, INPUT=str(large), **TILES, OUTPUT="TEMPORARY_OUTPUT")
    wait_for(lambda: any(percent > 1 for percent in feedback.percents))
    began = time.monotonic()
    end_all()
    assert time.monotonic() - began < 0.1
    wait_for(lambda: not children(str(large)), seconds=5)
    wait_for(lambda: ended, seconds=5)
    assert [results for _, results in ended] == [{}]


def test_the_backend_s_own_line_is_the_error(write_raster, tmp_path, feedback):
    raster = write_raster(tmp_path / "scene.tif")
    with pytest.raises(QgsProcessingException) as caught:
        classify(
            feedback,
            INPUT=str(raster),
            CELL_SIZE="9999px",
            TILE_SIZE="64px",
            OUTPUT=str(tmp_path / "a.gpkg"),
        )
    assert "9999px" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "rssc-geo: error:" not in str(caught.value)
    assert not (tmp_path / "a.gpkg").exists()


def test_a_device_that_is_not_there(scene, tmp_path, feedback):
    from rssc_geo_qgis import settings

    settings.put(settings.DEVICE, "tpu9")
    with pytest.raises(QgsProcessingException, match="'Device' tpu9 cannot be used"):
        classify(feedback, INPUT=str(scene), OUTPUT=str(tmp_path / "a.gpkg"))


def test_the_output_s_folder_is_not_there(scene, tmp_path, feedback):
    with pytest.raises(QgsProcessingException, match="none"):
        classify(feedback, INPUT=str(scene), OUTPUT=str(tmp_path / "none" / "a.gpkg"))


def test_a_raster_that_was_deleted(scene, tmp_path):
    from qgis.core import QgsRasterLayer

    layer = QgsRasterLayer(str(scene), "gone")
    scene.unlink()
    with pytest.raises(QgsProcessingException, match=r"scene\.tif"):
        classify(INPUT=layer, OUTPUT=str(tmp_path / "a.gpkg"))
    assert not (tmp_path / "a.gpkg").exists()
    assert not (tmp_path / "a.gpkg.part").exists()


def test_a_raster_that_is_deleted_during_the_run(scene, tmp_path, feedback):
    """Told at the end: what is open can be read on."""
    Canceller(
        feedback, lambda: any(percent > 2 for percent in feedback.percents), act=scene.unlink
    ).start()
    with pytest.raises(QgsProcessingException, match=r"scene\.tif changed while it was being read"):
        classify(feedback, INPUT=str(scene), **TILES, OUTPUT=str(tmp_path / "a.gpkg"))
    assert list(tmp_path.iterdir()) == []


def test_a_raster_that_cannot_be_read_on(large, tmp_path, feedback):
    """A network drive may be back later: what was done is kept, and the log says so."""
    Canceller(
        feedback,
        lambda: any(percent > 2 for percent in feedback.percents),
        act=lambda: os.truncate(large, 1000),
    ).start()
    with pytest.raises(QgsProcessingException, match=r"large\.tif cannot be read at rows"):
        classify(feedback, INPUT=str(large), **TILES, OUTPUT=str(tmp_path / "a.gpkg"))
    assert any("Run again with the same output to" in line for line in feedback.lines)
    assert not (tmp_path / "a.gpkg").exists()


@pytest.mark.cold  # its processes are looked for
def test_the_backend_is_killed(large, tmp_path, feedback, children):
    """As the system does when memory runs out."""

    def kill():
        while not any(percent > 0 for percent in feedback.percents):
            time.sleep(0.02)
        for process, _ in children(str(large)):
            os.kill(process, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(
        QgsProcessingException,
        match="ended with code -9 and no message of its own; the computer may be out of memory",
    ):
        classify(feedback, INPUT=str(large), **TILES, OUTPUT=str(tmp_path / "a.gpkg"))


@pytest.mark.parametrize("named", [True, False])
def test_a_folder_that_was_begun_goes(scene, tmp_path, backend, feedback, named):
    """The backend, killed while it writes an explanation.

    Nothing goes on from there, so it is not kept and not promised.
    """
    from rssc_geo_qgis import backend as backends
    from rssc_geo_qgis import settings

    program = script(
        tmp_path / "rssc-geo",
        f"""\
if [ "$1" = explain ] && [ "$2" != --help ]; then
  while [ "$1" != -o ]; do shift; done
  mkdir -p "$2.part" && touch "$2.part/panel.png"
  kill -9 $$
fi
exec {backend} "$@"
""",
    )
    settings.put(settings.PROGRAM, str(program))
    backends.forget()
    before = temporary_files()
    output = str(tmp_path / "why") if named else "TEMPORARY_OUTPUT"
    with pytest.raises(QgsProcessingException, match="ended with code -9"):
        processing.run(
            "rsscgeo:explain",
            {"INPUT": str(scene), "AT": "500500,4999500", "OUTPUT": output},
            feedback=feedback,
        )
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".xml"} == {
        "scene.tif",
        "rssc-geo",
    }
    assert temporary_files() == before
    assert not any("to go on" in line for line in feedback.lines)


@pytest.mark.cold  # its processes are looked for
def test_no_orphan_when_qgis_is_killed(large, tmp_path, backend, children):
    run = {"INPUT": str(large), **TILES, "OUTPUT": str(tmp_path / "a.gpkg")}
    session = tmp_path / "qgis_that_dies.py"
    session.write_text(f"""
import sys
sys.path[:0] = {[path for path in sys.path if path]!r}
from qgis.core import QgsApplication
app = QgsApplication([], False)
app.initQgis()
from processing.core.Processing import Processing
Processing.initialize()
from rssc_geo_qgis.provider import RsscGeoProvider
from rssc_geo_qgis import settings
settings.put(settings.PROGRAM, {str(backend)!r})
provider = RsscGeoProvider()
app.processingRegistry().addProvider(provider)
import processing
processing.run("rsscgeo:classify", {run!r})
""")
    qgis = subprocess.Popen(
        [sys.executable, str(session)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: children(f"{backend} classify") and (tmp_path / "a.gpkg.part").is_file())
        assert qgis.poll() is None
        qgis.kill()
        qgis.wait()
        wait_for(lambda: not children(str(large)), seconds=10)
    finally:
        qgis.kill()
