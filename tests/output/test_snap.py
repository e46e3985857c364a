"""``--snap``: regions end where the picture changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import CRS
from rasterio.features import rasterize

from rssc_geo.geometry import BlockGrid, TileGrid
from rssc_geo.models import scene_classes
from rssc_geo.output import CellBatch, LandUseSummary, UnknownRule, read_provenance
from rssc_geo.raster import TileReader, fit_radiometry, open_scene

from .conftest import NORTH_UP, Case

COLORS = np.array([(40, 110, 50), (60, 80, 140)])
"""Of land, class 0, and water, class 1."""


def shore(shape: tuple[int, int]) -> np.ndarray:
    """Water south-east of a winding shore."""
    rows, cols = np.indices(shape)
    return rows + 0.6 * cols + 12 * np.sin(cols / 25) > 0.8 * shape[0]


@dataclasses.dataclass(frozen=True)
class Scene:
    """A raster with a shore, its cells told by what most of each shows, and where it is valid."""

    path: Path
    case: Case
    water: np.ndarray
    valid: np.ndarray

    def write(self, target: Path, **options: object) -> LandUseSummary:
        scene = open_scene(self.path)
        radiometry = fit_radiometry(scene, stretch=None)

        def pixels(grid: BlockGrid, wanted: list[int]) -> TileReader:
            return TileReader(scene, grid, radiometry, out_size=(1, 1), tiles=wanted)

        case = self.case
        with case.writer(target, snap=True, **options) as writer:
            batch = case.batch(0, len(case.rows))
            writer.append(dataclasses.replace(batch, colors=self.colors()), 1)
            summary = writer.make(pixels=pixels)
            writer.discard()
            return summary

    def colors(self) -> np.ndarray:
        with rasterio.open(self.path) as raster:
            picture = raster.read().transpose(1, 2, 0).astype(np.float32)
        return np.array([
            picture[window.slices][self.valid[window.slices]].mean(0)
            for row, col in zip(self.case.rows, self.case.cols, strict=True)
            for window in [self.case.grid.cell(row, col).window]
        ], np.float32)  # fmt: skip


@pytest.fixture
def make_scene(tmp_path: Path) -> Callable[..., Scene]:
    def make(
        shape: tuple[int, int] = (200, 230),
        cell: int = 20,
        *,
        holes: bool = True,
        transform: Affine = NORTH_UP,
        crs: str = "EPSG:32632",
    ) -> Scene:
        random = np.random.default_rng(3)
        water, valid = shore(shape), np.ones(shape, bool)
        if holes:
            valid[50:75, 30:60] = False  # whole cells and parts of cells
            valid[:, -7:] = False
            valid[random.random(shape) < 0.001] = False
        picture = COLORS[water.astype(int)] + random.normal(0, 4, (*shape, 3))
        picture = np.where(valid[..., None], np.clip(picture, 1, 255), 0)
        path = tmp_path / f"scene-{shape[0]}-{cell}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=shape[0], width=shape[1], count=3, dtype="uint8",
            crs=crs, transform=transform, nodata=0, photometric="rgb",
        ) as raster:  # fmt: skip
            raster.write(picture.astype(np.uint8).transpose(2, 0, 1))
        grid = TileGrid(shape, (3 * cell, 3 * cell), (cell, cell))
        cells = [cell for cell in grid.cells() if valid[cell.window.slices].mean() >= 0.5]
        shares = np.array([water[cell.window.slices].mean() for cell in cells])
        told = np.where(shares > 0.5, 0.9, 0.1)
        case = Case(
            grid,
            transform,
            CRS(crs),
            scene_classes(["Farmland", "River"]),
            np.array([cell.row for cell in cells], np.int32),
            np.array([cell.col for cell in cells], np.int32),
            np.stack([1 - told, told], 1).astype(np.float32),
            [""] * len(cells),
            np.full(len(cells), np.nan, np.float32),
        )
        return Scene(path, case, water, valid)

    return make


def ground_of(scene: Scene) -> np.ndarray:
    """The valid pixels of written cells."""
    written = np.zeros(scene.water.shape, bool)
    for row, col in zip(scene.case.rows, scene.case.cols, strict=True):
        written[scene.case.grid.cell(row, col).window.slices] = True
    return written & scene.valid


def test_the_shore_is_where_it_shows_and_nodata_stays_so(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    scene, path = make_scene(), tmp_path / "map.gpkg"
    summary = scene.write(path, class_raster=tmp_path / "classes.tif")
    landuse = gpd.read_file(path, layer="landuse")
    ground = ground_of(scene)
    with rasterio.open(tmp_path / "classes.tif") as raster:
        classes = raster.read(1)
        assert raster.shape == scene.water.shape
        assert raster.transform.almost_equals(scene.case.transform)
    assert ((classes != 255) == ground).all()
    assert (classes == scene.water)[ground].mean() > 0.99
    union = shapely.union_all(landuse.geometry)
    assert union.area == pytest.approx(ground.sum() * 100, rel=1e-9)
    assert landuse.area.sum() == pytest.approx(ground.sum() * 100, rel=1e-9)
    assert landuse.geometry.is_valid.all()
    assert landuse["cells"].sum() == summary.cells == len(scene.case.rows)
    assert landuse["area_m2"].sum() == pytest.approx(ground.sum() * 100, rel=1e-3)
    assert landuse["confidence"].between(0.5, 0.9).all()
    drawn = rasterize(
        zip(landuse.geometry, landuse["class_id"], strict=True),
        ground.shape,
        fill=255,
        transform=scene.case.transform,
    )
    assert (drawn != classes).mean() < 0.01  # outlines are simplified to a pixel
    cells = gpd.read_file(path, layer="cells")
    assert len(cells) == len(scene.case.rows)
    assert set(shapely.get_num_coordinates(cells.geometry)) == {5}
    told = read_provenance(path)["steps"]["snap"]
    assert (told["cells"], told["pixels_a_cell"]) == (len(cells), 20)


def test_cells_of_many_pixels_are_read_coarser_and_edges_still_meet(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    # 53 pixels a cell, in 18 parts of 2.94: the raster ends within a part.
    scene = make_scene((371, 430), 53, holes=False, transform=NORTH_UP @ Affine.scale(0.1))
    scene.write(tmp_path / "map.gpkg", class_raster=tmp_path / "classes.tif")
    assert read_provenance(tmp_path / "map.gpkg")["steps"]["snap"]["pixels_a_cell"] == 18
    landuse = gpd.read_file(tmp_path / "map.gpkg", layer="landuse")
    whole = shapely.box(*landuse.total_bounds)
    assert whole.bounds == pytest.approx(rasterio.open(scene.path).bounds)
    assert shapely.union_all(landuse.geometry).area == pytest.approx(whole.area, rel=1e-9)
    with rasterio.open(tmp_path / "classes.tif") as raster:
        assert raster.shape == (126, 147)
        points = [(x, y) for x in np.linspace(1, 429, 60) for y in np.linspace(1, 370, 60)]
        placed = [scene.case.transform @ point for point in points]
        said = np.array([value[0] for value in raster.sample(placed)])
    truth = np.array([scene.water[int(y), int(x)] for x, y in points])
    assert (said == truth).mean() > 0.98


@pytest.mark.parametrize("cell", [1, 4])
def test_where_cells_have_few_pixels_these_are_told_one_by_one(
    cell: int, make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = make_scene((40, 47), cell, holes=False)
    scene.write(tmp_path / "map.gpkg", class_raster=tmp_path / "classes.tif")
    with rasterio.open(tmp_path / "classes.tif") as raster:
        assert raster.shape == scene.water.shape
        assert (raster.read(1) == scene.water).mean() > 0.99


def test_small_regions_join_a_neighbor(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = make_scene(holes=False)
    lone = (scene.case.rows == 1) & (scene.case.cols == 1)
    probabilities = np.where(lone[:, None], (0.05, 0.95), scene.case.probabilities)
    case = dataclasses.replace(scene.case, probabilities=probabilities.astype(np.float32))
    with rasterio.open(scene.path, "r+") as raster:  # a pond where that cell lies
        pond = raster.read()
        pond[:, 20:40, 20:40] = COLORS[1][:, None, None]
        raster.write(pond)
    scene = dataclasses.replace(scene, case=case)
    assert scene.write(tmp_path / "pond.gpkg").regions == 3
    assert scene.write(tmp_path / "none.gpkg", min_area=100 * 500.0).regions == 2
    total = gpd.read_file(tmp_path / "none.gpkg", layer="landuse")["area_m2"].sum()
    assert total == pytest.approx(
        gpd.read_file(tmp_path / "pond.gpkg", layer="landuse")["area_m2"].sum(), rel=1e-6
    )


def test_cells_that_the_rasters_edge_clips_have_their_whole_area(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    """Two of 200 m × 100 m, whose pixels share it with none beyond the edge."""
    scene = make_scene((200, 210), holes=False)
    clipped = (scene.case.cols == 10) & (scene.case.rows >= 4) & (scene.case.rows < 6)
    told = np.where(clipped[:, None], np.float32([0.05, 0.95]), np.float32([0.95, 0.05]))
    case = dataclasses.replace(scene.case, probabilities=told)
    with rasterio.open(scene.path, "r+") as raster:
        picture = np.broadcast_to(COLORS[0][:, None, None], raster.read().shape).copy()
        picture[:, 80:120, 200:] = COLORS[1][:, None, None]
        raster.write(picture.astype(np.uint8))
    scene = dataclasses.replace(scene, case=case)
    assert scene.write(tmp_path / "map.gpkg", min_area=30_000, smooth=False).regions == 2
    assert scene.write(tmp_path / "none.gpkg", min_area=50_000, smooth=False).regions == 1


def classes_of(scene: Scene, folder: Path) -> np.ndarray:
    """The class of each pixel of a scene's snapped map, whose cells are not smoothed."""
    scene.write(folder / "map.gpkg", class_raster=folder / "classes.tif", smooth=False)
    with rasterio.open(folder / "classes.tif") as raster:
        return raster.read(1)


