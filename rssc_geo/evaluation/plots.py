"""Pictures of an evaluation: confusion matrix, map of the embedding, sheet of mistakes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import RsscGeoError
from rssc_geo.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150
_INK, _FAINT = "#22272e", "#d5d9de"
_FRAME = {"boxstyle": "round,pad=0.25", "facecolor": "#ffffffe5", "linewidth": 1.4}
_MISSING = "pictures of an evaluation need matplotlib: pip install 'rssc-geo[train]'"
_TSNE_POINTS = 2000  # at most: t-SNE takes minutes for more, and the picture fills up
_CELL_IN = 0.34  # a cell of the confusion matrix holds a count of four digits
_COLUMNS, _PICTURE_IN, _GAP_IN, _LINE_IN = 4, 2.5, 0.25, 0.16  # of the sheet of mistakes
_TEXT_WIDTH = 35  # letters of 8.5 points in a picture's width


def require_plots() -> None:
    """Refuse with ``RsscGeoError`` where matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401 -- whether it is installed
    except ImportError as error:
        raise RsscGeoError(_MISSING) from error


def confusion_png(confusion: NDArray[np.integer], names: Sequence[str], *, path: Path) -> None:
    """Draw a confusion matrix: counts in cells, shaded by their share of the row.

    ``confusion`` is integers (C, C) with the truth in rows, ``names`` the C classes. Raises
    ``ValueError`` when these do not fit, ``OutputError`` when the file cannot be written,
    ``RsscGeoError`` without matplotlib.
    """
    classes = len(names)
    if not classes or confusion.shape != (classes, classes):
        raise ValueError(f"a confusion matrix {confusion.shape} does not fit {classes} names")
    support = confusion.sum(1, keepdims=True)
    share = confusion / np.maximum(support, 1)
    side_in = max(3.0, _CELL_IN * classes)
    figure = _figure(side_in, side_in)
    axes = figure.add_axes((0, 0, 1, 1))  # names and bar stand outside: saving takes them in
    shades = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, col in zip(*np.nonzero(confusion), strict=True):
        color = "white" if share[row, col] > 0.55 else _INK
        axes.text(
            col, row, f"{confusion[row, col]}", ha="center", va="center", fontsize=7, color=color
        )
    axes.set_xticks(
        range(classes), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False
    )
    axes.set_yticks(range(classes), names, parse_math=False)
    axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    axes.grid(which="minor", color=_FAINT, linewidth=0.5)
    axes.tick_params(which="both", length=0, labelsize=8, labelcolor=_INK)
    axes.spines[:].set_color(_FAINT)
    axes.set(xlabel="predicted", ylabel="truth")
    right = int(confusion.diagonal().sum())
    axes.set_title(
        f"{right:,} of {int(support.sum()):,} right", loc="left", color=_INK, fontsize=11
    )
    bar = figure.colorbar(
        shades, cax=axes.inset_axes((1 + 0.25 / side_in, 0, 0.15 / side_in, 1)), format="{x:.0%}"
    )
    bar.set_label("share of the true class", color=_INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, labelcolor=_INK, color=_FAINT)
    _save(figure, path)


def tsne_png(
    embedding: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    names: Sequence[str],
    colors: Sequence[str],
    path: Path,
) -> None:
    """Draw an embedding in the plane by t-SNE, each class named at its middle.

    Parameters
    ----------
    embedding : floats (N, D), N ≥ 4, D ≥ 2; more than 2,000 are thinned at random
    labels : integers (N,) into ``names`` and ``colors`` ("#rrggbb")
    path : PNG

    Raises ``ValueError`` when these do not fit, ``OutputError`` when the file cannot be written,
    ``RsscGeoError`` without matplotlib.
    """
    if (
        len(labels) != len(embedding)
        or len(names) != len(colors)
        or not 0 <= labels.min() <= labels.max() < len(names)
    ):
        met = (
            f"{len(embedding)} features, {len(labels)} labels, {len(names)} names, {len(colors)}"
            " colors"
        )
        raise ValueError(f"these do not fit together: {met}")
    rows, points = tsne_coordinates(embedding)
    labels = labels[rows]
    figure = _figure(10, 10)
    axes = figure.add_axes((0, 0, 1, 1), aspect="equal")
    axes.scatter(
        points[:, 0],
        points[:, 1],
        s=14,
        c=[colors[label] for label in labels],
        linewidths=0.3,
        edgecolors="white",
    )
    axes.set_axis_off()
    margin = 0.03 * np.ptp(points)
    (left, bottom), (right, top) = points.min(0) - margin, points.max(0) + margin
    axes.set(xlim=(left, right), ylim=(bottom, top))
    present = np.unique(labels)
    middles = np.array([np.median(points[labels == label], axis=0) for label in present])
    texts = [
        axes.text(
            middle[0], middle[1], names[label], bbox={**_FRAME, "edgecolor": colors[label]},
            ha="center", va="center", fontsize=8.5, color=_INK, parse_math=False, zorder=4,
        )
        for label, middle in zip(present, middles, strict=True)
    ]  # fmt: skip
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts]
    # In pixels: the frames and a little air.
    sizes = np.array([(box.width, box.height) for box in boxes]) + 16
    centers = spread(axes.transData.transform(middles), sizes, within=axes.bbox.extents)
    for text, middle, place in zip(
        texts, middles, axes.transData.inverted().transform(centers), strict=True
    ):
        text.set_position((place[0], place[1]))
        axes.plot((middle[0], place[0]), (middle[1], place[1]), color=_INK, linewidth=0.7, zorder=3)
    _save(figure, path)


