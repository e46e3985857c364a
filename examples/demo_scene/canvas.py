"""The canvas.

Albedo and height on a pixel grid, addressed in meters, with the brushes everything else is drawn
with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

FloatArray = NDArray[np.floating[Any]]  # float32 on the canvas; coordinates may come as float64
BoolArray = NDArray[np.bool_]
Point = tuple[float, float]
Color = tuple[float, float, float]
Slices = tuple[slice, slice]

_STAMP_PIXELS = (
    2_000_000  # stamps are drawn in chunks of about this many pixels, to bound the memory
)


def smooth_noise(
    canvas: Canvas,
    scale_m: float,
    rng: np.random.Generator,
    octaves: int = 1,
    window: Slices | None = None,
) -> FloatArray:
    """Return a field of about unit variance over the window (the whole canvas by default).

    Its blobs measure about ``scale_m``, halved each octave; it is the same ground at any pixel
    size.
    """
    rows, cols = window or (slice(0, canvas.shape[0]), slice(0, canvas.shape[1]))
    total = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.float32)
    variance = 0.0
    for octave in range(octaves):
        cell = scale_m / 2**octave
        count = math.ceil(canvas.size_m / cell) + 3
        lattice = Image.fromarray(rng.standard_normal((count, count), np.float32))
        scale = canvas.gsd_m / cell
        box = (
            1 + cols.start * scale,
            1 + rows.start * scale,
            1 + cols.stop * scale,
            1 + rows.stop * scale,
        )
        total += np.asarray(
            lattice.resize(total.shape[::-1], Image.Resampling.BICUBIC, box)
        ) * np.float32(0.6**octave)
        variance += 0.36**octave
    return total / np.float32(
        math.sqrt(0.6 * variance)
    )  # interpolation leaves about 0.6 of the lattice's variance


@dataclass(frozen=True, slots=True)
class Patch:
    """Where a shape lies: its window on the canvas and its coverage there (0 to 1)."""

    window: Slices
    coverage: FloatArray


def patch_of(where: BoolArray) -> Patch:
    """Return the patch of an area that is not empty, given as a mask of the whole canvas."""
    rows, cols = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1))
    return Patch(window, where[window].astype(np.float32))


@dataclass(slots=True)
class Canvas:
    """A square of ground of ``size_m`` meters a side seen at ``gsd_m`` meters a pixel.

    ``albedo`` is (height, width, 3) in 0..1, ``height`` is meters above the ground, ``taken`` marks
    the pixels where nothing may grow (water, roads, roofs).
    """

    size_m: float
    gsd_m: float
    albedo: FloatArray = field(init=False)
    height: FloatArray = field(init=False)
    taken: BoolArray = field(init=False)

    def __post_init__(self) -> None:
        side = round(self.size_m / self.gsd_m)
        self.gsd_m = self.size_m / side  # whole pixels fill the square
        self.albedo = np.zeros((side, side, 3), np.float32)
        self.height = np.zeros((side, side), np.float32)
        self.taken = np.zeros((side, side), np.bool_)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height.shape[0], self.height.shape[1]

    def centers(self, window: Slices) -> tuple[FloatArray, FloatArray]:
        """Return the pixel centers of a window in meters: x as (1, columns), y as (rows, 1)."""
        rows, cols = window
        x = (np.arange(cols.start, cols.stop, dtype=np.float32) + 0.5) * np.float32(self.gsd_m)
        y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * np.float32(self.gsd_m)
        return x[None, :], y[:, None]

    def window(self, x: Sequence[float], y: Sequence[float], margin_m: float = 0.0) -> Slices:
        """Return the window of the given coordinates, clipped to the canvas (it may be empty)."""

        def axis(values: Sequence[float], length: int) -> slice:
            low = math.floor((min(values) - margin_m) / self.gsd_m)
            high = math.ceil((max(values) + margin_m) / self.gsd_m) + 1
            return slice(min(max(low, 0), length), max(min(high, length), 0))

        return axis(y, self.shape[0]), axis(x, self.shape[1])

    def box(self, window: Slices) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the ranges of x and y of a window in meters."""
        rows, cols = window
        return (cols.start * self.gsd_m, cols.stop * self.gsd_m), (
            rows.start * self.gsd_m,
            rows.stop * self.gsd_m,
        )

    def polygons(self, outlines: Sequence[Sequence[Point]]) -> Patch:
        """Return the coverage of the union of some polygons."""
        return self._draw(outlines, None)

    def line(self, points: Sequence[Point], width_m: float) -> Patch:
        """Return the coverage of a polyline of a width, its joints round."""
        return self._draw([points], width_m)

    def _draw(self, outlines: Sequence[Sequence[Point]], width_m: float | None) -> Patch:
        xs, ys = zip(*[point for outline in outlines for point in outline], strict=True)
        window = self.window(xs, ys, (width_m or 0.0) / 2 + self.gsd_m)
        rows, cols = window[0].stop - window[0].start, window[1].stop - window[1].start
        if rows <= 0 or cols <= 0:
            return Patch((slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32))
        # Twice the resolution, then the mean: soft edges, as a sensor sees them.
        image = Image.new("L", (2 * cols, 2 * rows))
        pen = ImageDraw.Draw(image)
        scale = 2 / self.gsd_m
        for outline in outlines:
            dots = [
                (x * scale - 2 * window[1].start, y * scale - 2 * window[0].start)
                for x, y in outline
            ]
            if width_m is None:
                pen.polygon(dots, fill=255)
            else:
                pen.line(dots, fill=255, width=max(1, round(width_m * scale)), joint="curve")
        return Patch(window, np.asarray(image.reduce(2), np.float32) / 255)

    def paint(
        self,
        patch: Patch,
        color: Color | FloatArray,
        *,
        height_m: float | None = None,
        take: bool = True,
    ) -> None:
        """Lay a color (one, or one a pixel of the patch) over a patch.

        ``height_m`` sets the height there.
        """
        part = self.albedo[patch.window]
        part += patch.coverage[..., None] * (np.asarray(color, np.float32) - part)
        inside = patch.coverage > 0.5
        if height_m is not None:
            self.height[patch.window][inside] = height_m
        if take:
            self.taken[patch.window] |= inside

    def free(self, x: FloatArray, y: FloatArray, where: BoolArray | None = None) -> BoolArray:
        """Say which points lie on the canvas, not on taken pixels and, if given, in ``where``."""
        rows, cols = (
            np.floor(y / self.gsd_m).astype(np.int64),
            np.floor(x / self.gsd_m).astype(np.int64),
        )
        inside = (rows >= 0) & (rows < self.shape[0]) & (cols >= 0) & (cols < self.shape[1])
        rows, cols = np.where(inside, rows, 0), np.where(inside, cols, 0)
        result: BoolArray = inside & ~self.taken[rows, cols]
        if where is not None:
            result &= where[rows, cols]
        return result

    def boxes(
        self,
        centers: FloatArray,
        sizes: FloatArray,
        angles: FloatArray,
        colors: FloatArray,
        heights: FloatArray,
        *,
        pitch: float = 0.0,
        hipped: bool = False,
        ribs_m: float = 0.0,
    ) -> None:
        """Put up boxes: houses, sheds, cars, boats.

        ``centers`` (N, 2) x and y; ``sizes`` (N, 2) length and width; ``angles`` (N,) radians from
        the x axis to the length; ``colors`` (N, 3); ``heights`` (N,) of the eaves. ``pitch`` is the
        rise of the roof per meter from the eaves, towards a ridge along the length (``hipped``:
        from all four sides); ``ribs_m`` draws darker ribs across the roof.
        """
        for some, rows, cols, dx, dy in self._stamps(
            centers, np.hypot(sizes[:, 0], sizes[:, 1]) / 2
        ):
            cos, sin = np.cos(angles[some])[:, None, None], np.sin(angles[some])[:, None, None]
            along = sizes[some, 0, None, None] / 2 - np.abs(dx * cos + dy * sin)
            across = sizes[some, 1, None, None] / 2 - np.abs(dy * cos - dx * sin)
            coverage = np.clip(along / self.gsd_m + 0.5, 0, 1) * np.clip(
                across / self.gsd_m + 0.5, 0, 1
            )
            roof = heights[some, None, None] + pitch * np.maximum(
                np.minimum(along, across) if hipped else across, 0
            )
            color = np.broadcast_to(colors[some, None, None, :], (*coverage.shape, 3))
            if ribs_m:
                color = color * (1 - 0.13 * (np.mod(along, ribs_m) < 0.3 * ribs_m))[..., None]
            hit = coverage > 0.03
            at = rows[hit], cols[hit]
            self.albedo[at] += coverage[hit][:, None] * (color[hit] - self.albedo[at])
            solid = coverage > 0.5
            self.height[rows[solid], cols[solid]] = roof[solid]
            self.taken[rows[solid], cols[solid]] = True

    def crowns(
        self, centers: FloatArray, radii: FloatArray, heights: FloatArray, colors: FloatArray
    ) -> None:
        """Grow trees: domes at ``centers`` (N, 2) of ``radii`` and ``heights`` (N,).

        Where crowns meet the higher shows.
        """
        for some, rows, cols, dx, dy in self._stamps(centers, radii):
            inside = 1 - (dx**2 + dy**2) / radii[some, None, None] ** 2
            dome = heights[some, None, None] * (0.35 + 0.65 * np.sqrt(np.maximum(inside, 0)))
            hit = inside > 0
            at = rows[hit], cols[hit]
            np.maximum.at(self.height, at, dome[hit])
            owner = np.broadcast_to(some[:, None, None], hit.shape)[hit]
            top = self.height[at] <= dome[hit]
            self.albedo[at[0][top], at[1][top]] = colors[owner[top]]

    def _stamps(
        self, centers: FloatArray, reach_m: FloatArray
    ) -> Iterator[
        tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], FloatArray, FloatArray]
    ]:
        """Yield chunks of objects: their indexes, and rows, columns, offsets that stamps touch.

        Offsets are in meters. Pixels off the canvas are given an infinite offset, hence no
        coverage, and a harmless index.
        """
        order = np.argsort(
            reach_m, kind="stable"
        )  # objects of like size share a chunk and so its stamp size
        start = 0
        while start < len(order):
            # The largest object of the chunk sets its stamp: guess the length from the first, then
            # measure.
            side = 2 * math.ceil(float(reach_m[order[start]]) / self.gsd_m) + 3
            some = order[start : start + max(1, _STAMP_PIXELS // (4 * side**2))]
            start += len(some)
            half = math.ceil(float(reach_m[some[-1]]) / self.gsd_m) + 1
            offsets = np.arange(-half, half + 1)
            rows = (
                np.floor(centers[some, 1] / self.gsd_m).astype(np.int64)[:, None, None]
                + offsets[None, :, None]
            )
            cols = (
                np.floor(centers[some, 0] / self.gsd_m).astype(np.int64)[:, None, None]
                + offsets[None, None, :]
            )
            dy = ((rows + 0.5) * self.gsd_m - centers[some, 1, None, None]).astype(np.float32)
            dx = ((cols + 0.5) * self.gsd_m - centers[some, 0, None, None]).astype(np.float32)
            dy = np.where((rows >= 0) & (rows < self.shape[0]), dy, np.float32(1e9))
            dx = np.where((cols >= 0) & (cols < self.shape[1]), dx, np.float32(1e9))
            shape = (len(some), len(offsets), len(offsets))
            rows = np.broadcast_to(np.clip(rows, 0, self.shape[0] - 1), shape)
            cols = np.broadcast_to(np.clip(cols, 0, self.shape[1] - 1), shape)
            yield some, rows, cols, np.broadcast_to(dx, shape), np.broadcast_to(dy, shape)
