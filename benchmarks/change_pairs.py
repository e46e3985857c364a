"""Pairs of rasters with known changes, made of one raster each.

The later date of a pair is the earlier one in another light, under haze, shifted by a pixel or
resampled to another grid; or with patches of other scenes pasted in, also with all of these
together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from scipy import ndimage

from rssc_geo import open_scene
from rssc_geo.raster import fit_radiometry

HARMLESS = ("light", "haze", "shift of one pixel", "resampling", "all of these")
SIDE = 800
"""Pixels of a scene that are used, from its middle."""

FIT = (
    *(f"korea10m/202309_{number}.tif" for number in (1, 2, 4, 6)),
    "dubai1m/dubai1.tif",
    "dubai1m/dubai5.tif",
    "rasters/3420B_2010_328_RGB_LATLNG.tif",
    "rasters/river_town_10cm_3395.tif",
    "rasters/pix4d_alpha_nodata.tif",
)
MEASURED = (
    *(f"korea10m/202412_{number}.tif" for number in (1, 2, 4, 5)),
    "dubai1m/dubai3.tif",
    "dubai1m/dubai6.tif",
    "rasters/sentinel2_11band_nodata255.tif",
    "rasters/RGBA.uint16.tif",
    "rasters/m_3607717_sw_18_1_20160620_subset.tif",
    "rasters/cogeo.tif",
    "rasters/rd_netherlands_25cm.tif",
)
"""Scenes to fit on and scenes to measure on, no place in both; patches come from the same list."""

_HAZE = np.array([205.0, 212.0, 222.0])
_FOREIGN_CRS = "EPSG:3857"


@dataclass(frozen=True, slots=True)
class Ground:
    """A part of a scene: uint8 (3, H, W), bool (H, W) True = valid, its place, meters a pixel."""

    name: str
    pixels: np.ndarray
    valid: np.ndarray
    transform: Affine
    crs: str
    gsd_m: float


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rasters, and the mask of their differences.

    ``pasted``: uint8 (H, W) on the grid of ``old``, number of the patch, 0 where nothing was
    pasted; None for an unchanged pair.
    """

    scene: str
    kind: str
    old: Path
    new: Path
    pasted: np.ndarray | None


def make_pairs(data: Path, scenes: tuple[str, ...], work: Path) -> Iterator[Pair]:
    """The pairs of some scenes, in files below ``work``; the same at every call."""
    grounds = [read_ground(data / name) for name in scenes]
    for number, ground in enumerate(grounds):
        random = np.random.default_rng(number)
        folder = work / Path(ground.name).stem
        folder.mkdir(parents=True, exist_ok=True)
        old = write(folder / "old.tif", ground)
        others = [other for other in grounds if other is not ground]
        for kind in HARMLESS:
            new = folder / f"{kind.replace(' ', '_')}.tif"
            write_later(new, ground, kind, random)
            yield Pair(ground.name, kind, old, new, None)
        for kind in ("as it is", "all of these"):
            changed, pasted = paste(ground, others, random)
            new = folder / f"pasted_{kind.replace(' ', '_')}.tif"
            write_later(new, changed, kind, random)
            yield Pair(ground.name, f"pasted, {kind}", old, new, pasted)


def read_ground(path: Path) -> Ground:
    """The middle of a scene, as 8 bit."""
    scene = open_scene(path)
    radiometry = fit_radiometry(scene)
    height, width = (min(SIDE, length) for length in scene.shape)
    top, left = (scene.height - height) // 2, (scene.width - width) // 2
    with scene.open() as handle:
        pixels = handle.read(scene.opening.indexes, window=Window(left, top, width, height))
        valid = handle.dataset_mask(window=Window(left, top, width, height)) > 0
    pixels = radiometry.apply(pixels.transpose(1, 2, 0)).transpose(2, 0, 1)
    place = scene.transform @ Affine.translation(left, top)
    return Ground(path.name, pixels, valid, place, scene.crs.to_wkt(), float(np.mean(scene.gsd_m)))


def write(path: Path, ground: Ground) -> Path:
    """A GeoTIFF with an internal mask."""
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "tiled": True, "compress": "lzw"}
    height, width = ground.valid.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", height=height, width=width, crs=ground.crs,
            transform=ground.transform, **profile,
        ) as file,
    ):  # fmt: skip
        file.write(ground.pixels)
        if not ground.valid.all():
            file.write_mask(ground.valid)
    return path


