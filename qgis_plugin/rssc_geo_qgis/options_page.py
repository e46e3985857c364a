"""The page Settings ▸ Options ▸ RSSC Geo: which backend, where it computes, where it keeps files.

Install, check, remove, describe.
"""

from __future__ import annotations

from qgis.core import QgsApplication
from qgis.gui import QgsFileWidget, QgsOptionsPageWidget, QgsOptionsWidgetFactory
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGroupBox,
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

from . import settings
from .backend import BackendError, forget, known_backend
from .i18n import tr
from .place import folder, program_path
from .tasks import (
    BackendTask,
    Report,
    board,
    check_task,
    diagnose_task,
    install_task,
    look,
    remove_task,
)
from .widgets import DEVICES

TITLE = "RSSC Geo"
PAGE = "rssc_geo_options"


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
    """The page; what runs is a task of QGIS and goes on when the dialog is closed.

    A page that is opened later shows the task's messages, and how it ended.
    """

    def __init__(self, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setObjectName(PAGE)
        self._fastest = tr("the fastest there is")
        self.program = _file(settings.PROGRAM, tr("the installed one, else rssc-geo on PATH"))
        self.cache = _file(settings.CACHE, tr("the user's cache folder"), is_folder=True)
        self.device = QComboBox()
        self.device.setEditable(True)
        self.device.addItems([self._fastest, *DEVICES])
        self.device.setCurrentText(settings.get(settings.DEVICE) or self._fastest)
        self.source = _file(
            settings.INSTALL_FROM,
            tr("the wheel that came with the plugin; or another, or rssc-geo==… --hash=sha256:…"),
        )
        self.build = QComboBox()
        for title, value in (
            (tr("what fits the graphics card"), ""),
            ("CPU", "cpu"),
            ("NVIDIA CUDA", "cuda"),
        ):
            self.build.addItem(title, value)
        self.build.setCurrentIndex(max(self.build.findData(settings.get(settings.BUILD)), 0))
        self.index = QLineEdit(settings.get(settings.INDEX))
        self.index.setPlaceholderText(tr("PyTorch's own and the usual one"))
        self.wheels = _file(
            settings.WHEELS, tr("none; with one and no index, no network is used"), is_folder=True
        )
        self.constraints = _file(
            settings.CONSTRAINTS, tr("none; with hashes, nothing else is installed")
        )
        self.place = _file(
            settings.PLACE, tr("the user's own folder on this computer"), is_folder=True
        )
        self.status, self.log, self.bar = QLabel(), QPlainTextEdit(), QProgressBar()
        self.status.setWordWrap(True)
        self.log.setReadOnly(True)
        self.bar.hide()
        self.install_button = _button(tr("Install backend"), self._install)
        self.check_button = _button(tr("Check backend"), self._check)
        self.remove_button = _button(tr("Remove backend"), self._remove)
        self.diagnose_button = _button(tr("Copy diagnostics"), self._diagnose)
        self.stop_button = _button(tr("Stop"), self._stop)
        self._report: Report | None = None
        self._shown = 0
        self._lay_out()
        # Methods, not lambdas: Qt forgets them when the page is gone before the task.
        board.looked.connect(self._looked)
        if BackendTask.last is not None:  # started before the dialog was opened
            self._follow()
        self._show_status()

    def apply(self) -> None:
        """Keep what was entered.

        Called by QGIS when the dialog is accepted, and before the backend is started here.
        """
        self._keep()
        if BackendTask.current is None:
            BackendTask.last = None  # it was read, and may not hold any more
        look()

    def _keep(self) -> None:
        device = self.device.currentText()
        settings.put(settings.PROGRAM, self.program.filePath())
        settings.put(settings.CACHE, self.cache.filePath())
        settings.put(settings.DEVICE, "" if device == self._fastest else device)
        settings.put(settings.INSTALL_FROM, self.source.filePath())
        settings.put(settings.BUILD, self.build.currentData())
        settings.put(settings.INDEX, self.index.text())
        settings.put(settings.WHEELS, self.wheels.filePath())
        settings.put(settings.CONSTRAINTS, self.constraints.filePath())
        settings.put(settings.PLACE, self.place.filePath())
        forget()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow(tr("Backend (program rssc-geo)"), self.program)
        form.addRow(tr("Device"), self.device)
        form.addRow(tr("Cache folder"), self.cache)
        box = QGroupBox(tr("Installation"))
        installation = QFormLayout(box)
        installation.addRow(tr("Install from"), self.source)
        installation.addRow(tr("PyTorch for"), self.build)
        installation.addRow(tr("Package index"), self.index)
        installation.addRow(tr("Folder of wheels"), self.wheels)
        installation.addRow(tr("Constraints"), self.constraints)
        installation.addRow(tr("Place"), self.place)
        buttons = QHBoxLayout()
        for button in self._starters():
            buttons.addWidget(button)
        buttons.addWidget(self.stop_button)
        buttons.addStretch()
        page = QVBoxLayout(self)
        page.addLayout(form)
        page.addWidget(box)
        page.addWidget(self.status)
        page.addLayout(buttons)
        page.addWidget(self.bar)
        page.addWidget(self.log)

    def _starters(self) -> tuple[QPushButton, ...]:
        return (self.install_button, self.check_button, self.remove_button, self.diagnose_button)

    def _show_status(self) -> None:
        running = BackendTask.current is not None
        for widget in (self.program, self.place, *self._starters()):
            widget.setEnabled(not running)
        self.stop_button.setEnabled(running)
        self.bar.setVisible(running)
        self.status.setText((self._report.error if self._report else "") or _found())

    def _looked(self) -> None:
        self._show_status()

    def _install(self) -> None:
        self._start(install_task())

    def _check(self) -> None:
        self._start(check_task())

    def _diagnose(self) -> None:
        task = diagnose_task()
        task.ended.connect(self._copy)
        self._start(task)

    def _copy(self) -> None:
        QgsApplication.clipboard().setText("\n".join(self._report.lines))

    def _start(self, task: BackendTask) -> None:
        self._keep()
        if task.start():
            self._follow()
        self._show_status()

    def _follow(self) -> None:
        """Show what the last task said, and go on with it while it runs."""
        self._report, self._shown = BackendTask.last, 0
        self.log.clear()
        self._show_lines()
        task = BackendTask.current
        if task is not None:
            task.line.connect(self._show_lines)
            task.progressChanged.connect(self._show_progress)
            task.ended.connect(self._ended)

    def _show_lines(self) -> None:
        # From the report, not from the signal: a line is told while the page is being opened, too.
        shown = self._shown
        lines = self._report.lines[shown:]
        self._shown += len(lines)
        for line in lines:
            self.log.appendPlainText(line)

    def _stop(self) -> None:
        if BackendTask.current is not None:
            BackendTask.current.cancel()

    def _show_progress(self, percent: float) -> None:
        self.bar.setValue(round(percent))

    def _ended(self) -> None:
        self.program.setFilePath(settings.get(settings.PROGRAM))
        self._show_lines()
        self._show_status()

    def _remove(self) -> None:
        question = tr("Delete the backend in {folder}?").format(folder=folder())
        if QMessageBox.question(self, TITLE, question) == QMessageBox.StandardButton.Yes:
            self._start(remove_task())


def _file(setting: str, placeholder: str, *, is_folder: bool = False) -> QgsFileWidget:
    widget = QgsFileWidget()
    widget.setStorageMode(
        QgsFileWidget.StorageMode.GetDirectory if is_folder else QgsFileWidget.StorageMode.GetFile
    )
    widget.setFilePath(settings.get(setting))
    widget.lineEdit().setPlaceholderText(placeholder)
    return widget


def _button(title: str, slot: object) -> QPushButton:
    button = QPushButton(title)
    button.clicked.connect(slot)
    return button


def _found() -> str:
    """Which backend there is, or what is wrong with it."""
    try:
        backend = known_backend()
    except BackendError as error:
        return str(error)
    if backend is None:
        return tr("Checking the backend …")
    if backend.program != program_path():
        return tr("Backend: rssc-geo {version}, {program}").format(
            version=backend.version, program=backend.program
        )
    return tr(
        "Backend: rssc-geo {version}, installed by this plugin in {folder}. It stays when the"
        " plugin is uninstalled: remove it here before."
    ).format(version=backend.version, folder=folder())
