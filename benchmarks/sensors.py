"""Accuracy on 16-bit reflectance: the same scenes as 8-bit pictures and as a satellite stores them.

    python benchmarks/sensors.py ../shared [--model compact]

Pictures of the test parts of four data sets are laid out as rasters of 8 x 8, a picture a tile, and
classified through the command line. As uint16 they are reflectance times 10,000: each raster has a
gain, a path radiance (haze) that is highest in blue, and Sentinel-2's offset of 1,000; the program
scales it for the whole scene. Right is a tile of a class that its picture's label allows.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
from common import DATA_SETS, write_rgb
from numpy.typing import NDArray
from real_scenes import classify

from rssc_geo.training import SceneImages, load_data_sets, stratified_split

ACROSS = 8
RASTERS = 4
"""Of each data set."""
RESOLUTIONS = {"aid150": 4.0, "ucm256": 0.4, "nwpu160": 4.0, "eurosat64": 3.3}
"""Meters a pixel of pictures that are resampled to the network's input."""
SIZE = 192


def reflectance(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint16]:
    """Pixels ``(3, H, W)`` as digital numbers of a scene."""
    gain = random.uniform(0.15, 0.45)
    haze = random.uniform(0, 0.06) * np.array([0.5, 0.75, 1.0])
    values = pixels / 255 * gain + haze[:, None, None]
    return np.rint(values * 10_000 + 1000).astype(np.uint16)


def rasters(
    data: SceneImages, rows: NDArray[np.int64], random: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Pictures and the raster ``(3, H, W)`` of them."""
    order = random.permutation(rows)
    for start in range(0, min(len(order), RASTERS * ACROSS**2) - ACROSS**2 + 1, ACROSS**2):
        chosen = order[start : start + ACROSS**2]
        grid = data.pixels[chosen].reshape(ACROSS, ACROSS, SIZE, SIZE, 3)
        yield chosen, grid.transpose(4, 0, 2, 1, 3).reshape(3, ACROSS * SIZE, ACROSS * SIZE)


def classes_of(
    bands: NDArray[np.unsignedinteger[Any]], resolution: float, work: Path, model: str
) -> list[str]:
    """The class of each tile, row by row."""
    path, target = work / "scene.tif", work / "map.gpkg"
    write_rgb(path, bands, resolution)
    size = f"{SIZE}px"
    options = ["--tile-size", size, "--cell-size", size, "--no-unknown", "--captioner=none"]
    classify(path, target, [*options, "--model", model])
    cells = pyogrio.read_dataframe(target, layer="cells", read_geometry=False)
    return list(cells.sort_values(["row", "col"])["class"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shared", type=Path, help="folder of data and tools")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--work", type=Path, default=Path("work/sensors"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    folder, random = options.shared / "data", np.random.default_rng(0)
    folders = [folder / name for name in DATA_SETS]
    data = load_data_sets(folders, size=SIZE, taxonomy=folder / "taxonomy.json")
    test = stratified_split(data, seed=0)["test"]
    sets, places = np.array(data.legend.sets), {name: i for i, name in enumerate(data.classes)}
    all_right: list[NDArray[np.bool_]] = []
    for name in DATA_SETS:
        rows = test[sets[data.labels[test]] == name]
        right: list[list[bool]] = [[], []]
        for chosen, bands in rasters(data, rows, random):
            allowed = data.legend.allowed[data.labels[chosen]]
            for kind in range(2):
                pixels = reflectance(bands, random) if kind else bands
                found = classes_of(pixels, RESOLUTIONS[name], options.work, options.model)
                right[kind] += [bool(allowed[i, places[cell]]) for i, cell in enumerate(found)]
        told = np.array(right)
        all_right.append(told)
        byte, word = told.mean(1)
        print(f"{name}: {told.shape[1]} tiles, uint8 {byte:.3f}, uint16 {word:.3f}", flush=True)
    byte, word = np.mean([told.mean(1) for told in all_right], 0)
    print(f"mean: uint8 {byte:.3f}, uint16 {word:.3f}, difference {100 * (byte - word):.1f} points")


if __name__ == "__main__":
    main()
