"""The backend as one process that keeps its models loaded: ``rssc-geo serve``, asked by JSON Lines.

Nothing here waits: requests are written, answers come as events of Qt, and the program is looked
for on another thread.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qgis.PyQt.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, pyqtSignal

from . import settings
from .backend import BackendError, find_backend
from .child import clean_environment
from .i18n import tr

_PATIENCE_MS = 400  # what is left of a second for a cancelled request to end by itself
_NO_SERVE = tr(
    "The backend {program} does not keep its model loaded yet. Update it: Plugins"
    " ▸ RSSC Geo ▸ Install backend."
)


@dataclass(frozen=True)
class Listener:
    """Callbacks of a request, called on the main thread.

    ``result`` and ``error`` (the message, and whether the user stopped it) once, ``progress`` with
    stage, done and total any number of times before.
    """

    result: Callable[[Mapping[str, Any]], None]
    error: Callable[[str, bool], None]
    progress: Callable[[str, float, float], None]


class Server(QObject):
    """One process of the backend at a time, started with the first request.

    It ends after a while without work, with QGIS however QGIS ends, and when a request that was
    cancelled does not end within a second; the next request starts another.
    """

    told = pyqtSignal(str)
    """A log line of the backend."""
    _found = pyqtSignal(str, str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._process: QProcess | None = None
        self._looking = False
        self._ready = False
        self._program = ""
        self._rest = b""
        self._last = 0
        self._lines: dict[int, str] = {}
        self._listeners: dict[int, Listener] = {}
        self._cancelled: set[int] = set()
        self._found.connect(self._start)

    def ask(
        self,
        command: str,
        arguments: Mapping[str, str],
        options: Mapping[str, Any],
        listener: Listener,
    ) -> int:
        """Send a request; its number is for ``cancel``."""
        self._last += 1
        request = {"id": self._last, "command": command, **arguments, "options": dict(options)}
        self._lines[self._last] = json.dumps(request, ensure_ascii=False) + "\n"
        self._listeners[self._last] = listener
        if self._process is not None:
            self._write(self._last)
        elif not self._looking:
            self._looking = True
            threading.Thread(target=self._look, daemon=True).start()
        return self._last

    def cancel(self, number: int) -> None:
        """Stop a request: by itself at its next step, else by ending the process."""
        if number not in self._listeners:
            return
        self._cancelled.add(number)
        if self._process is None:
            self._fail(number, "", stopped=True)
            return
        self._process.write(json.dumps({"cancel": number}).encode() + b"\n")
        QTimer.singleShot(_PATIENCE_MS, lambda: self._insist(number))

    def close(self) -> None:
        """End the process and wait for that, for a second at most."""
        process = self._drop()
        if process is not None:
            process.waitForFinished(1000)
        self._fail_all("")

    def _look(self) -> None:
        try:
            self._found.emit(find_backend().program, "")
        except BackendError as error:
            self._found.emit("", str(error))

    def _start(self, program: str, error: str) -> None:
        self._looking = False
        if error:
            self._fail_all(error)
            return
        if not self._listeners:
            return
        self._program, self._rest, self._ready = program, b"", False
        process = QProcess(self)
        environment = QProcessEnvironment()
        for name, value in clean_environment(settings.environment()).items():
            environment.insert(name, value)
        process.setProcessEnvironment(environment)
        process.readyReadStandardOutput.connect(self._read)
        process.readyReadStandardError.connect(self._read_messages)
        process.finished.connect(self._ended)
        process.errorOccurred.connect(self._did_not_start)
        self._process = process
        process.start(program, ["serve"])
        for number in list(self._listeners):
            self._write(number)

    def _write(self, number: int) -> None:
        self._process.write(self._lines.pop(number).encode())

    def _read(self) -> None:
        if self._process is None:
            return
        data = self._rest + bytes(self._process.readAllStandardOutput())
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        kind = event.get("event")
        self._ready = self._ready or kind == "ready"
        number = event.get("id")
        listener = self._listeners.get(number)
        if listener is None:
            return
        if kind == "progress":
            listener.progress(event["stage"], float(event["done"]), float(event["total"]))
        elif kind == "error":
            self._fail(number, event["message"], stopped=number in self._cancelled)
        elif kind == "result":
            self._forget(number)
            listener.result(event)

    def _read_messages(self) -> None:
        if self._process is not None:
            text = bytes(self._process.readAllStandardError()).decode("utf-8", "replace")
            for line in filter(None, map(str.strip, text.splitlines())):
                self.told.emit(line)

    def _insist(self, number: int) -> None:
        """End the process of a cancelled request that has not ended; nobody waits for that."""
        if number in self._listeners:
            process = self._drop()
            if process is not None:
                process.finished.connect(process.deleteLater)
            self._cancelled.update(self._listeners)
            self._fail_all("")

    def _drop(self) -> QProcess | None:
        """Kill the process and hear no more of it."""
        process, self._process = self._process, None
        if process is not None:
            for signal in (process.finished, process.errorOccurred):
                signal.disconnect()
            process.closeWriteChannel()
            process.kill()
        return process

    def _did_not_start(self, error: object) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._process = None
            self._fail_all(
                tr("The backend {program} cannot be started.").format(program=self._program)
            )

    def _ended(self) -> None:
        self._read()
        self._process = None
        message = tr("The backend ended without an answer; the computer may be out of memory.")
        self._fail_all(message if self._ready else _NO_SERVE.format(program=self._program))

    def _fail_all(self, message: str) -> None:
        for number in list(self._listeners):
            self._fail(number, message, stopped=number in self._cancelled)

    def _fail(self, number: int, message: str, *, stopped: bool) -> None:
        listener = self._listeners[number]
        self._forget(number)
        listener.error(message, stopped)

    def _forget(self, number: int) -> None:
        self._listeners.pop(number, None)
        self._lines.pop(number, None)
        self._cancelled.discard(number)
