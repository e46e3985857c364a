"""The preview: the scene beside the scene under its classes, with a legend and a scale bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rssc_geo.errors import OutputError
from rssc_geo.files import atomic_write
from rssc_geo.geometry import TileGrid, Window
from rssc_geo.inference import Plan
from rssc_geo.models import by_group
from rssc_geo.output import LandUseSummary, Rgb, ShownClasses, rgb

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_SIDE = 1200  # pixels of the longer side that are read; the picture shows about as many
_PANEL_WIDTH, _PANEL_HEIGHT = 820, 900  # at most
_STACKED_WIDTH = 1400
_WIDE = 1.9  # width : height from which the panels stand one above the other
_SMOOTHING = 2  # classes are drawn this much larger and shrunk, for smooth edges
_GRAY, _DARKEST, _BRIGHTEST = 0.7, 60, 250  # the scene below the classes
_FILL_OPACITY, _LINE_OPACITY = 0.55, 0.9
VOID = (232, 235, 238)
_LINE = (255, 255, 255)
PAPER, INK, RULE = (255, 255, 255), (28, 32, 36), (214, 219, 224)
_FAINT = (108, 116, 124)
MARGIN, GAP = 44, 28
TITLE, SMALL = 36, 18
_TEXT = 21
_ROW, _SWATCH = 36, 22
_COLUMN = 230, 480  # of the legend, at least and at most
_INDENT = 20  # of a group's classes
_MANY = 25  # classes, from which on those of a share under _SMALL are one line
_SMALL = 0.005
_SHARE = 80  # width of a percentage
_NARROWEST = 660
_BAR_SHARE = 0.3  # of the panel's width, at most


@dataclass(frozen=True, slots=True)
class Overview:
    """A reduced read of a scene.

    Attributes
    ----------
    pixels : uint8 (H, W, 3)
    mask : bool (H, W), True = valid
    transform : (column, row) of ``pixels`` into the scene's CRS
    gsd_m : meters a pixel along (row axis, column axis)
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    transform: Affine
    gsd_m: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the legend: a class, or without a color a group or the classes left out.

    ``share`` of the classified area; ``indented``: a class under its group.
    """

    text: str
    share: float
    color: Rgb | None = None
    indented: bool = False


def read_overview(plan: Plan, *, side: int) -> Overview:
    """The whole scene, its longer side at most ``side`` pixels; ``InputError`` if unreadable."""
    scene = plan.scene
    reduction = max(1.0, max(scene.shape) / side)
    rows, cols = (max(1, round(length / reduction)) for length in scene.shape)
    whole = Window(0, 0, scene.height, scene.width)
    pixels, mask = plan.picture(whole, (rows, cols))
    return Overview(
        pixels,
        mask,
        scene.transform @ Affine.scale(scene.width / cols, scene.height / rows),
        (scene.gsd_m[0] * scene.height / rows, scene.gsd_m[1] * scene.width / cols),
    )


def draw_preview(
    path: Path,
    plan: Plan,
    summary: LandUseSummary,
    classes: Sequence[SceneClass],
    *,
    overwrite: bool,
) -> Path:
    """Write the picture of a finished map to ``path``, which is returned.

    Raises ``InputError`` when the raster cannot be read, ``OutputError`` when the file cannot be
    written.
    """
    picture = preview_picture(
        read_overview(plan, side=_SIDE),
        summary.shown,
        cells=summary.cells,
        classes=classes,
        title=plan.scene.name,
    )
    with atomic_write(path, overwrite=overwrite) as made:
        picture.save(made, format="PNG")
    return path


def preview_picture(
    overview: Overview,
    shown: ShownClasses,
    *,
    cells: int,
    classes: Sequence[SceneClass],
    title: str,
) -> Image.Image:
    """Draw the scene beside (wide scenes: above) the scene with its classes.

    Parameters
    ----------
    overview : best at about 1000 pixels a side; rasters that are not north-up are turned to be so
    shown : the map's classes, in the CRS of the overview
    cells : how many the map has
    classes : those of the legend
    title : of the scene
    """
    scene, to_scene, pixel_m = _north_up(overview)
    ground_m = scene.height * pixel_m[0], scene.width * pixel_m[1]
    size, stacked = _panel_size(ground_m)
    left = scene.resize(
        size, Image.Resampling.NEAREST if size[0] > 3 * scene.width else Image.Resampling.LANCZOS
    )
    to_grid = (
        ~shown.geo.transform
        @ overview.transform
        @ to_scene
        @ Affine.scale(scene.width / size[0], scene.height / size[1])
    )
    class_grid, grid = shown.class_grid, shown.geo.grid
    right = _with_classes(left, _sample(class_grid, grid, to_grid, size=size), classes)
    subtitle = (
        f"{length_label(ground_m[1])} by {length_label(ground_m[0])}  ·  {cells:,}"
        f" {'cell' if cells == 1 else 'cells'}"
    )
    return _compose(
        (left, right),
        stacked=stacked,
        metres_a_pixel=ground_m[1] / size[0],
        blocks=_blocks(class_grid, grid, classes),
        heading=(title, subtitle),
    )


def _north_up(overview: Overview) -> tuple[Image.Image, Affine, tuple[float, float]]:
    """The scene north-up, its void filled.

    Also the affine from its pixels to the overview's, and its meters a pixel (row, column).
    """
    transform, gsd_m = overview.transform, overview.gsd_m
    image = Image.fromarray(filled(overview.pixels, overview.mask))
    if transform.b == transform.d == 0 and transform.a > 0 > transform.e:
        return image, Affine.identity(), gsd_m
    step = math.sqrt(abs(transform.determinant))
    x, y = zip(
        *(transform @ (col, row) for col in (0, image.width) for row in (0, image.height)),
        strict=True,
    )
    size = max(1, round((max(x) - min(x)) / step)), max(1, round((max(y) - min(y)) / step))
    north_up = Affine(
        (max(x) - min(x)) / size[0], 0, min(x), 0, (min(y) - max(y)) / size[1], max(y)
    )
    to_array = ~transform @ north_up
    turned = image.transform(
        size, Image.Transform.AFFINE, tuple(to_array)[:6], Image.Resampling.BICUBIC, fillcolor=VOID
    )
    if transform.b == transform.d == 0:
        return turned, to_array, gsd_m
    side = math.sqrt(gsd_m[0] * gsd_m[1])
    return turned, to_array, (side, side)


def _panel_size(ground_m: tuple[float, float]) -> tuple[tuple[int, int], bool]:
    """(width, height) of a panel in pixels, and whether the panels are stacked.

    ``ground_m``: (height, width) of the scene.
    """
    stacked = ground_m[1] / ground_m[0] > _WIDE
    limit = (_STACKED_WIDTH, _PANEL_HEIGHT // 2) if stacked else (_PANEL_WIDTH, _PANEL_HEIGHT)
    scale = min(limit[0] / ground_m[1], limit[1] / ground_m[0])
    return (max(1, round(scale * ground_m[1])), max(1, round(scale * ground_m[0]))), stacked


def _sample(
    class_grid: NDArray[np.int32], grid: TileGrid, to_grid: Affine, *, size: tuple[int, int]
) -> NDArray[np.int32]:
    """The class at every point of a panel, enlarged for smoothing; -1 for none."""
    col, row = np.meshgrid(*((np.arange(side * _SMOOTHING) + 0.5) / _SMOOTHING for side in size))
    x = to_grid.a * col + to_grid.b * row + to_grid.c
    y = to_grid.d * col + to_grid.e * row + to_grid.f
    inside = (x >= 0) & (y >= 0) & (x < grid.shape[1]) & (y < grid.shape[0])
    cell_row = np.clip(y // grid.cell_size[0], 0, grid.cells_shape[0] - 1).astype(np.intp)
    cell_col = np.clip(x // grid.cell_size[1], 0, grid.cells_shape[1] - 1).astype(np.intp)
    return np.where(inside, class_grid[cell_row, cell_col], -1)


def _with_classes(
    scene: Image.Image, sampled: NDArray[np.int32], classes: Sequence[SceneClass]
) -> Image.Image:
    """The scene under translucent classes with thin lines between them."""
    palette = np.array(
        [(*rgb(scene_class.color), round(255 * _FILL_OPACITY)) for scene_class in classes]
        + [(0, 0, 0, 0)],
        np.uint8,
    )
    border = np.zeros(sampled.shape, bool)
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differs = sampled[one] != sampled[other]
        border[one] |= differs
        border[other] |= differs
    overlay = palette[sampled]
    fill = Image.fromarray(overlay).resize(scene.size, Image.Resampling.BOX)
    line = Image.fromarray(np.where(border, round(255 * _LINE_OPACITY), 0).astype(np.uint8)).resize(
        scene.size, Image.Resampling.BOX
    )
    # Faded, so that a class looks alike over dark and bright ground and as in the legend.
    gray = Image.blend(scene, scene.convert("L").convert("RGB"), _GRAY)
    faded = gray.point(
        [_DARKEST + value * (_BRIGHTEST - _DARKEST) // 255 for value in range(256)] * 3
    )
    drawn = Image.alpha_composite(faded.convert("RGBA"), fill).convert("RGB")
    drawn.paste(_LINE, (0, 0), line)
    return drawn


def _blocks(
    class_grid: NDArray[np.int32], grid: TileGrid, classes: Sequence[SceneClass]
) -> list[list[_Line]]:
    """The legend's lines: groups over their classes, the largest first, and classes alone.

    Of many classes the small ones are combined.
    """
    cell_area = np.outer(np.diff(grid.row_edges()), np.diff(grid.col_edges()))
    found = class_grid >= 0
    area = np.bincount(class_grid[found], weights=cell_area[found], minlength=len(classes))
    share = {c.id: float(area[c.id] / area.sum()) for c in classes if area[c.id] > 0}
    least = _SMALL if len(share) >= _MANY else 0.0
    blocks = []
    for group, members in by_group(c for c in classes if c.id in share).items():
        shown = [c for c in members if share[c.id] >= least]
        headed = bool(group) and len(shown) > 1
        lines = [
            _Line(c.title, share[c.id], rgb(c.color), indented=headed)
            for c in sorted(shown, key=lambda c: -share[c.id])
        ]
        if headed:
            blocks.append([_Line(group, sum(share[c.id] for c in members)), *lines])
        else:
            blocks += [[line] for line in lines]
    if rest := [value for value in share.values() if value < least]:
        words = f"{len(rest)} more class{'es' if len(rest) > 1 else ''}"
        blocks.append([_Line(words, sum(rest))])
    return blocks


def _in_columns(blocks: Sequence[Sequence[_Line]], count: int) -> list[list[_Line]]:
    """The blocks in at most ``count`` columns, as short as they can be with no block split."""
    rows = max([math.ceil(sum(map(len, blocks)) / count), *map(len, blocks)])
    while True:
        columns: list[list[_Line]] = [[]]
        for block in blocks:
            if len(columns[-1]) + len(block) > rows:
                columns.append([])
            columns[-1] += block
        if len(columns) <= count:
            return columns
        rows += 1


def _compose(
    panels: tuple[Image.Image, Image.Image],
    *,
    stacked: bool,
    metres_a_pixel: float,
    blocks: Sequence[Sequence[_Line]],
    heading: tuple[str, str],
) -> Image.Image:
    """The page: both panels, of one size, side by side or stacked, under title and subtitle."""
    width, height = panels[0].size
    across, down = (1, 2) if stacked else (2, 1)
    block = across * width + (across - 1) * GAP
    inner = max(block, _NARROWEST)
    count = max(1, (inner + GAP) // _column_width(blocks))
    columns = _in_columns(blocks, count)
    rows = max(1, *map(len, columns))
    top = MARGIN + TITLE + 14 + SMALL + GAP
    bottom = top + down * height + (down - 1) * GAP
    legend_top = bottom + 16 + _ROW + GAP
    page = Image.new(
        "RGB", (inner + 2 * MARGIN, legend_top + rows * _ROW + MARGIN - (_ROW - _SWATCH)), PAPER
    )
    draw = ImageDraw.Draw(page)
    font = page_font(TITLE)
    draw.text((MARGIN - 1, MARGIN), fitted(heading[0], font, inner), INK, font, anchor="lt")
    draw.text((MARGIN, MARGIN + TITLE + 14), heading[1], _FAINT, page_font(SMALL), anchor="lt")
    left = MARGIN + (inner - block) // 2
    for index, panel in enumerate(panels):
        x = left if stacked else left + index * (width + GAP)
        y = top + index * (height + GAP) if stacked else top
        page.paste(panel, (x, y))
        draw.rectangle((x - 1, y - 1, x + width, y + height), outline=RULE)
    scale_bar(
        draw,
        right=left + block,
        y=bottom + 16,
        metres_a_pixel=metres_a_pixel,
        longest=int(width * _BAR_SHARE),
    )
    draw.text(
        (left, bottom + 18), "Share of the classified area", _FAINT, page_font(SMALL), anchor="lt"
    )
    _legend(draw, columns, (MARGIN, legend_top), step=(inner + GAP) // count)
    return page


def length_label(meters: float) -> str:
    """A length as text: ``85 cm``, ``850 m``, ``8.5 km``, ``85 km``."""
    if meters >= 1000:
        return f"{_rounded(meters / 1000)} km"
    if meters >= 1:
        return f"{_rounded(meters)} m"
    return f"{_rounded(meters * 100)} cm"


def round_length(longest_m: float) -> float:
    """The longest of 1, 2 and 5 times a power of ten that is no longer than ``longest_m``."""
    power = 10.0 ** math.floor(math.log10(longest_m))
    # 0.5: the logarithm may round up to the next power.
    return max(step * power for step in (0.5, 1, 2, 5) if step * power <= longest_m)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def scale_bar(
    draw: ImageDraw.ImageDraw, *, right: int, y: int, metres_a_pixel: float, longest: int
) -> None:
    """A bar of a round length, at most ``longest`` pixels, that ends at ``right``."""
    meters = round_length(max(longest, 1) * metres_a_pixel)
    start = right - round(meters / metres_a_pixel)
    middle = y + 12
    draw.line((start, middle, right, middle), INK, 3)
    for x in (start, right):
        draw.line((x, middle - 7, x, middle + 7), INK, 3)
    draw.text((start - 12, middle), length_label(meters), INK, page_font(SMALL), anchor="rm")


def _text_left(line: _Line) -> int:
    """Where a line's text begins, in pixels from the left of its column."""
    return (_INDENT if line.indented else 0) + (0 if line.color is None else _SWATCH + 12)


