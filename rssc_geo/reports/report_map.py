"""The map of a report as SVG: the scene's picture below one path a class, north up, in a page of
1000 units.

Everything is given in the raster's pixels and turned by one matrix, so that rotated and south-up
rasters lie right without being resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine

from rssc_geo.geometry import TileGrid, Window, dissolve
from rssc_geo.reports.markup import data_uri, text

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_SIDE = 1000.0  # units of the page's longer side
_CELLS = 250_000  # drawn at most: of a finer grid every k-th cell is shown, k × k times as large


@dataclass(frozen=True, slots=True)
class Page:
    """``to_page`` turns (pixel column, pixel row) into page units.

    ``size`` (width, height) of the page in units.
    """

    to_page: Affine
    size: tuple[float, float]
    metres_a_unit: float

    def center(self, window: Window) -> tuple[float, float]:
        """Where the middle of a pixel window lies on the page (x, y)."""
        x, y = self.to_page @ (window.col + window.width / 2, window.row + window.height / 2)
        return x, y


def lay_out(shape: tuple[int, int], transform: Affine, gsd_m: tuple[float, float]) -> Page:
    """The page of a raster.

    ``shape`` (rows, columns), its affine, metres a pixel along (row, column).
    """
    if transform.b == transform.d == 0:
        turned = Affine.scale(
            np.copysign(gsd_m[1], transform.a), np.copysign(gsd_m[0], -transform.e)
        )
    else:
        # One scale for both axes, as only their mean is known to hold in every direction.
        scale = float(np.sqrt(gsd_m[0] * gsd_m[1] / abs(transform.determinant)))
        turned = Affine.scale(scale, -scale) @ Affine(
            transform.a, transform.b, 0, transform.d, transform.e, 0
        )
    x, y = zip(
        *(turned @ (col, row) for col in (0, shape[1]) for row in (0, shape[0])), strict=True
    )
    width_m, height_m = max(x) - min(x), max(y) - min(y)
    unit = max(width_m, height_m) / _SIDE
    to_page = Affine.scale(1 / unit) @ Affine.translation(-min(x), -min(y)) @ turned
    return Page(to_page, (width_m / unit, height_m / unit), unit)


def map_svg(
    page: Page,
    *,
    picture: bytes,
    shape: tuple[int, int],
    class_grid: np.ndarray,
    grid: TileGrid,
    classes: Sequence[SceneClass],
) -> str:
    """The ``svg`` element.

    ``picture``: JPEG of the whole raster of ``shape`` (rows, columns); ``class_grid``: integers
    (cell rows, cell columns), below 0 for none.
    """
    width, height = (f"{side:.2f}" for side in page.size)
    matrix = " ".join(
        f"{value:.9g}" for value in (page.to_page.a, page.to_page.d, page.to_page.b, page.to_page.e)
    )
    matrix += f" {page.to_page.c:.9g} {page.to_page.f:.9g}"
    paths = "\n".join(
        f'<path id="class-{index}" d="{path}"'
        f' fill="{classes[index].color}"><title>{text(classes[index].name)}</title></path>'
        for index, path in _paths(class_grid, grid)
    )
    return (
        f'<svg id="map" viewBox="0 0 {width} {height}" data-metres="{page.metres_a_unit:.9g}"'
        ' tabindex="0" role="img" aria-label="The scene under its classes" style="aspect-ratio:'
        f' {width} / {height}">\n<g transform="matrix({matrix})">\n<image width="{shape[1]}"'
        f' height="{shape[0]}" preserveAspectRatio="none" href="{data_uri(picture)}"/>\n<g'
        f' id="classes">\n{paths}\n</g>\n<rect id="spot" width="0" height="0"/>\n</g>\n</svg>'
    )


def _paths(class_grid: np.ndarray, grid: TileGrid) -> list[tuple[int, str]]:
    """Of each class present its number and the outline of all its cells, in pixels."""
    step = max(1, int(np.ceil(np.sqrt(class_grid.size / _CELLS))))
    if step > 1:
        rows, cols = (
            np.minimum(np.arange(-(-count // step)) * step + step // 2, count - 1)
            for count in class_grid.shape
        )
        class_grid = class_grid[np.ix_(rows, cols)]
        grid = TileGrid(grid.shape, (grid.cell_size[0] * step, grid.cell_size[1] * step))
    regions = dissolve(grid, Affine.identity(), classes=class_grid, nothing=-1)
    found: dict[int, list[str]] = {}
    for index, polygon in zip(regions.class_ids.tolist(), regions.polygons(), strict=True):
        found.setdefault(index, []).extend(_ring(ring) for ring in shapely.get_rings(polygon))
    return [(index, "".join(rings)) for index, rings in sorted(found.items())]


def _ring(ring: shapely.LinearRing) -> str:
    """A ring of sides along the axes as SVG commands."""
    corners = shapely.get_coordinates(ring).astype(int)
    steps = np.diff(corners, axis=0)[:-1]  # the last side is drawn by closing
    sides = "".join(f"h{x}" if x else f"v{y}" for x, y in steps.tolist())
    return f"M{corners[0, 0]} {corners[0, 1]}{sides}z"
