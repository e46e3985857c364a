"""Widgets of the dialogs for texts of the command line: sizes, device, captioner, model, bands.

A parameter names its widget in its metadata, and Processing makes it. The values are the texts that
the program takes, so that scripts, history and models of Processing have them too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingParameterDefinition,
    QgsProcessingUtils,
    QgsProject,
    QgsRasterLayer,
)
from qgis.gui import (
    QgsAbstractProcessingParameterWidgetWrapper,
    QgsGui,
    QgsProcessingGui,
)
from qgis.PyQt.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QToolButton,
    QWidget,
)

from .i18n import tr
from .inputs import shown_bands
from .models import EMBEDDED, trained_models

DEVICES = ("cpu", "cuda", "mps")
_HF, _OPENAI = "hf:", "openai:"
_MODELER, _BATCH = "ModelerParametersDialog", "BatchAlgorithmDialog"
_SIZE = re.compile(r"\s*([\d.]+(?:x[\d.]+)?)\s*(px|km|m)?\s*", re.IGNORECASE)
_RASTERS = ("INPUT", "LIKE")
"""Parameters whose raster has the bands."""


class _Wrapper(QgsAbstractProcessingParameterWidgetWrapper):
    """What Processing makes for a parameter, in a dialog or a row of a batch.

    In the designer of models QGIS's own stands there: it lets a text come from elsewhere.
    """

    def __new__(cls, parameter: QgsProcessingParameterDefinition, dialog: Any, *_place: int) -> Any:
        if type(dialog).__name__ == _MODELER:
            return QgsGui.processingGuiRegistry().createModelerParameterWidget(
                dialog.model, dialog.childId, parameter, dialog.context
            )
        return super().__new__(cls)

    def __init__(
        self, parameter: QgsProcessingParameterDefinition, dialog: Any, *_place: int
    ) -> None:
        in_batch = type(dialog).__name__ == _BATCH
        super().__init__(
            parameter,
            QgsProcessingGui.WidgetType.Batch if in_batch else QgsProcessingGui.WidgetType.Standard,
        )

    def createWidget(self) -> QWidget:
        widget = self.make()
        widget.setToolTip(self.parameterDefinition().toolTip())
        return widget

    def setWidgetValue(self, value: Any, context: QgsProcessingContext) -> None:
        self.show_text("" if value is None else str(value))

    def widgetValue(self) -> str:
        return self.text()

    def changed(self, *_: object) -> None:
        """Tell the dialog that the user has chosen something else."""
        self.widgetValueHasChanged.emit(self)

    def make(self) -> QWidget:
        """A new widget, of which no reference may be kept, but of those inside it.

        QGIS takes it over, and what Python has is cut off from it.
        """
        raise NotImplementedError

    def show_text(self, text: str) -> None:
        """Show a value of the parameter."""
        raise NotImplementedError

    def text(self) -> str:
        """The value that is shown."""
        raise NotImplementedError


class DeviceWidget(_Wrapper):
    """The devices there are, or the text of another (``cuda:1``)."""

    def make(self) -> QWidget:
        named = {"cpu": "CPU", "cuda": tr("NVIDIA graphics card"), "mps": tr("Apple graphics")}
        unset = (tr("by the settings, else the fastest there is"), "")
        self._combo = _combo([unset, *((named[device], device) for device in DEVICES)])
        self._combo.setEditable(True)
        self._combo.currentTextChanged.connect(self.changed)
        return _row(self._combo)

    def show_text(self, text: str) -> None:
        _choose(self._combo, text)

    def text(self) -> str:
        return _chosen(self._combo)


class SizeWidget(_Wrapper):
    """A length and its unit, meters on the ground or pixels; none where the program decides.

    Not QGIS's own distances, which are in units of a layer's CRS, and never pixels.
    """

    def make(self) -> QWidget:
        self._length = QLineEdit()
        self._length.setPlaceholderText(tr("by default"))
        self._unit = _combo([(tr("meters"), "m"), (tr("kilometers"), "km"), (tr("pixels"), "px")])
        self._length.textChanged.connect(self.changed)
        self._unit.currentIndexChanged.connect(self.changed)
        return _row(self._length, self._unit)

    def show_text(self, text: str) -> None:
        found = _SIZE.fullmatch(text)
        if found and found[2]:
            self._unit.setCurrentIndex(self._unit.findData(found[2].lower()))
            text = found[1]
        self._length.setText(text)

    def text(self) -> str:
        typed = self._length.text().strip()
        found = _SIZE.fullmatch(typed)
        # A decimal comma, and whatever else is no size, is for the program to refuse.
        return f"{found[1]}{self._unit.currentData()}" if found and not found[2] else typed


class ModelWidget(_Wrapper):
    """The embedded model, those that were trained here, a folder, or the text of a hub id."""

    def make(self) -> QWidget:
        embedded = tr("{name}, which comes with the backend").format(name=EMBEDDED)
        self._combo = _combo([(embedded, EMBEDDED), *trained_models().items()])
        self._combo.setEditable(True)
        self._combo.currentTextChanged.connect(self.changed)
        self.browse = QToolButton()
        self.browse.setText("…")
        self.browse.setToolTip(tr("Choose the folder of a model"))
        self.browse.clicked.connect(self._browse)
        return _row(self._combo, self.browse)

    def show_text(self, text: str) -> None:
        _choose(self._combo, text)

    def text(self) -> str:
        return _chosen(self._combo)

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self._combo, tr("Folder of a model"))
        if folder:
            _choose(self._combo, folder)


class CaptionerWidget(_Wrapper):
    """Who describes: a kind, and what a kind of elsewhere needs, its model or address."""

    def make(self) -> QWidget:
        kinds = (
            (tr("by default: the model's own, where it has one"), ""),
            (tr("the model's own"), EMBEDDED),
            (tr("no captioner"), "none"),
            (tr("a model of Hugging Face, on this computer"), _HF),
            (tr("a server with OpenAI's interface"), _OPENAI),
        )
        self._kind = _combo(kinds)
        self._place, self._model = QLineEdit(), QLineEdit()
        self._model.setPlaceholderText(tr("model"))
        self._kind.currentIndexChanged.connect(self._show_fields)
        self._kind.currentIndexChanged.connect(self.changed)
        for field in (self._place, self._model):
            field.textChanged.connect(self.changed)
        row = _row(self._kind, self._place, self._model)
        self._show_fields()
        return row

    def show_text(self, text: str) -> None:
        kind = next((found for found in (_HF, _OPENAI) if text.startswith(found)), "")
        rest = text.removeprefix(kind)
        place, _, model = (
            rest.rpartition("#") if kind == _OPENAI and "#" in rest else (rest, "", "")
        )
        if not kind and self._kind.findData(text) < 0:
            self._kind.addItem(text, text)  # one that a newer program knows
        self._place.setText(place if kind else "")
        self._model.setText(model)
        _choose(self._kind, kind or text)

    def text(self) -> str:
        kind, place, model = (
            self._kind.currentData(),
            self._place.text().strip(),
            self._model.text().strip(),
        )
        if kind == _HF:
            return f"{kind}{place}"
        return f"{kind}{place}#{model}" if kind == _OPENAI else kind

    def _show_fields(self) -> None:
        kind = self._kind.currentData()
        self._place.setPlaceholderText(
            tr("id, or a folder") if kind == _HF else "http://localhost:8000/v1"
        )
        self._place.setVisible(kind in (_HF, _OPENAI))
        self._model.setVisible(kind == _OPENAI)


class BandsWidget(_Wrapper):
    """Three bands of the raster; those that its layer shows, until others are wanted."""

    def make(self) -> QWidget:
        self._shown: tuple[int, ...] = ()
        self._others = QCheckBox(tr("other than shown:"))
        self._bands = [QComboBox() for _ in range(3)]
        for combo, color in zip(self._bands, (tr("Red"), tr("Green"), tr("Blue"))):
            combo.setToolTip(color)
            combo.currentIndexChanged.connect(self.changed)
        self._others.toggled.connect(self._toggle)
        row = _row(self._others, *self._bands)
        self._fill([])
        return row

    def postInitialize(
        self, wrappers: Iterable[QgsAbstractProcessingParameterWidgetWrapper]
    ) -> None:
        for wrapper in wrappers:
            if wrapper.parameterDefinition().name() in _RASTERS:
                wrapper.widgetValueHasChanged.connect(self._take_raster)
                self._take_raster(wrapper)

    def show_text(self, text: str) -> None:
        wanted = [int(part) for part in text.split(",") if part.strip().isdigit()]
        chosen = len(wanted) == len(self._bands)
        for combo, band in zip(self._bands, wanted if chosen else self._shown):
            _choose_band(combo, band)
        self._others.setEnabled(chosen or bool(self._shown))
        self._others.setChecked(chosen)

    def text(self) -> str:
        if not self._others.isChecked():
            return ""
        return ",".join(str(combo.currentData()) for combo in self._bands)

    def _toggle(self) -> None:
        for combo in self._bands:
            combo.setEnabled(self._others.isChecked())
        if not self._others.isChecked():
            self.show_text("")
        self.changed()

    def _take_raster(self, wrapper: QgsAbstractProcessingParameterWidgetWrapper) -> None:
        """List the bands of another raster; what was chosen by the user stays."""
        before = self.text()
        self._shown, names = _bands_of(wrapper.parameterValue())
        self._fill(names)
        self.show_text(before)

    def _fill(self, names: Sequence[str]) -> None:
        for combo in self._bands:
            combo.clear()
            for number, name in enumerate(names, 1):
                combo.addItem(name, number)
            combo.setEnabled(self._others.isChecked())
        self._others.setEnabled(bool(names))


def _bands_of(value: object) -> tuple[tuple[int, ...], list[str]]:
    """The bands that the raster of a parameter's value shows, and the names of all it has.

    Of several the first; nothing where there is none.
    """
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    context = QgsProcessingContext()  # owns a layer that is not in the project
    context.setProject(QgsProject.instance())
    if isinstance(value, str) and value:
        value = QgsProcessingUtils.mapLayerFromString(value, context)
    if not isinstance(value, QgsRasterLayer) or not value.isValid():
        return (), []
    return shown_bands(value), [value.bandName(band + 1) for band in range(value.bandCount())]


def _combo(entries: Iterable[tuple[str, str]]) -> QComboBox:
    combo = QComboBox()
    for title, value in entries:
        combo.addItem(title, value)
    return combo


def _choose(combo: QComboBox, value: str) -> None:
    place = combo.findData(value)
    if place >= 0:
        combo.setCurrentIndex(place)
    else:
        combo.setEditText(value)


def _chosen(combo: QComboBox) -> str:
    place = combo.findText(combo.currentText())
    return combo.itemData(place) if place >= 0 else combo.currentText().strip()


def _choose_band(combo: QComboBox, band: int) -> None:
    if combo.findData(band) < 0:
        combo.addItem(tr("Band {number}").format(number=band), band)
    combo.setCurrentIndex(combo.findData(band))


def _row(*widgets: QWidget) -> QWidget:
    """Widgets side by side; the first combo box or field takes what is left."""
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget, 1 if isinstance(widget, (QComboBox, QLineEdit)) else 0)
    return row