def _column_width(blocks: Sequence[Sequence[_Line]]) -> int:
    font = page_font(_TEXT)
    longest = max(
        (_text_left(line) + font.getlength(line.text) for block in blocks for line in block),
        default=0.0,
    )
    return round(min(max(longest + 14 + _SHARE + GAP, _COLUMN[0]), _COLUMN[1]))


def _legend(
    draw: ImageDraw.ImageDraw,
    columns: Sequence[Sequence[_Line]],
    corner: tuple[int, int],
    *,
    step: int,
) -> None:
    """The columns of the legend, ``step`` pixels apart."""
    text, small = page_font(_TEXT), page_font(SMALL)
    for place, column in enumerate(columns):
        end = corner[0] + (place + 1) * step - GAP
        for row, line in enumerate(column):
            x, y = corner[0] + place * step + _text_left(line), corner[1] + row * _ROW
            if line.color is not None:
                left = x - 12 - _SWATCH
                edge = tuple(round(0.7 * c) for c in line.color)
                draw.rectangle((left, y, left + _SWATCH, y + _SWATCH), line.color, edge)
            share = "< 0.1 %" if line.share < 0.001 else f"{100 * line.share:.1f} %"
            name = fitted(line.text, text, end - small.getlength(share) - 14 - x)
            draw.text((x, y + _SWATCH / 2), name, INK, text, anchor="lm")
            draw.text((end, y + _SWATCH / 2), share, _FAINT, small, anchor="rm")


def fitted(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text on one line, cut with an ellipsis where it is longer than the room."""
    text = " ".join(text.split())
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def page_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures, ``size`` pixels high."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise OutputError(
            "this Pillow was built without FreeType, which --preview needs: reinstall it"
        )
    return font


def filled(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) with gray where the mask (H, W) is False."""
    return np.where(mask[..., None], pixels, np.array(VOID, np.uint8)).astype(np.uint8)
