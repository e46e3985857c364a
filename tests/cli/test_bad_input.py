"""Bad input.

One line that says what was met and what to do, exit code 1 or 2, nothing left behind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import pyproj
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.control import GroundControlPoint
from shapely.geometry import Polygon, box

from tests.factories import NORTH_UP, texture, write_raster
from tests.programs import Program

from .conftest import Outcome, Rssc, whole_tiles

MOON = (
    'GEOGCS["Moon 2000",DATUM["D_Moon_2000",SPHEROID["Moon_2000_IAU_IAG",1737400,0]],'
    'PRIMEM["Greenwich",0],UNIT["Degree",0.0174532925199433]]'
)


def _truncated(folder: Path) -> Path:
    whole = write_raster(folder / "whole.tif", texture(800, 800), photometric="rgb")
    short = folder / "short.tif"
    short.write_bytes(whole.read_bytes()[:400_000])
    whole.unlink()
    return short


def _corrupt(folder: Path) -> Path:
    path = write_raster(
        folder / "corrupt.tif",
        texture(800, 800),
        photometric="rgb",
        compress="deflate",
        tiled=True,
        blockxsize=128,
        blockysize=128,
    )
    with rasterio.open(path) as raster:
        start = int(raster.get_tag_item("BLOCK_OFFSET_3_3", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[start : start + 4000] = b"\xff" * 4000
    path.write_bytes(data)
    return path


def _text(folder: Path) -> Path:
    path = folder / "notes.tif"
    path.write_text("this is no raster")
    return path


def _missing_source_vrt(folder: Path) -> Path:
    path = folder / "broken.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1">'
    )
    return path


RASTERS: dict[str, tuple[Callable[[Path], Path], list[str], int, str]] = {
    "missing file": (lambda f: f / "none.tif", [], 1, "does not exist"),
    "directory": (lambda f: f, [], 1, "is a folder"),
    "text named .tif": (_text, [], 1, "notes.tif"),
    "truncated": (_truncated, [], 1, "short.tif"),
    "corrupt block": (_corrupt, ["--tile-size", "128px"], 1, "corrupt.tif"),
    "broken VRT": (_missing_source_vrt, [], 1, "broken.vrt"),
    "one band": (
        lambda f: write_raster(f / "one.tif", texture(300, 300)[:1]),
        [],
        1,
        "--bands 1,1,1",
    ),
    "no band chosen": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--bands", ""],
        2,
        "--bands",
    ),
    "two bands chosen": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--bands", "1,2"],
        2,
        "--bands '1,2' is not 3 numbers",
    ),
    "band out of range": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--bands", "1,2,9"],
        2,
        "no band 9",
    ),
    "bands are words": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--bands", "r,g,b"],
        2,
        "R,G,B",
    ),
    "no CRS": (
        lambda f: write_raster(f / "a.tif", texture(300, 300), crs=None),
        [],
        1,
        "--assume-crs",
    ),
    "no georeference": (
        lambda f: write_raster(
            f / "a.tif", texture(300, 300), crs=None, transform=Affine.identity()
        ),
        [],
        1,
        "not georeferenced",
    ),
    "on the Moon": (
        lambda f: write_raster(
            f / "a.tif", texture(300, 300), crs=MOON, transform=Affine(1e-4, 0, 3, 0, -1e-4, 3)
        ),
        [],
        1,
        "Earth",
    ),
    "nonsense CRS": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--assume-crs", "EPSG:0"],
        2,
        "--assume-crs",
    ),
    "nonsense output CRS": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--crs", "moon"],
        2,
        "--crs",
    ),
    "cell_size over tile": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--tile-size", "64px", "--cell-size", "65px"],
        2,
        "larger than the tile",
    ),
    "tile size in words": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--tile-size", "big"],
        2,
        "big",
    ),
    "tile size beyond all numbers": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--tile-size", "9" * 400 + "px"],
        2,
        "is no size",
    ),
    "tile size of more meters than numbers": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--tile-size", "9" * 307 + "km"],
        2,
        "is no size",
    ),
    "tile size zero": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--tile-size", "0px"],
        2,
        "0px",
    ),
    "min-valid over one": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--min-valid", "1.5"],
        2,
        "--min-valid",
    ),
    "stretch nonsense": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--stretch", "lots"],
        2,
        "--stretch",
    ),
    "bounds outside": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--bounds", "0,0,10,10"],
        1,
        "bounds",
    ),
    "bounds of three": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--bounds", "0,0,10"],
        2,
        "MINX",
    ),
    "aoi missing": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--aoi", "none.gpkg"],
        1,
        "none.gpkg",
    ),
    "clip without aoi": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--aoi-clip"],
        2,
        "--aoi",
    ),
    "unknown model": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--model", "nonsense"],
        1,
        "nonsense",
    ),
    "unknown captioner": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--captioner", "poet"],
        2,
        "poet",
    ),
    "unknown device": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--device", "abacus"],
        2,
        "abacus",
    ),
    "unknown option": (
        lambda f: write_raster(f / "a.tif", texture(300, 300)),
        ["--nonsense"],
        2,
        "--nonsense",
    ),
}


@pytest.mark.parametrize("name", RASTERS)
def test_one_line_and_nothing_left(rssc: Rssc, tmp_path: Path, name: str) -> None:
    make, extra, code, words = RASTERS[name]
    folder = tmp_path / "in"
    folder.mkdir()
    raster = make(folder)
    done = rssc("classify", raster, "-o", tmp_path / "map.gpkg", *extra)
    assert done.code == code, done.err
    assert done.message.startswith("rssc-geo: error: ")
    assert words in done.message
    assert done.out == ""
    left = [p.name for p in tmp_path.iterdir() if p != folder]
    assert left in ([], ["map.gpkg.part"])
    if left:  # work that was done is kept, and said so nowhere else than in the part file
        assert name in {"corrupt block", "truncated"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exists.gpkg", "--overwrite"),
        ("none/map.gpkg", "create it first"),
        ("map.doc", ".gpkg"),
        ("map", ".gpkg"),
        ("dir.gpkg", "folder"),
        ("a;b.gpkg", "choose another name"),
        ("a!b.gpkg", "choose another name"),
    ],
)
def test_outputs_that_cannot_be(
    rssc: Rssc, scene: Path, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "exists.gpkg").write_bytes(b"precious")
    (tmp_path / "dir.gpkg").mkdir()
    done = rssc("classify", scene, "-o", tmp_path / name)
    assert done.code in (1, 2)
    assert words in done.message
    assert (tmp_path / "exists.gpkg").read_bytes() == b"precious"


def test_overwrite_replaces(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    target = tmp_path / "map.gpkg"
    target.write_bytes(b"old")
    done = rssc("classify", scene, "-o", target, "--overwrite", *whole_tiles("400px"))
    assert done.code == 0, done.err
    assert len(gpd.read_file(target, layer="cells")) > 0


def test_bad_areas_of_interest(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    bow_tie = Polygon(
        [(500_000, 5_000_000), (501_200, 4_998_400), (501_200, 5_000_000), (500_000, 4_998_400)]
    )
    frames = {
        "outside": (gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs="EPSG:32632"), 1),
        "empty": (gpd.GeoDataFrame(geometry=gpd.GeoSeries([], crs="EPSG:32632")), 1),
        "points": (gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1).centroid], crs="EPSG:32632"), 1),
        "invalid": (gpd.GeoDataFrame(geometry=[bow_tie], crs="EPSG:32632"), 0),
        "degrees": (
            gpd.GeoDataFrame(
                geometry=[box(500_000, 4_999_000, 501_000, 5_000_000)], crs="EPSG:32632"
            ).to_crs("EPSG:4326"),
            0,
        ),
    }
    for name, (frame, code) in frames.items():
        path = tmp_path / f"{name}.fgb"
        frame.to_file(path, driver="FlatGeobuf", engine="pyogrio", geometry_type="Unknown")
        target = tmp_path / f"{name}.gpkg"
        done = rssc("classify", scene, "-o", target, "--aoi", path, *whole_tiles("200px"))
        assert done.code == code, (name, done.err)
        if code:
            assert done.message.count("\n") == 0
            assert name in done.message


def test_tiny_raster_gets_a_map_and_a_warning(rssc: Rssc, tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "tiny.tif", texture(3, 2), photometric="rgb")
    done = rssc("classify", raster, "-o", tmp_path / "map.gpkg", "--force")
    assert done.code == 0, done.err
    assert "warning" in done.err
    assert (
        gpd.read_file(tmp_path / "map.gpkg", layer="cells")
        .union_all()
        .equals(box(500_000, 4_999_994, 500_004, 5_000_000))
    )


def test_a_tile_larger_than_the_raster_is_one_cell(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    done = rssc("classify", scene, "-o", tmp_path / "map.gpkg", "--tile-size", "5000px")
    assert done.code == 0, done.err
    assert "warning" in done.err
    assert len(gpd.read_file(tmp_path / "map.gpkg", layer="cells")) == 1


@pytest.mark.slow
def test_rotated_south_up_gcps_and_the_antimeridian(rssc: Rssc, tmp_path: Path) -> None:
    transforms = {
        "rotated": (
            Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(2, -2)
        ),
        "south_up": Affine(2, 0, 500_000, 0, 2, 5_000_000),
    }
    for name, transform in transforms.items():
        raster = write_raster(
            tmp_path / f"{name}.tif", texture(400, 300), transform=transform, photometric="rgb"
        )
        done = rssc("classify", raster, "-o", tmp_path / f"{name}.gpkg", *whole_tiles("100px"))
        assert done.code == 0, done.err
        corners = Polygon(
            [transform @ corner for corner in [(0, 0), (0, 400), (300, 400), (300, 0)]]
        )
        whole = gpd.read_file(tmp_path / f"{name}.gpkg", layer="landuse").union_all()
        assert whole.symmetric_difference(corners).area < 1e-3

    points = [
        GroundControlPoint(r, c, *(NORTH_UP @ (c, r)))
        for r, c in [(0, 0), (0, 300), (400, 0), (400, 300)]
    ]
    raster = tmp_path / "gcps.tif"
    with rasterio.open(
        raster,
        "w",
        driver="GTiff",
        height=400,
        width=300,
        count=3,
        dtype="uint8",
        photometric="rgb",
    ) as dataset:
        dataset.write(texture(400, 300))
        dataset.gcps = points, rasterio.crs.CRS.from_epsg(32632)
    done = rssc("classify", raster, "-o", tmp_path / "gcps.gpkg", *whole_tiles("100px"))
    assert done.code == 0, done.err
    box_wanted = box(500_000, 4_999_200, 500_600, 5_000_000)
    assert (
        gpd.read_file(tmp_path / "gcps.gpkg", layer="landuse")
        .union_all()
        .hausdorff_distance(box_wanted)
        < 5
    )

    east = write_raster(
        tmp_path / "east.tif",
        texture(400, 400),
        crs="EPSG:4326",
        transform=Affine(2e-5, 0, 179.996, 0, -2e-5, 10),
    )
    done = rssc("classify", east, "-o", tmp_path / "east.geojson", *whole_tiles("150px"))
    assert done.code == 0, done.err
    bounds = gpd.read_file(tmp_path / "east.geojson").geometry.bounds
    assert bounds["minx"].min() >= -180
    assert bounds["maxx"].max() <= 180
    assert ((bounds["maxx"] - bounds["minx"]) < 0.1).sum() == len(bounds) - (
        (bounds["maxx"] - bounds["minx"]) > 359
    ).sum()


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "parquet", "shp"])
@pytest.mark.parametrize(
    ("crs", "pixel"),
    [
        ("+proj=utm +zone=32 +units=km", 0.002),
        ("+proj=utm +zone=32 +units=us-ft", 6.56),
        ("+proj=tmerc +lon_0=9 +k=0.9996 +x_0=500000 +units=km", 0.002),
        ("+proj=longlat +pm=paris", 2e-5),
        ("+proj=lcc +lat_1=44 +lat_2=49 +lat_0=46.5 +lon_0=3 +ellps=GRS80 +units=km", 0.002),
    ],
)
def test_a_crs_without_a_code_places_the_map_as_the_raster(
    rssc: Rssc, bundle: Path, tmp_path: Path, crs: str, pixel: float, suffix: str
) -> None:
    """GDAL takes some of them for the usual one in meters, or from Greenwich."""
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(9.0, 45.0)
    place = Affine(pixel, 0, x, 0, -pixel, y)
    settings = {"crs": crs, "transform": place, "photometric": "rgb"}
    scene = write_raster(tmp_path / "scene.tif", texture(128, 128), **settings)
    path = tmp_path / f"map.{suffix}"
    sizes = (*whole_tiles("64px"), "--force", "-q")
    done = rssc("classify", scene, "-o", path, "--model", bundle, *sizes)
    assert done.code == 0, done.err
    read = gpd.read_parquet if suffix == "parquet" else gpd.read_file
    cells = read(path, layer="cells") if suffix == "gpkg" else read(path)
    west, south, east, north = cells.to_crs(4326).total_bounds
    with rasterio.open(scene) as dataset:
        center = dataset.transform @ (64, 64)
        ((lon,), (lat,)) = rasterio.warp.transform(dataset.crs, "EPSG:4326", *zip(center))
    assert (west + east) / 2 == pytest.approx(lon, abs=1e-5)
    assert (south + north) / 2 == pytest.approx(lat, abs=1e-5)


@pytest.mark.parametrize(
    ("crs", "lost"),
    [
        ("+proj=tmerc +lon_0=9 +ellps=bessel +towgs84=598,74,418,0.2,0,-2.5,6.7", "datum shift"),
        (
            "+proj=ob_tran +o_proj=longlat +o_lat_p=40 +o_lon_p=0 +lon_0=9 +ellps=WGS84",
            "projection",
        ),
    ],
)
def test_a_crs_that_a_shapefile_loses_is_refused_before_the_work(
    rssc: Rssc, bundle: Path, tmp_path: Path, crs: str, lost: str
) -> None:
    pixel = 2.0 if "tmerc" in crs else 2e-5
    settings = {"crs": pyproj.CRS(crs).to_wkt(), "transform": Affine(pixel, 0, 5, 0, -pixel, 5)}
    scene = write_raster(tmp_path / "scene.tif", texture(64, 64), photometric="rgb", **settings)
    options = ("--model", bundle, *whole_tiles("64px"), "--force", "-q")
    done = rssc("classify", scene, "-o", tmp_path / "map.shp", *options)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"a Shapefile file cannot hold the {lost}" in done.err
    assert not list(tmp_path.glob("*map*"))
    assert not rssc("classify", scene, "-o", tmp_path / "map.gpkg", *options).code
    done = rssc("classify", scene, "-o", tmp_path / "map.shp", "--crs", "EPSG:4326", *options)
    assert done.code == 0
    package = gpd.read_file(tmp_path / "map.gpkg", layer="landuse").to_crs(4326)
    bounds = gpd.read_file(tmp_path / "map.shp").total_bounds
    assert package.total_bounds == pytest.approx(bounds, abs=1e-6)


@pytest.mark.parametrize(
    "crs", ["+proj=tmerc +lon_0=10.5 +x_0=500000", "+proj=utm +zone=32 +units=km"]
)
def test_a_crs_that_geojson_cannot_name_is_refused_before_the_work(
    rssc: Rssc, bundle: Path, tmp_path: Path, crs: str
) -> None:
    """It was written without its CRS, or with the code of another one."""
    scene = write_raster(tmp_path / "scene.tif", texture(128, 128), photometric="rgb")
    options = ("--model", bundle, *whole_tiles("64px"), "--force", "-q")
    made, change = tmp_path / "map.geojson", ("change", scene, scene, "--force", "-q")
    for command in (("classify", scene, *options), change):
        done = rssc(*command, "-o", made, "--crs", crs)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "a GeoJSON file cannot hold the definition of the CRS" in done.err
        assert not list(tmp_path.glob("*map*"))
    for code in ("EPSG:32633", "ESRI:54009"):
        done = rssc("classify", scene, "-o", made, "--crs", code, "--overwrite", *options)
        assert done.code == 0, done.err
        assert gpd.read_file(made).crs == pyproj.CRS(code)


def test_tiles_reasons_and_class_rasters_in_a_crs_without_a_code(
    rssc: Rssc, bundle: Path, tmp_path: Path
) -> None:
    crs = pyproj.CRS("+proj=utm +zone=32 +units=us-ft")
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(9.0, 45.0)
    place = Affine(6.56, 0, x, 0, -6.56, y)
    settings = {"crs": crs.to_wkt(), "transform": place, "photometric": "rgb"}
    scene = write_raster(tmp_path / "scene.tif", texture(64, 64), **settings)
    bounds = (x, y - 64 * 6.56, x + 64 * 6.56, y)
    model = ("--model", bundle, *whole_tiles("64px"), "--force", "-q")
    classes = tmp_path / "classes.tif"
    assert not rssc("tile", scene, "-o", tmp_path / "tiles", "--tile-size", "64px").code
    assert not rssc(
        "explain", scene, "--at", f"{x + 9},{y - 9}", "-o", tmp_path / "why", *model
    ).code
    made = tmp_path / "map.gpkg"
    assert not rssc("classify", scene, "-o", made, "--class-raster", classes, *model).code
    found = [*tmp_path.glob("tiles/*.gpkg"), *tmp_path.glob("why/*.gpkg")]
    assert len(found) == 2
    for path in found:
        table = gpd.read_file(path).to_crs(crs)
        assert table.total_bounds == pytest.approx(bounds, abs=0.01), path
    with rasterio.open(classes) as raster:
        corners = rasterio.warp.transform_bounds(raster.crs, crs.to_wkt(), *raster.bounds)
    assert corners == pytest.approx(bounds, abs=0.01)


def test_a_gray_raster_with_its_band_thrice(rssc: Rssc, tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "gray.tif", texture(300, 300)[:1])
    tiles = whole_tiles("300px")
    assert (
        rssc("classify", raster, "-o", tmp_path / "map.gpkg", "--bands", "1,1,1", *tiles).code == 0
    )


def test_three_files_as_one_scene(rssc: Rssc, tmp_path: Path) -> None:
    pixels = texture(300, 300)
    files = [
        write_raster(tmp_path / f"{name}.tif", pixels[i : i + 1]) for i, name in enumerate("rgb")
    ]
    whole = write_raster(tmp_path / "whole.tif", pixels, photometric="rgb")
    tiles = whole_tiles("100px")
    assert rssc("classify", "--bands-from", *files, "-o", tmp_path / "three.gpkg", *tiles).code == 0
    assert rssc("classify", whole, "-o", tmp_path / "one.gpkg", *tiles).code == 0
    three, one = (
        gpd.read_file(tmp_path / f"{name}.gpkg", layer="cells") for name in ("three", "one")
    )
    assert three.drop(columns="geometry").equals(one.drop(columns="geometry"))
    other = write_raster(tmp_path / "other.tif", pixels[:1, :200])
    done = rssc("classify", "--bands-from", files[0], files[1], other, "-o", tmp_path / "bad.gpkg")
    assert done.code == 1
    assert "other.tif" in done.message


DISK_FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    rssc: Rssc, start: Callable[..., Program], bundle: Path, tmp_path: Path
) -> None:
    raster = write_raster(tmp_path / "scene.tif", texture(1152, 1152), photometric="rgb")
    arguments = [
        "classify",
        raster,
        "-o",
        tmp_path / "map.gpkg",
        *whole_tiles("64px"),
        "--model",
        bundle,
        "--captioner",
        "none",
        "-q",
    ]
    code, _, err = start(*arguments, before=DISK_FULL).finish()
    assert code == 1, err
    assert len(err.strip().splitlines()) == 1, err
    assert "map.gpkg" in err
    assert not (tmp_path / "map.gpkg").exists()
    assert rssc(*arguments).code == 0
    assert len(gpd.read_file(tmp_path / "map.gpkg", layer="cells")) == 18 * 18
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "map.gpkg", "scene.tif"]


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs a folder that not even root can write in"
)
def test_a_read_only_folder(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    if os.geteuid() == 0:  # root writes anywhere but here
        folder = Path("/proc")
    done = rssc("classify", scene, "-o", folder / "map.gpkg")
    assert done.code == 1
    assert f"cannot write in {folder}" in done.message


def test_a_name_that_qgis_decodes_is_refused(
    rssc: Callable[..., Outcome], scene: Path, tmp_path: Path
) -> None:
    done = rssc("classify", scene, "-o", tmp_path / "a%20b.gpkg")
    assert done.code == 2
    assert "'a%20b.gpkg': QGIS cannot open a GeoPackage with '%20' in its name" in done.message
    assert (
        "is not a CRS"
        in rssc("classify", scene, "-o", tmp_path / "100%.gpkg", "--crs", "x").message
    )  # that one it can
    assert (
        "is not a CRS"
        in rssc("classify", scene, "-o", tmp_path / "a%20b.fgb", "--crs", "x").message
    )
