"""Share of Unknown cells of rasters that are no photographs, and of real scenes.

    python benchmarks/unknown.py ../shared [--model compact]

Elevation, shaded relief, a color ramp, a map of categories, radar, noise, clouds and a street map
are made here, at 2 and 10 m a pixel; false colors, drone close-ups and pixels of 300 m are real
rasters. All are classified through the command line by default settings, with --force where they
are out of the model's range. None was trained on: made-up pictures of the training are others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
from common import write_rgb
from numpy.typing import NDArray
from real_scenes import classify

from rssc_geo.output import read_provenance

SIDE = 768
RESOLUTIONS = (2, 10)
REAL = (
    "3420B_2010_328_RGB_LATLNG.tif",
    "m_3607717_sw_18_1_20160620_subset.tif",
    "sentinel2_11band_nodata255.tif",
    "ms1.tif",
    "rd_netherlands_25cm.tif",
    "cogeo.tif",
    "pix4d_alpha_nodata.tif",
    "sample_geotiff_custom_proj.tif",
)
STRANGE = {
    "false color, NAIP": ("m_3607717_sw_18_1_20160620_subset.tif", "--bands=4,1,2"),
    "false color, Landsat 4-3-2": ("L7_ETMs.tif", "--bands=4,3,2"),
    "false color, Landsat 5-4-3": ("L7_ETMs.tif", "--bands=5,4,3"),
    "false color, Sentinel-2 8-4-3": ("sentinel2_11band_nodata255.tif", "--bands=7,3,2"),
    "drone, 1.8 cm": ("drone_1.8cm_nodata0.tif",),
    "300 m pixels, 1": ("RGB.byte.tif",),
    "300 m pixels, 2": ("mosaic_cog1.tif",),
}


@dataclass(frozen=True)
class Asked:
    """A raster to classify."""

    name: str
    path: Path
    options: tuple[str, ...] = ()
    real: bool = False


def terrain(random: np.random.Generator) -> NDArray[np.float64]:
    """Heights in [0, 1] whose spectrum falls with the square of the frequency."""
    frequency = np.fft.fftfreq(2 * SIDE)
    radius = np.hypot(frequency[:, None], frequency)
    radius[0, 0] = 1
    spectrum = np.fft.fft2(random.normal(size=radius.shape)) / radius**2
    heights = np.fft.ifft2(spectrum).real[:SIDE, :SIDE]
    return np.asarray((heights - heights.min()) / np.ptp(heights))


def made(
    photograph: NDArray[np.float64], random: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Pictures in [0, 1], ``(H, W)`` or ``(3, H, W)``."""
    heights = terrain(random)
    down, right = np.gradient(heights * 25)
    steps, ramp = np.linspace(0, 1, 5), random.uniform(0, 1, (5, 3))
    places = np.digitize(heights, np.quantile(heights, [0.1, 0.25, 0.45, 0.6, 0.8, 0.9]))
    cover = np.clip((terrain(random) - 0.5) * 2.5 + 1, 0, 1)
    streets = np.full((3, SIDE, SIDE), 0.98)
    for place in random.integers(SIDE, size=(30, 2)).tolist():
        streets[:, place[0] : place[0] + 4] = random.uniform(0, 1, (3, 1, 1))
        streets[:, :, place[1] : place[1] + 6] = random.uniform(0, 1, (3, 1, 1))
    radar = {
        f"radar, {looks} looks": np.sqrt(
            photograph.mean(0).clip(0.02, 1) * random.gamma(looks, 1 / looks, photograph.shape[1:])
        )
        for looks in (1, 4)
    }
    return {
        "elevation": heights,
        "shaded relief": 0.6 + 0.4 * (right + down) / np.sqrt(2 * (1 + right**2 + down**2)),
        "elevation in a color ramp": np.stack([np.interp(heights, steps, c) for c in ramp.T]),
        "map of categories": random.uniform(0, 1, (7, 3))[places].transpose(2, 0, 1),
        **radar,
        "white noise": random.uniform(0, 1, (3, SIDE, SIDE)),
        "gray noise": random.normal(0.5, 0.2, (SIDE, SIDE)),
        "clouds": cover * 0.95 + (1 - cover) * 0.3 + random.normal(0, 0.01, (3, SIDE, SIDE)),
        "street map": streets,
    }


def write(path: Path, picture: NDArray[np.float64], resolution: float) -> Path:
    """A picture in [0, 1] as a GeoTIFF of three bands of bytes."""
    whole = picture if picture.ndim == 3 else picture[None]
    bands = np.broadcast_to(whole, (3, *picture.shape[-2:]))
    return write_rgb(path, np.rint(bands.clip(0, 1) * 255).astype(np.uint8), resolution)


def rasters(data: Path, work: Path) -> Iterator[Asked]:
    """What is no photograph, then real scenes."""
    random = np.random.default_rng(77)
    with rasterio.open(data / "korea10m/202412_1.tif") as file:
        photograph = file.read()[:, :512, :512] / 255
    for resolution in RESOLUTIONS:
        for name, picture in made(photograph, random).items():
            path = work / f"{name.replace(' ', '_').replace(',', '')}_{resolution}m.tif"
            yield Asked(f"{name}, {resolution} m", write(path, picture, resolution))
    for name, (file_name, *options) in STRANGE.items():
        yield Asked(name, data / "rasters" / file_name, tuple(options))
    scenes = [*data.glob("korea10m/*.tif"), *data.glob("dubai1m/*.tif")]
    for path in [*sorted(scenes), *(data / "rasters" / name for name in REAL)]:
        if not path.stem.endswith("_mask"):
            yield Asked(path.stem, path, real=True)


def unknown_share(asked: Asked, target: Path, model: str) -> tuple[float, dict[str, object]]:
    """The share of cells that are Unknown, and how the raster as a whole was judged."""
    options = ["--force", "--captioner=none", "--model", model, *asked.options]
    classify(asked.path, target, options)
    cells = pyogrio.read_dataframe(target, layer="cells", columns=["class"], read_geometry=False)
    judged = read_provenance(target).get("steps", {}).get("judge_raster", {})
    return float((cells["class"] == "Unknown").mean()), judged


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path, help="folder of data and tools")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--work", type=Path, default=Path("work/unknown"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    shares: dict[bool, list[float]] = {False: [], True: []}
    for asked in rasters(options.shared / "data", options.work):
        share, judged = unknown_share(asked, options.work / "map.gpkg", options.model)
        shares[asked.real].append(share)
        line = {"real": asked.real, "unknown": round(share, 3), **judged}
        print(f"{asked.name}: {json.dumps(line)}", flush=True)
    for real, found in shares.items():
        kind = "real scenes" if real else "no photographs"
        print(f"{kind}: {np.mean(found):.3f} Unknown in the mean of {len(found)}", flush=True)


if __name__ == "__main__":
    main()
