"""The labels of a raster: a layer of polygons with a class each, kept in the QGIS profile."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping

from qgis.core import (
    NULL,
    QgsApplication,
    QgsCategorizedSymbolRenderer,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsEditorWidgetSetup,
    QgsFeature,
    QgsFeatureRequest,
    QgsFillSymbol,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsRendererCategory,
    QgsVectorFileWriter,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor

from .i18n import tr

FIELD = "class"
LAYER = "labels"
COLORS = (
    "#e41a1c", "#377eb8", "#4daf4a", "#984ea3", "#ff7f00",
    "#ffd92f", "#a65628", "#f781bf", "#17becf", "#7f7f7f",
)  # fmt: skip
_CLASSES = "rssc_geo/classes"
_RASTER = "rssc_geo/raster"
_ROUND = 4  # segments of a quarter of a stroke's end


def folder() -> str:
    """Where the plugin keeps labels and models."""
    return os.path.join(QgsApplication.qgisSettingsDirPath(), "rssc_geo")


def plain_name(text: str) -> str:
    """A text as the name of a file or folder."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "scene"


class Labels:
    """The labels of one raster.

    Attributes
    ----------
    layer : the layer in the project
    classes : names with their colors, those without a label too, in the user's order
    """

    def __init__(self, layer: QgsVectorLayer) -> None:
        self.layer = layer
        kept = json.loads(layer.customProperty(_CLASSES, "{}"))
        self.classes: dict[str, str] = dict(kept)
        for name in self.counts():
            self.classes.setdefault(name, self._next_color())
        self._show()

    @staticmethod
    def prepare(raster: QgsRasterLayer) -> None:
        """Make the file of a raster's labels where it is not there; raises ``OSError``."""
        if not os.path.isfile(_path(raster)):
            _make(_path(raster), raster)

    @classmethod
    def of(cls, raster: QgsRasterLayer) -> Labels:
        """The labels of a raster: those in the project, those kept in the profile, or none yet.

        Raises ``OSError`` where they cannot be kept.
        """
        path = _path(raster)
        for layer in QgsProject.instance().mapLayers().values():
            if layer.customProperty(_RASTER) == path and layer.isValid():
                return cls(layer)
        cls.prepare(raster)
        layer = QgsVectorLayer(
            f"{path}|layername={LAYER}", tr("Labels of {name}").format(name=raster.name()), "ogr"
        )
        if not layer.isValid():
            raise OSError(
                tr("{path} cannot be read; move it away to begin with new labels").format(path=path)
            )
        layer.setCustomProperty(_RASTER, path)
        project = QgsProject.instance()
        project.addMapLayer(layer, addToLegend=False)
        project.layerTreeRoot().insertLayer(0, layer)
        return cls(layer)

    def counts(self) -> Counter[str]:
        """Labels of each class."""
        index = self.layer.fields().indexOf(FIELD)
        request = QgsFeatureRequest().setFlags(QgsFeatureRequest.Flag.NoGeometry)
        request.setSubsetOfAttributes([index])
        names = (feature.attribute(index) for feature in self.layer.getFeatures(request))
        return Counter(str(name) for name in names if name not in (None, NULL, ""))

    def add_class(self, name: str) -> None:
        """Add a class; one that is there stays."""
        if name and name not in self.classes:
            self.classes[name] = self._next_color()
            self._show()

    def recolor(self, colors: Mapping[str, str]) -> None:
        """Give classes other colors, as those that a map shows them in."""
        self.classes.update({n: color for n, color in colors.items() if n in self.classes})
        self._show()

    def remove_class(self, name: str) -> None:
        """Remove a class with its labels."""
        self.classes.pop(name, None)
        quoted = name.replace("'", "''")
        request = QgsFeatureRequest().setFilterExpression(f"\"{FIELD}\" = '{quoted}'")
        request.setFlags(QgsFeatureRequest.Flag.NoGeometry)
        self._delete([feature.id() for feature in self.layer.getFeatures(request)])
        self._show()

    @staticmethod
    def shape(points: list[QgsPointXY], side: float) -> QgsGeometry:
        """What a click (one point) or a stroke of a brush labels, in units of the points' CRS."""
        if len(points) > 1:
            return QgsGeometry.fromPolylineXY(points).buffer(side / 2, _ROUND)
        half, (point,) = side / 2, points
        return QgsGeometry.fromRect(
            QgsRectangle(point.x() - half, point.y() - half, point.x() + half, point.y() + half)
        )

    def add(self, shape: QgsGeometry, name: str) -> None:
        """Label a shape in the layer's CRS; raises ``OSError`` where it cannot be kept."""
        self.add_class(name)
        feature = QgsFeature(self.layer.fields())
        feature.setGeometry(shape)
        feature.setAttribute(FIELD, name)
        good, _ = self.layer.dataProvider().addFeatures([feature])
        if not good:
            raise OSError(
                tr("the label could not be kept: {reason}").format(
                    reason=self.layer.dataProvider().lastError()
                )
            )
        self._changed()

    def undo(self) -> None:
        """Remove the last label."""
        last = max(self.layer.allFeatureIds(), default=None)
        if last is not None:
            self._delete([last])

    def erase(self, point: QgsPointXY) -> None:
        """Remove the labels at a point of the layer's CRS."""
        here = QgsGeometry.fromPointXY(point)
        request = QgsFeatureRequest().setFilterRect(here.boundingBox())
        found = self.layer.getFeatures(request)
        self._delete([one.id() for one in found if one.geometry().intersects(here)])

    def write(self, path: str, reviewed: list[QgsVectorLayer]) -> dict[str, int]:
        """Write all labels, and the cells of review layers that were labeled, to a GeoPackage.

        Returns how many there are of each class. Raises ``OSError`` where it cannot be written.
        """
        crs = self.layer.crs()
        copy = QgsVectorLayer(f"Polygon?crs={crs.authid()}&field={FIELD}:string", LAYER, "memory")
        copy.setCrs(crs)
        features = []
        for source, field in ((self.layer, FIELD), *((layer, "label") for layer in reviewed)):
            move = QgsCoordinateTransform(source.crs(), crs, QgsProject.instance())
            for feature in source.getFeatures():
                name = feature.attribute(field)
                if name not in (None, NULL, ""):
                    made = QgsFeature(copy.fields())
                    shape = feature.geometry()
                    shape.transform(move)
                    made.setGeometry(shape)
                    made.setAttribute(FIELD, str(name))
                    features.append(made)
        copy.dataProvider().addFeatures(features)
        _write(copy, path)
        return dict(Counter(feature.attribute(FIELD) for feature in features))

    def _delete(self, numbers: list[int]) -> None:
        if numbers:
            self.layer.dataProvider().deleteFeatures(numbers)
            self._changed()

    def _changed(self) -> None:
        self.layer.updateExtents()
        self.layer.triggerRepaint()

    def _next_color(self) -> str:
        free = [color for color in COLORS if color not in self.classes.values()]
        return free[0] if free else COLORS[len(self.classes) % len(COLORS)]

    def _show(self) -> None:
        """A color a class, and the classes as a list in the form."""
        self.layer.setCustomProperty(_CLASSES, json.dumps(self.classes))
        categories = []
        for name, color in self.classes.items():
            symbol = QgsFillSymbol.createSimple(
                {"color": color, "outline_color": color, "outline_width": "0.5"}
            )
            symbol.symbolLayer(0).setFillColor(_faint(symbol.color()))
            categories.append(QgsRendererCategory(name, symbol, name))
        self.layer.setRenderer(QgsCategorizedSymbolRenderer(FIELD, categories))
        choose = QgsEditorWidgetSetup("ValueMap", {"map": [{name: name} for name in self.classes]})
        self.layer.setEditorWidgetSetup(self.layer.fields().indexOf(FIELD), choose)
        self._changed()


