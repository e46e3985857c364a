"""Check the backend: versions, devices, and a run on a small picture."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile

from qgis.core import QgsFeedback

from . import settings
from .backend import BackendError, find_backend
from .child import ask, run_child
from .install import Log

_SIDE = 256
_VERSIONS = (
    "import sys, torch; print('Python', sys.version.split()[0]); print('PyTorch',"
    " torch.__version__); print('device', torch.cuda.get_device_name(0) if"
    " torch.cuda.is_available() else 'Apple MPS' if torch.backends.mps.is_available() else 'CPU')"
)


def check_backend(*, feedback: QgsFeedback, log: Log) -> None:
    """Log what the backend is and run it once. Raises ``BackendError`` when it does not work."""
    backend = find_backend()
    log(f"{backend.program}")
    log(f"rssc-geo {backend.version}, commands: {', '.join(sorted(backend.commands))}")
    python = os.path.join(
        os.path.dirname(backend.program), "python.exe" if sys.platform == "win32" else "python"
    )
    if os.path.isfile(python):  # a program that lies elsewhere does not say what it runs on
        with contextlib.suppress(
            OSError, subprocess.SubprocessError
        ):  # or beside another Python; the run below decides
            log(ask([python, "-c", _VERSIONS], timeout_s=120).strip())
    log("classifying a test picture …")
    with tempfile.TemporaryDirectory() as folder:
        picture = os.path.join(folder, "test.ppm")
        _write_picture(picture)
        more = ["--quiet", "--exit-on-stdin-eof"]
        if settings.get(settings.DEVICE):
            more.append(f"--device={settings.get(settings.DEVICE)}")
        run = [
            backend.program,
            "classify",
            picture,
            "--assume-crs=EPSG:32632",
            f"--output={folder}/test.gpkg",
            *more,
        ]
        done = run_child(
            run, feedback=feedback, on_stdout=log, on_stderr=log, environment=settings.environment()
        )
    if done.cancelled:
        return
    if done.code != 0:
        raise BackendError(f"The test run failed: {done.last_error or f'code {done.code}'}")
    log("the backend works")


def _write_picture(path: str) -> None:
    """A portable pixmap with a world file: the simplest raster that needs no library."""
    pixels = bytes(
        (row * column // 7) % 256
        for row in range(_SIDE)
        for column in range(_SIDE)
        for _ in range(3)
    )
    with open(path, "wb") as file:
        file.write(f"P6\n{_SIDE} {_SIDE}\n255\n".encode() + pixels)
    with open(os.path.splitext(path)[0] + ".wld", "w", encoding="ascii") as file:
        file.write("2\n0\n0\n-2\n500001\n4999999\n")
