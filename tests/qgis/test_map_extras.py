"""What a land-use map brings on demand: a report, cells to review, a raster of classes."""

from __future__ import annotations

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import algorithm, classify, group_of, loaded, whole_tiles
from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import Qt

TILES = whole_tiles("100px")  # 48 cells


def in_the_group(name):
    return group_of(name).findLayers()


@pytest.mark.parametrize(
    ("name", "more"), [("classify", {}), ("zeroshot", {"CLASSES": "olive grove, sea, harbour"})]
)
def test_all_of_them(run_in_desktop, scene, tmp_path, name, more):
    page, raster = tmp_path / "my report.html", tmp_path / "classes.tif"
    wanted = {"REPORT": str(page), "REVIEW": 7, "CLASS_RASTER": loaded(raster)}
    found = run_in_desktop(
        algorithm(name),
        {"INPUT": str(scene), **TILES, **more, **wanted, "OUTPUT": loaded(tmp_path / "map.gpkg")},
    )
    assert found == {
        "OUTPUT": f"{tmp_path}/map.gpkg|layername=landuse",
        "CELLS": f"{tmp_path}/map.gpkg|layername=cells",
        "REVIEW_LAYER": f"{tmp_path}/map.gpkg|layername=review",
        "REPORT": str(page),
        "CLASS_RASTER": str(raster),
    }
    text = page.read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "scene.tif" in text
    nodes = in_the_group("scene")
    assert [node.name() for node in nodes[:2]] == ["Cells to review", "Land use"]
    assert {node.name() for node in nodes[2:]} == {"Cells", "Classes as raster"}
    assert [node.isVisible() for node in nodes] == [True, True, False, False]

    review = nodes[0].layer()
    assert review.featureCount() == 7
    assert review.renderer().type() == "RuleRenderer"
    assert all(
        child.symbol().symbolLayer(0).brushStyle() == Qt.BrushStyle.NoBrush
        for child in review.renderer().rootRule().children()
    )
    assert review.labelsEnabled()
    assert review.attributeAlias(review.fields().indexOf("label")) == "Your label"
    choice = review.editorWidgetSetup(review.fields().indexOf("label"))
    assert choice.type() == "ValueMap"  # the classes of the model, or those that were asked for
    offered = {title for entry in choice.config()["map"] for title in entry.values()}
    found_classes = {region["class"] for region in nodes[1].layer().getFeatures()}
    assert found_classes - {"Unknown", "other"} <= offered
    assert '"reason"' in review.mapTipTemplate()

    (classes,) = (node.layer() for node in nodes if node.name() == "Classes as raster")
    assert (classes.width(), classes.height()) == (8, 6)
    shown = {entry.value: entry.label for entry in classes.renderer().classes()}
    regions = nodes[1].layer()
    *categories, _ = regions.renderer().categories()  # all but what belongs to none
    titles = {category.value(): category.label() for category in categories}
    assert shown == {
        region["class_id"]: titles[region["class"]] for region in regions.getFeatures()
    }
    of_the_file = {entry.value: entry.label for entry in classes.dataProvider().colorTable(1)}
    assert shown.items() <= of_the_file.items()
    colors = {category.label(): category.symbol().color().name() for category in categories}
    assert {
        entry.label: entry.color.name() for entry in classes.renderer().classes()
    }.items() <= colors.items()


def test_styles_in_the_layer_s_menu_and_the_areas_as_a_page(run_in_desktop, scene, tmp_path):
    found = run_in_desktop(
        algorithm("classify"),
        {
            "INPUT": str(scene),
            **TILES,
            "AREAS": str(tmp_path / "areas.csv"),
            "OUTPUT": loaded(tmp_path / "map.gpkg"),
        },
    )
    with open(found["AREAS_PAGE"], encoding="utf-8") as page:
        text = page.read()
    rows = (tmp_path / "areas.csv").read_text("utf-8").splitlines()
    assert text.count("<tr>") == len(rows)
    assert text.count("%") == text.count(" ha</td>") == len(rows) - 1
    regions, cells = (node.layer() for node in in_the_group("scene"))
    for layer, more in ((regions, set()), (cells, {"familiarity"})):
        count, _, names, *_ = layer.listStylesInDatabase()
        assert set(names[:count]) == {"class", "group", "confidence"} | more


def test_temporary_ones(scene):
    wanted = dict.fromkeys(("REPORT", "CLASS_RASTER"), "TEMPORARY_OUTPUT")
    found = classify(INPUT=str(scene), **wanted)
    assert found["REPORT"].endswith(".html")
    with open(found["REPORT"], encoding="utf-8") as page:
        assert "</html>" in page.read()
    raster = QgsRasterLayer(found["CLASS_RASTER"])
    assert raster.isValid()
    assert (raster.width(), raster.height()) == (8, 6)


