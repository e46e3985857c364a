"""Classify and info on real rasters: results, styles, inputs that users of QGIS have."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import algorithm, classify, group_of, loaded, whole_tiles
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsReferencedRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtXml import QDomDocument

UTM = "EPSG:32632"
TILES = whole_tiles("200px")


def cells_of(found):
    layer = QgsVectorLayer(found["CELLS"])
    return layer, layer.featureCount()


def values_of(field, layer):
    return layer.uniqueValues(layer.fields().indexOf(field))


def categories_of(layer):
    return {category.value() for category in layer.renderer().categories()}


def polygons(*rectangles, crs=UTM):
    layer = QgsVectorLayer(f"Polygon?crs={crs}&field=name:string", "areas", "memory")
    features = []
    for number, rectangle in enumerate(rectangles):
        feature = QgsFeature(layer.fields())
        feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(*rectangle)))
        feature.setAttributes([f"area {number}"])
        features.append(feature)
    layer.dataProvider().addFeatures(features)
    return layer


def test_classify_writes_both_layers(scene, tmp_path, feedback):
    """With the program's own sizes: a fine map, whose cells are a sixth of a tile."""
    output = tmp_path / "landuse.gpkg"
    run = {"INPUT": str(scene), "OUTPUT": str(output)}
    found = processing.run("rsscgeo:classify", run, feedback=feedback)
    regions, cells = QgsVectorLayer(found["OUTPUT"]), QgsVectorLayer(found["CELLS"])
    assert found["OUTPUT"] == f"{output}|layername=landuse"
    # Of 13 pixels: the tile that the model prefers has 160 m, the raster 2 m a pixel.
    assert cells.getFeature(1).geometry().boundingBox() == QgsRectangle(
        500_000, 4_999_974, 500_026, 5_000_000
    )
    assert cells.featureCount() == 62 * 47 > regions.featureCount() > 0
    assert {"class", "group", "confidence", "familiarity", "caption", "runner_up"} <= set(
        cells.fields().names()
    )
    assert feedback.percents == sorted(feedback.percents)
    assert feedback.percents[-1] == 100
    assert any("classify" in line and "--progress=json" in line for line in feedback.lines)
    assert not list(tmp_path.glob("*.part*"))
    # The file's own CRS is not passed.
    assert not any("--assume-crs" in line for line in feedback.lines)


def test_the_result_is_loaded_styled_and_grouped(run_in_desktop, scene, tmp_path, feedback):
    """Also nothing beside the map, as nothing is asked for."""
    project = QgsProject.instance()
    raster = QgsRasterLayer(str(scene), "Münich <west>")
    project.addMapLayer(raster)
    run = {"INPUT": raster, "OUTPUT": loaded(tmp_path / "landuse.gpkg"), **whole_tiles("100px")}
    found = run_in_desktop(algorithm("classify"), run)
    assert set(found) == {"OUTPUT", "CELLS"}
    assert {file.name for file in tmp_path.iterdir() if file.suffix != ".xml"} == {
        "scene.tif",
        "landuse.gpkg",
    }
    command = next(line for line in feedback.lines if " classify " in line)
    assert not [
        option for option in ("--report", "--review", "--class-raster") if option in command
    ]

    group = group_of("Münich <west>")
    assert group.name().startswith("Münich <west>, compact, ")
    assert [node.name() for node in group.findLayers()] == ["Land use", "Cells"]
    assert [node.isVisible() for node in group.findLayers()] == [True, False]
    assert len(project.mapLayers()) == 3
    for node in group.findLayers():
        layer = node.layer()
        assert layer.renderer().type() == "categorizedSymbol"
        assert 'coalesce("class"' in layer.mapTipTemplate()
        assert "&lt;" in layer.mapTipTemplate()
        assert layer.attributeAlias(layer.fields().indexOf("class_id")) not in ("", "class_id")
        assert values_of("class", layer) <= categories_of(layer)
        assert len(categories_of(layer)) < 20  # of 41 classes, those that occur
        related, numbers, names, _, _ = layer.listStylesInDatabase()
        of_cells = ["familiarity"] if node.name() == "Cells" else []
        assert sorted(names[:related]) == ["class", "confidence", *of_cells, "group"]
        by_group, _ = layer.getStyleFromDatabase(numbers[names.index("group")])
        document = QDomDocument()
        document.setContent(by_group)
        assert layer.importNamedStyle(document)[0]
        assert layer.renderer().classAttribute() == "group"
        assert values_of("group", layer) <= categories_of(layer)
    cells = group.findLayers()[1].layer()
    assert '"caption"' in cells.mapTipTemplate()
    assert cells.attributeAlias(cells.fields().indexOf("familiarity")) == "Familiarity"
    assert "Unknown" in values_of("class", cells)  # blocks of noise are like no picture
    assert found["CELLS"].endswith("|layername=cells")


