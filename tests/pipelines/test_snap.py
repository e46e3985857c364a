"""``--snap`` from every interface: the same map however a scene was classified, and its results."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from shapely.geometry import box

import rssc_geo
from rssc_geo import (
    AreasOptions,
    BatchOptions,
    ClassifyOptions,
    Predictor,
    RefineOptions,
    SampleOptions,
    UsageError,
)
from rssc_geo.captioning import NoCaptioner
from rssc_geo.geometry import BlockGrid, CellRanges
from rssc_geo.inference import Prediction, choose_compute
from rssc_geo.models import Model, load_bundle, save_bundle
from rssc_geo.output import FinishedMap, LandUseSummary, read_provenance
from rssc_geo.raster import TileData
from rssc_geo.reports import Extras
from tests.factories import write_raster

OPTIONS = ClassifyOptions(snap=True, captioner="none", device="cpu")


@pytest.fixture(scope="module")
def bundle(fine_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "fine"
    save_bundle(folder, fine_model, readme="# fine\n")
    return folder


@pytest.fixture
def predictor(bundle: Path) -> Predictor:
    return Predictor(load_bundle(bundle), NoCaptioner(), choose_compute("cpu", dtype="float32"))


def landuse_of(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(path, layer="landuse")


@pytest.mark.slow
def test_a_batch_gives_the_same_and_cells_stay_the_grid(
    predictor: Predictor, bundle: Path, fine_scene: Path, tmp_path: Path
) -> None:
    path = tmp_path / "map.gpkg"
    rssc_geo.classify(fine_scene, path, OPTIONS, model=predictor)
    plain = dataclasses.replace(OPTIONS, snap=False)
    rssc_geo.classify(fine_scene, tmp_path / "plain.gpkg", plain, model=predictor)
    batch = BatchOptions(model=str(bundle), captioner="none", device="cpu", snap=True)
    rssc_geo.run_batch([fine_scene], tmp_path / "maps", batch)
    snapped = landuse_of(path)
    assert landuse_of(tmp_path / "maps" / "scene.gpkg").equals(snapped)
    cells = gpd.read_file(path, layer="cells")
    assert gpd.read_file(tmp_path / "plain.gpkg", layer="cells").equals(cells)
    assert snapped["cells"].sum() == len(cells)
    assert not snapped.equals(landuse_of(tmp_path / "plain.gpkg"))
    assert read_provenance(path)["steps"]["snap"]["cells"] == len(cells)
    assert "snap" not in read_provenance(tmp_path / "plain.gpkg").get("steps", {})


def test_superpixels_do_not_depend_on_the_area_of_interest(
    predictor: Predictor, fine_scene: Path, tmp_path: Path
) -> None:
    rssc_geo.classify(fine_scene, tmp_path / "map.gpkg", OPTIONS, model=predictor)
    cells = gpd.read_file(tmp_path / "map.gpkg", layer="cells")
    left, bottom, right, top = cells.total_bounds
    bounds = (left, bottom, left + 0.6 * (right - left), top)
    options = dataclasses.replace(OPTIONS, bounds=bounds, smooth=False)
    rssc_geo.classify(fine_scene, tmp_path / "part.gpkg", options, model=predictor)
    whole = dataclasses.replace(OPTIONS, smooth=False)
    rssc_geo.classify(fine_scene, tmp_path / "whole.gpkg", whole, model=predictor)
    side = cells.geometry.iloc[0].bounds[2] - cells.geometry.iloc[0].bounds[0]
    inside = box(left, bottom, bounds[2] - 4 * side, top)  # no voter of it is left out
    for name in set(landuse_of(tmp_path / "whole.gpkg")["class"]):
        parts = []
        for path in ("part.gpkg", "whole.gpkg"):
            landuse = landuse_of(tmp_path / path)
            of_class = landuse[landuse["class"] == name].geometry
            parts.append(shapely.union_all(of_class.intersection(inside)))
        # What is too small joins a neighbor, which may lie outside.
        assert parts[0].symmetric_difference(parts[1]).area < 2 * side**2


def test_what_is_made_of_a_snapped_map(
    predictor: Predictor, fine_scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "map.gpkg"
    rssc_geo.classify(fine_scene, path, OPTIONS, model=predictor)
    finished, landuse = FinishedMap(path), landuse_of(path)
    codes = finished.cells().codes
    middles = gpd.read_file(path, layer="cells").geometry.centroid
    for place in np.random.default_rng(1).choice(len(codes), 20):
        here = landuse[landuse.intersects(middles.iloc[place])]
        assert finished.names[codes[place]] in set(here["class"])
    rssc_geo.refine(path, tmp_path / "refined.gpkg", RefineOptions(min_area=1.0))
    assert "was snapped to its picture" in caplog.text
    assert "snap" not in read_provenance(tmp_path / "refined.gpkg").get("steps", {})


def test_snapped_maps_are_not_merged(fine_scene: Path, tmp_path: Path) -> None:
    options = BatchOptions(snap=True, merge="first")
    with pytest.raises(UsageError, match="--merge cuts scenes .* of --snap"):
        rssc_geo.run_batch([fine_scene], tmp_path / "all.gpkg", options)


CELL_M = 100
BEACH = 2
"""The class that has a region, but no cell."""


@pytest.fixture
def shore_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12 by 12 cells of one color, which the network tells to be one class west, another east.

    A third comes second everywhere. Where the two meet it has the most votes: a strip that holds
    no cell's middle.
    """

    def told(
        _self: Predictor,
        block: TileData,
        grid: BlockGrid,
        *,
        cells: CellRanges | None,
        **_: object,
    ) -> Prediction:
        rows, cols = cells or grid.cells_of_tile(block.tile)
        west = np.tile(np.arange(cols.start, cols.stop) < 6, len(rows))
        probabilities = np.where(west[:, None], (0.49, 0.15, 0.36), (0.15, 0.49, 0.36))
        count = len(west)
        unfamiliar = np.full(count, np.nan, np.float32)
        return Prediction(probabilities.astype(np.float32), [""] * count, unfamiliar)

    monkeypatch.setattr(Predictor, "classify_block", told)
    north_up = Affine(10, 0, 500_000, 0, -10, 5_000_000)
    pixels = np.full((3, 120, 120), 90, np.uint8)
    return write_raster(tmp_path / "shore.tif", pixels, transform=north_up)