def tsne_coordinates(
    embedding: NDArray[np.floating], *, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places in the plane by t-SNE from a PCA start, the same in every run.

    Van der Maaten & Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008. ``embedding`` is floats
    (N, D) with N ≥ 4 and D ≥ 2. Returns which rows were taken, int64 (K,) rising with K ≤ 2,000,
    and their places, float32 (K, 2). Raises ``ValueError`` for fewer.
    """
    from sklearn.manifold import TSNE

    if embedding.ndim != 2 or embedding.shape[0] < 4 or embedding.shape[1] < 2:
        raise ValueError(
            f"t-SNE needs at least 4 features of at least 2 numbers, met {embedding.shape}"
        )
    count = min(len(embedding), _TSNE_POINTS)
    rows = np.sort(np.random.default_rng(seed).permutation(len(embedding))[:count])
    perplexity = min(30.0, (count - 1) / 3)  # the usual 30 needs three times as many neighbors
    places = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(
        embedding[rows].astype(np.float32)
    )
    return rows, np.asarray(places)


def spread(
    centers: NDArray[np.float64],
    sizes: NDArray[np.float64],
    *,
    within: tuple[float, float, float, float],
) -> NDArray[np.float64]:
    """Centers of boxes, moved apart until none overlap, if there is room.

    ``centers`` and ``sizes``: (K, 2); ``within`` is (x0, y0, x1, y1), where all boxes end up. Two
    that overlap part along the axis that takes less.
    """
    low, high = np.array(within[:2]) + sizes / 2, np.array(within[2:]) - sizes / 2
    centers = np.clip(centers, low, high)
    # Parts those in one place.
    order = np.sign(np.arange(len(centers))[:, None] - np.arange(len(centers)))[..., None]
    for _ in range(2000):
        apart = centers[:, None] - centers
        lacking = (sizes[:, None] + sizes) / 2 - np.abs(apart)  # (K, K, 2)
        overlap = (lacking > 0).all(2) & (order[..., 0] != 0)
        if not overlap.any():
            break
        shorter = lacking == lacking.min(2, keepdims=True)
        way = np.where(apart == 0, order, np.sign(apart))
        push = np.where(overlap[..., None] & shorter, way * (lacking / 2 + 0.5), 0)
        centers = np.clip(centers + push.sum(1) / 2, low, high)
    return centers


def mistakes_png(
    pixels: NDArray[np.uint8], titles: Sequence[str], *, captions: Sequence[str], path: Path
) -> None:
    """Draw a sheet of pictures, each between its title and its caption.

    ``pixels`` is uint8 (K, H, W, 3), K ≥ 1, in the order of the sheet. Raises ``ValueError``
    when there are no pictures or not one title and caption each, ``OutputError`` when the file
    cannot be written, ``RsscGeoError`` without matplotlib.
    """
    count = len(pixels)
    if not count or not count == len(titles) == len(captions):
        raise ValueError(
            f"{count} pictures, {len(titles)} titles, {len(captions)} captions: needs one of each,"
            " at least"
        )
    heads, tails = (
        [textwrap.wrap(text, _TEXT_WIDTH) for text in texts] for texts in (titles, captions)
    )
    columns, picture_in = min(count, _COLUMNS), _PICTURE_IN * pixels.shape[1] / pixels.shape[2]
    head_in, tail_in = (_LINE_IN * max(map(len, lines)) for lines in (heads, tails))
    row_in = head_in + picture_in + tail_in + _GAP_IN
    width, height = columns * (_PICTURE_IN + _GAP_IN), -(-count // columns) * row_in
    figure = _figure(width, height)
    for place in range(count):
        row, col = divmod(place, columns)
        left, bottom = col * (_PICTURE_IN + _GAP_IN), height - row * row_in - head_in - picture_in
        axes = figure.add_axes(
            (left / width, bottom / height, _PICTURE_IN / width, picture_in / height)
        )
        axes.imshow(pixels[place], aspect="auto")
        axes.set_axis_off()
        for lines, y, align, weight in (
            (heads[place], bottom + picture_in + 0.06, "bottom", "bold"),
            (tails[place], bottom - 0.06, "top", "normal"),
        ):
            text = figure.text(
                left / width,
                y / height,
                "\n".join(lines),
                va=align,
                weight=weight,
                fontsize=8.5,
                color=_INK,
            )
            text.set(parse_math=False, linespacing=1.2)
    _save(figure, path)


def _figure(width_in: float, height_in: float) -> Figure:
    """An empty white figure that draws without a screen and without pyplot's state."""
    require_plots()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as made:
        figure.savefig(made, format="png", bbox_inches="tight", pad_inches=0.2)
