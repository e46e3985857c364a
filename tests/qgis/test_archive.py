"""Change between dates, an archive of scenes, and what is found in it, as layers."""

from __future__ import annotations

import json

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import algorithm, classify, group_of, loaded, whole_tiles
from qgis.core import (
    QgsExpressionContextUtils,
    QgsMultiBandColorRenderer,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProject,
    QgsRasterLayer,
    QgsRenderContext,
    QgsVectorLayer,
)
from rssc_geo_qgis import settings
from rssc_geo_qgis.results import read_provenance
from rssc_geo_qgis.similar import question_of

TILES = whole_tiles("200px")  # 12 cells of the fixture `scene`


@pytest.fixture
def later(scene, tmp_path):
    """The same place, whose western half has become water."""
    from osgeo import gdal

    path = tmp_path / "later.tif"
    path.write_bytes(scene.read_bytes())
    dataset = gdal.Open(str(path), gdal.GA_Update)
    for band, value in ((1, 20), (2, 60), (3, 110)):
        water = bytes([value]) * (400 * 600)
        dataset.GetRasterBand(band).WriteRaster(0, 0, 400, 600, water)
    return path


def test_change_is_a_styled_group(run_in_desktop, scene, later, tmp_path, feedback):
    found = run_in_desktop(
        algorithm("change"),
        {
            "INPUT": str(scene),
            "LATER": str(later),
            **TILES,
            "LEAST_PROBABILITY": 0.01,
            "AREAS": str(tmp_path / "areas.csv"),
            "OUTPUT": loaded(tmp_path / "change.gpkg"),
        },
    )
    assert found["OUTPUT"] == f"{tmp_path}/change.gpkg|layername=change"
    regions, cells = (node.layer() for node in group_of("scene").findLayers())
    assert (regions.name(), cells.name()) == ("Change", "Cells")
    assert regions.featureCount() > 0
    # Regions that became another class have its color; those that kept theirs are gray.
    assert 'THEN "to_class"' in regions.renderer().classAttribute()
    shown = {entry.value() for entry in regions.renderer().categories()} - {""}
    assert shown == regions.uniqueValues(regions.fields().indexOf("to_class"))
    context = QgsRenderContext()
    context.expressionContext().appendScope(QgsExpressionContextUtils.layerScope(regions))
    renderer = regions.renderer().clone()
    renderer.startRender(context, regions.fields())
    labels = {entry.value(): entry.label() for entry in renderer.categories()}
    for region in regions.getFeatures():
        context.expressionContext().setFeature(region)
        value = region["to_class"] if region["from_class"] != region["to_class"] else ""
        (key,) = renderer.legendKeysForFeature(region, context)
        (drawn,) = [one.label() for one in renderer.legendSymbolItems() if one.ruleKey() == key]
        assert drawn == labels[value]
    renderer.stopRender(context)
    assert cells.renderer().type() == "graduatedSymbol"
    assert cells.featureCount() == 12
    with open(found["AREAS_PAGE"], encoding="utf-8") as page:
        assert ">Before</th><th align='left'>After</th>" in page.read()
    assert any(" of 12 cells changed their class, in " in line for line in feedback.lines)
    assert feedback.percents == sorted(feedback.percents)


def test_change_of_maps_and_of_more_dates(run_in_desktop, scene, later, tmp_path):
    maps = []
    for raster in (scene, later, scene):
        maps.append(str(tmp_path / f"map{len(maps)}.gpkg"))
        classify(INPUT=str(raster), **TILES, OUTPUT=maps[-1])
    cells = QgsVectorLayer(f"{maps[1]}|layername=cells", "of the map")
    QgsProject.instance().addMapLayer(cells)
    found = run_in_desktop(
        algorithm("change"),
        {
            "INPUT": maps[0],
            "LATER": cells,
            "MORE": [maps[2]],
            "DATES": "may,june,july",
            "LEAST_PROBABILITY": 0.01,
            "OUTPUT": loaded(tmp_path / "change.gpkg"),
        },
    )
    layers = [node.layer() for node in group_of("map0").findLayers()]
    assert [layer.name() for layer in layers] == ["Change", "Cells"]
    assert layers[1].featureCount() == 12
    told = json.dumps(read_provenance(found["OUTPUT"].split("|")[0]))
    assert '"dates": ["may", "june", "july"]' in told
    assert '"change_of": ["map0.gpkg", "map1.gpkg", "map2.gpkg"]' in told