def test_a_roof_in_a_field_is_no_water(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    """Its color is that of no cell, though nearer to the water's than to the field's."""
    scene = make_scene(holes=False)
    roof = slice(73, 87), slice(73, 87)
    assert scene.water[100:120, 80:100].any()  # two cells away from a part of it
    with rasterio.open(scene.path, "r+") as raster:
        picture = raster.read()
        picture[:, *roof] = 250
        raster.write(picture)
    assert (classes_of(scene, tmp_path)[roof] == 0).all()


def test_a_few_unsure_cells_agree_with_those_around(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = make_scene(holes=False)
    rows, cols = scene.case.rows, scene.case.cols
    unsure = (abs(rows - 3) <= 1) & (abs(cols - 3) <= 1)
    told = np.where(unsure[:, None], np.float32([0.3, 0.7]), scene.case.probabilities)
    case = dataclasses.replace(scene.case, probabilities=told)
    assert (classes_of(dataclasses.replace(scene, case=case), tmp_path)[40:100, 40:100] == 0).all()


def test_unknown_cells_vote_for_unknown(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    scene = make_scene(holes=False)
    unknown = dataclasses.replace(scene_classes(["Unknown"])[0], id=2)
    strange = scene.case.probabilities.argmax(1) == 1
    case = dataclasses.replace(
        scene.case,
        classes=(*scene.case.classes, unknown),
        familiarity=np.where(strange, 0.0, 0.5).astype(np.float32),
        unknown=UnknownRule(0.1),
    )
    dataclasses.replace(scene, case=case).write(tmp_path / "map.gpkg")
    landuse = gpd.read_file(tmp_path / "map.gpkg", layer="landuse")
    assert set(landuse["class"]) == {"Farmland", "Unknown"}
    area = landuse[landuse["class"] == "Unknown"].area.sum()
    assert area == pytest.approx(100 * scene.water.sum(), rel=0.02)


def test_in_another_crs_neighbors_share_all_corners(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = make_scene()
    scene.write(tmp_path / "map.gpkg", crs=CRS(4326))
    landuse = gpd.read_file(tmp_path / "map.gpkg", layer="landuse")
    assert shapely.coverage_is_valid(np.asarray(landuse.geometry))


@pytest.mark.parametrize(
    ("transform", "crs", "name"),
    [
        (Affine(10, 0, 500000, 0, 10, 5200000), "EPSG:32632", "map.gpkg"),
        (NORTH_UP @ Affine.rotation(20), "EPSG:32632", "map.gpkg"),
        (Affine(0.001, 0, 179.9, 0, -0.001, 60), "EPSG:4326", "map.geojson"),
    ],
    ids=["south-up", "rotated", "across the antimeridian"],
)
def test_wherever_a_raster_lies_its_ground_is_covered_once(
    transform: Affine, crs: str, name: str, make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = make_scene(transform=transform, crs=crs)
    scene.write(tmp_path / name)
    path = tmp_path / name
    landuse = gpd.read_file(path, layer="landuse" if name.endswith("gpkg") else None)
    ground = ground_of(scene).sum() * abs(transform.determinant)
    polygons = np.asarray(landuse.geometry)
    assert shapely.is_valid(polygons).all()
    assert shapely.area(polygons).sum() == pytest.approx(ground, rel=1e-6)
    assert shapely.union_all(polygons).area == pytest.approx(ground, rel=1e-6)


def test_a_clip_cuts_regions_and_their_areas(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    scene = make_scene(holes=False)
    clip = shapely.Point(501150, 5199000).buffer(700)
    scene.write(tmp_path / "map.gpkg", clip=clip)
    landuse = gpd.read_file(tmp_path / "map.gpkg", layer="landuse")
    assert landuse.area.sum() == pytest.approx(clip.area, rel=1e-9)
    assert landuse["area_m2"].sum() == pytest.approx(clip.area, rel=1e-3)


def test_a_map_cannot_be_snapped_without_pixels(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    case = make_scene().case
    with case.writer(tmp_path / "map.gpkg", snap=True) as writer:
        writer.append(CellBatch(*(getattr(case.batch(0, 9), name) for name in (
            "rows", "cols", "probabilities", "familiarity", "captions", "colors",
        ))), 1)  # fmt: skip
        with pytest.raises(ValueError, match="pixels"):
            writer.make()
