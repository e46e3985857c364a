"""Gaps between the tiles of mosaics are nodata, never black ground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from rssc_geo.geometry import Window
from rssc_geo.raster import Scene, open_scene
from tests.factories import NORTH_UP, colors, mask

COVERED = np.ones((40, 100), bool)
COVERED[:, 40:60] = False  # 20 columns between two tiles of 40
SOURCE = """<{kind}Source><SourceFilename relativeToVRT="1">{file}</SourceFilename>
<SourceBand>{band}</SourceBand>
<SrcRect xOff="{start}" yOff="0" xSize="40" ySize="40"/>
<DstRect xOff="{at}" yOff="0" xSize="40" ySize="40"/>{more}
</{kind}Source>"""


@pytest.fixture
def tiles(write: Any, texture: Any) -> tuple[Path, Path]:
    """Two tiles of 40 × 40 pixels, 20 columns apart."""
    return tuple(
        write(
            texture(40, 40, seed=at), f"at_{at}.tif", transform=NORTH_UP @ Affine.translation(at, 0)
        )
        for at in (0, 60)
    )


def mosaic(path: Path, *, nodata: str = "", places: tuple[int, ...] = (0, 60), **more: str) -> Path:
    """A VRT of the tiles, 100 × 40 pixels."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">{nodata}'
        + "".join(
            SOURCE.format(
                **{"kind": "Simple", "start": "0", "more": "", "file": f"at_{at}.tif", **more},
                band=band,
                at=at,
            )
            for at in places
        )
        + "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    place = ", ".join(map(repr, NORTH_UP.to_gdal()))
    path.write_text(
        '<VRTDataset rasterXSize="100" rasterYSize="40"><SRS>EPSG:32632</SRS>'
        f"<GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def nested(path: Path, inner: Path) -> Path:
    """A VRT that shows another from its column 10 on."""
    text = mosaic(path, places=(0,), file=inner.name, start="10").read_text()
    text = text.replace('xSize="40"', 'xSize="90"')
    path.write_text(text)
    return path


def index(path: Path, tiles: tuple[Path, ...]) -> Path:
    """An index of the tiles as gdaltindex writes it."""
    boxes = []
    for tile in tiles:
        with rasterio.open(tile) as dataset:
            boxes.append(shapely.box(*dataset.bounds))
    names = [tile.name for tile in tiles]
    gpd.GeoDataFrame({"location": names}, geometry=boxes, crs="EPSG:32632").to_file(path)
    return path


def averaged(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """A tenth of the pixels, and which are valid."""
    with scene.pixel_reader() as reader:
        pixels, valid = reader.read(Window(0, 0, *scene.shape), (4, 10))
    assert valid is not None
    return pixels, valid


def test_gaps_of_a_vrt_are_nodata(tmp_path, tiles) -> None:
    for name in (mosaic(tmp_path / "m.vrt"), str(tmp_path / "m.vrt")):
        for nodata in (None, 255):
            scene = open_scene(name, nodata=nodata)
            assert (mask(scene) == COVERED).all()
            assert "gaps between its tiles" in scene.mask
    with rasterio.open(tiles[1]) as tile:
        assert (colors(open_scene(tmp_path / "m.vrt"))[:, :, 60:] == tile.read()).all()


def test_gaps_do_not_bleed_into_what_lies_beside_them(tmp_path, write) -> None:
    for at in (0, 60):
        pixels = np.full((3, 40, 40), 200, np.uint8)
        write(pixels, f"at_{at}.tif", transform=NORTH_UP @ Affine.translation(at, 0))
    path = mosaic(tmp_path / "m.vrt")
    path.write_text(path.read_text().replace('DstRect xOff="60"', 'DstRect xOff="55"'))
    pixels, valid = averaged(open_scene(path))
    assert valid[0].tolist() == [True] * 4 + [False] + [True] * 5
    assert (pixels[valid] == 200).all()


def test_gaps_where_a_nodata_value_stands_need_no_other_mask(tmp_path, tiles) -> None:
    told = open_scene(mosaic(tmp_path / "m.vrt", nodata="<NoDataValue>0</NoDataValue>"))
    assert (told.mask, mask(told)[:, 45].any()) == ("nodata 0", False)
    assert not open_scene(told.source, nodata=0).opening.dataset.startswith("<")
    plain = mosaic(tmp_path / "plain.vrt")
    assert not mask(open_scene(plain, nodata=0))[:, 45].any()
    hidden = "<NoDataValue>7</NoDataValue><HideNoDataValue>1</HideNoDataValue>"
    assert (mask(open_scene(mosaic(tmp_path / "h.vrt", nodata=hidden))) == COVERED).all()


def test_a_mosaic_without_gaps_is_read_as_it_is(tmp_path, tiles) -> None:
    path = mosaic(tmp_path / "m.vrt", places=(0, 60))
    path.write_text(
        path.read_text()
        .replace('"0" xSize="40" ySize="40"', '"0" xSize="50.0004" ySize="40"')
        .replace('DstRect xOff="60"', 'DstRect xOff="49.9997"')
    )
    scene = open_scene(path)
    assert (scene.mask, scene.opening.dataset) == ("none", str(path))


def test_gaps_of_a_vrt_in_a_vrt_are_nodata(tmp_path, tiles) -> None:
    inner = mosaic(tmp_path / "inner.vrt")
    expected = np.zeros((40, 100), bool)
    expected[:, :90] = COVERED[:, 10:]
    assert (mask(open_scene(nested(tmp_path / "outer.vrt", inner))) == expected).all()
    mosaic(inner, nodata="<NoDataValue>0</NoDataValue>")
    assert (mask(open_scene(tmp_path / "outer.vrt")) == expected).all()
    listed = index(tmp_path / "tiles.gti.gpkg", tiles)
    assert (mask(open_scene(nested(tmp_path / "over.vrt", listed))) == expected).all()


def test_gaps_of_a_tile_index_are_nodata(tmp_path, tiles, monkeypatch) -> None:
    listed = index(tmp_path / "tiles.gti.gpkg", tiles)
    monkeypatch.chdir(tmp_path)  # where GDAL looks for the tiles of "GTI:…"
    for name in (listed, f"GTI:{listed.name}"):
        for nodata in (None, 255):
            scene = open_scene(name, nodata=nodata)
            assert (mask(scene) == COVERED).all()
            assert "gaps between its tiles" in scene.mask
    pixels, valid = averaged(open_scene(listed))
    assert valid.sum() == 4 * 8
    assert (pixels[valid] > 0).all()


def test_a_gap_of_one_band_is_one_of_the_picture(tmp_path, tiles) -> None:
    path = mosaic(tmp_path / "m.vrt", nodata="<!---->")
    first, *others = path.read_text().split("<!---->")
    others[1] = others[1].replace('DstRect xOff="60"', 'DstRect xOff="50"')
    path.write_text(first + "".join(others))
    assert (mask(open_scene(path)) == (COVERED & (np.arange(100) < 90))).all()


def test_gaps_of_paletted_and_separate_mosaics_are_nodata(tmp_path, write) -> None:
    for at in (0, 60):
        write(
            np.full((1, 40, 40), 1, np.uint8),
            f"at_{at}.tif",
            transform=NORTH_UP @ Affine.translation(at, 0),
        )
    one = mosaic(tmp_path / "one.vrt")
    text = one.read_text()
    end = text.index("</VRTRasterBand>") + len("</VRTRasterBand>")
    one.write_text(text[:end] + "</VRTDataset>")
    separate = open_scene([one] * 3, bands=(1, 2, 3))
    assert (mask(separate) == COVERED).all()
    table = "".join(f'<Entry c1="{9 * n}" c2="8" c3="7" c4="255"/>' for n in range(2))
    head, rest = one.read_text().split('band="1">')
    palette = f'band="1"><ColorInterp>Palette</ColorInterp><ColorTable>{table}</ColorTable>'
    one.write_text(head + palette + rest)
    paletted = open_scene(one)
    assert paletted.palette
    assert (mask(paletted) == COVERED).all()
    assert set(colors(paletted)[0][COVERED].tolist()) == {9}
