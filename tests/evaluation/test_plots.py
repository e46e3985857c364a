"""The pictures of an evaluation are correct, legible, and the same in every run."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rssc_geo.errors import OutputError, RsscGeoError
from rssc_geo.evaluation import (
    confusion_png,
    mistakes_png,
    plots,
    spread,
    tsne_coordinates,
    tsne_png,
)

pytest.importorskip("matplotlib")

NAMES = tuple(
    f"MediumResidential{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcd"
)  # 30 of 18 letters
COLORS = tuple(f"#{hue:02x}60{255 - hue:02x}" for hue in range(0, 240, 8))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved while the test runs."""
    found: list[Any] = []
    save = plots._save
    monkeypatch.setattr(
        plots, "_save", lambda figure, path: (found.append(figure), save(figure, path))
    )
    return found


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def features(count: int, *, classes: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, 8) around one center a class, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return random.normal(size=(classes, 8))[labels] + 0.4 * random.normal(size=(count, 8)), labels


def assert_apart(texts: list[Any]) -> None:
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) > 1
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_confusion_is_shaded_by_the_share_of_the_row(tmp_path: Path, figures: list[Any]) -> None:
    confusion_png(np.array([[90, 10], [0, 4]]), ("Field", "Town $1$"), path=tmp_path / "c.png")
    axes = figures[0].axes[0]
    assert axes.images[0].get_array().tolist() == [[0.9, 0.1], [0, 1]]
    assert sorted(text.get_text() for text in axes.texts) == ["10", "4", "90"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Field", "Town $1$"]
    assert not any(
        label.get_parse_math() for label in [*axes.get_xticklabels(), *axes.get_yticklabels()]
    )
    assert axes.get_title(loc="left") == "94 of 104 right"
    pixels = read(tmp_path / "c.png")
    dark = (pixels[..., 2] - pixels[..., 0] > 60) & (pixels.sum(2) < 400)
    assert dark.mean() > 0.1  # the diagonal


@pytest.mark.slow
def test_confusion_of_thirty_classes_is_legible(tmp_path: Path, figures: list[Any]) -> None:
    confusion = np.full((30, 30), 1234)
    confusion[7] = 0
    confusion_png(confusion, NAMES, path=tmp_path / "c.png")
    height, width = read(tmp_path / "c.png").shape[:2]
    assert 1500 < height < 2300
    assert 1500 < width < 2300
    axes = figures[0].axes[0]
    assert len(axes.texts) == 29 * 30
    assert_apart([*axes.texts, *axes.get_yticklabels()])
    step = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
    assert (
        step * np.sin(np.pi / 4) > 8 / 72 * figures[0].dpi
    )  # room between slanted lines of 8 points


@pytest.mark.parametrize(("shape", "names"), [((2, 3), ("a", "b")), ((2, 2), ("a",)), ((0, 0), ())])
def test_confusion_refuses_what_does_not_fit(
    tmp_path: Path, shape: tuple[int, int], names: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        confusion_png(np.zeros(shape, int), names, path=tmp_path / "c.png")


def test_tsne_is_the_same_in_every_run() -> None:
    embedding = np.random.default_rng(0).normal(
        size=(60, 600)
    )  # so wide that the PCA draws random numbers
    rows, places = tsne_coordinates(embedding, seed=3)
    assert rows.tolist() == list(range(60))
    assert places.shape == (60, 2)
    assert places.tobytes() == tsne_coordinates(embedding, seed=3)[1].tobytes()


def test_tsne_keeps_classes_together() -> None:
    embedding, labels = features(120, classes=4)
    _, places = tsne_coordinates(embedding)
    centers = np.stack([places[labels == label].mean(0) for label in range(4)])
    nearest = np.linalg.norm(places[:, None] - centers, axis=2).argmin(1)
    assert (nearest == labels).mean() > 0.95


def test_tsne_is_thinned_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "_TSNE_POINTS", 50)
    embedding, _ = features(120)
    rows, places = tsne_coordinates(embedding, seed=1)
    assert len(rows) == len(places) == 50
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() != tsne_coordinates(embedding, seed=2)[0].tolist()


@pytest.mark.parametrize("separation", [0.0, 1.0])
def test_tsne_names_every_class_once_and_apart(
    tmp_path: Path, figures: list[Any], separation: float
) -> None:
    embedding, labels = features(300)
    embedding = separation * embedding + (1 - separation) * np.random.default_rng(1).normal(
        size=embedding.shape
    )
    tsne_png(embedding, labels, names=NAMES, colors=COLORS, path=tmp_path / "t.png")
    axes = figures[0].axes[0]
    assert sorted(text.get_text() for text in axes.texts) == sorted(NAMES)
    assert_apart(axes.texts)
    assert axes.collections[0].get_facecolors().shape == (300, 4)
    pixels = read(tmp_path / "t.png")
    assert min(pixels.shape[:2]) > 600
    assert 0.005 < (np.ptp(pixels, axis=2) > 60).mean() < 0.5  # colored points on white


def test_tsne_refuses_what_does_not_fit(tmp_path: Path) -> None:
    embedding, labels = features(10, classes=3)
    fitting: dict[str, Any] = {"names": NAMES[:3], "colors": COLORS[:3], "path": tmp_path / "t.png"}
    for wrong, message in (
        ({"labels": labels[1:]}, "9 labels"),
        ({"names": NAMES[:2]}, "2 names"),
        ({"labels": labels + 1}, "3 names"),
        ({"embedding": embedding[:3], "labels": labels[:3]}, "at least 4"),
        ({"embedding": embedding[:, :1]}, "at least 2 numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            tsne_png(**({"embedding": embedding, "labels": labels} | fitting | wrong))


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(20, 160), st.integers(20, 40)), min_size=20, max_size=20),
)
def test_boxes_are_spread_until_none_overlap(
    centers: list[tuple[int, int]], sizes: list[tuple[int, int]]
) -> None:
    size = np.array(sizes[: len(centers)], float)
    moved = spread(np.array(centers, float), size, within=(0, 0, 1000, 1000))
    low, high = moved - size / 2, moved + size / 2
    assert low.min() >= 0
    assert high.max() <= 1000
    for i, j in itertools.combinations(range(len(moved)), 2):
        assert (high[i] <= low[j] + 1e-6).any() or (high[j] <= low[i] + 1e-6).any()


