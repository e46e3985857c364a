"""Combinations of shapes, places, sizes and options that nobody chose, by seeds.

Each is checked by what has to hold for any map, not against stored results.
"""

from __future__ import annotations

import csv
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine

import rssc_geo
from rssc_geo import ClassifyOptions, ExplainOptions, Plan, Predictor, TilingOptions
from rssc_geo.captioning import make_captioner
from rssc_geo.geometry import cell_polygons, geodesic_area_m2
from rssc_geo.inference import choose_compute
from rssc_geo.models import Model
from tests.factories import mask, texture, write_raster

SIDES = (1, 1, 2, 3, 5, 8, 13, 24, 37, 41, 60, 83)
FORMATS = (".gpkg", ".gpkg", ".fgb", ".geojson", ".parquet", ".shp")
PLACES = (
    ("EPSG:32632", Affine(1, 0, 500_000, 0, -1, 5_000_000)),
    ("EPSG:2154", Affine(8, -3, 700_000, -3, -8, 6_600_000)),
    ("EPSG:32632", Affine(-30, 0, 500_000, 0, -17, 5_000_000)),
    ("EPSG:3031", Affine(10, 0, -200, 0, -10, 150)),
    ("EPSG:4326", Affine(1e-4, 0, 9, 0, -7e-5, 47)),
    ("EPSG:4326", Affine(1e-4, 0, 179.998, 0, -1e-4, -17)),
    ("EPSG:4326", Affine(3e-3, 0, -140, 0, -2e-5, 90)),
)


@pytest.fixture(scope="module")
def predictors(fine_model: Model, small_model: Model) -> tuple[Predictor, Predictor]:
    compute = choose_compute("cpu", dtype="float32")
    fine, coarse = (
        Predictor(model, make_captioner(model), compute) for model in (fine_model, small_model)
    )
    return fine, coarse


def write_scene(random: np.random.Generator, path: Path) -> Path:
    """A raster of a few pixels anywhere on Earth, with a hole or speckle of nodata or without."""
    height, width = random.choice(SIDES, 2).tolist()
    crs, place = PLACES[random.integers(len(PLACES))]
    pixels = texture(height, width, seed=int(random.integers(99)))
    empty = np.zeros((height, width), bool)
    kind = random.integers(4)
    if kind == 1:
        empty[random.integers(height) :, random.integers(width) :] = True
    if kind == 2:
        empty = random.random((height, width)) < 0.3
    empty[0, 0] = False
    pixels[:, empty] = 0
    return write_raster(path, pixels, crs=crs, transform=place, nodata=0 if kind else None)


