"""Looking for, installing, checking and removing the backend as tasks of QGIS.

In the background, with progress and cancel in its status bar.
"""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, ClassVar

from qgis.core import QgsApplication, QgsFeedback, QgsTask
from qgis.PyQt.QtCore import QObject, pyqtSignal

from . import settings
from .backend import BackendError, find_backend, forget, program_in_use
from .check import check_backend
from .child import end_all
from .diagnostics import describe
from .i18n import tr
from .install import InstallError, Sources, install, remove
from .place import folder, home, log_path

Work = Callable[[QgsFeedback, Callable[[str], None]], None]


@dataclass
class Report:
    """The messages of a task, kept after its end for a page that was closed meanwhile.

    ``error`` is None while it runs, '' when it went well.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    error: str | None = None


class Board(QObject):
    """Signals for each task that starts, and for a backend that was checked."""

    started = pyqtSignal(object)
    looked = pyqtSignal()
    closed = False
    """Whether the plugin was switched off: nothing is started any more."""


board = Board()


class BackendTask(QgsTask):
    """Runs ``work(feedback, log)`` in the background.

    ``ended`` carries '' or what went wrong, on the main thread.
    """

    current: ClassVar[BackendTask | None] = None
    """The one that runs: two would write to the same environment."""
    last: ClassVar[Report | None] = None
    """Of the one that runs, or ran last."""

    line = pyqtSignal(str)
    ended = pyqtSignal(str)

    def __init__(self, title: str, work: Work, *, log_file: bool = False) -> None:
        super().__init__(title, QgsTask.Flag.CanCancel)
        self._work, self._log_file = work, log_file
        self._feedback = QgsFeedback()
        self._feedback.progressChanged.connect(self.setProgress)
        self.report = Report(title)
        self._error = ""
        self._thread = 0

    def start(self) -> bool:
        """Hand the task to QGIS; False while another one runs."""
        if BackendTask.current is not None:
            return False
        BackendTask.current, BackendTask.last = self, self.report
        board.started.emit(self)
        QgsApplication.taskManager().addTask(self)
        return True

    def run(self) -> bool:
        self._thread = threading.get_ident()
        with self._open_log() as file:

            def log(text: str) -> None:
                self.report.lines.append(text)
                if file is not None:
                    file.write(f"{text}\n")
                    file.flush()
                self.line.emit(text)

            try:
                self._work(self._feedback, log)
            except (InstallError, BackendError) as error:
                self._error = str(error)
            except OSError as error:
                self._error = f"{error.strerror or error}: {error.filename or folder()}"
            except Exception as error:  # noqa: BLE001 -- what leaves a task ends QGIS
                log(traceback.format_exc())
                self._error = f"{type(error).__name__}: {error}"
            if file is not None and self._error:
                file.write(f"{self._error}\n")
        return not self._error and not self._feedback.isCanceled()

    def cancel(self) -> None:
        self._feedback.cancel()
        end_all(of_thread=self._thread)  # also one that is only asked something
        super().cancel()

    def finished(self, result: bool) -> None:  # noqa: FBT001 -- as QGIS calls it
        BackendTask.current = None
        stopped = "" if result else tr("Stopped. Start it again to go on.")
        self.report.error = self._error or stopped
        self.ended.emit(self.report.error)
        look()

    def _open_log(self) -> contextlib.AbstractContextManager[IO[str] | None]:
        if not self._log_file:
            return contextlib.nullcontext()
        try:
            os.makedirs(home(), exist_ok=True)
            return open(log_path(), "w", encoding="utf-8")
        except OSError:  # the installation itself says what is wrong with the place
            return contextlib.nullcontext()


class _Look(QgsTask):
    """Asks the backend for its version and commands, so that they are known."""

    running: ClassVar[_Look | None] = None

    def __init__(self) -> None:
        super().__init__(tr("Query the RSSC Geo backend"), QgsTask.Flag.CanCancel)
        self._program = _program_in_use()

    def run(self) -> bool:
        with contextlib.suppress(BackendError):  # remembered as well
            backend = find_backend()
            for command, options in _needs():
                if options and command in backend.commands:
                    backend.options(command)
        return True

    def finished(self, _result: bool) -> None:  # noqa: FBT001 -- as QGIS calls it
        _Look.running = None
        board.looked.emit()
        if _program_in_use() != self._program:  # another one was chosen meanwhile
            look()


def _program_in_use() -> str:
    try:
        return program_in_use()
    except BackendError:
        return ""


def _needs() -> Iterable[tuple[str, tuple[str, ...]]]:
    """Commands of which an algorithm needs certain options."""
    provider = QgsApplication.processingRegistry().providerById("rsscgeo")
    algorithms = provider.algorithms() if provider is not None else ()
    return [(algorithm.COMMAND, algorithm.NEEDS) for algorithm in algorithms]


def look() -> None:
    """Find out in the background which backend there is; ``board.looked`` tells the end."""
    if _Look.running is None and not board.closed:
        _Look.running = _Look()
        QgsApplication.taskManager().addTask(_Look.running)


def install_task() -> BackendTask:
    """Install the backend and check it.

    From then on it is used instead of a program that was chosen in the settings.
    """

    def work(feedback: QgsFeedback, log: Callable[[str], None]) -> None:
        install(Sources.chosen(), feedback=feedback, log=log)
        if not feedback.isCanceled():
            settings.put(settings.PROGRAM, "")
            forget()
            check_backend(feedback=feedback, log=log)

    return BackendTask(tr("Install the RSSC Geo backend"), work, log_file=True)


def check_task() -> BackendTask:
    """Check the backend."""

    def work(feedback: QgsFeedback, log: Callable[[str], None]) -> None:
        forget()
        check_backend(feedback=feedback, log=log)

    return BackendTask(tr("Check the RSSC Geo backend"), work)


def remove_task() -> BackendTask:
    """Delete the installed backend."""

    def work(_feedback: QgsFeedback, log: Callable[[str], None]) -> None:
        log(tr("deleting {folder} …").format(folder=folder()))
        remove()
        forget()

    return BackendTask(tr("Remove the RSSC Geo backend"), work)


def diagnose_task() -> BackendTask:
    """Log the facts of this computer for an issue, with secrets removed."""

    def work(_feedback: QgsFeedback, log: Callable[[str], None]) -> None:
        for line in describe():
            log(line)

    return BackendTask(tr("Describe the RSSC Geo backend"), work)
