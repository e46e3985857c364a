"""Draw scenes beside their maps by an earlier program and by this one, for docs/rasters.md.

    python benchmarks/gallery.py OUT RASTER... [--bands 3,2,1] [--before OLD_CHECKOUT]
        [--work WORK]

OUT gets a JPEG a raster, at most 1200 pixels wide: the scene, its map by default settings before
(of a checkout that classifies from its root by ``python -m rssc_geo_cli.main``), its map now.
--bands: which are read as red, green and blue. Maps that are in the work folder are not made again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
from affine import Affine
from PIL import Image
from pyproj import CRS
from rasterio.features import rasterize

from rssc_geo import TilingOptions, load_card, make_plan
from rssc_geo.geometry import Window
from rssc_geo.models import legend_of
from rssc_geo.output import rgb

WIDTH, GAP = 1200, 8
GRAY = 0.45  # share of the scene's gray under the classes


def mapped(raster: Path, target: Path, root: Path, bands: str | None) -> Path:
    """The map of a raster by the program that lies in ``root``."""
    if not target.is_file():
        program = [sys.executable, "-m", "rssc_geo_cli.main", "classify", str(raster.resolve())]
        subprocess.run(
            [*program, "-o", str(target.resolve()), "-q", *(["--bands", bands] if bands else [])],
            check=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'cli'}"},
        )
    return target


def overview(
    raster: Path, side: int, bands: str | None
) -> tuple[np.ndarray, np.ndarray, Affine, CRS]:
    """Pixels (H, W, 3) of ``side`` columns, what is valid of them, transform and CRS."""
    chosen = None if bands is None else tuple(map(int, bands.split(",")))
    plan = make_plan(raster, load_card("compact"), TilingOptions(bands=chosen))
    scene = plan.scene
    shape = round(scene.height * side / scene.width), side
    pixels, valid = plan.picture(Window(0, 0, *scene.shape), shape)
    scale = scene.width / shape[1], scene.height / shape[0]
    return pixels, valid, scene.transform * scene.transform.scale(*scale), scene.crs


def drawn(
    map_path: Path, pixels: np.ndarray, valid: np.ndarray, transform: Affine, crs: CRS
) -> np.ndarray:
    """The scene in gray below the colors of its classes."""
    regions = gpd.read_file(map_path, layer="landuse").to_crs(crs)
    colors = {known.name: rgb(known.color) for known in legend_of(load_card("compact"))}
    numbers = {name: place for place, name in enumerate(colors)}
    shapes = zip(regions.geometry, regions["class"].map(numbers), strict=True)
    classes = rasterize(shapes, pixels.shape[:2], fill=-1, transform=transform, dtype="int16")
    table = np.array([*colors.values(), (255, 255, 255)], float)
    gray = pixels.mean(2, keepdims=True)
    seen = np.where((classes >= 0)[..., None], GRAY * gray + (1 - GRAY) * table[classes], 255)
    return np.where(valid[..., None], seen, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("rasters", type=Path, nargs="+")
    parser.add_argument("--before", type=Path, help="root of an earlier checkout")
    parser.add_argument("--work", type=Path, default=Path("work/gallery"))
    parser.add_argument("--bands", help="as of classify")
    options = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    for root, name in ((options.before, "before"), (here, "now")):
        if root is not None:
            (options.work / name).mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    count = 3 if options.before else 2
    for raster in options.rasters:
        pixels, valid, transform, crs = overview(
            raster, (WIDTH - (count - 1) * GAP) // count, options.bands
        )
        panels = [np.where(valid[..., None], pixels, 255).astype(np.uint8)]
        for root, name in ((options.before, "before"), (here, "now")):
            if root is not None:
                target = options.work / name / f"{raster.stem}.gpkg"
                made = mapped(raster, target, root, options.bands)
                panels.append(drawn(made, pixels, valid, transform, crs))
        gap = np.full((pixels.shape[0], GAP, 3), 255, np.uint8)
        row = [part for panel in panels for part in (panel, gap)][:-1]
        path = options.out / f"{raster.stem}.jpg"
        Image.fromarray(np.concatenate(row, 1)).save(path, quality=80, optimize=True)
        print(path, flush=True)


if __name__ == "__main__":
    main()