@pytest.mark.parametrize("suffix", ["fgb", "geojson", "shp"])
def test_formats_of_one_layer_a_file(run_in_desktop, scene, tmp_path, suffix):
    """Also where the map's own name ends as that of a layer does."""
    output = loaded(tmp_path / f"some_cells.{suffix}")
    found = run_in_desktop(
        algorithm("classify"), {"INPUT": str(scene), **TILES, "REVIEW": 3, "OUTPUT": output}
    )
    assert found == {
        "OUTPUT": str(tmp_path / f"some_cells.{suffix}"),
        "CELLS": str(tmp_path / f"some_cells_cells.{suffix}"),
        "REVIEW_LAYER": str(tmp_path / f"some_cells_review.{suffix}"),
    }
    assert QgsVectorLayer(found["OUTPUT"]).featureCount() > 0
    assert "caption" in QgsVectorLayer(found["CELLS"]).fields().names()
    assert [node.name() for node in in_the_group("scene")] == [
        "Cells to review",
        "Land use",
        "Cells",
    ]
    assert in_the_group("scene")[0].layer().featureCount() == 3
    shown = in_the_group("scene")[1].layer()  # as the GeoPackage's, of the classes that occur
    assert shown.renderer().type() == "categorizedSymbol"
    occurring = shown.uniqueValues(shown.fields().indexOf("class"))
    assert {entry.value() for entry in shown.renderer().categories()} == occurring


def test_batch_mode(run_in_desktop, write_raster, tmp_path):
    """One instance runs row after row, as the dialog of batch mode does it.

    Each result is loaded under its own raster.
    """
    alg = algorithm("classify")
    for name in ("west", "east"):
        row = {
            "INPUT": str(write_raster(tmp_path / f"{name}.tif")),
            **TILES,
            "REVIEW": 2,
            "OUTPUT": loaded(tmp_path / f"{name}.gpkg"),
        }
        found = run_in_desktop(alg, row)
        assert found["REVIEW_LAYER"] == f"{tmp_path}/{name}.gpkg|layername=review"
    for name in ("west", "east"):
        nodes = in_the_group(name)
        assert [node.name() for node in nodes] == ["Cells to review", "Land use", "Cells"]
        assert all(node.layer().source().startswith(f"{tmp_path}/{name}.gpkg") for node in nodes)


def test_labels_of_the_review_are_learned_from(run_in_desktop, scene, tmp_path):
    run_in_desktop(
        algorithm("classify"),
        {"INPUT": str(scene), **TILES, "REVIEW": 40, "OUTPUT": loaded(tmp_path / "map.gpkg")},
    )
    review = in_the_group("scene")[0].layer()
    label = review.fields().indexOf("label")
    assert review.startEditing()
    for cell in review.getFeatures():
        west = cell.geometry().boundingBox().xMinimum() < 500_800
        if cell["rank"] <= 30:  # the others stay without
            review.changeAttributeValue(cell.id(), label, "vineyard" if west else "olive grove")
    assert review.commitChanges(), review.commitErrors()
    bundle = tmp_path / "my model"
    learn = {
        "INPUT": str(scene),
        "LABELS": review,
        "FIELD": "label",
        "TILE_SIZE": "100px",
        "OUTPUT": str(bundle),
    }
    processing.run("rsscgeo:train", learn)
    found = classify(INPUT=str(scene), MODEL=str(bundle))
    cells = QgsVectorLayer(found["CELLS"])
    assert {cell["class"] for cell in cells.getFeatures()} == {"vineyard", "olive grove"}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"REPORT": "report.pdf"}, r"'report\.pdf' is not a file ending in \.html or \.htm"),
        (
            {"CLASS_RASTER": "classes.png"},
            r"'classes\.png' is not a file ending in \.tif or \.tiff",
        ),
        ({"REVIEW": 0}, "Incorrect parameter value for REVIEW"),
        ({"REPORT": "nowhere/report.html"}, "nowhere"),
    ],
)
def test_refused_before_the_work_starts(scene, tmp_path, monkeypatch, wanted, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QgsProcessingException, match=words):
        classify(INPUT=str(scene), **wanted, OUTPUT="map.gpkg")
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".xml"] == ["scene.tif"]


def test_files_that_are_open_as_layers(run_in_desktop, scene, tmp_path):
    """On Windows an open file cannot be replaced.

    Elsewhere the layer would show what is no longer there.
    """
    raster, context = tmp_path / "classes.tif", QgsProcessingContext()
    context.setProject(QgsProject.instance())
    run = {
        "INPUT": str(scene),
        **TILES,
        "REVIEW": 3,
        "OUTPUT": loaded(tmp_path / "map.shp"),
        "CLASS_RASTER": loaded(raster),
    }
    run_in_desktop(algorithm("classify"), run)
    for title in ("Land use", "Cells", "Cells to review", "Classes as raster"):
        with pytest.raises(
            QgsProcessingException, match=f"is open in this project as the layer '{title}'"
        ):
            processing.run("rsscgeo:classify", run, context=context)
        (layer,) = QgsProject.instance().mapLayersByName(title)
        QgsProject.instance().removeMapLayer(layer)
    run_in_desktop(algorithm("classify"), run)
