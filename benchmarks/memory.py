"""Peak memory of `rssc-geo classify` on a sparse raster against one of a hundredth of its area.

    python benchmarks/memory.py [--blocks 200]

They have 100,000 × 100,000 and 10,000 × 10,000 pixels and hold the same number of real 512 px
blocks, scattered; the rest is nodata. A third run classifies 100,000 × 100,000 pixels of nothing,
which costs no model time and ends in "nothing to classify". Peak memory is the largest resident set
of a process of its own (POSIX).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import sparse_scene, verdict


def run(raster: Path, *extra: str) -> tuple[float, float, int]:
    """Peak memory in MB, seconds, exit code."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "rssc_geo_cli.main",
            "classify",
            str(raster),
            "-o",
            f"{folder}/map.gpkg",
            "--tile-size",
            "256px",
            *extra,
        ]
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if errors:
            print(errors.strip().splitlines()[-1])
        return usage.ru_maxrss / 1024, time.perf_counter() - started, code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=200)
    options = parser.parse_args()
    peaks = {}
    for side in (10_000, 100_000):
        peaks[side], seconds, code = run(sparse_scene(side, options.blocks))
        print(f"{side:,}²: peak {peaks[side]:.0f} MB, {seconds:.0f} s, exit code {code}")
        if code:
            return 1
    _, seconds, code = run(sparse_scene(100_000, 0))
    print(f"100,000² of nodata: {seconds:.0f} s, exit code {code}")
    flat = verdict("peak memory, 100,000² / 10,000²", peaks[100_000] / peaks[10_000], at_most=1.15)
    quick = verdict("minutes for 100,000² of nodata", seconds / 60, at_most=5)
    return 0 if flat and quick else 1


if __name__ == "__main__":
    sys.exit(main())
