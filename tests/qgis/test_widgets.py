"""The widgets of the dialog in place of texts: sizes, device, captioner, model, bands."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

from helpers import algorithm
from processing.gui.ParametersPanel import ParametersPanel
from processing.gui.wrappers import WidgetWrapperFactory
from qgis.core import (
    QgsMultiBandColorRenderer,
    QgsProcessingContext,
    QgsProcessingModelAlgorithm,
    QgsProject,
    QgsRasterLayer,
)
from qgis.gui import QgsMessageBar, QgsProcessingModelerParameterWidget
from qgis.PyQt import sip
from qgis.PyQt.QtWidgets import QCheckBox, QComboBox, QDialog, QFileDialog, QLineEdit, QWidget
from rssc_geo_qgis import models


class Dialog(QDialog):
    """What the panel of parameters wants of the dialog around it."""

    def __init__(self):
        super().__init__()
        self._bar = QgsMessageBar(self)

    def messageBar(self):
        return self._bar


@pytest.fixture
def panel():
    """The panel of the dialog, as Processing makes it, for an algorithm."""
    kept = []

    def make(name="classify"):
        dialog, alg = Dialog(), algorithm(name)
        kept.extend((dialog, alg, ParametersPanel(dialog, alg)))
        return kept[-1]

    yield make
    for entry in reversed(kept):  # before QGIS ends, which would find them half gone
        if isinstance(entry, QWidget):
            sip.delete(entry)


@pytest.fixture
def layer(scene):
    made = QgsRasterLayer(str(scene), "scene")
    QgsProject.instance().addMapLayer(made)
    return made


def parts(panel, name):
    """The combo boxes of a parameter's widget."""
    return panel.wrappers[name].wrappedWidget().findChildren(QComboBox)


def entries(combo):
    return [combo.itemData(place) for place in range(combo.count())]


def value_of(panel, name):
    return panel.wrappers[name].parameterValue()


@pytest.mark.parametrize("name", ["classify", "zeroshot", "caption", "explain", "train", "change"])
def test_the_texts_have_widgets(panel, name):
    made = panel(name)
    texts = {"DEVICE", "CAPTIONER", "MODEL", "BANDS", "TILE_SIZE", "CELL_SIZE"}
    texts &= made.wrappers.keys()
    assert {"DEVICE", "MODEL", "BANDS", "TILE_SIZE"} <= texts
    for text in texts:
        assert type(made.wrappers[text]).__module__ == "rssc_geo_qgis.widgets", text
        tip = made.wrappers[text].wrappedWidget().toolTip()
        assert tip == made.algorithm().parameterDefinition(text).toolTip()


def test_a_device_is_chosen_or_typed(panel):
    made = panel()
    (combo,) = parts(made, "DEVICE")
    assert entries(combo) == ["", "cpu", "cuda", "mps"]
    assert value_of(made, "DEVICE") == ""
    combo.setCurrentIndex(2)
    assert value_of(made, "DEVICE") == "cuda"
    combo.setEditText("cuda:1")
    assert value_of(made, "DEVICE") == "cuda:1"
    made.setParameters({"DEVICE": "mps"})
    assert combo.currentIndex() == 3


@pytest.mark.parametrize(
    ("text", "length", "unit"),
    [
        *(("400m", "400", "m"), ("0.5km", "0.5", "km"), ("256px", "256", "px")),
        *(("256x128px", "256x128", "px"), ("12", "12", "m"), ("", "", "m")),
    ],
)
def test_a_size_is_a_length_and_a_unit(panel, text, length, unit):
    made = panel()
    made.setParameters({"CELL_SIZE": text})
    (field,) = made.wrappers["CELL_SIZE"].wrappedWidget().findChildren(QLineEdit)
    (combo,) = parts(made, "CELL_SIZE")
    assert (field.text(), combo.currentData()) == (length, unit)
    assert value_of(made, "CELL_SIZE") == (f"{length}{unit}" if text else "")


def test_a_size_is_typed_with_its_unit_or_without(panel):
    made = panel()
    (field,) = made.wrappers["TILE_SIZE"].wrappedWidget().findChildren(QLineEdit)
    (combo,) = parts(made, "TILE_SIZE")
    assert entries(combo) == ["m", "km", "px"]
    assert (value_of(made, "TILE_SIZE"), field.placeholderText()) == ("", "by default")
    field.setText(" 300 ")
    assert value_of(made, "TILE_SIZE") == "300m"
    combo.setCurrentIndex(2)
    assert value_of(made, "TILE_SIZE") == "300px"
    field.setText("2km")
    assert value_of(made, "TILE_SIZE") == "2km"
    field.setText("1,5")
    assert value_of(made, "TILE_SIZE") == "1,5"