def review_layers() -> list[QgsVectorLayer]:
    """The layers of cells to review in the project."""
    return [
        layer
        for layer in QgsProject.instance().mapLayers().values()
        if isinstance(layer, QgsVectorLayer)
        and {"rank", "reason", "label"} <= set(layer.fields().names())
    ]


def _faint(color: QColor) -> QColor:
    color.setAlphaF(0.35)
    return color


def _path(raster: QgsRasterLayer) -> str:
    mark = hashlib.sha256(raster.source().encode()).hexdigest()[:8]
    return os.path.join(folder(), "labels", f"{plain_name(raster.name())}-{mark}.gpkg")


def _make(path: str, raster: QgsRasterLayer) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    empty = QgsVectorLayer(f"Polygon?field={FIELD}:string", LAYER, "memory")
    empty.setCrs(raster.crs())
    _write(empty, path)


def _write(layer: QgsVectorLayer, path: str) -> None:
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName, options.layerName = "GPKG", LAYER
    context = QgsCoordinateTransformContext()
    error, message, *_ = QgsVectorFileWriter.writeAsVectorFormatV3(layer, path, context, options)
    if error != QgsVectorFileWriter.WriterError.NoError:
        raise OSError(tr("{path} cannot be written: {message}").format(path=path, message=message))
