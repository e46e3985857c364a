"""Check the backend: versions, devices, and a run on a small picture."""

from __future__ import annotations

import os
import sys
import tempfile

from qgis.core import QgsFeedback

from . import settings
from .backend import BackendError, find_backend
from .child import ChildError, ask, run_child
from .i18n import tr
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
    log(
        tr("rssc-geo {version}, commands: {commands}").format(
            version=backend.version, commands=", ".join(sorted(backend.commands))
        )
    )
    for line in versions_beside(backend.program).splitlines():
        log(line)
    log(tr("classifying a test picture …"))
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
        raise BackendError(
            tr("The test run failed: {error}").format(
                error=done.last_error or tr("code {code}").format(code=done.code)
            )
        )
    log(tr("the backend works"))


def versions_beside(program: str) -> str:
    """Versions of Python and PyTorch and the device, where a Python lies beside the program."""
    name = "python.exe" if sys.platform == "win32" else "python"
    python = os.path.join(os.path.dirname(program), name)
    if not os.path.isfile(python):
        return tr("no Python lies beside it")
    try:
        return ask([python, "-c", _VERSIONS], timeout_s=120).strip()
    except ChildError as error:
        return f"{python}: {error}"


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