def choose_tiling(random: np.random.Generator, path: Path) -> dict[str, object]:
    """Sizes of tile and cell, or one or none of them; at most ten cells a side."""
    with rasterio.open(path) as raster:
        cell = -(-max(raster.shape) // int(random.integers(1, 11)))
    tile = cell * int(random.choice([1, 2, 3, 5, 6, 12])) + int(random.integers(2))
    sizes = {"tile_size": f"{tile}px", "cell_size": f"{cell}px"}
    kept = random.choice([0, 1, 2, 3, 3, 3])
    chosen = {name: size for place, (name, size) in enumerate(sizes.items()) if kept >> place & 1}
    # Not 1: in a tile that is read reduced, holes smaller than a pixel of it do not count.
    return {**chosen, "min_valid": float(random.choice([0.01, 0.3, 0.5])), "force": True}


def written_cells(plan: Plan) -> np.ndarray:
    """Bool (cell rows, cell columns), by the mask of the raster, pixel by pixel."""
    edges = plan.grid.row_edges(), plan.grid.col_edges()
    sums = mask(plan.scene).astype(float)
    for axis, each in enumerate(edges):
        sums = np.add.reduceat(sums, each[:-1], axis)
    share = sums / np.multiply.outer(*(np.diff(each) for each in edges))
    least: float = plan.options.min_valid
    return np.asarray((share > least - 1e-6) & (share > 0))


@pytest.mark.parametrize("seed", range(16))
def test_what_holds_for_any_map(
    seed: int, predictors: tuple[Predictor, Predictor], tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    scene, model = write_scene(random, tmp_path / "scene.tif"), predictors[seed % 3 == 0]
    tiling = choose_tiling(random, scene)
    plan = rssc_geo.make_plan(scene, model.card, TilingOptions(**tiling))
    expected = written_cells(plan)
    if not expected.any():
        with pytest.raises(rssc_geo.NothingToClassifyError):
            rssc_geo.classify(scene, tmp_path / "map.gpkg", ClassifyOptions(**tiling), model=model)
        return
    path = tmp_path / f"map{random.choice(FORMATS)}"
    smooth, adapt, merge = (bool(flag) for flag in random.integers(0, 2, 3))
    options = ClassifyOptions(
        **tiling,
        probabilities=True,
        smooth=smooth,
        adapt_shares=adapt,
        min_area=500.0 if merge else 0.0,
        class_raster=str(tmp_path / "classes.tif"),
        areas=str(tmp_path / "areas.csv"),
        preview=str(tmp_path / "preview.png"),
    )
    made = rssc_geo.classify(scene, path, options, model=model)
    assert not list(tmp_path.glob("*.part*"))
    landuse, cells = made.to_geopandas(), made.to_geopandas("cells")
    rows, cols = cells["row"].to_numpy(), cells["col"].to_numpy()
    assert len(cells) == len(set(zip(rows, cols, strict=True))) == made.summary.cells
    found = np.zeros_like(expected)
    found[rows, cols] = True
    np.testing.assert_array_equal(found, expected)
    assert cells.is_valid.all()
    assert landuse.is_valid.all()

    shapes = cell_polygons(plan.grid, plan.scene.transform, rows, cols)
    area = geodesic_area_m2(shapes, plan.scene.crs).sum()
    with (tmp_path / "areas.csv").open(encoding="utf-8") as file:
        table = [float(row["area_m2"]) for row in csv.DictReader(file) if row["class"] != "total"]
    assert landuse["area_m2"].sum() == pytest.approx(area, rel=1e-5, abs=1e-3 * len(landuse))
    assert landuse["cells"].sum() == len(cells)
    assert sum(table) == pytest.approx(area, rel=1e-5, abs=1e-3 * len(landuse))

    names = [name for name in cells.columns if name.startswith("p_")]
    probabilities = cells[names].to_numpy(float)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    own = probabilities[np.arange(len(cells)), cells["class_id"].to_numpy(int)]
    np.testing.assert_allclose(own, probabilities.max(1), atol=2e-6)
    np.testing.assert_allclose(own, cells["confidence"], atol=2e-6)

    with rasterio.open(tmp_path / "classes.tif") as raster:
        classes = raster.read(1)
    assert ((classes != 255) == expected).all()
    if merge:
        by_class = landuse.groupby("class_id")["cells"].sum()
        assert all((classes == code).sum() == count for code, count in by_class.items())
    else:
        assert (classes[rows, cols] == cells["class_id"]).all()

    plain = tmp_path / "plain.gpkg"
    rssc_geo.classify(scene, plain, ClassifyOptions(**tiling, smooth=False), model=model)
    whole = gpd.read_file(plain, layer="cells").set_index(["row", "col"]).sort_index()
    corners = [whole.index[0], whole.index[-1]]
    centers = [_center(plan, *corner) for corner in corners]
    x, y = (sorted({point[axis] for point in centers}) for axis in range(2))
    margin = 1e-3 * abs(plan.scene.transform.a)
    box = (x[0] - margin, y[0] - margin, x[-1] + margin, y[-1] + margin)
    part = tmp_path / "part.fgb"
    limited = ClassifyOptions(**tiling, smooth=False, bounds=box)
    some = rssc_geo.classify(scene, part, limited, model=model).to_geopandas("cells")
    some = some.set_index(["row", "col"]).sort_index()
    assert set(corners) <= set(some.index) <= set(whole.index)
    same = whole.loc[some.index]
    np.testing.assert_allclose(some["confidence"], same["confidence"], atol=5e-5)
    assert (some["caption"].fillna("") == same["caption"].fillna("")).all()

    asked = ExplainOptions(**tiling, at=tuple(centers))
    for cell in rssc_geo.explain(scene, tmp_path / "why", asked, model=model).cells:
        known = whole.loc[(cell.row, cell.col)]
        assert cell.confidence == pytest.approx(known["confidence"], abs=5e-5)
        assert cell.class_name == known["class"] or known["margin"] < 1e-4


def _center(plan: Plan, row: int, col: int) -> tuple[float, float]:
    """The middle of a cell in the raster's CRS."""
    window = plan.grid.cell(row, col).window
    x, y = plan.scene.transform @ (window.col + window.width / 2, window.row + window.height / 2)
    return x, y
