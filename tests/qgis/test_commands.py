"""The other algorithms from end to end: zero-shot, caption, explain, train."""

from __future__ import annotations

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import algorithm, classify, group_of, loaded, whole_tiles
from qgis.core import (
    QgsFeature,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import Qt


def test_zero_shot(scene, feedback):
    words = {
        "INPUT": str(scene),
        "CLASSES": "olive grove\nsea, harbour",
        "OUTPUT": "TEMPORARY_OUTPUT",
        **whole_tiles("100px"),
    }
    with pytest.raises(QgsProcessingException, match=r"'sea' names 1 class\(es\); give more"):
        processing.run("rsscgeo:zeroshot", {**words, "CLASSES": "sea", "NO_OTHER": True})
    cells = QgsVectorLayer(processing.run("rsscgeo:zeroshot", words, feedback=feedback)["CELLS"])
    assert cells.featureCount() == 48
    assert {cell["class"] for cell in cells.getFeatures()} <= {
        "olive grove",
        "sea",
        "harbour",
        "other",
    }
    refined = processing.run(
        "rsscgeo:zeroshot", {**words, "NO_OTHER": True, "REFINE": True}, feedback=feedback
    )
    cells = QgsVectorLayer(refined["CELLS"])
    assert {cell["class"] for cell in cells.getFeatures()} <= {"olive grove", "sea", "harbour"}


def test_caption(run_in_desktop, scene, tmp_path, feedback):
    output = tmp_path / "captions.gpkg"
    run = {
        "INPUT": str(scene),
        **whole_tiles("200px"),
        "CRS": "EPSG:4326",
        "OUTPUT": loaded(output),
    }
    assert run_in_desktop(algorithm("caption"), run) == {"OUTPUT": f"{output}|layername=captions"}
    (layer,) = QgsProject.instance().mapLayersByName("Captions")
    assert (
        layer.renderer().symbol().symbolLayer(0).brushStyle() == Qt.BrushStyle.NoBrush
    )  # the imagery stays in sight
    assert '"caption"' in layer.mapTipTemplate()
    assert layer.featureCount() == 12
    assert layer.crs().authid() == "EPSG:4326"
    assert all(len(cell["caption"]) > 10 for cell in layer.getFeatures())
    assert feedback.percents == sorted(feedback.percents)
    with pytest.raises(QgsProcessingException, match=r"is not a file ending in \.gpkg"):
        processing.run("rsscgeo:caption", {**run, "OUTPUT": str(tmp_path / "captions.shp")})


def test_explain(run_in_desktop, scene, tmp_path):
    raster = QgsRasterLayer(str(scene), "my scene")
    QgsProject.instance().addMapLayer(raster)
    output = tmp_path / "why & how"
    run = {
        "INPUT": raster,
        "AT": "9.005,45.149 [EPSG:4326]",
        **whole_tiles("200px"),
        "OUTPUT": str(output),
    }
    found = run_in_desktop(algorithm("explain"), run)
    page = (output / "explanation.html").read_text("utf-8")
    picture = page.partition("<img src='")[2].partition("'")[0]
    assert (output / picture).is_file()
    assert "%</h2>" in page
    (layer,) = group_of("my scene").findLayers()
    assert layer.name().startswith("Evidence for ")
    assert layer.layer().source() == found["HEAT_MAP"]
    assert layer.layer().extent() == QgsRectangle(
        500_000, 4_999_200, 500_400, 4_999_600
    )  # the tile around the point
    assert layer.layer().renderer().type() == "singlebandpseudocolor"
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    with pytest.raises(
        QgsProcessingException, match="is open in this project as the layer 'Evidence for"
    ):
        processing.run("rsscgeo:explain", run, context=context)
    del layer
    QgsProject.instance().clear()
    again = processing.run("rsscgeo:explain", {**run, "INPUT": str(scene)})
    assert again["HEAT_MAP"] == found["HEAT_MAP"]


def test_explain_beside_the_raster(scene, tmp_path):
    with pytest.raises(QgsProcessingException, match="outside|no cell|not in"):
        processing.run(
            "rsscgeo:explain",
            {"INPUT": str(scene), "AT": "1,1 [EPSG:4326]", "OUTPUT": str(tmp_path / "why")},
        )
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.fixture
def labels():
    """Squares of 400 m in two columns of the scene, labeled in turn."""
    layer = QgsVectorLayer("Polygon?crs=EPSG:32632&field=land_use:string", "labels", "memory")
    for column, name in enumerate(("vineyard", "olive grove")):
        for row in range(3):
            feature = QgsFeature(layer.fields())
            west, north = 500_000 + 800 * column, 5_000_000 - 400 * row
            feature.setGeometry(
                QgsGeometry.fromRect(QgsRectangle(west, north - 400, west + 400, north))
            )
            feature.setAttributes([name])
            layer.dataProvider().addFeatures([feature])
    return layer


def test_train_and_classify_with_the_model(scene, labels, tmp_path, feedback):
    bundle = tmp_path / "my model"
    run = {
        "INPUT": str(scene),
        "LABELS": labels,
        "FIELD": "land_use",
        "TILE_SIZE": "100px",
        "OUTPUT": str(bundle),
    }
    assert processing.run("rsscgeo:train", run, feedback=feedback) == {"OUTPUT": str(bundle)}
    assert (bundle / "model.safetensors").is_file()
    assert feedback.percents == sorted(feedback.percents)
    assert any("patches" in line for line in feedback.lines)
    cells = QgsVectorLayer(classify(INPUT=str(scene), MODEL=str(bundle))["CELLS"])
    assert {cell["class"] for cell in cells.getFeatures()} == {"vineyard", "olive grove"}


def test_train_with_groups_of_labels(scene, labels, tmp_path):
    """The fields of class and group reach the backend, and no others."""
    uri = "Polygon?crs=EPSG:32632&field=land_use:string&field=site:integer"
    grouped = QgsVectorLayer(uri, "grouped", "memory")
    for number, label in enumerate(labels.getFeatures()):
        feature = QgsFeature(grouped.fields())
        feature.setGeometry(label.geometry())
        feature.setAttributes([label["land_use"], number % 3])
        grouped.dataProvider().addFeatures([feature])
    run = {
        "INPUT": str(scene),
        "LABELS": grouped,
        "FIELD": "land_use",
        "GROUP_FIELD": "site",
        "TILE_SIZE": "100px",
        "OUTPUT": str(tmp_path / "model"),
    }
    assert processing.run("rsscgeo:train", run) == {"OUTPUT": str(tmp_path / "model")}
    with pytest.raises(QgsProcessingException, match="no field 'place'; there are land_use, site"):
        processing.run("rsscgeo:train", {**run, "GROUP_FIELD": "place"})


def test_train_with_words(scene, labels, tmp_path):
    words = tmp_path / "words.json"
    words.write_text('{"vineyard": ["rows of vines"]}')
    run = {
        "INPUT": str(scene),
        "LABELS": labels,
        "FIELD": "land_use",
        "CLASS_WORDS": str(words),
        "TILE_SIZE": "100px",
        "OUTPUT": str(tmp_path / "model"),
    }
    with pytest.raises(QgsProcessingException, match="words are given, but none for 'olive grove'"):
        processing.run("rsscgeo:train", run)
    words.write_text('{"vineyard": ["rows of vines"], "olive grove": ["scattered round trees"]}')
    assert processing.run("rsscgeo:train", run) == {"OUTPUT": str(tmp_path / "model")}


def test_train_with_one_class(scene, labels, tmp_path):
    QgsProject.instance().addMapLayer(labels)
    labels.selectByExpression("land_use = 'vineyard'")
    selected = QgsProcessingFeatureSourceDefinition(labels.id(), selectedFeaturesOnly=True)
    run = {
        "INPUT": str(scene),
        "LABELS": selected,
        "FIELD": "land_use",
        "OUTPUT": str(tmp_path / "model"),
    }
    with pytest.raises(QgsProcessingException, match="only the class 'vineyard' is labeled"):
        processing.run("rsscgeo:train", run)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".xml"] == ["scene.tif"]
