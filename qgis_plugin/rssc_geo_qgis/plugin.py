"""The plugin.

The Processing provider, its page in the options, its menu, and an offer to install the backend.
"""

from __future__ import annotations

import os
from typing import Any

from qgis.core import Qgis, QgsApplication
from qgis.PyQt.QtCore import Qt, QTranslator
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QAction, QPushButton

from .backend import BackendError, how_to_get, known_backend
from .child import end_all, wait_for_all
from .dock import LoopDock
from .i18n import tr
from .options import Described
from .options_page import PAGE, TITLE, OptionsFactory
from .provider import RsscGeoProvider
from .similar import MoreLikeThis
from .tasks import BackendTask, board, check_task, diagnose_task, install_task, look


class RsscGeoPlugin:
    """``iface`` is None under ``qgis_process``, which calls ``initProcessing`` only."""

    def __init__(self, iface: Any, translator: QTranslator | None = None) -> None:
        self.iface = iface
        self.provider: RsscGeoProvider | None = None
        self._actions: list[QAction] = []
        self._factory: OptionsFactory | None = None
        self._translator = translator  # Qt keeps no reference
        self._waits_for_look = False
        self.dock: LoopDock | None = None
        self._more: MoreLikeThis | None = None
        self._described: Described | None = None

    def initProcessing(self) -> None:
        self.provider = RsscGeoProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        self.initProcessing()
        icon = QIcon(os.path.join(os.path.dirname(__file__), "icons", "rssc_geo.svg"))
        self._factory = OptionsFactory(icon)
        self.iface.registerOptionsWidgetFactory(self._factory)
        for title, slot in (
            (tr("Label, train, classify"), self.show_loop),
            (tr("Install backend"), self.install),
            (tr("Check backend"), self.check),
            (tr("Copy diagnostics"), self.diagnose),
            (tr("Settings…"), self.open_settings),
        ):
            action = QAction(icon, title, self.iface.mainWindow())
            action.triggered.connect(slot)
            self.iface.addPluginToMenu(TITLE, action)
            self._actions.append(action)
        self._more = MoreLikeThis(self.iface)
        self.dock = LoopDock(self.iface, icon)
        self.iface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self.dock)
        self.dock.hide()
        board.closed = False
        board.started.connect(self._announce)
        board.looked.connect(self._looked)
        board.looked.connect(self._follow_program)
        self._waits_for_look = True
        QgsApplication.instance().aboutToQuit.connect(wait_for_all)
        look()

    def unload(self) -> None:
        board.closed = True
        if BackendTask.current is not None:
            BackendTask.current.cancel()
        end_all()
        board.started.disconnect(self._announce)
        board.looked.disconnect(self._follow_program)
        if self._waits_for_look:
            board.looked.disconnect(self._looked)
        if self._more is not None:
            self._more.close_down()
            self._more = None
        if self.dock is not None:
            self.dock.close_down()
            self.iface.removeDockWidget(self.dock)
            self.dock.deleteLater()
            self.dock = None
        for action in self._actions:
            self.iface.removePluginMenu(TITLE, action)
        if self._factory is not None:
            self.iface.unregisterOptionsWidgetFactory(self._factory)
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)

    def show_loop(self) -> None:
        """Show the panel to label, train, classify and look again."""
        self.dock.setUserVisible(True)

    def install(self) -> None:
        """Install the backend in the background."""
        self._start(install_task())

    def check(self) -> None:
        """Check the backend in the background; its report is in the log panel, tab RSSC Geo."""
        self._start(check_task())

    def diagnose(self) -> None:
        """Copy to the clipboard what belongs into an issue, when it is known."""
        task = diagnose_task()
        report = task.report
        task.ended.connect(lambda _: QgsApplication.clipboard().setText("\n".join(report.lines)))
        self._start(task)

    def open_settings(self) -> None:
        """Show the page in the options."""
        self.iface.showOptionsDialog(self.iface.mainWindow(), PAGE)

    def _looked(self) -> None:
        """Offer to install where the first look at start found no backend that works."""
        board.looked.disconnect(self._looked)
        self._waits_for_look = False
        try:
            known_backend()
        except BackendError as error:
            reason = str(error).replace(how_to_get(), "")  # the button is at hand
            message = self.iface.messageBar().createMessage(TITLE, reason)
            button = QPushButton(tr("Install backend"))
            button.clicked.connect(self.install)
            button.clicked.connect(message.dismiss)
            message.layout().addWidget(button)
            self.iface.messageBar().pushWidget(message, Qgis.MessageLevel.Warning)

    def _follow_program(self) -> None:
        """Make the parameters anew where the program is of another version than before."""
        try:
            backend = known_backend()
        except BackendError:
            backend = None
        described = backend.described if backend else None
        if described != self._described:
            self._described = described
            self.provider.refreshAlgorithms()

    def _start(self, task: BackendTask) -> None:
        if not task.start():
            self.iface.messageBar().pushMessage(
                TITLE,
                tr("'{title}' is still running.").format(title=BackendTask.last.title),
                Qgis.MessageLevel.Info,
            )

    def _announce(self, task: BackendTask) -> None:
        """Follow a task in message bar and log, also one that the options page started."""
        title, bar = task.report.title, self.iface.messageBar()

        def ended(error: str) -> None:
            level = Qgis.MessageLevel.Warning if error else Qgis.MessageLevel.Success
            outcome = error or tr("done.")
            bar.pushMessage(TITLE, f"{title}: {outcome}", level, 0)

        task.line.connect(
            lambda line: QgsApplication.messageLog().logMessage(line, TITLE, Qgis.MessageLevel.Info)
        )
        task.ended.connect(ended)
        bar.pushMessage(
            TITLE,
            tr("{title}: progress and cancel are in the status bar below.").format(title=title),
            Qgis.MessageLevel.Info,
            8,
        )