def test_a_run_has_a_group_of_its_own(run_in_desktop, scene, tmp_path, monkeypatch):
    """Not inside a group that is selected, nor one of the same name, be it the user's."""
    monkeypatch.setattr("rssc_geo_qgis.results.time.strftime", lambda _: "12:00:00")
    root = QgsProject.instance().layerTreeRoot()
    mine = root.addGroup("scene, compact, 12:00:00")
    kept = QgsVectorLayer("Point?crs=EPSG:4326", "my points", "memory")
    QgsProject.instance().addMapLayer(kept, addToLegend=False)
    mine.addLayer(kept)
    for name in ("first", "second"):
        output = loaded(tmp_path / f"{name}.gpkg")
        run_in_desktop(algorithm("classify"), {"INPUT": str(scene), "OUTPUT": output, **TILES})
    groups = root.findGroups(recursive=True)
    assert len(groups) == len(root.findGroups()) == 3
    assert [len(group.findLayers()) for group in groups] == [2, 2, 1]
    for group, name in zip(groups, ("second", "first"), strict=False):
        assert group.findLayers()[0].layer().source().startswith(f"{tmp_path}/{name}.gpkg")
    assert [node.name() for node in mine.findLayers()] == ["my points"]


def test_a_geopackage_with_layers_of_others_is_refused(scene, tmp_path):
    output = tmp_path / "mine.gpkg"
    roads = QgsVectorLayer("LineString?crs=EPSG:32632", "roads", "memory")
    processing.run("native:package", {"LAYERS": [roads], "OUTPUT": str(output), "OVERWRITE": True})
    before = output.read_bytes()
    with pytest.raises(QgsProcessingException, match="mine.gpkg.*roads"):
        classify(INPUT=str(scene), OUTPUT=str(output))
    assert output.read_bytes() == before


def test_a_second_run_into_an_open_file_is_refused(scene, tmp_path):
    output = tmp_path / "landuse.gpkg"
    found = classify(INPUT=str(scene), OUTPUT=str(output))
    layer = QgsVectorLayer(found["OUTPUT"], "My map")
    QgsProject.instance().addMapLayer(layer)
    before = output.stat().st_mtime_ns
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    with pytest.raises(
        QgsProcessingException, match="is open in this project as the layer 'My map'"
    ):
        processing.run(
            "rsscgeo:classify", {"INPUT": str(scene), "OUTPUT": str(output)}, context=context
        )
    assert output.stat().st_mtime_ns == before
    QgsProject.instance().clear()
    del layer, context
    assert classify(INPUT=str(scene), OUTPUT=str(output))["OUTPUT"] == f"{output}|layername=landuse"


@pytest.mark.parametrize(
    "output", ["x.csv", "x", "ogr:dbname='x.gpkg' table=\"a\" (geom)", "memory:x"]
)
def test_outputs_that_are_no_such_file(scene, tmp_path, output, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QgsProcessingException, match=r"is not a file ending in \.gpkg or"):
        classify(INPUT=str(scene), OUTPUT=output)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".xml"] == ["scene.tif"]


@pytest.mark.parametrize("name", ["Straße – 日本", "-o", 'it\'s "50%" & $HOME', "a=b,c"])
def test_awkward_file_names(scene, tmp_path, name):
    folder = tmp_path / "Öffentliche Daten"
    folder.mkdir()
    raster, output = folder / f"{name}.tif", folder / f"{name}.gpkg"
    shutil.copy(scene, raster)
    found = classify(INPUT=str(raster), OUTPUT=str(output))
    assert output.is_file()
    assert cells_of(found)[1] > 0


