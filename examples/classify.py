"""Map one raster, and say what covers most of it.

python examples/classify.py scene.tif landuse.gpkg
"""

from __future__ import annotations

import sys

from rssc_geo import ClassifyOptions, RsscGeoError, classify


def main(raster: str, output: str) -> None:
    """Map ``raster`` into ``output`` and print hectares by class."""
    result = classify(raster, output, ClassifyOptions(overwrite=True), progress=True)
    classes = sorted(result.summary.classes, key=lambda total: -total.area_m2)
    for total in classes[:5]:
        print(f"{total.name:<20} {total.area_m2 / 1e4:>10,.1f} ha in {total.regions} regions")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RsscGeoError as error:  # a mistake that its one line explains
        sys.exit(str(error))
