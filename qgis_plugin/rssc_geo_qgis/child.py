"""Run a program beside QGIS.

Its own environment and process group, lines as they come, cancel within a second.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import subprocess  # nosec B404  # programs by full path, without a shell, from lists of arguments
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from qgis.core import QgsFeedback
from qgis.PyQt.QtCore import QCoreApplication, QThread

from .i18n import tr

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
# Of the variables that pip reads, those that say how it reaches an index. The others say where and
# what it installs (PIP_TARGET, PIP_USER, PIP_NO_DEPS …), which is decided here.
_PIP_KEPT = {
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_CONSTRAINT",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_KEYRING_PROVIDER",
    "PIP_NO_CACHE_DIR",
    "PIP_NO_INDEX",
    "PIP_PROXY",
    "PIP_RETRIES",
    "PIP_TIMEOUT",
    "PIP_TRUSTED_HOST",
}
# A name that leads nowhere, as one left by another installation does, ends every connection.
_CERTIFICATES = {
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
}
_POLL_S = 0.1
_GRACE_S = 0.6  # the rest of the second after a poll, before the child is killed

Line = Callable[[str], None]

_stops: dict[threading.Event, int] = {}
"""For each child that runs, what ends it when it is set, and the thread that watches the child."""


class ChildError(Exception):
    """A program did not start, failed or did not answer; the message states which."""


class ChildStoppedError(ChildError):
    """A program was ended before it answered: nothing is known of it."""


@dataclass(frozen=True)
class Finished:
    """How a child ended.

    Its exit code, the last line it wrote on stderr, and whether the user stopped it.
    """

    code: int
    last_error: str
    cancelled: bool


def which(name: str, path: str | None = None) -> str:
    """The full name of a program on PATH, or ``''``.

    Unlike ``shutil.which`` it never looks in the working directory, nor in one that is relative.
    """
    file = f"{name}.exe" if os.name == "nt" else name
    for folder in (os.environ.get("PATH", os.defpath) if path is None else path).split(os.pathsep):
        found = os.path.join(folder, file)
        if os.path.isabs(folder) and os.path.isfile(found) and os.access(found, os.X_OK):
            return found
    return ""


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of QGIS without its own Python, GDAL, PROJ and Qt.

    Of pip's variables those for the way to an index stay; certificates that are not there go.
    """
    kept = {name: value for name, value in os.environ.items() if _is_kept(name.upper(), value)}
    # UTF-8 also on Windows, and no packages from the user's own folder, which may not fit the
    # child's Python.
    return {
        **kept,
        "PYTHONUTF8": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


def _is_kept(name: str, value: str) -> bool:
    if name in _CERTIFICATES:
        return os.path.exists(value)
    return name in _PIP_KEPT or not name.startswith((*_LEAKED, "PIP_"))


def run_child(
    arguments: Sequence[str],
    *,
    feedback: QgsFeedback,
    on_stdout: Line,
    on_stderr: Line,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run ``arguments`` and hand over each line of its two streams in the calling thread.

    The program is named in full. Standard input stays open until the end: a child that watches it
    knows when QGIS is gone, however QGIS went. Raises ``OSError`` when the program cannot be
    started.
    """
    stopped = threading.Event()
    _stops[stopped] = threading.get_ident()
    try:
        return _run(arguments, feedback, (on_stdout, on_stderr), environment, stopped)
    finally:
        del _stops[stopped]


def _run(
    arguments: Sequence[str],
    feedback: QgsFeedback,
    takers: tuple[Line, Line],
    environment: Mapping[str, str] | None,
    stopped: threading.Event,
) -> Finished:
    process = subprocess.Popen(  # nosec B603  # no shell, and a program that the user chose
        [_in_full(arguments[0]), *arguments[1:]],
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
    on_stdout, on_stderr = takers

    def remember(line: str) -> None:
        nonlocal last_error
        last_error = line
        on_stderr(line)

    readers = [_reader(process.stdout, on_stdout, lines), _reader(process.stderr, remember, lines)]
    try:
        while not (feedback.isCanceled() or stopped.is_set()):
            ended = has_ended(process)
            if ended:
                for reader in readers:  # a grandchild may hold the pipes open: it is not waited for
                    reader.join(_POLL_S)
            _hand_over(lines)
            if ended and lines.empty():
                break
    finally:
        cancelled = feedback.isCanceled() or stopped.is_set()
        stop(process)
    return Finished(process.returncode, last_error, cancelled)


def end_all(*, of_thread: int | None = None) -> None:
    """Tell all children, or those that one thread watches, to end; returns at once."""
    for stopped, thread in tuple(_stops.items()):
        if of_thread in (None, thread):
            stopped.set()


def wait_for_all() -> None:
    """End all children and wait a moment for the threads that watch them.

    For the time after QGIS's event loop: its Python must outlive those threads.
    """
    end_all()
    deadline = time.monotonic() + 3
    while _stops and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    time.sleep(_POLL_S)  # the last steps of the runs


def has_ended(process: subprocess.Popen[str]) -> bool:
    """Whether the child has ended, without waiting for it where the system can tell so.

    Until it is waited for nothing else gets its number, nor that of its group.
    """
    if process.returncode is None and hasattr(os, "waitid"):
        asked = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.pid, asked) is not None
    return process.poll() is not None


def stop(process: subprocess.Popen[str]) -> None:
    """End the child and all that it started: by a request first, killed after a moment.

    No signal is sent once the child has been waited for.
    """
    if not has_ended(process):
        with contextlib.suppress(OSError):
            process.stdin.close()
        _signal_group(process, "SIGTERM")
        deadline = time.monotonic() + _GRACE_S
        while not has_ended(process) and time.monotonic() < deadline:
            time.sleep(0.02)
    _signal_group(process, "SIGKILL")  # what it started may still run
    process.wait()
    with contextlib.suppress(OSError):
        process.stdin.close()


def ask(arguments: Sequence[str], *, timeout_s: float = 30) -> str:
    """The standard output of a quick command. Raises ``ChildError`` with what went wrong."""
    printed: list[str] = []
    deadline = QgsFeedback()
    timer = threading.Timer(timeout_s, deadline.cancel)
    timer.daemon = True
    timer.start()
    try:
        done = run_child(
            arguments, feedback=deadline, on_stdout=printed.append, on_stderr=lambda _: None
        )
    except OSError as error:
        raise ChildError(error.strerror or str(error)) from error
    finally:
        timer.cancel()
    if deadline.isCanceled():
        raise ChildError(tr("no answer within {seconds:g} s").format(seconds=timeout_s))
    if done.cancelled:
        raise ChildStoppedError(tr("it was stopped"))
    if done.code != 0:
        raise ChildError(done.last_error or tr("it ended with code {code}").format(code=done.code))
    return "\n".join(printed)


def _in_full(program: str) -> str:
    """The program's name, refused where the system would search for it, the working directory too.

    Raises ``OSError``.
    """
    if not os.path.isabs(program):
        raise OSError(errno.ENOENT, "not the full name of a program", program)
    return program


def _own_group() -> dict[str, object]:
    if os.name == "posix":
        return {"start_new_session": True}
    return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}


def _signal_group(process: subprocess.Popen[str], name: str) -> None:
    """Send a signal to a child that was not waited for, and to all that it started."""
    if process.returncode is not None:
        return
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, getattr(signal, name))
    elif name == "SIGKILL":
        # A console script is a launcher on Windows: its Python must go with it.
        system = os.environ.get("SYSTEMROOT", r"C:\Windows")
        subprocess.run(  # nosec B603  # no shell; the system's own program, by its full path
            [
                os.path.join(system, "System32", "taskkill.exe"),
                *("/T", "/F", "/PID", str(process.pid)),
            ],
            check=False,
            capture_output=True,
            **_own_group(),
        )


def _reader(stream: IO[str], line: Line, lines: queue.Queue[tuple[Line, str]]) -> threading.Thread:
    def read() -> None:
        with contextlib.suppress(ValueError, OSError), stream:  # gone while it was read
            for text in stream:
                lines.put((line, text.rstrip("\r\n")))
        lines.put((_end_of_stream, ""))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def _end_of_stream(_text: str) -> None:
    """Wakes who waits for a line: the child has ended, most likely."""


def _hand_over(lines: queue.Queue[tuple[Line, str]]) -> None:
    """Call back for the available lines, waiting a moment for the first.

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
