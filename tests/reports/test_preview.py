"""The preview shows classes where they are, north up, and a legend that fits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyproj import CRS

from rssc_geo.geometry import TileGrid
from rssc_geo.models import SceneClass, scene_classes
from rssc_geo.output import GeoGrid, ShownClasses, rgb
from rssc_geo.reports import Overview, length_label, preview_picture, round_length

CLASSES = [
    SceneClass(0, "Red", "#ff0000"),
    SceneClass(1, "Green", "#00ff00"),
    SceneClass(
        2,
        "Blue with a name that is far too long to fit into any legend of any page that one would"
        " care to print",
        "#0000ff",
    ),
]
VALLEY = np.array(
    [[0, 0, 1], [0, -1, 1], [2, 2, 2]]
)  # red north-west, green north-east, blue south


def draw(
    path: Path,
    transform: Affine,
    classes: np.ndarray = VALLEY,
    *,
    shape: tuple[int, int] = (300, 300),
) -> np.ndarray:
    """Write a preview of a gray scene and return its pixels, int (H, W, 3)."""
    grid = TileGrid(shape, (-(-shape[0] // classes.shape[0]), -(-shape[1] // classes.shape[1])))
    gray = np.full((*shape, 3), 128, np.uint8)
    preview_picture(
        Overview(gray, np.ones(shape, bool), transform, (2.0, 2.0)),
        ShownClasses(classes, GeoGrid(grid, transform, CRS(32632))),
        cells=int((classes >= 0).sum()),
        classes=CLASSES,
        title="A scene",
    ).save(path, "PNG")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def map_panel(pixels: np.ndarray) -> np.ndarray:
    """The right panel of a square scene: the 820 columns before the margin, below the heading."""
    return pixels[140:900, -44 - 820 : -44]


def purest(panel: np.ndarray, channel: int) -> np.ndarray:
    """Mean (row, col), 0 to 1, of the pixels that a class's color rules."""
    others = [c for c in range(3) if c != channel]
    ruled = panel[..., channel] - panel[..., others].max(axis=2) > 60
    assert ruled.any()
    return np.argwhere(ruled).mean(axis=0) / panel.shape[:2]


@pytest.mark.parametrize(
    ("transform", "classes"),
    [
        (Affine(2, 0, 0, 0, -2, 0), VALLEY),
        (Affine(2, 0, 0, 0, 2, 0), VALLEY[::-1]),  # south-up: row 0 lies in the south
        (Affine(-2, 0, 0, 0, -2, 0), VALLEY[:, ::-1]),
        (Affine.rotation(90) @ Affine(2, 0, 0, 0, -2, 0), np.rot90(VALLEY, -1)),
    ],
)
def test_classes_stand_where_they_are_with_north_up(
    tmp_path: Path, transform: Affine, classes: np.ndarray
) -> None:
    panel = map_panel(draw(tmp_path / "map.png", transform, classes))
    red, green, blue = (purest(panel, channel) for channel in range(3))
    assert red[0] < 0.5 < blue[0]
    assert green[0] < 0.5
    assert red[1] < 0.5 < green[1]
    assert blue[1] == pytest.approx(0.5, abs=0.05)
    assert os.listdir(tmp_path) == ["map.png"]


def test_what_has_no_class_stays_bare(tmp_path: Path) -> None:
    panel = map_panel(draw(tmp_path / "map.png", Affine(2, 0, 0, 0, -2, 0)))
    center = panel[panel.shape[0] // 2 - 100 : panel.shape[0] // 2 - 50, 380:440]
    assert (np.ptp(center, axis=2) < 3).all()  # gray


def swatches(path: Path, areas: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Where the legend of a preview shows each class: (x, y) of its swatch.

    ``areas``: cells of each class.
    """
    classes = scene_classes([*areas])
    grid = np.repeat(np.arange(len(areas)), [*areas.values()])[None]
    shape = (grid.size, grid.size)
    gray, transform = np.full((*shape, 3), 128, np.uint8), Affine(2, 0, 0, 0, -2, 0)
    preview_picture(
        Overview(gray, np.ones(shape, bool), transform, (2.0, 2.0)),
        ShownClasses(grid, GeoGrid(TileGrid(shape, (shape[0], 1)), transform, CRS(32632))),
        cells=grid.size,
        classes=classes,
        title="A scene",
    ).save(path, "PNG")
    with Image.open(path) as picture:
        legend = np.asarray(picture.convert("RGB"))[980:]  # below the panels
    places = {}
    for scene_class in classes:
        found = np.argwhere((legend == rgb(scene_class.color)).all(axis=2))
        if len(found) == 21**2:  # the inside of a swatch
            places[scene_class.name] = (int(found[0, 1]), int(found[0, 0]))
    return places


def test_the_legend_lists_classes_under_their_groups(tmp_path: Path) -> None:
    areas = {"reef": 50, "Forest": 20, "River": 10, "DenseResidential": 10, "Pond": 10 + 1}
    found = swatches(tmp_path / "map.png", areas)
    assert sorted(found, key=found.__getitem__) == [
        "Pond",
        "River",
        "Forest",
        "DenseResidential",
        "reef",
    ]
    row = found["River"][1] - found["Pond"][1]
    assert found["Pond"] == (found["River"][0], found["Forest"][1] + row)  # below the group's name
    # Alone in its group, a class stands where names of groups do.
    assert found["Pond"][0] - 45 == 20
    assert len({found[name][0] for name in ("Forest", "DenseResidential", "reef")}) == 1


def test_of_many_classes_small_ones_are_one_line(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(25)]
    areas = {name: 1 if number in (3, 7) else 20 for number, name in enumerate(names)}
    assert swatches(tmp_path / "map.png", areas).keys() == {*names} - {"class 3", "class 7"}
    del areas["class 0"]
    assert swatches(tmp_path / "map.png", areas).keys() == areas.keys()


@pytest.mark.parametrize("shape", [(3, 2), (40, 900), (900, 40), (1, 1)])
def test_any_shape_makes_a_page(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = draw(
        tmp_path / "map.png", Affine(2, 0, 0, 0, -2, 0), np.zeros((1, 1), int), shape=shape
    )
    assert 500 < pixels.shape[1] < 2000
    assert (pixels[:20] == 255).all()  # the margin


@given(st.floats(1e-3, 1e7))
def test_scale_bars_are_round_and_nearly_as_long_as_they_may_be(longest: float) -> None:
    length = round_length(longest)
    assert 0.39 * longest < length <= longest
    assert f"{length:.0e}"[0] in "125"


def test_lengths_read_as_people_write_them() -> None:
    assert [length_label(m) for m in (0.05, 0.5, 1, 8.46, 250, 1000, 2500, 84600, 1.2e6)] == [
        "5 cm",
        "50 cm",
        "1 m",
        "8.5 m",
        "250 m",
        "1 km",
        "2.5 km",
        "85 km",
        "1,200 km",
    ]
