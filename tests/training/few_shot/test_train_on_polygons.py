"""Learning from labeled polygons: labels, patches, folds, probe, bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import LineString, Point, box

from rssc_geo.errors import InputError, UsageError
from rssc_geo.evaluation import evaluate_on_polygons
from rssc_geo.geometry import TileGrid
from rssc_geo.inference import make_plan
from rssc_geo.models import Model, load_bundle, load_card
from rssc_geo.options import (
    ClassifyOptions,
    EvaluateOptions,
    TilingOptions,
    TrainOnPolygonsOptions,
)
from rssc_geo.pipelines.classify import classify
from rssc_geo.raster import Scene, open_scene
from rssc_geo.training import (
    Patches,
    accuracy_interval,
    blocked_folds,
    cut_patches,
    fit_probe,
    read_labels,
    tiles_over,
)
from rssc_geo.training.few_shot.train_on_polygons import train_on_polygons
from tests.factories import write_raster

UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def write_scene(path: Path, pixels: np.ndarray, transform: Affine = UTM) -> Scene:
    return open_scene(write_raster(path, pixels, transform=transform, photometric="rgb"))


def area(left: float, top: float, right: float, bottom: float, transform: Affine = UTM):
    """A rectangle of pixels on the ground (an upright raster)."""
    return box(*(transform @ (left, bottom)), *(transform @ (right, top)))


def write_labels(
    path: Path, rows: list[tuple[object, object]], *, field: str = "class", **options: object
) -> Path:
    frame = gpd.GeoDataFrame(
        {field: [name for name, _ in rows]}, geometry=[shape for _, shape in rows], crs="EPSG:32632"
    )
    frame.to_crs(4326).to_file(path, **options)
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Scene:
    return write_scene(tmp_path / "plain.tif", np.full((3, 200, 300), 90, np.uint8))


def test_labels_keep_what_can_be_learned_from(
    plain: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        (3.0, area(0, 0, 50, 50)),
        (12.0, area(50, 50, 100, 100)),
        (None, area(100, 0, 150, 50)),
        (3.0, LineString([UTM @ (0, 0), UTM @ (50, 50)])),
        (3.0, area(1000, 1000, 1100, 1100)),
        (12.0, Point(*(UTM @ (200, 100)))),
    ]
    path = write_labels(tmp_path / "labels.geojson", rows)
    found = read_labels(path, plain, field="class", around_points=(20, 40))
    assert found.classes == ("12", "3")
    assert found.codes.tolist() == [1, 0, 0]
    np.testing.assert_allclose(
        [shape.bounds for shape in found.areas],
        [(0, 0, 50, 50), (50, 50, 100, 100), (180, 90, 220, 110)],
        atol=0.01,
    )
    for words in (
        "1 feature(s) without a class",
        "1 feature(s) without an area",
        "1 feature(s) outside",
    ):
        assert words in caplog.text
    assert len(read_labels(path, plain, field="class").areas) == 2  # points are no labels here


def test_labels_are_clipped_to_the_area_of_interest(
    plain: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("a", area(0, 0, 50, 50)), ("b", area(100, 0, 150, 50)), ("a", area(40, 60, 80, 90))]
    path = write_labels(tmp_path / "labels.geojson", rows)
    found = read_labels(path, plain, field="class", within=area(20, 0, 60, 100))
    assert found.classes == ("a",)
    np.testing.assert_allclose(
        [shape.bounds for shape in found.areas], [(20, 0, 50, 50), (40, 60, 60, 90)], atol=0.01
    )
    assert "1 feature(s) outside the area of interest on" in caplog.text
    with pytest.raises(InputError, match="no labeled polygon lies on the area of interest on"):
        read_labels(path, plain, field="class", within=area(200, 0, 210, 100))


def test_unusable_labels_are_refused_in_one_line(plain: Scene, tmp_path: Path) -> None:
    path = write_labels(
        tmp_path / "labels.gpkg", [("a", area(0, 0, 9, 9)), ("b", area(9, 9, 20, 20))], layer="one"
    )
    write_labels(path, [("a", area(0, 0, 9, 9))], layer="two")
    with pytest.raises(
        InputError,
        match=r"layers one, two have a column 'class'; name one, as '.*labels.gpkg\|layername=one'",
    ):
        read_labels(path, plain, field="class")
    assert read_labels(f"{path}|layername=one", plain, field="class").classes == ("a", "b")
    with pytest.raises(InputError, match="has no layer 'three'; there are 'one', 'two'"):
        read_labels(f"{path}|layername=three", plain, field="class")
    with pytest.raises(InputError, match="has no column 'kind'; there are one: class; two: class"):
        read_labels(path, plain, field="kind")
    lines = write_labels(
        tmp_path / "lines.gpkg", [("a", LineString([UTM @ (0, 0), UTM @ (50, 50)]))]
    )
    with pytest.raises(InputError, match="holds LineString, no polygons"):
        read_labels(lines, plain, field="class")
    many = write_labels(
        tmp_path / "many.gpkg",
        [(number, area(number % 290, 0, number % 290 + 5, 5)) for number in range(600)],
    )
    with pytest.raises(
        InputError, match="column 'class' holds 600 different values, no classes; there are 'class'"
    ):
        read_labels(many, plain, field="class")
    empty = write_labels(tmp_path / "empty.gpkg", [("", area(0, 0, 9, 9)), (" ", area(0, 0, 9, 9))])
    with pytest.raises(InputError, match="names no class in any of its 2 features"):
        read_labels(empty, plain, field="class")
    away = write_labels(tmp_path / "away.gpkg", [("a", area(1000, 1000, 1100, 1100))])
    with pytest.raises(InputError, match="no labeled polygon lies on the raster"):
        read_labels(away, plain, field="class")


@given(
    st.tuples(st.integers(5, 90), st.integers(5, 90)),
    st.integers(2, 30),
    st.integers(1, 30),
    st.tuples(*[st.floats(-10, 100)] * 4),
)
def test_tiles_over_bounds_are_those_that_touch_them(
    shape: tuple[int, int], size: int, cell_size: int, corners: tuple[float, float, float, float]
) -> None:
    grid = TileGrid(shape, (size, size), (min(cell_size, size),) * 2)
    bounds = (min(corners[:2]), min(corners[2:]), max(corners[:2]), max(corners[2:]))
    expected = [
        tile.index
        for tile in grid.tiles()
        if (w := tile.window).col <= bounds[2]
        and w.col + w.width >= bounds[0]
        and w.row <= bounds[3]
        and w.row + w.height >= bounds[1]
    ]
    assert tiles_over(grid, bounds)[0].tolist() == expected


def test_patches_lie_where_the_labels_are(
    small_model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.zeros((3, 200, 300), np.uint8)
    pixels[0] = np.arange(200)[:, None]
    pixels[1] = np.arange(300) // 2
    scene = write_scene(tmp_path / "ramp.tif", pixels)
    rows = [
        ("large", area(20, 20, 120, 100)),
        ("small", area(200, 20, 206, 26)),
        ("under", area(30, 30, 90, 90)),  # another class lies upon it wholly
    ]
    labels = read_labels(write_labels(tmp_path / "labels.gpkg", rows), scene, field="class")
    plan = make_plan(
        tmp_path / "ramp.tif", small_model.card, TilingOptions(tile_size="40px", force=True)
    )
    patches = cut_patches(plan, labels, purity=0.6, out_size=(40, 40))
    assert "1 labeled area(s) are covered more by other classes" in caplog.text
    assert set(patches.names.tolist()) == {"large", "small"}
    assert patches.mixed.tolist() == (patches.names == "small").tolist()
    # The picture says where it was cut: its center's row and column lie within the area.
    center = patches.pixels[:, 20, 20].astype(int)
    large = patches.names == "large"
    assert (
        (center[large, 0] >= 20) & (center[large, 0] <= 100) & (center[large, 1] * 2 <= 120)
    ).all()
    assert abs(center[~large, 0] - 23).max() <= 20
    assert abs(center[~large, 1] * 2 - 203).max() <= 20
    assert patches.side_m == pytest.approx(400, rel=0.001)
    # Distances between places are those on the ground (UTM's scale is within 0.1 %).
    apart = np.linalg.norm(patches.places[0] - patches.places[-1])
    moved = np.hypot(*(center[0] - center[-1])[:2] * (10, 20))
    assert apart == pytest.approx(moved, abs=21)


def test_large_and_many_areas_are_balanced(
    small_model: Model, plain: Scene, tmp_path: Path
) -> None:
    rows = [
        ("wide", area(0, 0, 300, 150)),
        *(
            ("dots", area(x, y, x + 2, y + 2))
            for x in range(0, 300, 10)
            for y in range(150, 200, 3)
        ),
    ]
    labels = read_labels(write_labels(tmp_path / "labels.gpkg", rows), plain, field="class")
    plan = make_plan(
        tmp_path / "plain.tif", small_model.card, TilingOptions(tile_size="4px", force=True)
    )
    patches = cut_patches(plan, labels, purity=0.6, out_size=(8, 8))
    counts = {name: int((patches.names == name).sum()) for name in ("wide", "dots")}
    assert counts == {"wide": 8, "dots": 200}


def test_folds_keep_neighbors_on_one_side() -> None:
    random = np.random.default_rng(0)
    places = np.column_stack(
        [random.uniform(0, 6000, 300), random.uniform(0, 6000, 300), np.zeros(300)]
    )
    labels = (places[:, 0] > 3000).astype(int)
    tested = []
    for training, held in blocked_folds(patches_at(places, labels)):
        distance = np.linalg.norm(places[training][:, None] - places[held][None], axis=2)
        assert distance.min() > 200 * np.sqrt(2)
        assert len(training) > 100
        tested += held.tolist()
    assert sorted(tested) == list(range(300))
    assert not list(blocked_folds(patches_at(places / 1000, labels)))  # all in one place


def patches_at(
    places: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None, side_m: float = 200.0
) -> Patches:
    """Patches without pixels."""
    none = np.full(len(places), "", object)
    return Patches(
        np.zeros((len(places), 1, 1, 3), np.uint8),
        np.array([f"class {label}" for label in labels], object),
        places,
        np.zeros(len(places), bool),
        none if groups is None else groups,
        none,
        side_m,
    )


def test_groups_are_never_on_both_sides() -> None:
    random = np.random.default_rng(1)
    places = np.column_stack([random.uniform(0, 40_000, (120, 2)), np.zeros(120)])
    labels = random.integers(0, 2, 120)
    groups = np.array([f"site {number % 7}" if number % 4 else "" for number in range(120)], object)
    patches = patches_at(places, labels, groups)
    tested = []
    for training, held in blocked_folds(patches):
        assert not (set(groups[training]) & set(groups[held])) - {""}
        tested += held.tolist()
    assert len(tested) == len(set(tested)) > 100


def test_intervals_are_those_of_independent_samples_or_of_blocks() -> None:
    right = np.arange(100) < 80
    low, high = accuracy_interval(right, np.arange(100))
    assert (low, high) == pytest.approx((0.71112, 0.86663), abs=1e-4)  # Wilson, by its formula
    # Copies of the same ten samples say what ten say: wider by more than the root of ten.
    blocks = np.repeat(np.arange(10), 10)
    wide = accuracy_interval(np.repeat(np.arange(10) < 8, 10), blocks)
    assert wide[1] - wide[0] > 2.5 * (high - low)
    # Blocks that are as mixed as the whole are as good as independent samples, but for Student's t.
    mixed = accuracy_interval(np.tile(np.arange(10) < 8, 10), blocks)
    assert mixed[1] - mixed[0] == pytest.approx(high - low, rel=0.2)
    sure = accuracy_interval(np.ones(60, bool), np.repeat(np.arange(6), 10))
    assert sure[1] == pytest.approx(1)
    assert 0.3 < sure[0] < 0.75  # six blocks, not sixty samples


def test_a_model_is_tested_on_labels_apart_and_knows_its_own_again(
    tmp_path: Path, bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transform = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    pixels = np.concatenate([texture("dark", 900, 600, 0), texture("light", 900, 600, 1)], axis=2)
    path = tmp_path / "scene.tif"
    write_scene(path, pixels, transform)
    sites = [("dark", 100), ("light", 800)]
    rows = [
        (name, area(left, top, left + 220, top + 200, transform))
        for name, left in sites
        for top in (0, 300)
    ]
    labels = write_labels(tmp_path / "labels.gpkg", rows)
    apart = [(name, area(left, 650, left + 220, 850, transform)) for name, left in sites]
    touching = [("dark", area(100, 200, 320, 400, transform))]
    unknown = [("meadow", area(500, 700, 700, 880, transform))]
    tests = write_labels(tmp_path / "tests.gpkg", [*apart, *touching, *unknown])
    options = TrainOnPolygonsOptions(
        model=str(bundle), tile_size="200m", device="cpu", test_labels=(str(tests),)
    )
    once = zip([path], [labels], strict=True)  # pairs that can be read only once
    result = train_on_polygons(once, tmp_path / "mine", options)
    assert len(result.card.training["sources"]) == 1
    assert result.measured is not None
    assert result.measured.by_labels_apart
    assert result.measured.counts[0] == result.measured.counts[1] == result.scores.confusion.sum()  # type: ignore[union-attr]
    assert "patch(es) of classes that are not learned left out" in caplog.text
    assert "patch(es) that touch what is learned from left out" in caplog.text
    assert "test_labels" in result.card.accuracy
    readme = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert "Measured on labels of their own, which nothing learned touches." in readme
    told = result.as_dict()
    assert told["tested"]["classes"]["dark"]["of"] == told["scores"]["per_class"]["dark"]["support"]

    measured = evaluate_on_polygons(
        str(tmp_path / "mine"), zip([path], [labels], strict=True), EvaluateOptions(device="cpu")
    )
    assert f"trained has learned from {labels}" in measured.warnings[0]
    fresh = evaluate_on_polygons(
        str(tmp_path / "mine"), [(path, tests)], EvaluateOptions(device="cpu")
    )
    assert not any("has learned from" in warning for warning in fresh.warnings)

    with pytest.raises(InputError, match="--test-labels: no patch lies apart"):
        same = dataclasses.replace(options, test_labels=(str(labels),))
        train_on_polygons([(path, labels)], tmp_path / "new", same)
    with pytest.raises(UsageError, match="give --test-labels once for all rasters, or once"):
        many = dataclasses.replace(options, test_labels=(str(tests),) * 3)
        train_on_polygons([(path, labels)], tmp_path / "new", many)


def test_labels_of_a_group_are_tested_together(tmp_path: Path, bundle: Path) -> None:
    transform = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    pixels = np.concatenate([texture("dark", 900, 600, 0), texture("light", 900, 600, 1)], axis=2)
    path = tmp_path / "scene.tif"
    write_scene(path, pixels, transform)
    rows = [
        (name, site, area(left, top, left + 220, top + 200, transform))
        for name, left in (("dark", 100), ("light", 800))
        for site, top in (("north", 0), ("north", 300), ("south", 680))
    ]
    frame = gpd.GeoDataFrame(
        {"class": [row[0] for row in rows], "site": [row[1] for row in rows]},
        geometry=[row[2] for row in rows],
        crs="EPSG:32632",
    )
    frame.to_file(tmp_path / "labels.gpkg")
    options = TrainOnPolygonsOptions(
        model=str(bundle), tile_size="200m", device="cpu", group_field="site"
    )
    result = train_on_polygons([(path, tmp_path / "labels.gpkg")], tmp_path / "mine", options)
    assert result.measured is not None
    tested, of = result.measured.counts
    assert 0 < tested <= of
    low, high = result.measured.interval
    assert high - low > 0.5  # two groups tell little
    missing = dataclasses.replace(options, group_field="plot")
    with pytest.raises(InputError, match="has no column 'plot'; there are 'class', 'site'"):
        train_on_polygons([(path, tmp_path / "labels.gpkg")], tmp_path / "new", missing)


def test_the_probe_separates_and_undoes_its_scaling() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 2], [30, 6])
    embedding = random.normal(0, 0.01, (36, 50)) + 5
    embedding[labels == 2, 3] += 0.2
    probe = fit_probe(embedding, labels, classes=3)
    found = probe.logits(embedding)
    assert (found.argmax(1) == labels).all()
    assert (found[:, 1] < found.max(1) - 10).all()  # no example of it
    again = fit_probe(embedding * 7 - 3, labels, classes=3)
    np.testing.assert_allclose(again.logits(embedding * 7 - 3), found, atol=0.02)


def texture(kind: str, rows: int, cols: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if kind == "stripes":
        level = np.broadcast_to(np.where(np.arange(cols) // 6 % 2, 190, 90), (rows, cols))
        return np.clip(
            np.stack([level, level, level // 2]) + random.integers(-9, 9, (3, rows, cols)), 0, 255
        ).astype(np.uint8)
    level = random.integers(20, 60, (rows, cols))
    return np.stack([level, level + 40, level]).astype(np.uint8)


@pytest.mark.slow
def test_polygons_become_a_model_that_maps_their_classes(tmp_path: Path) -> None:
    transform = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    pixels = np.concatenate(
        [texture("stripes", 1600, 800, 0), texture("dark", 1600, 800, 1)], axis=2
    )
    write_scene(tmp_path / "scene.tif", pixels, transform)
    names = ('Æcker, "new" 🌾 <b>', "wood'; DROP TABLE x")
    rows = [
        (names[side], area(side * 800 + x, y, side * 800 + x + 300, y + 300, transform))
        for side in (0, 1)
        for x in (50, 420)
        for y in (60, 500, 1200)
    ]
    labels = write_labels(tmp_path / "labels.gpkg", rows, field="kind")
    options = TrainOnPolygonsOptions(field="kind", tile_size="400m", name="mine", device="cpu")
    events: list[tuple[str, int, int]] = []
    result = train_on_polygons(
        [(tmp_path / "scene.tif", labels)],
        tmp_path / "mine",
        options,
        progress=lambda *event: events.append(event),
    )
    assert result.scores is not None
    assert result.scores.overall_accuracy > 0.95
    assert [event for event in events if event[0] == "read"] == [("read", 0, 1), ("read", 1, 1)]
    learned = [done for name, done, _ in events if name == "learn"]
    assert learned == list(range(events[-1][2] + 1))
    model = load_bundle(tmp_path / "mine")
    assert tuple(c.name for c in model.card.classes) == tuple(sorted(names))
    assert model.card.footprint.preferred_m == pytest.approx(400, rel=0.01)
    assert model.card.window_temperature is None, "that of the start's classes does not hold"
    readme = (tmp_path / "mine" / "README.md").read_text()
    assert "\\<b\\>" in readme
    assert "<b>" not in readme
    mapped = classify(
        tmp_path / "scene.tif",
        tmp_path / "map.gpkg",
        ClassifyOptions(model=str(tmp_path / "mine"), cell_size="400m", device="cpu"),
    )
    assert mapped.summary.cells == 64
    cells = gpd.read_file(tmp_path / "map.gpkg", layer="cells")
    left = cells.geometry.centroid.x < 501_600
    assert (cells["class"] == np.where(left, *names)).mean() > 0.95
    with pytest.raises(InputError, match="holds a bundle already"):
        train_on_polygons([(tmp_path / "scene.tif", labels)], tmp_path / "mine", options)


def test_bands_and_scaling_are_remembered_and_tiles_are_the_same(
    tmp_path: Path, bundle: Path
) -> None:
    """What tells the classes apart lies in band 4, in a narrow range."""
    transform = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    pixels = np.random.default_rng(0).integers(0, 60_000, (5, 800, 1200)).astype(np.uint16)
    pixels[3] = 300
    pixels[3, :, 600:] = 2700
    path = write_raster(tmp_path / "scene.tif", pixels, transform=transform)
    rows = [
        (name, area(left, y, left + 400, y + 200, transform))
        for name, left in (("low", 0), ("high", 700))
        for y in (0, 300, 600)
    ]
    labels = write_labels(tmp_path / "labels.gpkg", rows)
    options = TrainOnPolygonsOptions(
        model=str(bundle), tile_size="100px", bands=(4, 4, 4), stretch="0,3000", device="cpu"
    )
    train_on_polygons([(path, labels)], tmp_path / "mine", options)
    card = load_card(str(tmp_path / "mine"))
    assert (card.raster_bands, card.stretch) == ((4, 4, 4), "0,3000")
    plan = make_plan(path, card, TilingOptions())
    assert plan.scene.bands == (4, 4, 4)
    assert (plan.radiometry.low[0], plan.radiometry.high[0]) == (0, 3000)
    assert plan.grid.size == (100, 100)
    given = TilingOptions(bands=(3, 2, 1), stretch="minmax")
    assert make_plan(path, card, given).scene.bands == (3, 2, 1)
    measured = evaluate_on_polygons(
        str(tmp_path / "mine"), [(path, labels)], EvaluateOptions(device="cpu")
    )
    assert set(measured.data.pixels.ravel().tolist()) == {26, 230}  # of 255, of 3000
    narrow = write_raster(tmp_path / "rgb.tif", texture("dark", 300, 300, 0), transform=transform)
    with pytest.raises(UsageError, match="--bands 4,4,4: there is no band 4"):
        make_plan(narrow, card, TilingOptions())


def test_points_and_areas_of_interest_mean_the_same_in_evaluation(
    tmp_path: Path, bundle: Path
) -> None:
    transform = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    path = tmp_path / "scene.tif"
    write_scene(path, texture("dark", 400, 800, 0), transform)
    rows = [("Field", Point(*(transform @ (x, 150)))) for x in (150, 350, 650)]
    labels = write_labels(tmp_path / "labels.gpkg", rows)
    west = tuple(area(0, 0, 400, 400, transform).bounds)
    options = EvaluateOptions(tile_size="100px", bounds=west, device="cpu")
    measured = evaluate_on_polygons(str(bundle), [(path, labels)], options)
    assert measured.data.names == tuple(
        f"{path}, row {row}, column {column}" for row, column in ((100, 100), (100, 300))
    )


def test_weak_labels_are_named(tmp_path: Path, bundle: Path) -> None:
    transform = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    write_scene(tmp_path / "scene.tif", texture("dark", 900, 900, 0), transform)
    rows = [("wide", area(x, 0, x + 250, 250, transform)) for x in (0, 600)]
    rows += [("wide", area(x, 600, x + 250, 850, transform)) for x in (0, 600)]
    rows += [("spot", area(400, 400, 420, 420, transform))]
    labels = write_labels(tmp_path / "labels.gpkg", rows)
    options = TrainOnPolygonsOptions(model=str(bundle), tile_size="200m", device="cpu")
    result = train_on_polygons([(tmp_path / "scene.tif", labels)], tmp_path / "mine", options)
    told = " | ".join(result.warnings)
    assert "classes with fewer than 5 patches, label more: 'spot' 1" in told
    assert "patches that show mostly something else" in told
    assert "all of their patches are neighbors (label them elsewhere too): 'spot'" in told
    one = write_labels(tmp_path / "one.gpkg", rows[:2])
    with pytest.raises(InputError, match="only the class 'wide' is labeled"):
        train_on_polygons([(tmp_path / "scene.tif", one)], tmp_path / "other", options)
    with pytest.raises(UsageError, match="--cell-size has no effect here"):
        sized = dataclasses.replace(options, cell_size="100m")
        train_on_polygons([(tmp_path / "scene.tif", labels)], tmp_path / "other", sized)
    with pytest.raises(UsageError, match=r"--purity 0\.2 is no share"):
        TrainOnPolygonsOptions(purity=0.2)


@pytest.mark.slow
def test_a_real_scene_is_learned_from_ten_polygons_a_class(rasters: Path, tmp_path: Path) -> None:
    labels = Path(__file__).parent / "data" / "3420B_labels.gpkg"
    options = TrainOnPolygonsOptions(tile_size="150m", device="cpu")
    scene = rasters / "3420B_2010_328_RGB_LATLNG.tif"
    result = train_on_polygons([(scene, labels)], tmp_path / "mine", options)
    assert result.scores is not None
    assert result.scores.overall_accuracy > 0.88  # 0.934 when it was written
    assert set(result.card.training["patches"]) == {
        "cropland",
        "plantation",
        "settlement",
        "shrubland",
        "water",
    }
