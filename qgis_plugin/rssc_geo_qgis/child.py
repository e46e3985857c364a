"""Run a program beside QGIS.

Its own environment and process group, lines as they come, cancel within a second.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from qgis.core import QgsFeedback
from qgis.PyQt.QtCore import QCoreApplication, QThread

# What QGIS sets for its own libraries would make the child load the wrong ones.
_LEAKED = (
    "PYTHON",
    "VIRTUAL_ENV",
    "GDAL_DATA",
    "GDAL_DRIVER_PATH",
    "PROJ_",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "DYLD_",
    "QT_",
    "QGIS_",
)
_POLL_S = 0.1
_GRACE_S = 0.6  # what is left of the second after a poll, before the child is ended the hard way

Line = Callable[[str], None]

_running: set[int] = set()
_closing = threading.Event()


@dataclass(frozen=True)
class Finished:
    """How a child ended.

    Its exit code, the last line it wrote on stderr, and whether the user stopped it.
    """

    code: int
    last_error: str
    cancelled: bool


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of QGIS without its own Python, GDAL, PROJ and Qt."""
    kept = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(_LEAKED)
    }
    # UTF-8 also on Windows, and no packages from the user's own folder, which may not fit the
    # child's Python.
    return {
        **kept,
        "PYTHONUTF8": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


def run_child(
    arguments: Sequence[str],
    *,
    feedback: QgsFeedback,
    on_stdout: Line,
    on_stderr: Line,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run ``arguments`` and hand over each line of its two streams in the calling thread.

    Standard input stays open until the end: a child that watches it knows when QGIS is gone,
    however QGIS went. Raises ``OSError`` when the program cannot be started.
    """
    process = subprocess.Popen(
        list(arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(environment),
        encoding="utf-8",
        errors="replace",
        **_own_group(),
    )
    lines: queue.Queue[tuple[Line, str]] = queue.Queue()
    last_error = ""

    def remember(line: str) -> None:
        nonlocal last_error
        last_error = line
        on_stderr(line)

    readers = [_reader(process.stdout, on_stdout, lines), _reader(process.stderr, remember, lines)]
    _running.add(process.pid)
    try:
        while not (feedback.isCanceled() or _closing.is_set()):
            ended = process.poll() is not None
            if ended:
                for reader in readers:  # a grandchild may hold the pipes open: it is not waited for
                    reader.join(_POLL_S)
            _hand_over(lines)
            if ended and lines.empty():
                break
    finally:
        cancelled = feedback.isCanceled() or _closing.is_set()
        stop(process)
        _running.discard(process.pid)
    return Finished(process.returncode, last_error, cancelled)


def end_all() -> None:
    """End all children, and wait for the threads that watch them.

    QGIS closes, and its Python must outlive those threads.
    """
    _closing.set()
    deadline = time.monotonic() + 3
    while _running and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    time.sleep(_POLL_S)  # the last steps of the runs
    _closing.clear()


def stop(process: subprocess.Popen[str]) -> None:
    """End the child and all that it started: asked first, ended the hard way after a moment."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            process.stdin.close()
        if os.name == "posix":
            _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    if os.name == "posix":
        _signal_group(process, signal.SIGKILL)
    elif (
        process.poll() is None
    ):  # a console script is a launcher on Windows: its Python must go with it
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(process.pid)],
            check=False,
            capture_output=True,
            **_own_group(),
        )
    process.wait()
    with contextlib.suppress(OSError):
        process.stdin.close()


def ask(arguments: Sequence[str], *, timeout_s: float = 30) -> str:
    """The standard output of a quick command.

    Raises ``OSError`` or ``subprocess.SubprocessError`` with what went wrong.
    """
    done = subprocess.run(
        list(arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=clean_environment(),
        encoding="utf-8",
        errors="replace",
        timeout=timeout_s,
        check=True,
        **_own_group(),
    )
    return done.stdout


def _own_group() -> dict[str, object]:
    if os.name == "posix":
        return {"start_new_session": True}
    return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}


def _signal_group(process: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _reader(stream: IO[str], line: Line, lines: queue.Queue[tuple[Line, str]]) -> threading.Thread:
    def read() -> None:
        with contextlib.suppress(ValueError, OSError), stream:  # gone while it was read
            for text in stream:
                lines.put((line, text.rstrip("\r\n")))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def _hand_over(lines: queue.Queue[tuple[Line, str]]) -> None:
    """Call back for the lines that are there, waiting a moment for the first.

    QGIS stays alive on its own thread.
    """
    deadline = time.monotonic() + _POLL_S
    with contextlib.suppress(queue.Empty):
        line, text = lines.get(timeout=_POLL_S)
        line(text)
        while time.monotonic() < deadline:
            line, text = lines.get_nowait()
            line(text)
    application = QCoreApplication.instance()
    if application is not None and QThread.currentThread() == application.thread():
        QCoreApplication.processEvents()