@pytest.mark.parametrize("name", ["a|b.tif", "%20.tif", "a;b.tif"])
def test_awkward_input_names_that_gdal_cannot_write(scene, tmp_path, name):
    shutil.copy(scene, tmp_path / name)
    assert cells_of(classify(INPUT=str(tmp_path / name)))[1] > 0


def test_relative_names(scene, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        classify(INPUT="scene.tif", OUTPUT="map.gpkg")["OUTPUT"]
        == f"{tmp_path}/map.gpkg|layername=landuse"
    )


def test_a_vrt(scene, tmp_path):
    vrt = tmp_path / "scene.vrt"
    gdal.BuildVRT(str(vrt), [str(scene)]).FlushCache()
    assert cells_of(classify(INPUT=str(vrt)))[1] > 0


def test_a_layer_from_a_url(scene, web_server, feedback):
    web_server.folder = scene.parent
    layer = QgsRasterLayer(f"/vsicurl/{web_server.url}/scene.tif", "from a URL")
    assert layer.isValid()
    assert cells_of(classify(feedback, INPUT=layer))[1] > 0
    assert any(f"/vsicurl/{web_server.url}/scene.tif" in line for line in feedback.lines)


def test_a_layer_s_crs_override_is_passed_on(write_raster, tmp_path, feedback):
    layer = QgsRasterLayer(
        str(write_raster(tmp_path / "plain.tif", epsg=None)), "no CRS of its own"
    )
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:25833"))
    found = classify(feedback, INPUT=layer)
    assert cells_of(found)[0].crs().authid() == "EPSG:25833"
    assert any("--assume-crs=EPSG:25833" in line for line in feedback.lines)


def test_a_crs_of_the_user_s_own_is_passed_as_wkt(write_raster, tmp_path):
    layer = QgsRasterLayer(str(write_raster(tmp_path / "plain.tif", epsg=None)), "local grid")
    own = QgsCoordinateReferenceSystem.fromProj(
        "+proj=tmerc +lat_0=45 +lon_0=10.5 +k=0.9999 +x_0=500000 +y_0=5000000 +ellps=GRS80"
    )
    layer.setCrs(own)
    crs = cells_of(classify(INPUT=layer))[0].crs()
    assert "+lon_0=10.5 +k=0.9999" in crs.toProj()


def test_a_raster_without_crs(write_raster, tmp_path):
    plain = write_raster(tmp_path / "plain.tif", epsg=None)
    with pytest.raises(QgsProcessingException, match="'plain' has no CRS. Set it first"):
        classify(INPUT=str(plain))


def test_a_raster_that_is_none(tmp_path):
    (tmp_path / "notes.tif").write_text("this is no raster")
    for name in ("notes.tif", "absent.tif"):
        with pytest.raises(QgsProcessingException, match=name):
            classify(INPUT=str(tmp_path / name))


def test_only_selected_features_of_the_area_of_interest(scene):
    left, right = (500_000, 4_998_800, 500_400, 5_000_000), (501_200, 4_998_800, 501_600, 5_000_000)
    layer = polygons(left, right)
    QgsProject.instance().addMapLayer(layer)
    both = cells_of(classify(INPUT=str(scene), AOI=layer))[1]
    layer.selectByExpression("name = 'area 1'")
    selected = QgsProcessingFeatureSourceDefinition(layer.id(), selectedFeaturesOnly=True)
    cells, count = cells_of(classify(INPUT=str(scene), AOI=selected))
    assert (both, count) == (24, 12)  # of 48
    assert cells.extent().xMinimum() == 501_200
    layer.removeSelection()
    with pytest.raises(QgsProcessingException, match="has no features to use"):
        classify(INPUT=str(scene), AOI=selected)


