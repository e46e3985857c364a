"""The demo scene, drawn small.

Where it lies, what of it is valid, and that its parts look different.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from demo_scene.canvas import Canvas
from demo_scene.light import photograph
from demo_scene.plan import AREAS, DemoScene, draw_scene
from demo_scene.shapes import Frame
from make_demo_scene import write_scene

GSD_M = 7.5


@pytest.fixture(scope="module")
def scene() -> DemoScene:
    return draw_scene(gsd_m=GSD_M)


def color(scene: DemoScene, name: str) -> np.ndarray:
    inside = (scene.areas == 1 + scene.area_names.index(name)) & scene.mask
    return scene.pixels[inside].astype(float)


def test_the_same_seed_draws_the_same_pixels_and_another_draws_others(scene: DemoScene) -> None:
    again, other = draw_scene(gsd_m=GSD_M), draw_scene(gsd_m=GSD_M, seed=8)
    assert np.array_equal(scene.pixels, again.pixels)
    assert np.array_equal(scene.mask, again.mask)
    assert (scene.pixels != other.pixels).any(axis=2)[scene.mask].mean() > 0.5


def test_a_corner_and_the_edges_are_not_valid_and_hold_zeros(scene: DemoScene) -> None:
    assert scene.pixels.shape == (600, 600, 3)
    assert 0.96 < scene.mask.mean() < 0.985
    assert not scene.mask[-1, -1]
    assert not scene.mask[-40:, -40:].any()
    assert scene.mask[8:-8, 8:500].all()
    assert not scene.pixels[~scene.mask].any()
    assert (scene.pixels[scene.mask].max(axis=1) > 0).all()


def test_every_area_is_there_and_looks_like_itself(scene: DemoScene) -> None:
    hectares = {name: (scene.areas == k).sum() * GSD_M**2 / 1e4 for k, name in enumerate(AREAS, 1)}
    assert min(hectares.values()) > 15
    forest, meadow = color(scene, "Forest"), color(scene, "Meadow")
    assert forest.mean() < 0.7 * meadow.mean()
    for green in (forest, meadow):
        assert green[:, 1].mean() > max(green[:, 0].mean(), green[:, 2].mean())
    assert color(scene, "DenseResidential")[:, 1].std() > 1.5 * meadow[:, 1].std()
    assert (
        np.percentile(color(scene, "StorageTanks"), 95)
        > np.percentile(color(scene, "Fields"), 95) + 30
    )
    sea = scene.pixels[int(4380 / GSD_M), int(2500 / GSD_M) : int(3500 / GSD_M)].mean(axis=0)
    sand = scene.pixels[int(4090 / GSD_M), int(2500 / GSD_M) : int(3500 / GSD_M)].mean(axis=0)
    assert sea[2] > sea[0] + 30
    assert sand[0] > sand[2] + 15
    assert sand.mean() > sea.mean() + 50


def test_the_file_lies_where_it_should_with_mask_and_overviews(
    scene: DemoScene, tmp_path: Path
) -> None:
    path = tmp_path / "made" / "scene.tif"
    write_scene(scene, path)
    assert [p.name for p in path.parent.iterdir()] == [
        "scene.tif"
    ]  # the mask is inside, no sidecar
    with rasterio.open(path) as raster:
        assert raster.crs.to_epsg() == 32632
        assert raster.transform.a == -raster.transform.e == GSD_M
        assert raster.bounds == (421_000, 4_857_500, 425_500, 4_862_000)
        assert raster.dtypes == ("uint8",) * 3
        assert [c.name for c in raster.colorinterp] == ["red", "green", "blue"]
        assert raster.block_shapes == [(256, 256)] * 3
        assert raster.compression.name == "deflate"
        assert raster.overviews(1) == [2, 4, 8, 16]
        assert np.array_equal(raster.dataset_mask() > 0, scene.mask)
        assert np.array_equal(raster.read(), scene.pixels.transpose(2, 0, 1))


def test_a_house_throws_its_shadow_away_from_the_sun() -> None:
    canvas = Canvas(100.0, 1.0)
    canvas.albedo[...] = 0.5
    one = np.ones(1)
    canvas.boxes(
        np.full((1, 2), 50.0), np.full((1, 2), 10.0), 0 * one, np.full((1, 3), 0.5), 8 * one
    )
    picture = photograph(canvas, np.random.default_rng(0)).astype(int)
    north_west, south_east = picture[41:43, 41:43].mean(), picture[57:59, 57:59].mean()
    assert north_west < 0.6 * south_east
    assert abs(south_east - picture[:10, :10].mean()) < 3


def test_an_extent_holds_the_box_it_was_asked_for() -> None:
    frame = Frame((300.0, 200.0), 0.7, bend_m=20.0)
    u, v, length, width = frame.extent((0.0, 500.0), (100.0, 900.0))
    edges = np.array([(x, y) for x in (0.0, 500.0) for y in (100.0, 900.0)]) - frame.origin
    cos, sin = np.cos(0.7), np.sin(0.7)
    for du, dv in zip(edges @ (cos, sin), edges @ (-sin, cos), strict=True):
        assert u <= du <= u + length
        assert v + 20 <= dv <= v + width - 20
