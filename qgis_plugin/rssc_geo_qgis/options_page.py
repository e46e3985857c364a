"""The page Settings ▸ Options ▸ RSSC Geo: which backend, where it computes, where it keeps files.

Install, check, remove.
"""

from __future__ import annotations

from qgis.gui import QgsFileWidget, QgsOptionsPageWidget, QgsOptionsWidgetFactory
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from . import install, settings
from .backend import BackendError, find_backend, forget
from .tasks import BackendTask, check_task, install_task

TITLE = "RSSC Geo"
PAGE = "rssc_geo_options"
_FASTEST = "the fastest there is"


class OptionsFactory(QgsOptionsWidgetFactory):
    """Makes the page when the options dialog opens."""

    def __init__(self, icon: QIcon) -> None:
        super().__init__(TITLE, icon)
        self._icon = icon

    def icon(self) -> QIcon:
        return self._icon

    def createWidget(self, parent: QWidget) -> QgsOptionsPageWidget:
        return OptionsPage(parent)


class OptionsPage(QgsOptionsPageWidget):
    """The page; what runs is a task of QGIS and goes on when the dialog is closed."""

    def __init__(self, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setObjectName(PAGE)
        self.program, self.cache = QgsFileWidget(), QgsFileWidget()
        self.program.setStorageMode(QgsFileWidget.StorageMode.GetFile)
        self.cache.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self.program.setFilePath(settings.get(settings.PROGRAM))
        self.cache.setFilePath(settings.get(settings.CACHE))
        self.program.lineEdit().setPlaceholderText("the installed one, else rssc-geo on PATH")
        self.cache.lineEdit().setPlaceholderText("the user's cache folder")
        self.device = QComboBox()
        self.device.setEditable(True)
        self.device.addItems([_FASTEST, "cpu", "cuda", "mps"])
        self.device.setCurrentText(settings.get(settings.DEVICE) or _FASTEST)
        self.source = QLineEdit(settings.get(settings.INSTALL_FROM))
        self.source.setPlaceholderText(
            f"{install.REQUIREMENT} from the Python Package Index; or a wheel, a folder, an address"
        )
        self.status, self.log, self.bar = QLabel(), QPlainTextEdit(), QProgressBar()
        self.status.setWordWrap(True)
        self.log.setReadOnly(True)
        self.bar.hide()
        self.install_button, self.check_button = (
            QPushButton("Install backend"),
            QPushButton("Check backend"),
        )
        self.remove_button, self.stop_button = QPushButton("Remove backend"), QPushButton("Stop")
        self.install_button.clicked.connect(lambda: self._start(install_task()))
        self.check_button.clicked.connect(lambda: self._start(check_task()))
        self.remove_button.clicked.connect(self._remove)
        self.stop_button.clicked.connect(self._stop)
        self._lay_out()
        if BackendTask.current is not None:  # started before the dialog was opened
            self._follow(BackendTask.current)
        self._show_status()

    def apply(self) -> None:
        """Keep what was entered.

        Called by QGIS when the dialog is accepted, and before the backend is started here.
        """
        device = self.device.currentText()
        settings.put(settings.PROGRAM, self.program.filePath())
        settings.put(settings.CACHE, self.cache.filePath())
        settings.put(settings.DEVICE, "" if device == _FASTEST else device)
        settings.put(settings.INSTALL_FROM, self.source.text())
        forget()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("Backend (program rssc-geo)", self.program)
        form.addRow("Device", self.device)
        form.addRow("Cache folder", self.cache)
        form.addRow("Install from", self.source)
        buttons = QHBoxLayout()
        for button in (
            self.install_button,
            self.check_button,
            self.remove_button,
            self.stop_button,
        ):
            buttons.addWidget(button)
        buttons.addStretch()
        page = QVBoxLayout(self)
        page.addLayout(form)
        page.addWidget(self.status)
        page.addLayout(buttons)
        page.addWidget(self.bar)
        page.addWidget(self.log)

    def _show_status(self, error: str = "") -> None:
        running = BackendTask.current is not None
        for widget in (self.program, self.install_button, self.check_button, self.remove_button):
            widget.setEnabled(not running)
        self.stop_button.setEnabled(running)
        self.bar.setVisible(running)
        self.status.setText(error or _found())

    def _start(self, task: BackendTask) -> None:
        self.apply()
        self.log.clear()
        self._follow(task)
        task.start()
        self._show_status()

    def _follow(self, task: BackendTask) -> None:
        # Methods, not lambdas: Qt forgets them when the page is gone before the task.
        task.line.connect(self.log.appendPlainText)
        task.progressChanged.connect(self._show_progress)
        task.ended.connect(self._ended)

    def _stop(self) -> None:
        if BackendTask.current is not None:
            BackendTask.current.cancel()

    def _show_progress(self, percent: float) -> None:
        self.bar.setValue(round(percent))

    def _ended(self, error: str) -> None:
        self.program.setFilePath(settings.get(settings.PROGRAM))
        self._show_status(error)

    def _remove(self) -> None:
        question = f"Delete the backend in {install.folder()}?"
        if QMessageBox.question(self, TITLE, question) != QMessageBox.StandardButton.Yes:
            return
        try:
            install.remove()
        except install.InstallError as error:
            self._show_status(str(error))
            return
        forget()
        self._show_status()


def _found() -> str:
    """Which backend there is, or what is wrong with it."""
    try:
        backend = find_backend()
    except BackendError as error:
        return str(error)
    place = (
        "installed by this plugin" if backend.program == install.program_path() else backend.program
    )
    return f"Backend: rssc-geo {backend.version}, {place}"
