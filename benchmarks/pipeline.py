"""End-to-end tiles/s (raster in, GeoPackage out) against the model alone on the same batches.

    python benchmarks/pipeline.py [--side 4096] [--tile 128] [--repeats 3]

Both run in one process with the embedded bundle and its captioner; the end-to-end time includes
opening the scene, reading, aggregating, writing both layers and closing the file, not loading the
model. Repeats are interleaved.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import dense_scene, median_rates, rate_options, verdict

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the program does, before torch is loaded

from rssc_geo.captioning import make_captioner
from rssc_geo.geometry import TileGrid
from rssc_geo.inference import Predictor, choose_compute
from rssc_geo.models import load_bundle
from rssc_geo.options import ClassifyOptions
from rssc_geo.pipelines.classify import classify
from rssc_geo.raster import TileReader, fit_radiometry, open_scene


def main() -> int:
    options = rate_options(__doc__)
    path = dense_scene(options.side)
    model = load_bundle("compact")
    compute = choose_compute()
    classifier = Predictor(model, make_captioner(model), compute)
    tiling = ClassifyOptions(tile_size=f"{options.tile}px")

    scene = open_scene(path)
    grid = TileGrid((scene.height, scene.width), (options.tile, options.tile))
    with TileReader(scene, grid, fit_radiometry(scene), out_size=model.card.input_size) as reader:
        tiles = list(reader)
    batches = [tiles[i : i + compute.batch_size] for i in range(0, len(tiles), compute.batch_size)]
    arrays = [
        (np.stack([t.pixels for t in batch]), np.stack([t.mask for t in batch]))
        for batch in batches
    ]

    def alone() -> float:
        started = time.perf_counter()
        for pixels, mask in arrays:
            classifier(pixels, mask)
        return len(tiles) / (time.perf_counter() - started)

    def end_to_end() -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            classify(path, Path(folder) / "map.gpkg", tiling, model=classifier)
            return len(tiles) / (time.perf_counter() - started)

    alone()
    rates: dict[str, list[float]] = {"model alone": [], "end to end": []}
    for _ in range(options.repeats):
        rates["model alone"].append(alone())
        rates["end to end"].append(end_to_end())
    medians = median_rates(rates)
    print(
        f"{len(tiles)} tiles of {options.tile} px, {compute.device}, {compute.dtype}, batches of"
        f" {compute.batch_size}"
    )
    return (
        0
        if verdict(
            "end to end / model alone",
            medians["end to end"] / medians["model alone"],
            at_least=0.90,
        )
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())
