"""The panel: classes and labels, train, classify what I see, explain here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from qgis.core import (
    Qgis,
    QgsCoordinateTransform,
    QgsCsException,
    QgsGeometry,
    QgsMapLayerProxyModel,
    QgsPointXY,
    QgsProcessingException,
    QgsProject,
    QgsRasterLayer,
)
from qgis.gui import QgisInterface, QgsDockWidget, QgsMapLayerComboBox
from qgis.PyQt.QtCore import Qt, QTimer, QUrl
from qgis.PyQt.QtGui import QColor, QDesktopServices, QIcon, QPixmap
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from .i18n import tr
from .labels import Labels
from .loop import Loop, Tiling
from .maptools import ExplainTool, LabelTool
from .models import EMBEDDED, trained_models
from .server import Server

TITLE = "RSSC Geo"
_SWATCH = 14
_PICTURE_WIDTH = 330
_NO_SIDE = 100.0


class LoopDock(QgsDockWidget):
    """The panel; ``loop`` does the work."""

    def __init__(self, iface: QgisInterface, icon: QIcon) -> None:
        super().__init__(TITLE, iface.mainWindow())
        self.setObjectName("RsscGeoLoop")
        self._iface, self._icon = iface, icon
        self._page = ""
        self.server = Server(self)
        self.loop = Loop(self.server, self)
        self._make_widgets()
        self._lay_out()
        canvas = iface.mapCanvas()
        self.label_tool = LabelTool(canvas, self._shape_of)
        self.explain_tool = ExplainTool(canvas)
        self.label_tool.setButton(self.label_button)
        self.explain_tool.setButton(self.explain_button)
        self._connect()
        self._show_models()

    def close_down(self) -> None:
        """End the backend and give the map tools back; QGIS closes or the plugin is unloaded."""
        canvas = self._iface.mapCanvas()
        for tool in (self.label_tool, self.explain_tool):
            canvas.unsetMapTool(tool)
        self.server.close()

    def showEvent(self, event: object) -> None:
        super().showEvent(event)
        if self.loop.raster is None:  # only when the panel can be used
            self._take_raster(self.raster.currentLayer())

    def label_at(self, point: QgsPointXY) -> None:
        """Label the square around a point of the canvas's CRS with the class that is chosen."""
        self._paint([point])

    # Widgets.

    def _make_widgets(self) -> None:
        self.raster = QgsMapLayerComboBox()
        self.raster.setFilters(QgsMapLayerProxyModel.Filter.RasterLayer)
        self.model = QComboBox()
        self.classes = QListWidget()
        self.classes.setMinimumHeight(90)
        self.add_button = QPushButton(tr("Add class…"))
        self.remove_button = QPushButton(tr("Remove"))
        self.undo_button = QPushButton(tr("Undo label"))
        self.label_button, self.explain_button = QToolButton(), QToolButton()
        for button, text, tip in (
            (
                self.label_button,
                tr("Label"),
                tr("Click: a square. Drag: a stroke. Shift and click: erase."),
            ),
            (
                self.explain_button,
                tr("Explain here"),
                tr("Click on a cell: why it was given its class."),
            ),
        ):
            button.setText(text)
            button.setToolTip(tip)
            button.setCheckable(True)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.side = QDoubleSpinBox()
        self.side.setRange(0.1, 100_000)
        self.side.setDecimals(1)
        self.side.setSuffix(" m")
        self.side.setValue(_NO_SIDE)
        self.side.setToolTip(
            tr(
                "Side of a label, and of the tiles that the model learns from. At first that"
                " of the model's tiles."
            )
        )
        self.train_button = QPushButton(tr("Train"))
        self.classify_button = QPushButton(tr("Classify what I see"))
        self.cancel_button = QPushButton(tr("Cancel"))
        self.bar, self.status = QProgressBar(), QLabel()
        self.bar.setRange(0, 100)
        self.status.setWordWrap(True)
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.report_button = QPushButton(tr("Report of the training"))
        self.report_button.hide()
        self.reasons, self.picture = QLabel(), QLabel()
        self.reasons.setWordWrap(True)
        for widget in (self.bar, self.cancel_button, self.reasons, self.picture):
            widget.hide()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow(tr("Raster"), self.raster)
        form.addRow(tr("Model"), self.model)
        edit = QHBoxLayout()
        for button in (self.add_button, self.remove_button, self.undo_button):
            edit.addWidget(button)
        sides = QFormLayout()
        sides.addRow(tr("Side of a label"), self.side)
        actions = QGridLayout()
        for place, button in enumerate(
            (self.label_button, self.train_button, self.classify_button, self.explain_button)
        ):
            actions.addWidget(button, place // 2, place % 2)
        running = QHBoxLayout()
        running.addWidget(self.bar)
        running.addWidget(self.cancel_button)
        page = QWidget()
        column = QVBoxLayout(page)
        column.addLayout(form)
        column.addWidget(self.classes)
        column.addLayout(edit)
        column.addLayout(sides)
        column.addLayout(actions)
        column.addLayout(running)
        for widget in (self.status, self.report_button, self.reasons, self.picture):
            column.addWidget(widget)
        column.addStretch()
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setWidget(page)
        self.setWidget(scroll)

    def _connect(self) -> None:
        self.raster.layerChanged.connect(self._take_raster)
        self.model.activated.connect(self._take_model)
        self.classes.currentItemChanged.connect(self._show_color)
        self.add_button.clicked.connect(self._ask_class)
        self.remove_button.clicked.connect(self._remove_class)
        self.undo_button.clicked.connect(lambda: self._change_labels(Labels.undo))
        self.label_button.clicked.connect(self._use_label_tool)
        self.explain_button.clicked.connect(
            lambda: self._iface.mapCanvas().setMapTool(self.explain_tool)
        )
        self.train_button.clicked.connect(lambda: self.loop.train(self.side.value()))
        self.classify_button.clicked.connect(self._classify)
        self.cancel_button.clicked.connect(self.loop.cancel)
        self.report_button.clicked.connect(self._open_page)
        self.label_tool.clicked.connect(self.label_at)
        self.label_tool.painted.connect(self._paint)
        self.label_tool.erased.connect(self._erase)
        self.explain_tool.canvasClicked.connect(self._explain)
        self.loop.busy.connect(self._show_busy)
        self.loop.progress.connect(lambda percent: self.bar.setValue(round(percent)))
        self.loop.idle.connect(self._show_idle)
        self.loop.tiled.connect(self._take_tiling)
        self.loop.trained.connect(self._take_model_trained)
        self.loop.explained.connect(self._show_reasons)

    # Actions of the user.

    def _take_raster(self, layer: object) -> None:
        raster = layer if isinstance(layer, QgsRasterLayer) else None
        if raster is self.loop.raster or not self.isVisible():
            return
        self.loop.set_raster(raster)
        QTimer.singleShot(0, self.loop.prepare_labels)
        self._show_classes()

    def _take_model(self) -> None:
        self.loop.set_model(self.model.currentData())

    def _take_tiling(self, tiling: Tiling) -> None:
        self.side.setValue(tiling.side * tiling.meters)

    def _ask_class(self) -> None:
        name, good = QInputDialog.getText(self, TITLE, tr("Name of the class"))
        if good and name.strip():
            self.add_class(name.strip())

    def add_class(self, name: str) -> None:
        """Add a class to the raster's and choose it."""
        self._change_labels(lambda labels: labels.add_class(name))
        self._choose(name)

    def _remove_class(self) -> None:
        name, labels = self._chosen(), self.loop.labels
        if not name or labels is None:
            return
        count = labels.counts()[name]
        question = tr("Remove the class '{name}' with its {count} labels?").format(
            name=name, count=count
        )
        if count and QMessageBox.question(self, TITLE, question) != QMessageBox.StandardButton.Yes:
            return
        self._change_labels(lambda known: known.remove_class(name))

    def _use_label_tool(self) -> None:
        self._change_labels(lambda _labels: None)  # opens them
        if not self._chosen():
            self.label_button.setChecked(False)
            self._show_idle(tr("Add a class first."), int(Qgis.MessageLevel.Info))
            return
        self._iface.mapCanvas().setMapTool(self.label_tool)

    def _paint(self, points: list[QgsPointXY]) -> None:
        name = self._chosen()

        def add(labels: Labels) -> None:
            moved = [self._to_labels(point) for point in points]
            labels.add(Labels.shape(moved, self._side()), name)

        if name:
            self._change_labels(add)

    def _erase(self, point: QgsPointXY) -> None:
        self._change_labels(lambda labels: labels.erase(self._to_labels(point)))

    def _classify(self) -> None:
        canvas = self._iface.mapCanvas()
        self.loop.classify(canvas.extent(), canvas.mapSettings().destinationCrs())

    def _explain(self, point: QgsPointXY, button: object) -> None:
        if button == Qt.MouseButton.LeftButton:
            canvas = self._iface.mapCanvas()
            self.loop.explain(point, canvas.mapSettings().destinationCrs(), canvas.layers())

    def _open_page(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(self._page))

    # Display.

    def _show_models(self) -> None:
        self.model.clear()
        self.model.addItem(tr("compact, comes with the backend"), EMBEDDED)
        for name, path in trained_models().items():
            self.model.addItem(name, path)
        self.model.setCurrentIndex(max(self.model.findData(self.loop.model), 0))

    def _take_model_trained(self, _folder: str, page: str) -> None:
        self._show_models()
        self._show_classes()
        self._page = page
        self.report_button.show()
        from processing.core.ProcessingResults import resultsList

        title = tr("Training of {name}").format(name=os.path.splitext(os.path.basename(page))[0])
        resultsList.addResult(self._icon, title, time.localtime(), page)

    def _show_classes(self) -> None:
        chosen, labels = self._chosen(), self.loop.labels
        self.classes.clear()
        counts = labels.counts() if labels is not None else {}
        for name, color in labels.classes.items() if labels is not None else ():
            swatch = QPixmap(_SWATCH, _SWATCH)
            swatch.fill(QColor(color))
            item = QListWidgetItem(QIcon(swatch), f"{name}  ({counts.get(name, 0)})")
            item.setData(Qt.ItemDataRole.UserRole, name)
            self.classes.addItem(item)
        self._choose(chosen)

    def _choose(self, name: str) -> None:
        for row in range(self.classes.count()):
            if self.classes.item(row).data(Qt.ItemDataRole.UserRole) == name:
                self.classes.setCurrentRow(row)
                return
        self.classes.setCurrentRow(0)

    def _chosen(self) -> str:
        item = self.classes.currentItem()
        return "" if item is None else item.data(Qt.ItemDataRole.UserRole)

    def _show_color(self) -> None:
        if self.loop.labels is not None and self._chosen():
            self.label_tool.set_color(QColor(self.loop.labels.classes[self._chosen()]))

    def _show_busy(self, text: str) -> None:
        self.status.setText(f"{text} …")
        if not self.bar.isVisible():
            self.bar.setValue(0)
        for widget in (self.bar, self.cancel_button):
            widget.show()
        for button in (self.train_button, self.classify_button):
            button.setEnabled(False)

    def _show_idle(self, message: str, level: int) -> None:
        self.status.setText(message)
        if not self.loop.working:
            for widget in (self.bar, self.cancel_button):
                widget.hide()
            for button in (self.train_button, self.classify_button):
                button.setEnabled(True)
        if level == int(Qgis.MessageLevel.Warning):
            self._iface.messageBar().pushMessage(TITLE, message, Qgis.MessageLevel.Warning, 15)

    def _show_reasons(self, text: str, picture: str) -> None:
        self.reasons.setText(text)
        shown = QPixmap(picture)
        mode = Qt.TransformationMode.SmoothTransformation
        self.picture.setPixmap(shown.scaledToWidth(_PICTURE_WIDTH, mode))
        self.reasons.show()
        self.picture.show()

    # Labels.

    def _change_labels(self, change: Callable[[Labels], None]) -> None:
        try:
            change(self.loop.open_labels())
        except (OSError, QgsProcessingException) as error:
            self._show_idle(str(error), int(Qgis.MessageLevel.Warning))
            return
        except QgsCsException:
            self._show_idle(
                tr(
                    "The place that was clicked does not exist in the CRS of the raster: zoom to"
                    " the raster."
                ),
                int(Qgis.MessageLevel.Warning),
            )
            return
        self._show_classes()

    def _side(self) -> float:
        """Side of a label in units of the raster's CRS."""
        tiling = self.loop.tiling
        return self.side.value() / (tiling.meters if tiling is not None else 1.0)

    def _to_labels(self, point: QgsPointXY) -> QgsPointXY:
        """A point of the canvas's CRS in that of the labels."""
        canvas = self._iface.mapCanvas().mapSettings().destinationCrs()
        labels = self.loop.labels.layer.crs()
        return QgsCoordinateTransform(canvas, labels, QgsProject.instance()).transform(point)

    def _shape_of(self, points: list[QgsPointXY]) -> QgsGeometry:
        """The shape that a click or stroke would label, in the canvas's CRS; None off the Earth."""
        canvas = self._iface.mapCanvas().mapSettings().destinationCrs()
        if self.loop.labels is None:
            return QgsGeometry()
        labels = self.loop.labels.layer.crs()
        try:
            shape = Labels.shape([self._to_labels(point) for point in points], self._side())
            shape.transform(QgsCoordinateTransform(labels, canvas, QgsProject.instance()))
        except QgsCsException:
            return QgsGeometry()
        return shape
