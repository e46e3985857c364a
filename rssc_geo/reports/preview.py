"""A picture of a result: the scene, the scene under its classes, a legend and a scale bar."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from PIL import Image

from rssc_geo.errors import OutputError
from rssc_geo.geometry import TileGrid
from rssc_geo.output import rgb
from rssc_geo.reports.page import Entry, compose, length_label

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_PANEL_WIDTH, _PANEL_HEIGHT = 820, 900  # at most
_STACKED_WIDTH = 1400
_WIDE = 1.9  # width : height from which the panels stand one above the other
_SMOOTHING = 2  # classes are drawn this much larger and shrunk, for smooth edges
_GREY, _DARKEST, _BRIGHTEST = 0.7, 60, 250  # the scene below the classes
_FILL_OPACITY, _LINE_OPACITY = 0.55, 0.9
_VOID, _LINE = (232, 235, 238), (255, 255, 255)


def write_preview(
    path: Path,
    *,
    scene_rgb: np.ndarray,
    scene_mask: np.ndarray,
    transform: Affine,
    gsd_m: tuple[float, float],
    class_grid: np.ndarray,
    grid: TileGrid,
    grid_transform: Affine,
    classes: Sequence[SceneClass],
    title: str,
) -> None:
    """Write a PNG: the scene beside (wide scenes: above) the scene with its classes.

    Parameters
    ----------
    scene_rgb, scene_mask : uint8 (H, W, 3) and bool (H, W), True = valid: the scene, best at about
        1000 pixels a side
    transform : of that array; rasters that are not north-up are turned to be so
    gsd_m : metres a pixel of that array, (row axis, column axis)
    class_grid : integers (cell rows, cell columns), below 0 where there is no class
    grid, grid_transform : of the raster; the transform in the same CRS as ``transform``

    Raises ``OutputError`` when the file cannot be written.
    """
    scene, to_scene, pixel_m = _north_up(scene_rgb, scene_mask, transform, gsd_m)
    ground_m = scene.height * pixel_m[0], scene.width * pixel_m[1]
    size, stacked = _panel_size(ground_m)
    left = scene.resize(
        size, Image.Resampling.NEAREST if size[0] > 3 * scene.width else Image.Resampling.LANCZOS
    )
    to_grid = (
        ~grid_transform
        @ transform
        @ to_scene
        @ Affine.scale(scene.width / size[0], scene.height / size[1])
    )
    right = _with_classes(left, _sample(class_grid, grid, to_grid, size=size), classes)
    entries = _entries(class_grid, grid, classes)
    cells = int((class_grid >= 0).sum())
    subtitle = (
        f"{length_label(ground_m[1])} by {length_label(ground_m[0])}  ·  {cells:,}"
        f" {'cell' if cells == 1 else 'cells'}"
    )
    picture = compose(
        (left, right),
        stacked=stacked,
        metres_a_pixel=ground_m[1] / size[0],
        entries=entries,
        title=title,
        subtitle=subtitle,
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        picture.save(temporary, format="PNG")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}): choose a writable place with room"
        ) from error


def _north_up(
    pixels: np.ndarray, mask: np.ndarray, transform: Affine, gsd_m: tuple[float, float]
) -> tuple[Image.Image, Affine, tuple[float, float]]:
    """The scene north-up with its void filled, the affine from its pixels to the array's, its metres a pixel (row, column)."""
    filled = np.where(mask[..., None], pixels, np.array(_VOID, np.uint8)).astype(np.uint8)
    image = Image.fromarray(filled)
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
        size, Image.Transform.AFFINE, tuple(to_array)[:6], Image.Resampling.BICUBIC, fillcolor=_VOID
    )
    if transform.b == transform.d == 0:
        return turned, to_array, gsd_m
    side = math.sqrt(gsd_m[0] * gsd_m[1])
    return turned, to_array, (side, side)


def _panel_size(ground_m: tuple[float, float]) -> tuple[tuple[int, int], bool]:
    """(width, height) of a panel in pixels for the ground's (height, width), and whether the panels are stacked."""
    stacked = ground_m[1] / ground_m[0] > _WIDE
    limit = (_STACKED_WIDTH, _PANEL_HEIGHT // 2) if stacked else (_PANEL_WIDTH, _PANEL_HEIGHT)
    scale = min(limit[0] / ground_m[1], limit[1] / ground_m[0])
    return (max(1, round(scale * ground_m[1])), max(1, round(scale * ground_m[0]))), stacked


def _sample(
    class_grid: np.ndarray, grid: TileGrid, to_grid: Affine, *, size: tuple[int, int]
) -> np.ndarray:
    """The class at every point of a panel, enlarged for smoothing; -1 for none."""
    col, row = np.meshgrid(*((np.arange(side * _SMOOTHING) + 0.5) / _SMOOTHING for side in size))
    x = to_grid.a * col + to_grid.b * row + to_grid.c
    y = to_grid.d * col + to_grid.e * row + to_grid.f
    inside = (x >= 0) & (y >= 0) & (x < grid.shape[1]) & (y < grid.shape[0])
    cell_row = np.clip(y // grid.cell_size[0], 0, grid.cells_shape[0] - 1).astype(np.intp)
    cell_col = np.clip(x // grid.cell_size[1], 0, grid.cells_shape[1] - 1).astype(np.intp)
    return np.where(inside, class_grid[cell_row, cell_col], -1)


def _with_classes(
    scene: Image.Image, sampled: np.ndarray, classes: Sequence[SceneClass]
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
    gray = Image.blend(scene, scene.convert("L").convert("RGB"), _GREY)
    faded = gray.point(
        [_DARKEST + value * (_BRIGHTEST - _DARKEST) // 255 for value in range(256)] * 3
    )
    drawn = Image.alpha_composite(faded.convert("RGBA"), fill).convert("RGB")
    drawn.paste(_LINE, (0, 0), line)
    return drawn


def _entries(class_grid: np.ndarray, grid: TileGrid, classes: Sequence[SceneClass]) -> list[Entry]:
    """The classes present, the largest first."""
    cell_area = np.outer(np.diff(grid.row_edges()), np.diff(grid.col_edges()))
    found = class_grid >= 0
    area = np.bincount(class_grid[found], weights=cell_area[found], minlength=len(classes))
    order = np.argsort(-area, kind="stable")
    return [
        Entry(classes[i].name, rgb(classes[i].color), area[i] / area.sum())
        for i in order
        if area[i] > 0
    ]