def test_change_of_more_rasters(scene, later, tmp_path, feedback):
    run = {"INPUT": str(scene), "LATER": str(later), "MORE": [str(scene)], **TILES}
    found = processing.run(
        "rsscgeo:change", {**run, "OUTPUT": str(tmp_path / "change.gpkg")}, feedback=feedback
    )
    assert QgsVectorLayer(found["CELLS"]).featureCount() == 12
    (line,) = (line for line in feedback.lines if " change " in line)
    assert f" change {scene} {later} {scene} " in line


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "'a map' is a map and 'scene' is not: choose only rasters, or"),
        ({"LATER": "map", "EXTENT": "0,9,0,9 [EPSG:32632]"}, "Extent: for rasters only"),
    ],
)
def test_a_change_that_cannot_be_meant(scene, tmp_path, more, words):
    memory = QgsVectorLayer("Polygon?crs=EPSG:32632&field=class:string", "memory", "memory")
    path = str(tmp_path / "map.gpkg")
    processing.run("native:savefeatures", {"INPUT": memory, "OUTPUT": path})
    layer = QgsVectorLayer(path, "a map")
    QgsProject.instance().addMapLayer(layer)
    run = {"INPUT": layer, "LATER": str(scene), **more, "OUTPUT": str(tmp_path / "change.gpkg")}
    if run["LATER"] == "map":
        run["LATER"] = layer
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    good, message = algorithm("change").checkParameterValues(run, context)
    assert not good
    assert words in message


def test_two_layers_that_are_read_in_different_ways(scene, later, tmp_path):
    layer = QgsRasterLayer(str(later), "later")
    layer.setRenderer(QgsMultiBandColorRenderer(layer.dataProvider(), 3, 2, 1))
    run = {"INPUT": str(scene), "LATER": layer, "OUTPUT": str(tmp_path / "change.gpkg")}
    with pytest.raises(QgsProcessingException, match="'scene' and 'later' show other bands"):
        processing.run("rsscgeo:change", run)


def test_from_rasters_to_hits_and_more_like_one(run_in_desktop, scene, later, tmp_path, feedback):
    archive = tmp_path / "my archive"
    made = {"INPUT": [str(scene), str(later)], **TILES, "OUTPUT": str(archive)}
    assert run_in_desktop(algorithm("index"), made) == {"OUTPUT": str(archive)}
    assert "The archive holds 24 cells of 2 scenes" in feedback.lines
    assert settings.get(settings.ARCHIVE) == str(archive)

    raster = QgsRasterLayer(str(scene), "my scene")
    QgsProject.instance().addMapLayer(raster)
    search = algorithm("search")
    assert search.parameterDefinition("INPUT").defaultValue() == str(archive)
    asked = {"INPUT": str(archive), "WORDS": "water", "HITS": 5}
    run_in_desktop(search, {**asked, "OUTPUT": loaded(tmp_path / "hits.gpkg")})
    (hits,) = (node.layer() for node in group_of("my archive").findLayers())
    assert hits.name() == "Hits"
    assert hits.featureCount() == 5
    assert hits.renderer().type() == "categorizedSymbol"
    assert "5 cells found among 24" in feedback.lines

    example = {"LIKE": raster, "AT": "500100,4999900 [EPSG:32632]"}
    again = {"INPUT": str(archive), **example, "HITS": 3, "SHEET": "TEMPORARY_OUTPUT"}
    found = run_in_desktop(search, {**again, "OUTPUT": str(tmp_path / "like.gpkg")})
    like = QgsVectorLayer(found["OUTPUT"])
    best = next(feature for feature in like.getFeatures() if feature["rank"] == 1)
    assert (best["source"], best["row"], best["col"]) == ("scene.tif", 0, 0)
    assert best["score"] > 0.99  # itself
    with open(found["SHEET"], encoding="utf-8") as sheet:
        assert "</html>" in sheet.read()

    # More like this: the cell is the example, its raster is found among the layers.
    question = question_of(like, best)
    assert question["LIKE"].id() == raster.id()
    context = QgsProcessingContext()
    point = search.parameterAsPoint(question, "AT", context, raster.crs())
    assert 500_000 < point.x() < 500_400
    assert 4_999_600 < point.y() < 5_000_000
    QgsProject.instance().removeMapLayer(raster)
    assert question_of(like, best) == {}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "'.*' is no archive. Choose a folder that Make an archive"),
        ({"card": True}, "Enter what to look for: Words, an Example, or both"),
        (
            {"card": True, "WORDS": "sea", "AT": "1,1 [EPSG:4326]"},
            "Point of the example: choose the raster",
        ),
    ],
)
def test_a_search_that_cannot_be_meant(tmp_path, more, words):
    if more.pop("card", False):
        (tmp_path / "archive.json").write_text("{}")
    run = {"INPUT": str(tmp_path), "OUTPUT": "TEMPORARY_OUTPUT", **more}
    with pytest.raises(QgsProcessingException, match=words):
        processing.run("rsscgeo:search", run)


def test_embeddings_are_a_table(scene, tmp_path):
    output = str(tmp_path / "cells.parquet")
    run = {"INPUT": str(scene), **TILES, "OUTPUT": output}
    assert processing.run("rsscgeo:embed", run) == {"OUTPUT": output}
    with open(output, "rb") as table:
        assert table.read(4) == b"PAR1"
