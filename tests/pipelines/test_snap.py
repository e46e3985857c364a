"""``--snap`` from every interface: the same map however a scene was classified, and its results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely.geometry import box

import rssc_geo
from rssc_geo import BatchOptions, ClassifyOptions, Predictor, RefineOptions, UsageError
from rssc_geo.captioning import NoCaptioner
from rssc_geo.inference import choose_compute
from rssc_geo.models import Model, load_bundle, save_bundle
from rssc_geo.output import FinishedMap, read_provenance

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
