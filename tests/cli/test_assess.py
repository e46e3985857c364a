"""assess sample and assess accuracy, from a map to figures."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from shapely.geometry import LineString, Point, Polygon, box

from tests.factories import CELLS, write_map

from .conftest import Rssc

CHANGE = ("Deforestation", "Forest gain", "Stable forest", "Stable non-forest")
MATRIX = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
EQUAL_AREA = "EPSG:6933"
STRATA = "AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDDDDDDDDD"
MAPPED = "AAAAAAABBBABBBBBBBBBBBCCCCCCBBDDDDDDDDDD"
TRUTH = "AAAAACBABCABBBBBAABBCCCCCDDBBADDDDDDDCCB"


def centers(rows: np.ndarray, cols: np.ndarray, transform: Affine) -> list[Point]:
    return [Point(transform @ (col + 0.5, row + 0.5)) for row, col in zip(rows, cols, strict=True)]


def rounded(estimate: dict[str, float], digits: int = 4, factor: float = 1) -> tuple[float, float]:
    """A figure and half of its 95 % interval, as the paper prints them."""
    half = 1.96 * estimate["standard_error"]
    return round(estimate["value"] * factor, digits), round(half * factor, digits)


@pytest.fixture(scope="module")
def change(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The example of Olofsson et al. (2014): 10,000 cells of 90 ha stand for 1,000 pixels each."""
    folder = tmp_path_factory.mktemp("change")
    side = np.sqrt(900_000)
    transform = Affine(side, 0, 0, 0, -side, 50 * side)
    classes = np.repeat(range(4), [200, 150, 3200, 6450]).reshape(100, 100)
    path = write_map(folder / "map.gpkg", classes, CHANGE, crs=EQUAL_AREA, transform=transform)
    random = np.random.default_rng(0)
    places, labels, strata = [], [], []
    for index, row in enumerate(MATRIX):
        cells = random.choice(np.flatnonzero(classes.ravel() == index), row.sum(), replace=False)
        places += centers(cells // 100, cells % 100, transform)
        labels += [CHANGE[truth] for truth in np.repeat(range(4), row)]
        strata += [CHANGE[index]] * row.sum()
    points = gpd.GeoDataFrame({"class": labels, "stratum": strata}, geometry=places, crs=EQUAL_AREA)
    points.to_file(folder / "points.gpkg", layer="points")
    return path, folder / "points.gpkg"


def test_strata_that_are_the_map_s_classes(
    rssc: Rssc, change: tuple[Path, Path], tmp_path: Path
) -> None:
    """Olofsson et al. (2014), section 5, to the digits of the paper."""
    path, points = change
    done = rssc("assess", "accuracy", path, "--reference", points, "--json", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)["maps"]
    assert rounded(found["overall_accuracy"]) == (0.9465, 0.0185)
    table = {row["name"]: row for row in found["classes"]}
    expected = {
        "Deforestation": ((0.88, 0.074), (0.7487, 0.2133), (21157.8, 6157.6)),
        "Forest gain": ((0.7333, 0.1008), (0.8472, 0.2544), (11686.2, 3755.8)),
        "Stable forest": ((0.9273, 0.0397), (0.9345, 0.0343), (285769.9, 15509.8)),
        "Stable non-forest": ((0.9631, 0.0205), (0.9616, 0.0184), (581386.2, 16281.7)),
    }
    for name, (users, producers, area) in expected.items():
        assert rounded(table[name]["users_accuracy"]) == users
        assert rounded(table[name]["producers_accuracy"]) == producers
        assert rounded(table[name]["area_m2"], 1, 1e-4) == pytest.approx(area, abs=0.11)
    assert "Olofsson" in found["estimator"]
    assert "without finite population correction" in found["estimator"]
    assert found["notes"] == []
    units = dict(zip(CHANGE, MATRIX.tolist(), strict=True))
    order = [row["name"] for row in found["classes"]]
    assert found["matrix"]["units"] == [[units[a][CHANGE.index(b)] for b in order] for a in order]
    page = (tmp_path / "out" / "accuracy.html").read_text(encoding="utf-8")
    assert "94.6 ± 1.8 %" in page or "94.7 ± 1.8 %" in page
    assert page.count("<circle") == 4
    with (tmp_path / "out" / "classes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [*order, "(all)"]
    with (tmp_path / "out" / "matrix.csv").open(encoding="utf-8") as file:
        assert sum(float(row["units"]) for row in csv.DictReader(file)) == 640
    assert json.loads((tmp_path / "out" / "accuracy.json").read_text(encoding="utf-8"))["maps"]
    text = rssc("assess", "accuracy", path, "--reference", points)
    assert "overall accuracy 0.9465 ± 0.0185" in text.out


@pytest.mark.slow
def test_strata_that_are_not_the_map_s_classes(rssc: Rssc, tmp_path: Path) -> None:
    """Stehman (2014), table 2, to the digits of the paper."""
    shares = {"A": "AAAAAAABBB", "B": "ABBBBBBBBB", "C": "BBCCCCCCBB", "D": "DDDDDDDDDD"}
    sizes = {"A": 40_000, "B": 30_000, "C": 20_000, "D": 10_000}
    letters = "".join(
        "".join(letter * (size // 10) for letter in shares[name]) for name, size in sizes.items()
    )
    classes = np.array(["ABCD".index(letter) for letter in letters]).reshape(250, 400)
    transform = Affine(30, 0, 0, 0, -30, 0)
    path = write_map(tmp_path / "map.gpkg", classes, "ABCD", crs=EQUAL_AREA, transform=transform)
    firsts = dict(zip("ABCD", np.cumsum([0, 40_000, 30_000, 20_000]), strict=True))
    cells = []
    for number, (stratum, mapped) in enumerate(zip(STRATA, MAPPED, strict=True)):
        of_stratum = np.arange(firsts[stratum], firsts[stratum] + sizes[stratum])
        cells.append(of_stratum[classes.ravel()[of_stratum] == "ABCD".index(mapped)][number])
    places = centers(np.array(cells) // 400, np.array(cells) % 400, transform)
    points = gpd.GeoDataFrame(
        {
            "truth": list(TRUTH),
            "stratum": list(STRATA),
            "stratum_cells": [sizes[name] for name in STRATA],
        },
        geometry=places,
        crs=EQUAL_AREA,
    )
    points.to_crs("EPSG:4326").to_file(tmp_path / "points.geojson")
    done = rssc(
        "assess", "accuracy", path, "--reference", tmp_path / "points.geojson", "--field", "truth",
        "--json", "-q",
    )  # fmt: skip
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)["maps"]

    def pairs(name: str) -> list[tuple[float, float]]:
        figures = [row[name] for row in found["classes"]]
        return [(round(each["value"], 4), round(each["standard_error"], 4)) for each in figures]

    assert pairs("area_share") == [(0.35, 0.0822), (0.34, 0.0759), (0.2, 0.0643), (0.11, 0.0307)]
    assert pairs("users_accuracy") == [
        (0.7419, 0.1645), (0.5745, 0.1248), (0.5, 0.2151), (0.7, 0.1527),
    ]  # fmt: skip
    assert pairs("producers_accuracy") == [
        (0.6571, 0.1477), (0.7941, 0.1165), (0.3, 0.1504), (0.6364, 0.1623),
    ]  # fmt: skip
    overall = found["overall_accuracy"]
    assert (round(overall["value"], 4), round(overall["standard_error"], 4)) == (0.63, 0.0846)
    assert found["matrix"]["shares"][1][2] == pytest.approx(0.08)
    assert "Stehman (2014), with finite population correction" in found["estimator"]
    assert any("labels in a stratum: A 10, B 10" in note for note in found["notes"])


NAMES = ("Forest", "Farmland", "DenseResidential", "Unknown")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """40 × 30 cells of 100 m: forest, fields, a town, and a corner of nothing known."""
    classes = np.zeros((40, 30), int)
    classes[20:] = 1
    classes[25:30, 10:20] = 2
    classes[:4, :5] = 3
    classes[39, 29] = -1
    return write_map(tmp_path / "small.gpkg", classes, NAMES)


def label(sample: Path, target: Path, rule: Callable[[gpd.GeoDataFrame], object]) -> Path:
    frame = gpd.read_file(sample, layer="sample")
    frame["class"] = rule(frame)
    frame.to_file(target, layer="sample", driver="GPKG")
    return target


@pytest.mark.parametrize("unit", ["cell", "point"])
def test_from_sample_to_areas(rssc: Rssc, small: Path, tmp_path: Path, unit: str) -> None:
    points = tmp_path / "points.gpkg"
    done = rssc(
        "assess", "sample", small, "-o", points, "--unit", unit, "--min-per-class", 20,
        "--sample-size", 150, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    values = json.loads(done.out)
    assert values["units"] == 150
    frame = gpd.read_file(points, layer="sample")
    assert frame["class"].isna().all()
    assert sorted(frame["number"]) == list(range(1, 151))
    assert set(frame.geom_type) == {"Point" if unit == "point" else "Polygon"}
    for stratum in values["strata"]:
        here = frame[frame["stratum"] == stratum["name"]]
        assert len(here) == stratum["drawn"] >= 20
        assert (here["stratum_cells"] == stratum["cells"]).all()
        assert here["inclusion"].to_numpy() == pytest.approx(stratum["drawn"] / stratum["cells"])
    cells = gpd.read_file(small, layer="cells").set_index(["row", "col"])
    for feature in frame.itertuples():
        cell = cells.loc[(feature.row, feature.col)]
        assert cell["class"] == feature.stratum
        assert cell.geometry.covers(feature.geometry)
    labeled = label(
        points,
        tmp_path / "labeled.gpkg",
        lambda f: f["stratum"].replace(
            {"DenseResidential": "dense residential", "Unknown": "Forest"}
        ),
    )
    done = rssc("assess", "accuracy", small, "--reference", labeled, "--json")
    (found,) = json.loads(done.out)["maps"]
    assert found["overall_accuracy"]["value"] == pytest.approx(1 - 20 / 1199, rel=1e-4)
    assert found["named_accuracy"]["value"] == 1
    assert any("Unknown, which count as wrong" in note for note in found["notes"])
    by_name = {row["name"]: row for row in found["classes"]}
    assert by_name["Forest"]["area_m2"]["value"] == pytest.approx(600 * 1e4, rel=2e-3)
    assert by_name["Unknown"]["users_accuracy"]["value"] == 0


def test_what_is_missing_is_said(rssc: Rssc, small: Path, tmp_path: Path) -> None:
    points = tmp_path / "points.gpkg"
    rssc("assess", "sample", small, "-o", points, "--min-per-class", 4, "--sample-size", 30)

    def some(frame: gpd.GeoDataFrame) -> object:
        found = frame["stratum"].copy()
        towns = np.flatnonzero(frame["stratum"] == "DenseResidential")
        found[frame["stratum"] == "Unknown"] = None
        found[towns[1:]] = "cannot tell"
        found[np.flatnonzero(frame["stratum"] == "Forest")[0]] = "Bog"
        return found

    labeled = label(points, tmp_path / "labeled.gpkg", some)
    done = rssc("assess", "accuracy", small, "--reference", labeled, "--json")
    assert done.code == 0
    (found,) = json.loads(done.out)["maps"]
    notes = "\n".join(found["notes"])
    assert "units left out, which assumes that they are like the others" in notes
    assert "4 without a label in Unknown" in notes
    assert "strata without a label, which no figure covers: Unknown (20.0 ha)" in notes
    assert "figures that use it have no standard error: DenseResidential" in notes
    assert "user's accuracy is not known: Unknown (20.0 ha)" in notes
    assert "labels of classes that the map does not have: Bog (1)" in notes
    assert found["overall_accuracy"]["standard_error"] is None
    assert found["area_m2"] == pytest.approx(1179 * 1e4, rel=1e-3)
    assert all(line.startswith("warning: ") for line in done.err.strip().splitlines())


def test_units_that_are_there_twice_are_told(rssc: Rssc, small: Path, tmp_path: Path) -> None:
    """As where the files of two people were joined in QGIS."""
    sample = tmp_path / "sample.gpkg"
    rssc("assess", "sample", small, "-o", sample, "--sample-size", 40)
    labeled = label(sample, tmp_path / "labeled.gpkg", lambda units: units["stratum"])
    assert "upon others" not in rssc("assess", "accuracy", small, "--reference", labeled).err
    units = gpd.read_file(labeled)
    twice = gpd.pd.concat([units, units.iloc[:6]])
    twice.to_file(tmp_path / "twice.gpkg", layer="sample")
    done = rssc("assess", "accuracy", small, "--reference", tmp_path / "twice.gpkg")
    assert "6 labeled units lie exactly upon others" in done.err


def test_a_legend_gives_strata_and_figures(rssc: Rssc, small: Path, tmp_path: Path) -> None:
    points = tmp_path / "points.gpkg"
    done = rssc(
        "assess", "sample", small, "-o", points, "--legend", "corine-1", "--sample-size", 60,
        "--min-per-class", 10, "--json",
    )  # fmt: skip
    names = [stratum["name"] for stratum in json.loads(done.out)["strata"]]
    assert names == [
        "1 Artificial surfaces", "2 Agricultural areas", "3 Forest and semi natural areas",
        "Unknown",
    ]  # fmt: skip
    by_class = {names[0]: "MediumResidential", names[2]: "3 Forest and semi natural areas"}
    labeled = label(
        points,
        tmp_path / "labeled.gpkg",
        lambda f: f["stratum"].map(by_class).fillna("Farmland"),
    )
    done = rssc(
        "assess", "accuracy", small, "--reference", labeled, "--legend", "corine-1", "--json", "-q"
    )
    (found,) = json.loads(done.out)["maps"]
    assert found["named_accuracy"]["value"] == 1
    assert [row["name"] for row in found["classes"]] == names


def test_results_that_are_passed_on_name_no_folder(rssc: Rssc, small: Path, tmp_path: Path) -> None:
    """What stands on the screen does."""
    legend = tmp_path / "mine.json"
    legend.write_text('{"crosswalk": {"Forest": "Wood"}, "unmapped": {"Farmland": "none"}}')
    shared = tmp_path.parent / f"{tmp_path.name}-shared"
    shared.mkdir()
    points, more = shared / "points.gpkg", ("--legend", legend, "-q")
    assert rssc("assess", "sample", small, "-o", points, "--sample-size", 60, *more).code == 0
    labeled = label(points, tmp_path / "labeled.gpkg", lambda f: f["stratum"])
    frame = gpd.read_file(labeled)
    frame.loc[0, "class"] = "Farmland"  # so that a note tells of the legend
    frame.to_file(labeled, layer="sample")
    reference = f"{labeled}|layername=sample"
    done = rssc(
        "assess", "accuracy", small, small, "--reference", reference, "-o", shared / "acc",
        "--json", *more,
    )  # fmt: skip
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["maps"][0]["map"], told["reference"]) == (str(small), reference)
    written = json.loads((shared / "acc" / "accuracy.json").read_text(encoding="utf-8"))
    assert (written["maps"][0]["map"], written["reference"]) == (
        small.name,
        "labeled.gpkg|layername=sample",
    )
    assert any("in the legend mine.json" in note for note in written["maps"][0]["notes"])
    for path in shared.rglob("*.*"):
        assert f"{tmp_path}{os.sep}".encode() not in path.read_bytes(), path


def test_polygons_count_by_what_they_cover(rssc: Rssc, small: Path, tmp_path: Path) -> None:
    """One covers six forest cells and two of fields; the other is outside in part."""
    x, y = CELLS @ (10, 20)
    east, south = CELLS @ (30, 40)
    areas = [
        box(x, y - 100, x + 200, y + 300),
        box(east - 500, south + 200, east + 500, south + 700),
    ]
    frame = gpd.GeoDataFrame({"class": ["Forest", "Farmland"]}, geometry=areas, crs="EPSG:32632")
    frame.to_file(tmp_path / "areas.gpkg")
    done = rssc("assess", "accuracy", small, "--reference", tmp_path / "areas.gpkg", "--json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)["maps"]
    units = dict(zip([r["name"] for r in found["classes"]], found["matrix"]["units"], strict=True))
    assert sum(units["Forest"]) == pytest.approx(0.75)
    assert sum(units["Farmland"]) == pytest.approx(1.25)
    assert any("assumed to be a simple random sample" in note for note in found["notes"])
    assert any("1 units reach beyond the map" in note for note in found["notes"])


def test_maps_on_one_sample_are_compared(rssc: Rssc, small: Path, tmp_path: Path) -> None:
    worse = np.zeros((40, 30), int)
    worse[39, 29] = -1
    other = write_map(tmp_path / "worse.parquet", worse, NAMES)
    points = tmp_path / "points.gpkg"
    rssc("assess", "sample", small, "-o", points, "--sample-size", 200)
    labeled = label(points, tmp_path / "labeled.gpkg", lambda f: f["stratum"])
    done = rssc("assess", "accuracy", small, other, "--reference", labeled, "--json", "-q")
    values = json.loads(done.out)
    first, second = (found["overall_accuracy"]["value"] for found in values["maps"])
    (compared,) = values["comparisons"]
    assert compared["difference"]["value"] == pytest.approx(first - second)
    assert compared["p_value"] < 1e-6
    text = rssc("assess", "accuracy", small, other, "--reference", labeled, "-q")
    assert text.code == 0


def test_a_map_is_what_its_regions_show(rssc: Rssc, tmp_path: Path) -> None:
    """A cell that joined a neighbor under --min-area is of the neighbor's class."""
    classes = np.zeros((12, 12), int)
    classes[5, 5] = 1
    path = write_map(tmp_path / "map.gpkg", classes, NAMES, min_area=20_000)
    done = rssc("assess", "sample", path, "-o", tmp_path / "points.gpkg", "--json")
    (stratum,) = json.loads(done.out)["strata"]
    assert (stratum["name"], stratum["cells"]) == ("Forest", 144)


@pytest.mark.parametrize("suffix", [".fgb", ".geojson", ".parquet", ".shp"])
def test_maps_of_all_formats(rssc: Rssc, tmp_path: Path, suffix: str) -> None:
    classes = np.arange(36).reshape(6, 6) // 18
    path = write_map(tmp_path / f"map{suffix}", classes, NAMES)
    points = tmp_path / "points.gpkg"
    done = rssc("assess", "sample", path, "-o", points, "--design", "systematic", "--json")
    assert done.code == 0, done.err
    assert [stratum["cells"] for stratum in json.loads(done.out)["strata"]] == [36]


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["sample", "none.gpkg", "-o", "p.gpkg"], "none.gpkg does not exist", 1),
        (["sample", "small.gpkg", "-o", "p.geojson"], "a sample is a GeoPackage", 2),
        (["sample", "small.gpkg", "-o", "small.gpkg"], "is the input itself", 2),
        (["sample", "lines.gpkg", "-o", "p.gpkg"], "lines.gpkg is no map of rssc-geo", 1),
        (["sample", "small.gpkg", "-o", "lines.gpkg"], "lines.gpkg exists", 1),
        (["sample", "small.gpkg", "-o", "lines.gpkg", "--overwrite"], "has not made", 1),
        (["sample", "small.gpkg", "-o", "p.gpkg", "--legend", "anderson"], "nor one of", 2),
        (["sample", "small.gpkg", "-o", "p.gpkg", "--legend", "own.json"], "no crosswalk", 1),
        (["sample", "small.gpkg", "-o", "p.gpkg", "--standard-error", "0"], "needs a label", 2),
        (["accuracy", "small.gpkg", "--reference", "lines.gpkg"], "holds LineString", 1),
        (["accuracy", "small.gpkg", "--reference", "empty.gpkg"], "holds no label yet", 1),
        (["accuracy", "small.gpkg", "--reference", "void.gpkg"], "1 features have no place", 1),
        (["accuracy", "small.gpkg", "--reference", "no.gpkg"], "cannot be read as a vector", 1),
        (
            ["accuracy", "small.gpkg", "--reference", "empty.gpkg", "--field", "kind"],
            "has no column 'kind'",
            1,
        ),
        (["accuracy", "small.gpkg", "--reference", "far.gpkg"], "no labeled unit lies on", 1),
        (["accuracy", "small.gpkg", "--reference", "strata.gpkg"], "sizes of the strata", 1),
        (["accuracy", "--reference", "far.gpkg"], "Missing argument 'MAP...'", 2),
    ],
)
def test_mistakes_are_one_line(
    rssc: Rssc,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    near = Point(CELLS @ (3, 30))
    for name, columns, place in (
        ("lines", {"class": ["Forest"]}, LineString([(0, 0), (1, 1)])),
        ("empty", {"class": [""]}, near),
        ("void", {"class": ["Forest"]}, Polygon()),
        ("far", {"class": ["Forest"]}, Point(0, 0)),
        ("strata", {"class": ["Forest"], "stratum": ["north"]}, near),
    ):
        frame = gpd.GeoDataFrame(columns, geometry=[place], crs="EPSG:32632")
        frame.to_file(tmp_path / f"{name}.gpkg")
    (tmp_path / "own.json").write_text('{"crosswalk": {"Forest": 3}}')
    done = rssc("assess", *arguments)
    assert done.code == code
    assert message in done.message


@pytest.mark.parametrize(
    ("column", "sizes"),
    [
        ("stratum_cells", [np.inf, np.inf]),
        ("stratum_cells", [2.0**63, 2.0**63]),
        ("stratum_cells", [0.5, 0.5]),
        ("stratum_m2", [1e308, 1e308]),
        ("stratum_m2", [10.0, np.inf]),
        ("stratum_m2", [1e-320, 1e-320]),
        ("area_m2", [10.0, np.inf]),
        ("area_m2", [1e300, 1e300]),
    ],
)
def test_sizes_that_nothing_on_earth_has_are_one_line(
    rssc: Rssc, small: Path, tmp_path: Path, column: str, sizes: list[float]
) -> None:
    near = [Point(CELLS @ (3, 30)), Point(CELLS @ (4, 31))]
    columns = {"class": ["Forest"] * 2, "stratum": ["north", "south"], column: sizes}
    reference = tmp_path / "odd.gpkg"
    gpd.GeoDataFrame(columns, geometry=near, crs="EPSG:32632").to_file(reference)
    done = rssc("assess", "accuracy", small, "--reference", reference, "-o", tmp_path / "found")
    assert done.code == 1
    assert f"odd.gpkg: column '{column}'" in done.message
    assert not (tmp_path / "found").exists()
