"""Peak memory of `rssc-geo classify` on a sparse raster against one of a hundredth of its area.

    python benchmarks/memory.py [--blocks 200]

They have 100,000 × 100,000 and 10,000 × 10,000 pixels and hold the same number of real 512 px
blocks, scattered; the rest is nodata. A third run classifies 100,000 × 100,000 pixels of nothing,
which costs no model time and ends in "nothing to classify". Peak memory is the largest resident set
of a process of its own (POSIX).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from common import Measured, measured, sparse_scene, verdict


def run(raster: Path) -> Measured:
    """Map a raster."""
    with tempfile.TemporaryDirectory() as folder:
        found = measured("classify", raster, "-o", f"{folder}/map.gpkg", "--tile-size", "256px")
    if found.errors:
        print(found.errors.strip().splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=200)
    options = parser.parse_args()
    peaks = {}
    for side in (10_000, 100_000):
        found = run(sparse_scene(side, options.blocks))
        peaks[side] = found.memory_mb
        print(
            f"{side:,}²: peak {peaks[side]:.0f} MB, {found.seconds:.0f} s, exit code {found.code}"
        )
        if found.code:
            return 1
    nothing = run(sparse_scene(100_000, 0))
    print(f"100,000² of nodata: {nothing.seconds:.0f} s, exit code {nothing.code}")
    flat = verdict("peak memory, 100,000² / 10,000²", peaks[100_000] / peaks[10_000], at_most=1.15)
    quick = verdict("minutes for 100,000² of nodata", nothing.seconds / 60, at_most=5)
    return 0 if flat and quick else 1


if __name__ == "__main__":
    sys.exit(main())
