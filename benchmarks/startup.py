"""How long `rssc-geo --help` and `rssc-geo info` take as whole commands.

python benchmarks/startup.py [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import dense_scene, verdict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    program = str(Path(sys.executable).with_name("rssc-geo"))
    commands = {
        "seconds of rssc-geo --help": ([program, "--help"], 0.3),
        "seconds of rssc-geo info": ([program, "info", str(dense_scene(4096))], 1.5),
    }
    good = True
    for name, (command, limit) in commands.items():
        times = []
        for _ in range(options.repeats + 1):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - started)
        good &= verdict(name, statistics.median(times[1:]), at_most=limit)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