def write_later(path: Path, ground: Ground, kind: str, random: np.random.Generator) -> None:
    """The scene at another date, with the difference ``kind`` only."""
    every = kind == "all of these"
    pixels, valid, place = ground.pixels.astype(np.float64), ground.valid, ground.transform
    if kind == "light" or every:
        pixels = other_light(pixels, random)
    if kind == "haze" or every:
        pixels = haze(pixels, random)
    if kind == "shift of one pixel" or every:
        rows, cols = random.permutation([1, 0]) if random.random() < 0.5 else (1, 1)
        signs = random.choice([-1, 1], 2)
        offset = int(rows * signs[0]), int(cols * signs[1])
        pixels = np.stack([moved(band, offset) for band in pixels])
        valid = moved(valid, offset)
    later = Ground(ground.name, np.rint(pixels).clip(0, 255).astype(np.uint8), valid, place,
                   ground.crs, ground.gsd_m)  # fmt: skip
    write(path, later)
    if kind == "resampling" or every:
        resample(path, random)


def other_light(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Brighter or darker, of another gamma, and of another color; bright parts keep their detail.

    Saturation would remove detail, which is more than another light.
    """
    gain = np.exp(random.uniform(-0.35, 0.3)) * np.exp(random.uniform(-0.1, 0.1, 3))
    gamma = np.exp(random.uniform(-0.3, 0.3))
    curved = 255 * (pixels / 255) ** gamma
    brightest = np.percentile(curved, 99.5, axis=(1, 2))
    gain = np.minimum(gain, 255 / np.maximum(brightest, 1))
    return np.asarray(curved * gain[:, None, None]).clip(0, 255)


def haze(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Haze that is thicker on one side than on the other."""
    rows, cols = np.meshgrid(*(np.linspace(0, 1, n) for n in pixels.shape[1:]), indexing="ij")
    angle = random.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * (rows - 0.5) + np.sin(angle) * (cols - 0.5) + 0.7) / 1.4
    low, high = np.sort(random.uniform(0.1, 0.5, 2))
    share = low + (high - low) * along
    return np.asarray((1 - share) * pixels + share * _HAZE[:, None, None])


def moved(band: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
    """The band by some rows and columns, its edge repeated."""
    padded = np.pad(band, 1, mode="edge")
    rows, cols = (1 - shift for shift in offset)
    return padded[rows : rows + band.shape[0], cols : cols + band.shape[1]]


def resample(path: Path, random: np.random.Generator) -> None:
    """Bring a file to another grid: another CRS, or pixels of another size, beside the old ones."""
    with rasterio.open(path) as file:
        factor = float(random.choice([0.8, 1.25, 1.5]))
        settings: dict[str, object]
        if random.random() < 0.4:
            settings = {"crs": _FOREIGN_CRS}
        else:
            offset = random.uniform(0, 1, 2)
            grid = file.transform @ Affine.translation(*offset) @ Affine.scale(factor)
            settings = {
                "transform": grid,
                "height": int(file.height / factor) + 1,
                "width": int(file.width / factor) + 1,
                "crs": file.crs,
            }
        with WarpedVRT(file, resampling=Resampling.cubic, add_alpha=True, **settings) as view:
            pixels, alpha = view.read([1, 2, 3]), view.read(4) > 0
            later = Ground("", pixels, alpha, view.transform, view.crs.to_wkt(), 0.0)
    write(path, later)


def paste(
    ground: Ground, others: list[Ground], random: np.random.Generator
) -> tuple[Ground, np.ndarray]:
    """The scene with patches of other scenes, at their size on the ground, and their places."""
    height, width = ground.valid.shape
    pixels = ground.pixels.copy()
    pasted = np.zeros((height, width), np.uint8)
    # From scenes with pixels of similar size only.
    near = [other for other in others if 1 / 5 <= other.gsd_m / ground.gsd_m <= 5]
    for number in range(1, 7):
        other = near[int(random.integers(len(near)))]
        sides = [int(random.uniform(0.1, 0.2) * min(height, width)) for _ in range(2)]
        top, left = (
            int(random.integers(0, length - side))
            for length, side in zip((height, width), sides, strict=True)
        )
        here = np.s_[top : top + sides[0], left : left + sides[1]]
        scale = other.gsd_m / ground.gsd_m
        needed = [min(int(np.ceil(side / scale)) + 1, n)
                  for side, n in zip(sides, other.valid.shape, strict=True)]  # fmt: skip
        row, col = (int(random.integers(0, n - need + 1))
                    for n, need in zip(other.valid.shape, needed, strict=True))  # fmt: skip
        there = np.s_[row : row + needed[0], col : col + needed[1]]
        enough = ground.valid[here].all() and other.valid[there].all()
        if pasted[here].any() or not enough:
            continue
        zoom = [side / need for side, need in zip(sides, needed, strict=True)]
        for band in range(3):
            source = other.pixels[band][there].astype(np.float64)
            pixels[band][here] = ndimage.zoom(source, zoom, order=1).clip(0, 255)
        pasted[here] = number
    changed = Ground(ground.name, pixels, ground.valid, ground.transform, ground.crs, ground.gsd_m)
    return changed, pasted
