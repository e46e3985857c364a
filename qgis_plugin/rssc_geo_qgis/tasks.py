"""Installing and checking the backend as tasks of QGIS.

In the background, with progress and cancel in its status bar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from qgis.core import QgsApplication, QgsFeedback, QgsTask
from qgis.PyQt.QtCore import pyqtSignal

from . import install, settings
from .backend import BackendError, forget
from .check import check_backend

Work = Callable[[QgsFeedback, Callable[[str], None]], None]


class BackendTask(QgsTask):
    """Runs ``work(feedback, log)`` in the background.

    ``ended`` carries '' or what went wrong, on the main thread.
    """

    current: ClassVar[BackendTask | None] = None
    """The one that runs: two would write to the same environment."""

    line = pyqtSignal(str)
    ended = pyqtSignal(str)

    def __init__(self, title: str, work: Work) -> None:
        super().__init__(title, QgsTask.Flag.CanCancel)
        self._work = work
        self._feedback = QgsFeedback()
        self._feedback.progressChanged.connect(self.setProgress)
        self.error = ""

    def start(self) -> bool:
        """Hand the task to QGIS; False while another one runs."""
        if BackendTask.current is not None:
            return False
        BackendTask.current = self
        QgsApplication.taskManager().addTask(self)
        return True

    def run(self) -> bool:
        try:
            self._work(self._feedback, self.line.emit)
        except (install.InstallError, BackendError) as error:
            self.error = str(error)
        except OSError as error:
            self.error = f"{error.strerror or error}: {error.filename or install.folder()}"
        return not self.error and not self._feedback.isCanceled()

    def cancel(self) -> None:
        self._feedback.cancel()
        super().cancel()

    def finished(self, result: bool) -> None:  # noqa: FBT001 -- as QGIS calls it
        BackendTask.current = None
        forget()
        self.ended.emit(self.error or ("" if result else "Stopped. Start it again to go on."))


def install_task() -> BackendTask:
    """Install the backend and check it.

    From then on it is used instead of a program that was chosen in the settings.
    """

    def work(feedback: QgsFeedback, log: Callable[[str], None]) -> None:
        install.install(
            settings.get(settings.INSTALL_FROM) or install.REQUIREMENT, feedback=feedback, log=log
        )
        if not feedback.isCanceled():
            settings.put(settings.PROGRAM, "")
            forget()
            check_backend(feedback=feedback, log=log)

    return BackendTask("Install the RSSC Geo backend", work)


def check_task() -> BackendTask:
    """Check the backend."""

    def work(feedback: QgsFeedback, log: Callable[[str], None]) -> None:
        forget()
        check_backend(feedback=feedback, log=log)

    return BackendTask("Check the RSSC Geo backend", work)
