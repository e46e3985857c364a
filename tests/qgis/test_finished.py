"""A finished map in QGIS: a sample that is labeled, its accuracy, areas, another map of it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import algorithm, classify, loaded
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeatureRequest,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProject,
    QgsVectorLayer,
    edit,
)


@pytest.fixture
def mapped(scene, tmp_path):
    """A map of 48 cells."""
    classify(INPUT=str(scene), OUTPUT=str(tmp_path / "map.gpkg"))
    return tmp_path / "map.gpkg"


def layer_of(title):
    (found,) = QgsProject.instance().mapLayersByName(title)
    return found


def test_a_sample_is_labeled_in_its_form_and_assessed(run_in_desktop, mapped, tmp_path):
    run_in_desktop(
        algorithm("assesssample"),
        {
            "INPUT": f"{mapped}|layername=landuse",
            "SAMPLE_SIZE": 20,
            "DESIGN": "simple",
            "OUTPUT": loaded(tmp_path / "sample.gpkg"),
        },
    )
    sample = layer_of("Sample")
    (group,) = QgsProject.instance().layerTreeRoot().findGroups()
    assert group.name().startswith("map, sample, ")
    assert [rule.label() for rule in sample.renderer().rootRule().children()] == [
        "to label",
        "cannot tell",
        "labeled",
    ]
    form = sample.editorWidgetSetup(sample.fields().indexOf("class"))
    assert form.type() == "ValueMap"
    choices = [next(iter(entry)) for entry in form.config()["map"]]
    assert choices[-1] == "cannot tell"
    assert len(choices) > 10
    with edit(sample):
        for feature in list(sample.getFeatures()):
            sample.changeAttributeValue(
                feature.id(), sample.fields().indexOf("class"), choices[feature.id() % 2]
            )
    found = run_in_desktop(
        algorithm("assessaccuracy"),
        {"INPUT": str(mapped), "REFERENCE": sample, "OUTPUT": str(tmp_path / "accuracy")},
    )
    page = Path(found["PAGE"]).read_text(encoding="utf-8")
    assert "Overall accuracy" in page
    assert (tmp_path / "accuracy" / "matrix.csv").is_file()


def test_a_sample_with_unsaved_labels_is_not_assessed(mapped, tmp_path):
    layer = QgsVectorLayer(f"{mapped}|layername=cells", "cells", "ogr")
    layer.startEditing()
    layer.deleteFeature(next(layer.getFeatures()).id())
    good, message = algorithm("areas").checkParameterValues(
        {"INPUT": layer, "OUTPUT": str(tmp_path / "areas.csv")}, QgsProcessingContext()
    )
    assert not good
    assert "has changes that are not saved" in message


def test_a_run_tells_how_much_there_is_of_each_class(scene, feedback):
    classify(feedback, INPUT=str(scene))
    (head,) = [line for line in feedback.lines if line.startswith("48 cells in ")]
    first = feedback.lines[feedback.lines.index(head) + 1]
    assert " ha, " in first
    assert first.endswith("%")
    assert not any(line.startswith("{") for line in feedback.lines)


def test_areas_are_a_table_and_a_page(run_in_desktop, mapped, tmp_path):
    found = run_in_desktop(
        algorithm("areas"),
        {
            "INPUT": str(mapped),
            "ZONES": f"{mapped}|layername=landuse",
            "OUTPUT": str(tmp_path / "areas.csv"),
        },
    )
    page = Path(found["PAGE"]).read_text(encoding="utf-8")
    rows = (tmp_path / "areas.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == page.count("<tr>")


def test_zones_are_those_that_the_layer_shows(mapped, tmp_path):
    """With its filter, its unsaved changes and the CRS that was chosen for it, of any kind."""
    kept = QgsVectorLayer(f"{mapped}|layername=cells", "cells", "ogr")
    kept.setSubsetString("row = 0 AND col < 3")
    run = {"INPUT": str(mapped), "ZONE_FIELD": "col", "OUTPUT": str(tmp_path / "areas.csv")}
    memory = kept.materialize(QgsFeatureRequest())
    memory.startEditing()
    memory.deleteFeature(next(memory.getFeatures()).id())
    for zones, names in ((kept, {"0", "1", "2"}), (memory, {"1", "2"})):
        processing.run("rsscgeo:areas", {**run, "ZONES": zones})
        rows = (tmp_path / "areas.csv").read_text(encoding="utf-8").splitlines()[1:]
        assert {row.split(",")[0] for row in rows} == {"(all)", *names}
    with pytest.raises(QgsProcessingException, match="'cells' has no field 'name'; there are fid"):
        processing.run("rsscgeo:areas", {**run, "ZONES": kept, "ZONE_FIELD": "name"})


def test_a_sample_that_is_shown_otherwise_than_it_is_kept_is_refused(mapped, tmp_path):
    wanted = {"INPUT": str(mapped), "OUTPUT": str(tmp_path / "areas.csv")}
    filtered, moved = (QgsVectorLayer(f"{mapped}|layername=cells", "mine") for _ in range(2))
    filtered.setSubsetString("row = 0")
    moved.setCrs(QgsCoordinateReferenceSystem("EPSG:32633"))
    for layer in (filtered, moved):
        good, message = algorithm("areas").checkParameterValues(
            {**wanted, "REFERENCE": layer}, QgsProcessingContext()
        )
        assert not good
        assert "the layer 'mine' has a filter, or a CRS that was chosen in QGIS" in message


def test_another_map_of_a_map_is_loaded_like_the_first(run_in_desktop, mapped, tmp_path):
    run_in_desktop(
        algorithm("refine"),
        {"INPUT": str(mapped), "LEGEND": "groups", "OUTPUT": loaded(tmp_path / "groups.gpkg")},
    )
    assert layer_of("Land use").renderer().type() == "categorizedSymbol"
    (group,) = QgsProject.instance().layerTreeRoot().findGroups()
    assert group.name().startswith("map, compact, ")
    assert [node.name() for node in group.findLayers()] == ["Land use", "Cells"]
