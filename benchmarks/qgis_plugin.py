"""Overhead of the QGIS plugin.

How much longer a run takes than its child process, beside the same run by the command line, in
turn; how late QGIS's event loop comes during a run; how soon a cancelled run is gone; and how soon
the panel's backend, once the model is loaded, answers clicks in other places of the raster.

The difference to the child is hardly touched by what else the machine does; that of two runs is.

Under QGIS's own Python:  /usr/bin/python3 benchmarks/qgis_plugin.py RASTER [--rounds 5]
[--tile-size 400m] [--side 600]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROFILE = tempfile.mkdtemp(prefix="rssc-qgis-")
_TIMES = Path(PROFILE, "times")
os.environ.update(
    QT_QPA_PLATFORM="offscreen",
    QGIS_CUSTOM_CONFIG_PATH=PROFILE,
    HOME=PROFILE,
    XDG_RUNTIME_DIR=PROFILE,
)
sys.path[:0] = [str(ROOT / "qgis_plugin"), "/usr/share/qgis/python/plugins"]

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsPointXY,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QCoreApplication, QTimer


class Run:
    """One run as a task of QGIS.

    ``seconds`` it took, ``gaps_s`` between ticks of a 5 ms timer on the main thread.
    """

    def __init__(self, parameters: dict[str, str], *, cancel_at: float = 101) -> None:
        found = QgsApplication.processingRegistry().algorithmById("rsscgeo:classify").create()
        context, feedback, ended = (
            QgsProcessingContext(),
            QgsProcessingFeedback(logFeedback=False),
            [],
        )
        task = QgsProcessingAlgRunnerTask(found, parameters, context, feedback)
        task.executed.connect(lambda good, _: ended.append(good))
        self.gaps_s, last, cancelled = [], time.perf_counter(), 0.0

        def tick() -> None:
            nonlocal last
            now = time.perf_counter()
            self.gaps_s.append(now - last)
            last = now

        timer = QTimer()
        timer.timeout.connect(tick)
        timer.start(5)
        started = time.perf_counter()
        QgsApplication.taskManager().addTask(task)
        while not ended:
            QCoreApplication.processEvents()
            time.sleep(0.001)
            if not cancelled and feedback.progress() >= cancel_at:
                cancelled = time.perf_counter()
                task.cancel()
        timer.stop()
        self.seconds = time.perf_counter() - started
        self.cancel_s = time.perf_counter() - cancelled
        if not ended[0] and not cancelled:
            raise SystemExit(feedback.textLog())


class Clicks:
    """Seconds from a click in the panel to its result as layers, the model being loaded.

    ``explain_s``: *Explain here*; ``coarse_s``, ``fine_s``: *Classify what I see*, from the click
    to whole tiles and to fine cells, of a square of ``side_m``; ``beyond_s``: what of the latter
    was not the backend's run; ``rounds`` of each, over the raster's diagonal.
    """

    def __init__(self, raster: str, *, rounds: int, side_m: float) -> None:
        from rssc_geo_qgis.loop import Loop
        from rssc_geo_qgis.server import Server

        layer = QgsRasterLayer(raster, "raster")
        QgsProject.instance().addMapLayer(layer)
        server, self._told = Server(), []
        loop = Loop(server)
        loop.idle.connect(lambda message, _level: self._told.append(message))
        self.explain_s, self.coarse_s, self.fine_s, self.beyond_s = [], [], [], []
        mapped, inside, ask = [], [], server.ask

        def ask_timed(*request: Any) -> int:
            *before, listener = request

            def take(event: Mapping[str, Any]) -> None:
                inside.append(event.get("seconds", 0.0))
                listener.result(event)

            return ask(*before, dataclasses.replace(listener, result=take))

        server.ask = ask_timed
        loop.mapped.connect(lambda _fine: mapped.append(time.perf_counter()))
        loop.set_raster(layer)
        self._wait(lambda: loop.tiling is not None)
        extent, half = layer.extent(), side_m / loop.tiling.meters / 2
        for place in range(rounds + 1):
            share = (place + 1) / (rounds + 2)
            point = QgsPointXY(
                extent.xMinimum() + share * extent.width(),
                extent.yMinimum() + share * extent.height(),
            )
            self.explain_s.append(self._seconds(partial(loop.explain, point, layer.crs(), [])))
            mapped.clear()
            inside.clear()
            started = time.perf_counter()
            square = QgsRectangle.fromCenterAndSize(point, 2 * half, 2 * half)
            self._seconds(partial(loop.classify, square, layer.crs()))
            self.coarse_s.append(mapped[0] - started)
            self.fine_s.append(mapped[-1] - started)
            self.beyond_s.append(self.fine_s[-1] - sum(inside))
        for seconds in (self.explain_s, self.coarse_s, self.fine_s, self.beyond_s):
            del seconds[0]  # the model was being loaded
        server.close()
        QgsProject.instance().clear()

    def _seconds(self, click: Callable[[], None]) -> float:
        self._told.clear()
        started = time.perf_counter()
        click()
        self._wait(lambda: self._told)
        return time.perf_counter() - started

    def _wait(self, condition: Callable[[], object]) -> None:
        while not condition():
            QCoreApplication.processEvents()
            time.sleep(0.001)


def _timed(backend: str) -> str:
    """A program that runs the backend and notes when it began and ended."""
    program = Path(PROFILE, "rssc-geo")
    program.write_text(
        f'#!/bin/sh\ndate +%s.%N >>{_TIMES}\n{backend} "$@"\ncode=$?\ndate +%s.%N >>{_TIMES}\nexit'
        " $code\n"
    )
    program.chmod(0o755)
    return str(program)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("raster")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tile-size", default="400m")
    parser.add_argument("--side", type=float, default=600, help="meters of what is seen")
    parser.add_argument("--backend", default=str(ROOT / ".venv" / "bin" / "rssc-geo"))
    options = parser.parse_args()
    build = [sys.executable, ROOT / "qgis_plugin" / "build_zip.py", "--options"]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    application = QgsApplication([], GUIenabled=False)
    application.initQgis()
    from processing.core.Processing import Processing
    from rssc_geo_qgis import settings
    from rssc_geo_qgis.provider import RsscGeoProvider

    Processing.initialize()
    provider = RsscGeoProvider()
    application.processingRegistry().addProvider(provider)
    settings.put(settings.PROGRAM, _timed(options.backend))
    output = f"{PROFILE}/map.gpkg"
    parameters = {"INPUT": options.raster, "TILE_SIZE": options.tile_size, "OUTPUT": output}
    command = [
        options.backend,
        "classify",
        options.raster,
        "--tile-size",
        options.tile_size,
        "-o",
        output,
        "--overwrite",
        "-q",
    ]

    shell_s, door_s, outside_s, gaps_s = [], [], [], []
    for _ in range(options.rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True)
        shell_s.append(time.perf_counter() - started)
        run = Run(parameters)
        door_s.append(run.seconds)
        began, ended = map(float, _TIMES.read_text().split()[-2:])
        outside_s.append(run.seconds - (ended - began))
        gaps_s += run.gaps_s
    cancels_s = [
        Run({**parameters, "TILE_SIZE": "64px"}, cancel_at=1).cancel_s
        for _ in range(options.rounds)
    ]
    settings.put(settings.PROGRAM, options.backend)
    clicks = Clicks(options.raster, rounds=options.rounds, side_m=options.side)
    gaps_ms = sorted(1000 * gap for gap in gaps_s)
    print(f"QGIS {Qgis.QGIS_VERSION}, {options.raster}, {options.rounds} rounds, medians")
    print(f"command line     {statistics.median(shell_s):.2f} s")
    print(f"Processing       {statistics.median(door_s):.2f} s")
    print(f"outside child    {statistics.median(outside_s):.2f} s, longest {max(outside_s):.2f} s")
    print(f"cancel           {statistics.median(cancels_s):.2f} s, longest {max(cancels_s):.2f} s")
    for name, seconds in (
        ("explain here", clicks.explain_s),
        (f"{options.side:g} m, coarse", clicks.coarse_s),
        (f"{options.side:g} m, fine", clicks.fine_s),
        ("beyond model", clicks.beyond_s),
    ):
        print(f"{name:16} {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s")
    print(
        f"event loop       99 of 100 gaps under {gaps_ms[len(gaps_ms) * 99 // 100]:.0f} ms, longest"
        f" {gaps_ms[-1]:.0f} ms"
    )
    sys.stdout.flush()
    os._exit(0)  # without the interpreter's clean-up, in which QGIS's objects may crash


if __name__ == "__main__":
    main()
