"""Draw the demo scene and write it as a georeferenced GeoTIFF.

    python examples/make_demo_scene.py demo/scene.tif

Everything in the picture is drawn by code from a seed (``demo_scene/``): no photograph and no data
are read. The file is an 8-bit RGB GeoTIFF of 4.5 × 4.5 km, tiled, with overviews and an internal
mask that leaves out the corner and the edges the camera did not see. The place, on the Ligurian
coast in UTM 32 north, is made up.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rasterio
from affine import Affine
from demo_scene.plan import DemoScene, draw_scene
from rasterio.enums import ColorInterp, Resampling

CRS = "EPSG:32632"
EAST_M, NORTH_M = 421_000.0, 4_862_000.0
"""The north-west corner."""


def write_scene(scene: DemoScene, path: Path, *, shift_km: float = 0) -> None:
    """Write a scene as GeoTIFF, ``shift_km`` further east than usual.

    The folder is made if need be, an existing file is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = scene.mask.shape
    profile = {
        "driver": "GTiff", "height": height, "width": width, "count": 3, "dtype": "uint8",
        "photometric": "RGB",
        "crs": CRS,
        "transform": Affine(scene.gsd_m, 0, EAST_M + 1000 * shift_km, 0, -scene.gsd_m, NORTH_M),
        "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2,
        "zlevel": 6,
    }  # fmt: skip
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(path, "w", **profile) as target:
            target.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            target.write(scene.pixels.transpose(2, 0, 1))
            target.write_mask(scene.mask)
        with rasterio.open(path, "r+") as target:
            target.build_overviews([2, 4, 8, 16], Resampling.average)


def main() -> None:
    """Read the command line, draw, write, print where the file is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="GeoTIFF to write, e.g. demo/scene.tif")
    parser.add_argument(
        "--gsd", type=float, default=4, help="meters a pixel (default 4: 1125 × 1125 pixels)"
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="another number, another landscape of the same plan"
    )
    parser.add_argument(
        "--shift-km", type=float, default=0, help="how much further east it lies (default 0)"
    )
    arguments = parser.parse_args()
    if not 0.5 <= arguments.gsd <= 20:
        parser.error(f"--gsd must lie between 0.5 and 20 meters, not {arguments.gsd:g}")
    scene = draw_scene(gsd_m=arguments.gsd, seed=arguments.seed)
    write_scene(scene, arguments.output, shift_km=arguments.shift_km)
    print(arguments.output)


if __name__ == "__main__":
    main()
