"""The plugin.

The Processing provider, its page in the options, its menu, and an offer to install the backend.
"""

from __future__ import annotations

import os
from typing import Any

from qgis.core import Qgis, QgsApplication
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QAction, QPushButton

from .backend import HOW_TO_GET, BackendError, find_backend
from .child import end_all
from .dock import LoopDock
from .options_page import PAGE, TITLE, OptionsFactory
from .provider import RsscGeoProvider
from .tasks import BackendTask, check_task, install_task


class RsscGeoPlugin:
    """``iface`` is None under ``qgis_process``, which calls ``initProcessing`` only."""

    def __init__(self, iface: Any) -> None:
        self.iface = iface
        self.provider: RsscGeoProvider | None = None
        self._actions: list[QAction] = []
        self._factory: OptionsFactory | None = None
        self.dock: LoopDock | None = None

    def initProcessing(self) -> None:
        self.provider = RsscGeoProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        self.initProcessing()
        icon = QIcon(os.path.join(os.path.dirname(__file__), "icons", "rssc_geo.svg"))
        self._factory = OptionsFactory(icon)
        self.iface.registerOptionsWidgetFactory(self._factory)
        for title, slot in (
            ("Label, train, classify", self.show_loop),
            ("Install backend", self.install),
            ("Check backend", self.check),
            ("Settings…", self.open_settings),
        ):
            action = QAction(icon, title, self.iface.mainWindow())
            action.triggered.connect(slot)
            self.iface.addPluginToMenu(TITLE, action)
            self._actions.append(action)
        self.dock = LoopDock(self.iface, icon)
        self.iface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self.dock)
        self.dock.hide()
        try:
            find_backend()
        except BackendError as error:
            self._offer_install(str(error).replace(HOW_TO_GET, ""))  # the button is at hand

    def unload(self) -> None:
        if BackendTask.current is not None:
            BackendTask.current.cancel()
        end_all()
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

    def open_settings(self) -> None:
        """Show the page in the options."""
        self.iface.showOptionsDialog(self.iface.mainWindow(), PAGE)

    def _offer_install(self, reason: str) -> None:
        message = self.iface.messageBar().createMessage(TITLE, reason)
        button = QPushButton("Install backend")
        button.clicked.connect(self.install)
        button.clicked.connect(message.dismiss)
        message.layout().addWidget(button)
        self.iface.messageBar().pushWidget(message, Qgis.MessageLevel.Warning)

    def _start(self, task: BackendTask) -> None:
        title, bar = task.description(), self.iface.messageBar()

        def ended(error: str) -> None:
            level = Qgis.MessageLevel.Warning if error else Qgis.MessageLevel.Success
            bar.pushMessage(TITLE, f"{title}: {error or 'done.'}", level, 0)

        task.line.connect(
            lambda line: QgsApplication.messageLog().logMessage(line, TITLE, Qgis.MessageLevel.Info)
        )
        task.ended.connect(ended)
        if task.start():
            bar.pushMessage(
                TITLE,
                f"{title}: progress and cancel are in the status bar below.",
                Qgis.MessageLevel.Info,
                8,
            )
        else:
            bar.pushMessage(
                TITLE,
                f"'{BackendTask.current.description()}' is still running.",
                Qgis.MessageLevel.Info,
            )
