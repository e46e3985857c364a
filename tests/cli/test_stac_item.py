"""Maps and models as STAC items, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import shapely

from rssc_geo.options import ClassifyOptions
from rssc_geo.pipelines.classify import classify
from tests.catalogs import checked_item
from tests.factories import texture, write_raster

from .conftest import Rssc, whole_tiles


def test_a_map_with_all_beside_it_is_an_item(
    rssc: Rssc, scene: Path, bundle: Path, tmp_path: Path
) -> None:
    item_path = tmp_path / "catalog" / "map.json"
    item_path.parent.mkdir()
    beside = {
        "--class-raster": tmp_path / "classes.tif",
        "--preview": tmp_path / "preview.png",
        "--report": tmp_path / "report.html",
        "--areas": tmp_path / "areas.csv",
    }
    done = rssc(
        "classify", scene, "-o", tmp_path / "my map.gpkg", "--model", bundle,
        "--date", "2024-06-01T10:30:00Z", "--stac-item", item_path, *whole_tiles("100px"),
        *(word for pair in beside.items() for word in pair), "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert str(item_path) in json.loads(done.out)["outputs"]
    item = checked_item(item_path)
    assert item.id == "my map"
    assert item.datetime is not None
    assert item.datetime.isoformat() == "2024-06-01T10:30:00+00:00"
    item.make_asset_hrefs_absolute()
    hrefs = {key: Path(asset.href) for key, asset in item.assets.items()}
    assert set(hrefs) == {"map", "class_raster", "preview", "report", "areas"}
    assert hrefs["class_raster"].samefile(beside["--class-raster"])

    cells = gpd.read_file(tmp_path / "my map.gpkg", layer="cells")
    bounds = cells.to_crs(4326).total_bounds
    np.testing.assert_allclose(item.bbox, bounds, atol=1e-6)
    assert (
        shapely.from_geojson(json.dumps(item.geometry))
        .buffer(1e-9)
        .covers(cells.to_crs(4326).union_all().representative_point())
    )
    assert item.properties["proj:code"] == "EPSG:32632"
    np.testing.assert_allclose(item.properties["proj:bbox"], cells.total_bounds)
    classes = item.assets["map"].extra_fields["classification:classes"]
    regions = gpd.read_file(tmp_path / "my map.gpkg", layer="landuse")
    shares = regions.groupby("class_id")["area_m2"].sum() / regions["area_m2"].sum()
    told = {entry["value"]: entry["percentage"] for entry in classes if entry["percentage"]}
    assert told == pytest.approx((100 * shares).to_dict(), abs=0.001)
    with rasterio.open(beside["--class-raster"]) as raster:
        fields = item.assets["class_raster"].extra_fields
        assert fields["proj:shape"] == list(raster.shape)
        assert fields["proj:transform"] == pytest.approx(list(raster.transform)[:6])

    made_by = item.properties["rssc_geo:made_by"]
    assert made_by["model"]["name"] == json.loads((bundle / "config.json").read_text())["name"]
    assert str(tmp_path) not in item_path.read_text(encoding="utf-8")  # no folders


@pytest.mark.parametrize("suffix", ["geojson", "parquet", "shp", "fgb"])
def test_maps_of_two_files_have_an_asset_each(
    scene: Path, bundle: Path, tmp_path: Path, suffix: str
) -> None:
    item_path = tmp_path / "item.json"
    options = ClassifyOptions(
        model=str(bundle), tile_size="200px", date="2024-06-01", stac_item=str(item_path)
    )
    classify(scene, tmp_path / f"map.{suffix}", options)
    item = checked_item(item_path)
    item.make_asset_hrefs_absolute()
    assert set(item.assets) == {"map", "cells"}
    assert all(Path(asset.href).is_file() for asset in item.assets.values())
    wanted = "EPSG:4326" if suffix == "geojson" else "EPSG:32632"
    assert item.properties["proj:code"] == wanted


def test_an_area_of_interest_and_the_antimeridian(bundle: Path, tmp_path: Path) -> None:
    """The footprint is that of the cells that were mapped, cut where the world is."""
    transform = rasterio.Affine(0.0001, 0, 179.98, 0, -0.0001, 10.0)
    scene = write_raster(
        tmp_path / "dateline.tif", texture(200, 400), transform=transform, crs="EPSG:4326"
    )
    item_path = tmp_path / "item.json"
    options = ClassifyOptions(
        model=str(bundle), tile_size="100px", cell_size="100px", date="2024-06-01",
        stac_item=str(item_path),
    )  # fmt: skip
    classify(scene, tmp_path / "map.gpkg", options)
    item = checked_item(item_path)
    assert item.bbox == pytest.approx([179.98, 9.98, -179.98, 10.0])
    assert item.geometry is not None
    assert item.geometry["type"] == "MultiPolygon"
    parts = [shapely.bounds(part) for part in shapely.get_parts(_shape(item))]
    assert sorted(tuple(np.round(part, 6)) for part in parts) == [
        (-180.0, 9.98, -179.98, 10.0),
        (179.98, 9.98, 180.0, 10.0),
    ]
    west = tmp_path / "west.json"
    options = ClassifyOptions(
        model=str(bundle), tile_size="100px", cell_size="100px", date="2024-06-01",
        stac_item=str(west), bounds=(179.98, 9.98, 179.9901, 10.0),
    )  # fmt: skip
    classify(scene, tmp_path / "west.gpkg", options)
    assert checked_item(west).bbox == pytest.approx([179.98, 9.98, 179.99, 10.0])


def _shape(item: pystac.Item) -> shapely.Geometry:
    return shapely.from_geojson(json.dumps(item.geometry))


def test_a_batch_writes_an_item_a_scene(rssc: Rssc, bundle: Path, tmp_path: Path) -> None:
    for name, date in (("a", "2024:06:01 10:30:00"), ("b", None)):
        path = write_raster(tmp_path / f"{name}.tif", texture(200, 200), photometric="rgb")
        if date is not None:
            with rasterio.open(path, "r+") as raster:
                raster.update_tags(TIFFTAG_DATETIME=date)
    done = rssc(
        "batch", "run", tmp_path / "*.tif", "-o", tmp_path / "maps/{id}.gpkg", "--model", bundle,
        "--stac-item", tmp_path / "maps" / "{id}.json", *whole_tiles("100px"),
    )  # fmt: skip
    assert done.code == 4  # of one the tags tell no date
    assert "give --date" in done.err
    item = checked_item(tmp_path / "maps" / "a.json")
    assert item.datetime is not None
    assert item.datetime.year == 2024
    assert not (tmp_path / "maps" / "b.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stac-item", "item.txt", "--date", "2024-06-01"], "name it .json"),
        (["--stac-item", "there.json", "--date", "2024-06-01"], "there.json exists"),
        (["--stac-item", "item.json"], "give --date"),
    ],
)
def test_what_is_wrong_is_told_before_the_work(
    rssc: Rssc, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("there.json").write_text("{}", encoding="utf-8")
    done = rssc("classify", scene, "-o", "map.gpkg", "--model", "compact", *words)
    assert done.code in (1, 2)
    assert message in done.message
    assert not Path("map.gpkg").exists()


def test_the_card_of_a_model_is_an_item(rssc: Rssc, tmp_path: Path) -> None:
    done = rssc("models", "info", "compact", "--stac-item", tmp_path / "compact.json")
    assert done.code == 0, done.err
    assert done.out.strip() == str(tmp_path / "compact.json")
    assert checked_item(tmp_path / "compact.json").id.startswith("compact-")
