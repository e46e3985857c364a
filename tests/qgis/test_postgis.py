"""A raster in a PostGIS database: QGIS reads its pixels, the backend gets a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import numpy as np
from helpers import classify
from osgeo import gdal
from qgis.core import QgsRasterLayer, QgsRectangle, QgsVectorLayer
from rssc_geo_qgis.inputs import read_raster, window_of, write_raster

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
EXTENSION = sorted(Path("/usr/share/postgresql").glob("*/extension/postgis_raster.control"))
TABLE = """
CREATE EXTENSION postgis;
CREATE EXTENSION postgis_raster;
SET postgis.gdal_enabled_drivers = 'GTiff';
CREATE TABLE scene (rid serial PRIMARY KEY, rast raster);
INSERT INTO scene (rast) SELECT ST_Tile(ST_FromGDALRaster('\\x{data}'::bytea), 200, 200);
SELECT AddRasterConstraints('scene'::name, 'rast'::name);
"""


@pytest.fixture(scope="module")
def database():
    """A server of its own for these tests, in a folder, without a port; the folder of its socket.

    PostgreSQL refuses to be run by root: there it is run by its own user.
    """
    if not PROGRAMS or not EXTENSION:
        pytest.skip("PostGIS is not installed (Debian: postgresql-postgis)")
    user = "postgres" if os.getuid() == 0 else None
    folder = tempfile.mkdtemp(prefix="rssc-postgis-", dir="/tmp")
    if user:
        shutil.chown(folder, user)

    def run(program, *arguments):
        command = [PROGRAMS[0] / program, *arguments]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

    data = f"{folder}/data"
    run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "-D", data)
    options = f"-c listen_addresses='' -c fsync=off -k {folder}"
    run("pg_ctl", "-w", "-D", data, "-l", f"{folder}/log", "-o", options, "start")
    yield folder
    run("pg_ctl", "-w", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def layer(database, scene, tmp_path):
    """The scene, with a corner that is nodata."""
    dataset = gdal.Open(str(scene), gdal.GA_Update)
    for band in (1, 2, 3):
        dataset.GetRasterBand(band).SetNoDataValue(0)
        dataset.GetRasterBand(band).WriteRaster(0, 0, 100, 100, bytes(10_000))
    del dataset
    statements = tmp_path / "scene.sql"
    statements.write_text(TABLE.format(data=scene.read_bytes().hex()))
    name = tmp_path.name  # QGIS may still be connected to that of another test
    ask = [PROGRAMS[0] / "psql", "-qX", "-h", database, "-U", "postgres", "-v", "ON_ERROR_STOP=1"]
    for more in (["-c", f"CREATE DATABASE {name}"], ["-d", name, "-f", statements]):
        subprocess.run([*ask, *more], check=True, stdout=subprocess.DEVNULL)
    uri = f"dbname='{name}' host={database} user='postgres' key='rid' table=\"public\".\"scene\""
    found = QgsRasterLayer(f"{uri} (rast)", "Stored", "postgresraster")
    assert found.isValid(), found.error().message()
    return found


def test_its_pixels_and_nodata_are_those_of_the_table(layer, scene, tmp_path, feedback):
    path = str(tmp_path / "copy.tif")
    raster = read_raster(layer)
    extent = QgsRectangle(500_100, 4_999_000, 501_300, 4_999_900)
    write_raster(raster, window_of(raster, extent, 1.0), path, feedback)
    made, theirs = gdal.Open(path), gdal.Open(str(scene))
    assert made.GetGeoTransform() == (500_100, 2, 0, 4_999_900, 0, -2)
    assert np.array_equal(made.ReadAsArray(), theirs.ReadAsArray(50, 50, 600, 450))
    assert made.GetRasterBand(1).GetNoDataValue() == 0
    assert '"32632"' in made.GetProjection()


def test_it_is_classified_as_its_file(layer, scene):
    classes = [
        [(cell["row"], cell["col"], cell["class"]) for cell in cells.getFeatures()]
        for cells in (
            QgsVectorLayer(classify(INPUT=given)["CELLS"]) for given in (layer, str(scene))
        )
    ]
    assert classes[0] == classes[1]
    assert len(classes[0]) == 47  # the corner has none
