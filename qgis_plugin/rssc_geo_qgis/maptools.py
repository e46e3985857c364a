"""Map tools: a click gives a label, or a cell to explain."""

from __future__ import annotations

from collections.abc import Callable

from qgis.core import QgsGeometry, QgsPointXY, QgsWkbTypes
from qgis.gui import QgsMapCanvas, QgsMapMouseEvent, QgsMapTool, QgsMapToolEmitPoint, QgsRubberBand
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor

_DRAG_PX = 6
"""A move shorter than this is a click."""


class LabelTool(QgsMapTool):
    """Click: a square. Drag: a stroke. Shift and click: erase. All in the canvas's CRS."""

    clicked = pyqtSignal(QgsPointXY)
    painted = pyqtSignal(list)
    erased = pyqtSignal(QgsPointXY)

    def __init__(
        self, canvas: QgsMapCanvas, shape: Callable[[list[QgsPointXY]], QgsGeometry]
    ) -> None:
        """``shape``: what a click or stroke would label, for the picture under the mouse."""
        super().__init__(canvas)
        self._shape = shape
        self._points: list[QgsPointXY] = []
        self._start = None
        self._band = QgsRubberBand(canvas, QgsWkbTypes.GeometryType.PolygonGeometry)
        self._band.setWidth(2)
        self.setCursor(Qt.CursorShape.CrossCursor)

    def set_color(self, color: QColor) -> None:
        """The color of the class that is painted."""
        self._band.setStrokeColor(color)
        faint = QColor(color)
        faint.setAlphaF(0.3)
        self._band.setFillColor(faint)

    def canvasPressEvent(self, event: QgsMapMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton:
            self._points, self._start = [event.mapPoint()], event.pos()

    def canvasMoveEvent(self, event: QgsMapMouseEvent) -> None:
        if self._points:
            self._points.append(event.mapPoint())
        self._band.setToGeometry(self._shape(self._points or [event.mapPoint()]), None)

    def canvasReleaseEvent(self, event: QgsMapMouseEvent) -> None:
        points, self._points = self._points, []
        if not points:
            return
        if event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.erased.emit(event.mapPoint())
        elif (event.pos() - self._start).manhattanLength() < _DRAG_PX:
            self.clicked.emit(points[0])
        else:
            self.painted.emit(points)

    def deactivate(self) -> None:
        self._points = []
        self._band.reset(QgsWkbTypes.GeometryType.PolygonGeometry)
        super().deactivate()


class ExplainTool(QgsMapToolEmitPoint):
    """A click asks why the cell there was given its class."""

    def __init__(self, canvas: QgsMapCanvas) -> None:
        super().__init__(canvas)
        self.setCursor(Qt.CursorShape.WhatsThisCursor)