def test_trained_models_are_listed_and_others_browsed_for(panel, monkeypatch, tmp_path):
    for name in ("fields-1", "fields-2"):
        folder = Path(models.models_folder(), name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
    made = panel()
    (combo,) = parts(made, "MODEL")
    trained = {str(Path(models.models_folder(), name)) for name in ("fields-1", "fields-2")}
    assert entries(combo)[0] == value_of(made, "MODEL") == "compact"
    assert trained <= set(entries(combo))
    combo.setCurrentIndex(1)
    assert value_of(made, "MODEL") == entries(combo)[1]
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    made.wrappers["MODEL"].browse.click()
    assert value_of(made, "MODEL") == str(tmp_path)
    combo.setEditText("some/hub-id")
    assert value_of(made, "MODEL") == "some/hub-id"


@pytest.mark.parametrize(
    "text",
    [
        *("", "compact", "none", "hf:org/model@main", "hf:/models/captioner"),
        *("openai:http://host:8000/v1#some/model", "later:kind"),
    ],
)
def test_a_captioner_is_a_kind_and_its_place(panel, text):
    made = panel()
    assert value_of(made, "CAPTIONER") == ""
    made.setParameters({"CAPTIONER": text})
    assert value_of(made, "CAPTIONER") == text
    fields = made.wrappers["CAPTIONER"].wrappedWidget().findChildren(QLineEdit)
    shown = [field for field in fields if field.isVisibleTo(field.parentWidget())]
    assert len(shown) == {"hf": 1, "openai": 2}.get(text.partition(":")[0], 0)


def test_bands_are_those_of_the_layer_until_others_are_chosen(panel, layer):
    layer.setRenderer(QgsMultiBandColorRenderer(layer.dataProvider(), 3, 2, 1))
    made = panel()
    combos = parts(made, "BANDS")
    (others,) = made.wrappers["BANDS"].wrappedWidget().findChildren(QCheckBox)
    made.setParameters({"INPUT": layer.id()})
    assert [combo.currentData() for combo in combos] == [3, 2, 1]
    assert [combo.count() for combo in combos] == [3, 3, 3]
    assert combos[0].itemText(0).startswith("Band 1")
    assert not combos[0].isEnabled()
    assert value_of(made, "BANDS") == ""  # the run asks the layer
    others.click()
    combos[0].setCurrentIndex(1)
    assert combos[0].isEnabled()
    assert value_of(made, "BANDS") == "2,2,1"
    others.click()
    assert value_of(made, "BANDS") == ""
    assert [combo.currentData() for combo in combos] == [3, 2, 1]


def test_bands_that_were_given_stay(panel, layer):
    made = panel()
    made.setParameters({"BANDS": "4,3,2", "INPUT": layer.id()})  # as from the history
    assert value_of(made, "BANDS") == "4,3,2"
    made.setParameters({"BANDS": ""})
    assert value_of(made, "BANDS") == ""


def test_without_a_raster_there_are_no_bands_to_choose(panel):
    made = panel()
    made.setParameters({"INPUT": "/nowhere/scene.tif"})
    combos = parts(made, "BANDS")
    assert [combo.count() for combo in combos] == [0, 0, 0]
    assert value_of(made, "BANDS") == ""


def test_the_designer_of_models_has_its_own_widget():
    class ModelerParametersDialog(QDialog):
        model, childId, context = QgsProcessingModelAlgorithm(), "a", QgsProcessingContext()

    owner = algorithm("classify")
    definition = owner.parameterDefinition("DEVICE")
    dialog = ModelerParametersDialog()
    made = WidgetWrapperFactory.create_wrapper(definition, dialog)
    assert isinstance(made, QgsProcessingModelerParameterWidget)
    sip.delete(made)


def test_a_row_of_a_batch_has_no_label():
    class BatchAlgorithmDialog(QDialog):
        pass

    owner = algorithm("classify")
    definition = owner.parameterDefinition("DEVICE")
    dialog = BatchAlgorithmDialog()
    made = WidgetWrapperFactory.create_wrapper(definition, dialog, 0, 0)
    made.createWrappedWidget(QgsProcessingContext())
    assert made.createWrappedLabel() is None


@pytest.mark.parametrize("name", ["DEVICE", "CAPTIONER", "MODEL", "BANDS", "CELL_SIZE"])
def test_the_values_are_texts_for_scripts(name):
    assert algorithm("classify").parameterDefinition(name).type() == "string"
