"""A coverage of a web server (WCS): pixels of its own, which QGIS fetches for the extent."""

from __future__ import annotations

import http.server
import threading
import urllib.parse

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import numpy as np
from helpers import classify
from osgeo import gdal
from qgis.core import QgsProcessingException, QgsRasterLayer, QgsRectangle, QgsVectorLayer
from rssc_geo_qgis.inputs import read_raster, window_of, write_raster

SPACES = (
    'xmlns="http://www.opengis.net/wcs" xmlns:gml="http://www.opengis.net/gml"'
    ' xmlns:xlink="http://www.w3.org/1999/xlink" version="1.0.0"'
)
NAME = """<name>scene</name><label>scene</label>
<lonLatEnvelope srsName="urn:ogc:def:crs:OGC:1.3:CRS84">
<gml:pos>9 45.143</gml:pos><gml:pos>9.021 45.154</gml:pos></lonLatEnvelope>"""
REQUEST = """<{name}><DCPType><HTTP><Get>
<OnlineResource xlink:href="{url}?"/></Get></HTTP></DCPType></{name}>"""
DESCRIBED = f"""<CoverageDescription {SPACES}><CoverageOffering>{NAME}
<domainSet><spatialDomain>
<gml:Envelope srsName="EPSG:32632">
<gml:pos>500000 4998800</gml:pos><gml:pos>501600 5000000</gml:pos></gml:Envelope>
<gml:RectifiedGrid dimension="2"><gml:limits><gml:GridEnvelope>
<gml:low>0 0</gml:low><gml:high>799 599</gml:high></gml:GridEnvelope></gml:limits>
<gml:axisName>x</gml:axisName><gml:axisName>y</gml:axisName>
<gml:origin><gml:pos>500001 4999999</gml:pos></gml:origin>
<gml:offsetVector>2 0</gml:offsetVector><gml:offsetVector>0 -2</gml:offsetVector>
</gml:RectifiedGrid></spatialDomain></domainSet>
<rangeSet><RangeSet><name>bands</name><label>bands</label></RangeSet></rangeSet>
<supportedCRSs><requestResponseCRSs>EPSG:32632</requestResponseCRSs>
<nativeCRSs>EPSG:32632</nativeCRSs></supportedCRSs>
<supportedFormats nativeFormat="GeoTIFF"><formats>GeoTIFF</formats></supportedFormats>
<supportedInterpolations><interpolationMethod>nearest neighbor</interpolationMethod>
</supportedInterpolations></CoverageOffering></CoverageDescription>"""


class Coverages(http.server.BaseHTTPRequestHandler):
    """WCS 1.0.0 of one raster, ``server.raster``; refuses coverages once ``server.broken``."""

    def do_GET(self):
        query = urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query)
        asked = {name.upper(): value for name, value in query}
        what = asked.get("REQUEST")
        if what == "GetCoverage" and self.server.broken:
            self.send_error(503)
            return
        kind, data = "text/xml", b""
        if what == "GetCapabilities":
            requests = "".join(
                REQUEST.format(name=name, url=self.server.url)
                for name in ("GetCapabilities", "DescribeCoverage", "GetCoverage")
            )
            data = f"""<WCS_Capabilities {SPACES}><Service><name>test</name><label>test</label>
</Service><Capability><Request>{requests}</Request></Capability><ContentMetadata>
<CoverageOfferingBrief>{NAME}</CoverageOfferingBrief></ContentMetadata></WCS_Capabilities>"""
            data = data.encode()
        elif what == "DescribeCoverage":
            data = DESCRIBED.encode()
        elif what == "GetCoverage":
            west, south, east, north = map(float, asked["BBOX"].split(","))
            size = int(asked["WIDTH"]), int(asked["HEIGHT"])
            kind = "image/tiff"
            data = coverage(self.server.raster, (west, north, east, south), size)
            self.server.sizes.append(size)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def coverage(raster, corners, size):
    """A part of a raster as the bytes of a GeoTIFF."""
    place = f"/vsimem/{threading.get_ident()}.tif"
    options = {"projWin": corners, "width": size[0], "height": size[1]}
    gdal.Translate(place, str(raster), **options).FlushCache()
    file = gdal.VSIFOpenL(place, "rb")
    data = gdal.VSIFReadL(1, gdal.VSIStatL(place).size, file)
    gdal.VSIFCloseL(file)
    gdal.Unlink(place)
    return bytes(data)


@pytest.fixture
def server(scene):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Coverages) as found:
        found.url = f"http://127.0.0.1:{found.server_port}/wcs"
        found.raster, found.broken, found.sizes = scene, False, []
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


@pytest.fixture
def layer(server):
    uri = f"cache=AlwaysNetwork&crs=EPSG:32632&format=GeoTIFF&identifier=scene&url={server.url}"
    found = QgsRasterLayer(uri, "Coverage", "wcs")
    assert found.isValid(), found.error().message()
    return found


def test_its_pixels_are_the_server_s(layer, server, tmp_path, feedback):
    raster, path = read_raster(layer), str(tmp_path / "copy.tif")
    extent = QgsRectangle(500_100, 4_999_000, 501_300, 4_999_900)
    write_raster(raster, window_of(raster, extent, 1.0), path, feedback)
    made, theirs = gdal.Open(path), gdal.Open(str(server.raster))
    assert made.GetGeoTransform() == (500_100, 2, 0, 4_999_900, 0, -2)
    assert np.array_equal(made.ReadAsArray(), theirs.ReadAsArray(50, 50, 600, 450))
    assert '"32632"' in made.GetProjection()
    assert max(size[0] for size in server.sizes) < 800  # no more than is needed at a time


def test_it_is_classified_as_its_file(layer, scene, feedback):
    found, same = classify(feedback, INPUT=layer), classify(INPUT=str(scene))
    classes = [
        [(cell["row"], cell["col"], cell["class"]) for cell in cells.getFeatures()]
        for cells in (QgsVectorLayer(made["CELLS"]) for made in (found, same))
    ]
    assert classes[0] == classes[1]
    assert len(classes[0]) == 48
    assert "Copying 800 × 600 pixels of 'Coverage'." in feedback.lines


def test_what_did_not_come_is_an_error_and_never_nodata(layer, server, tmp_path):
    server.broken = True
    with pytest.raises(QgsProcessingException, match="'Coverage' could not be fetched: "):
        classify(INPUT=layer, OUTPUT=str(tmp_path / "map.gpkg"))
    assert not (tmp_path / "map.gpkg").exists()
