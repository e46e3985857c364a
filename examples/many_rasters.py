"""Map several rasters with one model, loaded once, and go on where one cannot be mapped.

    python examples/many_rasters.py maps/ a.tif b.tif c.tif

For thousands of scenes, with a journal of what became of each, there is ``rssc-geo batch``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rssc_geo import ClassifyOptions, RsscGeoError, classify, load_model


def main(folder: str, *rasters: str) -> None:
    """Map each of ``rasters`` into ``folder``."""
    model = load_model("compact")
    options = ClassifyOptions(overwrite=True)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for raster in rasters:
        output = Path(folder) / f"{Path(raster).stem}.gpkg"
        try:
            result = classify(raster, output, options, model=model)
        except RsscGeoError as error:
            print(f"{raster}: {error}")
        else:
            print(f"{output}: {result.summary.cells} cells, {result.seconds:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