def test_boxes_that_lie_apart_stay() -> None:
    centers = np.array([[100.0, 100.0], [300.0, 100.0]])
    assert (
        spread(centers, np.array([[150.0, 30.0]] * 2), within=(0, 0, 400, 400)) == centers
    ).all()


def test_mistakes_show_pictures_and_words_apart(tmp_path: Path, figures: list[Any]) -> None:
    pixels = np.stack(
        [np.full((24, 24, 3), (shade, 0, 200), np.uint8) for shade in range(0, 240, 40)]
    )
    titles = ["DenseResidential → MediumResidential, 98 %", *["River → Pond, 61 %"] * 5]
    captions = [
        "many $green$ trees and buildings are around a baseball field with a road between them ."
    ] * 6
    mistakes_png(pixels, titles, captions=captions, path=tmp_path / "m.png")
    figure = figures[0]
    assert [" ".join(text.get_text().split()) for text in figure.texts[1::2]] == captions
    assert not any(text.get_parse_math() for text in figure.texts)
    assert figure.texts[0].get_text().count("\n") == 1
    figure.canvas.draw()
    assert_apart(figure.texts)
    for axes, head, tail in zip(figure.axes, figure.texts[::2], figure.texts[1::2], strict=True):
        assert head.get_window_extent().y0 >= axes.bbox.y1
        assert tail.get_window_extent().y1 <= axes.bbox.y0
        assert (
            max(head.get_window_extent().x1, tail.get_window_extent().x1)
            <= axes.bbox.x1 + 0.2 * figure.dpi
        )
    drawn = read(tmp_path / "m.png")
    for shade in range(0, 240, 40):
        assert ((drawn == (shade, 0, 200)).all(2).sum()) > 300**2


def test_one_mistake_without_a_caption(tmp_path: Path) -> None:
    mistakes_png(
        np.zeros((1, 8, 16, 3), np.uint8), ["a → b, 50 %"], captions=[""], path=tmp_path / "m.png"
    )
    black = (read(tmp_path / "m.png") == 0).all(2)
    assert black.any(0).sum() == pytest.approx(
        2 * black.any(1).sum(), rel=0.2
    )  # twice as wide as high, and its title


@pytest.mark.parametrize(("count", "titles"), [(0, []), (2, ["a"])])
def test_mistakes_need_one_title_each(tmp_path: Path, count: int, titles: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{count} pictures"):
        mistakes_png(
            np.zeros((count, 8, 8, 3), np.uint8),
            titles,
            captions=[""] * count,
            path=tmp_path / "m.png",
        )


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        confusion_png(np.eye(2, dtype=int), ("a", "b"), path=tmp_path / "none" / "c.png")
    (tmp_path / "c.png").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        confusion_png(np.eye(2, dtype=int), ("a", "b"), path=tmp_path / "c.png")
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RsscGeoError, match=r"need matplotlib: pip install 'rssc-geo\[train\]'"):
        confusion_png(np.eye(2, dtype=int), ("a", "b"), path=tmp_path / "c.png")


def test_pyplot_is_left_alone(tmp_path: Path) -> None:
    """A figure of pyplot's own stays in memory until it is closed, and may want a screen."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    confusion_png(np.eye(2, dtype=int), ("a", "b"), path=tmp_path / "c.png")
    assert pyplot.get_fignums() == before