@pytest.fixture
def summaries(monkeypatch: pytest.MonkeyPatch) -> list[LandUseSummary]:
    """What of a map is handed to the preview and the report."""
    seen = []
    write = Extras.write

    def noted(self: Extras, summary: LandUseSummary, *arguments: object) -> list[Path]:
        seen.append(summary)
        return write(self, summary, *arguments)

    monkeypatch.setattr(Extras, "write", noted)
    return seen


def test_a_class_that_holds_no_cells_middle_is_told_of_everywhere(
    predictor: Predictor,
    bundle: Path,
    shore_scene: Path,
    summaries: list[LandUseSummary],
    tmp_path: Path,
) -> None:
    names = {kind: tmp_path / f"map.{kind}" for kind in ("png", "html", "csv", "json")}
    path = tmp_path / "map.gpkg"
    options = dataclasses.replace(
        OPTIONS,
        smooth=False,
        preview=str(names["png"]),
        report=str(names["html"]),
        areas=str(names["csv"]),
        stac_item=str(names["json"]),
        date="2026-05-01",
    )
    told = rssc_geo.classify(shore_scene, path, options, model=predictor).as_dict()
    landuse = landuse_of(path)
    areas = landuse.groupby("class")["area_m2"].sum()
    beach = predictor.card.classes[BEACH]
    assert landuse.groupby("class")["cells"].sum()[beach.name] == 0
    assert areas[beach.name] == pytest.approx(0.5 * CELL_M * 12 * CELL_M, rel=0.5)
    assert len(areas) == 3

    assert {row["name"]: row["area_m2"] for row in told["classes"]} == pytest.approx(dict(areas))
    assert [row["regions"] for row in told["classes"]] == [1, 1, 1]
    (summary,) = summaries
    assert set(np.unique(summary.shown.class_grid)) == {0, 1, 2}  # what preview and report draw
    page = names["html"].read_text(encoding="utf-8")
    assert len(set(re.findall(r'data-class="class-(\d)"', page))) == 3
    with names["csv"].open(encoding="utf-8") as file:
        table = {row["class"]: float(row["area_m2"]) for row in csv.DictReader(file)}
    assert table == pytest.approx(dict(areas))
    item = json.loads(names["json"].read_text(encoding="utf-8"))
    assert item["properties"]["description"].startswith("144 cells of 3 classes")

    left, bottom, right, top = landuse.total_bounds
    halves = [
        box(left, bottom, right, (bottom + top) / 2),
        box(left, (bottom + top) / 2, right, top),
    ]
    zones = tmp_path / "zones.gpkg"
    gpd.GeoDataFrame({"name": ["south", "north"]}, geometry=halves, crs=landuse.crs).to_file(zones)
    asked = AreasOptions(zones=str(zones), zone_field="name")
    rows = rssc_geo.tabulate_areas(path, tmp_path / "zones.csv", asked).rows
    inside = [row.area_m2 for row in rows if row.name == beach.name and row.zone != "(all)"]
    assert inside == pytest.approx([areas[beach.name] / 2] * 2, rel=0.1)

    batch = BatchOptions(model=str(bundle), captioner="none", device="cpu", snap=True, smooth=False)
    result = rssc_geo.run_batch([shore_scene], tmp_path / "maps", batch)
    assert dict(result.area_m2) == pytest.approx(dict(areas))


def test_a_sample_leaves_out_a_class_without_cells(
    predictor: Predictor, shore_scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = dataclasses.replace(OPTIONS, smooth=False)
    rssc_geo.classify(shore_scene, tmp_path / "map.gpkg", options, model=predictor)
    sampling = SampleOptions(sample_size=20, min_per_class=2)
    sample = rssc_geo.assess_sample(tmp_path / "map.gpkg", tmp_path / "sample.gpkg", sampling)
    beach = predictor.card.classes[BEACH]
    assert [stratum.cells for stratum in sample.strata] == [72, 72]
    assert beach.name not in {stratum.name for stratum in sample.strata}
    assert f"no cell has its middle in a region of {beach.name} (" in caplog.text


def test_a_region_of_which_a_clip_leaves_nothing_is_not_counted(
    predictor: Predictor, shore_scene: Path, tmp_path: Path
) -> None:
    # Up to the middle of the eastmost column of land: its cells are mapped, the strip is cut off.
    bounds = (500_000, 5_000_000 - 1200, 500_000 + 560, 5_000_000)
    options = dataclasses.replace(OPTIONS, smooth=False, bounds=bounds, aoi_clip=True)
    path = tmp_path / "map.gpkg"
    summary = rssc_geo.classify(shore_scene, path, options, model=predictor).summary
    landuse = landuse_of(path)
    assert summary.regions == len(landuse)
    assert {total.name for total in summary.present} == set(landuse["class"])