def test_an_extent_in_another_crs(scene):
    """The canvas is often in another CRS than the raster."""
    utm, degrees = QgsCoordinateReferenceSystem(UTM), QgsCoordinateReferenceSystem("EPSG:4326")
    west = QgsCoordinateTransform(utm, degrees, QgsProject.instance()).transform(
        QgsRectangle(500_010, 4_998_810, 500_390, 4_999_990)
    )
    found = classify(INPUT=str(scene), EXTENT=QgsReferencedRectangle(west, degrees))
    cells, count = cells_of(found)
    assert count == 12
    assert cells.extent().xMaximum() == 500_400


def test_an_extent_of_the_whole_world(scene):
    """The canvas after zooming out: its corners have no place in the raster's CRS."""
    world = QgsReferencedRectangle(
        QgsRectangle(-180, -90, 180, 90), QgsCoordinateReferenceSystem("EPSG:4326")
    )
    assert cells_of(classify(INPUT=str(scene), EXTENT=world))[1] == 48


@pytest.mark.parametrize(
    ("extent", "words"),
    [
        ("100000,200000,4000000,4100000 [EPSG:32632]", "no cell|outside"),
        ("5,6,5,6 [EPSG:4326]", "no cell|outside"),
        ("500100,500100,4999000,4999000 [EPSG:32632]", "The extent is empty"),
        ("0,0,0,0 []", "The extent is empty"),  # the canvas of a project without layers
        (QgsRectangle(), "Incorrect parameter value for EXTENT"),
    ],
)
def test_an_extent_in_which_there_is_nothing(scene, tmp_path, extent, words):
    with pytest.raises(QgsProcessingException, match=words):
        classify(INPUT=str(scene), EXTENT=extent, OUTPUT=str(tmp_path / "map.gpkg"))
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".xml"] == ["scene.tif"]


def test_an_output_that_another_program_has_open(scene, tmp_path):
    output = tmp_path / "landuse.gpkg"
    classify(INPUT=str(scene), OUTPUT=str(output))
    with closing(sqlite3.connect(output)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("UPDATE gpkg_contents SET description = 'mine'")
        with pytest.raises(QgsProcessingException, match="open in another program"):
            classify(INPUT=str(scene), OUTPUT=str(output))
        described = other.execute("SELECT DISTINCT description FROM gpkg_contents").fetchall()
        assert described == [("mine",)]
    assert not list(tmp_path.glob("*.part*"))


def test_options_reach_the_result(scene):
    found = classify(
        INPUT=str(scene),
        TILE_SIZE="150px",
        CELL_SIZE="75px",
        PROBABILITIES=True,
        CRS="EPSG:3857",
        BATCH_SIZE=4,
        MIN_AREA=20_000,
        BANDS="3,2,1",
        CAPTIONER="none",
        MIN_VALID=0.2,
        NODATA=0,
        STRETCH="0,255",
        DEVICE="cpu",
        DTYPE="float32",
        NO_UNKNOWN=True,
        ADAPT_SHARES=True,
        ONLY_CLASSES="Water, Farmland",
        EXCLUDE_CLASSES="River",
    )
    cells = cells_of(found)[0]
    assert values_of("class", cells) <= {"Lake", "Pond", "OpenWater", "Island", "Farmland"}
    assert cells.crs().authid() == "EPSG:3857"
    assert any(name.startswith("p_") for name in cells.fields().names())
    with closing(sqlite3.connect(found["OUTPUT"].split("|")[0])) as file:
        told = json.loads(
            file.execute(
                "SELECT metadata FROM gpkg_metadata WHERE mime_type = 'application/json'"
            ).fetchone()[0]
        )
    options = told["options"]
    assert (options["tile_size"], options["cell_size"], options["bands"]) == (
        "150px",
        "75px",
        [3, 2, 1],
    )
    assert (options["min_valid"], options["nodata"], options["stretch"]) == (0.2, 0, "0,255")
    assert told["captioner"] == "none"
    assert told["steps"]["adapt_shares"]["done"]


def test_info(scene, tmp_path):
    page = tmp_path / "info.html"
    found = processing.run(
        "rsscgeo:info", {"INPUT": str(scene), "TILE_SIZE": "100px", "OUTPUT": str(page)}
    )
    text = page.read_text("utf-8")
    assert found["OUTPUT"] == str(page)
    assert "EPSG:32632" in text
    assert "color interpretation" in text
    assert "600, 800" in text
