"""Map classes that are named by words.

python examples/words.py scene.tif landuse.gpkg
"""

from __future__ import annotations

import sys

from rssc_geo import ZeroShotOptions, zero_shot

CLASSES = {
    "water": ["sea", "river", "lake"],
    "forest": ["dense trees", "woodland"],
    "open land": ["farmland with fields", "meadow"],
    "built-up": ["houses along streets", "factories", "car park"],
}


def main(raster: str, output: str) -> None:
    """Map ``raster`` into the classes above, moved towards the groups that its own tiles form."""
    options = ZeroShotOptions(refine=True, overwrite=True)  # and "other"; without it: other=False
    result = zero_shot(raster, output, CLASSES, options)
    print(*(f"{total.name}: {total.cells} cells" for total in result.summary.classes), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
